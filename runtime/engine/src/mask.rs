//! Which of the rows that were found count: time, at the one place where it decides.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, TimestampMicrosecondArray, UInt8Array};
use arrow::compute::nullif;
use unskew_core::plan::found;
use unskew_core::time::{self, Validity};
use unskew_core::view::View;

use crate::status::Status;

/// What became of the rows that a lookup found.
pub(crate) struct Mask {
    /// [`Status::Present`] where the row counts.
    pub(crate) statuses: Arc<[Status]>,
    /// True where the row does not count; `None` where all do.
    hidden: Option<BooleanArray>,
}

impl Mask {
    /// Decides which rows count at `at`.
    pub(crate) fn new(
        view: &View,
        at: &TimestampMicrosecondArray,
        found: &UInt8Array,
        event: &TimestampMicrosecondArray,
        created: &TimestampMicrosecondArray,
    ) -> Self {
        let value = |array: &TimestampMicrosecondArray, row: usize| {
            array.is_valid(row).then(|| array.value(row))
        };
        let statuses: Arc<[Status]> = (0..found.len())
            .map(|row| match found.value(row) {
                found::ROW => status(view, at.value(row), value(event, row), value(created, row)),
                found::NOT_MATERIALIZED => Status::NotMaterialized,
                _ => Status::NotFound,
            })
            .collect();
        let is_hidden = |&status: &Status| status != Status::Present;
        let hidden = statuses.iter().any(is_hidden).then(|| {
            let hidden: Vec<bool> = statuses.iter().map(is_hidden).collect();
            BooleanArray::from(hidden)
        });
        Self { statuses, hidden }
    }

    /// The column with nulls where the row does not count.
    pub(crate) fn apply(&self, column: &ArrayRef) -> Result<ArrayRef, String> {
        match &self.hidden {
            None => Ok(Arc::clone(column)),
            Some(hidden) => nullif(column, hidden).map_err(|error| error.to_string()),
        }
    }
}

fn status(view: &View, at: i64, event: Option<i64>, created: Option<i64>) -> Status {
    let available = time::availability(view.source.point_in_time, event, created);
    // A row that is never available is found by nobody.
    let (Some(available), Some(event)) = (available, event) else {
        return Status::NotFound;
    };
    match time::validity(at, available, event, view.ttl) {
        Validity::Valid => Status::Present,
        Validity::InFuture => Status::InFuture,
        Validity::OutsideMaxAge => Status::OutsideMaxAge,
    }
}
