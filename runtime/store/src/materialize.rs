//! From history to the online store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use serde::Serialize;
use unskew_core::digest::Digest;
use unskew_core::row;
use unskew_core::text;
use unskew_core::time::Mode;
use unskew_core::view::View;
use unskew_offline::{
    Covered, LatestRows, LatestRowsRequest, Offline, Progress, RowSink, Selection,
};
use unskew_online::{Begun, OnlineStore, StoredRow, ViewKey, ViewState, expires_at};

use crate::applied::Applied;
use crate::error::StoreError;
use crate::feature_store::FeatureStore;

/// What to materialize.
#[derive(Clone, Debug)]
pub struct Materialize {
    /// The views; none: all that are served online.
    pub views: Vec<String>,
    /// Which of their rows.
    pub span: MaterializeSpan,
    /// The clock, in microseconds since 1970.
    pub now: i64,
}

/// Which rows to materialize; bounds in microseconds since 1970, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaterializeSpan {
    /// Those that became available from `start` to `end`.
    Range {
        /// From.
        start: i64,
        /// To.
        end: i64,
    },
    /// What became available since the watermark, to `end`; the first time all history.
    Incremental {
        /// To.
        end: i64,
    },
}

impl MaterializeSpan {
    const fn end(self) -> i64 {
        match self {
            Self::Range { end, .. } | Self::Incremental { end } => end,
        }
    }
}

/// From (exclusive; `None`: the beginning) and to, in microseconds since 1970: what was not
/// materialized, although something later was.
pub type Gap = (Option<i64>, i64);

/// What was done for a view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Materialized {
    /// The view.
    pub view: String,
    /// How many rows of its history there are to read.
    pub rows_read: u64,
    /// How many rows the online store took: new ones, and ones newer than what it held.
    pub rows_written: u64,
    /// How far the view is materialized without a gap.
    pub watermark: Option<i64>,
    /// The first gap, if one is left.
    pub gap: Option<Gap>,
}

/// How far a view is materialized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ViewStatus {
    /// The view.
    pub view: String,
    /// Its view digest.
    pub digest: Digest,
    /// Whether it is served online.
    pub online: bool,
    /// How far it is materialized without a gap.
    pub watermark: Option<i64>,
    /// What was not materialized, although something later was.
    pub gaps: Vec<Gap>,
    /// Up to where a materialization goes that has begun and not ended, or was cut off.
    pub unfinished: Option<i64>,
}

/// How often a watermark is written again when somebody else writes it at the same time.
const ATTEMPTS: usize = 100;

impl FeatureStore {
    /// Writes, for each entity of each view, the row that counts at the end of the span among the
    /// rows that became available in it. Rows that are there already are left alone, so it may run
    /// again, be killed, or run beside another.
    ///
    /// # Errors
    /// The end lies after `now`, a name is no view that is served online, history cannot be read,
    /// or the store is unavailable. Views before the one at fault are done.
    pub async fn materialize(
        &self,
        request: Materialize,
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<Materialized>, StoreError> {
        let (end, now) = (request.span.end(), request.now);
        if end > now {
            return Err(StoreError::EndInFuture { end, now });
        }
        if let MaterializeSpan::Range { start, end } = request.span
            && end < start
        {
            return Err(StoreError::EmptySpan { end, start });
        }
        let applied = self.applied().await?;
        let views = views(&applied, &request.views)?;
        let online = self.online()?;
        let mut done = Vec::with_capacity(views.len());
        for view in views {
            let key = ViewKey::of(&applied.project().name, &view);
            let work = Work {
                offline: self.offline(),
                applied: &applied,
                online: &online,
                key: Arc::new(key),
                view,
                now,
                progress: &progress,
                touched: Arc::default(),
            };
            done.push(work.run(request.span).await?);
        }
        Ok(done)
    }

    /// How far each view is materialized.
    ///
    /// # Errors
    /// Nothing is applied, or the online store is unavailable.
    pub async fn status(&self) -> Result<Vec<ViewStatus>, StoreError> {
        let project = self.state().await?.project;
        let online = self.online()?;
        let mut all = Vec::new();
        for defined in project.views.values() {
            let view = &defined.value.view;
            let state = if view.online {
                online.state(&ViewKey::of(&project.name, view)).await?
            } else {
                None
            };
            all.push(ViewStatus {
                view: view.name.clone(),
                digest: view.digest(),
                online: view.online,
                watermark: state.as_ref().and_then(|state| state.watermark),
                gaps: state.as_ref().map(gaps).unwrap_or_default(),
                unfinished: state.as_ref().and_then(unfinished),
            });
        }
        Ok(all)
    }
}

/// The views that are named, or all that are served online.
fn views(applied: &Applied, names: &[String]) -> Result<Vec<Arc<View>>, StoreError> {
    let project = applied.project();
    if names.is_empty() {
        let all = project.views.values().map(|defined| &defined.value.view);
        return Ok(all.filter(|view| view.online).map(Arc::clone).collect());
    }
    let mut views = Vec::with_capacity(names.len());
    for name in names {
        if let Some(alias) = project.aliases.get(name) {
            let view = alias.value.alias_of.clone();
            return Err(StoreError::AliasNamed {
                name: name.clone(),
                view,
            });
        }
        let Some(defined) = project.views.get(name) else {
            let valid = text::list(project.views.keys());
            return Err(StoreError::UnknownView {
                name: name.clone(),
                valid,
            });
        };
        let view = &defined.value.view;
        if !view.online {
            return Err(StoreError::NotOnline { view: name.clone() });
        }
        views.push(Arc::clone(view));
    }
    Ok(views)
}

/// The materialization of one view.
struct Work<'a> {
    offline: Offline,
    applied: &'a Applied,
    online: &'a Arc<dyn OnlineStore>,
    key: Arc<ViewKey>,
    view: Arc<View>,
    now: i64,
    progress: &'a Arc<dyn Progress>,
    /// Whether any row was handed to the store.
    touched: Arc<AtomicBool>,
}

