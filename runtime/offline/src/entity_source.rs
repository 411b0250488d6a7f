//! Where entity rows come from: files, standard input, or a view's own rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use futures::TryStreamExt;
use tokio::sync::mpsc;
use unskew_core::plan::FeaturePlan;

use crate::entity_csv;
use crate::entity_ipc;
use crate::entity_rows::{Checked, EntityRows, needed};
use crate::error::{EntityRowsProblem, OfflineError, SourceProblem};
use crate::files::{SourceFile, source_files};
use crate::footers::{footer, footers};
use crate::offline::{Components, Offline};
use crate::progress::Progress;
use crate::scan::Scan;
use crate::schema::FileSchema;

/// What standard input is called in messages.
pub(crate) const STANDARD_INPUT: &str = "standard input";

/// What errors of files call their source, in place of a name.
const NAME: &str = "entity rows";

/// Where entity rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntitySource {
    /// A Parquet or CSV file, a folder or a glob of Parquet files, or the URL of one of these in an
    /// object store.
    Files(PathBuf),
    /// Arrow IPC on standard input: a stream or a file.
    StandardInput,
    /// The rows of a view in a range of time.
    Range(EntityRange),
}

/// The rows of a view in a range of time, as entity rows: each pair of join keys and event
/// timestamp once, in the order of time, then of keys.
///
/// Rows without an event timestamp, or with a null among their join keys, are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityRange {
    /// The first instant, in microseconds since 1970.
    pub start: i64,
    /// The last.
    pub end: i64,
    /// The view, by its name or alias in the plan; `None`: the only one.
    pub of: Option<String>,
}

impl Offline {
    /// Entity rows for a plan. `components` are those of the views' batch transformations, and are
    /// needed for [`EntitySource::Range`] alone.
    ///
    /// The first line of a CSV file has the names of the columns. The columns that the plan needs
    /// are read as values of its types, an empty field as null, and come out as such; of the
    /// others the type is inferred from all their values, text where any other would change one.
    /// INT96 of a Parquet file comes as microseconds, other columns in the types that the file has.
    ///
    /// Files of a folder or a glob are read in the order of their paths. A column has the type that
    /// it has in the first, or one that holds the values of all; it is null in files that lack it.
    ///
    /// # Errors
    /// Something cannot be read; or as those of [`EntityRows::from_batch`].
    pub async fn entity_rows(
        &self,
        plan: &FeaturePlan,
        components: &Components,
        source: &EntitySource,
        progress: Arc<dyn Progress>,
    ) -> Result<EntityRows, OfflineError> {
        match source {
            EntitySource::Files(path) => self.rows_of_files(plan, path, &*progress).await,
            EntitySource::StandardInput => {
                let place = Path::new(STANDARD_INPUT);
                let read = |rows: &Batches| entity_ipc::read(std::io::stdin(), rows);
                self.rows_of_thread(plan, place, read, &*progress).await
            }
            EntitySource::Range(range) => {
                self.rows_of_range(plan, components, range, progress).await
            }
        }
    }

    /// Entity rows of files: those of [`EntitySource::Files`].
    ///
    /// # Errors
    /// As those of [`Self::entity_rows`].
    pub async fn read_entity_rows(
        &self,
        plan: &FeaturePlan,
        path: &Path,
    ) -> Result<EntityRows, OfflineError> {
        self.rows_of_files(plan, path, &()).await
    }

    /// The files of [`EntitySource::Files`] that are on the file system, links followed.
    ///
    /// # Errors
    /// No file matches, or a folder cannot be read.
    pub async fn entity_files(&self, path: &Path) -> Result<Vec<PathBuf>, OfflineError> {
        let files = match Place::of(path) {
            Place::File => return Ok(path.canonicalize().into_iter().collect()),
            Place::Several(several) => {
                let files = self.several(&several).await;
                files.map_err(|error| of_entity_rows(path, error))?
            }
        };
        let local = files.into_iter().filter(|file| file.store.is_none());
        Ok(local
            .filter_map(|file| file.path.canonicalize().ok())
            .collect())
    }

    /// The Parquet files of a folder, a glob or a URL.
    async fn several(&self, several: &Several) -> Result<Vec<SourceFile>, OfflineError> {
        let options = &self.settings().object_store;
        source_files(&several.root, NAME, &several.path, None, options).await
    }

    async fn rows_of_files(
        &self,
        plan: &FeaturePlan,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<EntityRows, OfflineError> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let files = match Place::of(path) {
            Place::File if extension == "csv" => {
                let (file, needed) = (path.to_owned(), needed(plan));
                let read = move |rows: &Batches| entity_csv::read(&file, &needed, rows);
                return self.rows_of_thread(plan, path, read, progress).await;
            }
            Place::File if extension == "parquet" => {
                let file = SourceFile::at(path.to_owned())?;
                vec![footer(&self.task_context(), file).await?]
            }
            Place::File => {
                return Err(OfflineError::entity_rows(
                    Some(path),
                    EntityRowsProblem::UnknownFormat,
                ));
            }
            Place::Several(_) if extension == "csv" => {
                return Err(OfflineError::entity_rows(
                    Some(path),
                    EntityRowsProblem::RemoteCsv,
                ));
            }
            Place::Several(several) => {
                let files = self.several(&several).await;
                let files = files.map_err(|error| of_entity_rows(path, error))?;
                footers(&self.task_context(), files).await?
            }
        };
        self.rows_of_parquet(plan, path, files, progress).await
    }

