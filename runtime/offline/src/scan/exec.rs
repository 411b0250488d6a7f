//! A scan as an `ExecutionPlan`: all columns of all rows.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    Count, ExecutionPlanMetricsSet, Metric, MetricBuilder, MetricValue, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use tokio::runtime::Handle;

use super::{Piece, Scan, Wanted};
use crate::error::OfflineError;

/// Reads all columns of a source's files.
///
/// The output has a partition for each of `partitions` threads; pieces of row groups are dealt out
/// to them in turn.
#[derive(Clone, Debug)]
pub struct ScanExec {
    scan: Arc<Scan>,
    wanted: Arc<Wanted>,
    /// What is read; found out once, for all partitions.
    pieces: Arc<Mutex<Option<Arc<[Piece]>>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    /// A plan that reads what `wanted` may hold of `scan`, in `partitions` partitions.
    pub(crate) fn new(scan: Arc<Scan>, wanted: Wanted, partitions: usize) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(scan.schema())),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self {
            scan,
            wanted: Arc::new(wanted),
            pieces: Arc::default(),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// How many rows the files have, as their footers say.
    pub fn rows(&self) -> u64 {
        self.scan.rows()
    }

    /// What is read.
    pub(crate) fn scan(&self) -> &Arc<Scan> {
        &self.scan
    }

    /// The pieces that may hold what is wanted. Blocks.
    ///
    /// # Errors
    /// A file's index or filters cannot be read, or a file is another than before.
    pub(crate) fn pieces(&self, handle: &Handle) -> Result<Arc<[Piece]>, OfflineError> {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pieces) = pieces.as_ref() {
            return Ok(Arc::clone(pieces));
        }
        let (found, pruned) = self.scan.pieces(&self.wanted, self.partitions(), handle)?;
        let count = |name: &'static str, value: u64| {
            let value = usize::try_from(value).unwrap_or(usize::MAX);
            MetricBuilder::new(&self.metrics)
                .global_counter(name)
                .add(value);
        };
        count("row_groups_pruned", pruned.row_groups as u64);
        count("pages_pruned", pruned.pages as u64);
        count("rows_pruned", pruned.rows);
        let found: Arc<[Piece]> = found.into();
        *pieces = Some(Arc::clone(&found));
        Ok(found)
    }

    /// Says whether the files of which something was read are still those that were listed. Blocks.
    ///
    /// # Errors
    /// A file is gone or is another.
    pub(crate) fn check_unchanged(&self, handle: &Handle) -> Result<(), OfflineError> {
        let pieces = self.pieces(handle)?;
        self.scan.check_unchanged(&pieces, handle)
    }

    fn partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }

    /// Reads in the order of files until `check` fails: the file, the rows of it before the batch at
    /// fault, and the error. `None` if that does not happen.
    ///
    /// This is how an error of rows that came out of many files at once learns where it belongs. It
    /// costs a second reading up to the fault, and only then.
    pub(crate) async fn first_failure<E: Send + 'static>(
        &self,
        batch_rows: usize,
        check: impl Fn(&RecordBatch) -> Result<(), E> + Send + Sync + 'static,
    ) -> Option<Failure<E>> {
        let scan = Arc::clone(&self.scan);
        let handle = Handle::current();
        let search = move || {
            let (pieces, _) = scan.pieces(&Wanted::default(), 1, &handle).ok()?;
            let columns: Vec<usize> = (0..scan.schema().fields().len()).collect();
            for piece in pieces {
                let mut reader = scan.read(&piece, &columns, batch_rows, &handle).ok()?;
                while let Ok(Some((first, batch))) = reader.next() {
                    if let Err(error) = check(&batch) {
                        let place = scan.row_place(piece.row_group, first);
                        return Some(Failure {
                            file: place.file,
                            rows: place.row,
                            error,
                        });
                    }
                }
            }
            None
        };
        tokio::task::spawn_blocking(search).await.ok().flatten()
    }
}

/// What of a scan was refused.
pub(crate) struct Failure<E> {
    pub(crate) file: std::path::PathBuf,
    /// How many rows of the file came before the batch at fault.
    pub(crate) rows: u64,
    pub(crate) error: E,
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self
            .scan
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        write!(
            f,
            "ScanExec: source={}, files={}, row_groups={}, rows={}, columns=[{}]",
            self.scan.source,
            self.scan.files.len(),
            self.scan.row_groups(),
            self.scan.rows(),
            names.join(", ")
        )
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        "ScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    crate::plan::with_children!(self, children, { Ok(self) });

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let partitions = self.partitions();
        crate::plan::check_partition(partitions, partition)?;
        let schema = Arc::clone(self.scan.schema());
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&schema), 2);
        let output = builder.tx();
        let this = self.clone();
        let handle = Handle::current();
        let batch_rows = context.session_config().batch_size();
        builder.spawn_blocking(move || {
            let pieces = this.pieces(&handle)?;
            let scan = &this.scan;
            let columns: Vec<usize> = (0..scan.schema().fields().len()).collect();
            for piece in pieces.iter().skip(partition).step_by(partitions) {
                let mut reader = scan.read(piece, &columns, batch_rows, &handle)?;
                while let Some((_, batch)) = reader.next()? {
                    if output.blocking_send(Ok(batch)).is_err() {
                        // Nobody listens any more.
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        Ok(builder.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.metrics.clone_inner();
        let has_run = metrics.iter().next().is_some();
        has_run.then(|| {
            let bytes = Count::new();
            bytes.add(usize::try_from(self.scan.bytes_read()).unwrap_or(usize::MAX));
            let value = MetricValue::Count {
                name: "bytes_read".into(),
                count: bytes,
            };
            metrics.push(Arc::new(Metric::new(value, None)));
            metrics
        })
    }
}
