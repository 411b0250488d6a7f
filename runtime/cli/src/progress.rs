//! How far work has come, on stderr: bars where it is a terminal that somebody watches.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;
use unskew_offline::Progress;
use unskew_store::ApplyWatch;

use crate::output::Output;

/// A stage of so many rows.
const BAR: &str =
    "{msg} ({elapsed})\n{wide_bar} {human_pos}/{human_len} rows, {rate} rows/s, {eta} left";
/// A stage of an unknown number of rows.
const COUNTER: &str = "{spinner} {msg} ({elapsed})  {human_pos} rows, {rate} rows/s";
/// A step without rows.
const STEP: &str = "{spinner} {msg} ({elapsed})";
/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// A bar of rows for each stage of the work, one at a time.
pub(crate) struct Bars {
    /// `None` where nobody watches.
    current: Option<Mutex<ProgressBar>>,
}

impl Bars {
    /// Bars on a terminal, from now on; nothing elsewhere.
    pub(crate) fn new(output: &Output) -> Self {
        let starting = || {
            // Components are loaded before the first rows are read.
            let step = ProgressBar::new_spinner().with_style(style(STEP));
            step.enable_steady_tick(TICK);
            Mutex::new(step.with_message("loading what is applied"))
        };
        Self {
            current: output.is_watched().then(starting),
        }
    }

    /// Takes the bar away, so that results can be printed.
    pub(crate) fn clear(&self) {
        self.replace(ProgressBar::hidden());
    }

    fn replace(&self, bar: ProgressBar) {
        if let Some(current) = &self.current {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            current.finish_and_clear();
            *current = bar;
        }
    }
}

/// An error ends the work before its bar does.
impl Drop for Bars {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Progress for Bars {
    fn begin(&self, stage: &str, rows: u64) {
        if self.current.is_none() {
            return;
        }
        let bar = if rows == 0 {
            ProgressBar::new_spinner().with_style(style(COUNTER))
        } else {
            ProgressBar::new(rows).with_style(style(BAR))
        };
        bar.enable_steady_tick(TICK);
        self.replace(bar.with_message(stage.to_owned()));
    }

    fn advance(&self, rows: u64) {
        if let Some(current) = &self.current {
            current
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .inc(rows);
        }
    }
}

/// Which component `apply` builds or verifies: a spinner on a terminal, lines elsewhere, for a
/// build may take long and a log should say what it waits for.
pub(crate) struct Steps {
    spinner: Option<ProgressBar>,
    is_silent: bool,
    warnings: Mutex<Vec<Warning>>,
}

/// What `apply` has to say about a transformation that it takes all the same.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Warning {
    transformation: String,
    message: String,
}

impl Steps {
    /// Steps on stderr; silent with `--json`.
    pub(crate) fn new(output: &Output) -> Self {
        let spinner = output.is_watched().then(|| {
            let spinner = ProgressBar::new_spinner().with_style(style(STEP));
            spinner.enable_steady_tick(TICK);
            spinner
        });
        Self {
            spinner,
            is_silent: output.is_json(),
            warnings: Mutex::default(),
        }
    }

    /// What was warned of; with `--json` a part of the result.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.clone()
    }

    /// Says what is done now.
    pub(crate) fn say(&self, message: String) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(message),
            None if self.is_silent => {}
            None => crate::output::note(&message),
        }
    }

    /// Takes the spinner away, so that results can be printed.
    pub(crate) fn clear(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.clear();
    }
}

impl ApplyWatch for Steps {
    fn building(&self, transformation: &str) {
        self.say(format!("building `{transformation}`"));
    }

    fn verifying(&self, transformation: &str) {
        self.say(format!("verifying `{transformation}`"));
    }

    fn warn(&self, transformation: &str, message: &str) {
        let line = || crate::output::note(&format!("{} {message}", label()));
        match &self.spinner {
            Some(spinner) => spinner.suspend(line),
            None if self.is_silent => {}
            None => line(),
        }
        let warning = Warning {
            transformation: transformation.to_owned(),
            message: message.to_owned(),
        };
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.push(warning);
    }
}

fn label() -> impl std::fmt::Display {
    console::style("warning:").for_stderr().yellow().bold()
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse would be seen by the tests below.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
            let _ = write!(text, "{}", HumanCount(state.per_sec() as u64));
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse() {
        for template in [BAR, COUNTER, STEP] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
