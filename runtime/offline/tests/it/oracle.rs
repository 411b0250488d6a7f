//! The point-in-time join, written so that one sees at once that it is right: each entity row looks
//! at each history row.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use unskew_core::row::encode;
use unskew_core::time::Mode;
use unskew_core::view::View;
use unskew_engine::Status;

/// The rows of `history` that are not too old for each of the entity rows at `times`: those that a
/// training set regards.
pub(crate) fn needed(view: &View, history: &RecordBatch, times: &[i64]) -> RecordBatch {
    let Some((ttl, first)) = view.ttl.zip(times.iter().min()) else {
        return history.clone();
    };
    let events = history
        .column_by_name(&view.source.timestamp_field)
        .unwrap();
    let events = events.as_primitive::<TimestampMicrosecondType>();
    let kept = events
        .iter()
        .map(|event| event.map(|event| event >= first - ttl));
    filter_record_batch(history, &kept.collect()).unwrap()
}

/// The features of `view` and the status of each, for the entity rows `keys` at `times`, by a history
/// whose columns have the view's types.
pub(crate) fn oracle(
    view: &View,
    history: &RecordBatch,
    keys: &[ArrayRef],
    times: &[i64],
) -> (Vec<ArrayRef>, Vec<Vec<Status>>) {
    let column = |name: &str| history.column_by_name(name).unwrap();
    let history_keys: Vec<_> = view.keys.iter().map(|key| column(&key.name)).collect();
    let features: Vec<_> = view
        .features
        .iter()
        .map(|feature| ArrayRef::clone(column(&feature.name)))
        .collect();
    let instant = |name: Option<&str>, row: usize| {
        let times = column(name?).as_primitive::<TimestampMicrosecondType>();
        times.is_valid(row).then(|| times.value(row))
    };

    let mut winners: Vec<Option<usize>> = Vec::new();
    let mut states: Vec<Status> = Vec::new();
    for (entity, &at) in times.iter().enumerate() {
        let mut best: Option<(i64, Option<i64>, Vec<u8>, usize)> = None;
        for row in 0..history.num_rows() {
            let is_same = keys.iter().zip(&history_keys).all(|(wanted, there)| {
                wanted.is_valid(entity)
                    && there.is_valid(row)
                    && wanted.slice(entity, 1) == there.slice(row, 1)
            });
            let Some(event) = instant(Some(&view.source.timestamp_field), row) else {
                continue;
            };
            let created = instant(view.source.created_timestamp_column.as_deref(), row);
            let is_available = match view.source.point_in_time {
                Mode::Event => event <= at,
                Mode::Known => event <= at && created.is_some_and(|created| created <= at),
            };
            if !is_same || !is_available {
                continue;
            }
            let mut encoded = Vec::new();
            encode(&features, row, event, created, &mut encoded);
            let candidate = (event, created, encoded, row);
            let is_better = best.as_ref().is_none_or(|best| {
                (candidate.0, candidate.1, &candidate.2) > (best.0, best.1, &best.2)
            });
            if is_better {
                best = Some(candidate);
            }
        }
        let (winner, status) = match best {
            None => (None, Status::NotFound),
            Some((event, ..)) if view.ttl.is_some_and(|ttl| at - event > ttl) => {
                (None, Status::OutsideMaxAge)
            }
            Some((.., row)) => (Some(row), Status::Present),
        };
        winners.push(winner);
        states.push(status);
    }

    let indices: UInt32Array = winners
        .iter()
        .map(|row| row.map(|row| row as u32))
        .collect();
    let taken: Vec<ArrayRef> = features
        .iter()
        .map(|feature| arrow::compute::take(feature, &indices, None).unwrap())
        .collect();
    let statuses = taken.iter().map(|column| {
        let states = states.iter().enumerate();
        let states = states.map(|(row, &status)| match status {
            Status::Present if column.is_null(row) => Status::NullValue,
            status => status,
        });
        states.collect()
    });
    let statuses = statuses.collect();
    (taken, statuses)
}
