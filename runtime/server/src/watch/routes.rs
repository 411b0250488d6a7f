//! Requests by route and status, and problems by code.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::histogram::Histogram;

/// Things by name, of which there are few, that are met again and again: read without a lock, and
/// copied when one is new.
struct Few<T> {
    known: ArcSwap<Vec<Arc<T>>>,
}

impl<T> Few<T> {
    fn get(&self, is: impl Fn(&T) -> bool, new: impl Fn() -> T) -> Arc<T> {
        if let Some(found) = self.known.load().iter().find(|known| is(known)) {
            return Arc::clone(found);
        }
        let new = Arc::new(new());
        self.known.rcu(|known| {
            let mut known = Vec::clone(known);
            if !known.iter().any(|known| is(known)) {
                known.push(Arc::clone(&new));
            }
            known
        });
        // Another may have been first.
        let known = self.known.load();
        known.iter().find(|known| is(known)).map_or(new, Arc::clone)
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self {
            known: ArcSwap::default(),
        }
    }
}

/// Requests by route.
#[derive(Clone, Default)]
pub(super) struct Routes {
    few: Arc<Few<Route>>,
}

/// The requests of one route.
pub(super) struct Route {
    pub(super) path: Box<str>,
    pub(super) duration: Histogram,
    /// Answers by status, from 100 to 599.
    statuses: Box<[AtomicU64]>,
}

/// The least status that there is.
const LEAST_STATUS: u16 = 100;

impl Routes {
    /// The handles of the route `path`, which is one of those that the server has, so that nobody
    /// outside can make the list long.
    pub(super) fn of(&self, path: &str) -> Arc<Route> {
        let new = || Route {
            path: path.into(),
            duration: Histogram::of_spans(),
            statuses: (LEAST_STATUS..600).map(|_| AtomicU64::new(0)).collect(),
        };
        self.few.get(|route| *route.path == *path, new)
    }
}

impl Route {
    /// Counts an answer.
    pub(super) fn count(&self, status: u16) {
        let index = usize::from(status.saturating_sub(LEAST_STATUS));
        if let Some(count) = self.statuses.get(index) {
            count.fetch_add(1, Relaxed);
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

impl Collector for Routes {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let known = self.few.known.load();
        if known.is_empty() {
            return Ok(());
        }
        let mut requests = encoder.encode_descriptor(
            "http_requests",
            "Requests by route and status; 499 is one whose client went away.",
            None,
            MetricType::Counter,
        )?;
        for route in known.iter() {
            for (status, count) in (LEAST_STATUS..).zip(&route.statuses) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let status = status.to_string();
                    let labels = [("route", &*route.path), ("status", &*status)];
                    let mut one = requests.encode_family(&labels)?;
                    one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        let unit = Unit::Seconds;
        let mut durations = encoder.encode_descriptor(
            "http_request_duration",
            "From the head of a request to its answer.",
            Some(&unit),
            MetricType::Histogram,
        )?;
        for route in known.iter() {
            let label = [("route", &*route.path)];
            let one = durations.encode_family(&label)?;
            EncodeMetric::encode(&route.duration, one)?;
        }
        Ok(())
    }
}

/// Problems by code.
#[derive(Clone, Default)]
pub(super) struct Codes {
    few: Arc<Few<(&'static str, AtomicU64)>>,
}

impl Codes {
    pub(super) fn count(&self, code: &'static str) {
        let new = || (code, AtomicU64::new(0));
        let found = self.few.get(|(known, _)| *known == code, new);
        found.1.fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codes").finish_non_exhaustive()
    }
}

impl Collector for Codes {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "problems",
            "Requests that were answered by a problem, by the code of the answer.",
            None,
            MetricType::Counter,
        )?;
        for known in self.few.known.load().iter() {
            let (code, count) = &**known;
            let label = [("code", *code)];
            let mut one = family.encode_family(&label)?;
            one.encode_counter::<NoLabelSet, _, u64>(&count.load(Relaxed), None)?;
        }
        Ok(())
    }
}
