//! Pushed rows as rows of a view, and these online.

use std::collections::BTreeMap;

use arrow::array::Array;
use unskew_core::row::{encode, encode_key, encode_online_only};
use unskew_core::time::{self, availability};
use unskew_engine::ViewRowsError;
use unskew_offline::{AppendProblem, OfflineError, RowProblem, Selection, SourceRows};
use unskew_online::{MAX_ROW_BYTES, OnlineError, StoredRow, expires_at};

use super::{PushTo, PushView, Pushed, PushedView, Pusher};
use crate::error::StoreError;

/// How many rows a component gets at once.
const CHUNK_ROWS: usize = 8_192;

/// The rows of a view that were made of pushed ones.
pub(super) struct Made {
    counts: PushedView,
    /// Of each entity the row that counts, with its event timestamp.
    rows: BTreeMap<Vec<u8>, (i64, Vec<u8>)>,
    /// Event and created timestamps of all rows that are available by now.
    times: Vec<(i64, Option<i64>)>,
}

impl Made {
    /// Makes the rows of `view`; blocks.
    ///
    /// # Errors
    /// The component fails on a row, or a row is larger than a store takes.
    pub(super) fn of(
        view: &PushView,
        rows: &SourceRows,
        to: PushTo,
        now: i64,
    ) -> Result<Self, StoreError> {
        let source = rows.of_view(&view.view)?;
        let mode = view.view.source.point_in_time;
        let encode = match to {
            PushTo::Online => encode_online_only,
            PushTo::Offline | PushTo::OnlineAndOffline => encode,
        };
        let mut made = Self {
            counts: PushedView {
                view: view.view.name.clone(),
                ..PushedView::default()
            },
            rows: BTreeMap::new(),
            times: Vec::new(),
        };
        for start in (0..source.num_rows()).step_by(CHUNK_ROWS) {
            let chunk = source.slice(start, CHUNK_ROWS.min(source.num_rows() - start));
            let rows = view
                .runner
                .run(&chunk)
                .map_err(|error| refused(view, error.shifted(start)))?;
            for row in 0..rows.event.len() {
                made.counts.rows += 1;
                let event = rows.event.is_valid(row).then(|| rows.event.value(row));
                let created = rows.created.is_valid(row).then(|| rows.created.value(row));
                let available = availability(mode, event, created);
                let (Some(event), Some(_)) = (event, available.filter(|at| *at <= now)) else {
                    made.counts.not_yet += 1;
                    continue;
                };
                let mut key = Vec::new();
                if !encode_key(&rows.keys, row, &mut key) {
                    made.counts.without_key += 1;
                    continue;
                }
                made.times.push((event, created));
                let mut value = Vec::new();
                encode(&rows.features, row, event, created, &mut value);
                if view.view.online && value.len().max(key.len()) > MAX_ROW_BYTES {
                    return Err(StoreError::Online(OnlineError::TooLarge {
                        view: view.view.name.clone(),
                        what: "a row",
                        bytes: value.len().max(key.len()),
                        limit: MAX_ROW_BYTES,
                    }));
                }
                let held = made.rows.entry(key).or_default();
                if value > held.1 {
                    *held = (event, value);
                }
            }
        }
        Ok(made)
    }

    /// How many of the rows an increment will not take after `watermark`.
    fn left_behind(&self, view: &PushView, watermark: i64) -> usize {
        let since = Selection::Since {
            watermark,
            end: i64::MAX,
        };
        let source = &view.view.source;
        let times = self.times.iter();
        times
            .filter(|(event, created)| !since.takes(source, Some(*event), *created))
            .count()
    }
}

/// The error of a component, as one of the rows that were pushed.
fn refused(view: &PushView, error: ViewRowsError) -> StoreError {
    let row = match &error {
        ViewRowsError::Value { error, .. } => Some(error.row),
        ViewRowsError::Failure { failure, .. } => failure.row,
        ViewRowsError::EventBeforeSource { row, .. }
        | ViewRowsError::CreatedBeforeSource { row, .. } => Some(*row),
        _ => None,
    };
    StoreError::Offline(match row {
        Some(row) => OfflineError::Append {
            name: view.view.source.name.clone(),
            problem: Box::new(AppendProblem::of_row(RowProblem {
                row,
                column: None,
                message: error.to_string(),
            })),
        },
        None => OfflineError::ViewRows {
            file: None,
            error: Box::new(error),
        },
    })
}

impl Pusher {
    /// Writes the rows of a view online, if they go there, and adds what became of them to
    /// `pushed`.
    pub(super) async fn write(
        &self,
        view: &PushView,
        made: Made,
        to: PushTo,
        now: i64,
        pushed: &mut Pushed,
    ) -> Result<(), StoreError> {
        let name = &view.view.name;
        let watermark = match self.online.state(&view.key).await? {
            Some(state) if state.is_materialized() => state.watermark,
            _ => {
                pushed.warnings.push(format!(
                    "nothing is materialized for view `{name}` yet, so it is served as \
                     NOT_MATERIALIZED; run `unskew materialize-incremental now`"
                ));
                None
            }
        };
        if !to.is_online() {
            let left_behind = watermark.map_or(0, |watermark| made.left_behind(view, watermark));
            if left_behind > 0 {
                let first = made.times.iter().map(|(event, _)| *event).min();
                pushed.warnings.push(format!(
                    "{left_behind} rows of view `{name}` lie before its watermark, so that \
                     `unskew materialize-incremental` will not take them; run `unskew materialize \
                     {} {} --view {name}`, or push them online too",
                    time::format(first.unwrap_or(now)),
                    time::format(now)
                ));
            }
            return Ok(());
        }
        let rows = made.rows.into_iter();
        let rows = rows.map(|(entity_key, (event, value))| StoredRow {
            entity_key,
            expires_at: expires_at(event, now, view.view.ttl),
            value,
        });
        let rows: Vec<StoredRow> = rows.collect();
        let mut counts = made.counts;
        if !rows.is_empty() {
            let summary = self.online.put(&view.key, rows).await?;
            counts.written = summary.written;
            counts.kept = summary.kept;
        }
        pushed.views.push(counts);
        Ok(())
    }
}
