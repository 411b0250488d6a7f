//! Runs the command in folders of its own.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// How the command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It ended well.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    /// Its result.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect(&self.stdout)
    }

    /// Its error.
    #[track_caller]
    pub(crate) fn json_error(&self) -> Value {
        serde_json::from_str(&self.stderr).expect(&self.stderr)
    }
}

/// The command, with nothing to read and no terminal.
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unskew"));
    command
        .current_dir(folder)
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Runs the command in `folder`.
pub(crate) fn unskew(folder: &Path, arguments: &[&str]) -> Ran {
    Ran::of(command(folder, arguments).output().unwrap())
}

/// A feature repository that ends with the test.
pub(crate) struct Repository {
    root: PathBuf,
    _folder: TempDir,
}

impl Repository {
    /// One with nothing but a project file.
    pub(crate) fn empty(project: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        std::fs::write(root.join("unskew.yaml"), project).unwrap();
        Self {
            root,
            _folder: folder,
        }
    }

    /// What `unskew init` makes.
    pub(crate) fn init(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        unskew(folder.path(), &["init", name]).done();
        Self {
            root: folder.path().join(name),
            _folder: folder,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = self.path(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        unskew(&self.root, arguments)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        command(&self.root, arguments)
    }
}
