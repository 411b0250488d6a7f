//! How long to wait before another attempt.

use std::time::Duration;

/// Waits that double, each shortened by chance to between a half and the whole, so that many who
/// lost the same server do not come back to it at the same instant.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits from `first` to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next.min(self.longest);
        self.next = wait.saturating_mul(2);
        wait.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(100));
        for whole in [10, 20, 40, 80, 100, 100, 100] {
            let wait = backoff.next();
            assert!(wait >= ms(whole) / 2 && wait <= ms(whole), "{wait:?}");
        }
        let waits: Vec<_> = (0..10).map(|_| backoff.next()).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