impl Work<'_> {
    async fn run(&self, span: MaterializeSpan) -> Result<Materialized, StoreError> {
        let begun = Begun {
            id: run_id(self.now),
            end: span.end(),
        };
        let before = self.begin(&begun).await?;
        let done = self.rows(span, &begun, before).await;
        if done.is_err() {
            // What failed first is what the caller has to know; a mark that stays does no harm.
            let _ = self.give_up(&begun).await;
        }
        done
    }

    /// The rows of the span, and after them how far the view is materialized.
    async fn rows(
        &self,
        span: MaterializeSpan,
        begun: &Begun,
        before: ViewState,
    ) -> Result<Materialized, StoreError> {
        let lineage = self.online.lineage().await?;
        let watermark = before.watermark;
        let covered = Covered {
            watermark,
            ranges: before.pending,
        };
        let end = span.end();
        let since = watermark.map(|watermark| Selection::Since { watermark, end });
        let (start, selection) = match span {
            MaterializeSpan::Range { start, .. } => (
                Some(start),
                Selection::Range {
                    start: Some(start),
                    end,
                },
            ),
            MaterializeSpan::Incremental { .. } => {
                (None, since.unwrap_or(Selection::Range { start: None, end }))
            }
        };
        let written = Arc::new(AtomicU64::new(0));
        let latest = self.write(selection, &covered, &written).await?;
        let is_gap = start.is_some() && latest.uncovered > 0;
        // A range that follows on from the watermark moves it; so what an increment would have
        // taken on the way, late corrections, must not be left behind.
        if let (Some(_), Some(since), false) = (start, since, is_gap)
            && self.can_be_late()
        {
            self.write(since, &covered, &written).await?;
        }
        // The state may lie on another server than rows do, and outlive them.
        self.online.settle().await?;
        if self.online.lineage().await? != lineage {
            return Err(self.failed_over(begun).await?);
        }
        let state = self.end(begun, start, is_gap).await?;
        Ok(Materialized {
            view: self.view.name.clone(),
            rows_read: latest.read,
            rows_written: written.load(Ordering::Relaxed),
            watermark: state.watermark,
            gap: gaps(&state).first().copied(),
        })
    }

    /// Whether an increment may take rows from before the watermark.
    fn can_be_late(&self) -> bool {
        let source = &self.view.source;
        source.point_in_time == Mode::Event
            && (source.created_timestamp_column.is_some() || source.late_by > 0)
    }

    async fn write(
        &self,
        selection: Selection,
        covered: &Covered,
        written: &Arc<AtomicU64>,
    ) -> Result<LatestRows, StoreError> {
        let request = LatestRowsRequest {
            view: &self.view,
            components: self.applied.components(),
            selection,
            covered: covered.clone(),
        };
        let sink = Arc::new(Sink {
            online: Arc::clone(self.online),
            key: Arc::clone(&self.key),
            ttl: self.view.ttl,
            now: self.now,
            written: Arc::clone(written),
            touched: Arc::clone(&self.touched),
        });
        Ok(self
            .offline
            .latest_rows(request, sink, Arc::clone(self.progress))
            .await?)
    }

    /// Writes, before the first row, that this run has begun; gives the state before it.
    async fn begin(&self, begun: &Begun) -> Result<ViewState, StoreError> {
        for _ in 0..ATTEMPTS {
            let before = self.online.state(&self.key).await?;
            let mut after = before.clone().unwrap_or_default();
            after.begun.push(begun.clone());
            if self
                .online
                .update_state(&self.key, before.as_ref(), &after)
                .await?
            {
                return Ok(before.unwrap_or_default());
            }
        }
        Err(self.contended())
    }

    /// Writes, after the last row, how far the view is materialized now.
    async fn end(
        &self,
        begun: &Begun,
        start: Option<i64>,
        is_gap: bool,
    ) -> Result<ViewState, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = self.online.state(&self.key).await? else {
                return Err(self.emptied());
            };
            if !before.begun.contains(begun) {
                // Another run that went as far has ended and counted this one as its own; else the
                // store was emptied, and what it holds is less than this run believes.
                return match before.watermark {
                    Some(watermark) if watermark >= begun.end => Ok(before),
                    _ => Err(self.emptied()),
                };
            }
            let after = advanced(before.clone(), begun, start, is_gap);
            if self
                .online
                .update_state(&self.key, Some(&before), &after)
                .await?
            {
                return Ok(after);
            }
        }
        Err(self.contended())
    }

    /// Takes this run's mark back. If rows may have been written, one mark stays for all runs that
    /// gave up, so that marks do not pile up where a source cannot be read for long.
    async fn give_up(&self, begun: &Begun) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = self.online.state(&self.key).await? else {
                return Ok(());
            };
            if !before.begun.contains(begun) {
                return Ok(());
            }
            let touched = self.touched.load(Ordering::Relaxed);
            let after = given_up(before.clone(), begun, touched);
            if self
                .online
                .update_state(&self.key, Some(&before), &after)
                .await?
            {
                return Ok(());
            }
        }
        Err(self.contended())
    }

    fn contended(&self) -> StoreError {
        StoreError::Contended {
            what: format!("the watermark of view `{}`", self.view.name),
        }
    }

    /// What became of a store whose servers are others than before.
    async fn failed_over(&self, begun: &Begun) -> Result<StoreError, StoreError> {
        let state = self.online.state(&self.key).await?;
        if state.is_none_or(|state| !state.begun.contains(begun)) {
            return Ok(self.emptied());
        }
        Ok(StoreError::FailedOver {
            view: self.view.name.clone(),
        })
    }

    fn emptied(&self) -> StoreError {
        StoreError::Emptied {
            view: self.view.name.clone(),
        }
    }
}

