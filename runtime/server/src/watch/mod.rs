//! What is seen of a server from outside, while it answers.
//!
//! ```text
//!              ┌ observe: request id, trace ─ in flight ─ status, duration ─ one line of log ┐
//! request ─────┤                                                                             ├─▶ answer
//!              └ Turn ─── Stages: store │ decode │ step … │ evaluate ─── encode ─────────────┘
//!                            │                                             │ sampled, try_send
//!                            ▼                                             ▼
//!            Metrics ◀── PlanWatch: the handles of a plan            FeatureLog ─▶ Parquet files
//!               │
//!               ▼  + what is read when it is asked for: freshness, online store, plans, process
//!          GET /metrics
//! ```
//!
//! Nothing here may hold a request up: what is counted are atomics, and what is logged is dropped
//! rather than waited for.

mod features;
mod histogram;
mod metrics;
mod plan;
mod process;
mod request;
mod routes;
mod scrape;
mod trace;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Instant;

use tracing::Level;
use unskew_engine::Evaluated;
use unskew_online::OnlineError;
use unskew_store::{Pushed, RequestRows, StoreError};

use crate::clock;
use crate::served::{Answers, Served, Service};
use crate::settings::Settings;
use features::FeatureLog;
use metrics::Metrics;

pub use features::{FeatureLogSettings, Sample};
pub(crate) use metrics::Stage;
pub(crate) use plan::{PlanWatch, Stages, Where};
pub(crate) use request::{Code, Context, ObserveLayer};
pub(crate) use scrape::{CONTENT_TYPE, scrape};

/// What watches a server.
pub(crate) struct Watch {
    metrics: Metrics,
    /// The level at which each request is a line of the log; `None`: no line.
    request_level: Option<Level>,
    log: Option<FeatureLog>,
    scraped: scrape::Kept,
    /// In seconds since 1970.
    started: i64,
}

impl Watch {
    pub(crate) fn new(settings: &Settings) -> Self {
        let metrics = Metrics::new();
        let log = settings
            .feature_log
            .clone()
            .map(|settings| FeatureLog::start(settings, metrics.log.clone()));
        Self {
            metrics,
            request_level: settings.request_level,
            log,
            scraped: scrape::Kept::default(),
            started: clock::now() / 1_000_000,
        }
    }

    /// Makes the handles of all services of `served`, so that no request has to.
    pub(crate) fn prepare(&self, served: &Served) {
        for service in served.services().values() {
            if let Service::Ready(answers) = service {
                answers.watch(self);
            }
        }
    }

    /// The handles of a plan.
    pub(crate) fn plan(&self, answers: &dyn Answers) -> Arc<PlanWatch> {
        let logged = self.log.is_some();
        Arc::new(PlanWatch::new(
            &self.metrics,
            answers.plan(),
            answers.digest(),
            logged,
        ))
    }

    /// Counts a look into the registry for a newer state.
    pub(crate) fn reloaded(&self, succeeded: bool, changed: bool) {
        let reloads = &self.metrics.reloads;
        if succeeded {
            reloads.succeeded.inc();
            reloads.last_success.set(clock::now() / 1_000_000);
        } else {
            reloads.failed.inc();
        }
        if changed {
            reloads.changed.inc();
        }
    }

    /// Counts what an answer failed for, where that is an operator's to mend, and logs it.
    pub(crate) fn failed(&self, error: &StoreError) {
        if let StoreError::Online(
            OnlineError::DamagedRow { view, .. } | OnlineError::DamagedState { view, .. },
        ) = error
        {
            self.metrics.damaged(view);
            tracing::error!(view, error = %error, "a stored value is damaged");
        }
    }

    /// Counts rows that were pushed.
    pub(crate) fn pushed(&self, pushed: &Pushed) {
        self.metrics
            .pushed(&pushed.source, pushed.rows, pushed.online_only);
    }

    /// Logs what was served, if it is one of those that are to be.
    pub(crate) fn log(
        &self,
        plan: &Arc<PlanWatch>,
        context: Option<&Context>,
        rows: RequestRows,
        evaluated: Evaluated,
    ) {
        if let Some(log) = &self.log
            && log.takes_next()
        {
            log.offer(plan, context, rows, evaluated, clock::now());
        }
    }

    /// Writes out what is logged and not written yet, and logs no more.
    pub(crate) async fn close(&self) {
        if let Some(log) = &self.log {
            log.close().await;
        }
    }
}

/// How long something took that began at `began`; the beginning of what comes after it.
fn lap(began: &mut Instant) -> std::time::Duration {
    let now = Instant::now();
    let span = now - *began;
    *began = now;
    span
}
