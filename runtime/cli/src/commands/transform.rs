//! `unskew transform build` and `unskew transform inspect`.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use unskew_core::types::Field;
use unskew_engine::{Engine, Settings};

use crate::Outcome;
use crate::arguments::absolute;
use crate::arguments::{self, TransformCommand};
use crate::document::{Document, Rows};
use crate::output::Output;
use crate::progress::Steps;
use crate::repository;

/// Builds or inspects.
pub(crate) async fn run(
    arguments: &arguments::Transform,
    output: &Output,
) -> anyhow::Result<Outcome> {
    match &arguments.command {
        TransformCommand::Build { path } => build(path, output).await,
        TransformCommand::Inspect { file } => inspect(file, output),
    }
}

async fn build(path: &Path, output: &Output) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let steps = Steps::new(output);
    steps.say(format!("building `{}`", path.display()));
    let built = store.build(&absolute(path)?).await?;
    steps.clear();
    let mut report = Document::default();
    report.value("component", built.file.display().to_string());
    report.value("digest", built.digest.to_string());
    report.value("size", built.bytes.len());
    output.print(&report, |_| {
        format!(
            "{}\n{}\n{} bytes\n",
            built.file.display(),
            built.digest,
            built.bytes.len()
        )
    })?;
    Ok(Outcome::Done)
}

/// Shows what a component imports, which is a property of the file, and what it says about itself,
/// which only a component without imports is asked for. Anything but a loadable transformation is
/// shown as far as it goes, and then named as an error.
fn inspect(file: &Path, output: &Output) -> anyhow::Result<Outcome> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let engine = Engine::new(&Settings {
        instances: 1,
        ..Settings::default()
    })?;
    let of_file = || format!("`{}`", file.display());
    let inspection = engine.inspect(&bytes).with_context(of_file)?;
    let loaded = engine.load(&bytes);
    let mut report = Document::default();
    if let Ok(component) = &loaded {
        let description = component.description();
        report.value("name", description.component.as_str());
        report.value("version", description.version.as_str());
        report.value("function", description.function.as_str());
        report.value("kind", description.kind.to_string());
        report.value("documentation", description.documentation.as_str());
    }
    report.value("digest", inspection.digest.to_string());
    report.value("size", inspection.size);
    report.value("imports", inspection.imports.clone());
    report.value("exports", inspection.exports.clone());
    if let Ok(component) = &loaded {
        report.rows("inputs", fields(&component.description().inputs));
        report.rows("outputs", fields(&component.description().outputs));
    }
    output.print(&report, |report| {
        let imports = if inspection.imports.is_empty() {
            "imports nothing\n".to_owned()
        } else {
            format!("imports {}\n", inspection.imports.join(", "))
        };
        format!("{}\n{imports}", report.text())
    })?;
    loaded.with_context(of_file)?;
    Ok(Outcome::Done)
}

/// Columns of a component or features of a view, as a table.
pub(crate) fn fields<'a>(fields: impl IntoIterator<Item = &'a Field>) -> Rows {
    let mut rows = Rows::new(["name", "type", "nullable", "description"]);
    for field in fields {
        rows.row([
            json!(field.name),
            json!(field.data_type),
            json!(field.nullable),
            Value::from(field.description.as_str()),
        ]);
    }
    rows
}
