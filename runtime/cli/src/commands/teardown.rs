//! `unskew teardown`: removes the project's values from the online store.

use std::io::{BufRead, IsTerminal, Write};

use serde::Serialize;

use crate::Outcome;
use crate::arguments;
use crate::error::Usage;
use crate::output::Output;
use crate::repository;

#[derive(Serialize)]
struct Removed {
    /// Whether the question was answered with yes.
    confirmed: bool,
    rows: u64,
}

/// Asks, and removes.
pub(crate) async fn run(
    arguments: &arguments::Teardown,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let online = store.online()?;
    let question = format!(
        "Remove all values of project `{}` from the online store {}?",
        store.settings().project,
        online.address()
    );
    if !arguments.yes && !is_confirmed(&question)? {
        let kept = Removed {
            confirmed: false,
            rows: 0,
        };
        output.print(&kept, |_| "nothing is removed\n".to_owned())?;
        return Ok(Outcome::Done);
    }
    let removed = Removed {
        confirmed: true,
        rows: store.teardown().await?,
    };
    output.print(&removed, |removed| {
        format!("{} rows removed\n", removed.rows)
    })?;
    Ok(Outcome::Done)
}

/// Asks on the terminal; only a yes is a yes.
fn is_confirmed(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        let message = format!(
            "there is no terminal on which to ask `{question}`; `unskew teardown --yes` does it \
             unasked"
        );
        return Err(Usage(message).into());
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
