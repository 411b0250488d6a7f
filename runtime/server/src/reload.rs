//! A newer state of the registry takes the place of the one that is served, while it is served.
//!
//! ```text
//! every Settings::poll ─┐
//! SIGHUP ───────────────┼─▶ Reloader::reload ── is there a newer state, or is a view that was waited
//! POST /admin/reload ───┘         │             for materialized? ── no ──▶ nothing changes
//!                                 │ yes
//!                                 ▼ new components compiled and asked what they are, on a thread of its own
//!                        Served::next ── fails ──▶ what is served stays, an alarm is raised
//!                                 │
//!                                 ▼
//!                         State::serve: one pointer is replaced
//! ```

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::sync::{Mutex, Notify};
use unskew_store::{FeatureStore, StoreError};
use utoipa::ToSchema;

use crate::retire::Retired;
use crate::served::Served;
use crate::state::State;

/// Brings newer states of the registry.
pub(crate) struct Reloader {
    store: FeatureStore,
    /// One reload at a time.
    turn: Mutex<()>,
    /// The former views that are to be removed, locked for as long as that takes.
    retired: Arc<Mutex<Retired>>,
    failure: ArcSwapOption<String>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Reloaded {
    /// The state of the registry that is served.
    pub(crate) state: u64,
    /// Whether something else is served than before.
    pub(crate) changed: bool,
    /// The services that answer by a former plan, and the views for which their newest one waits.
    pub(crate) waiting: std::collections::BTreeMap<String, Vec<String>>,
}

impl Reloader {
    pub(crate) fn new(store: FeatureStore) -> Self {
        Self {
            store,
            turn: Mutex::default(),
            retired: Arc::default(),
            failure: ArcSwapOption::empty(),
        }
    }

    /// The repository that is served.
    pub(crate) fn store(&self) -> &FeatureStore {
        &self.store
    }

    /// Why the last reload failed; `None` if it did not.
    pub(crate) fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    /// Serves the newest state of the registry, if it is not served yet or a view for which it
    /// waits is materialized now.
    ///
    /// # Errors
    /// The registry or the online store does not answer, or the state is one that cannot be
    /// served. What was served goes on being served.
    pub(crate) async fn reload(&self, state: &State) -> Result<Reloaded, StoreError> {
        let _turn = self.turn.lock().await;
        let done = self.newest(state).await;
        let changed = done.as_ref().is_ok_and(|reloaded| reloaded.changed);
        state.watch().reloaded(done.is_ok(), changed);
        match &done {
            Ok(reloaded) => {
                if self.failure.swap(None).is_some() {
                    tracing::info!("reloading works again");
                }
                if reloaded.changed {
                    tracing::info!(
                        state = reloaded.state,
                        waiting = ?reloaded.waiting,
                        "serving a new state of the registry"
                    );
                }
                self.remove_former_rows(state);
            }
            Err(error) => {
                let message = error.to_string();
                let before = self.failure.swap(Some(Arc::new(message.clone())));
                // Polled again and again, one failure is said once.
                if before.is_none_or(|before| *before != message) {
                    tracing::error!(
                        error = message,
                        "cannot serve the newest state of the registry; the one before goes on \
                         being served"
                    );
                }
            }
        }
        done
    }

    /// Removes rows of former views beside what else is done, since there may be many of them; and
    /// whoever asked for the reload may go away.
    fn remove_former_rows(&self, state: &State) {
        let (store, served) = (self.store.clone(), state.served().clone());
        let grace = state.settings().former_rows;
        let retired = Arc::clone(&self.retired);
        tokio::spawn(async move {
            // If they are being removed still, the next reload comes soon enough.
            if let Ok(mut retired) = retired.try_lock() {
                retired.remove(&store, &served, grace).await;
            }
        });
    }

    async fn newest(&self, state: &State) -> Result<Reloaded, StoreError> {
        let served = state.served().clone();
        let waiting = served.waiting();
        if let Some(current) = served.applied()
            && self.store.is_current(current).await?
            && served.is_settled().await?
        {
            return Ok(Reloaded {
                state: served.number(),
                changed: false,
                waiting,
            });
        }
        let next = self.aside(Arc::clone(&served)).await?;
        let reloaded = Reloaded {
            state: next.number(),
            changed: next.number() != served.number() || next.waiting() != waiting,
            waiting: next.waiting(),
        };
        state.serve(next);
        Ok(reloaded)
    }

    /// Loads what is to be served next on a thread where compiling components delays no request.
    async fn aside(&self, served: Arc<Served>) -> Result<Served, StoreError> {
        let store = self.store.clone();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            runtime.block_on(async move {
                if served.is_unsure() {
                    return Served::load(&store).await;
                }
                let newest = store.applied().await?;
                served.next(newest).await
            })
        })
        .await?
    }
}

/// Reloads every [`Settings::poll`](crate::Settings::poll) and whenever `asked` says so, for as
/// long as it is polled.
pub(crate) async fn keep_reloading(state: State, asked: Arc<Notify>) {
    let Some(reloader) = state.reloader() else {
        return std::future::pending().await;
    };
    let poll = state.settings().poll.max(Duration::from_millis(10));
    loop {
        tokio::select! {
            () = tokio::time::sleep(poll) => {}
            () = asked.notified() => {}
        }
        // What went wrong is kept, logged and shown by `/ready`.
        let _ = reloader.reload(&state).await;
    }
}

#[cfg(test)]
mod tests;
