//! The benchmarks: what Python needs for them, the optimized command, and the scripts of `bench/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{command, run};
use crate::setup;

const REQUIREMENTS: &str = "bench/requirements.txt";
const LOAD: &str = "bench/load/Cargo.toml";
/// Below the folder in which cargo puts what it builds.
const BUILT: &str = "bench/build";
/// What calls a component in a loop.
const CALL: &str = "unskew-bench-call";
/// Leaves the command as it was built before; said before all arguments of the script.
const NO_BUILD: &str = "--no-build";

/// Measures the point-in-time join against other engines.
///
/// # Errors
/// Something that is needed cannot be made, or the script fails.
pub(crate) fn pit(arguments: &[&str]) -> Result<()> {
    bench("pit", arguments)
}

/// Measures what a component costs in the build of a training set.
///
/// # Errors
/// Something that is needed cannot be made, or the script fails.
pub(crate) fn transform(arguments: &[&str]) -> Result<()> {
    setup::wasm_target()?;
    bench("transform", arguments)
}

/// Measures requests, beside a bare handler and beside Feast.
///
/// # Errors
/// Something that is needed cannot be made, or the script fails.
pub(crate) fn serve(arguments: &[&str]) -> Result<()> {
    setup::wasm_target()?;
    serving("serve", arguments)
}

/// Measures bulk writes into the online stores, beside bare ones and beside Feast's.
///
/// # Errors
/// Something that is needed cannot be made, or the script fails.
pub(crate) fn materialize(arguments: &[&str]) -> Result<()> {
    serving("materialize", arguments)
}

/// Measures how long service takes to be back after faults of Redis.
///
/// # Errors
/// Something that is needed cannot be made, or the script fails.
pub(crate) fn faults(arguments: &[&str]) -> Result<()> {
    serving("faults", arguments)
}

/// Checks and tests the load generator, which the workspace does not hold.
///
/// # Errors
/// There is something to change, or a test fails.
pub(crate) fn check() -> Result<()> {
    run(&mut command(
        "cargo",
        &["fmt", "--check", "--manifest-path", LOAD],
    ))?;
    run(load(&["clippy", "--quiet", "--all-targets"])?.args(["--", "-D", "warnings"]))?;
    run(&mut load(&["test", "--quiet"])?)
}

/// A command of cargo on the load generator. What it makes goes to a folder of its own: its
/// workspace is another, and a build of one need not wait for the other.
fn load(arguments: &[&str]) -> Result<Command> {
    let mut cargo = command("cargo", arguments);
    cargo
        .args(["--locked", "--manifest-path", LOAD])
        .env("CARGO_TARGET_DIR", target()?.join(BUILT));
    Ok(cargo)
}

/// A benchmark that drives servers, for which the load generator is built.
fn serving(script: &str, arguments: &[&str]) -> Result<()> {
    setup::redis_server()?;
    run(&mut load(&["build", "--release"])?)?;
    let load = target()?.join(BUILT).join("release/unskew-load");
    let load = load.to_string_lossy();
    let mut all = arguments.to_vec();
    // Whether to build comes before all others.
    let first = usize::from(arguments.first() == Some(&NO_BUILD));
    all.splice(first..first, ["--load", &load]);
    bench(script, &all)
}

fn bench(script: &str, arguments: &[&str]) -> Result<()> {
    let target = target()?;
    let work = target.join("bench");
    let python = python(&work.join("venv"))?;
    let arguments = match arguments {
        [NO_BUILD, rest @ ..] => rest,
        all => {
            run(&mut command(
                "cargo",
                &["build", "--release", "-p", "unskew", "-p", CALL],
            ))?;
            all
        }
    };
    run(Command::new(python)
        .arg(format!("bench/{script}.py"))
        .arg("--unskew")
        .arg(target.join("release/unskew"))
        .arg("--call")
        .arg(target.join("release").join(CALL))
        .arg("--work")
        .arg(work)
        .args(arguments)
        .current_dir(crate::root()))
}

/// The folder in which cargo puts what it builds; this binary is in it.
///
/// # Errors
/// The system does not say where it is.
pub(crate) fn target() -> Result<PathBuf> {
    let xtask = std::env::current_exe().context("this binary has no path")?;
    let target = xtask.parent().and_then(Path::parent);
    Ok(target.context("this binary is in no folder")?.to_owned())
}

/// The Python of an environment with all that `requirements.txt` names; it is made anew when that
/// file has changed.
fn python(venv: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    let wanted = fs::read_to_string(crate::root().join(REQUIREMENTS)).context(REQUIREMENTS)?;
    // Written last: an environment that was not finished has none.
    let stamp = venv.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        println!("the Python environment is there");
        return Ok(python);
    }
    let venv = venv.to_string_lossy();
    run(&mut command("python3", &["-m", "venv", "--clear", &venv]))
        .context("the benchmarks need Python 3.11 or newer, with its module venv")?;
    run(
        command(&python.to_string_lossy(), &["-m", "pip", "install"]).args([
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            REQUIREMENTS,
        ]),
    )?;
    fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())?;
    Ok(python)
}
