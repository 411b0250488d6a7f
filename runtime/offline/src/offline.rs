//! What all offline work shares: the feature repository's folder and DataFusion's settings.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use unskew_core::digest::Digest;
use unskew_core::view::{Partition, Source, View};
use unskew_engine::{Component, ViewRunner};

use crate::error::OfflineError;
use crate::files::{SourceFile, local_files, source_files};
use crate::footers::footers;
use crate::progress::Progress;
use crate::replaced;
use crate::scan::{Scan, ScanExec, Wanted, column_as_stored, wanted_types};
use crate::schema::{FileSchema, merged_schema};
use crate::view_rows::ViewRowsExec;

/// How many rows are read, transformed and evaluated at a time: those of one call of a component.
pub(crate) const CHUNK_ROWS: usize = 8_192;

/// How often files are listed before one that is gone is an error.
const LISTINGS: usize = 4;

const MOST_PARTITIONS: NonZero<usize> = NonZero::new(256).unwrap();

/// The loaded components, by digest.
pub type Components = BTreeMap<Digest, Arc<Component>>;

/// The knobs of the offline side. None of them decides a result.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many partitions of a history are read at once, at most 256: each blocks a thread, and
    /// there are no more than 512 of these. Default: one for each processor.
    pub partitions: NonZero<usize>,
    /// How many bytes of rows [`Offline::latest_rows`] holds before it hands them on.
    /// Default: 256 MiB.
    pub latest_rows_bytes: usize,
    /// About how many bytes a training set may take; what does not fit is worked off in parts by
    /// key, by way of temporary files. The rows of one key are not divided, so a view without keys,
    /// or entity rows that are nearly all of one key, may take more. `None`: no limit. Default:
    /// none.
    pub memory_limit: Option<usize>,
    /// Options of object stores, such as `aws_endpoint`, `aws_region` or `google_service_account`:
    /// called like the variables of the environment, over which they go. Default: none.
    pub object_store: BTreeMap<String, String>,
}

impl std::fmt::Debug for Settings {
    /// Leaves out what options of object stores are, since keys and passwords are among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("partitions", &self.partitions)
            .field("latest_rows_bytes", &self.latest_rows_bytes)
            .field("memory_limit", &self.memory_limit)
            .field("object_store", &self.object_store.keys())
            .finish()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            partitions: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            latest_rows_bytes: 256 << 20,
            memory_limit: None,
            object_store: BTreeMap::new(),
        }
    }
}

/// The offline side of a feature repository.
///
/// Its methods are to be called within a Tokio runtime with several threads. Cheap to clone.
#[derive(Clone)]
pub struct Offline {
    root: PathBuf,
    settings: Settings,
    context: Arc<TaskContext>,
}

impl Offline {
    /// The offline side of the feature repository in `root`, to which sources' paths are relative.
    pub fn new(root: impl Into<PathBuf>, mut settings: Settings) -> Self {
        settings.partitions = settings.partitions.min(MOST_PARTITIONS);
        let config = SessionConfig::new()
            .with_target_partitions(settings.partitions.get())
            .with_batch_size(CHUNK_ROWS);
        Self {
            root: root.into(),
            settings,
            context: SessionContext::new_with_config(config).task_ctx(),
        }
    }

    /// The columns of the files that `path`, of the source `name`, names: each name as it is in the
    /// files, in a type that holds every file's values.
    ///
    /// A column about whose type the files disagree has that of the first file; [`Self::scan`] is
    /// what refuses it.
    ///
    /// # Errors
    /// No file matches, or a file cannot be read.
    pub async fn source_schema(&self, name: &str, path: &str) -> Result<SchemaRef, OfflineError> {
        let files = self.files(name, path, None).await?;
        Ok(merged_schema(&files))
    }

    /// A scan of columns of the source, by their names in definitions. Only footers are read now.
    ///
    /// A column that some files lack is null there. Types are those of the files; where these
    /// differ, one that holds every file's values. INT96 comes as microseconds. A column that only
    /// the names of folders give (`country=CH`) is text.
    ///
    /// # Errors
    /// No file matches; a file cannot be read; no file has a column; files disagree about its type.
    pub async fn scan(
        &self,
        source: &Source,
        columns: &[&str],
    ) -> Result<Arc<ScanExec>, OfflineError> {
        let files = self.source_footers(source).await?;
        let scan = Scan::new(source, columns, &BTreeMap::new(), files)?;
        Ok(Arc::new(self.scan_exec(scan, Wanted::default())))
    }

    /// The rows of a view, its batch transformation included, as a plan.
    ///
    /// # Errors
    /// As those of [`Self::scan`]; or the view's component is not among `components`.
    pub async fn view_rows(
        &self,
        view: &Arc<View>,
        components: &Components,
        progress: Arc<dyn Progress>,
    ) -> Result<ViewRowsExec, OfflineError> {
        self.view_rows_between(view, components, (i64::MIN, i64::MAX), progress)
            .await
    }

