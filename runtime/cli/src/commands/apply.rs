//! `unskew plan` and `unskew apply`: what changes.

use std::fmt::Write as _;

use console::style;
use serde::Serialize;
use unskew_store::{ChangeKind, Changes};

use crate::Outcome;
use crate::output::Output;
use crate::progress::{Steps, Warning};
use crate::repository;
use crate::table::Table;

/// The changes for a program: with the warnings, which are on stderr for a person.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    changes: &'a Changes,
    warnings: Vec<Warning>,
}

/// Shows what `apply` would change.
pub(crate) async fn plan(output: &Output) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let steps = Steps::new(output);
    let changes = store.plan(&steps).await?;
    let end = "nothing is changed yet; `unskew apply` does it".to_owned();
    report(output, &steps, &changes, end)
}

/// Registers what the repository defines.
pub(crate) async fn apply(output: &Output) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let steps = Steps::new(output);
    let changes = store.apply(&steps).await?;
    let end = format!("applied as state {}", changes.state);
    report(output, &steps, &changes, end)
}

/// Prints the changes, and `end` if there are any.
fn report(
    output: &Output,
    steps: &Steps,
    changes: &Changes,
    end: String,
) -> anyhow::Result<Outcome> {
    steps.clear();
    let report = Report {
        changes,
        warnings: steps.warnings(),
    };
    output.print(&report, |_| {
        let none = || format!("state {} is what the definitions say", changes.state);
        shown(changes, &if changes.any() { end } else { none() })
    })?;
    Ok(Outcome::Done)
}

/// What changes, line by line; what does not is only counted.
fn shown(changes: &Changes, end: &str) -> String {
    let changed = |change: ChangeKind| change != ChangeKind::Unchanged;
    let objects = || {
        changes
            .objects
            .iter()
            .filter(|object| changed(object.change))
    };
    let mut table = Table::plain();
    for object in objects() {
        let details = object.details.join("; ");
        table.row([verb(object.change), object.kind, &object.name, &details]);
    }
    let mut text = String::new();
    for (line, object) in table.lines().zip(objects()) {
        let line = match object.change {
            ChangeKind::Created => style(line).green(),
            ChangeKind::Updated => style(line).yellow(),
            ChangeKind::Deleted => style(line).red(),
            ChangeKind::Unchanged => style(line),
        };
        let _ = writeln!(text, "{line}");
    }
    let unchanged = changes.objects.len() - objects().count();
    if unchanged > 0 {
        let _ = writeln!(text, "{unchanged} unchanged");
    }
    if changes.objects.is_empty() {
        text.push_str("no definitions: features/*.yaml hold none\n");
    }
    if !changes.materialize.is_empty() {
        let _ = writeln!(
            text,
            "to be materialized anew: {}; `unskew materialize-incremental END`",
            changes.materialize.join(", ")
        );
    }
    let _ = writeln!(text, "{end}");
    text
}

const fn verb(change: ChangeKind) -> &'static str {
    match change {
        ChangeKind::Created => "created",
        ChangeKind::Updated => "updated",
        ChangeKind::Deleted => "deleted",
        ChangeKind::Unchanged => "unchanged",
    }
}

#[cfg(test)]
mod tests {
    use unskew_store::Change;

    use super::*;

    #[test]
    fn changes_are_listed_and_the_rest_is_counted() {
        let object = |kind, name: &str, change| Change {
            kind,
            name: name.to_owned(),
            change,
            details: Vec::new(),
        };
        let updated = Change {
            details: vec!["ttl: 7d → 8d".to_owned(), "online: true → false".to_owned()],
            ..object("feature view", "stats", ChangeKind::Updated)
        };
        let changes = Changes {
            state: 2,
            objects: vec![
                object("entity", "driver", ChangeKind::Unchanged),
                updated,
                object("alias", "other", ChangeKind::Deleted),
            ],
            materialize: vec!["stats".to_owned()],
        };
        let expected = "\
updated  feature view  stats  ttl: 7d → 8d; online: true → false
deleted  alias         other
1 unchanged
to be materialized anew: stats; `unskew materialize-incremental END`
applied as state 2
";
        assert_eq!(shown(&changes, "applied as state 2"), expected);
    }
}
