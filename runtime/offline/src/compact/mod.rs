//! Many small files of a source become few large ones, while others read and push.
//!
//! ```text
//! for each folder:  small files of the same columns ─▶ a new file that says which it replaces
//!                                                     (see `replaced`: from its name on it counts)
//! some time later:  what is replaced is deleted
//! ```
//!
//! Rows are copied as they are: none is dropped, merged or moved to another folder, equal ones
//! neither. One compaction of a source runs at a time: two that overlap could each make a file of
//! the same rows.

mod lock;
mod merge;
mod remove;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use parquet::basic::Type as PhysicalType;
use serde::Serialize;
use unskew_core::view::Source;

use self::lock::Lock;
use self::merge::merge;
use crate::append::{AppendProblem, Folder, folder};
use crate::error::OfflineError;
use crate::files::SourceFile;
use crate::offline::Offline;
use crate::progress::Progress;
use crate::replaced::{place, told};
use crate::schema::FileSchema;

/// How files are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compact {
    /// About how large, in bytes, a file becomes; one of at least half of it is left as it is.
    pub target_bytes: u64,
    /// The clock, in microseconds since 1970.
    pub now: i64,
    /// How long, in microseconds, a file that an earlier run replaced is kept for those who read
    /// it.
    pub grace: i64,
}

/// What was done to a source's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Compacted {
    /// How many files counted before.
    pub files_before: u64,
    /// How many count now.
    pub files_after: u64,
    /// The new files.
    pub merged: Vec<MergedFile>,
    /// The replaced files that were deleted.
    pub removed: Vec<String>,
    /// How many replaced files are still there, for those who read them.
    pub kept: u64,
}

/// A file that replaces others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MergedFile {
    /// The file: a path, or a URL.
    pub file: String,
    /// How many files it replaces.
    pub files: u64,
    /// How many rows it has: as many as those together.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// Why files cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompactProblem {
    /// Somebody else is at it.
    #[error(
        "it is being compacted already, as `{lock}` says; wait for that{}",
        stale.as_deref().unwrap_or_default()
    )]
    Locked {
        /// What says so.
        lock: String,
        /// What to do if it is not so.
        stale: Option<String>,
    },
    /// The source is no folder.
    #[error("{0}")]
    NoFolder(AppendProblem),
    /// The new file has not as many rows as those that it was to replace.
    #[error(
        "the files of `{folder}` have {expected} rows and {found} were read of them; nothing was \
         replaced"
    )]
    Rows {
        /// The folder.
        folder: String,
        /// What their footers say.
        expected: u64,
        /// What was read.
        found: u64,
    },
}

impl Offline {
    /// Merges the small files of a source, and deletes those that earlier runs have replaced and
    /// kept long enough. What it replaces itself is left to [`Self::remove_replaced`].
    ///
    /// Files are merged with others of the same folder and the same columns alone. Killed at any
    /// time, it leaves a source with the same rows, each seen once by the readers of this crate.
    ///
    /// # Errors
    /// The source is no folder, is being compacted already, has a file that cannot be read or that
    /// somebody writes meanwhile, or cannot be written.
    pub async fn compact(
        &self,
        source: &Source,
        request: &Compact,
        progress: Arc<dyn Progress>,
    ) -> Result<Compacted, OfflineError> {
        let (folder, lock) = self.lock(source, request.now).await?;
        let done = self.merge_all(source, &folder, request, progress).await;
        lock.release().await;
        done
    }

    /// Deletes the files of a source that were replaced by the instant `until`, in microseconds
    /// since 1970, or by one of the files `merged`, whatever reads them, and says which. Those that
    /// another run has replaced since are left to that.
    ///
    /// # Errors
    /// As those of [`Self::compact`].
    pub async fn remove_replaced(
        &self,
        source: &Source,
        until: i64,
        merged: &[MergedFile],
    ) -> Result<Vec<String>, OfflineError> {
        let (_, lock) = self.lock(source, until).await?;
        let merged: BTreeSet<&str> = merged.iter().map(|merged| merged.file.as_str()).collect();
        let removed = async {
            let told = told(self.all_files(source).await?)?;
            let is_due = |by: &SourceFile| {
                is_before(by, until) || merged.contains(&*by.path.to_string_lossy())
            };
            let due = told.replaced.iter().filter(|(_, by)| by.iter().any(is_due));
            remove::all(due.map(|(file, _)| &file.file)).await
        };
        let removed = removed.await;
        lock.release().await;
        removed
    }

    async fn lock(&self, source: &Source, now: i64) -> Result<(Folder, Lock), OfflineError> {
        let folder = folder(self.root(), source, &self.settings().object_store)
            .await?
            .map_err(|problem| {
                OfflineError::compact(&source.name, CompactProblem::NoFolder(problem))
            })?;
        let lock = Lock::take(&source.name, &folder, now).await?;
        Ok((folder, lock))
    }

