//! From history to the online store.

mod state;

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

use state::{advanced, given_up, kept, noted};
pub(crate) use state::{gaps, unfinished};

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
