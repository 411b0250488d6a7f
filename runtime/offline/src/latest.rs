//! The rows that a materialization writes: for each key the one that counts at the end of a range.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::runtime::{JoinSet, SpawnedTask};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt, stream};
use itertools::Itertools;
use unskew_core::row::{encode, encode_key};
use unskew_core::time::availability;
use unskew_core::view::View;

use crate::error::OfflineError;
use crate::held::{Held, Row, Run};
use crate::offline::{Components, Offline};
use crate::progress::Progress;
use crate::selection::{Covered, Selection};
use crate::view_rows::ViewBatch;

/// How many rows the sink is given at once.
const ROWS: usize = 20_000;
/// How many times the sink is called at once: while a store writes, the next rows are made ready.
const CALLS: usize = 2;

/// Takes the rows of [`Offline::latest_rows`].
///
/// A key may come several times, an older row after a newer one: the sink must let the greater
/// encoded row win. Calls come from several tasks at once.
#[async_trait]
pub trait RowSink: Send + Sync {
    /// Takes encoded keys with their encoded rows (`unskew_core::row`), ascending by key.
    ///
    /// # Errors
    /// The sink's own; it ends the reading and is handed on.
    async fn write(
        &self,
        rows: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// Which rows of a view's history are wanted.
#[derive(Clone)]
pub struct LatestRowsRequest<'a> {
    /// The view.
    pub view: &'a Arc<View>,
    /// The loaded components; that of the view's batch transformation is needed.
    pub components: &'a Components,
    /// The rows to take.
    pub selection: Selection,
    /// What was taken before: of the rows before the selection's start, those outside of it are
    /// counted as a gap.
    pub covered: Covered,
}

/// What [`Offline::latest_rows`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatestRows {
    /// How many rows of the view were looked at.
    pub read: u64,
    /// How many of them the selection takes.
    pub taken: u64,
    /// How many rows were given to the sink: at least one for each key, and a few more where
    /// memory did not hold all keys at once.
    pub written: u64,
    /// How many rows became available before the start of the range and are covered by nothing
    /// earlier: those that a gap would leave out.
    pub uncovered: u64,
}

impl Offline {
    /// Streams a view's history and gives `sink`, for each key, the row that counts at the end of
    /// the selection among the rows that it takes.
    ///
    /// Partitions are read in parallel; what they found is merged, so that each key is given once
    /// and in the order of keys. Memory is bounded by [`crate::Settings::latest_rows_bytes`]
    /// whatever the number of keys: when a partition's share is used up, what it holds is given to
    /// the sink and forgotten.
    ///
    /// # Errors
    /// The history cannot be read, its rows cannot be made, or the sink fails. The sink may have
    /// taken rows by then.
    pub async fn latest_rows(
        &self,
        request: LatestRowsRequest<'_>,
        sink: Arc<dyn RowSink>,
        progress: Arc<dyn Progress>,
    ) -> Result<LatestRows, OfflineError> {
        let LatestRowsRequest {
            view,
            components,
            selection,
            covered,
        } = request;
        let plan = self.view_rows(view, components, progress).await?;
        plan.begin();
        let partitions = plan.properties().partitioning.partition_count();
        let reader = Arc::new(Reader {
            view: Arc::clone(view),
            selection,
            covered,
            sink,
            budget: self.settings().latest_rows_bytes / partitions.max(1),
        });
        let mut tasks = JoinSet::new();
        for partition in 0..partitions {
            let stream = plan.execute(partition, self.task_context())?;
            tasks.spawn(Arc::clone(&reader).read(stream));
        }
        let mut total = LatestRows::default();
        let mut runs = Vec::with_capacity(partitions);
        while let Some(done) = tasks.join_next().await {
            let (counts, run) = done??;
            total.read += counts.read;
            total.taken += counts.taken;
            total.written += counts.written;
            total.uncovered += counts.uncovered;
            runs.push(run);
        }
        total.written += reader.hand_on(runs).await?;
        Ok(total)
    }
}

/// What the tasks of all partitions share.
struct Reader {
    view: Arc<View>,
    selection: Selection,
    covered: Covered,
    sink: Arc<dyn RowSink>,
    /// How many bytes each task may hold.
    budget: usize,
}

impl Reader {
    /// Reads a partition: its counts, and of each key that is still held the greatest row,
    /// ascending by key.
    async fn read(
        self: Arc<Self>,
        mut stream: SendableRecordBatchStream,
    ) -> Result<(LatestRows, Run), OfflineError> {
        let mut counts = LatestRows::default();
        let mut held = Held::default();
        let mut key = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            let rows = ViewBatch::of(&self.view, &batch)?;
            counts.read += batch.num_rows() as u64;
            for row in 0..batch.num_rows() {
                let (event, created) = rows.timestamps(row);
                let taken = self.selection.takes(&self.view.source, event, created);
                let uncovered = !taken && self.is_uncovered(event, created);
                key.clear();
                // A row with a null join key counts for nobody.
                if !(taken || uncovered) || !encode_key(rows.keys, row, &mut key) {
                    continue;
                }
                counts.uncovered += u64::from(uncovered);
                if let (true, Some(event)) = (taken, event) {
                    counts.taken += 1;
                    held.offer(&key, event, created, |bytes| {
                        encode(rows.features, row, event, created, bytes);
                    });
                }
            }
            if held.bytes() > self.budget {
                counts.written += self.hand_on(vec![held.take()]).await?;
            }
        }
        Ok((counts, held.take()))
    }

    fn is_uncovered(&self, event: Option<i64>, created: Option<i64>) -> bool {
        let Selection::Range {
            start: Some(start), ..
        } = self.selection
        else {
            return false;
        };
        availability(self.view.source.point_in_time, event, created)
            .is_some_and(|available| available < start && !self.covered.contains(available))
    }

    /// Gives the sink the rows of `runs`: of a key that several have, the greatest row.
    async fn hand_on(self: &Arc<Self>, runs: Vec<Run>) -> Result<u64, OfflineError> {
        let rows = runs.into_iter().map(Run::into_rows).kmerge();
        // Equal keys come with the greatest row last.
        let rows = rows.coalesce(|one, next| match one.0 == next.0 {
            true => Ok(next),
            false => Err((one, next)),
        });
        stream::iter(rows)
            .chunks(ROWS)
            .map(|rows| SpawnedTask::spawn(Arc::clone(self).write(rows)))
            .buffered(CALLS)
            .map(|written| written.unwrap_or_else(|failed| Err(failed.into())))
            .try_fold(0, async |sum, written| Ok(sum + written))
            .await
    }

    async fn write(self: Arc<Self>, rows: Vec<Row>) -> Result<u64, OfflineError> {
        let count = rows.len() as u64;
        let written = self.sink.write(rows).await;
        written.map(|()| count).map_err(|error| OfflineError::Sink {
            view: self.view.name.clone(),
            error,
        })
    }
}
