//! A sample of a history's keys, for parity.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use datafusion::common::runtime::JoinSet;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use unskew_core::row::{Decoder, encode};
use unskew_core::time::availability;
use unskew_core::types::DataType;
use unskew_core::view::View;

use crate::error::OfflineError;
use crate::offline::{Components, Offline};
use crate::progress::Progress;
use crate::schema::plain;
use crate::view_rows::ViewBatch;

impl Offline {
    /// At most `limit` different keys of a view's history, of rows available at `until`: one row
    /// each, columns named and typed as the view's join keys.
    ///
    /// Keys are chosen by a fixed hash, so that they are spread over the whole history, and the
    /// same history gives the same ones, however its files are split.
    ///
    /// # Errors
    /// The history cannot be read, or its rows cannot be made.
    pub async fn sample_keys(
        &self,
        view: &Arc<View>,
        components: &Components,
        limit: usize,
        until: Option<i64>,
        progress: Arc<dyn Progress>,
    ) -> Result<RecordBatch, OfflineError> {
        let plan = self.view_rows(view, components, progress).await?;
        plan.begin();
        let mut tasks = JoinSet::new();
        for partition in 0..plan.properties().partitioning.partition_count() {
            let stream = plan.execute(partition, self.task_context())?;
            tasks.spawn(sample(stream, Arc::clone(view), limit, until));
        }
        let mut keys = Sample::new(limit);
        while let Some(partial) = tasks.join_next().await {
            for (hash, key) in partial??.keys {
                keys.offer(hash, &key);
            }
        }
        keys.decode(view)
    }
}

/// The sample of one partition.
async fn sample(
    mut stream: SendableRecordBatchStream,
    view: Arc<View>,
    limit: usize,
    until: Option<i64>,
) -> Result<Sample, OfflineError> {
    let mut sample = Sample::new(limit);
    let mut key = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        let rows = ViewBatch::of(&view, &batch)?;
        for row in 0..batch.num_rows() {
            let (event, created) = rows.timestamps(row);
            let available = availability(view.source.point_in_time, event, created);
            let counts = available.is_some_and(|at| until.is_none_or(|until| at <= until));
            if !counts || rows.keys.iter().any(|column| column.is_null(row)) {
                continue;
            }
            // In the form of a stored row, which can be decoded.
            key.clear();
            encode(rows.keys, row, 0, None, &mut key);
            sample.offer(hash(&key), &key);
        }
    }
    Ok(sample)
}

/// The keys with the least hashes.
struct Sample {
    limit: usize,
    keys: BTreeSet<(u64, Vec<u8>)>,
}

impl Sample {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            keys: BTreeSet::new(),
        }
    }

    fn offer(&mut self, hash: u64, key: &[u8]) {
        let full = self.keys.len() >= self.limit;
        if full
            && self
                .keys
                .last()
                .is_none_or(|(greatest, _)| hash > *greatest)
        {
            return;
        }
        self.keys.insert((hash, key.to_vec()));
        if self.keys.len() > self.limit {
            self.keys.pop_last();
        }
    }

    fn decode(self, view: &View) -> Result<RecordBatch, OfflineError> {
        let types: Vec<_> = view.key_types().into_iter().map(DataType::Scalar).collect();
        let wanted: Vec<_> = (0..types.len()).collect();
        let rows = self.keys.len();
        let mut decoder = Decoder::new(&types, &wanted);
        for (_, key) in self.keys {
            decoder
                .push(Some(&key))
                .map_err(|error| datafusion::error::DataFusionError::Internal(error.to_string()))?;
        }
        let fields = view
            .keys
            .iter()
            .map(|key| plain(&key.name, key.data_type.arrow()));
        Ok(RecordBatch::try_new_with_options(
            Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            decoder.finish().features,
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )?)
    }
}

/// FNV-1a, then the finalizer of MurmurHash3: short keys that differ little fall far apart.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
