//! The circuit breaker of a server.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::error::OnlineError;
use crate::store::Circuit;

const CLOSED: u8 = 0;
const HALF_OPEN: u8 = 1;
const OPEN: u8 = 2;

/// Counts failures in a row; after so many of them calls are turned away until a probe has found
/// the server there again.
///
/// What it costs a call while all is well is two loads.
pub(super) struct Breaker {
    state: AtomicU8,
    limit: u32,
    in_a_row: AtomicU32,
    in_all: AtomicU64,
    /// The last failure.
    cause: ArcSwapOption<OnlineError>,
    /// When the next probe is sent, in milliseconds since `start`.
    next: AtomicU64,
    start: Instant,
    probing: AtomicBool,
}

impl Breaker {
    /// Opens after `limit` failures in a row.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            state: AtomicU8::new(CLOSED),
            limit,
            in_a_row: AtomicU32::new(0),
            in_all: AtomicU64::new(0),
            cause: ArcSwapOption::empty(),
            next: AtomicU64::new(0),
            start: Instant::now(),
            probing: AtomicBool::new(false),
        }
    }

    pub(super) fn circuit(&self) -> Circuit {
        match self.state.load(Ordering::Acquire) {
            CLOSED => Circuit::Closed,
            HALF_OPEN => Circuit::HalfOpen,
            _ => Circuit::Open,
        }
    }

    pub(super) fn failures(&self) -> u64 {
        self.in_all.load(Ordering::Relaxed)
    }

    /// Why a call is turned away; `None` if it may be sent.
    pub(super) fn turned_away(&self) -> Option<OnlineError> {
        if self.circuit() == Circuit::Closed {
            return None;
        }
        let now = self.start.elapsed().as_millis() as u64;
        let wait = self.next.load(Ordering::Relaxed).saturating_sub(now);
        let when = format!("circuit open; next attempt in {wait} ms");
        Some(match self.cause.load().as_deref() {
            Some(OnlineError::Unavailable { store, reason }) => OnlineError::Unavailable {
                store: store.clone(),
                reason: format!("{reason} ({when})"),
            },
            Some(OnlineError::Refused { store, reason }) => OnlineError::Refused {
                store: store.clone(),
                reason: format!("{reason} ({when})"),
            },
            Some(other) => other.clone(),
            None => OnlineError::Unavailable {
                store: String::new(),
                reason: when,
            },
        })
    }

    /// A call was answered.
    pub(super) fn succeeded(&self) {
        // Most find it so already, and a write would take the line from the other threads.
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// A call or an attempt to connect failed. Says whether the circuit is open now.
    pub(super) fn failed(&self, cause: OnlineError) -> bool {
        self.in_all.fetch_add(1, Ordering::Relaxed);
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if self.circuit() != Circuit::Closed {
            return true;
        }
        if in_a_row < self.limit {
            return false;
        }
        self.cause.store(Some(std::sync::Arc::new(cause)));
        self.state.store(OPEN, Ordering::Release);
        true
    }

    /// Claims to be the one who probes; `None` if somebody does, or there is nothing to probe for.
    pub(super) fn probe(self: &std::sync::Arc<Self>) -> Option<Probe> {
        if self.probing.swap(true, Ordering::AcqRel) {
            return None;
        }
        let probe = Probe {
            breaker: std::sync::Arc::clone(self),
        };
        // Another may have probed, and closed it, since the caller was turned away.
        (self.circuit() != Circuit::Closed).then_some(probe)
    }
}

/// The right to probe, and to close the circuit. It may be lost with the runtime in which it was
/// to be used; then somebody else may claim it.
pub(super) struct Probe {
    breaker: std::sync::Arc<Breaker>,
}

impl Probe {
    /// The next attempt is made after `wait`.
    pub(super) fn waits(&self, wait: Duration) {
        let next = (self.breaker.start.elapsed() + wait).as_millis() as u64;
        self.breaker.next.store(next, Ordering::Relaxed);
        self.breaker.state.store(OPEN, Ordering::Release);
    }

    /// An attempt is being made.
    pub(super) fn tries(&self) {
        self.breaker.state.store(HALF_OPEN, Ordering::Release);
    }

    /// It failed.
    pub(super) fn failed(&self, cause: OnlineError) {
        self.breaker.in_all.fetch_add(1, Ordering::Relaxed);
        self.breaker.cause.store(Some(std::sync::Arc::new(cause)));
    }

    /// The server is there.
    pub(super) fn succeeded(self) {
        self.breaker.in_a_row.store(0, Ordering::Relaxed);
        self.breaker.state.store(CLOSED, Ordering::Release);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.breaker.probing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn failure() -> OnlineError {
        OnlineError::Unavailable {
            store: "h:1".to_owned(),
            reason: "gone".to_owned(),
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_alone() {
        let breaker = Breaker::new(3);
        for _ in 0..5 {
            assert!(!breaker.failed(failure()));
            assert!(!breaker.failed(failure()));
            breaker.succeeded();
        }
        assert!(breaker.turned_away().is_none());
        let opened: Vec<bool> = (0..4).map(|_| breaker.failed(failure())).collect();
        assert_eq!(opened, [false, false, true, true]);
        assert_eq!(breaker.failures(), 14);
        let message = breaker.turned_away().unwrap().to_string();
        assert!(
            message.contains("h:1 is unavailable: gone (circuit open; next attempt in "),
            "{message}"
        );
        // A late answer to an earlier call proves nothing.
        breaker.succeeded();
        assert_eq!(breaker.circuit(), Circuit::Open);
    }

    #[test]
    fn one_probes_and_its_success_closes() {
        let breaker = Arc::new(Breaker::new(1));
        breaker.failed(failure());
        let probe = breaker.probe().unwrap();
        assert!(breaker.probe().is_none());
        probe.waits(Duration::from_secs(9));
        assert!(
            breaker
                .turned_away()
                .unwrap()
                .to_string()
                .contains("next attempt in ")
        );
        probe.tries();
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        assert!(breaker.turned_away().is_some());
        probe.failed(failure());
        probe.waits(Duration::ZERO);
        assert_eq!((breaker.circuit(), breaker.failures()), (Circuit::Open, 2));
        // Whoever was probing is gone without having closed it: the next may.
        drop(probe);
        breaker.probe().unwrap().succeeded();
        assert!(breaker.turned_away().is_none());
        // Who was turned away before that comes too late to open it again.
        assert!(breaker.probe().is_none());
        breaker.failed(failure());
        assert!(breaker.probe().is_some());
    }
}
