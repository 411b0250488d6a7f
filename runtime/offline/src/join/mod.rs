//! The point-in-time join as an `ExecutionPlan`.
//!
//! ```text
//!  view rows, any order      thread 0      thread 1   …       row → first slot of its key at or
//!                                │             │              after its availability; the slot
//!                                ▼             ▼              keeps the greatest row
//!                         partial winners  partial winners
//!                                └──────┬──────┘
//!                                     merge, then a running maximum along each key's slots
//!                                       │
//!                     ┌─────────────────┼─────────────────┐
//!               chunks 0, n, …    chunks 1, n + 1, …   …       one output partition each
//! ```
//!
//! Only slots and winners are held; the history streams past. A view that a service uses under
//! several names and join keys is read once, with an entity set for each.
//!
//! Rows that lie in files as the view has them are joined in two phases ([`stored`]): first
//! timestamps and keys, then the features of the winners. Rows that a batch transformation makes
//! come by once, and the winners carry theirs ([`carried`]). Slots that do not fit into memory are
//! worked off in parts ([`spilled`]).

mod asked;
mod carried;
mod chosen;
mod counts;
mod cursors;
mod kept;
mod keys;
mod parallel;
mod probe;
mod slots;
mod spilled;
mod stored;
mod temporary;
mod ties;
mod winners;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt8Array, new_null_array};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::future::{BoxFuture, Shared};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use unskew_core::plan::{Layout, found};
use unskew_core::row::Decoder;
use unskew_core::time::Mode;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::view::View;

use crate::offline::CHUNK_ROWS;
use crate::scan::{ScanExec, Wanted, column_as_stored};
use crate::view_rows::ViewRowsExec;
use counts::Counts;
use kept::Stored;
use parallel::Cancelled;
use probe::Admission;
use slots::{NO_SLOT, Slots};
use spilled::{Spilled, SpilledRows};
use stored::Failed;
use winners::Winners;

pub(crate) use asked::{Asked, Question, Share};
pub(crate) use keys::KeyValuesBuilder;
pub(crate) use parallel::blocking;

/// Finds, for each entity row, the row of a view that counts at its instant.
///
/// The child gives the view's rows, as [`ViewRowsExec`] does. Output partition `i` of `n` has a
/// batch for each of the chunks `i`, `i + n`, … of the entity rows, rows in their order. A batch has,
/// for each entity set:
///
/// ```text
/// @found uint8 | @event timestamp | @created timestamp | the features that the set uses …
/// ```
///
/// `@created` is null under `point_in_time: event`, where it decides nothing any more. The time to live is not regarded: a row that is found is passed on
/// with its timestamps, and whether it counts is for `evaluate` to say. A plan is executed once.
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
pub(crate) struct Join {
    pub(crate) view: Arc<View>,
    pub(crate) asked: Asked,
    pub(crate) rows: Rows,
    /// The lookups, in the order of `rows`.
    pub(crate) sets: Vec<EntitySet>,
    /// Rows that become available later do not count.
    pub(crate) until: Option<i64>,
    /// Whether rows that are too old for every entity row may be left out.
    pub(crate) skips_expired: bool,
    pub(crate) threads: usize,
}

/// The entity rows of all sets; cheap to clone, since views with the same keys share them.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    /// In memory.
    Held(Arc<HeldRows>),
    /// In temporary files.
    Spilled(Arc<SpilledRows>),
}

/// Entity rows in memory.
#[derive(Debug)]
pub(crate) struct HeldRows {
    pub(crate) slots: Slots,
    /// For each set the slot of each of its rows.
    pub(crate) of_sets: Vec<Vec<u32>>,
}

/// A lookup.
#[derive(Debug)]
pub(crate) struct EntitySet {
    /// The features that the lookup uses, as indices into the view's; ascending.
    pub(crate) features: Vec<usize>,
}

/// The winners of all slots, computed once for all output partitions.
type Outcome = Shared<BoxFuture<'static, Result<Arc<Found>, SharedError>>>;

/// The winners of all slots.
#[derive(Debug)]
enum Found {
    Stored(Stored),
    Carried(Winners),
    Spilled(Spilled),
}

