//! Everything that must hold before a change goes in.

use anyhow::{Context as _, Result};

use crate::process::{command, run, succeeds};
use crate::{bench, guests, test};

/// Checks formatting, lints, tests, documentation, licences and advisories.
///
/// # Errors
/// Something does not hold.
pub(crate) fn check() -> Result<()> {
    run(&mut command("cargo", &["fmt", "--all", "--check"]))?;
    run(&mut command(
        "cargo",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    ))?;
    guests::lint()?;
    bench::check()?;
    test::test()?;
    run(command("cargo", &["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    dependencies()
}

/// Licences, sources and bans of the dependencies; advisories, where their database can be fetched.
fn dependencies() -> Result<()> {
    if !succeeds(&mut command("cargo", &["deny", "--version"])) {
        run(&mut command(
            "cargo",
            &["install", "cargo-deny", "--locked"],
        ))
        .context("cargo-deny checks the licences of the dependencies and is missing")?;
    }
    run(&mut command(
        "cargo",
        &[
            "deny",
            "check",
            "--hide-inclusion-graph",
            "licenses",
            "bans",
            "sources",
        ],
    ))?;
    if let Err(error) = run(&mut command("cargo", &["deny", "fetch", "db"])) {
        println!("advisories were not checked: their database could not be fetched ({error})");
        return Ok(());
    }
    run(&mut command(
        "cargo",
        &["deny", "check", "--disable-fetch", "advisories"],
    ))
}
