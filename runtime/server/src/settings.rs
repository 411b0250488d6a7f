//! What a server can be told.

use std::time::Duration;

/// The limits of a server: what keeps one client from taking it from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most bytes that a body may have; more is answered with 413. Default: 10 MiB.
    pub body_bytes: usize,
    /// The most rows that a request may have; more is answered with 413. It bounds the memory of an
    /// answer, which a short body could otherwise make as large as it likes. Default: 10,000.
    pub rows: usize,
    /// How long a body may take to arrive, and how long an answer may then take. It is longer than
    /// one call of a component may take, so that a component that loops is named as such.
    /// Default: 30 s.
    pub timeout: Duration,
    /// How many requests are answered at once; others wait for their turn, within their timeout.
    /// It bounds memory and threads. Default: 256.
    pub concurrency: usize,
    /// How long a shutdown waits for requests that have begun. Default: 30 s.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            rows: 10_000,
            timeout: Duration::from_secs(30),
            concurrency: 256,
            grace: Duration::from_secs(30),
        }
    }
}
