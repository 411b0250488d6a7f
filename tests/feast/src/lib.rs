//! Feast's own clients for a test: scripts of Python that ask a server and say what they got.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot run its client has failed"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs `NAME.py` with these arguments, and gives what it printed.
///
/// # Panics
/// The clients were not set up, or the script fails; the message holds what it said.
pub fn run(name: &str, arguments: &[&str]) -> String {
    let python = python();
    assert!(
        python.is_file(),
        "Feast's clients are not at {}; `cargo xtask setup` installs them",
        python.display()
    );
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let output = Command::new(&python)
        .arg(scripts.join(format!("{name}.py")))
        .args(arguments)
        // Nothing of a test leaves the machine.
        .env("FEAST_USAGE", "False")
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}", python.display()));
    let (said, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{name}.py failed ({}):\n{said}\n{error}",
        output.status
    );
    said.into_owned()
}

/// The interpreter, as `cargo xtask setup` installs it.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // A relative one is relative to where cargo is called: the workspace.
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = root.join(target).join("venv/feast");
    match cfg!(windows) {
        true => folder.join("Scripts/python.exe"),
        false => folder.join("bin/python"),
    }
}
