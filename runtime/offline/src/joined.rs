//! The joined batches of a plan over entity rows, and what `evaluate` makes of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::{Stream, StreamExt, TryStreamExt};
use unskew_core::plan::{FeaturePlan, Layout};
use unskew_core::types::DataType;
use unskew_core::values::coerce;
use unskew_core::view::View;
use unskew_engine::{Evaluated, Evaluator, Status};

use crate::entity_rows::EntityRows;
use crate::error::{EntityRowsProblem, OfflineError};
use crate::join::PointInTimeJoinExec;
use crate::offline::{Components, Offline};
use crate::progress::Progress;
use crate::slots::{NO_SLOT, SlotsBuilder};
use crate::view_rows::ViewRowsExec;

/// A plan's outputs for entity rows, in memory.
#[derive(Clone, Debug)]
pub struct EvaluatedRows {
    /// The outputs: row i is that of entity row i.
    pub batch: RecordBatch,
    /// For each output the status of each row.
    pub statuses: Vec<Vec<Status>>,
    /// For each of the plan's lookups how many rows of its history lie beyond its bound.
    pub lag: Vec<u64>,
}

/// A plan's joined batch for entity rows, in memory.
#[derive(Clone, Debug)]
pub struct JoinedRows {
    /// The joined batch, as [`Layout`] has it: row i is that of entity row i.
    pub batch: RecordBatch,
    /// For each of the plan's lookups how many rows of its history lie beyond its bound.
    pub lag: Vec<u64>,
}

impl Offline {
    /// The joined batch of a plan for entity rows, in memory: what the training path gives to
    /// `evaluate`. `until` is that of [`Self::evaluated_rows`].
    ///
    /// # Errors
    /// A history cannot be read.
    pub async fn joined_rows(
        &self,
        plan: &FeaturePlan,
        components: &Components,
        entities: &EntityRows,
        until: &[Option<i64>],
        progress: Arc<dyn Progress>,
    ) -> Result<JoinedRows, OfflineError> {
        let mut joined = self
            .join(plan, components, entities, until, progress)
            .await?;
        let lookups = joined.lookups();
        let mut batches = Vec::new();
        while let Some((_, batch)) = joined.next().await? {
            batches.push(batch);
        }
        Ok(JoinedRows {
            batch: concat_batches(&plan.layout().schema, &batches)?,
            lag: lookups.iter().map(|join| join.lag()).collect(),
        })
    }

    /// The outputs of a plan for entity rows, in memory: the training path without its file.
    ///
    /// `until` bounds each of the plan's lookups: rows of its history that became available later
    /// are not used, and counted as lag. None at all, or `None`, is no bound.
    ///
    /// # Errors
    /// A history cannot be read, or a transformation fails; an error of a row names the entity row.
    pub async fn evaluated_rows(
        &self,
        evaluator: &Arc<Evaluator>,
        components: &Components,
        entities: &EntityRows,
        until: &[Option<i64>],
        progress: Arc<dyn Progress>,
    ) -> Result<EvaluatedRows, OfflineError> {
        let plan = evaluator.plan();
        let joined = self
            .join(plan, components, entities, until, progress)
            .await?;
        let lookups = joined.lookups();
        let mut batches = Vec::new();
        let mut statuses = vec![Vec::new(); plan.outputs.len()];
        let chunks = self.evaluate(evaluator, joined);
        futures::pin_mut!(chunks);
        while let Some(chunk) = chunks.try_next().await? {
            for (all, chunk) in statuses.iter_mut().zip(chunk.statuses) {
                all.extend(chunk);
            }
            batches.push(chunk.batch);
        }
        Ok(EvaluatedRows {
            batch: concat_batches(&plan.output_schema(), &batches)?,
            statuses,
            lag: lookups.iter().map(|join| join.lag()).collect(),
        })
    }

