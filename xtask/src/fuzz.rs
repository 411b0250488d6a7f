//! Fuzzing: inputs that break something are looked for, and those that reach most are kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::process::{command, run, succeeds};
use crate::{bench, setup};

/// The targets: bytes that a store could hold, and bodies that a client could send.
const TARGETS: [&str; 2] = ["stored", "http"];

/// How long each target is fuzzed if nobody says it.
const SECONDS: u64 = 600;

/// The folder of the targets.
const FUZZ: &str = "fuzz";

/// No sanitizer, which would need a nightly compiler: what is looked for are panics, overflows,
/// broken assertions, and answers that are wrong.
const BUILD: [&str; 4] = ["--fuzz-dir", FUZZ, "--sanitizer", "none"];

/// What an input may take: longer bodies find hardly more, and many fewer of them are tried.
const LIMITS: [&str; 3] = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=4096"];

/// Fuzzes targets one after the other, and keeps the inputs that reach what no smaller one does.
///
/// # Errors
/// Something that is needed is missing, a target does not compile, or an input breaks it; the
/// message says where that input is.
pub(crate) fn fuzz(arguments: &[&str]) -> Result<()> {
    let (targets, seconds) = read(arguments)?;
    setup::wasm_target()?;
    cargo_fuzz()?;
    for target in targets {
        Fuzzed::new(target)?.fuzz(seconds)?;
    }
    Ok(())
}

/// The targets and the seconds that are asked for.
fn read<'a>(arguments: &[&'a str]) -> Result<(Vec<&'a str>, u64)> {
    let (targets, rest) = match arguments {
        [target, rest @ ..] if TARGETS.contains(target) => (vec![*target], rest),
        all => (TARGETS.to_vec(), all),
    };
    match rest {
        [] => Ok((targets, SECONDS)),
        ["--seconds", seconds] => {
            let seconds = seconds.parse();
            Ok((targets, seconds.context("`--seconds` takes a number")?))
        }
        _ => bail!("usage: cargo xtask fuzz [stored|http] [--seconds N]"),
    }
}

fn cargo_fuzz() -> Result<()> {
    if succeeds(&mut command("cargo", &["fuzz", "--version"])) {
        println!("cargo-fuzz is there");
        return Ok(());
    }
    run(&mut command(
        "cargo",
        &["install", "cargo-fuzz", "--locked"],
    ))
    .context("cargo-fuzz builds and runs the fuzz targets and is missing")
}

/// A target and its folders.
struct Fuzzed<'a> {
    target: &'a str,
    /// Where everything lies that a run makes: what is built, inputs that were found, repositories
    /// that are served.
    work: PathBuf,
    /// The inputs that are kept.
    kept: PathBuf,
    /// Where libFuzzer puts the inputs that break something.
    artifacts: PathBuf,
}

impl<'a> Fuzzed<'a> {
    fn new(target: &'a str) -> Result<Self> {
        let fuzz = crate::root().join(FUZZ);
        Ok(Self {
            target,
            work: bench::target()?.join(FUZZ),
            kept: fuzz.join("corpus").join(target),
            artifacts: fuzz.join("artifacts").join(target),
        })
    }

    fn fuzz(&self, seconds: u64) -> Result<()> {
        let found = self.work.join("found").join(self.target);
        fs::create_dir_all(&found)?;
        let dictionary = format!("-dict={FUZZ}/{}.dict", self.target);
        let time = format!("-max_total_time={seconds}");
        // New inputs go to the first of the folders.
        self.run(&[&found, &self.kept], &[&time, &dictionary])?;
        self.keep(&found)
    }

    /// Leaves of the kept inputs and of those that were `found` what reaches all that they reach
    /// together. Inputs that somebody gave a name stay.
    fn keep(&self, found: &Path) -> Result<()> {
        let merged = self.work.join("merged").join(self.target);
        emptied(&merged)?;
        let (hashed, named): (Vec<PathBuf>, Vec<PathBuf>) = files(&self.kept)?
            .into_iter()
            .partition(|file| is_hash(file));
        copy(&named, &merged)?;
        // Whether something is reached counts here, and not how often.
        let merge = ["-set_cover_merge=1", "-use_counters=0"];
        self.run(&[&merged, &self.kept, found], &merge)?;
        for file in hashed {
            fs::remove_file(file)?;
        }
        let all = files(&merged)?;
        copy(&all, &self.kept)?;
        println!("{} inputs of `{}` are kept", all.len(), self.target);
        Ok(())
    }

    /// Runs the target on the inputs of `folders`, compiled anew where something has changed.
    fn run(&self, folders: &[&Path], arguments: &[&str]) -> Result<()> {
        let tried = self.artifacts.join("tried");
        fs::create_dir_all(&self.artifacts)?;
        let _ = fs::remove_file(&tried);
        let before: BTreeSet<PathBuf> = files(&self.artifacts)?.into_iter().collect();
        let temporary = self.work.join("tmp");
        emptied(&temporary)?;
        let done = run(command("cargo", &["fuzz", "run"])
            .args(BUILD)
            .arg("--target-dir")
            .arg(&self.work)
            .arg(self.target)
            .args(folders)
            .arg("--")
            .args(LIMITS)
            .args(arguments)
            .env("UNSKEW_FUZZ_TRIED", &tried)
            // A target ends with its process, and so does nothing at its end.
            .env("TMPDIR", &temporary));
        emptied(&temporary)?;
        let broke = files(&self.artifacts)?.into_iter();
        let mut broke: Vec<PathBuf> = broke.filter(|file| !before.contains(file)).collect();
        // It is of use only where libFuzzer itself kept nothing.
        if done.is_ok() || broke.len() > 1 {
            broke.retain(|file| *file != tried);
            let _ = fs::remove_file(tried);
        }
        done.with_context(|| match broke.as_slice() {
            [] => format!("`{}` failed before it tried an input", self.target),
            broke => format!(
                "`{target}` was broken by an input of {}; put it into {FUZZ}/corpus/{target}, and \
                 `cargo nextest run -p unskew-tests fuzzed` tries it again",
                shown(broke),
                target = self.target,
            ),
        })
    }
}

/// The files of a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

fn copy(files: &[PathBuf], folder: &Path) -> Result<()> {
    for file in files {
        let name = file.file_name().context("a file without a name")?;
        fs::copy(file, folder.join(name)).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Makes a folder, without anything in it.
fn emptied(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Whether libFuzzer named a file, by its SHA-1.
fn is_hash(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn shown(files: &[PathBuf]) -> String {
    let shown: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_fuzzed_and_how_long() {
        for (arguments, expected) in [
            (&[][..], (vec!["stored", "http"], 600)),
            (&["http"], (vec!["http"], 600)),
            (&["stored", "--seconds", "30"], (vec!["stored"], 30)),
        ] {
            assert_eq!(read(arguments).ok(), Some(expected), "{arguments:?}");
        }
        for wrong in [&["grpc"][..], &["--seconds"], &["--seconds", "x"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_that_a_person_gave_are_told_from_hashes() {
        assert!(is_hash(Path::new(
            "a/da39a3ee5e6b4b0d3255bfef95601890afd80709"
        )));
        for name in ["online-stored", "zz39a3ee5e6b4b0d3255bfef95601890afd80709"] {
            assert!(!is_hash(Path::new(name)), "{name}");
        }
    }
}
