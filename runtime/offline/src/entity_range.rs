//! Entity rows that are a view's own rows in a range of time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::runtime::JoinSet;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use unskew_core::plan::{EVENT_TIMESTAMP, FeaturePlan, Lookup};
use unskew_core::types::ScalarType;
use unskew_core::view::View;

use crate::entity_rows::{Checked, EntityRows, needed};
use crate::entity_source::EntityRange;
use crate::error::{EntityRowsProblem, OfflineError};
use crate::offline::{CHUNK_ROWS, Components, Offline};
use crate::progress::Progress;
use crate::schema::plain;
use crate::view_rows::ViewBatch;

/// Rows as bytes, whose order is that of time, then of the keys.
type Sorted = Vec<Box<[u8]>>;

impl Offline {
    /// The distinct join keys and event timestamps of a view's rows in a range.
    pub(crate) async fn rows_of_range(
        &self,
        plan: &FeaturePlan,
        components: &Components,
        range: &EntityRange,
        progress: Arc<dyn Progress>,
    ) -> Result<EntityRows, OfflineError> {
        let lookup = lookup(plan, range.of.as_deref())?;
        let schema = schema(plan, lookup);
        // Before the history is read.
        let mut rows = Checked::new(plan, Arc::clone(&schema), self.entity_budget(), None)?;

        let between = (range.start, range.end);
        let view_rows = self
            .view_rows_between(&lookup.view, components, between, progress)
            .await?;
        view_rows.begin();
        let mut tasks = JoinSet::new();
        for partition in 0..view_rows.properties().partitioning.partition_count() {
            let stream = view_rows.execute(partition, self.task_context())?;
            let view = Arc::clone(&lookup.view);
            tasks.spawn(partial(stream, view, between));
        }
        let mut all = Sorted::new();
        while let Some(partial) = tasks.join_next().await {
            all.extend(partial??);
        }
        let all = tokio::task::spawn_blocking(move || {
            sort(&mut all);
            all
        });
        let all = all.await?;

        let converter = converter(&lookup.view)?;
        let parser = converter.parser();
        for chunk in all.chunks(CHUNK_ROWS) {
            let mut columns = converter.convert_rows(chunk.iter().map(|row| parser.parse(row)))?;
            // The instant comes first among the bytes, and last in the table.
            columns.rotate_left(1);
            rows.add(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
        rows.finish()
    }
}

/// The lookup of that name, or the only one.
fn lookup<'a>(plan: &'a FeaturePlan, name: Option<&str>) -> Result<&'a Lookup, OfflineError> {
    let found = match name {
        Some(name) => plan.lookups.iter().find(|lookup| lookup.name == name),
        None => match plan.lookups.as_slice() {
            [only] => Some(only),
            _ => None,
        },
    };
    let lookup = found.ok_or_else(|| {
        let views = plan.lookups.iter().map(|lookup| lookup.name.clone());
        OfflineError::entity_rows(
            None,
            EntityRowsProblem::UnknownView {
                name: name.map(str::to_owned),
                views: views.collect(),
            },
        )
    })?;
    let keys = names(plan, lookup);
    let lacking = needed(plan)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name != EVENT_TIMESTAMP && !keys.contains(&name.as_str()));
    let missing: Vec<String> = lacking.collect();
    if missing.is_empty() {
        Ok(lookup)
    } else {
        Err(OfflineError::entity_rows(
            None,
            EntityRowsProblem::NotOfView {
                view: lookup.name.clone(),
                missing,
            },
        ))
    }
}

/// The plan's names of the join keys of a lookup, in the order of the view's.
fn names<'a>(plan: &'a FeaturePlan, lookup: &Lookup) -> Vec<&'a str> {
    let keys = lookup.keys.iter();
    keys.map(|&key| plan.join_keys[key].name.as_str()).collect()
}

fn schema(plan: &FeaturePlan, lookup: &Lookup) -> SchemaRef {
    let mut fields: Vec<_> = names(plan, lookup)
        .into_iter()
        .zip(&lookup.view.keys)
        .map(|(name, key)| plain(name, key.data_type.arrow()))
        .collect();
    fields.push(plain(EVENT_TIMESTAMP, ScalarType::Timestamp.arrow()));
    Arc::new(Schema::new(fields))
}

fn converter(view: &View) -> Result<RowConverter, OfflineError> {
    let keys = view.keys.iter().map(|key| key.data_type);
    let types = std::iter::once(ScalarType::Timestamp).chain(keys);
    let fields = types.map(|data_type| SortField::new(data_type.arrow()));
    Ok(RowConverter::new(fields.collect())?)
}

/// The rows of one partition in the range, each once.
async fn partial(
    mut stream: SendableRecordBatchStream,
    view: Arc<View>,
    (start, end): (i64, i64),
) -> Result<Sorted, OfflineError> {
    let converter = converter(&view)?;
    let mut rows = Sorted::new();
    let mut distinct = 0;
    while let Some(batch) = stream.try_next().await? {
        let columns = ViewBatch::of(&view, &batch)?;
        let is_wanted: BooleanArray = (0..batch.num_rows())
            .map(|row| {
                let (event, _) = columns.timestamps(row);
                let in_range = event.is_some_and(|event| (start..=end).contains(&event));
                Some(in_range && columns.keys.iter().all(|key| key.is_valid(row)))
            })
            .collect();
        if is_wanted.true_count() == 0 {
            continue;
        }
        // The event timestamp is a batch's first column.
        let wanted = std::iter::once(batch.column(0)).chain(columns.keys);
        let wanted = wanted
            .map(|column| filter(column, &is_wanted))
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        let converted = converter.convert_columns(&wanted)?;
        rows.extend(converted.iter().map(|row| Box::from(row.as_ref())));
        // What repeats is not held more than twice over.
        if rows.len() > 2 * distinct + (1 << 20) {
            sort(&mut rows);
            distinct = rows.len();
        }
    }
    sort(&mut rows);
    Ok(rows)
}

fn sort(rows: &mut Sorted) {
    rows.sort_unstable();
    rows.dedup();
}