    /// The point-in-time joins of all lookups of a plan; nothing is read before the first chunk is
    /// asked for.
    pub(crate) async fn join(
        &self,
        plan: &FeaturePlan,
        components: &Components,
        entities: &EntityRows,
        until: &[Option<i64>],
        progress: Arc<dyn Progress>,
    ) -> Result<JoinedChunks, OfflineError> {
        let mut joins: Vec<ViewJoin> = Vec::new();
        let mut lookups = Vec::with_capacity(plan.lookups.len());
        for (index, lookup) in plan.lookups.iter().enumerate() {
            let until = until.get(index).copied().flatten();
            let known = joins
                .iter()
                .position(|join| join.until == until && join.view == lookup.view);
            let join = known.unwrap_or_else(|| {
                joins.push(ViewJoin::new(&lookup.view, until));
                joins.len() - 1
            });
            let set = joins[join].add(entities, &lookup.keys, &lookup.features)?;
            lookups.push((join, set));
        }
        let mut plans = Vec::with_capacity(joins.len());
        for join in joins {
            let progress = Arc::clone(&progress);
            let rows = self.view_rows(&join.view, components, progress).await?;
            plans.push(join.plan(rows));
        }
        let lookups = lookups
            .into_iter()
            .zip(&plan.lookups)
            .map(|((join, set), lookup)| {
                let PlannedJoin {
                    plan,
                    rows,
                    features,
                } = &plans[join];
                // Every feature of the lookup is among those of its join.
                let columns = lookup.features.iter().filter_map(|wanted| {
                    let position = features.binary_search(wanted).ok()?;
                    Some(Layout::LOOKUP_HEADER + position)
                });
                LookupStream {
                    plan: Arc::clone(plan),
                    rows: Arc::clone(rows),
                    set,
                    columns: (0..Layout::LOOKUP_HEADER).chain(columns).collect(),
                    stream: None,
                }
            })
            .collect();
        Ok(JoinedChunks {
            schema: plan.layout().schema,
            entities: entities.clone(),
            lookups,
            offline: self.clone(),
            chunk: 0,
            offset: 0,
        })
    }

    /// Evaluates joined chunks, several at once, and gives them in their order.
    pub(crate) fn evaluate(
        &self,
        evaluator: &Arc<Evaluator>,
        joined: JoinedChunks,
    ) -> impl Stream<Item = Result<Evaluated, OfflineError>> + use<> {
        let evaluator = Arc::clone(evaluator);
        futures::stream::try_unfold(joined, |mut joined| async move {
            let chunk = joined.next().await?;
            Ok(chunk.map(|chunk| (chunk, joined)))
        })
        .map(move |chunk: Result<_, OfflineError>| {
            let evaluator = Arc::clone(&evaluator);
            async move {
                let (offset, batch) = chunk?;
                // Components run here: off the threads that drive everybody's tasks.
                tokio::task::spawn_blocking(move || evaluator.evaluate(&batch))
                    .await?
                    .map_err(|error| OfflineError::Evaluate(Box::new(error.shifted(offset))))
            }
        })
        .buffered(self.settings().partitions.get())
    }
}

/// A view that lookups read, with the entity rows of all of them.
struct ViewJoin {
    view: Arc<View>,
    until: Option<i64>,
    /// The features that any of the lookups uses; ascending.
    features: Vec<usize>,
    slots: SlotsBuilder,
    /// How many chunks each lookup has added.
    sets: Vec<usize>,
}

struct PlannedJoin {
    plan: Arc<PointInTimeJoinExec>,
    rows: Arc<ViewRowsExec>,
    features: Vec<usize>,
}

impl ViewJoin {
    fn new(view: &Arc<View>, until: Option<i64>) -> Self {
        Self {
            view: Arc::clone(view),
            until,
            features: Vec::new(),
            slots: SlotsBuilder::default(),
            sets: Vec::new(),
        }
    }

