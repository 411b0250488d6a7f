//! The join over rows that come by once, in any order: what a batch transformation makes, or what
//! was spilled.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::runtime::JoinSet;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use unskew_core::view::View;

use super::counts::Counts;
use super::probe::{Admission, Prober};
use super::slots::Slots;
use super::winners::Winners;
use super::{Join, Rows};
use crate::error::OfflineError;
use crate::view_rows::ViewBatch;

/// Streams all partitions of the view's rows past the slots, each in a task of its own.
pub(crate) async fn join(
    input: &Arc<dyn ExecutionPlan>,
    join: &Arc<Join>,
    counts: &Counts,
    context: &Arc<TaskContext>,
) -> DataFusionResult<Winners> {
    let partitions = input.properties().partitioning.partition_count();
    let mut tasks = JoinSet::new();
    for partition in 0..partitions {
        let stream = input.execute(partition, Arc::clone(context))?;
        tasks.spawn(partial(stream, Arc::clone(join), counts.clone()));
    }
    let mut merged: Option<Winners> = None;
    while let Some(partial) = tasks.join_next().await {
        let partial = partial.map_err(OfflineError::from)??;
        match &mut merged {
            None => merged = Some(partial),
            Some(merged) => merged.merge(&partial),
        }
    }
    let mut merged = merged.unwrap_or_else(|| Winners::none(0));
    counts.winners.add(merged.count());
    counts.holds(partitions * merged.bytes());
    if let Rows::Held(rows) = &join.rows {
        merged.run_maximum(rows.slots.by_key());
    }
    Ok(merged)
}

/// The winners among the rows of one partition.
async fn partial(
    mut stream: SendableRecordBatchStream,
    join: Arc<Join>,
    counts: Counts,
) -> DataFusionResult<Winners> {
    let Rows::Held(rows) = &join.rows else {
        return Ok(Winners::none(0));
    };
    let slots = &rows.slots;
    let admission = join.admission();
    let mut winners = Winners::none(slots.len());
    let mut prober = Prober::default();
    while let Some(batch) = stream.try_next().await? {
        enter(
            &join.view,
            slots,
            &admission,
            &batch,
            &mut prober,
            &mut winners,
        )?;
        counts.read.add(batch.num_rows());
    }
    counts.lag.add(prober.lag as usize);
    Ok(winners)
}

/// Lets the rows of a batch of the view's rows enter their slots.
pub(crate) fn enter(
    view: &View,
    slots: &Slots,
    admission: &Admission,
    batch: &RecordBatch,
    prober: &mut Prober,
    winners: &mut Winners,
) -> Result<(), DataFusionError> {
    let rows = ViewBatch::of(view, batch)?;
    let hits = prober.probe(slots, admission, rows.keys, rows.events, Some(rows.created));
    for hit in hits {
        let row = hit.row as usize;
        if let (Some(event), created) = rows.timestamps(row) {
            winners.enter(hit.slot as usize, event, created, rows.features, row);
        }
    }
    Ok(())
}
