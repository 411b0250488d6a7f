//! The transformations of the examples and of the tests: packages of their own, outside of the
//! workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{command, run};

/// What of the checkout a feature repository has below `.unskew/sdk`, where transformations look
/// for the SDK.
const SDK: [&str; 5] = [
    "wit",
    "sdk/rust/Cargo.toml",
    "sdk/rust/src",
    "sdk/rust/macros/Cargo.toml",
    "sdk/rust/macros/src",
];

/// Runs the unit tests of every transformation, natively.
///
/// # Errors
/// A test fails, or the SDK cannot be put beside the transformations.
pub(crate) fn test() -> Result<()> {
    each(|manifest| cargo(&["test", "--quiet"], manifest, &[]))
}

/// Checks the formatting of every transformation, and runs clippy on it.
///
/// # Errors
/// There is something to change.
pub(crate) fn lint() -> Result<()> {
    each(|manifest| cargo(&["fmt", "--check"], manifest, &[]))?;
    each(|manifest| {
        cargo(
            &["clippy", "--quiet", "--all-targets"],
            manifest,
            &["--", "-D", "warnings"],
        )
    })
}

fn cargo(before: &[&str], manifest: &Path, after: &[&str]) -> Command {
    let root = crate::root();
    let mut cargo = command("cargo", before);
    cargo
        .arg("--manifest-path")
        .arg(manifest.strip_prefix(&root).unwrap_or(manifest))
        .args(after)
        // One folder for all of them: the SDK is compiled once.
        .env("CARGO_TARGET_DIR", "target/guests");
    cargo
}

fn each(cargo: impl Fn(&Path) -> Command) -> Result<()> {
    for repository in repositories()? {
        put_sdk(&repository.folder)
            .with_context(|| format!("the SDK for {}", repository.folder.display()))?;
        for manifest in &repository.transformations {
            run(&mut cargo(manifest))?;
        }
    }
    Ok(())
}

/// A folder that has transformations, and `.unskew/sdk` when these are to be compiled.
struct Repository {
    folder: PathBuf,
    /// The manifests.
    transformations: Vec<PathBuf>,
}

/// The examples, and `tests`.
fn repositories() -> Result<Vec<Repository>> {
    let root = crate::root();
    let mut found = Vec::new();
    for example in folders(&root.join("examples"))? {
        let transforms = example.join("transforms");
        found.push((example, transforms));
    }
    found.push((root.join("tests"), root.join("tests/components")));
    let repositories = found.into_iter().filter(|(_, packages)| packages.is_dir());
    repositories
        .map(|(folder, packages)| {
            let manifests = folders(&packages)?
                .into_iter()
                .map(|package| package.join("Cargo.toml"))
                .filter(|manifest| manifest.is_file());
            Ok(Repository {
                folder,
                transformations: manifests.collect(),
            })
        })
        .collect()
}

/// The folders in a folder, by name.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Puts the SDK where the transformations of a repository look for it. `unskew apply` does the
/// same; here nothing of the command need be compiled for it.
fn put_sdk(repository: &Path) -> Result<()> {
    let root = crate::root();
    let sdk = repository.join(".unskew/sdk");
    for part in SDK {
        copy(&root.join(part), &sdk.join(part))?;
    }
    Ok(())
}

/// Copies a file or a folder; what is the same already is left alone, so that cargo sees no change.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let bytes = fs::read(from)?;
    if fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, bytes)?;
    Ok(())
}
