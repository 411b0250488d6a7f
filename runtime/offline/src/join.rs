//! The point-in-time join as an `ExecutionPlan`.
//!
//! ```text
//!  view rows, any order      partition 0   partition 1   …      each in a task of its own:
//!                                  │             │              row → first slot of its key at or
//!                                  ▼             ▼              after its availability; the slot
//!                           partial winners  partial winners    keeps the greatest row
//!                                  └──────┬──────┘
//!                                       merge, then a running maximum along each key's slots
//!                                         │
//!                        ┌────────────────┴───────────────┐
//!              entity set 0: its rows, in order   entity set 1 …    one output partition each
//! ```
//!
//! Only slots and winners are held; the history streams past. A view that a service uses under
//! several names and join keys is read once, with an entity set for each.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt8Array};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::common::runtime::JoinSet;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryStreamExt};
use unskew_core::plan::found;
use unskew_core::row::{Decoder, encode_key};
use unskew_core::time::availability;
use unskew_core::types::ScalarType;
use unskew_core::view::View;

use crate::slots::{NO_SLOT, Slots};
use crate::view_rows::ViewBatch;
use crate::winners::Winners;

/// Finds, for each entity row, the row of a view that counts at its instant.
///
/// The child gives the view's rows as [`crate::ViewRowsExec`] does. Output partition `i` belongs to
/// entity set `i` and has a batch for each of the set's chunks, rows in their order:
///
/// ```text
/// @found uint8 | @event timestamp | @created timestamp | the features asked for …
/// ```
///
/// The time to live is not regarded: a row that is found is passed on with its timestamps, and
/// whether it counts is for `evaluate` to say. A plan is executed once.
#[derive(Debug)]
pub struct PointInTimeJoinExec {
    input: Arc<dyn ExecutionPlan>,
    join: Arc<Join>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    outcome: OnceLock<Outcome>,
}

/// What is to be joined.
#[derive(Debug)]
struct Join {
    view: Arc<View>,
    /// The features asked for, as indices into the view's; ascending.
    features: Vec<usize>,
    slots: Slots,
    /// For each entity set and each of its chunks the slots of the rows.
    sets: Vec<Vec<Vec<u32>>>,
    /// Rows that become available later do not count.
    until: Option<i64>,
}

/// The winners of all slots, computed once for all output partitions.
type Outcome = Shared<BoxFuture<'static, Result<Arc<Winners>, SharedError>>>;

/// An error for several waiters. The first gets it as it is, so that its kind is not lost in an
/// `Arc`; the others its text.
#[derive(Clone, Debug)]
struct SharedError {
    error: Arc<Mutex<Option<DataFusionError>>>,
    text: Arc<str>,
}

impl SharedError {
    fn new(error: DataFusionError) -> Self {
        Self {
            text: error.to_string().into(),
            error: Arc::new(Mutex::new(Some(error))),
        }
    }

    fn into_error(self) -> DataFusionError {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error
            .take()
            .unwrap_or_else(|| DataFusionError::Execution(self.text.to_string()))
    }
}

impl PointInTimeJoinExec {
    /// A join of the rows of `view` that `input` gives to the entity rows behind `slots`.
    ///
    /// `sets` are, for each entity set and each of its chunks, the slots of the entity rows.
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        view: Arc<View>,
        features: Vec<usize>,
        slots: Slots,
        sets: Vec<Vec<Vec<u32>>>,
        until: Option<i64>,
    ) -> Self {
        Self::of(
            input,
            Arc::new(Join {
                view,
                features,
                slots,
                sets,
                until,
            }),
        )
    }

    /// How many rows were passed over because they became available after the bound; known when
    /// the output has begun.
    pub fn lag(&self) -> u64 {
        let lag = self.metrics.clone_inner().sum_by_name(LAG);
        lag.map_or(0, |value| value.as_usize() as u64)
    }

    fn of(input: Arc<dyn ExecutionPlan>, join: Arc<Join>) -> Self {
        let timestamp = ScalarType::Timestamp.arrow();
        let mut fields = vec![
            Field::new("@found", ArrowType::UInt8, false),
            Field::new("@event", timestamp.clone(), true),
            Field::new("@created", timestamp, true),
        ];
        let features = join
            .features
            .iter()
            .map(|&index| &join.view.features[index]);
        fields.extend(features.map(|f| Field::new(&f.name, f.data_type.arrow(), true)));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(Schema::new(fields))),
            Partitioning::UnknownPartitioning(join.sets.len()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            input,
            join,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            outcome: OnceLock::new(),
        }
    }

    /// The computation that all output partitions wait for; it runs when one is polled.
    fn outcome(&self, context: Arc<TaskContext>) -> Outcome {
        self.outcome
            .get_or_init(|| {
                let input = Arc::clone(&self.input);
                let join = Arc::clone(&self.join);
                let counts = Counts::new(&self.metrics);
                async move {
                    let winners = winners(input, join, counts, context).await;
                    winners.map(Arc::new).map_err(SharedError::new)
                }
                .boxed()
                .shared()
            })
            .clone()
    }
}

const LAG: &str = "lag";

