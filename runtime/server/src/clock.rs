//! The one place that reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use unskew_core::time;

/// The clock, in microseconds since 1970: the instant of a request that names none.
///
/// A clock outside the years 1 to 9999 counts as the nearest instant within them.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn now() -> i64 {
    let micros = |span: std::time::Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since).min(time::MAX),
        Err(before) => (-micros(before.duration())).max(time::MIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_within_time() {
        assert!(time::check(now()).is_ok());
    }
}
