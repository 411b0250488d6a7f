//! Training sets: entity rows with the features of a plan, as a Parquet file.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tempfile::{Builder, TempPath};
use tokio::sync::mpsc;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::{Evaluator, Status};

use crate::error::OfflineError;
use crate::offline::{Components, Offline};
use crate::progress::Progress;

/// The key of a training set's metadata that holds the plan, as JSON.
pub const PLAN: &str = "unskew.plan";
/// The key that holds the plan digest.
pub const PLAN_DIGEST: &str = "unskew.plan_digest";
/// The key that holds the digests of the plan's components, as a JSON list.
pub const COMPONENTS: &str = "unskew.components";

/// What a training set is built of.
#[derive(Clone)]
pub struct TrainingSetRequest {
    /// The plan with its components.
    pub evaluator: Arc<Evaluator>,
    /// The loaded components; those of the views' batch transformations are needed.
    pub components: Components,
    /// The file with the entity rows: Parquet or CSV, by the ending of its name.
    pub entities: PathBuf,
    /// The Parquet file to write. One that exists is replaced.
    pub out: PathBuf,
    /// Is told how far the work has come.
    pub progress: Arc<dyn Progress>,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many rows the training set has: as many as there are entity rows.
    pub rows: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The digest of the plan.
    pub plan: Digest,
    /// Each output with how many of its rows have which status.
    pub outputs: Vec<OutputSummary>,
}

/// How one output came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSummary {
    /// Its name.
    pub name: String,
    /// How many rows have each status that occurs.
    pub statuses: BTreeMap<Status, u64>,
}

impl Offline {
    /// Builds a training set: row i is entity row i, with all its own columns and then the plan's
    /// outputs.
    ///
    /// The file appears when it is complete. On an error, or when the future is dropped, nothing of
    /// it is left, and a file that was there before is as it was.
    ///
    /// # Errors
    /// Entity rows are not as the plan needs them, a history cannot be read, a transformation
    /// fails, or the file cannot be written. An error of a row names the entity row.
    pub async fn training_set(&self, request: TrainingSetRequest) -> Result<Summary, OfflineError> {
        let began = Instant::now();
        let TrainingSetRequest {
            evaluator,
            components,
            entities,
            out,
            progress,
        } = request;
        let plan = evaluator.plan();
        // Before hours of work, not after them.
        let (temporary, file) = temporary_beside(&out)?;

        let entities = self.read_entity_rows(plan, &entities).await?;
        let outputs = plan.output_schema();
        let own = entities.schema().fields().iter();
        let fields: Vec<FieldRef> = own.chain(outputs.fields()).map(Arc::clone).collect();
        let schema = Arc::new(Schema::new(fields));

        let joined = self
            .join(plan, &components, &entities, &[], Arc::clone(&progress))
            .await?;
        let writer = Writer::spawn(&out, file, &schema, properties(plan));
        let mut counts = vec![BTreeMap::new(); plan.outputs.len()];
        let mut own = entities.chunks().iter();
        let chunks = self.evaluate(&evaluator, joined);
        futures::pin_mut!(chunks);
        let mut first = true;
        while let Some(evaluated) = chunks.try_next().await? {
            if std::mem::take(&mut first) {
                let rows = entities.num_rows() as u64;
                progress.begin("computing features", rows);
            }
            for (counts, statuses) in counts.iter_mut().zip(&evaluated.statuses) {
                for &status in statuses {
                    *counts.entry(status).or_insert(0) += 1;
                }
            }
            let own = own
                .next()
                .map(|chunk| chunk.own.columns())
                .unwrap_or_default();
            let columns = own.iter().chain(evaluated.batch.columns());
            let columns = columns.map(Arc::clone).collect();
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
            let rows = batch.num_rows() as u64;
            if writer.batches.send(batch).await.is_err() {
                // It has stopped, and says why when it is joined.
                break;
            }
            progress.advance(rows);
        }
        writer.finish().await?;
        rename(temporary, &out)?;

        let names = plan.outputs.iter().map(|output| output.name.clone());
        Ok(Summary {
            rows: entities.num_rows() as u64,
            elapsed: began.elapsed(),
            plan: plan.digest(),
            outputs: names
                .zip(counts)
                .map(|(name, statuses)| OutputSummary { name, statuses })
                .collect(),
        })
    }
}

/// Writes batches on a thread of its own, since compression takes time.
struct Writer {
    batches: mpsc::Sender<RecordBatch>,
    task: SpawnedTask<Result<(), OfflineError>>,
}

impl Writer {
    fn spawn(out: &Path, file: File, schema: &SchemaRef, properties: WriterProperties) -> Self {
        let (batches, mut received) = mpsc::channel::<RecordBatch>(2);
        let (out, schema) = (out.to_owned(), Arc::clone(schema));
        let task = SpawnedTask::spawn_blocking(move || {
            let write = || -> Result<(), ParquetError> {
                let mut writer = ArrowWriter::try_new(file, schema, Some(properties))?;
                while let Some(batch) = received.blocking_recv() {
                    writer.write(&batch)?;
                }
                // Should the future have been dropped, this completes a file without a name.
                writer.into_inner()?.sync_all()?;
                Ok(())
            };
            write().map_err(|error| OfflineError::Write {
                path: out,
                reason: error.to_string(),
            })
        });
        Self { batches, task }
    }

    async fn finish(self) -> Result<(), OfflineError> {
        drop(self.batches);
        self.task.await?
    }
}

/// A temporary file in the folder of `out`, which is deleted when its path is dropped.
fn temporary_beside(out: &Path) -> Result<(TempPath, File), OfflineError> {
    let io = |error| OfflineError::Io {
        action: "cannot write",
        path: out.to_owned(),
        error,
    };
    let name = out
        .file_name()
        .ok_or_else(|| io(std::io::Error::other("the path names no file")))?;
    if out.is_dir() {
        return Err(io(std::io::Error::other("there is a folder of that name")));
    }
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any other file of the user's, less what the umask takes away.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let (file, path) = builder.tempfile_in(folder(out)).map_err(io)?.into_parts();
    Ok((path, file))
}

/// Gives the complete file its name, so that it stays even if the machine stops now.
fn rename(temporary: TempPath, out: &Path) -> Result<(), OfflineError> {
    let io = |error| OfflineError::Io {
        action: "cannot write",
        path: out.to_owned(),
        error,
    };
    temporary.persist(out).map_err(|error| io(error.error))?;
    // Not every file system lets a folder be synchronized, and the file is there by now.
    #[cfg(unix)]
    let _ = File::open(folder(out)).and_then(|folder| folder.sync_all());
    Ok(())
}

fn folder(out: &Path) -> &Path {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn properties(plan: &FeaturePlan) -> WriterProperties {
    let json = |value: Result<String, serde_json::Error>| value.ok();
    let metadata = vec![
        KeyValue::new(PLAN_DIGEST.to_owned(), plan.digest().to_string()),
        KeyValue::new(PLAN.to_owned(), json(serde_json::to_string(plan))),
        KeyValue::new(
            COMPONENTS.to_owned(),
            json(serde_json::to_string(&plan.components())),
        ),
    ];
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(metadata))
        .build()
}
