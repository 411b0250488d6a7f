//! Errors: how they look on stderr.

use std::fmt::Write as _;
use std::io::Write as _;

use console::style;
use unskew_core::definitions::Problems;
use unskew_store::StoreError;

/// Wrong usage of the command, found after its arguments were read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Writes an error to stderr: as text, or as one line of JSON.
///
/// What is wrong with definitions comes first, one problem to a line, as compilers write it, so
/// that editors and terminals link to it.
pub(crate) fn report(error: &anyhow::Error, json: bool) {
    let text = if json {
        format!("{}\n", as_json(error))
    } else {
        as_text(error)
    };
    // Where stderr is closed nobody can be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The message of an error of the arguments, without clap's own `error: ` and hints on usage.
pub(crate) fn of_clap(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = text
        .find("\n\nUsage:")
        .or_else(|| text.find("\n\nFor more"));
    text[..end.unwrap_or(text.len())].trim_end().to_owned()
}

fn as_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    if let Some(problems) = problems(error) {
        for problem in &problems.0 {
            let _ = writeln!(text, "{problem}");
        }
    }
    let label = style("error:").for_stderr().red().bold();
    let _ = writeln!(text, "{label} {}", message(error));
    text
}

fn as_json(error: &anyhow::Error) -> serde_json::Value {
    let problems: Vec<_> = problems(error)
        .into_iter()
        .flat_map(|problems| &problems.0)
        .map(|problem| {
            serde_json::json!({
                "file": problem.file,
                "line": problem.line,
                "message": problem.message,
            })
        })
        .collect();
    serde_json::json!({"error": {"message": message(error), "problems": problems}})
}

/// The error and its causes in one message; a cause that an error has quoted already is left out.
fn message(error: &anyhow::Error) -> String {
    if let Some(problems) = problems(error) {
        return match problems.0.len() {
            1 => "a problem in the definitions".to_owned(),
            count => format!("{count} problems in the definitions"),
        };
    }
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            let _ = write!(message, ": {cause}");
        }
    }
    message
}

fn problems(error: &anyhow::Error) -> Option<&Problems> {
    error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<StoreError>() {
            Some(StoreError::Definitions(problems)) => Some(problems),
            _ => cause.downcast_ref::<Problems>(),
        })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use unskew_core::definitions::Settings;

    use super::*;

    #[test]
    fn a_cause_is_named_once() {
        let cause = || std::io::Error::other("no space left");
        let quoted = Err::<(), _>(cause()).context("cannot write `a`: no space left");
        assert_eq!(
            message(&quoted.unwrap_err()),
            "cannot write `a`: no space left"
        );
        let unquoted = Err::<(), _>(cause()).context("cannot write `a`");
        assert_eq!(
            message(&unquoted.unwrap_err()),
            "cannot write `a`: no space left"
        );
    }

    #[test]
    fn problems_come_one_by_one_with_file_and_line() {
        let problems = Settings::read("project: a-b\nregistri: x\n", |_| None).unwrap_err();
        let error = anyhow::Error::new(StoreError::Definitions(problems));
        let text = as_text(&error);
        let lines: Vec<&str> = text.lines().collect();
        let [name, key, summary] = lines[..] else {
            panic!("{text}");
        };
        assert!(
            name.starts_with("unskew.yaml:1: `a-b` is no project name"),
            "{text}"
        );
        assert!(
            key.starts_with("unskew.yaml:2: unknown key `registri`"),
            "{text}"
        );
        assert!(
            summary.ends_with(" 2 problems in the definitions"),
            "{text}"
        );
        let json = as_json(&error);
        assert_eq!(json["error"]["problems"][1]["line"], 2);
        assert_eq!(json["error"]["problems"][0]["file"], "unskew.yaml");
    }
}
