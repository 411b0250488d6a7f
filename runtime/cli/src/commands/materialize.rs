//! `unskew materialize` and `unskew materialize-incremental`: from history to the online store.

use std::fmt::Write as _;
use std::sync::Arc;

use indicatif::HumanCount;
use serde_json::{Value, json};
use unskew_core::time;
use unskew_store::{Gap, Materialize, MaterializeSpan, Materialized, StoreError};

use crate::Outcome;
use crate::arguments;
use crate::clock::{self, Stopwatch};
use crate::document::{Document, Rows};
use crate::error::Usage;
use crate::output::Output;
use crate::progress::Bars;
use crate::repository;

/// Materializes what became available from START to END.
pub(crate) async fn range(
    arguments: arguments::Materialize,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let arguments::Materialize { start, end, views } = arguments;
    let now = clock::now();
    let end = end.at(now);
    if end < start {
        return Err(Usage(StoreError::EmptySpan { start, end }.to_string()).into());
    }
    run(MaterializeSpan::Range { start, end }, views, now, output).await
}

/// Materializes what became available since the last time.
pub(crate) async fn incremental(
    arguments: arguments::MaterializeIncremental,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let arguments::MaterializeIncremental { end, views } = arguments;
    let now = clock::now();
    let end = end.at(now);
    run(MaterializeSpan::Incremental { end }, views, now, output).await
}

async fn run(
    span: MaterializeSpan,
    views: arguments::Views,
    now: i64,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let bars = Arc::new(Bars::new(output));
    let stopwatch = Stopwatch::start();
    let request = Materialize {
        views: views.views,
        span,
        now,
    };
    let progress = Arc::clone(&bars) as Arc<dyn unskew_offline::Progress>;
    let done = store.materialize(request, progress).await?;
    bars.clear();
    let seconds = stopwatch.seconds();
    output.print(&report(&done, seconds), |_| text(&done, seconds))?;
    Ok(Outcome::Done)
}

fn report(done: &[Materialized], seconds: f64) -> Document {
    let mut report = Document::default();
    report.rows("views", table(done));
    report.value("seconds", seconds);
    report
}

fn table(done: &[Materialized]) -> Rows {
    let mut rows = Rows::new(["view", "rows_read", "rows_written", "watermark", "gap"]);
    for view in done {
        rows.row([
            json!(view.view),
            json!(view.rows_read),
            json!(view.rows_written),
            instant(view.watermark),
            view.gap.map_or(Value::Null, gap),
        ]);
    }
    rows
}

fn text(done: &[Materialized], seconds: f64) -> String {
    if done.is_empty() {
        return "no view is served online: nothing to materialize\n".to_owned();
    }
    let mut text = table(done).text("");
    for view in done {
        if let Some((_, until)) = view.gap {
            let until = time::format(until);
            let _ = writeln!(
                text,
                "`{0}` has a gap: its watermark does not advance before `unskew \
                 materialize-incremental {until} -v {0}` closes it",
                view.view
            );
        }
    }
    let read = done.iter().map(|view| view.rows_read).sum();
    let per_second = read as f64 / seconds.max(f64::EPSILON);
    let _ = writeln!(
        text,
        "\n{} rows read in {seconds:.2} s ({} rows/s)",
        HumanCount(read),
        HumanCount(per_second as u64)
    );
    text
}

/// An instant as JSON; null if there is none.
pub(crate) fn instant(micros: Option<i64>) -> Value {
    micros.map_or(Value::Null, |micros| time::format(micros).into())
}

/// What was not materialized: `after` (null: from the beginning) and `before` are materialized.
pub(crate) fn gap((after, before): Gap) -> Value {
    json!({"after": instant(after), "before": instant(Some(before))})
}
