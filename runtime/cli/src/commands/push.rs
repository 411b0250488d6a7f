//! `unskew push`: rows to their source, and online.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use indicatif::HumanCount;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use unskew_offline::PushedRows;
use unskew_store::{Push, PushTo, Pushed};

use crate::Outcome;
use crate::arguments::{self, STANDARD};
use crate::clock::{self, Stopwatch};
use crate::document::{Document, Rows};
use crate::error::Usage;
use crate::output::{Output, note};
use crate::progress::Steps;
use crate::repository;

/// Reads the rows, and pushes them.
pub(crate) async fn run(arguments: arguments::Push, output: &Output) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let (target, file) = arguments.target()?;
    if file.as_os_str() == STANDARD && std::io::stdin().is_terminal() {
        return Err(
            Usage("standard input is a terminal; pipe Arrow IPC into it".to_owned()).into(),
        );
    }
    let to = match arguments.to {
        arguments::PushTo::Online => PushTo::Online,
        arguments::PushTo::Offline => PushTo::Offline,
        arguments::PushTo::OnlineAndOffline => PushTo::OnlineAndOffline,
    };
    let steps = Steps::new(output);
    let stopwatch = Stopwatch::start();
    let path = file.to_owned();
    let rows = tokio::task::spawn_blocking(move || read(&path)).await??;
    if output.is_watched() {
        let count = HumanCount(rows.batch().num_rows() as u64);
        steps.say(format!("pushing {count} rows"));
    }
    let push = Push {
        target,
        rows,
        to,
        now: clock::now(),
    };
    let pushed = store.push(push).await?;
    steps.clear();
    if !output.is_json() {
        for warning in &pushed.warnings {
            note(&format!("warning: {warning}"));
        }
    }
    let seconds = stopwatch.seconds();
    output.print(&report(&pushed, seconds), |_| text(&pushed, seconds))?;
    Ok(Outcome::Done)
}

/// The rows of a file, by the ending of its name.
fn read(file: &Path) -> anyhow::Result<PushedRows> {
    let unreadable = || format!("cannot read `{}`", file.display());
    if file.as_os_str() == STANDARD {
        let reader = StreamReader::try_new(std::io::stdin().lock(), None)
            .context("standard input is no stream of Arrow IPC")?;
        let schema = reader.schema();
        return Ok(PushedRows::Typed(whole(schema, reader).context(
            "standard input ends early, or is no stream of Arrow IPC",
        )?));
    }
    let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.to_str() {
        Some("parquet") => {
            let opened = File::open(file).with_context(unreadable)?;
            let reader =
                ParquetRecordBatchReaderBuilder::try_new(opened).with_context(unreadable)?;
            let schema = Arc::clone(reader.schema());
            let reader = reader.build().with_context(unreadable)?;
            let rows = whole(schema, reader).with_context(unreadable)?;
            Ok(PushedRows::Typed(rows))
        }
        Some("csv") => {
            let mut text = Vec::new();
            let mut opened = File::open(file).with_context(unreadable)?;
            opened.read_to_end(&mut text).with_context(unreadable)?;
            Ok(PushedRows::Texts(csv(&text).with_context(unreadable)?))
        }
        _ => Err(Usage(format!(
            "the name of `{}` ends neither in .parquet nor in .csv, so its format is not known; - \
             stands for Arrow IPC on standard input",
            file.display()
        ))
        .into()),
    }
}

/// All fields as texts; an empty one is null.
fn csv(text: &[u8]) -> Result<RecordBatch, ArrowError> {
    /// Spreadsheets write a byte order mark before the first line.
    const MARK: &[u8] = "\u{feff}".as_bytes();
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let format = Format::default().with_header(true);
    // The names are all that is wanted of it.
    let (named, _) = format.infer_schema(text, Some(0))?;
    let fields = named.fields().iter();
    let fields = fields.map(|field| Field::new(field.name(), DataType::Utf8, true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let reader = ReaderBuilder::new(Arc::clone(&schema))
        .with_format(format)
        .build(text)?;
    whole(schema, reader)
}

fn whole(
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<RecordBatch, ArrowError> {
    let batches: Vec<RecordBatch> = batches.collect::<Result<_, _>>()?;
    concat_batches(&schema, &batches)
}

fn report(pushed: &Pushed, seconds: f64) -> Document {
    let mut report = Document::default();
    report.value("source", pushed.source.as_str());
    report.value("rows", pushed.rows);
    report.value("files", json!(pushed.files));
    report.value("online_only", pushed.online_only);
    report.rows("views", table(pushed));
    report.value("warnings", json!(pushed.warnings));
    report.value("seconds", seconds);
    report
}

fn table(pushed: &Pushed) -> Rows {
    let mut rows = Rows::new(["view", "rows", "written", "kept", "without_key", "not_yet"]);
    for view in &pushed.views {
        rows.row([
            json!(view.view),
            json!(view.rows),
            json!(view.written),
            json!(view.kept),
            json!(view.without_key),
            json!(view.not_yet),
        ]);
    }
    rows
}

fn text(pushed: &Pushed, seconds: f64) -> String {
    let mut text = String::new();
    if !pushed.views.is_empty() {
        text.push_str(&table(pushed).text(""));
        text.push('\n');
    }
    for file in &pushed.files {
        let _ = writeln!(text, "written {file}");
    }
    let _ = writeln!(
        text,
        "{} rows pushed to `{}` in {seconds:.2} s",
        HumanCount(pushed.rows),
        pushed.source
    );
    if pushed.online_only > 0 {
        let _ = writeln!(text, "they are online only: no training set will know them");
    }
    text
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::*;

    #[test]
    fn csv_is_read_as_texts() {
        let rows = csv("\u{feff}id,when\n007,2001-01-01\n8,\n".as_bytes()).unwrap();
        let texts = |column: usize| rows.column(column).as_string::<i32>();
        assert_eq!(rows.schema().field(0).name(), "id");
        assert_eq!(texts(0).value(0), "007");
        assert!(texts(1).is_null(1));
        assert!(csv(b"id,when\n1\n").is_err());
    }
}
