//! Pushed rows as rows of a view, and these online.

use std::collections::BTreeMap;

use arrow::array::Array;
use unskew_core::row::{encode, encode_key, encode_online_only};
use unskew_core::time::{self, availability};
use unskew_engine::ViewRowsError;
use unskew_offline::{AppendProblem, OfflineError, RowProblem, Selection, SourceRows};
use unskew_online::{MAX_ROW_BYTES, OnlineError, StoredRow, ViewState, expires_at};

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

    /// What whoever pushed the rows into the source alone should know of a view in `state`.
    pub(super) fn told(&self, view: &PushView, state: Option<ViewState>, now: i64) -> Vec<String> {
        let name = &view.view.name;
        let mut told = Vec::from_iter(not_materialized(name, state.as_ref()));
        let ViewState {
            watermark, begun, ..
        } = state.unwrap_or_default();
        // A run that goes on may have listed the files before these were there.
        let running = begun.iter().map(|run| run.end).max();
        let before = match running > watermark {
            true => "the end of a materialization that has begun",
            false => "its watermark",
        };
        let left_behind = watermark
            .max(running)
            .and_then(|watermark| self.left_behind(view, watermark));
        if let Some((count, first)) = left_behind {
            told.push(format!(
                "{count} rows of view `{name}` lie before {before}, so that `unskew \
                 materialize-incremental` may not take them; run `unskew materialize {} {} --view \
                 {name}`, or push them online too",
                time::format(first),
                time::format(now)
            ));
        }
        told
    }

    /// How many of the rows an increment will not take after `watermark`, and the event timestamp
    /// of the first; `None` if there are none.
    fn left_behind(&self, view: &PushView, watermark: i64) -> Option<(usize, i64)> {
        let since = Selection::Since {
            watermark,
            end: i64::MAX,
        };
        let source = &view.view.source;
        let left = self.times.iter();
        let left = left.filter(|(event, created)| !since.takes(source, Some(*event), *created));
        left.fold(None, |held, (event, _)| {
            let (count, first) = held.unwrap_or((0, *event));
            Some((count + 1, first.min(*event)))
        })
    }
}

/// What is to be said if nothing of the view is materialized.
fn not_materialized(name: &str, state: Option<&ViewState>) -> Option<String> {
    let is_materialized = state.is_some_and(ViewState::is_materialized);
    (!is_materialized).then(|| {
        format!(
            "nothing is materialized for view `{name}` as it is defined now, so until it is, these \
             rows are not served: it is NOT_MATERIALIZED, or a former definition is served without \
             them; run `unskew materialize-incremental now`"
        )
    })
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
    /// Writes the rows of a view in `state` online, and adds what became of them to `pushed`.
    pub(super) async fn write(
        &self,
        view: &PushView,
        made: Made,
        state: Option<ViewState>,
        now: i64,
        pushed: &mut Pushed,
    ) -> Result<(), StoreError> {
        let told = not_materialized(&view.view.name, state.as_ref());
        pushed.warnings.extend(told);
        let rows = made.rows.into_iter();
        let rows = rows.map(|(entity_key, (event, value))| StoredRow {
            entity_key,
            expires_at: expires_at(event, now, view.view.ttl),
            value,
        });
        let rows: Vec<StoredRow> = rows.collect();
        let mut counts = made.counts;
        if !rows.is_empty() {
            // What is stored under a view that was never materialized is found by its state when it
            // is to be removed. If somebody else has made one meanwhile, it is as well.
            if state.is_none() {
                let none = ViewState::default();
                self.online.update_state(&view.key, None, &none).await?;
            }
            let summary = self.online.put(&view.key, rows).await?;
            counts.written = summary.written;
            counts.kept = summary.kept;
        }
        pushed.views.push(counts);
        Ok(())
    }
}