/// A name for a run that no other has: another process, or another run of this one.
fn run_id(now: i64) -> String {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    format!(
        "{now}-{}-{}",
        std::process::id(),
        RUNS.fetch_add(1, Ordering::Relaxed)
    )
}

/// Hands rows on to the online store.
struct Sink {
    online: Arc<dyn OnlineStore>,
    key: Arc<ViewKey>,
    ttl: Option<i64>,
    now: i64,
    written: Arc<AtomicU64>,
    touched: Arc<AtomicBool>,
}

#[async_trait]
impl RowSink for Sink {
    async fn write(
        &self,
        rows: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let rows = rows
            .into_iter()
            .map(|(entity_key, value)| {
                let (event, _) = row::timestamps(&value)?;
                Ok(StoredRow {
                    entity_key,
                    expires_at: expires_at(event, self.now, self.ttl),
                    value,
                })
            })
            .collect::<Result<_, row::DamagedRow>>()?;
        self.touched.store(true, Ordering::Relaxed);
        let summary = self.online.put(&self.key, rows).await?;
        self.written.fetch_add(summary.written, Ordering::Relaxed);
        Ok(())
    }
}

/// The state after a run has written its rows from `start` (`None`: from the watermark), where
/// `is_gap` says that rows before `start` were not written.
fn advanced(before: ViewState, begun: &Begun, start: Option<i64>, is_gap: bool) -> ViewState {
    let ViewState {
        mut watermark,
        mut pending,
        begun: mut runs,
    } = before;
    let end = begun.end;
    match start {
        Some(start) if is_gap => pending.push((start, end)),
        _ => watermark = watermark.max(Some(end)),
    }
    pending.sort_unstable();
    let mut left: Vec<(i64, i64)> = Vec::new();
    for (start, end) in pending {
        if watermark.is_some_and(|watermark| start <= watermark.saturating_add(1)) {
            watermark = watermark.max(Some(end));
        } else if let Some(last) = left.last_mut()
            && start <= last.1.saturating_add(1)
        {
            last.1 = last.1.max(end);
        } else {
            left.push((start, end));
        }
    }
    // A run that was cut off is made good by one that went as far.
    runs.retain(|run| run.id != begun.id && watermark.is_none_or(|watermark| run.end > watermark));
    ViewState {
        watermark,
        pending: left,
        begun: runs,
    }
}

/// The mark of all runs that gave up.
const GIVEN_UP: &str = "given up";

