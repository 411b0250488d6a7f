//! What the online store holds for the rows that are compared, as far as that decides how: rows that
//! were pushed beyond the watermark, rows that no source has, deletions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt8Array, UInt64Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{TimestampMicrosecondType, UInt8Type};
use serde::Serialize;
use unskew_core::json;
use unskew_core::plan::{FeaturePlan, found};
use unskew_core::row::{self, Kind};
use unskew_core::time::availability;
use unskew_core::types::UTC;
use unskew_online::{OnlineStore, ViewKey, Wanted};

use crate::error::StoreError;

/// Entities that were not compared, and why that is no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Marked {
    /// How many different ones there are among the rows.
    pub entities: u64,
    /// The join keys of the first ones, as JSON.
    pub first: Vec<String>,
}

/// How many entities are named.
const NAMED: usize = 5;

/// Event and created timestamp of a row.
type Times = (i64, Option<i64>);

/// What the store holds for rows.
pub(super) struct Stored {
    /// Rows for which it holds something that the training path cannot have.
    pub(super) left_out: BTreeSet<u64>,
    pub(super) online_only: BTreeMap<String, Marked>,
    pub(super) deleted: BTreeMap<String, Marked>,
    /// The rows for which it holds more than what was materialized, each with the instant from
    /// which all of that is available.
    pub(super) ahead: BTreeMap<u64, i64>,
    /// For each lookup and row the timestamps of what it holds.
    times: Vec<Vec<Option<Times>>>,
}

impl Stored {
    /// Asks the store for all rows at once; `until` says how far each view is materialized, and
    /// `keys` are the columns of the plan's join keys.
    ///
    /// # Errors
    /// The store is unavailable, or holds rows that are none.
    pub(super) async fn look(
        plan: &FeaturePlan,
        project: &str,
        online: &dyn OnlineStore,
        until: &BTreeMap<String, i64>,
        keys: &[ArrayRef],
        rows: usize,
    ) -> Result<Self, StoreError> {
        let mut stored = Self {
            left_out: BTreeSet::new(),
            online_only: BTreeMap::new(),
            deleted: BTreeMap::new(),
            ahead: BTreeMap::new(),
            times: Vec::with_capacity(plan.lookups.len()),
        };
        let mut marked: BTreeMap<(Kind, &str), BTreeSet<Vec<u8>>> = BTreeMap::new();
        for lookup in &plan.lookups {
            let view = &lookup.view;
            let columns: Vec<ArrayRef> =
                lookup.keys.iter().map(|&k| Arc::clone(&keys[k])).collect();
            let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
            let mut entities = Vec::new();
            let of_rows: Vec<Option<usize>> = (0..rows)
                .map(|row| {
                    let mut entity = Vec::new();
                    row::encode_key(&columns, row, &mut entity).then(|| {
                        *places.entry(entity).or_insert_with_key(|entity| {
                            entities.push(entity.clone());
                            entities.len() - 1
                        })
                    })
                })
                .collect();
            let wanted = Wanted {
                view: Arc::new(ViewKey::of(project, view)),
                entities: entities.clone(),
            };
            let held = online.get(vec![wanted]).await?;
            let held = held.into_iter().next().map(|held| held.rows);
            let held = held.unwrap_or_default();
            let mut times = vec![None; rows];
            for (row, place) in of_rows.iter().enumerate() {
                let bytes = place.and_then(|place| Some((place, held.get(place)?.as_ref()?)));
                let Some((place, bytes)) = bytes else {
                    continue;
                };
                let damaged = |error: row::DamagedRow| StoreError::RequestPath(error.to_string());
                let kind = row::kind(bytes).map_err(damaged)?;
                let (event, created) = row::timestamps(bytes).map_err(damaged)?;
                if kind != Kind::Source {
                    stored.left_out.insert(row as u64);
                    let seen = marked.entry((kind, view.name.as_str())).or_default();
                    if seen.insert(entities[place].clone()) {
                        let of_kind = match kind {
                            Kind::OnlineOnly => &mut stored.online_only,
                            Kind::Deleted | Kind::Source => &mut stored.deleted,
                        };
                        let named = of_kind.entry(view.name.clone()).or_default();
                        named.entities += 1;
                        if named.first.len() < NAMED {
                            named.first.push(shown(view, &columns, row));
                        }
                    }
                    continue;
                }
                times[row] = Some((event, created));
                let available = availability(view.source.point_in_time, Some(event), created);
                let watermark = until.get(&view.name).copied();
                if let Some(available) = available.filter(|at| Some(*at) > watermark) {
                    let latest = stored.ahead.entry(row as u64).or_insert(available);
                    *latest = available.max(*latest);
                }
            }
            stored.times.push(times);
        }
        let left_out = &stored.left_out;
        stored.ahead.retain(|row, _| !left_out.contains(row));
        Ok(stored)
    }

