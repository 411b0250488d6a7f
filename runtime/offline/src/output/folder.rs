//! A training set as a folder of Parquet files.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use tempfile::{Builder, TempDir};

use super::cannot_write;
use super::parquet::{ParquetOptions, ParquetWriter};
use super::staged::{failed, hidden_name, parent, refuse_existing, sync};
use crate::error::OfflineError;

/// Whether `path` is a folder with a training set in it, and with nothing else.
pub(super) fn is_training_set(path: &Path) -> bool {
    is_all(path, |name| {
        name.strip_prefix("part-")
            .and_then(|rest| rest.strip_suffix(".parquet"))
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    }) && !is_empty(path)
}

fn is_empty(path: &Path) -> bool {
    is_all(path, |_| false)
}

/// Whether `path` is a folder in which there are only such names.
fn is_all(path: &Path, is_such: impl Fn(&str) -> bool) -> bool {
    let Ok(mut entries) = path.read_dir() else {
        return false;
    };
    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(&is_such)))
}

/// A temporary folder beside the one that it will be; it is deleted when dropped.
pub(super) struct StagedFolder {
    out: PathBuf,
    overwrite: bool,
    temporary: TempDir,
}

impl StagedFolder {
    /// # Errors
    /// `out` exists and is not to be overwritten, or is no folder of a training set, or nothing can
    /// be written beside it.
    pub(super) fn beside(out: &Path, overwrite: bool) -> Result<Self, OfflineError> {
        // Without the `/` at its end: a link to a folder is replaced, not what it leads to.
        let out: PathBuf = out.components().collect();
        if !is_empty(&out) {
            refuse_existing(&out, overwrite)?;
            if out.symlink_metadata().is_ok() && !is_training_set(&out) {
                let why = "only a folder that holds a training set, part-00000.parquet and so on, \
                           and nothing else is replaced";
                return Err(cannot_write(&out, std::io::Error::other(why)));
            }
        }
        let mut builder = Builder::new();
        let name = hidden_name(&out)?;
        builder.prefix(&name).suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        let temporary = builder
            .tempdir_in(parent(&out))
            .map_err(|error| cannot_write(&out, error))?;
        Ok(Self {
            out,
            overwrite,
            temporary,
        })
    }

    fn persist(self) -> Result<(), OfflineError> {
        let Self {
            out,
            overwrite,
            temporary,
        } = self;
        sync(temporary.path());
        // A rename replaces a folder only if it is empty, so a former training set goes aside first.
        let mut former = None;
        if overwrite && is_training_set(&out) {
            let aside = Builder::new()
                .prefix(&hidden_name(&out)?)
                .suffix(".former.tmp")
                .tempdir_in(parent(&out))
                .map_err(|error| cannot_write(&out, error))?;
            fs::rename(&out, aside.path().join("set")).map_err(|error| failed(&out, error))?;
            former = Some(aside);
        }
        if let Err(error) = fs::rename(temporary.path(), &out) {
            if let Some(former) = &former {
                let _ = fs::rename(former.path().join("set"), &out);
            }
            return Err(match error.kind() {
                std::io::ErrorKind::DirectoryNotEmpty => OfflineError::Exists { path: out },
                _ => failed(&out, error),
            });
        }
        // It has its name now, and is not to be deleted.
        let _ = temporary.keep();
        sync(parent(&out));
        Ok(())
    }
}

/// Writes one Parquet file after the other.
pub(super) struct FolderWriter {
    staged: StagedFolder,
    schema: SchemaRef,
    options: ParquetOptions,
    rows_per_file: usize,
    current: ParquetWriter,
    /// How many rows the current file has.
    rows: usize,
    /// How many files were begun.
    files: usize,
}

impl FolderWriter {
    pub(super) fn start(
        staged: StagedFolder,
        schema: SchemaRef,
        options: ParquetOptions,
        rows_per_file: Option<NonZero<usize>>,
    ) -> Result<Self, OfflineError> {
        Ok(Self {
            current: part(&staged, 0, &schema, &options)?,
            staged,
            schema,
            options,
            rows_per_file: rows_per_file.map_or(usize::MAX, NonZero::get),
            rows: 0,
            files: 1,
        })
    }

    pub(super) async fn write(&mut self, batch: RecordBatch) -> Result<(), OfflineError> {
        let mut start = 0;
        while start < batch.num_rows() {
            if self.rows == self.rows_per_file {
                // Begun only when there is a row for it: no file is empty, but that of no rows.
                let next = part(&self.staged, self.files, &self.schema, &self.options)?;
                std::mem::replace(&mut self.current, next).finish().await?;
                self.rows = 0;
                self.files += 1;
            }
            let length = (batch.num_rows() - start).min(self.rows_per_file - self.rows);
            self.current.write(batch.slice(start, length)).await?;
            self.rows += length;
            start += length;
        }
        Ok(())
    }

    pub(super) async fn finish(self) -> Result<(), OfflineError> {
        self.current.finish().await?;
        self.staged.persist()
    }
}

/// Begins the file of that number.
fn part(
    staged: &StagedFolder,
    number: usize,
    schema: &SchemaRef,
    options: &ParquetOptions,
) -> Result<ParquetWriter, OfflineError> {
    let name = format!("part-{number:05}.parquet");
    let out = staged.out.join(&name);
    let file = fs::File::create_new(staged.temporary.path().join(&name));
    let file = file.map_err(|error| cannot_write(&out, error))?;
    Ok(ParquetWriter::start(
        file,
        &out,
        Arc::clone(schema),
        options,
    ))
}
