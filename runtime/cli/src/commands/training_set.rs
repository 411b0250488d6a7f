//! `unskew training-set`: features for entity rows, each as of its own time.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use indicatif::HumanCount;
use serde::Serialize;
use unskew_engine::Status;
use unskew_offline::Summary;

use crate::Outcome;
use crate::arguments;
use crate::document::Ordered;
use crate::output::Output;
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
    let store = repository::open()?;
    let bars = Arc::new(Bars::new(output));
    let request = unskew_store::TrainingSet {
        features: arguments.features.into_store(),
        entities: absolute(&arguments.entities)?,
        out: absolute(&arguments.out)?,
        progress: Arc::clone(&bars) as Arc<dyn unskew_offline::Progress>,
    };
    let summary = store.training_set(request).await?;
    bars.clear();
    let report = Report::new(&arguments.out, &summary);
    output.print(&report, |report| report.text(&summary))?;
    Ok(Outcome::Done)
}

/// `path`, given relative to the current folder: the repository may lie above that.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<std::path::PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()))
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

    fn text(&self, summary: &Summary) -> String {
        let rows_per_second = self.rows as f64 / self.seconds.max(f64::EPSILON);
        let mut text = shares(summary);
        text.push_str(&format!(
            "\n{} rows in {:.2} s ({} rows/s), written to {}\nplan {}\n",
            HumanCount(self.rows),
            self.seconds,
            HumanCount(rows_per_second as u64),
            self.file.display(),
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
