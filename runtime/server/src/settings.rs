//! What a server can be told.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use tracing::Level;

use crate::guard::TlsFiles;
use crate::watch::FeatureLogSettings;

/// The limits of a server: what keeps one client from taking it from all others.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The most bytes that a body may have; more is answered with 413. Default: 10 MiB.
    pub body_bytes: usize,
    /// The most bytes that all bodies larger than 64 KiB may take together while they are read and
    /// answered; what is beyond is answered with 503. Default: 256 MiB.
    pub bodies_bytes: usize,
    /// The most rows that a request may have; more is answered with 400. It bounds the memory of an
    /// answer, which a short body could otherwise make as large as it likes. Default: 10,000.
    pub rows: usize,
    /// How long a body may take to arrive, and how long an answer may then take. It is longer than
    /// one call of a component may take, so that a component that loops is named as such.
    /// Default: 30 s.
    pub timeout: Duration,
    /// How many requests are answered at once; others wait for their turn. It bounds memory and
    /// threads. Default: 256.
    pub concurrency: usize,
    /// How many requests of one feature service are answered at once of those for which components
    /// take long, so that they leave others their share; others wait for their turn. Components
    /// only compute, and the threads of more than keep the cores busy would take the time of those
    /// that answer everything else. Default: two for each core, and at most 16, which is half of what
    /// the engine's pool of instances takes.
    pub component_share: usize,
    /// How many requests wait for their turn, at the server and at each feature service; more are
    /// answered with 503 at once. Default: 1,024.
    pub queue: usize,
    /// How long a request waits for its turn before it is answered with 503. Default: 1 s.
    pub queue_timeout: Duration,
    /// How many connections are open at once, at all ports together; others wait in the system's
    /// queue, without an answer, until one ends. Default: 10,000.
    pub connections: usize,
    /// The most bytes of a request's line and headers; more is answered with 431. Default: 32 KiB.
    pub header_bytes: usize,
    /// The most headers of a request; more is answered with 431. Default: 100.
    pub headers: usize,
    /// How long the head of a request may take to arrive, and a TLS handshake; then the connection
    /// is closed. Default: 10 s.
    pub header_timeout: Duration,
    /// How long a connection may be kept without a request. Default: 75 s.
    pub idle_timeout: Duration,
    /// How long connections are accepted after the server was told to end and says that it is not
    /// ready, so that load balancers can notice. Default: 0.
    pub drain: Duration,
    /// How long a shutdown waits for requests that have begun. Default: 30 s.
    pub grace: Duration,
    /// How often the server looks for a newer state of the registry. Default: 5 s.
    pub poll: Duration,
    /// How long rows of a former view digest stay in the online store after this server has moved
    /// on, for other servers that have not; `None`: for ever. Default: 1 h.
    pub former_rows: Option<Duration>,
    /// The file of the tokens that clients show; read again when it changes. `None`: anybody may do
    /// anything, which is refused beyond this machine. Default: none.
    pub tokens: Option<PathBuf>,
    /// Serves other machines without tokens. Default: no.
    pub insecure_no_auth: bool,
    /// Gives `/metrics` to anybody; otherwise a token with the right to read is needed. Default: no.
    pub open_metrics: bool,
    /// The files of TLS, read again when they change; `None`: no TLS. Default: none.
    pub tls: Option<TlsFiles>,
    /// The origins whose pages may ask from a browser, such as `https://app.example`. Default: none.
    pub cors_origins: Vec<String>,
    /// The level at which each request is a line of the log; `None`: no line. Default: DEBUG.
    pub request_level: Option<Level>,
    /// Where what is served is logged; `None`: nowhere. Default: none.
    pub feature_log: Option<FeatureLogSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            bodies_bytes: 256 << 20,
            rows: 10_000,
            timeout: Duration::from_secs(30),
            concurrency: 256,
            component_share: (2 * cores()).min(16),
            queue: 1_024,
            queue_timeout: Duration::from_secs(1),
            connections: 10_000,
            header_bytes: 32 << 10,
            headers: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            drain: Duration::ZERO,
            grace: Duration::from_secs(30),
            poll: Duration::from_secs(5),
            former_rows: Some(Duration::from_secs(3600)),
            tokens: None,
            insecure_no_auth: false,
            open_metrics: false,
            tls: None,
            cors_origins: Vec::new(),
            request_level: Some(Level::DEBUG),
            feature_log: None,
        }
    }
}

/// How many threads run at once.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
