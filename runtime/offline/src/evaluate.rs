//! The upper end of the plan of a training set: joined batches, and what `evaluate` makes of them.
//!
//! ```text
//! EvaluateExec           outputs and statuses          partition i of n: chunks i, i + n, …
//! └─ JoinedExec          the joined batch              of the entity rows, all the way up
//!    ├─ PointInTimeJoinExec      for each view
//!    └─ …
//! ```

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt8Array};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use unskew_core::plan::{FeaturePlan, Layout};
use unskew_engine::{Evaluator, Status};

use crate::entity_rows::EntityRows;
use crate::error::OfflineError;
use crate::offline::CHUNK_ROWS;

/// Where the rows of a lookup come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup {
    /// The join, by its position among the children.
    pub(crate) join: usize,
    /// The first of its columns in that join's output.
    pub(crate) first_column: usize,
}

/// Puts the joined batches together, as `core::plan::Layout` has them.
#[derive(Debug)]
pub struct JoinedExec {
    entities: EntityRows,
    lookups: Vec<Lookup>,
    /// How many columns each lookup has.
    widths: Vec<usize>,
    joins: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
}

impl JoinedExec {
    /// The joined batches of `plan` over `entities`; `lookups` say where in `joins` they are.
    pub(crate) fn new(
        plan: &FeaturePlan,
        entities: EntityRows,
        lookups: Vec<Lookup>,
        joins: Vec<Arc<dyn ExecutionPlan>>,
        partitions: usize,
    ) -> Self {
        let widths = plan
            .lookups
            .iter()
            .map(|lookup| Layout::LOOKUP_HEADER + lookup.features.len());
        Self {
            entities,
            lookups,
            widths: widths.collect(),
            joins,
            properties: properties(plan.layout().schema, partitions),
        }
    }
}

impl DisplayAs for JoinedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, lookups) = (self.entities.num_rows(), self.lookups.len());
        write!(f, "JoinedExec: entity_rows={rows}, lookups={lookups}")
    }
}

