//! Deleting what counts no more.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use object_store::{Error, ObjectStoreExt};
use unskew_core::time;

use crate::error::OfflineError;
use crate::files::SourceFile;
use crate::output::staged::sync;
use crate::replaced::Replaced;
use crate::stores::failed;

/// How old a temporary file is of which nobody will make anything: no file is written for so long.
const ABANDONED: i64 = time::DAY;

/// Deletes files that others replace, unless they were written since they were listed.
///
/// # Errors
/// The system, or the store, refuses.
pub(super) async fn all<'a>(
    files: impl Iterator<Item = &'a SourceFile>,
) -> Result<Vec<String>, OfflineError> {
    let mut removed = Vec::new();
    for file in files {
        let is_gone = match &file.store {
            None => {
                let file = file.clone();
                tokio::task::spawn_blocking(move || local(&file)).await??
            }
            Some(store) => {
                let url = file.path.display().to_string();
                match is_unchanged(file).await? {
                    true => match store.delete(&file.meta.location).await {
                        Ok(()) | Err(Error::NotFound { .. }) => true,
                        Err(error) => return Err(failed(&url, &error)),
                    },
                    false => false,
                }
            }
        };
        if is_gone {
            removed.push(file.path.display().to_string());
        }
    }
    Ok(removed)
}

fn local(file: &SourceFile) -> Result<bool, OfflineError> {
    match SourceFile::at(file.path.clone()) {
        Ok(there) if Replaced::of(file).is(&there) => {}
        _ => return Ok(false),
    }
    std::fs::remove_file(&file.path).map_err(|error| OfflineError::Io {
        action: "cannot delete",
        path: file.path.clone(),
        error,
    })?;
    if let Some(folder) = file.path.parent() {
        sync(folder);
    }
    Ok(true)
}

/// Whether a file is still the one that was listed.
///
/// # Errors
/// The store does not answer.
pub(super) async fn is_unchanged(file: &SourceFile) -> Result<bool, OfflineError> {
    let Some(store) = &file.store else {
        let (listed, path) = (Replaced::of(file), file.path.clone());
        let there = tokio::task::spawn_blocking(move || SourceFile::at(path)).await?;
        return Ok(there.is_ok_and(|there| listed.is(&there)));
    };
    match store.head(&file.meta.location).await {
        Ok(meta) => {
            let there = SourceFile {
                meta,
                ..file.clone()
            };
            Ok(Replaced::of(file).is(&there))
        }
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(failed(&file.path.display().to_string(), &error)),
    }
}

/// Deletes the temporary files of pushes and compactions that were killed long ago.
///
/// # Errors
/// A folder cannot be read.
pub(super) async fn abandoned(folder: PathBuf, now: i64) -> Result<(), OfflineError> {
    tokio::task::spawn_blocking(move || below(&folder, now)).await?
}

fn below(folder: &Path, now: i64) -> Result<(), OfflineError> {
    let io = |error: std::io::Error| OfflineError::Io {
        action: "cannot read the folder",
        path: folder.to_owned(),
        error,
    };
    for entry in folder.read_dir().map_err(io)? {
        let entry = entry.map_err(io)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(io)?);
        if kind.is_dir() {
            below(&path, now)?;
        } else if kind.is_file() && is_abandoned(&path, now) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(OfflineError::Io {
                        action: "cannot delete",
                        path,
                        error,
                    });
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_abandoned(path: &Path, now: i64) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_ours = name.starts_with(".pushed-") || name.starts_with(".compacted-");
    let modified = || {
        let modified = path
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()?;
        let micros = modified.duration_since(UNIX_EPOCH).ok()?.as_micros();
        i64::try_from(micros).ok()
    };
    is_ours
        && name.ends_with(".tmp")
        && modified().is_some_and(|modified| modified < now.saturating_sub(ABANDONED))
}
