//! What is wrong with definitions: all of it, each with its file and line.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, relative to the feature repository.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What was found, and what would be valid.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Everything that is wrong, in the order of files and lines; never empty as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Adds a problem of the value at `place`.
    pub(crate) fn at(&mut self, place: &Place, message: impl fmt::Display) {
        self.0.push(Problem {
            file: place.file.name.clone(),
            line: place.line(),
            message: message.to_string(),
        });
    }

    /// `value`, unless there is a problem.
    pub(crate) fn or<T>(self, value: T) -> Result<T, Self> {
        match self.0.is_empty() {
            true => Ok(value),
            false => Err(self.sorted()),
        }
    }

    /// In the order of files and lines, each once.
    pub(super) fn sorted(mut self) -> Self {
        self.sort();
        self
    }

    /// Sorts by file and line, and keeps each problem once.
    pub(super) fn sort(&mut self) {
        self.0.sort();
        self.0.dedup();
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A file of definitions: its name, and the line on which each value stands, by JSON pointer.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) name: String,
    pub(crate) lines: BTreeMap<String, usize>,
}

/// Where a value stands.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) file: Arc<Lines>,
    pub(crate) pointer: String,
}

impl Place {
    /// The place of the value under `key`.
    pub(crate) fn at(&self, key: impl fmt::Display) -> Self {
        Self {
            file: Arc::clone(&self.file),
            pointer: below(&self.pointer, key),
        }
    }

    /// Its line, or that of the nearest value around it.
    pub(crate) fn line(&self) -> usize {
        let mut pointer = self.pointer.as_str();
        loop {
            match (self.file.lines.get(pointer), pointer.rfind('/')) {
                (Some(&line), _) => return line,
                (None, Some(parent)) => pointer = &pointer[..parent],
                (None, None) => return 1,
            }
        }
    }
}

/// The JSON pointer to the value under `key` of the one at `pointer`.
pub(super) fn below(pointer: &str, key: impl fmt::Display) -> String {
    let key = key.to_string().replace('~', "~0").replace('/', "~1");
    format!("{pointer}/{key}")
}

/// A definition, and where it stands.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The definition.
    pub value: T,
    /// Its place.
    pub place: Place,
}