/// An error for several waiters. That of the first partition gets it as it is, so that its kind is
/// not lost in an `Arc`: who reads the partitions in turn meets this one first. The others get its
/// text.
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

    /// The error as it is for the one who gets it, or its text.
    fn into_error(self, is_first: bool) -> DataFusionError {
        if !is_first {
            return DataFusionError::Execution(self.text.to_string());
        }
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error
            .take()
            .unwrap_or_else(|| DataFusionError::Execution(self.text.to_string()))
    }
}

impl PointInTimeJoinExec {
    /// A join of the view's rows that `input` gives.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, join: Join) -> Self {
        Self::of(input, Arc::new(join))
    }

    /// How many rows were passed over because they became available after the bound; known when
    /// the output has begun.
    pub fn lag(&self) -> u64 {
        let lag = self.metrics.clone_inner().sum_by_name(Counts::LAG);
        lag.map_or(0, |value| value.as_usize() as u64)
    }

    /// The column of the output at which entity set `set` begins.
    pub(crate) fn first_column(&self, set: usize) -> usize {
        let before = &self.join.sets[..set];
        before
            .iter()
            .map(|set| Layout::LOOKUP_HEADER + set.features.len())
            .sum()
    }

    fn of(input: Arc<dyn ExecutionPlan>, join: Arc<Join>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(join.schema()),
            Partitioning::UnknownPartitioning(join.threads),
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
                    let found = find(input, join, counts, context).await;
                    found.map(Arc::new).map_err(SharedError::new)
                }
                .boxed()
                .shared()
            })
            .clone()
    }

    /// How the join is done, for a person.
    fn method(&self) -> &'static str {
        match (&self.join.rows, stored_scan(&self.input, &self.join.view)) {
            (Rows::Spilled(_), _) => "spilled",
            (Rows::Held(..), Some(_)) => "two phases",
            (Rows::Held(..), None) => "carried",
        }
    }
}

/// The scan below `input`, if the view's rows are those of the files.
fn stored_scan(input: &Arc<dyn ExecutionPlan>, view: &View) -> Option<Arc<ScanExec>> {
    if view.batch.is_some() {
        return None;
    }
    input.downcast_ref::<ViewRowsExec>()?.scan()
}

/// Finds the winners of all slots.
async fn find(
    input: Arc<dyn ExecutionPlan>,
    join: Arc<Join>,
    counts: Counts,
    context: Arc<TaskContext>,
) -> DataFusionResult<Found> {
    if join.asked.span.is_none() && join.until.is_none() {
        // Nobody asks; with a bound the rows beyond it are counted all the same.
        return Ok(Found::Carried(Winners::none(0)));
    }
    let rows = input.downcast_ref::<ViewRowsExec>();
    let held = match &join.rows {
        Rows::Held(held) => Arc::clone(held),
        Rows::Spilled(asked) => {
            if let Some(rows) = rows {
                rows.begin();
            }
            let spilled = spilled::join(&input, &join, asked, &counts, &context).await?;
            return Ok(Found::Spilled(spilled));
        }
    };
    if let (Some(scan), Some(rows)) = (stored_scan(&input, &join.view), rows) {
        let features = join.features();
        let (joined, counts, progress) = (Arc::clone(&join), counts.clone(), rows.progress());
        let handle = tokio::runtime::Handle::current();
        let work = move |cancelled: &Cancelled| {
            stored::join(&stored::Task {
                view: &joined.view,
                scan: &scan,
                slots: &held.slots,
                admission: joined.admission(),
                features: &features,
                threads: joined.threads,
                handle: &handle,
                cancelled,
                counts: &counts,
                progress: progress.as_ref(),
            })
        };
        match parallel::blocking(work).await? {
            Ok(stored) => return Ok(Found::Stored(stored)),
            Err(Failed::Error(error)) => return Err(error.into()),
            // Compared as they come instead, with all their columns.
            Err(Failed::TooManyTies) => {}
        }
    }
    if let Some(rows) = rows {
        rows.begin();
    }
    carried::join(&input, &join, &counts, &context)
        .await
        .map(Found::Carried)
}

impl Join {
    /// The columns of all sets.
    fn schema(&self) -> SchemaRef {
        let sets = (0..self.sets.len()).map(|set| self.set_schema(set));
        let fields: Vec<_> = sets.flat_map(|schema| schema.fields().to_vec()).collect();
        Arc::new(Schema::new(fields))
    }

