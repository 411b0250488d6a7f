//! Files that another file replaces: how small files become large ones without a moment in which a
//! row is seen twice, or not at all.
//!
//! No file system and no object store replaces several files at once. So the new file says in its
//! own metadata which files it replaces, and whoever lists the folder leaves these out:
//!
//! ```text
//! a b c            the new file is written under a hidden name: nobody sees it
//! a b c N(a b c)   it gets its name at once: from now on N counts, and a, b, c do not
//!   b   N(a b c)   they are deleted, in any order, whenever
//!       N(a b c)
//! ```
//!
//! A file is known by its name and by what tells it from another of that name: an object by its
//! e_tag, a file by size and time of modification. So a file that takes an old name later counts,
//! and rows are never lost to a list. A replaced file that was copied elsewhere counts there, too:
//! its rows are then there twice, which decides no result, since equal rows are one winner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::OfflineError;
use crate::files::SourceFile;
use crate::schema::FileSchema;

/// The key in a Parquet file's metadata under which it names the files that it replaces, as JSON.
pub(crate) const REPLACES: &str = "unskew.replaces";

/// A file that is replaced by one in the same folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    /// Its name in the folder.
    pub(crate) file: String,
    size: u64,
    /// In microseconds since 1970.
    modified: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e_tag: Option<String>,
}

impl Replaced {
    pub(crate) fn of(file: &SourceFile) -> Self {
        Self {
            file: name(&file.path),
            size: file.meta.size,
            modified: file.meta.last_modified.timestamp_micros(),
            e_tag: file.meta.e_tag.clone(),
        }
    }

    /// Whether it is `file`, which lies in the same folder.
    pub(crate) fn is(&self, file: &SourceFile) -> bool {
        let other = Self::of(file);
        let is_same = match (&self.e_tag, &other.e_tag) {
            (Some(one), Some(other)) => one.trim_matches('"') == other.trim_matches('"'),
            _ => self.modified == other.modified,
        };
        is_same && self.file == other.file && self.size == other.size
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The files that `file` says it replaces, in its own folder.
///
/// # Errors
/// What it says cannot be read.
pub(crate) fn replaces(file: &FileSchema) -> Result<Vec<Replaced>, OfflineError> {
    let metadata = file.metadata.metadata().file_metadata();
    let entries = metadata.key_value_metadata().into_iter().flatten();
    let mut named = entries.filter(|entry| entry.key == REPLACES);
    let Some(json) = named.next().and_then(|entry| entry.value.as_deref()) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(json).map_err(|error| OfflineError::UnreadableFile {
        file: file.file.path.clone(),
        reason: format!("its list of the files that it replaces is damaged: {error}"),
    })
}

/// The files that count, and those that another replaces, with the index of that one.
pub(crate) struct Told {
    pub(crate) counting: Vec<FileSchema>,
    /// Each with the file that replaces it.
    pub(crate) replaced: Vec<(FileSchema, SourceFile)>,
}

/// Tells files that count from those that another one of the folder replaces.
///
/// # Errors
/// A list cannot be read.
pub(crate) fn told(files: Vec<FileSchema>) -> Result<Told, OfflineError> {
    let mut lists: BTreeMap<PathBuf, Vec<(Replaced, SourceFile)>> = BTreeMap::new();
    for file in &files {
        for replaced in replaces(file)? {
            let folder = file.file.path.parent().unwrap_or(Path::new(""));
            let of_folder = lists.entry(folder.to_owned()).or_default();
            of_folder.push((replaced, file.file.clone()));
        }
    }
    let mut told = Told {
        counting: Vec::with_capacity(files.len()),
        replaced: Vec::new(),
    };
    for file in files {
        let folder = file.file.path.parent().unwrap_or(Path::new(""));
        let mut of_folder = lists.get(folder).into_iter().flatten();
        match of_folder.find(|(replaced, _)| replaced.is(&file.file)) {
            Some((_, by)) => told.replaced.push((file, by.clone())),
            None => told.counting.push(file),
        }
    }
    Ok(told)
}
