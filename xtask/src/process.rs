//! Other programs: shown as one would type them, run, and their failures named.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A command of the program `name`, run in the checkout.
pub(crate) fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(crate::root());
    // What cargo says of xtask to xtask. Handed on, it would be said to the build scripts of others
    // too, and what they built without it be built again.
    let is_of_xtask =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_xtask) {
            command.env_remove(name);
        }
    }
    command
}

/// Shows a command and runs it; what it prints is seen.
///
/// # Errors
/// It cannot be started, or it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let typed = typed(command);
    println!("$ {typed}");
    let status = command
        .status()
        .with_context(|| format!("`{typed}` cannot be started"))?;
    if !status.success() {
        bail!("`{typed}` failed ({status})");
    }
    Ok(())
}

/// Whether a command, run unseen, succeeds; not if there is no such program.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let unseen = command.stdout(Stdio::null()).stderr(Stdio::null());
    unseen.status().is_ok_and(|status| status.success())
}

/// What a command, run unseen, prints.
///
/// # Errors
/// It cannot be started, or it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let typed = typed(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`{typed}` cannot be started"))?;
    if !output.status.success() {
        bail!("`{typed}` failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it; of a program's path only its name.
pub(crate) fn typed(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let value = quoted(&value.to_string_lossy());
            words.push(format!("{}={value}", name.to_string_lossy()));
        }
    }
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    words.push(quoted(&program.to_string_lossy()));
    words.extend(
        command
            .get_args()
            .map(|word| quoted(&word.to_string_lossy())),
    );
    words.join(" ")
}

/// A word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/a/b/cargo");
        command
            .args(["doc", "it's", "", "a=b"])
            .env("FLAGS", "-D warnings");
        command.env_remove("OTHER");
        assert_eq!(
            typed(&command),
            r"FLAGS='-D warnings' cargo doc 'it'\''s' '' a=b"
        );
    }

    #[test]
    fn a_program_that_is_not_there_does_not_succeed() {
        assert!(!succeeds(&mut Command::new("unskew-no-such-program")));
    }
}
