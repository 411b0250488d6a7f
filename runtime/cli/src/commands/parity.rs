//! `unskew parity`: the same rows on the training and on the request path, compared by bits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use indicatif::HumanCount;
use serde::Serialize;
use unskew_core::time;
use unskew_server::client::HttpPath;
use unskew_store::{Difference, Marked, Parity, ParityReport, RequestPath};

use crate::Outcome;
use crate::arguments::{self, files};
use crate::error::Usage;
use crate::output::Output;
use crate::progress::Steps;
use crate::repository;
use crate::table::Table;

/// The report for a program: instants are RFC 3339, as everywhere.
#[derive(Serialize)]
struct Report<'a> {
    service: &'a str,
    plan: String,
    as_of: String,
    rows: u64,
    features: u64,
    present: u64,
    differences: u64,
    first: &'a [Difference],
    failed_alike: u64,
    lag: &'a BTreeMap<String, u64>,
    ahead: u64,
    lagging: u64,
    online_only: &'a BTreeMap<String, Marked>,
    deleted: &'a BTreeMap<String, Marked>,
}

/// The service of the server at `url`.
fn server(url: &str, arguments: &arguments::Parity) -> anyhow::Result<HttpPath> {
    let mut path = HttpPath::new(url, &arguments.service);
    if let Some(file) = &arguments.tls_ca {
        let wrong = || format!("cannot use the authorities in `{}`", file.display());
        let pem = std::fs::read(file).with_context(wrong)?;
        let trusting = path.with_authorities(&pem).map_err(anyhow::Error::msg);
        path = trusting.with_context(wrong)?;
    }
    if let Some(token) = token(arguments.token_file.as_deref())? {
        path = path.with_token(&token);
    }
    Ok(path)
}

/// The token that a server asks for, of a file or of the environment.
fn token(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let token = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file);
            text.with_context(|| format!("cannot read the token in `{}`", file.display()))?
        }
        None => match std::env::var("UNSKEW_TOKEN") {
            Ok(token) => token,
            Err(_) => return Ok(None),
        },
    };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let place = match file {
            Some(file) => format!("`{}`", file.display()),
            None => "UNSKEW_TOKEN".to_owned(),
        };
        return Err(Usage(format!(
            "{place} holds no token: one line of letters and digits"
        ))
        .into());
    }
    Ok(Some(token.to_owned()))
}

/// Compares; any difference is a bad outcome.
pub(crate) async fn run(arguments: arguments::Parity, output: &Output) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let request = Parity {
        service: arguments.service.clone(),
        as_of: arguments.as_of,
        rows: usize::try_from(arguments.rows)?,
        entities: arguments.entities.as_deref().map(files).transpose()?,
    };
    let http = match &arguments.url {
        Some(url) => Some(server(url, &arguments)?),
        None => None,
    };
    let steps = Steps::new(output);
    if output.is_watched() {
        steps.say(format!("comparing both paths of `{}`", arguments.service));
    }
    let path = http.as_ref().map(|path| path as &dyn RequestPath);
    let report = store.parity(request, path).await?;
    steps.clear();
    output.print(&Report::new(&arguments.service, &report), |_| text(&report))?;
    Ok(if report.is_equal() {
        Outcome::Done
    } else {
        Outcome::Bad
    })
}

impl<'a> Report<'a> {
    fn new(service: &'a str, report: &'a ParityReport) -> Self {
        Self {
            service,
            plan: report.plan.to_string(),
            as_of: time::format(report.as_of),
            rows: report.rows,
            features: report.features,
            present: report.present,
            differences: report.differences,
            first: &report.first,
            failed_alike: report.failed_alike,
            lag: &report.lag,
            ahead: report.ahead,
            lagging: report.lagging,
            online_only: &report.online_only,
            deleted: &report.deleted,
        }
    }
}

