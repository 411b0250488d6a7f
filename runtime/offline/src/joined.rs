//! The joined batches of a plan over entity rows, and what `evaluate` makes of them.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::UInt8Type;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::common::spawn_buffered;
use futures::{Stream, TryStreamExt};
use unskew_core::plan::FeaturePlan;
use unskew_core::view::View;
use unskew_engine::{Evaluator, Status, ViewRunner};

use crate::entity_rows::EntityRows;
use crate::error::OfflineError;
use crate::evaluate::{EvaluateExec, JoinedExec, Lookup};
use crate::join::{Asked, EntitySet, Join, PointInTimeJoinExec, Question, Rows, Share, blocking};
use crate::offline::{Components, Offline};
use crate::progress::Progress;

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
    /// The joined batch, as [`unskew_core::plan::Layout`] has it: row i is that of entity row i.
    pub batch: RecordBatch,
    /// For each of the plan's lookups how many rows of its history lie beyond its bound.
    pub lag: Vec<u64>,
}

/// How much of a history is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bounds<'a> {
    /// What can count for the entity rows. A row that is too old for each of them is as good as
    /// none.
    Needed,
    /// Everything up to a bound for each of the plan's lookups, `None` being none; rows beyond it
    /// are counted as lag.
    Until(&'a [Option<i64>]),
}

