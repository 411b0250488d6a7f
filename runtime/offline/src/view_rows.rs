//! From source rows to a view's rows, batch transformation included, as an `ExecutionPlan`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use unskew_core::types::ScalarType;
use unskew_core::view::View;
use unskew_engine::{ViewRows, ViewRowsError, ViewRunner};

use crate::error::OfflineError;
use crate::progress::Progress;
use crate::scan::{Failure, ScanExec};
use crate::schema::plain;

/// Turns the rows of a source into the rows of a view.
///
/// The child gives the view's source columns, as [`ScanExec`] does. Each output partition is that
/// of the child, transformed:
///
/// ```text
/// @event timestamp | @created timestamp | key:NAME … | feature:NAME …
/// ```
#[derive(Debug)]
pub struct ViewRowsExec {
    input: Arc<dyn ExecutionPlan>,
    transform: Arc<Transform>,
    properties: Arc<PlanProperties>,
}

struct Transform {
    view: Arc<View>,
    runner: ViewRunner,
    schema: SchemaRef,
    source_rows: u64,
    progress: Arc<dyn Progress>,
}

impl ViewRowsExec {
    /// The rows of `view` that `runner` makes of those of `input`, of which there are `source_rows`;
    /// `progress` hears of them.
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        source_rows: u64,
        view: Arc<View>,
        runner: ViewRunner,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let timestamp = ScalarType::Timestamp.arrow();
        let mut fields = vec![
            plain("@event", timestamp.clone()),
            plain("@created", timestamp),
        ];
        for key in &view.keys {
            fields.push(plain(&format!("key:{}", key.name), key.data_type.arrow()));
        }
        for feature in &view.features {
            let name = format!("feature:{}", feature.name);
            fields.push(plain(&name, feature.data_type.arrow()));
        }
        let schema = Arc::new(Schema::new(fields));
        Self::of(
            input,
            Arc::new(Transform {
                view,
                runner,
                schema,
                source_rows,
                progress,
            }),
        )
    }

    /// Tells progress that the reading of the view's history begins.
    pub(crate) fn begin(&self) {
        let transform = &self.transform;
        let stage = format!("reading the history of `{}`", transform.view.name);
        transform.progress.begin(&stage, transform.source_rows);
    }

    /// The scan that gives the source's rows.
    pub(crate) fn scan(&self) -> Option<Arc<ScanExec>> {
        let scan = self.input.downcast_ref::<ScanExec>()?;
        Some(Arc::new(scan.clone()))
    }

    /// Who hears of rows that are read.
    pub(crate) fn progress(&self) -> Arc<dyn Progress> {
        Arc::clone(&self.transform.progress)
    }

    fn of(input: Arc<dyn ExecutionPlan>, transform: Arc<Transform>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&transform.schema)),
            input.properties().partitioning.clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            input,
            transform,
            properties: Arc::new(properties),
        }
    }
}

impl Transform {
    fn run(&self, source: &RecordBatch) -> Result<RecordBatch, OfflineError> {
        let ViewRows {
            keys,
            event,
            created,
            features,
        } = self
            .runner
            .run(source)
            .map_err(|error| OfflineError::view_rows(None, error))?;
        let rows = event.len();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(event), Arc::new(created)];
        columns.extend(keys);
        columns.extend(features);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }

    /// A batch of the source, transformed. A component runs off the threads that drive tasks, since
    /// it may take seconds.
    async fn transformed(
        self: Arc<Self>,
        source: RecordBatch,
    ) -> Result<RecordBatch, OfflineError> {
        let rows = source.num_rows() as u64;
        let this = Arc::clone(&self);
        let batch = if self.view.batch.is_some() {
            tokio::task::spawn_blocking(move || this.run(&source)).await??
        } else {
            this.run(&source)?
        };
        self.progress.advance(rows);
        Ok(batch)
    }

    /// The same error, with the file and the row in it where they can be told.
    async fn located(
        self: Arc<Self>,
        input: &Arc<dyn ExecutionPlan>,
        context: &Arc<TaskContext>,
        error: OfflineError,
    ) -> OfflineError {
        let (OfflineError::ViewRows { file: None, .. }, Some(scan)) =
            (&error, input.downcast_ref::<ScanExec>())
        else {
            return error;
        };
        let this = Arc::clone(&self);
        let check = move |batch: &RecordBatch| -> Result<(), ViewRowsError> {
            this.runner.run(batch).map(drop)
        };
        match scan
            .first_failure(context.session_config().batch_size(), check)
            .await
        {
            Some(Failure { file, rows, error }) => {
                let before = usize::try_from(rows).unwrap_or(usize::MAX);
                OfflineError::view_rows(Some(file), error.shifted(before))
            }
            None => error,
        }
    }
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transform")
            .field("view", &self.view.name)
            .finish_non_exhaustive()
    }
}

/// The columns of a batch of a view's rows.
pub(crate) struct ViewBatch<'a> {
    pub(crate) events: &'a TimestampMicrosecondArray,
    pub(crate) created: &'a TimestampMicrosecondArray,
    /// The join keys, in the view's order and types.
    pub(crate) keys: &'a [ArrayRef],
    /// The features, likewise.
    pub(crate) features: &'a [ArrayRef],
}

impl<'a> ViewBatch<'a> {
    /// The columns of `batch`, which [`ViewRowsExec`] gave for `view`.
    ///
    /// # Errors
    /// The batch has other columns: the plan was put together wrongly.
    pub(crate) fn of(view: &View, batch: &'a RecordBatch) -> DataFusionResult<Self> {
        let columns = batch.columns();
        let keys = view.keys.len();
        let timestamps = |index: usize| {
            columns
                .get(index)
                .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        };
        match (timestamps(0), timestamps(1)) {
            (Some(events), Some(created)) if columns.len() == 2 + keys + view.features.len() => {
                Ok(Self {
                    events,
                    created,
                    keys: &columns[2..2 + keys],
                    features: &columns[2 + keys..],
                })
            }
            _ => Err(DataFusionError::Internal(format!(
                "a batch with columns {:?} was given for rows of view `{}`",
                batch.schema().fields(),
                view.name
            ))),
        }
    }

    /// The event and created timestamps of a row.
    pub(crate) fn timestamps(&self, row: usize) -> (Option<i64>, Option<i64>) {
        let at = |times: &TimestampMicrosecondArray| times.is_valid(row).then(|| times.value(row));
        (at(self.events), at(self.created))
    }
}

impl DisplayAs for ViewRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = &self.transform.view;
        write!(f, "ViewRowsExec: view={}", view.name)?;
        match &view.batch {
            Some(batch) => write!(f, ", transformation={}", batch.name),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for ViewRowsExec {
    crate::plan::with_input!(
        self,
        "ViewRowsExec",
        input,
        Self::of(input, Arc::clone(&self.transform))
    );

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let stream = self.input.execute(partition, Arc::clone(&context))?;
        let (input, transform) = (Arc::clone(&self.input), Arc::clone(&self.transform));
        let batches = stream.then(move |batch| {
            let (input, context) = (Arc::clone(&input), Arc::clone(&context));
            let transform = Arc::clone(&transform);
            async move {
                match Arc::clone(&transform).transformed(batch?).await {
                    Ok(batch) => Ok(batch),
                    Err(error) => Err(transform.located(&input, &context, error).await.into()),
                }
            }
        });
        let schema = self.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}