fn text(report: &ParityReport) -> String {
    let mut text = String::new();
    if !report.first.is_empty() {
        let header = ["row", "input", "feature", "training", "request"];
        let mut table = Table::new(&header, &[true, false, false, false, false]);
        for difference in &report.first {
            table.row([
                difference.row.to_string().as_str(),
                &difference.input,
                &difference.feature,
                &difference.training,
                &difference.request,
            ]);
        }
        text.push_str(&table.text(""));
        let more = report.differences - report.first.len() as u64;
        if more > 0 {
            let _ = writeln!(text, "and {} more", HumanCount(more));
        }
        text.push('\n');
    }
    if report.failed_alike > 0 {
        let rows = HumanCount(report.failed_alike);
        let first = report.first_failure.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "{rows} further rows fail alike on both paths, the first: {first}"
        );
    }
    for (view, rows) in report.lag.iter().filter(|(_, rows)| **rows > 0) {
        let _ = writeln!(
            text,
            "`{view}` lags: {} rows of its history are newer than its watermark, and not compared",
            HumanCount(*rows)
        );
    }
    if report.ahead > 0 {
        let _ = writeln!(
            text,
            "{} rows were pushed since the last materialization, and compared as of when they are \
             available",
            HumanCount(report.ahead)
        );
    }
    if report.lagging > 0 {
        let _ = writeln!(
            text,
            "{} rows were pushed, and are not compared: their history has newer ones that are not \
             materialized",
            HumanCount(report.lagging)
        );
    }
    for (marked, what) in [
        (
            &report.online_only,
            "were pushed online only, so no source has them",
        ),
        (&report.deleted, "were deleted online"),
    ] {
        for (view, entities) in marked {
            let more = entities.entities - entities.first.len() as u64;
            let _ = writeln!(
                text,
                "`{view}`: {} entities {what}, and are not compared: {}{}",
                HumanCount(entities.entities),
                entities.first.join("; "),
                match more {
                    0 => String::new(),
                    more => format!(" and {} more", HumanCount(more)),
                }
            );
        }
    }
    let _ = writeln!(
        text,
        "{} of {} values are present, the others null",
        HumanCount(report.present),
        HumanCount(report.rows * report.features)
    );
    let _ = writeln!(
        text,
        "plan {}\nas of {}",
        report.plan,
        time::format(report.as_of)
    );
    let _ = writeln!(
        text,
        "parity: {} rows, {} features, {} differences",
        HumanCount(report.rows),
        report.features,
        HumanCount(report.differences)
    );
    text
}

#[cfg(test)]
mod tests {
    use unskew_core::digest::Digest;

    use super::*;

    #[test]
    fn differences_are_shown_with_both_values_and_the_last_line_counts_them() {
        let report = ParityReport {
            plan: Digest::of(b""),
            as_of: 0,
            rows: 1_000,
            features: 2,
            present: 1_500,
            differences: 3,
            first: vec![Difference {
                row: 7,
                input: "{\"id\":1}".to_owned(),
                feature: "score".to_owned(),
                training: "0.5".to_owned(),
                request: "null".to_owned(),
            }],
            failed_alike: 4,
            first_failure: Some("it was refused".to_owned()),
            lag: [("stats".to_owned(), 5), ("other".to_owned(), 0)].into(),
            ahead: 3,
            lagging: 2,
            online_only: [(
                "stats".to_owned(),
                Marked {
                    entities: 7,
                    first: vec!["id: 1".to_owned(), "id: 2".to_owned()],
                },
            )]
            .into(),
            deleted: [(
                "other".to_owned(),
                Marked {
                    entities: 1,
                    first: vec!["id: 3".to_owned()],
                },
            )]
            .into(),
        };
        let expected = format!(
            "\
ROW  INPUT     FEATURE  TRAINING  REQUEST
  7  {{\"id\":1}}  score    0.5       null
and 2 more

4 further rows fail alike on both paths, the first: it was refused
`stats` lags: 5 rows of its history are newer than its watermark, and not compared
3 rows were pushed since the last materialization, and compared as of when they are available
2 rows were pushed, and are not compared: their history has newer ones that are not materialized
`stats`: 7 entities were pushed online only, so no source has them, and are not compared: id: 1; id: 2 \
and 5 more
`other`: 1 entities were deleted online, and are not compared: id: 3
1,500 of 2,000 values are present, the others null
plan {}
as of 1970-01-01T00:00:00Z
parity: 1,000 rows, 2 features, 3 differences
",
            Digest::of(b"")
        );
        assert_eq!(text(&report), expected);
    }
}
