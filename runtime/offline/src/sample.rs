//! A sample of a history's keys, for parity.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use datafusion::common::runtime::JoinSet;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use unskew_core::row::{decode_keys, encode_key};
use unskew_core::sample::Sample;
use unskew_core::time::availability;
use unskew_core::view::View;

use crate::error::OfflineError;
use crate::offline::{Components, Offline};
use crate::progress::Progress;
use crate::schema::plain;
use crate::view_rows::ViewBatch;

/// The same history gives the same keys.
const SEED: u64 = 0;

impl Offline {
    /// At most `limit` different keys of a view's history, of rows that become available at some
    /// time: one row each, columns named and typed as the view's join keys.
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
        progress: Arc<dyn Progress>,
    ) -> Result<RecordBatch, OfflineError> {
        let plan = self.view_rows(view, components, progress).await?;
        plan.begin();
        let mut tasks = JoinSet::new();
        for partition in 0..plan.properties().partitioning.partition_count() {
            let stream = plan.execute(partition, self.task_context())?;
            tasks.spawn(sample(stream, Arc::clone(view), limit));
        }
        let mut keys = Sample::new(limit, SEED);
        while let Some(partial) = tasks.join_next().await {
            for key in partial??.into_keys() {
                keys.offer(&key);
            }
        }
        decoded(&keys.into_keys(), view)
    }
}

/// The sample of one partition.
async fn sample(
    mut stream: SendableRecordBatchStream,
    view: Arc<View>,
    limit: usize,
) -> Result<Sample, OfflineError> {
    let mut sample = Sample::new(limit, SEED);
    let mut key = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        let rows = ViewBatch::of(&view, &batch)?;
        for row in 0..batch.num_rows() {
            let (event, created) = rows.timestamps(row);
            key.clear();
            if availability(view.source.point_in_time, event, created).is_some()
                && encode_key(rows.keys, row, &mut key)
            {
                sample.offer(&key);
            }
        }
    }
    Ok(sample)
}

fn decoded(keys: &[Vec<u8>], view: &View) -> Result<RecordBatch, OfflineError> {
    let columns = decode_keys(keys.iter().map(Vec::as_slice), &view.key_types())
        .map_err(|error| DataFusionError::Internal(error.to_string()))?;
    let fields = view
        .keys
        .iter()
        .map(|key| plain(&key.name, key.data_type.arrow()));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(keys.len())),
    )?)
}