    /// The rows of Parquet files, one after the other.
    async fn rows_of_parquet(
        &self,
        plan: &FeaturePlan,
        path: &Path,
        files: Vec<FileSchema>,
        progress: &dyn Progress,
    ) -> Result<EntityRows, OfflineError> {
        let needed = needed(plan);
        let types = needed.iter();
        let types = types.map(|(name, data_type)| (name.as_str(), *data_type));
        let scan = Scan::all(NAME, &types.collect(), files.clone());
        let scan = scan.map_err(|error| of_entity_rows(path, error))?;
        let schema = match files.as_slice() {
            // With all that it says of its columns.
            [file] if file.file.partition.is_empty() => &file.schema,
            _ => scan.schema(),
        };
        let schema = Arc::clone(schema);
        let mut rows = Checked::new(plan, schema, self.entity_budget(), Some(path))?;
        for file in &files {
            let in_file = file.schema.fields().iter().map(|field| field.name());
            let names = in_file.chain(file.file.partition.iter().map(|(name, _)| name));
            let names = names.map(String::as_str);
            rows.begin_file(&file.file.path, file.rows, names)?;
        }
        progress.begin("reading entity rows", scan.rows());
        let mut batches = self.read_in_order(scan)?;
        while let Some(batch) = batches.try_next().await? {
            progress.advance(batch.num_rows() as u64);
            rows.add(&batch)?;
        }
        rows.finish()
    }

    /// The rows that a thread of their own reads, since to read them blocks.
    async fn rows_of_thread(
        &self,
        plan: &FeaturePlan,
        place: &Path,
        read: impl FnOnce(&Batches) -> Result<(), ReadError> + Send + 'static,
        progress: &dyn Progress,
    ) -> Result<EntityRows, OfflineError> {
        progress.begin("reading entity rows", 0);
        let (sender, mut received) = mpsc::channel(2);
        let reader = SpawnedTask::spawn_blocking(move || read(&Batches(sender)));
        let mut rows: Option<Checked> = None;
        while let Some(piece) = received.recv().await {
            match (piece, &mut rows) {
                (Piece::Schema(schema), rows) => {
                    let budget = self.entity_budget();
                    *rows = Some(Checked::new(plan, schema, budget, Some(place))?);
                }
                (Piece::Rows(batch), Some(rows)) => {
                    progress.advance(batch.num_rows() as u64);
                    rows.add(&batch)?;
                }
                (Piece::Rows(_), None) => {}
            }
        }
        match reader.await? {
            Ok(()) | Err(ReadError::NotWanted) => {}
            Err(ReadError::Problem(problem)) => {
                return Err(OfflineError::entity_rows(Some(place), problem));
            }
            Err(ReadError::Io(error)) => {
                return Err(OfflineError::Io {
                    action: "cannot read",
                    path: place.to_owned(),
                    error,
                });
            }
        }
        match rows {
            Some(rows) => rows.finish(),
            None => Err(OfflineError::entity_rows(
                Some(place),
                EntityRowsProblem::Unreadable("there is nothing in it".to_owned()),
            )),
        }
    }
}

/// Whether a path names one file of the file system.
enum Place {
    File,
    Several(Several),
}

/// A folder, a glob or a URL.
struct Several {
    root: PathBuf,
    /// What is matched below the root, so that hidden folders above it do not count; or the URL.
    path: String,
}

impl Place {
    fn of(path: &Path) -> Self {
        let several = |root: PathBuf, path: &str| {
            let path = path.to_owned();
            Self::Several(Several { root, path })
        };
        let Some(text) = path.to_str() else {
            return match path.is_dir() {
                true => several(path.to_owned(), ""),
                false => Self::File,
            };
        };
        if text.contains("://") {
            return several(PathBuf::from("/"), text);
        }
        if path.is_dir() {
            return several(path.to_owned(), "");
        }
        let is_glob = |part: &str| part.contains(['*', '?', '[']);
        if !is_glob(text) || path.exists() {
            return Self::File;
        }
        let mut root = PathBuf::new();
        let mut parts = path.components();
        let mut below = parts.as_path();
        while let Some(part) = parts.next() {
            if part.as_os_str().to_str().is_some_and(is_glob) {
                break;
            }
            root.push(part);
            below = parts.as_path();
        }
        several(root, below.to_str().unwrap_or(text))
    }
}

/// An error of a source's files as one of entity rows.
fn of_entity_rows(path: &Path, error: OfflineError) -> OfflineError {
    match error {
        OfflineError::Source { problem, .. } => {
            let problem = match *problem {
                SourceProblem::NoFiles { .. } => EntityRowsProblem::NoFiles,
                other => EntityRowsProblem::Files(Box::new(other)),
            };
            OfflineError::entity_rows(Some(path), problem)
        }
        other => other,
    }
}

/// Takes what a reading thread has read.
pub(crate) struct Batches(mpsc::Sender<Piece>);

enum Piece {
    Schema(SchemaRef),
    Rows(RecordBatch),
}

impl Batches {
    /// Says of what schema the rows are; before any of them.
    ///
    /// # Errors
    /// Nobody wants them any more.
    pub(crate) fn schema(&self, schema: SchemaRef) -> Result<(), ReadError> {
        let sent = self.0.blocking_send(Piece::Schema(schema));
        sent.map_err(|_| ReadError::NotWanted)
    }

    /// Hands on rows.
    ///
    /// # Errors
    /// Nobody wants them any more.
    pub(crate) fn rows(&self, batch: RecordBatch) -> Result<(), ReadError> {
        let sent = self.0.blocking_send(Piece::Rows(batch));
        sent.map_err(|_| ReadError::NotWanted)
    }
}

/// Why entity rows could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// What is wrong with them.
    Problem(EntityRowsProblem),
    /// The system refuses.
    Io(std::io::Error),
    /// An error elsewhere ended the work.
    NotWanted,
}

impl From<arrow::error::ArrowError> for ReadError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Problem(EntityRowsProblem::Unreadable(error.to_string()))
    }
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}
