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
    s3_server()?;
    feast_clients()?;
    deployment_schemas()?;
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

/// The S3 server against which tests of object stores run; of this version, so that it does the same
/// everywhere.
const MOTO: &str = "moto[server]==5.2.5";

/// Sets up an S3 server in a virtual environment of Python.
fn s3_server() -> Result<()> {
    virtual_environment(&Environment {
        name: "s3",
        what: "the S3 server",
        install: &[MOTO],
        contents: MOTO.to_owned(),
        check: &["-c", "import moto.server"],
    })
}

/// Sets up Feast's clients in a virtual environment of Python.
fn feast_clients() -> Result<()> {
    let file = crate::root().join("tests/feast/requirements.txt");
    let contents = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    virtual_environment(&Environment {
        name: "feast",
        what: "Feast's clients",
        install: &["--requirement", &path(&file)?],
        contents,
        check: &["-c", "import importlib.metadata as m; m.version('feast')"],
    })
}

/// The schemas of Kubernetes and of the Compose specification, against which tests hold what is
/// deployed; both packages have the schemas in them.
const SCHEMAS: [&str; 2] = ["kubernetes-validate==1.37.0", "check-jsonschema==0.39.0"];

/// Sets up the schemas of what is deployed in a virtual environment of Python.
fn deployment_schemas() -> Result<()> {
    virtual_environment(&Environment {
        name: "deploy",
        what: "the schemas of Kubernetes and Compose",
        install: &SCHEMAS,
        contents: SCHEMAS.join("\n"),
        check: &["-c", "import kubernetes_validate, check_jsonschema"],
    })
}

/// A virtual environment of Python, in Cargo's folder of builds.
struct Environment<'a> {
    name: &'a str,
    /// What lies in it, for a message.
    what: &'a str,
    /// What pip is to install.
    install: &'a [&'a str],
    /// What of all this decides what is installed: if it changes, it is installed anew.
    contents: String,
    /// What Python has to be able to do when it is there.
    check: &'a [&'a str],
}

fn virtual_environment(environment: &Environment<'_>) -> Result<()> {
    let what = environment.what;
    let root = crate::root();
    // A relative one is relative to where Cargo is called.
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = root.join(target).join("venv").join(environment.name);
    let programs = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let interpreter = path(&programs.join("python"))?;
    // Written when all is installed: what an interruption left behind is not taken for whole.
    let mark = folder.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == environment.contents)
        && succeeds(&mut command(&interpreter, environment.check))
    {
        println!("{what}: there");
        return Ok(());
    }
    python()?;
    let make = ["-m", "venv", "--clear", &path(&folder)?];
    run(&mut command("python3", &make)).with_context(|| {
        format!("a virtual environment of Python cannot be made, in which {what} would lie")
    })?;
    let install = [&["-m", "pip", "install", "--quiet"], environment.install].concat();
    run(&mut command(&interpreter, &install))?;
    std::fs::write(&mark, &environment.contents)
        .with_context(|| format!("cannot write {}", mark.display()))
}

/// Sets up Python with what it needs to make virtual environments.
fn python() -> Result<()> {
    let has_venv = || succeeds(&mut command("python3", &["-c", "import venv, ensurepip"]));
    if has_venv() {
        return Ok(());
    }
    let advice = "python3 with its module venv is missing, with which the servers and clients of \
                  tests run; install it: `apt-get install python3-venv` (Debian, Ubuntu), \
                  `dnf install python3` (Fedora), `brew install python` (macOS)";
    apt_install("python3-venv", advice)?;
    if !has_venv() {
        bail!("apt-get installed python3-venv, yet python3 cannot import it; {advice}");
    }
    Ok(())
}

fn path(path: &Path) -> Result<String> {
    let text = path.to_str();
    Ok(text
        .with_context(|| format!("{} is no UTF-8", path.display()))?
        .to_owned())
}

/// Sets up a Redis server, against which the tests of the online store run.
pub(crate) fn redis_server() -> Result<()> {
    if has_redis() {
        println!("redis-server is there");
        return Ok(());
    }
    let advice = "redis-server is missing, against which tests of the online store run; install it: \
                  `apt-get install redis-server` (Debian, Ubuntu), `dnf install redis` (Fedora), \
                  `brew install redis` (macOS)";
    apt_install("redis-server", advice)?;
    if !has_redis() {
        bail!("apt-get installed redis-server, yet it cannot be run; {advice}");
    }
    Ok(())
}

/// Installs a package where apt-get is the way to; `advice` is for where it is not.
fn apt_install(package: &str, advice: &'static str) -> Result<()> {
    if !succeeds(&mut command("apt-get", &["--version"])) {
        bail!(advice);
    }
    let Some(prefix) = as_root() else {
        bail!("{advice}; only root may, and there is no sudo");
    };
    let install = [
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
        package,
    ];
    for arguments in [["apt-get", "update"].as_slice(), &install] {
        let words = [&prefix, arguments].concat();
        let (program, arguments) = words.split_first().context("no command")?;
        run(&mut command(program, arguments)).context(advice)?;
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