    /// Adds a lookup by the join keys at `keys` of the plan's; gives its entity set.
    fn add(
        &mut self,
        entities: &EntityRows,
        keys: &[usize],
        features: &[usize],
    ) -> Result<usize, OfflineError> {
        self.features.extend(features);
        self.features.sort_unstable();
        self.features.dedup();
        let mut before = 0;
        for chunk in entities.chunks() {
            let keys = keys
                .iter()
                .zip(&self.view.keys)
                .map(|(&key, wanted)| {
                    // Inputs begin with the event timestamp.
                    coerce(&chunk.inputs[1 + key], DataType::Scalar(wanted.data_type)).map_err(
                        |mut error| {
                            error.row += before;
                            OfflineError::entity_rows(
                                None,
                                EntityRowsProblem::Value {
                                    column: wanted.name.clone(),
                                    error,
                                },
                            )
                        },
                    )
                })
                .collect::<Result<Vec<_>, _>>()?;
            let times = chunk.inputs[0].as_primitive::<TimestampMicrosecondType>();
            self.slots.add(&keys, times).map_err(|_| {
                OfflineError::entity_rows(None, EntityRowsProblem::TooMany(NO_SLOT - 1))
            })?;
            before += chunk.own.num_rows();
        }
        self.sets.push(entities.chunks().len());
        Ok(self.sets.len() - 1)
    }

    fn plan(self, rows: ViewRowsExec) -> PlannedJoin {
        let (slots, chunks) = self.slots.finish();
        let mut chunks = chunks.into_iter();
        let sets = self
            .sets
            .into_iter()
            .map(|count| chunks.by_ref().take(count).collect())
            .collect();
        let rows = Arc::new(rows);
        let input: Arc<dyn ExecutionPlan> = Arc::clone(&rows) as _;
        let features = self.features.clone();
        let plan = PointInTimeJoinExec::new(input, self.view, features, slots, sets, self.until);
        PlannedJoin {
            plan: Arc::new(plan),
            rows,
            features: self.features,
        }
    }
}

/// Gives the joined batch of one chunk of the entity rows after the other.
pub(crate) struct JoinedChunks {
    schema: SchemaRef,
    entities: EntityRows,
    lookups: Vec<LookupStream>,
    offline: Offline,
    /// The next chunk, and how many rows come before it.
    chunk: usize,
    offset: usize,
}

/// The part of a lookup in the joined batches.
struct LookupStream {
    plan: Arc<PointInTimeJoinExec>,
    rows: Arc<ViewRowsExec>,
    /// Its partition of the plan's output.
    set: usize,
    /// The columns of that output that it uses.
    columns: Vec<usize>,
    /// Begun with the first chunk.
    stream: Option<SendableRecordBatchStream>,
}

impl JoinedChunks {
    /// The joins of the plan's lookups; a view's join occurs once for each.
    pub(crate) fn lookups(&self) -> Vec<Arc<PointInTimeJoinExec>> {
        self.lookups
            .iter()
            .map(|lookup| Arc::clone(&lookup.plan))
            .collect()
    }

    /// The next joined batch, and how many entity rows come before it.
    async fn next(&mut self) -> Result<Option<(usize, RecordBatch)>, OfflineError> {
        let Some(chunk) = self.entities.chunks().get(self.chunk) else {
            return Ok(None);
        };
        let mut columns: Vec<ArrayRef> = chunk.inputs.clone();
        for lookup in &mut self.lookups {
            let batch = lookup.next(&self.offline).await?;
            columns.extend(
                lookup
                    .columns
                    .iter()
                    .map(|&index| Arc::clone(batch.column(index))),
            );
        }
        let rows = chunk.own.num_rows();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let offset = self.offset;
        self.chunk += 1;
        self.offset += rows;
        Ok(Some((offset, batch)))
    }
}

impl LookupStream {
    async fn next(&mut self, offline: &Offline) -> Result<RecordBatch, OfflineError> {
        if self.stream.is_none() && self.set == 0 {
            self.rows.begin();
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = self.plan.execute(self.set, offline.task_context())?;
                self.stream.insert(stream)
            }
        };
        stream.try_next().await?.ok_or_else(|| {
            OfflineError::from(datafusion::error::DataFusionError::Internal(
                "a point-in-time join gave fewer chunks than there are".to_owned(),
            ))
        })
    }
}