impl<'a> Bounds<'a> {
    /// The bounds that callers give; none at all: what is needed.
    fn of(until: &'a [Option<i64>]) -> Self {
        match until {
            [] => Self::Needed,
            until => Self::Until(until),
        }
    }
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
        let (joined, lookups) = self
            .join(plan, components, entities, Bounds::of(until), progress)
            .await?;
        let batches: Vec<_> = self.ordered(Arc::new(joined))?.try_collect().await?;
        Ok(JoinedRows {
            batch: concat_batches(&plan.layout().schema, &batches)?,
            lag: lookups.iter().map(|join| join.lag()).collect(),
        })
    }

    /// The outputs of a plan for entity rows, in memory: the training path without its file.
    ///
    /// `until` bounds each of the plan's lookups: rows of its history that became available later
    /// are not used, and counted as lag; `None` is no bound. If it is empty, only what can count is
    /// read, as for a training set: a row that is too old for each of the entity rows is then as
    /// good as none.
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
        let (joined, lookups) = self
            .join(plan, components, entities, Bounds::of(until), progress)
            .await?;
        let evaluate = EvaluateExec::new(joined, Arc::clone(evaluator));
        let schema = evaluate.schema();
        let batches: Vec<_> = self.ordered(Arc::new(evaluate))?.try_collect().await?;
        let all = concat_batches(&schema, &batches)?;
        let (batch, statuses) = EvaluateExec::split(plan, &all)?;
        let statuses = statuses.iter().map(|codes| {
            let codes = codes.as_primitive::<UInt8Type>().values();
            codes
                .iter()
                .map(|&code| EvaluateExec::status(code))
                .collect()
        });
        Ok(EvaluatedRows {
            batch,
            statuses: statuses.collect(),
            lag: lookups.iter().map(|join| join.lag()).collect(),
        })
    }

    /// The point-in-time joins of all lookups of a plan, together and, for each lookup, its own; no
    /// history is read before the first chunk is asked for.
    pub(crate) async fn join(
        &self,
        plan: &FeaturePlan,
        components: &Components,
        entities: &EntityRows,
        bounds: Bounds<'_>,
        progress: Arc<dyn Progress>,
    ) -> Result<(JoinedExec, Vec<Arc<PointInTimeJoinExec>>), OfflineError> {
        let mut views: Vec<(&Arc<View>, Option<i64>, Vec<usize>)> = Vec::new();
        let mut of_lookups = Vec::with_capacity(plan.lookups.len());
        for (index, lookup) in plan.lookups.iter().enumerate() {
            let until = match bounds {
                Bounds::Needed => None,
                Bounds::Until(until) => until.get(index).copied().flatten(),
            };
            let known = views
                .iter()
                .position(|(view, known, _)| *known == until && **view == lookup.view);
            let view = known.unwrap_or_else(|| {
                views.push((&lookup.view, until, Vec::new()));
                views.len() - 1
            });
            let sets = &mut views[view].2;
            of_lookups.push((view, sets.len()));
            sets.push(index);
        }
        let share = self.settings().memory_limit.map(|limit| Share {
            bytes: limit / 2 / views.len().max(1),
            views: views.len(),
            threads: self.threads(),
        });
        let skips_expired = matches!(bounds, Bounds::Needed);
        let mut plans = Vec::with_capacity(views.len());
        // Views with the same keys are asked for the same.
        let mut known: Vec<(Question, Asked, Rows)> = Vec::new();
        for (view, until, sets) in views {
            let lookups = sets.iter().map(|&set| &plan.lookups[set]);
            let question = Question::of(view, lookups.clone(), entities, share);
            let (asked, rows) = match known.iter().find(|(known, ..)| *known == question) {
                Some((_, asked, rows)) => (asked.clone(), rows.clone()),
                None => {
                    let (asked, rows) = self.ask(question.clone(), entities.clone()).await?;
                    known.push((question, asked.clone(), rows.clone()));
                    (asked, rows)
                }
            };
            let sets = lookups.map(|lookup| EntitySet {
                features: lookup.features.clone(),
            });
            let join = Join {
                view: Arc::clone(view),
                asked,
                rows,
                sets: sets.collect(),
                until,
                skips_expired,
                threads: self.threads(),
            };
            let progress = Arc::clone(&progress);
            plans.push(self.view_join(join, components, progress).await?);
        }
        let joins = of_lookups.iter().map(|&(join, _)| Arc::clone(&plans[join]));
        let joins = joins.collect();
        let lookups = of_lookups.into_iter().map(|(join, set)| Lookup {
            join,
            first_column: plans[join].first_column(set),
        });
        let joined = JoinedExec::new(
            plan,
            entities.clone(),
            lookups.collect(),
            plans.iter().map(|join| Arc::clone(join) as _).collect(),
            self.settings().partitions.get(),
        );
        Ok((joined, joins))
    }

    fn threads(&self) -> usize {
        self.settings().partitions.get()
    }

    /// Asks a question for all entity rows.
    async fn ask(
        &self,
        question: Question,
        entities: EntityRows,
    ) -> Result<(Asked, Rows), OfflineError> {
        let disk = Arc::clone(&self.task_context().runtime_env().disk_manager);
        blocking(move |cancelled| question.ask(&entities, &disk, cancelled)).await?
    }

    async fn view_join(
        &self,
        join: Join,
        components: &Components,
        progress: Arc<dyn Progress>,
    ) -> Result<Arc<PointInTimeJoinExec>, OfflineError> {
        let runner = ViewRunner::new(Arc::clone(&join.view), components)?;
        let scan = self.view_scan(&join.view).await?;
        let wanted = join.wanted(scan.schema());
        let input = self.rows_of(scan, wanted, &join.view, runner, progress);
        Ok(Arc::new(PointInTimeJoinExec::new(Arc::new(input), join)))
    }

    /// The batches of a plan whose partition `i` of `n` has the batches `i`, `i + n`, …; each
    /// partition is worked off in a task of its own, a batch ahead.
    pub(crate) fn ordered(
        &self,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<impl Stream<Item = Result<RecordBatch, OfflineError>> + use<>, OfflineError> {
        let partitions = plan.properties().partitioning.partition_count();
        let streams = (0..partitions)
            .map(|partition| {
                let stream = plan.execute(partition, self.task_context())?;
                Ok(spawn_buffered(stream, 1))
            })
            .collect::<Result<Vec<_>, OfflineError>>()?;
        Ok(futures::stream::try_unfold(
            (streams, 0),
            |(mut streams, turn)| async move {
                let count = streams.len();
                let Some(stream) = streams.get_mut(turn) else {
                    return Ok(None);
                };
                let batch = stream.try_next().await?;
                Ok(batch.map(|batch| (batch, (streams, (turn + 1) % count))))
            },
        ))
    }
}
