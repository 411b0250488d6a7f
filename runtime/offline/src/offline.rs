//! What all offline work shares: the feature repository's folder and DataFusion's settings.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use unskew_core::digest::Digest;
use unskew_core::view::{Source, View};
use unskew_engine::{Component, ViewRunner};

use crate::error::OfflineError;
use crate::files::source_files;
use crate::progress::Progress;
use crate::scan::{ScanExec, source_schema};
use crate::view_rows::ViewRowsExec;

/// How many rows are read, transformed and evaluated at a time: those of one call of a component.
pub(crate) const CHUNK_ROWS: usize = 8_192;

/// The loaded components, by digest.
pub type Components = BTreeMap<Digest, Arc<Component>>;

/// The knobs of the offline side. None of them decides a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many partitions of a history are read at once. Default: one for each processor.
    pub partitions: NonZero<usize>,
    /// How many bytes of rows [`Offline::latest_rows`] holds before it hands them on.
    /// Default: 256 MiB.
    pub latest_rows_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            partitions: std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            latest_rows_bytes: 256 << 20,
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
    pub fn new(root: impl Into<PathBuf>, settings: Settings) -> Self {
        let mut config = SessionConfig::new()
            .with_target_partitions(settings.partitions.get())
            .with_batch_size(CHUNK_ROWS);
        // A row group is the least that is read apart; below a megabyte a thread is not worth it.
        config.options_mut().optimizer.repartition_file_min_size = 1 << 20;
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
        source_schema(&self.context, &self.root, name, path).await
    }

    /// A scan of columns of the source, by their names in definitions. Only footers are read now.
    ///
    /// A column that some files lack is null there. Types are those of the files; where these
    /// differ, one that holds every file's values. INT96 comes as microseconds.
    ///
    /// # Errors
    /// No file matches; a file cannot be read; no file has a column; files disagree about its type.
    pub async fn scan(
        &self,
        source: &Source,
        columns: &[&str],
    ) -> Result<Arc<ScanExec>, OfflineError> {
        ScanExec::new(&self.context, &self.root, source, columns)
            .await
            .map(Arc::new)
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
        let runner = ViewRunner::new(Arc::clone(view), components)?;
        let scan = self.scan(&view.source, &view.source_columns()).await?;
        let rows = scan.rows();
        let scan: Arc<dyn ExecutionPlan> = scan;
        let view = Arc::clone(view);
        Ok(ViewRowsExec::new(scan, rows, view, runner, progress))
    }

    /// The files of the source, as they are on the disk: links followed.
    ///
    /// # Errors
    /// No file matches, or a folder cannot be read.
    pub fn source_files(&self, source: &Source) -> Result<Vec<PathBuf>, OfflineError> {
        let files = source_files(&self.root, &source.name, &source.path)?;
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