/// What a join counts while it runs.
#[derive(Clone)]
struct Counts {
    read: Count,
    lag: Count,
    winners: Count,
}

impl Counts {
    fn new(metrics: &ExecutionPlanMetricsSet) -> Self {
        Self {
            read: MetricBuilder::new(metrics).global_counter("rows_read"),
            lag: MetricBuilder::new(metrics).global_counter(LAG),
            winners: MetricBuilder::new(metrics).global_counter("winners"),
        }
    }
}

/// Streams all partitions of the view's rows past the slots.
async fn winners(
    input: Arc<dyn ExecutionPlan>,
    join: Arc<Join>,
    counts: Counts,
    context: Arc<TaskContext>,
) -> DataFusionResult<Winners> {
    let mut merged = Winners::none(join.slots.len());
    if join.slots.len() == 0 && join.until.is_none() {
        // Nobody asks; with a bound the rows beyond it are counted all the same.
        return Ok(merged);
    }
    let partitions = input.properties().partitioning.partition_count();
    let mut tasks = JoinSet::new();
    for partition in 0..partitions {
        let stream = input.execute(partition, Arc::clone(&context))?;
        tasks.spawn(partial(stream, Arc::clone(&join), counts.clone()));
    }
    while let Some(partial) = tasks.join_next().await {
        let partial =
            partial.map_err(|error| DataFusionError::from(crate::OfflineError::from(error)))??;
        merged.merge(&partial);
    }
    merged.run_maximum(join.slots.by_key());
    counts.winners.add(merged.count());
    Ok(merged)
}

/// The winners among the rows of one partition.
async fn partial(
    mut stream: SendableRecordBatchStream,
    join: Arc<Join>,
    counts: Counts,
) -> DataFusionResult<Winners> {
    let mut winners = Winners::none(join.slots.len());
    let mut key = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        let rows = ViewBatch::of(&join.view, &batch)?;
        counts.read.add(batch.num_rows());
        let mut lag = 0;
        for row in 0..batch.num_rows() {
            let (event, created) = rows.timestamps(row);
            let mode = join.view.source.point_in_time;
            let (Some(event), Some(available)) = (event, availability(mode, event, created)) else {
                continue;
            };
            if join.until.is_some_and(|until| available > until) {
                lag += 1;
                continue;
            }
            key.clear();
            if encode_key(rows.keys, row, &mut key)
                && let Some(slot) = join.slots.first(&key, available)
            {
                winners.enter(slot as usize, event, created, rows.features, row);
            }
        }
        counts.lag.add(lag);
    }
    Ok(winners)
}

impl Join {
    /// The winners of a chunk's rows.
    fn chunk(
        &self,
        schema: &SchemaRef,
        slots: &[u32],
        winners: &Winners,
    ) -> DataFusionResult<RecordBatch> {
        let row = |slot: u32| match slot {
            NO_SLOT => None,
            slot => winners.row(slot as usize),
        };
        // Arrow's strings and lists count bytes and items by 31 bits.
        let bytes: usize = slots
            .iter()
            .filter_map(|&slot| row(slot))
            .map(<[u8]>::len)
            .sum();
        if bytes > i32::MAX as usize {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "the rows of view `{}` for {} entity rows take {bytes} bytes, more than the \
                 2 GiB of a batch",
                self.view.name,
                slots.len()
            )));
        }
        let mut decoder = Decoder::new(&self.view.feature_types(), &self.features);
        let mut states = Vec::with_capacity(slots.len());
        for &slot in slots {
            let row = row(slot);
            states.push(if row.is_some() {
                found::ROW
            } else {
                found::NOTHING
            });
            decoder
                .push(row)
                .map_err(|error| DataFusionError::Internal(error.to_string()))?;
        }
        let rows = decoder.finish();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt8Array::from(states)),
            Arc::new(rows.events),
            Arc::new(rows.created),
        ];
        columns.extend(rows.features);
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(schema),
            columns,
            &options,
        )?)
    }
}

