//! `unskew version`.

use serde::Serialize;

use crate::Outcome;
use crate::output::Output;

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

/// Prints the version.
pub(crate) fn run(output: &Output) -> anyhow::Result<Outcome> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
    };
    output.print(&version, |version| format!("unskew {}\n", version.version))?;
    Ok(Outcome::Done)
}