    /// The instant of each row: that of all, unless what the store holds is available only later.
    pub(super) fn instants(&self, as_of: i64, rows: usize) -> TimestampMicrosecondArray {
        let of_row = |row| match self.ahead.get(&(row as u64)) {
            Some(&available) => available.max(as_of),
            None => as_of,
        };
        let instants: Vec<i64> = (0..rows).map(of_row).collect();
        TimestampMicrosecondArray::from(instants).with_timezone(UTC)
    }

    /// Of the rows ahead, those for which the training path found a row that is newer than what the
    /// store holds, and that no materialization has taken: it lags, as rows beyond a watermark may.
    /// `joined` has a row for each of the rows ahead, in their order.
    pub(super) fn lagging(
        &self,
        plan: &FeaturePlan,
        joined: &RecordBatch,
        until: &BTreeMap<String, i64>,
    ) -> BTreeSet<u64> {
        let mut lagging = BTreeSet::new();
        let layout = plan.layout();
        for ((lookup, &first), times) in plan.lookups.iter().zip(&layout.lookups).zip(&self.times) {
            let found: &UInt8Array = joined.column(first).as_primitive::<UInt8Type>();
            let instants = |column: usize| {
                joined
                    .column(column)
                    .as_primitive::<TimestampMicrosecondType>()
            };
            let (events, created) = (instants(first + 1), instants(first + 2));
            let watermark = until.get(&lookup.view.name).copied();
            for (at, &row) in self.ahead.keys().enumerate() {
                if found.value(at) != found::ROW || events.is_null(at) {
                    continue;
                }
                let event = events.value(at);
                let created = created.is_valid(at).then(|| created.value(at));
                let mode = lookup.view.source.point_in_time;
                let is_beyond = availability(mode, Some(event), created) > watermark;
                let held = times.get(row as usize).copied().flatten();
                if is_beyond && Some((event, created)) > held {
                    lagging.insert(row);
                }
            }
        }
        lagging
    }
}

/// The join keys of a row, as JSON.
fn shown(view: &unskew_core::view::View, columns: &[ArrayRef], row: usize) -> String {
    let keys = view.keys.iter().zip(columns);
    let keys =
        keys.map(|(key, column)| format!("{}: {}", key.name, json::display(column.as_ref(), row)));
    keys.collect::<Vec<_>>().join(", ")
}

/// Rows `one` and rows `other` of two batches of one schema as one batch, in the order of all rows;
/// each row is in one of them.
pub(super) fn merged(
    one: (&RecordBatch, &[u64]),
    other: (&RecordBatch, &[u64]),
) -> Result<RecordBatch, StoreError> {
    let refused = |error: arrow::error::ArrowError| StoreError::RequestPath(error.to_string());
    let all = concat_batches(&one.0.schema(), [one.0, other.0]).map_err(refused)?;
    let mut places: Vec<(u64, u64)> = one.1.iter().chain(other.1).copied().zip(0..).collect();
    places.sort_unstable();
    let order: UInt64Array = places.into_iter().map(|(_, place)| Some(place)).collect();
    take_record_batch(&all, &order).map_err(refused)
}