impl DisplayAs for PointInTimeJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PointInTimeJoinExec: view={}, slots={}, entity_sets={}",
            self.join.view.name,
            self.join.slots.len(),
            self.join.sets.len()
        )?;
        match self.join.until {
            Some(until) => write!(f, ", until={}", unskew_core::time::format(until)),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for PointInTimeJoinExec {
    fn name(&self) -> &'static str {
        "PointInTimeJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    crate::plan::with_children!(self, children, {
        let input = children
            .into_iter()
            .next()
            .unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self::of(input, Arc::clone(&self.join))))
    });

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        crate::plan::partition(&vec![(); self.join.sets.len()], partition)?;
        let outcome = self.outcome(context);
        let (schema, join) = (self.schema(), Arc::clone(&self.join));
        let chunk_schema = Arc::clone(&schema);
        let batches = futures::stream::once(outcome)
            .map_err(|error| error.into_error())
            .map_ok(move |winners| {
                let (join, schema) = (Arc::clone(&join), Arc::clone(&chunk_schema));
                futures::stream::iter(0..join.sets[partition].len())
                    .map(move |chunk| join.chunk(&schema, &join.sets[partition][chunk], &winners))
            })
            .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{AsArray, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Int64Type, UInt8Type};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::{ReplaceChildrenOptions, collect_partitioned, displayable};
    use unskew_core::time::Mode;
    use unskew_core::types::{DataType, Field as ViewField};
    use unskew_core::view::{JoinKey, Source};

    use super::*;
    use crate::schema::plain;
    use crate::slots::SlotsBuilder;

    fn view() -> Arc<View> {
        Arc::new(View {
            name: "v".to_owned(),
            source: Source {
                name: "s".to_owned(),
                path: "s".to_owned(),
                timestamp_field: "at".to_owned(),
                created_timestamp_column: None,
                point_in_time: Mode::Event,
                late_by: 0,
                columns: BTreeMap::new(),
            },
            keys: vec![JoinKey {
                name: "id".to_owned(),
                data_type: ScalarType::Int64,
            }],
            features: vec![ViewField::new("x", DataType::Scalar(ScalarType::Int64))],
            ttl: None,
            online: true,
            batch: None,
        })
    }

    fn times(values: Vec<Option<i64>>) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    }

    fn ints(values: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    /// Two partitions of view rows.
    fn input() -> Arc<dyn ExecutionPlan> {
        let timestamp = ScalarType::Timestamp.arrow();
        let schema = Arc::new(Schema::new(vec![
            plain("@event", timestamp.clone()),
            plain("@created", timestamp),
            plain("key:id", ArrowType::Int64),
            plain("feature:x", ArrowType::Int64),
        ]));
        let rows = |at: &[i64], ids: &[i64], values: &[i64]| {
            let events = times(at.iter().copied().map(Some).collect());
            let created = times(vec![None; at.len()]);
            let columns = vec![events, created, ints(ids), ints(values)];
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        };
        let partitions = [
            vec![rows(&[1, 9], &[7, 7], &[10, 90]), rows(&[5], &[8], &[50])],
            vec![rows(&[3], &[7], &[30])],
        ];
        MemorySourceConfig::try_new_exec(&partitions, Arc::clone(&schema), None).unwrap()
    }

    /// Two entity sets: one of two chunks, one of one.
    fn join(until: Option<i64>) -> Arc<PointInTimeJoinExec> {
        let mut slots = SlotsBuilder::default();
        for (ids, at) in [([7, 8], [3, 4]), ([8, 7], [5, 0]), ([7, 7], [2, 100])] {
            let at = TimestampMicrosecondArray::from(at.to_vec());
            slots.add(&[ints(&ids)], &at).unwrap();
        }
        let (slots, mut chunks) = slots.finish();
        let second = chunks.split_off(2);
        let sets = vec![chunks, second];
        Arc::new(PointInTimeJoinExec::new(
            input(),
            view(),
            vec![0],
            slots,
            sets,
            until,
        ))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_entity_set_gets_its_chunks_in_order() {
        let join = join(None);
        let plan: Arc<dyn ExecutionPlan> = Arc::clone(&join) as _;
        let sets = collect_partitioned(plan, Arc::default()).await.unwrap();
        let values: Vec<Vec<Vec<_>>> = sets
            .iter()
            .map(|chunks| {
                let chunks = chunks.iter();
                let column =
                    |chunk: &RecordBatch| chunk.column(3).as_primitive::<Int64Type>().clone();
                chunks.map(|chunk| column(chunk).iter().collect()).collect()
            })
            .collect();
        let expected = [
            vec![vec![Some(30), None], vec![Some(50), None]],
            vec![vec![Some(10), Some(90)]],
        ];
        assert_eq!(values, expected);
        let states = sets[0][0].column(0).as_primitive::<UInt8Type>();
        assert_eq!(states.values(), &[found::ROW, found::NOTHING]);

        let metrics = join.metrics().unwrap();
        let sum = |name: &str| metrics.sum_by_name(name).unwrap().as_usize();
        assert_eq!((sum("rows_read"), sum("winners"), sum("lag")), (4, 4, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_plan_explains_itself_and_takes_new_children() {
        let bounded = join(Some(4));
        let text = displayable(bounded.as_ref()).indent(false).to_string();
        let line = "PointInTimeJoinExec: view=v, slots=6, entity_sets=2, until=1970-01-01T00:00:00.000004Z";
        assert!(text.contains(line), "{text}");

        assert!(bounded.execute(2, Arc::default()).is_err());
        let recompute = || {
            ReplaceChildrenOptions::new(
                datafusion::physical_plan::ChildrenPropertiesMode::Recompute,
            )
        };
        let plan: Arc<dyn ExecutionPlan> = Arc::clone(&bounded) as _;
        assert!(
            Arc::clone(&plan)
                .replace_children(vec![], recompute())
                .is_err()
        );
        let plan = plan.replace_children(vec![input()], recompute()).unwrap();
        let again = plan.downcast_ref::<PointInTimeJoinExec>().unwrap();
        collect_partitioned(Arc::clone(&plan), Arc::default())
            .await
            .unwrap();
        assert_eq!((again.lag(), bounded.lag()), (2, 0));
    }
}
