//! From history to the online store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

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
use unskew_online::{
    Begun, Lineage, OnlineStore, StoredRow, ViewKey, ViewState, expires_at, patient,
};

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
/// How long a server of the online store may be away while rows are written.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the rows of a view are written at most, where servers of the store give way to others
/// meanwhile.
const RUNS: usize = 3;

impl FeatureStore {
    /// Writes, for each entity of each view, the row that counts at the end of the span among the
    /// rows that became available in it. Rows that are there already are left alone, so it may run
    /// again, be killed, or run beside another. What a failover of the store may have lost is
    /// written again: also where that is found by a later run.
    ///
    /// # Errors
    /// The end lies after `now`, a name is no view that is served online, history cannot be read,
    /// or the store is unavailable: when it begins, or later for half a minute. Views before the one
    /// at fault are done.
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
        // A store that was not there to begin with is said to be away at once.
        online.ping().await?;
        let online = patient(&online, PATIENCE);
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
        let mut done = self.rows(span, &begun, before.clone()).await;
        for _ in 1..RUNS {
            if !matches!(done, Err(StoreError::FailedOver { .. })) {
                break;
            }
            done = self.rows(span, &begun, before.clone()).await;
        }
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
        let before = kept(before, &lineage);
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
        let state = self.end(begun, start, is_gap, &lineage).await?;
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
            let after = noted(before.clone().unwrap_or_default(), begun);
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

    /// Writes, after the last row, how far the view is materialized now; `lineage` is what the
    /// store continued before the first.
    async fn end(
        &self,
        begun: &Begun,
        start: Option<i64>,
        is_gap: bool,
        lineage: &Lineage,
    ) -> Result<ViewState, StoreError> {
        for _ in 0..ATTEMPTS {
            let now = self.online.lineage().await?;
            if !now.is_same(lineage) {
                return Err(self.failed_over(begun).await?);
            }
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
            let after = ViewState {
                lineage: now.mark(),
                ..advanced(kept(before.clone(), &now), begun, start, is_gap)
            };
            if self
                .online
                .update_state_within(&now, &self.key, Some(&before), &after)
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

/// What the store still has of what its state tells: all, or it is not known how much. Rows that
/// are there are left alone by whoever writes them again.
fn kept(state: ViewState, now: &Lineage) -> ViewState {
    if now.keeps(&state.lineage) {
        return state;
    }
    ViewState {
        begun: state.begun,
        ..ViewState::default()
    }
}

/// How many runs are noted by themselves. Every request reads the state, and runs that are killed
/// leave their marks in it.
const MARKS: usize = 16;

/// The state after a run has begun. Of many that have not ended the first count as given up.
fn noted(mut state: ViewState, begun: &Begun) -> ViewState {
    state.begun.push(begun.clone());
    while state.begun.len() > MARKS {
        let Some(first) = state.begun.iter().position(|run| run.id != GIVEN_UP) else {
            break;
        };
        let end = state.begun.remove(first).end;
        match state.begun.iter_mut().find(|run| run.id == GIVEN_UP) {
            Some(mark) => mark.end = mark.end.max(end),
            None => state.begun.insert(0, given_up_at(end)),
        }
    }
    state
}

/// The state after a run has written its rows from `start` (`None`: from the watermark), where
/// `is_gap` says that rows before `start` were not written.
fn advanced(before: ViewState, begun: &Begun, start: Option<i64>, is_gap: bool) -> ViewState {
    let ViewState {
        mut watermark,
        mut pending,
        begun: mut runs,
        lineage,
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
        lineage,
    }
}

/// The mark of all runs that gave up.
const GIVEN_UP: &str = "given up";

fn given_up_at(end: i64) -> Begun {
    Begun {
        id: GIVEN_UP.to_owned(),
        end,
    }
}

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
        state.begun.push(given_up_at(end));
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
            ..ViewState::default()
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
        assert_eq!(one.begun, [given_up_at(30)]);
        assert_eq!(advanced(one, &run(30), None, false), state(Some(30), &[]));
    }

    #[test]
    fn marks_of_runs_that_were_killed_do_not_pile_up() {
        let mut noted_all = state(Some(10), &[]);
        for end in 20..120 {
            noted_all = noted(noted_all, &run(end));
        }
        assert_eq!(noted_all.begun.len(), MARKS);
        assert_eq!(noted_all.begun[0], given_up_at(120 - MARKS as i64));
        assert_eq!(noted_all.begun.last(), Some(&run(119)));
        assert_eq!(unfinished(&noted_all), Some(119));
        let after = advanced(noted_all, &run(119), None, false);
        assert_eq!(after, state(Some(119), &[]));
    }

    #[test]
    fn a_state_whose_rows_may_be_lost_counts_for_nothing_but_its_runs() {
        let lost = ViewState {
            lineage: "gone:5:slots".to_owned(),
            begun: vec![run(20)],
            ..state(Some(10), &[(12, 14)])
        };
        let now = Lineage::default();
        let left = ViewState {
            begun: vec![run(20)],
            ..ViewState::default()
        };
        assert_eq!(kept(lost, &now), left);
        let held = state(Some(10), &[(12, 14)]);
        assert_eq!(kept(held.clone(), &now), held);
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