    /// The columns of a set.
    fn set_schema(&self, set: usize) -> SchemaRef {
        let timestamp = ScalarType::Timestamp.arrow();
        let field = |name: &str, data_type: ArrowType, nullable: bool| {
            Field::new(format!("{set}:{name}"), data_type, nullable)
        };
        let mut fields = vec![
            field("@found", ArrowType::UInt8, false),
            field("@event", timestamp.clone(), true),
            field("@created", timestamp, true),
        ];
        for &feature in &self.sets[set].features {
            let feature = &self.view.features[feature];
            fields.push(field(&feature.name, feature.data_type.arrow(), true));
        }
        Arc::new(Schema::new(fields))
    }

    /// The features that any of the sets uses; ascending.
    fn features(&self) -> Vec<usize> {
        let mut features: Vec<usize> = self
            .sets
            .iter()
            .flat_map(|set| set.features.iter().copied())
            .collect();
        features.sort_unstable();
        features.dedup();
        features
    }

    /// Which rows count.
    pub(crate) fn admission(&self) -> Admission {
        let oldest = self.view.ttl.zip(self.asked.span);
        let oldest = oldest.map(|(ttl, (first, _))| first.saturating_sub(ttl));
        Admission {
            mode: self.view.source.point_in_time,
            from: oldest.filter(|_| self.skips_expired).unwrap_or(i64::MIN),
            until: self.until,
        }
    }

    /// Which rows of the view's source, with the columns `schema`, may count. Nothing is said about
    /// columns that the view's batch transformation makes.
    pub(crate) fn wanted(&self, schema: &Schema) -> Wanted {
        let (Some((_, last)), None) = (self.asked.span, self.until) else {
            // The rows beyond a bound are counted, so they have to be seen.
            return Wanted::default();
        };
        let (view, source) = (&self.view, &self.view.source);
        let column = |name: &str| column_as_stored(view, schema, name);
        let from = self.admission().from;
        let is_known = source.point_in_time == Mode::Known;
        let created = source.created_timestamp_column.as_deref();
        let keys = view.keys.iter().zip(&self.asked.key_values);
        Wanted {
            events: column(&source.timestamp_field).map(|column| (column, from, last)),
            created: created
                .filter(|_| is_known)
                .and_then(column)
                .map(|column| (column, last)),
            keys: keys
                .filter_map(|(key, values)| {
                    Some((column(&key.name)?, key.data_type, values.clone()))
                })
                .collect(),
        }
    }

    /// How many entity rows there are.
    fn entity_rows(&self) -> usize {
        match &self.rows {
            Rows::Held(rows) => rows.of_sets.first().map_or(0, Vec::len),
            Rows::Spilled(rows) => rows.rows(),
        }
    }

