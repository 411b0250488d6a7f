//! How long a call waits for servers that are not there.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use crate::error::OnlineError;

/// The waits between two attempts.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(500);

/// For how long a call is made again while it is unavailable; by default not at all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    within: Duration,
}

impl Patience {
    pub(super) const fn of(within: Duration) -> Self {
        Self { within }
    }

    /// The outcome of `call`, which is made again while it is unavailable, until the time has
    /// passed since its first failure.
    pub(super) async fn wait<T, F>(self, call: impl Fn() -> F) -> Result<T, OnlineError>
    where
        F: Future<Output = Result<T, OnlineError>>,
    {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let mut until = None;
        loop {
            let done = call().await;
            if self.within.is_zero() || !done.as_ref().is_err_and(OnlineError::is_unavailable) {
                return done;
            }
            let now = Instant::now();
            let until = *until.get_or_insert(now + self.within);
            if now >= until {
                return done;
            }
            tokio::time::sleep(backoff.next().min(until - now)).await;
        }
    }
}
