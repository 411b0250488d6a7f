//! What all requests share.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::guard::Gate;
use crate::reload::Reloader;
use crate::served::Served;
use crate::settings::Settings;
use crate::watch::Watch;

/// What all requests of a server share: what is served now, the limits, and how many requests are
/// answered.
///
/// Cheap to clone; all clones share one state.
#[derive(Clone)]
pub(crate) struct State {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    served: ArcSwap<Served>,
    gate: Arc<Gate>,
    watch: Watch,
    /// None in tests that have no registry.
    reloader: Option<Reloader>,
}

impl State {
    /// What is served behind `gate`.
    pub(crate) fn new(
        gate: Arc<Gate>,
        settings: Settings,
        served: Served,
        reloader: Option<Reloader>,
    ) -> Self {
        let watch = Watch::new(&settings);
        watch.prepare(&served);
        Self {
            inner: Arc::new(Inner {
                settings,
                served: ArcSwap::from_pointee(served),
                gate,
                watch,
                reloader,
            }),
        }
    }

    /// The limits.
    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Who may ask, and what there is room for.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.inner.gate
    }

    /// What is counted and logged.
    pub(crate) fn watch(&self) -> &Watch {
        &self.inner.watch
    }

    /// What is served now, for as long as a request looks at it.
    pub(crate) fn served(&self) -> Guard<Arc<Served>> {
        self.inner.served.load()
    }

    /// Serves `next` from now on. Requests that have begun end with what they began with.
    pub(crate) fn serve(&self, next: Served) {
        self.inner.watch.prepare(&next);
        self.inner.served.store(Arc::new(next));
    }

    /// What brings a newer state of the registry; `None` in tests that have no registry.
    pub(crate) fn reloader(&self) -> Option<&Reloader> {
        self.inner.reloader.as_ref()
    }
}