    /// What was found for a chunk's rows, of all sets.
    fn chunk(
        &self,
        schema: &SchemaRef,
        index: usize,
        found: &Found,
    ) -> DataFusionResult<RecordBatch> {
        let Rows::Held(held) = &self.rows else {
            return Err(DataFusionError::Internal(
                "what was spilled comes in the order of its chunks".to_owned(),
            ));
        };
        let features = self.features();
        let mut columns = Vec::with_capacity(schema.fields().len());
        let mut rows = 0;
        for (set, slots) in self.sets.iter().zip(&held.of_sets) {
            let start = index * CHUNK_ROWS;
            let slots = &slots[start..slots.len().min(start + CHUNK_ROWS)];
            rows = slots.len();
            match found {
                Found::Stored(stored) => {
                    self.of_stored(set, &features, slots, stored, &mut columns)?;
                }
                Found::Carried(winners) => self.of_carried(set, slots, winners, &mut columns)?,
                Found::Spilled(_) => {}
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }

    fn of_stored(
        &self,
        set: &EntitySet,
        features: &[usize],
        slots: &[u32],
        stored: &Stored,
        columns: &mut Vec<ArrayRef>,
    ) -> DataFusionResult<()> {
        let timestamp = DataType::Scalar(ScalarType::Timestamp);
        let mut states = Vec::with_capacity(slots.len());
        let mut rows = Vec::with_capacity(slots.len());
        let mut events = Vec::with_capacity(slots.len());
        let mut created = Vec::with_capacity(slots.len());
        let is_known = self.view.source.point_in_time == Mode::Known;
        for &slot in slots {
            let found = stored.settled().found(slot);
            states.push(if found.is_some() {
                found::ROW
            } else {
                found::NOTHING
            });
            rows.push(found.map(|found| found.row));
            events.push(found.map(|found| found.event));
            created.push(found.and_then(|found| found.created).filter(|_| is_known));
        }
        let times = |values: Vec<Option<i64>>| -> ArrayRef {
            let array = arrow::array::TimestampMicrosecondArray::from(values);
            Arc::new(array.with_data_type(timestamp.arrow()))
        };
        columns.push(Arc::new(UInt8Array::from(states)));
        columns.push(times(events));
        columns.push(times(created));
        let wanted: Vec<usize> = set
            .features
            .iter()
            .filter_map(|feature| features.binary_search(feature).ok())
            .collect();
        let features = stored.features(&wanted, &rows).map_err(|error| {
            // Arrow's strings and lists count bytes and items by 31 bits.
            DataFusionError::ResourcesExhausted(format!(
                "the features of view `{}` for {} entity rows do not fit into a batch: {error}",
                self.view.name,
                slots.len()
            ))
        })?;
        columns.extend(features);
        Ok(())
    }

    fn of_carried(
        &self,
        set: &EntitySet,
        slots: &[u32],
        winners: &Winners,
        columns: &mut Vec<ArrayRef>,
    ) -> DataFusionResult<()> {
        let row = |slot: u32| match slot {
            NO_SLOT => None,
            slot => winners.row(slot as usize),
        };
        // Arrow's strings and lists count bytes and items by 31 bits.
        let found = slots.iter().filter_map(|&slot| row(slot));
        let bytes: usize = found.map(<[u8]>::len).sum();
        if bytes > i32::MAX as usize {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "the rows of view `{}` for {} entity rows take {bytes} bytes, more than the \
                 2 GiB of a batch",
                self.view.name,
                slots.len()
            )));
        }
        let mut decoder = Decoder::new(&self.view.feature_types(), &set.features, slots.len());
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
        columns.push(Arc::new(UInt8Array::from(states)));
        columns.push(Arc::new(rows.events));
        columns.push(match self.view.source.point_in_time {
            Mode::Known => Arc::new(rows.created),
            Mode::Event => new_null_array(&ScalarType::Timestamp.arrow(), slots.len()),
        });
        columns.extend(rows.features);
        Ok(())
    }
}

impl DisplayAs for PointInTimeJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PointInTimeJoinExec: view={}, method={}, entity_rows={}, entity_sets={}",
            self.join.view.name,
            self.method(),
            self.join.entity_rows(),
            self.join.sets.len()
        )?;
        match self.join.until {
            Some(until) => write!(f, ", until={}", unskew_core::time::format(until)),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for PointInTimeJoinExec {
    crate::plan::with_input!(
        self,
        "PointInTimeJoinExec",
        input,
        Self::of(input, Arc::clone(&self.join))
    );

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let partitions = self.join.threads;
        crate::plan::check_partition(partitions, partition)?;
        let outcome = self.outcome(context);
        let (schema, join) = (self.schema(), Arc::clone(&self.join));
        let chunk_schema = Arc::clone(&schema);
        let chunks = move |found: Arc<Found>| -> BoxStream<'static, DataFusionResult<RecordBatch>> {
            if let Found::Spilled(spilled) = found.as_ref() {
                let Some(chunks) = spilled.take(partition) else {
                    return futures::stream::empty().boxed();
                };
                // The merging ends when nobody holds `found` any more.
                return futures::stream::unfold((chunks, found), |(mut chunks, found)| async {
                    Some((chunks.recv().await?, (chunks, found)))
                })
                .boxed();
            }
            let (join, schema) = (Arc::clone(&join), Arc::clone(&chunk_schema));
            let count = join.entity_rows().div_ceil(CHUNK_ROWS);
            futures::stream::iter((partition..count).step_by(partitions))
                .map(move |chunk| join.chunk(&schema, chunk, &found))
                .boxed()
        };
        let batches = futures::stream::once(outcome)
            .map_err(move |error| error.into_error(partition == 0))
            .map_ok(chunks)
            .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