impl ExecutionPlan for JoinedExec {
    fn name(&self) -> &'static str {
        "JoinedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.joins.iter().collect()
    }

    crate::plan::with_children!(self, children, {
        Ok(Arc::new(Self {
            entities: self.entities.clone(),
            lookups: self.lookups.clone(),
            widths: self.widths.clone(),
            joins: children,
            properties: Arc::clone(&self.properties),
        }))
    });

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let partitions = partition_count(&self.properties, partition)?;
        let mut inputs = Vec::with_capacity(self.joins.len());
        for join in &self.joins {
            inputs.push(join.execute(partition, Arc::clone(&context))?);
        }
        let chunks = (partition..self.entities.chunk_count()).step_by(partitions);
        let (entities, schema) = (self.entities.clone(), self.schema());
        let lookups: Arc<[_]> = self
            .lookups
            .iter()
            .copied()
            .zip(self.widths.clone())
            .collect();
        let batch_schema = Arc::clone(&schema);
        let batches =
            futures::stream::try_unfold((chunks, inputs), move |(mut chunks, mut inputs)| {
                let (entities, lookups) = (entities.clone(), Arc::clone(&lookups));
                let schema = Arc::clone(&batch_schema);
                async move {
                    let Some(chunk) = chunks.next() else {
                        // To the end, also where there was nothing to ask for: lag is counted then.
                        for input in &mut inputs {
                            input.try_next().await?;
                        }
                        return Ok(None);
                    };
                    let mut joined = Vec::with_capacity(inputs.len());
                    for input in &mut inputs {
                        let batch = input.try_next().await?;
                        joined.push(batch.ok_or_else(too_few)?);
                    }
                    let chunk = entities.chunk(chunk)?;
                    let mut columns: Vec<ArrayRef> = chunk.inputs;
                    for (lookup, width) in lookups.iter() {
                        let of_join = joined[lookup.join].columns();
                        let range = lookup.first_column..lookup.first_column + width;
                        columns.extend(of_join[range].iter().map(Arc::clone));
                    }
                    let options =
                        RecordBatchOptions::new().with_row_count(Some(chunk.own.num_rows()));
                    let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
                    Ok(Some((batch, (chunks, inputs))))
                }
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// Evaluates joined batches: the plan's outputs, then for each its statuses, as the positions of
/// these in [`Status::ALL`].
#[derive(Debug)]
pub struct EvaluateExec {
    input: Arc<dyn ExecutionPlan>,
    evaluator: Arc<Evaluator>,
    properties: Arc<PlanProperties>,
}

impl EvaluateExec {
    pub(crate) fn new(joined: JoinedExec, evaluator: Arc<Evaluator>) -> Self {
        Self::of(Arc::new(joined), evaluator)
    }

    fn of(input: Arc<dyn ExecutionPlan>, evaluator: Arc<Evaluator>) -> Self {
        let outputs = evaluator.plan().output_schema();
        let statuses = outputs.fields().iter().map(|field| {
            let name = format!("@status:{}", field.name());
            Arc::new(Field::new(name, ArrowType::UInt8, false))
        });
        let fields: Vec<_> = outputs
            .fields()
            .iter()
            .map(Arc::clone)
            .chain(statuses)
            .collect();
        let partitions = input.properties().partitioning.partition_count();
        Self {
            input,
            evaluator,
            properties: properties(Arc::new(Schema::new(fields)), partitions),
        }
    }

    /// The outputs of a batch, and the statuses of each.
    pub(crate) fn split(
        plan: &FeaturePlan,
        batch: &RecordBatch,
    ) -> Result<(RecordBatch, Vec<ArrayRef>), OfflineError> {
        let (outputs, statuses) = batch.columns().split_at(plan.outputs.len());
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let schema = plan.output_schema();
        let outputs = RecordBatch::try_new_with_options(schema, outputs.to_vec(), &options)?;
        Ok((outputs, statuses.to_vec()))
    }

    /// The status of that code.
    pub(crate) fn status(code: u8) -> Status {
        // Codes are made below, of these very statuses.
        Status::ALL[usize::from(code) % Status::ALL.len()]
    }
}

/// The outputs and statuses of a joined batch; `before` entity rows come before it.
fn evaluate(
    evaluator: &Evaluator,
    schema: SchemaRef,
    joined: &RecordBatch,
    before: usize,
) -> Result<RecordBatch, OfflineError> {
    let evaluated = evaluator
        .evaluate(joined)
        .map_err(|error| OfflineError::Evaluate(Box::new(error.shifted(before))))?;
    let mut columns = evaluated.batch.columns().to_vec();
    for statuses in evaluated.statuses {
        // The position in `ALL` is the position in the enum.
        let codes = statuses.iter().map(|&status| status as u8);
        columns.push(Arc::new(codes.collect::<UInt8Array>()));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(joined.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

impl DisplayAs for EvaluateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.evaluator.plan();
        let steps = plan.steps.iter().map(|step| step.name.as_str());
        let steps: Vec<_> = steps.collect();
        write!(
            f,
            "EvaluateExec: plan={}, transformations=[{}], outputs={}",
            plan.digest().short(),
            steps.join(", "),
            plan.outputs.len()
        )
    }
}

impl ExecutionPlan for EvaluateExec {
    crate::plan::with_input!(
        self,
        "EvaluateExec",
        input,
        Self::of(input, Arc::clone(&self.evaluator))
    );

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let partitions = partition_count(&self.properties, partition)?;
        let joined = self.input.execute(partition, context)?;
        let (evaluator, schema) = (Arc::clone(&self.evaluator), self.schema());
        let batch_schema = Arc::clone(&schema);
        let runs_components = !evaluator.plan().steps.is_empty();
        let chunks = futures::stream::iter((partition..).step_by(partitions));
        let batches = joined.zip(chunks).then(move |(joined, chunk)| {
            let (evaluator, schema) = (Arc::clone(&evaluator), Arc::clone(&batch_schema));
            async move {
                let joined = joined?;
                let before = chunk * CHUNK_ROWS;
                let evaluate = move || evaluate(&evaluator, schema, &joined, before);
                // Components run off the threads that drive everybody's tasks.
                let evaluated = if runs_components {
                    tokio::task::spawn_blocking(evaluate)
                        .await
                        .map_err(OfflineError::from)?
                } else {
                    evaluate()
                };
                Ok(evaluated?)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

fn properties(schema: SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

/// How many partitions there are, `partition` among them.
fn partition_count(properties: &PlanProperties, partition: usize) -> DataFusionResult<usize> {
    let partitions = properties.partitioning.partition_count();
    crate::plan::check_partition(partitions, partition)?;
    Ok(partitions)
}

fn too_few() -> DataFusionError {
    DataFusionError::Internal("a point-in-time join gave fewer chunks than there are".to_owned())
}
