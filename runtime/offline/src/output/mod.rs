//! Where training sets go: Parquet, one file or a folder of them, CSV, or Arrow IPC on standard
//! output.
//!
//! ```text
//! batches ──▶ Writer ──▶ temporary file or folder beside the target ──▶ renamed when complete
//!                 ├ Parquet: columns encoded by several threads
//!                 ├ folder:  one Parquet file after the other
//!                 ├ CSV:     with `.plan.json` beside it
//!                 └ standard output, at once
//! ```

mod compression;
mod csv;
mod folder;
mod ipc;
mod parquet;
pub(crate) mod staged;
mod target;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use tokio::sync::mpsc;
use unskew_core::plan::FeaturePlan;

use crate::error::OfflineError;
use crate::output::folder::{FolderWriter, StagedFolder};
use crate::output::parquet::{ParquetOptions, ParquetWriter};
use crate::output::staged::StagedFile;

pub use compression::Compression;
pub use csv::plan_file;
pub use target::{Output, Target};

/// The key of a training set's metadata that holds the plan, as JSON.
pub const PLAN: &str = "unskew.plan";
/// The key that holds the plan digest.
pub const PLAN_DIGEST: &str = "unskew.plan_digest";
/// The key that holds the digests of the plan's components, as a JSON list.
pub const COMPONENTS: &str = "unskew.components";

/// By which plan a training set was made.
#[derive(Clone, Debug)]
pub(crate) struct Provenance {
    pub(crate) digest: String,
    pub(crate) plan: serde_json::Value,
    pub(crate) components: serde_json::Value,
}

impl Provenance {
    /// # Errors
    /// The plan cannot be written as JSON.
    pub(crate) fn of(plan: &FeaturePlan) -> Result<Self, OfflineError> {
        let json = |value: Result<serde_json::Value, serde_json::Error>| {
            value.map_err(|error| {
                OfflineError::from(arrow::error::ArrowError::from_external_error(Box::new(
                    error,
                )))
            })
        };
        Ok(Self {
            digest: plan.digest().to_string(),
            plan: json(serde_json::to_value(plan))?,
            components: json(serde_json::to_value(plan.components()))?,
        })
    }

    /// The entries of a file's metadata.
    pub(crate) fn entries(&self) -> [(&'static str, String); 3] {
        [
            (PLAN_DIGEST, self.digest.clone()),
            (PLAN, self.plan.to_string()),
            (COMPONENTS, self.components.to_string()),
        ]
    }
}

/// A target that can be written, before there is anything to write.
///
/// Dropped, it leaves nothing.
pub(crate) struct Staged {
    output: Output,
    place: Place,
}

enum Place {
    Parquet(StagedFile),
    Folder(StagedFolder),
    Csv(StagedFile, StagedFile),
    Stream,
}

impl Staged {
    /// Makes the temporary files: whoever cannot write there hears of it before hours of work.
    ///
    /// # Errors
    /// The target exists and is not to be overwritten, or nothing can be written beside it.
    pub(crate) fn new(output: Output) -> Result<Self, OfflineError> {
        let overwrite = output.overwrite;
        let place = match &output.target {
            Target::Parquet(path) => Place::Parquet(StagedFile::beside(path, overwrite)?),
            Target::Folder { path, .. } => Place::Folder(StagedFolder::beside(path, overwrite)?),
            Target::Csv(path) => Place::Csv(
                StagedFile::beside(path, overwrite)?,
                StagedFile::beside(&plan_file(path), overwrite)?,
            ),
            Target::StandardOutput => Place::Stream,
        };
        Ok(Self { output, place })
    }

