//! What building and testing need beyond Rust itself.

use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::process::{command, output, run, succeeds};

/// The target for which transformations are compiled.
const WASM: &str = "wasm32-unknown-unknown";

/// Installs what is missing for building and testing.
///
/// # Errors
/// Something is missing and cannot be installed; the message says how to get it.
pub(crate) fn setup() -> Result<()> {
    wasm_target()?;
    redis_server()?;
    nextest();
    Ok(())
}

/// Sets up the wasm target, which compiling a transformation needs.
///
/// # Errors
/// It is missing, and so is rustup; or rustup fails.
pub(crate) fn wasm_target() -> Result<()> {
    let folder = output(&mut command(
        "rustc",
        &["--print", "target-libdir", "--target", WASM],
    ))
    .context("a Rust toolchain is needed; https://rustup.rs installs one")?;
    if Path::new(folder.trim()).is_dir() {
        println!("the target {WASM} is there");
        return Ok(());
    }
    if !succeeds(&mut command("rustup", &["--version"])) {
        bail!(
            "the Rust target {WASM} is missing, and rustup, which would install it, is not there. \
             Install Rust by rustup (https://rustup.rs), or the target by the means of your \
             system's Rust package"
        );
    }
    run(&mut command("rustup", &["target", "add", WASM]))
}

/// Sets up a Redis server, against which the tests of the online store run.
fn redis_server() -> Result<()> {
    if has_redis() {
        println!("redis-server is there");
        return Ok(());
    }
    let advice = "redis-server is missing, against which tests of the online store run; install it: \
                  `apt-get install redis-server` (Debian, Ubuntu), `dnf install redis` (Fedora), \
                  `brew install redis` (macOS)";
    if !succeeds(&mut command("apt-get", &["--version"])) {
        bail!(advice);
    }
    let Some(prefix) = as_root() else {
        bail!("{advice}; only root may, and there is no sudo");
    };
    for arguments in [
        ["apt-get", "update"].as_slice(),
        &[
            "apt-get",
            "install",
            "--yes",
            "--no-install-recommends",
            "redis-server",
        ],
    ] {
        let words = [&prefix, arguments].concat();
        let (program, arguments) = words.split_first().context("no command")?;
        run(&mut command(program, arguments)).context(advice)?;
    }
    if !has_redis() {
        bail!("apt-get installed redis-server, yet it cannot be run; {advice}");
    }
    Ok(())
}

fn has_redis() -> bool {
    succeeds(&mut command("redis-server", &["--version"]))
}

/// What to put before a command that only root may run and that asks no questions; `None` if there
/// is no way.
fn as_root() -> Option<Vec<&'static str>> {
    const QUIET: &str = "DEBIAN_FRONTEND=noninteractive";
    let root = output(&mut command("id", &["-u"])).is_ok_and(|id| id.trim() == "0");
    if root {
        return Some(vec!["env", QUIET]);
    }
    if !succeeds(&mut command("sudo", &["--version"])) {
        return None;
    }
    // Without a terminal nobody could type a password.
    if std::io::stdin().is_terminal() {
        Some(vec!["sudo", "env", QUIET])
    } else {
        Some(vec!["sudo", "-n", "env", QUIET])
    }
}

/// Installs cargo-nextest; says whether it is there then. Tests run without it too, only slower.
pub(crate) fn nextest() -> bool {
    let there = || succeeds(&mut command("cargo", &["nextest", "--version"]));
    if there() {
        println!("cargo-nextest is there");
        return true;
    }
    let installed = run(&mut command(
        "cargo",
        &["install", "cargo-nextest", "--locked"],
    ));
    if let Err(error) = installed {
        println!("cargo-nextest could not be installed ({error}); `cargo test` does instead");
    }
    there()
}