    /// The same; what the files say to lie outside of a range of event timestamps, both bounds
    /// inclusive, is left out.
    pub(crate) async fn view_rows_between(
        &self,
        view: &Arc<View>,
        components: &Components,
        (start, end): (i64, i64),
        progress: Arc<dyn Progress>,
    ) -> Result<ViewRowsExec, OfflineError> {
        let runner = ViewRunner::new(Arc::clone(view), components)?;
        let scan = self.view_scan(view).await?;
        let event = column_as_stored(view, scan.schema(), &view.source.timestamp_field);
        let wanted = Wanted {
            events: event.map(|column| (column, start, end)),
            ..Wanted::default()
        };
        Ok(self.rows_of(scan, wanted, view, runner, progress))
    }

    /// The columns of the source that a view reads.
    pub(crate) async fn view_scan(&self, view: &View) -> Result<Scan, OfflineError> {
        let files = self.source_footers(&view.source).await?;
        Scan::new(
            &view.source,
            &view.source_columns(),
            &wanted_types(view),
            files,
        )
    }

    /// The rows of a view that `runner` makes of those of `scan` that are wanted.
    pub(crate) fn rows_of(
        &self,
        scan: Scan,
        wanted: Wanted,
        view: &Arc<View>,
        runner: ViewRunner,
        progress: Arc<dyn Progress>,
    ) -> ViewRowsExec {
        let rows = scan.rows();
        let scan: Arc<dyn ExecutionPlan> = Arc::new(self.scan_exec(scan, wanted));
        let view = Arc::clone(view);
        ViewRowsExec::new(scan, rows, view, runner, progress)
    }

    /// The rows of a scan, in the order of its files.
    pub(crate) fn read_in_order(
        &self,
        scan: Scan,
    ) -> Result<SendableRecordBatchStream, OfflineError> {
        let plan = ScanExec::new(Arc::new(scan), Wanted::default(), 1);
        Ok(plan.execute(0, self.task_context())?)
    }

    fn scan_exec(&self, scan: Scan, wanted: Wanted) -> ScanExec {
        ScanExec::new(Arc::new(scan), wanted, self.settings.partitions.get())
    }

    async fn source_footers(&self, source: &Source) -> Result<Vec<FileSchema>, OfflineError> {
        self.files(&source.name, &source.path, source.partition.as_ref())
            .await
    }

    /// The files at `path`, of the source `name`, with their footers; without those that another
    /// replaces.
    pub(crate) async fn files(
        &self,
        name: &str,
        path: &str,
        partition: Option<&Partition>,
    ) -> Result<Vec<FileSchema>, OfflineError> {
        let files = self.listed(name, path, partition).await?;
        Ok(replaced::told(files)?.counting)
    }

    /// All files at `path`, those too that another replaces.
    ///
    /// They are listed again where a file has gone since: somebody deletes what is replaced, and
    /// what replaces it may be none of the first list.
    pub(crate) async fn listed(
        &self,
        name: &str,
        path: &str,
        partition: Option<&Partition>,
    ) -> Result<Vec<FileSchema>, OfflineError> {
        let options = &self.settings.object_store;
        let list = || source_files(&self.root, name, path, partition, options);
        let is_gone = |error: &OfflineError| matches!(error, OfflineError::Io { error, .. } if error.kind() == ErrorKind::NotFound);
        let paths = |files: &[SourceFile]| -> Vec<PathBuf> {
            files.iter().map(|file| file.path.clone()).collect()
        };
        for _ in 1..LISTINGS {
            let files = match list().await {
                Err(error) if is_gone(&error) => continue,
                files => files?,
            };
            let before = paths(&files);
            let error = match footers(&self.context, files).await {
                Ok(files) => return Ok(files),
                Err(error) => error,
            };
            match list().await {
                Ok(after) if paths(&after) == before => return Err(error),
                _ => {}
            }
        }
        footers(&self.context, list().await?).await
    }

    /// The files of the source, as they are on the disk: links followed. Of a source in an object
    /// store there are none.
    ///
    /// # Errors
    /// No file matches, or a folder cannot be read.
    pub fn source_files(&self, source: &Source) -> Result<Vec<PathBuf>, OfflineError> {
        if source.path.contains("://") {
            return Ok(Vec::new());
        }
        let files = local_files(&self.root, &source.name, &source.path)?;
        Ok(files
            .into_iter()
            .filter_map(|file| file.path.canonicalize().ok())
            .collect())
    }

    /// The folder to which sources' paths are relative.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What DataFusion's plans run in.
    pub fn task_context(&self) -> Arc<TaskContext> {
        Arc::clone(&self.context)
    }
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offline")
            .field("root", &self.root)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
