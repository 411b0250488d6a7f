//! A feature repository from nothing to parity, on a machine with nothing but Rust.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process::{command, quoted, run, typed};
use crate::server::Server;
use crate::steps::Steps;
use crate::{http, json, setup};

const SERVICE: &str = "purchase_model";
/// The end of the generated history.
const END: &str = "2025-04-01T00:00:00Z";
/// A customer of today, one who has not been seen for weeks, and one whom nobody knows.
const REQUEST: &str = r#"{
  "feature_service": "purchase_model",
  "entities": {"customer_id": [1003, 1014, 999999]},
  "request": {"amount": [59.90, 12.50, 80.00]},
  "as_of": "2025-04-01T00:00:00Z"
}"#;

/// Takes every step of a feature's life in a copy of `examples/customers`.
///
/// # Errors
/// A step fails, or the training set and the answers differ.
pub(crate) fn demo() -> Result<()> {
    let root = crate::root();
    let binaries = binaries()?;
    let folder = binaries.parent().unwrap_or(&root).join("demo/customers");
    println!(
        "Unskew, end to end: one WebAssembly component builds a training set and answers requests."
    );

    let mut steps = Steps::new(9);
    steps.step("Set up what compiles transformations", setup::wasm_target)?;
    steps.step("Build the command (the first time takes minutes)", || {
        // Together: built one by one they would want Arrow twice, with other features each.
        let packages = ["-p", "unskew", "-p", "customers-data"];
        run(command("cargo", &["build"]).args(packages))
    })?;
    let repository = Repository {
        unskew: binaries.join("unskew"),
        folder: folder.clone(),
    };
    steps.step("Make a feature repository, with generated data", || {
        println!("$ export PATH=\"{}:$PATH\"", binaries.display());
        println!("$ cp -r examples/customers {0} && cd {0}", shown(&folder));
        fresh_copy(&root.join("examples/customers"), &folder)?;
        run(Command::new(binaries.join("customers-data"))
            .arg("data")
            .current_dir(&folder))
    })?;
    steps.step(
        "Apply: compile the transformations, verify and register",
        || run(&mut repository.unskew(&["apply"])),
    )?;
    steps.step("Build a training set, as of each row's own time", || {
        run(&mut repository.unskew(&[
            "training-set",
            "--service",
            SERVICE,
            "--entities",
            "data/carts.parquet",
            "--out",
            "training.parquet",
        ]))
    })?;
    steps.step("Materialize into the embedded online store", || {
        run(&mut repository.unskew(&["materialize-incremental", END]))
    })?;
    // On an error it is killed as well, when it goes out of scope.
    let server = steps.step("Serve", || {
        Server::start(&mut repository.unskew(&["serve", "--port", "0"]))
    })?;
    steps.step("Ask over HTTP", || ask(&server))?;
    let parity = steps.step("Parity: both paths, compared bit by bit", || {
        repository.parity(&[])?;
        repository.parity(&["--url", server.url()])
    })?;
    println!("$ kill {}", server.id());
    drop(server);
    steps.summary();
    println!("\nIt is all still there, in {}.\n", shown(&folder));
    println!("{parity}");
    Ok(())
}

/// The folder of this binary, in which cargo puts the others of the workspace too.
fn binaries() -> Result<PathBuf> {
    let xtask = std::env::current_exe().context("this binary has no path")?;
    Ok(xtask
        .parent()
        .context("this binary is in no folder")?
        .to_owned())
}

/// The feature repository of the demo.
struct Repository {
    unskew: PathBuf,
    folder: PathBuf,
}

impl Repository {
    /// The command `unskew` in the repository.
    fn unskew(&self, arguments: &[&str]) -> Command {
        let mut unskew = Command::new(&self.unskew);
        unskew.args(arguments).current_dir(&self.folder);
        unskew
    }

    /// Runs `unskew parity`, and gives the line that says what came out.
    fn parity(&self, more: &[&str]) -> Result<String> {
        let mut unskew = self.unskew(&["parity", "--service", SERVICE]);
        unskew.args(more);
        let typed = typed(&unskew);
        println!("$ {typed}");
        let output = unskew
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("`{typed}` cannot be started"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        if !output.status.success() {
            bail!("`{typed}` failed ({})", output.status);
        }
        let result = text.lines().rfind(|line| line.starts_with("parity:"));
        let result = result.with_context(|| format!("`{typed}` did not say what came out"))?;
        if !result.ends_with(" 0 differences") {
            bail!("`{typed}` found differences");
        }
        Ok(result.to_owned())
    }
}

fn ask(server: &Server) -> Result<()> {
    println!("$ curl {}/online -d '{REQUEST}'", server.url());
    let answer = http::post(server.url(), "/online", REQUEST)?;
    println!("{}", json::indented(&answer));
    Ok(())
}

/// A path as one would type it in the checkout.
fn shown(path: &Path) -> String {
    let path = path.strip_prefix(crate::root()).unwrap_or(path);
    quoted(&path.to_string_lossy())
}

/// Copies an example without what was made of it (and without the crate that makes its data), to a
/// folder that an earlier demo may have left.
fn fresh_copy(example: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("{} is in use", folder.display()))?;
    }
    copy(example, folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        let to = to.join(&name);
        if !entry.file_type()?.is_dir() {
            fs::copy(entry.path(), to)?;
        } else if name != "target" && name != ".unskew" && name != "data" {
            copy(&entry.path(), &to)?;
        }
    }
    Ok(())
}
