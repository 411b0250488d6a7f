//! Temporary files of record batches, as Arrow IPC.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::execution::{DiskManager, SpillFile};

use crate::error::OfflineError;

/// A temporary file; it is deleted when this is dropped.
pub(crate) struct Spill {
    file: Arc<dyn SpillFile>,
    bytes: usize,
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Spill").field(&path(&self.file)).finish()
    }
}

/// Writes a temporary file.
pub(crate) struct SpillWriter {
    file: Arc<dyn SpillFile>,
    writer: StreamWriter<BufWriter<File>>,
}

impl SpillWriter {
    /// A new file, where DataFusion's disk manager puts it.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create(disk: &Arc<DiskManager>, schema: &Schema) -> Result<Self, OfflineError> {
        let file = disk.create_tmp_file("point-in-time join")?;
        let path = path(&file);
        let opened = File::options().write(true).open(&path);
        let opened = opened.map_err(|error| OfflineError::Io {
            action: "cannot write",
            path: path.clone(),
            error,
        })?;
        let writer = StreamWriter::try_new(BufWriter::new(opened), schema);
        Ok(Self {
            writer: writer.map_err(|error| unwritable(&path, error))?,
            file,
        })
    }

    /// Appends a batch; blocks.
    ///
    /// # Errors
    /// The file cannot be written, such as on a disk that is full.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), OfflineError> {
        let written = self.writer.write(batch);
        written.map_err(|error| unwritable(&path(&self.file), error))
    }

    /// The complete file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn finish(mut self) -> Result<Spill, OfflineError> {
        let finished = self.writer.finish().and_then(|()| self.writer.flush());
        let path = path(&self.file);
        finished.map_err(|error| unwritable(&path, error))?;
        let metadata = path.metadata().map_err(|error| OfflineError::Io {
            action: "cannot read",
            path,
            error,
        })?;
        Ok(Spill {
            file: self.file,
            bytes: usize::try_from(metadata.len()).unwrap_or(usize::MAX),
        })
    }
}

/// Reads a temporary file, batch by batch; blocks.
pub(crate) type SpillReader = StreamReader<BufReader<File>>;

impl Spill {
    /// How large the file is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads the file from its beginning.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(&self) -> Result<SpillReader, OfflineError> {
        let path = path(&self.file);
        let file = File::open(&path).map_err(|error| OfflineError::Io {
            action: "cannot read",
            path: path.clone(),
            error,
        })?;
        let reader = StreamReader::try_new(BufReader::new(file), None);
        reader.map_err(|error| OfflineError::UnreadableFile {
            file: path,
            reason: error.to_string(),
        })
    }
}

/// Where a temporary file is; the disk manager's lie on a disk.
fn path(file: &Arc<dyn SpillFile>) -> PathBuf {
    file.path().unwrap_or(Path::new("")).to_owned()
}

fn unwritable(path: &Path, error: ArrowError) -> OfflineError {
    OfflineError::Write {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
