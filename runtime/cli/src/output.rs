//! Where results go: text or JSON on stdout.

use std::io::{ErrorKind, IsTerminal, Write};

use serde::Serialize;
use unskew_offline::OfflineError;
use unskew_store::StoreError;

/// The result's way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    /// Whether stdout is taken, so that the result goes to stderr.
    aside: bool,
}

impl Output {
    /// Prints JSON, or text for a person.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json, aside: false }
    }

    /// The same, on stderr: stdout is for something else.
    pub(crate) const fn aside(self) -> Self {
        Self {
            json: self.json,
            aside: true,
        }
    }

    /// Whether the result is printed as JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person watches, who wants to see how work goes on: on stderr.
    pub(crate) fn is_watched(self) -> bool {
        !self.json && std::io::stderr().is_terminal()
    }

    /// Prints a result: `value` as JSON on one line, or what `text` makes of it.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            let mut json = serde_json::to_string(value)?;
            json.push('\n');
            self.write(&json)
        } else {
            self.write(&text(value))
        }
    }
}

impl Output {
    fn write(self, text: &str) -> anyhow::Result<()> {
        if self.aside {
            note(text.trim_end_matches('\n'));
            return Ok(());
        }
        to_stdout(text)
    }
}

/// Says something beside the result, on stderr.
pub(crate) fn note(message: &str) {
    // Where stderr is closed nobody wants to know.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Whether an error says that nobody reads stdout any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let stdout = match error.downcast_ref::<StoreError>() {
        Some(StoreError::Offline(OfflineError::StandardOutput(error))) => Some(error),
        _ => error.downcast_ref::<StdoutError>().map(|error| &error.0),
    };
    stdout.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Stdout that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the result could not be printed: {0}")]
pub(crate) struct StdoutError(pub(crate) std::io::Error);

fn to_stdout(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    Ok(written.map_err(StdoutError)?)
}
