//! `unskew compact`: few large files instead of many small ones.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde_json::json;
use unskew_offline::Compacted;
use unskew_store::Compaction;

use crate::Outcome;
use crate::arguments;
use crate::clock::{self, Stopwatch};
use crate::document::{Document, Rows};
use crate::output::Output;
use crate::progress::Bars;
use crate::repository;

/// Merges the files of a source.
pub(crate) async fn run(arguments: arguments::Compact, output: &Output) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let bars = Arc::new(Bars::new(output));
    let stopwatch = Stopwatch::start();
    let compaction = Compaction {
        source: arguments.source,
        target_bytes: arguments.target_file_size,
        grace: Duration::from_micros(u64::try_from(arguments.grace.0).unwrap_or(0)),
        now: clock::now(),
    };
    let progress = Arc::clone(&bars) as Arc<dyn unskew_offline::Progress>;
    let done = store.compact(&compaction, progress).await?;
    bars.clear();
    let seconds = stopwatch.seconds();
    output.print(&report(&done, seconds), |_| text(&done, seconds))?;
    Ok(Outcome::Done)
}

fn report(done: &Compacted, seconds: f64) -> Document {
    let mut report = Document::default();
    report.value("files_before", done.files_before);
    report.value("files_after", done.files_after);
    let mut merged = Rows::new(["file", "files", "rows", "bytes"]);
    for file in &done.merged {
        merged.row([
            json!(file.file),
            json!(file.files),
            json!(file.rows),
            json!(file.bytes),
        ]);
    }
    report.rows("merged", merged);
    report.value("removed", json!(done.removed));
    report.value("kept", done.kept);
    report.value("seconds", seconds);
    report
}

fn text(done: &Compacted, seconds: f64) -> String {
    let mut text = String::new();
    for file in &done.merged {
        let _ = writeln!(
            text,
            "{} files, {} rows → {} ({})",
            HumanCount(file.files),
            HumanCount(file.rows),
            file.file,
            HumanBytes(file.bytes)
        );
    }
    if done.merged.is_empty() {
        let _ = writeln!(text, "there is nothing to merge");
    }
    if !done.removed.is_empty() {
        let count = HumanCount(done.removed.len() as u64);
        let _ = writeln!(text, "{count} replaced files were deleted");
    }
    if done.kept > 0 {
        let count = HumanCount(done.kept);
        let _ = writeln!(text, "{count} replaced files are kept until the next run");
    }
    let _ = writeln!(
        text,
        "{} files before, {} now, in {seconds:.2} s",
        HumanCount(done.files_before),
        HumanCount(done.files_after)
    );
    text
}
