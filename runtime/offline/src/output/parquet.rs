//! Parquet files, columns encoded by several threads.
//!
//! ```text
//! batches ─▶ round: up to 65,536 rows ─▶ threads take column after column, and encode its rows
//!                                          └▶ row group complete: its columns in order ─▶ file
//! ```
//!
//! What is in a file depends on its rows and the options, never on threads or time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use std::num::NonZero;
use tokio::sync::mpsc;

use super::{Compression, ended_early};
use crate::error::OfflineError;

/// How many rows are encoded in a round: enough that threads do not wait for each other often.
const ROUND_ROWS: usize = 65_536;
/// How many bytes are, where rows are wide.
const ROUND_BYTES: usize = 16 << 20;
/// How many rows a row group has.
const GROUP_ROWS: usize = 262_144;
/// How many bytes it takes at most before encoding, unless its rows are given: a row group is held
/// in memory until it is complete.
const GROUP_BYTES: usize = 64 << 20;

/// How a file is written.
#[derive(Clone)]
pub(super) struct ParquetOptions {
    pub(super) compression: Compression,
    pub(super) row_group_rows: Option<NonZero<usize>>,
    /// The file's metadata.
    pub(super) entries: Vec<(&'static str, String)>,
    /// How many threads encode.
    pub(super) threads: usize,
}

/// Writes a file; dropped before [`Self::finish`], it stops soon.
pub(super) struct ParquetWriter {
    batches: Option<mpsc::Sender<RecordBatch>>,
    task: SpawnedTask<Result<(), OfflineError>>,
}

impl ParquetWriter {
    /// Begins to write `file`, which will be at `path`.
    pub(super) fn start(
        file: File,
        path: &Path,
        schema: SchemaRef,
        options: &ParquetOptions,
    ) -> Self {
        let (batches, received) = mpsc::channel(2);
        let (path, options) = (path.to_owned(), options.clone());
        let task = SpawnedTask::spawn(async move {
            let written = write(file, schema, options, received).await;
            written.map_err(|failure| failure.into_error(path))
        });
        Self {
            batches: Some(batches),
            task,
        }
    }

    pub(super) async fn write(&mut self, batch: RecordBatch) -> Result<(), OfflineError> {
        let sent = match &self.batches {
            Some(batches) => batches.send(batch).await.is_ok(),
            None => false,
        };
        if sent {
            return Ok(());
        }
        // It has stopped, and says why.
        self.batches = None;
        match (&mut self.task).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err(ended_early()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn finish(mut self) -> Result<(), OfflineError> {
        self.batches = None;
        self.task.await?
    }
}

/// Why a file was not written.
enum Failure {
    Parquet(ParquetError),
    Task(tokio::task::JoinError),
}

impl Failure {
    fn into_error(self, path: PathBuf) -> OfflineError {
        match self {
            Self::Task(error) => error.into(),
            Self::Parquet(error) => OfflineError::Write {
                path,
                reason: match error {
                    ParquetError::External(error) => error.to_string(),
                    other => other.to_string(),
                },
            },
        }
    }
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Parquet(error.into())
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Task(error)
    }
}

async fn write(
    file: File,
    schema: SchemaRef,
    options: ParquetOptions,
    mut batches: mpsc::Receiver<RecordBatch>,
) -> Result<(), Failure> {
    let mut rows = Rows::new(options.row_group_rows);
    let mut encoder = Encoder::new(file, schema, options)?;
    while let Some(mut batch) = batches.recv().await {
        while let Some(rest) = rows.take(batch) {
            encoder.encode(rows.round()).await?;
            batch = rest;
        }
        if rows.is_round() {
            encoder.encode(rows.round()).await?;
        }
    }
    encoder.encode(rows.last()).await?;
    encoder.close().await
}

/// Rows that wait to be encoded, and where row groups end among them.
struct Rows {
    group_limit: (usize, usize),
    group: (usize, usize),
    round: (usize, usize),
    pending: Vec<RecordBatch>,
}

/// Rows to be encoded at once.
struct Round {
    batches: Vec<RecordBatch>,
    /// Whether a row group ends with them.
    is_last: bool,
}

impl Rows {
    fn new(group_rows: Option<NonZero<usize>>) -> Self {
        Self {
            group_limit: match group_rows {
                Some(rows) => (rows.get(), usize::MAX),
                None => (GROUP_ROWS, GROUP_BYTES),
            },
            group: (0, 0),
            round: (0, 0),
            pending: Vec::new(),
        }
    }