/// The state after a run has given up; `touched` says that some of its rows may be in the store.
fn given_up(mut state: ViewState, begun: &Begun, touched: bool) -> ViewState {
    let ended = |run: &Begun| run.id == begun.id || touched && run.id == GIVEN_UP;
    let end = state
        .begun
        .iter()
        .filter(|run| ended(run))
        .map(|run| run.end)
        .max();
    state.begun.retain(|run| !ended(run));
    if let Some(end) = end.filter(|_| touched) {
        state.begun.push(Begun {
            id: GIVEN_UP.to_owned(),
            end,
        });
    }
    state
}

/// Up to where a run goes that has begun and not ended, beyond the watermark.
pub(crate) fn unfinished(state: &ViewState) -> Option<i64> {
    state
        .begun
        .iter()
        .map(|run| run.end)
        .filter(|end| Some(*end) > state.watermark)
        .max()
}

/// What was not materialized, although something later was.
pub(crate) fn gaps(state: &ViewState) -> Vec<Gap> {
    let ends =
        std::iter::once(state.watermark).chain(state.pending.iter().map(|range| Some(range.1)));
    ends.zip(&state.pending)
        .map(|(end, range)| (end, range.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(watermark: Option<i64>, pending: &[(i64, i64)]) -> ViewState {
        ViewState {
            watermark,
            pending: pending.to_vec(),
            begun: Vec::new(),
        }
    }

    fn run(end: i64) -> Begun {
        Begun {
            id: format!("run to {end}"),
            end,
        }
    }

    #[test]
    fn the_watermark_advances_only_if_no_gap_is_left() {
        let cases = [
            // before, start, end, is_gap, after
            (state(None, &[]), None, 10, false, state(Some(10), &[])),
            (state(None, &[]), Some(5), 10, true, state(None, &[(5, 10)])),
            (state(None, &[]), Some(5), 10, false, state(Some(10), &[])),
            (
                state(Some(10), &[]),
                Some(20),
                30,
                true,
                state(Some(10), &[(20, 30)]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                Some(25),
                40,
                true,
                state(Some(10), &[(20, 40)]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                Some(10),
                20,
                false,
                state(Some(30), &[]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                Some(10),
                19,
                false,
                state(Some(30), &[]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                None,
                15,
                false,
                state(Some(15), &[(20, 30)]),
            ),
            (
                state(Some(10), &[(20, 30)]),
                None,
                40,
                false,
                state(Some(40), &[]),
            ),
            (state(Some(10), &[]), None, 5, false, state(Some(10), &[])),
            (
                state(Some(10), &[(50, 60), (20, 30)]),
                None,
                22,
                false,
                state(Some(30), &[(50, 60)]),
            ),
        ];
        for (before, start, end, is_gap, after) in cases {
            assert_eq!(
                advanced(before.clone(), &run(end), start, is_gap),
                after,
                "{before:?} {start:?} {end}"
            );
        }
    }

    #[test]
    fn a_run_that_was_cut_off_is_unfinished_until_another_goes_as_far() {
        let cut = ViewState {
            begun: vec![run(20)],
            ..state(Some(10), &[])
        };
        assert_eq!(unfinished(&cut), Some(20));
        let short = advanced(
            ViewState {
                begun: vec![run(20), run(15)],
                ..cut.clone()
            },
            &run(15),
            None,
            false,
        );
        assert_eq!((short.watermark, unfinished(&short)), (Some(15), Some(20)));
        let far = advanced(
            ViewState {
                begun: vec![run(20), run(25)],
                ..cut
            },
            &run(25),
            None,
            false,
        );
        assert_eq!(far, state(Some(25), &[]));
    }

    #[test]
    fn runs_that_give_up_leave_one_mark_and_none_if_they_wrote_nothing() {
        let both = ViewState {
            begun: vec![run(20), run(30)],
            ..state(Some(10), &[])
        };
        let one = given_up(both.clone(), &run(20), false);
        assert_eq!(one.begun, [run(30)]);
        let one = given_up(given_up(both, &run(30), true), &run(20), true);
        let mark = Begun {
            id: GIVEN_UP.to_owned(),
            end: 30,
        };
        assert_eq!(one.begun, [mark]);
        assert_eq!(advanced(one, &run(30), None, false), state(Some(30), &[]));
    }

    #[test]
    fn gaps_lie_before_each_pending_range() {
        assert_eq!(gaps(&state(Some(10), &[])), []);
        assert_eq!(gaps(&state(None, &[(5, 10)])), [(None, 5)]);
        assert_eq!(
            gaps(&state(Some(1), &[(5, 10), (20, 30)])),
            [(Some(1), 5), (Some(10), 20)]
        );
    }
}