    async fn all_files(&self, source: &Source) -> Result<Vec<FileSchema>, OfflineError> {
        self.listed(&source.name, &source.path, source.partition.as_ref())
            .await
    }

    async fn merge_all(
        &self,
        source: &Source,
        folder: &Folder,
        request: &Compact,
        progress: Arc<dyn Progress>,
    ) -> Result<Compacted, OfflineError> {
        if let Folder::Local(path) = folder {
            remove::abandoned(path.clone(), request.now).await?;
        }
        let told = told(self.all_files(source).await?)?;
        let until = request.now.saturating_sub(request.grace);
        let (old, young): (Vec<_>, Vec<_>) = told
            .replaced
            .into_iter()
            .partition(|(_, by)| by.iter().any(|by| is_before(by, until)));
        let mut done = Compacted {
            files_before: told.counting.len() as u64,
            removed: remove::all(old.iter().map(|(file, _)| &file.file)).await?,
            ..Compacted::default()
        };
        // A file that replaces another goes on doing so after it was replaced itself.
        let young: BTreeMap<_, _> = young
            .iter()
            .map(|(file, _)| (place(&file.file), &file.file))
            .collect();
        let groups = groups(told.counting, request.target_bytes);
        let rows = groups.iter().flatten().map(|file| file.rows).sum();
        let stage = format!("merging the files of `{}`", source.name);
        progress.begin(&stage, rows);
        for group in groups {
            let files = group.len() as u64;
            let merged = merge(source, folder, group, &young, request.now, &progress).await?;
            done.kept += files;
            done.merged.push(merged);
        }
        let replaced: u64 = done.merged.iter().map(|merged| merged.files).sum();
        done.files_after = done.files_before - replaced + done.merged.len() as u64;
        done.kept += young.len() as u64;
        Ok(done)
    }
}

/// Whether a file was there at an instant.
fn is_before(file: &SourceFile, until: i64) -> bool {
    file.meta.last_modified.timestamp_micros() <= until
}

/// How many files become one at most: it lists them for as long as it lives.
const GROUP_FILES: usize = 10_000;

/// The small files, in groups each of which becomes one: of one folder and the same columns, and
/// together about as large as wanted.
fn groups(files: Vec<FileSchema>, target_bytes: u64) -> Vec<Vec<FileSchema>> {
    let is_small = |file: &FileSchema| file.file.meta.size < target_bytes.div_ceil(2);
    // With how many bytes each has.
    let mut open: Vec<(u64, Vec<FileSchema>)> = Vec::new();
    let mut groups = Vec::new();
    for file in files
        .into_iter()
        .filter(|file| is_small(file) && can_be_copied(file))
    {
        let fits =
            |(_, group): &(u64, Vec<FileSchema>)| group.first().is_some_and(|one| fit(one, &file));
        // The files of a folder follow one another.
        let at = match open.iter().rposition(fits) {
            Some(at) => at,
            None => {
                open.push((0, Vec::new()));
                open.len() - 1
            }
        };
        let (bytes, group) = &mut open[at];
        *bytes += file.file.meta.size;
        group.push(file);
        if *bytes >= target_bytes || group.len() >= GROUP_FILES {
            groups.push(open.swap_remove(at).1);
        }
    }
    groups.extend(open.into_iter().map(|(_, group)| group));
    groups.retain(|group| group.len() > 1);
    groups
}

/// Whether a copy by way of Arrow loses nothing: instants of 96 bits are read as microseconds.
fn can_be_copied(file: &FileSchema) -> bool {
    let schema = file.metadata.parquet_schema();
    let is_old = |leaf: usize| schema.column(leaf).physical_type() == PhysicalType::INT96;
    !(0..schema.num_columns()).any(is_old)
}

/// Whether two files lie in one folder and hold the same columns; what may be null may differ.
fn fit(one: &FileSchema, other: &FileSchema) -> bool {
    // Beside the columns a schema has the file's own metadata.
    let (fields, others) = (one.schema.fields(), other.schema.fields());
    let is_same = |(one, other): (&FieldRef, &FieldRef)| {
        one.name() == other.name()
            && one.data_type() == other.data_type()
            && one.metadata() == other.metadata()
    };
    one.file.path.parent() == other.file.path.parent()
        && fields.len() == others.len()
        && fields.iter().zip(others).all(is_same)
}

/// The folder of a file.
fn parent(file: &FileSchema) -> PathBuf {
    let parent = file.file.path.parent();
    parent.unwrap_or(Path::new("")).to_owned()
}