    /// Takes the rows of a batch that belong to the row group; gives those of the next, and the
    /// group is complete then.
    fn take(&mut self, batch: RecordBatch) -> Option<RecordBatch> {
        let room = self.group_limit.0 - self.group.0;
        let (batch, rest) = if batch.num_rows() > room {
            let rest = batch.slice(room, batch.num_rows() - room);
            (batch.slice(0, room), Some(rest))
        } else {
            (batch, None)
        };
        let (rows, bytes) = (batch.num_rows(), bytes(&batch));
        if rows > 0 {
            self.pending.push(batch);
        }
        for (known_rows, known_bytes) in [&mut self.group, &mut self.round] {
            *known_rows += rows;
            *known_bytes += bytes;
        }
        rest
    }

    fn is_group(&self) -> bool {
        self.group.0 >= self.group_limit.0 || self.group.1 >= self.group_limit.1
    }

    /// Whether there are enough rows to be encoded.
    fn is_round(&self) -> bool {
        self.is_group() || self.round.0 >= ROUND_ROWS || self.round.1 >= ROUND_BYTES
    }

    fn round(&mut self) -> Round {
        let is_last = self.is_group();
        self.round = (0, 0);
        if is_last {
            self.group = (0, 0);
        }
        Round {
            batches: std::mem::take(&mut self.pending),
            is_last,
        }
    }

    /// The rows that are left.
    fn last(mut self) -> Round {
        Round {
            is_last: self.group.0 > 0,
            ..self.round()
        }
    }
}

fn bytes(batch: &RecordBatch) -> usize {
    let bytes = |array: &arrow::array::ArrayRef| {
        let slice = array.to_data().get_slice_memory_size();
        slice.unwrap_or_else(|_| array.get_array_memory_size())
    };
    batch.columns().iter().map(bytes).sum()
}

/// Encodes rounds of rows into a file.
struct Encoder {
    schema: SchemaRef,
    threads: usize,
    factory: ArrowRowGroupWriterFactory,
    /// For each of the schema's columns how many of Parquet's are its.
    leaves: Vec<usize>,
    /// `None` while a thread writes to it.
    file: Option<SerializedFileWriter<File>>,
    group: Option<Arc<Group>>,
    groups: usize,
}

/// A row group in the making.
struct Group {
    columns: Vec<Mutex<Column>>,
}

/// What is in the making of a column of the schema.
#[derive(Default)]
struct Column {
    writers: Vec<ArrowColumnWriter>,
    complete: Vec<ArrowColumnChunk>,
}

impl Encoder {
    fn new(file: File, schema: SchemaRef, options: ParquetOptions) -> Result<Self, ParquetError> {
        let entries = options.entries.into_iter();
        let entries = entries.map(|(key, value)| KeyValue::new(key.to_owned(), value));
        let mut properties = WriterProperties::builder()
            .set_compression(options.compression.codec())
            .set_key_value_metadata(Some(entries.collect()));
        // Floats hardly repeat, and to look for repetitions in vain was a seventh of all the work on
        // a thousand columns.
        for field in schema
            .fields()
            .iter()
            .filter(|f| f.data_type().is_floating())
        {
            let column = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_dictionary_enabled(column, false);
        }
        let properties = properties.build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        let (file, factory) = writer.into_serialized_writer()?;
        let mut leaves = vec![0; schema.fields().len()];
        let parquet = file.schema_descr();
        for leaf in 0..parquet.num_columns() {
            leaves[parquet.get_column_root_idx(leaf)] += 1;
        }
        Ok(Self {
            schema,
            threads: options.threads.max(1),
            factory,
            leaves,
            file: Some(file),
            group: None,
            groups: 0,
        })
    }

