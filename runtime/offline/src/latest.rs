//! The rows that a materialization writes: for each key the one that counts at the end of a range.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::runtime::JoinSet;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use hashbrown::HashMap;
use unskew_core::row::{encode, encode_key, timestamps};
use unskew_core::time::availability;
use unskew_core::view::View;

use crate::error::OfflineError;
use crate::offline::{Components, Offline};
use crate::progress::Progress;
use crate::selection::{Covered, Selection};
use crate::view_rows::ViewBatch;

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
    /// Memory is bounded by [`crate::Settings::latest_rows_bytes`] whatever the number of keys:
    /// when it is used up, what is held is given to the sink and forgotten.
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
        while let Some(counts) = tasks.join_next().await {
            let counts = counts??;
            total.read += counts.read;
            total.taken += counts.taken;
            total.written += counts.written;
            total.uncovered += counts.uncovered;
        }
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
    async fn read(
        self: Arc<Self>,
        mut stream: SendableRecordBatchStream,
    ) -> Result<LatestRows, OfflineError> {
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
            if held.bytes > self.budget {
                counts.written += self.hand_on(&mut held).await?;
            }
        }
        counts.written += self.hand_on(&mut held).await?;
        Ok(counts)
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

    async fn hand_on(&self, held: &mut Held) -> Result<u64, OfflineError> {
        let mut rows: Vec<_> = std::mem::take(held).rows.into_iter().collect();
        if rows.is_empty() {
            return Ok(0);
        }
        // Stores take keys faster in their order, and what is written does not depend on hashes.
        rows.sort_unstable();
        let count = rows.len() as u64;
        self.sink
            .write(rows)
            .await
            .map_err(|error| OfflineError::Sink {
                view: self.view.name.clone(),
                error,
            })?;
        Ok(count)
    }
}

/// The greatest row of each key so far.
#[derive(Default)]
struct Held {
    rows: HashMap<Vec<u8>, Vec<u8>>,
    /// About how much memory they take.
    bytes: usize,
    scratch: Vec<u8>,
}

impl Held {
    /// What an entry takes beside its key and row: two vectors, the table, the allocator.
    const OVERHEAD: usize = 96;

    fn offer(
        &mut self,
        key: &[u8],
        event: i64,
        created: Option<i64>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(known) = self.rows.get_mut(key) else {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            self.bytes += key.len() + bytes.len() + Self::OVERHEAD;
            self.rows.insert(key.to_vec(), bytes);
            return;
        };
        // Most rows lose by their timestamps alone, and need not be encoded.
        if timestamps(known).is_ok_and(|known| (event, created) < known) {
            return;
        }
        self.scratch.clear();
        encode(&mut self.scratch);
        if self.scratch > *known {
            self.bytes = self.bytes + self.scratch.len() - known.len();
            known.clone_from(&self.scratch);
        }
    }
}