    /// Begins to write rows of that schema, encoding with so many threads.
    ///
    /// # Errors
    /// The target's format cannot hold a column, or the file cannot be written.
    pub(crate) fn start(
        self,
        schema: &SchemaRef,
        provenance: &Provenance,
        threads: usize,
    ) -> Result<Writer, OfflineError> {
        let Self { output, place } = self;
        let options = ParquetOptions {
            compression: output.compression.unwrap_or_default(),
            row_group_rows: output.row_group_rows,
            entries: provenance.entries().to_vec(),
            threads,
        };
        let schema = Arc::clone(schema);
        Ok(match place {
            Place::Parquet(staged) => {
                let (file, path) = (staged.file()?, staged.out().to_owned());
                let writer = ParquetWriter::start(file, &path, schema, &options);
                Writer(Kind::Parquet(writer, staged))
            }
            Place::Folder(staged) => {
                let rows = match output.target {
                    Target::Folder { rows_per_file, .. } => rows_per_file,
                    _ => None,
                };
                Writer(Kind::Folder(FolderWriter::start(
                    staged, schema, options, rows,
                )?))
            }
            Place::Csv(staged, plan) => {
                csv::check(staged.out(), &schema)?;
                plan.write(csv::plan_json(provenance))?;
                let (file, path) = (staged.file()?, staged.out().to_owned());
                let thread =
                    BatchThread::spawn(move |batches| csv::write(file, &path, &schema, batches));
                Writer(Kind::Csv(thread, staged, plan))
            }
            Place::Stream => {
                let entries = provenance.entries();
                let thread = BatchThread::spawn(move |batches| {
                    ipc::write(std::io::stdout(), &schema, entries, batches)
                });
                Writer(Kind::Stream(thread))
            }
        })
    }
}

/// Takes the rows of a training set in their order.
///
/// Dropped before [`Self::finish`], it leaves nothing.
pub(crate) struct Writer(Kind);

enum Kind {
    Parquet(ParquetWriter, StagedFile),
    Folder(FolderWriter),
    Csv(BatchThread, StagedFile, StagedFile),
    Stream(BatchThread),
}

impl Writer {
    /// Takes rows; waits while those before them are still being encoded.
    ///
    /// # Errors
    /// They, or some before them, cannot be written.
    pub(crate) async fn write(&mut self, batch: RecordBatch) -> Result<(), OfflineError> {
        match &mut self.0 {
            Kind::Parquet(writer, _) => writer.write(batch).await,
            Kind::Folder(writer) => writer.write(batch).await,
            Kind::Csv(thread, ..) | Kind::Stream(thread) => thread.write(batch).await,
        }
    }

    /// Completes what was written, and gives it its name.
    ///
    /// # Errors
    /// It cannot be written, or something of that name has appeared meanwhile.
    pub(crate) async fn finish(self) -> Result<(), OfflineError> {
        match self.0 {
            Kind::Parquet(writer, staged) => {
                writer.finish().await?;
                staged.persist()
            }
            Kind::Folder(writer) => writer.finish().await,
            Kind::Csv(thread, staged, plan) => {
                thread.finish().await?;
                staged::persist_both(plan, staged)
            }
            Kind::Stream(thread) => thread.finish().await,
        }
    }
}

/// A thread that encodes one batch after the other.
struct BatchThread {
    batches: Option<mpsc::Sender<RecordBatch>>,
    task: SpawnedTask<Result<(), OfflineError>>,
}

/// The batches that a [`BatchThread`] is given, until there are no more.
struct Batches(mpsc::Receiver<RecordBatch>);

impl Iterator for Batches {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        self.0.blocking_recv()
    }
}

impl BatchThread {
    fn spawn(work: impl FnOnce(Batches) -> Result<(), OfflineError> + Send + 'static) -> Self {
        let (batches, received) = mpsc::channel(4);
        Self {
            batches: Some(batches),
            task: SpawnedTask::spawn_blocking(move || work(Batches(received))),
        }
    }

    async fn write(&mut self, batch: RecordBatch) -> Result<(), OfflineError> {
        let sent = match &self.batches {
            Some(batches) => batches.send(batch).await.is_ok(),
            None => false,
        };
        if sent {
            Ok(())
        } else {
            Err(self.failure().await)
        }
    }

    async fn finish(mut self) -> Result<(), OfflineError> {
        self.batches = None;
        self.task.await?
    }

    /// Why the thread has ended before its batches did.
    async fn failure(&mut self) -> OfflineError {
        self.batches = None;
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => ended_early(),
            Err(error) => error.into(),
        }
    }
}

fn ended_early() -> OfflineError {
    arrow::error::ArrowError::IpcError("a writer ended before its rows did".to_owned()).into()
}

fn cannot_write(path: &Path, error: std::io::Error) -> OfflineError {
    OfflineError::Io {
        action: "cannot write",
        path: path.to_owned(),
        error,
    }
}
