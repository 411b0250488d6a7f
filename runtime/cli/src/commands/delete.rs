//! `unskew delete`: the values of an entity, off the online store.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use indicatif::HumanCount;
use serde_json::json;
use unskew_core::types::DataType;
use unskew_core::view::View;
use unskew_core::{text, values};
use unskew_store::{Delete, Deleted, Pusher};

use crate::Outcome;
use crate::arguments;
use crate::clock;
use crate::document::{Document, Rows};
use crate::error::Usage;
use crate::output::Output;
use crate::progress::Bars;
use crate::repository;

/// Deletes one entity.
pub(crate) async fn run(arguments: arguments::Delete, output: &Output) -> anyhow::Result<Outcome> {
    let arguments::Delete {
        view,
        entities,
        no_history,
    } = arguments;
    let store = repository::open()?;
    let bars = Arc::new(Bars::new(output));
    let applied = store.applied().await?;
    let defined = applied.project().views.get(&view);
    let keys = match defined {
        Some(defined) => keys(&defined.value.view, &entities)?,
        // The store says which there are.
        None => Vec::new(),
    };
    let delete = Delete {
        view,
        keys,
        history: !no_history,
        now: clock::now(),
    };
    let progress = Arc::clone(&bars) as Arc<dyn unskew_offline::Progress>;
    let pusher = Pusher::new(&store, &applied)?;
    let deleted = pusher.delete(&delete, progress).await?;
    bars.clear();
    output.print(&report(&deleted), |_| said(&deleted))?;
    Ok(Outcome::Done)
}

/// The join keys of the view, of what was given.
fn keys(view: &View, given: &[(String, String)]) -> Result<Vec<ArrayRef>, Usage> {
    let wanted = || {
        let keys = view.keys.iter();
        text::list(keys.map(|key| format!("`-e {}=VALUE` ({})", key.name, key.data_type)))
    };
    for (index, (name, _)) in given.iter().enumerate() {
        if !view.keys.iter().any(|key| key.name == *name) {
            let message = format!(
                "view `{}` has no join key `{name}`; give {}",
                view.name,
                wanted()
            );
            return Err(Usage(message));
        }
        if given[..index].iter().any(|(earlier, _)| earlier == name) {
            let message = format!("`-e {name}=…` is given twice; one entity is deleted at a time");
            return Err(Usage(message));
        }
    }
    let column = |key: &unskew_core::view::JoinKey| {
        let value = given.iter().find(|(name, _)| *name == key.name);
        let Some((_, value)) = value else {
            let message = format!(
                "join keys are missing; view `{}` needs {}",
                view.name,
                wanted()
            );
            return Err(Usage(message));
        };
        let value = StringArray::from(vec![value.as_str()]);
        values::from_text(&value, DataType::Scalar(key.data_type)).map_err(|error| {
            Usage(format!(
                "-e {}: {} is no {}{}",
                key.name, error.value, error.wanted, error.hint
            ))
        })
    };
    view.keys.iter().map(column).collect()
}

fn report(deleted: &Deleted) -> Document {
    let mut report = Document::default();
    report.value("view", deleted.view.as_str());
    report.value("had_value", deleted.had_values > 0);
    if let Some(history) = &deleted.history {
        let mut rows = Rows::new(["file", "rows"]);
        for file in &history.files {
            rows.row([json!(file.file), json!(file.rows)]);
        }
        report.rows("history", rows);
        report.value("files_read", history.files_read);
        report.value("files_in_all", history.files_in_all);
    }
    report
}

fn said(deleted: &Deleted) -> String {
    let view = &deleted.view;
    let mut text = match deleted.had_values {
        0 => format!("view `{view}` had no value of it online; none of older rows will be\n"),
        _ => format!("deleted online of view `{view}`; rows after this moment count again\n"),
    };
    let Some(history) = &deleted.history else {
        return text;
    };
    if history.files.is_empty() {
        let _ = writeln!(text, "no file of its source has rows of it");
        return text;
    }
    let _ = writeln!(
        text,
        "\nits history is still in these files, and training sets use it:"
    );
    for file in &history.files {
        let _ = writeln!(text, "  {}: {} rows", file.file, HumanCount(file.rows));
    }
    let _ = writeln!(
        text,
        "{} of {} files were read",
        HumanCount(history.files_read),
        HumanCount(history.files_in_all)
    );
    text
}
