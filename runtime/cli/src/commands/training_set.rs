//! `unskew training-set`: features for entity rows, each as of its own time.

use std::io::IsTerminal;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use indicatif::HumanCount;
use serde::Serialize;
use unskew_engine::Status;
use unskew_offline::{EntitySource, Summary, Target};
use unskew_store::StoreError;

use crate::Outcome;
use crate::arguments::{self, STANDARD, files};
use crate::document::Ordered;
use crate::error::Usage;
use crate::output::{Output, note};
use crate::progress::Bars;
use crate::repository;
use crate::table::Table;

#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    rows: u64,
    seconds: f64,
    plan: String,
    outputs: Vec<OutputReport<'a>>,
}

#[derive(Serialize)]
struct OutputReport<'a> {
    name: &'a str,
    /// How many rows have each status that occurs.
    statuses: Ordered<&'static str, u64>,
}

/// Builds the training set, and says how each feature came out.
pub(crate) async fn run(
    arguments: arguments::TrainingSet,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let arguments::TrainingSet {
        features,
        entities,
        out: file,
        overwrite,
        compression,
        row_group_size,
        max_rows_per_file,
        memory_limit,
        explain,
    } = arguments;
    let store = repository::open()?;
    let entities = entities.into_source()?;
    if entities == EntitySource::StandardInput && std::io::stdin().is_terminal() {
        return Err(
            Usage("standard input is a terminal; pipe Arrow IPC into it".to_owned()).into(),
        );
    }
    let target = target(&file, max_rows_per_file)?;
    // What is written to standard output is the training set, and nothing else.
    let output = match &target {
        Target::StandardOutput => output.aside(),
        _ => *output,
    };
    let out = unskew_offline::Output {
        target,
        overwrite,
        compression,
        row_group_rows: row_group_size,
    };
    out.check().map_err(Usage)?;
    let bars = Arc::new(Bars::new(&output));
    let request = unskew_store::TrainingSet {
        features: features.into_store(),
        entities,
        out,
        memory_limit: memory_limit.bytes()?,
        progress: Arc::clone(&bars) as Arc<dyn unskew_offline::Progress>,
    };
    let summary = store.training_set(request).await?;
    bars.clear();
    if explain {
        note(&summary.explain);
    }
    let report = Report::new(&file, &summary);
    output.print(&report, |report| report.text(&summary))?;
    Ok(Outcome::Done)
}

/// What `out` names.
fn target(out: &Path, rows_per_file: Option<NonZero<usize>>) -> anyhow::Result<Target> {
    if out.as_os_str() == STANDARD {
        if rows_per_file.is_some() {
            let several = "standard output is one stream; --max-rows-per-file needs a folder, DIR/";
            return Err(Usage(several.to_owned()).into());
        }
        if std::io::stdout().is_terminal() {
            let terminal = "standard output is a terminal; pipe it into a program or a file";
            return Err(Usage(terminal.to_owned()).into());
        }
        return Ok(Target::StandardOutput);
    }
    let out = files(out)?;
    Target::of(&out, rows_per_file).map_err(|why| StoreError::Out { out, why }.into())
}

impl<'a> Report<'a> {
    fn new(file: &'a Path, summary: &'a Summary) -> Self {
        let statuses = |output: &'a unskew_offline::OutputSummary| {
            let statuses = output
                .statuses
                .iter()
                .map(|(status, &rows)| (status.name(), rows));
            OutputReport {
                name: &output.name,
                statuses: Ordered(statuses.collect()),
            }
        };
        Self {
            file,
            rows: summary.rows,
            seconds: summary.elapsed.as_secs_f64(),
            plan: summary.plan.to_string(),
            outputs: summary.outputs.iter().map(statuses).collect(),
        }
    }

    fn place(&self) -> std::borrow::Cow<'_, str> {
        if self.file.as_os_str() == STANDARD {
            "standard output".into()
        } else {
            self.file.to_string_lossy()
        }
    }

    fn text(&self, summary: &Summary) -> String {
        let rows_per_second = self.rows as f64 / self.seconds.max(f64::EPSILON);
        let mut text = shares(summary);
        text.push_str(&format!(
            "\n{} rows in {:.2} s ({} rows/s), written to {}\nplan {}\n",
            HumanCount(self.rows),
            self.seconds,
            HumanCount(rows_per_second as u64),
            self.place(),
            self.plan
        ));
        text
    }
}

/// For each feature the shares of the statuses; a status that no feature has is left out.
fn shares(summary: &Summary) -> String {
    let occurs = |status: &Status| {
        let mut outputs = summary.outputs.iter();
        outputs.any(|output| output.statuses.get(status).is_some_and(|&rows| rows > 0))
    };
    let statuses: Vec<Status> = Status::ALL.into_iter().filter(occurs).collect();
    let mut header = vec!["feature"];
    header.extend(statuses.iter().map(|status| status.name()));
    let mut right = vec![true; header.len()];
    right[0] = false;
    let mut table = Table::new(&header, &right);
    for output in &summary.outputs {
        let shares = statuses.iter().map(|status| {
            let rows = output.statuses.get(status).copied().unwrap_or(0);
            share(rows, summary.rows)
        });
        table.row(std::iter::once(output.name.clone()).chain(shares));
    }
    table.text("")
}

/// `rows` of `all` in percent; only none is shown as none, and only all as all.
fn share(rows: u64, all: u64) -> String {
    if rows == 0 {
        return "-".to_owned();
    }
    if rows >= all {
        return "100%".to_owned();
    }
    match 100.0 * rows as f64 / all as f64 {
        percent if percent < 0.05 => "<0.1%".to_owned(),
        percent if percent > 99.95 => ">99.9%".to_owned(),
        percent => format!("{percent:.1}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_none_or_all_only_if_it_is() {
        let cases = [
            (0, 5, "-"),
            (5, 5, "100%"),
            (1, 3, "33.3%"),
            (1, 1_000_000, "<0.1%"),
            (999_999, 1_000_000, ">99.9%"),
            (0, 0, "-"),
        ];
        for (rows, all, expected) in cases {
            assert_eq!(share(rows, all), expected, "{rows} of {all}");
        }
    }
}
