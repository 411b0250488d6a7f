//! Where entity rows are held: in memory up to a budget, beyond it in a temporary file.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use datafusion::execution::{DiskManager, SpillFile};
use unskew_core::types::DataType;
use unskew_core::values::coerce;

use crate::error::OfflineError;

/// A few thousand entity rows.
#[derive(Clone, Debug)]
pub(crate) struct EntityChunk {
    /// All columns, as they came.
    pub(crate) own: RecordBatch,
    /// `event_timestamp`, then the plan's join keys, then its request fields: each in its type.
    pub(crate) inputs: Vec<ArrayRef>,
}

/// A column that a plan needs: its name, its type, and where it is among the rows' own.
pub(crate) type Needed = (String, DataType, usize);

/// How much of the entity rows may be held in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    /// The bytes, and where what is beyond them goes; `None`: without limit.
    pub(crate) limit: Option<(usize, Arc<DiskManager>)>,
}

/// Chunks of entity rows, complete.
pub(crate) struct EntityChunks {
    held: Vec<EntityChunk>,
    /// Those after the chunks that are held.
    spilled: Option<Spilled>,
    rows: usize,
    needed: Vec<Needed>,
}

impl EntityChunks {
    /// How many chunks there are.
    pub(crate) fn len(&self) -> usize {
        let spilled = self.spilled.as_ref();
        self.held.len() + spilled.map_or(0, |spilled| spilled.places.len())
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The chunk of that index, read back if it was spilled.
    ///
    /// # Errors
    /// There is none, or the temporary file cannot be read.
    pub(crate) fn get(&self, index: usize) -> Result<EntityChunk, OfflineError> {
        if let Some(chunk) = self.held.get(index) {
            return Ok(chunk.clone());
        }
        let missing = || ArrowError::InvalidArgumentError(format!("no chunk {index} of rows"));
        let spilled = self.spilled.as_ref().ok_or_else(missing)?;
        let own = spilled.read(index - self.held.len())?;
        // What was coerced when it was first seen is coerced to the same again.
        let inputs = self
            .needed
            .iter()
            .map(|(_, data_type, index)| coerce(own.column(*index), *data_type))
            .collect::<Result<_, _>>()
            .map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        Ok(EntityChunk { own, inputs })
    }
}

impl std::fmt::Debug for EntityChunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntityChunks")
            .field("rows", &self.rows)
            .field("held", &self.held.len())
            .field("chunks", &self.len())
            .finish_non_exhaustive()
    }
}

/// Chunks in the making.
pub(crate) struct EntityChunksBuilder {
    budget: Budget,
    bytes: usize,
    held: Vec<EntityChunk>,
    spilling: Option<Spilling>,
    rows: usize,
}

impl EntityChunksBuilder {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            bytes: 0,
            held: Vec::new(),
            spilling: None,
            rows: 0,
        }
    }

    /// How many rows were added.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a chunk.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(crate) fn push(&mut self, chunk: EntityChunk) -> Result<(), OfflineError> {
        self.rows += chunk.own.num_rows();
        let Some((limit, disk)) = &self.budget.limit else {
            self.held.push(chunk);
            return Ok(());
        };
        let spilling = match &mut self.spilling {
            Some(spilling) => spilling,
            None => {
                self.bytes = self.bytes.saturating_add(bytes(&chunk));
                if self.bytes <= *limit {
                    self.held.push(chunk);
                    return Ok(());
                }
                self.spilling.insert(Spilling::new(disk)?)
            }
        };
        spilling.write(&chunk.own)
    }

    /// The chunks that were added, the plan's columns among theirs being `needed`.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub(crate) fn finish(self, needed: Vec<Needed>) -> Result<EntityChunks, OfflineError> {
        Ok(EntityChunks {
            held: self.held,
            spilled: self.spilling.map(Spilling::finish).transpose()?,
            rows: self.rows,
            needed,
        })
    }
}

/// The bytes that a chunk's values take; inputs that are among its own columns count once.
fn bytes(chunk: &EntityChunk) -> usize {
    let own = chunk.own.columns();
    let inputs = chunk
        .inputs
        .iter()
        .filter(|input| !own.iter().any(|column| Arc::ptr_eq(column, input)));
    own.iter()
        .chain(inputs)
        .map(|array| {
            // A slice of a large batch counts for what it shows of it.
            let values = array.to_data().get_slice_memory_size();
            values.unwrap_or_else(|_| array.get_array_memory_size())
        })
        .sum()
}

/// Chunks in a temporary file.
struct Spilled {
    file: Mutex<File>,
    /// Deletes the file when it is dropped.
    temporary: Arc<dyn SpillFile>,
    /// Where each chunk begins, and how many bytes it takes.
    places: Vec<(u64, usize)>,
}

impl Spilled {
    fn read(&self, index: usize) -> Result<RecordBatch, OfflineError> {
        let broken = || ArrowError::IpcError(format!("chunk {index} was not written whole"));
        let &(start, length) = self.places.get(index).ok_or_else(broken)?;
        let mut bytes = vec![0; length];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(start))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|error| io("cannot read", &*self.temporary, error))?;
        }
        // Columns are views of these bytes.
        let mut bytes = Buffer::from_vec(bytes);
        let batch = StreamDecoder::new().decode(&mut bytes)?;
        Ok(batch.ok_or_else(broken)?)
    }
}

/// Chunks on their way into a temporary file.
///
/// Each is a stream of its own, since a dictionary may not change within a file of Arrow IPC, and
/// since so each can be read without the others.
struct Spilling {
    file: BufWriter<File>,
    temporary: Arc<dyn SpillFile>,
    places: Vec<(u64, usize)>,
    end: u64,
}

impl Spilling {
    fn new(disk: &Arc<DiskManager>) -> Result<Self, OfflineError> {
        let temporary = disk.create_tmp_file("holding entity rows")?;
        let path = temporary.path().ok_or_else(|| {
            ArrowError::IoError(
                "entity rows do not fit into memory, and temporary files are not on a disk".into(),
                std::io::ErrorKind::Unsupported.into(),
            )
        })?;
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|error| io("cannot write", &*temporary, error))?;
        Ok(Self {
            file: BufWriter::new(file),
            temporary,
            places: Vec::new(),
            end: 0,
        })
    }

    fn write(&mut self, chunk: &RecordBatch) -> Result<(), OfflineError> {
        let chunk = compact(chunk)?;
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, chunk.schema_ref())?;
        writer.write(&chunk)?;
        // Not finished: a reader takes one batch.
        drop(writer);
        let written = self.file.write_all(&bytes);
        written.map_err(|error| io("cannot write", &*self.temporary, error))?;
        self.places.push((self.end, bytes.len()));
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn finish(self) -> Result<Spilled, OfflineError> {
        let temporary = self.temporary;
        let file = self
            .file
            .into_inner()
            .map_err(|error| io("cannot write", &*temporary, error.into_error()))?;
        Ok(Spilled {
            file: Mutex::new(file),
            temporary,
            places: self.places,
        })
    }
}

/// The same rows, without what view columns refer to and do not show: it would be written with each
/// slice of a batch.
fn compact(chunk: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = chunk.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            ArrowType::Utf8View => Arc::new(column.as_string_view().gc()),
            ArrowType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    });
    let schema: SchemaRef = chunk.schema();
    RecordBatch::try_new(schema, columns.collect())
}

fn io(action: &'static str, file: &dyn SpillFile, error: std::io::Error) -> OfflineError {
    OfflineError::Io {
        action,
        path: file
            .path()
            .unwrap_or(Path::new("temporary file"))
            .to_owned(),
        error,
    }
}
