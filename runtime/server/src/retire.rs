//! Rows of former view digests, which nobody reads any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use unskew_online::ViewKey;
use unskew_store::FeatureStore;

use crate::served::Served;

/// The former views of a project: since when they have been seen to be former, and which of them
/// are removed.
#[derive(Default)]
pub(crate) struct Retired {
    since: BTreeMap<ViewKey, Instant>,
    removed: BTreeSet<ViewKey>,
    /// The state of the registry whose former views these are.
    state: u64,
}

impl Retired {
    /// Removes the rows of views that have been former for `grace`, which gives other servers the
    /// time to move on as well. While a former state is served, nothing is removed.
    pub(crate) async fn remove(
        &mut self,
        store: &FeatureStore,
        served: &Served,
        grace: Option<Duration>,
    ) {
        let Some(grace) = grace.filter(|_| !served.keeps_former()) else {
            return;
        };
        if self.state != served.number() {
            match store.former_views().await {
                Ok(mut former) => {
                    // What was applied a moment ago is not served yet.
                    former.retain(|view| !served.has_view(view));
                    self.see(former);
                    self.state = served.number();
                }
                // It is tried again with the next reload.
                Err(error) => tracing::warn!(error = %error, "cannot tell which views are former"),
            }
        }
        let due: Vec<ViewKey> = self
            .since
            .iter()
            .filter(|(_, since)| since.elapsed() >= grace)
            .map(|(view, _)| view.clone())
            .collect();
        for view in due {
            match store.remove_former(&view).await {
                // Somebody changes it: it is tried again.
                Ok(None) => {}
                Ok(Some(rows)) => {
                    self.since.remove(&view);
                    if rows > 0 {
                        tracing::info!(
                            view = view.view,
                            digest = %view.digest,
                            rows,
                            "removed the rows of a former view"
                        );
                    }
                    self.removed.insert(view);
                }
                Err(error) => {
                    tracing::warn!(view = view.view, error = %error, "cannot remove the rows of a former view");
                }
            }
        }
    }

    fn see(&mut self, former: Vec<ViewKey>) {
        let former: BTreeSet<ViewKey> = former.into_iter().collect();
        // A view that is current again may be former once more.
        self.removed.retain(|view| former.contains(view));
        self.since.retain(|view, _| former.contains(view));
        let now = Instant::now();
        for view in former {
            if !self.removed.contains(&view) {
                self.since.entry(view).or_insert(now);
            }
        }
    }
}