    async fn encode(&mut self, round: Round) -> Result<(), Failure> {
        if round.batches.is_empty() && !round.is_last {
            return Ok(());
        }
        let group = match self.group.take() {
            Some(group) => group,
            None => Arc::new(self.begin_group()?),
        };
        let is_last = round.is_last;
        let work = Arc::new(Work {
            fields: self.schema.fields().iter().map(Arc::clone).collect(),
            group: Arc::clone(&group),
            round,
            next: AtomicUsize::new(0),
        });
        let threads = self.threads.min(work.fields.len());
        let tasks: Vec<_> = (0..threads)
            .map(|_| {
                let work = Arc::clone(&work);
                SpawnedTask::spawn_blocking(move || work.run())
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        if is_last {
            self.append(&group).await
        } else {
            self.group = Some(group);
            Ok(())
        }
    }

    fn begin_group(&mut self) -> Result<Group, ParquetError> {
        let mut writers = self.factory.create_column_writers(self.groups)?.into_iter();
        self.groups += 1;
        let columns = self.leaves.iter().map(|&leaves| {
            Mutex::new(Column {
                writers: writers.by_ref().take(leaves).collect(),
                complete: Vec::with_capacity(leaves),
            })
        });
        Ok(Group {
            columns: columns.collect(),
        })
    }

    /// Writes a complete row group.
    async fn append(&mut self, group: &Group) -> Result<(), Failure> {
        let chunks: Vec<ArrowColumnChunk> = group
            .columns
            .iter()
            .flat_map(|column| {
                let mut column = column.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut column.complete)
            })
            .collect();
        let mut file = self.open()?;
        let append = move || -> Result<_, ParquetError> {
            let mut group = file.next_row_group()?;
            for chunk in chunks {
                chunk.append_to_row_group(&mut group)?;
            }
            group.close()?;
            Ok(file)
        };
        self.file = Some(SpawnedTask::spawn_blocking(append).await??);
        Ok(())
    }

    async fn close(mut self) -> Result<(), Failure> {
        let file = self.open()?;
        let close = move || -> Result<(), Failure> {
            // Should the future have been dropped, this completes a file without a name.
            file.into_inner()?.sync_all()?;
            Ok(())
        };
        SpawnedTask::spawn_blocking(close).await?
    }

    fn open(&mut self) -> Result<SerializedFileWriter<File>, ParquetError> {
        let file = self.file.take();
        file.ok_or_else(|| ParquetError::General("the file could not be written before".to_owned()))
    }
}

/// A round, shared by the threads that encode it.
struct Work {
    fields: Vec<FieldRef>,
    group: Arc<Group>,
    round: Round,
    /// The column that the next free thread takes.
    next: AtomicUsize,
}

impl Work {
    fn run(&self) -> Result<(), ParquetError> {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let (Some(field), Some(column)) =
                (self.fields.get(index), self.group.columns.get(index))
            else {
                return Ok(());
            };
            let mut column = column.lock().unwrap_or_else(PoisonError::into_inner);
            for batch in &self.round.batches {
                let leaves = compute_leaves(field, batch.column(index))?;
                for (writer, leaf) in column.writers.iter_mut().zip(&leaves) {
                    writer.write(leaf)?;
                }
            }
            if self.round.is_last {
                for writer in std::mem::take(&mut column.writers) {
                    let chunk = writer.close()?;
                    column.complete.push(chunk);
                }
            }
        }
    }
}
