//! The only place of the command that reads a clock.

use std::time::Instant;

/// Now, in microseconds since 1970: as the server reads it.
pub(crate) fn now() -> i64 {
    unskew_server::now()
}

/// Measures how long work takes.
#[derive(Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
