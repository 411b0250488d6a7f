//! `unskew schema`: the JSON Schema of the definition files.

use crate::Outcome;
use crate::output::Output;

/// Prints the schema: JSON either way.
pub(crate) fn run(output: &Output) -> anyhow::Result<Outcome> {
    let schema = unskew_core::definitions::json_schema();
    output.print(&schema, |schema| format!("{schema:#}\n"))?;
    Ok(Outcome::Done)
}
