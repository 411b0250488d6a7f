//! Who may ask for what, how much at once, and for how long: what stands between the network and
//! the paths.
//!
//! ```text
//! listener ── a place of Settings::connections ── TLS ── Timed: heads, answers and pauses in time
//!                                                          │ HTTP/1.1 or HTTP/2, by hyper
//!                                                          ▼
//!                CORS ── watch ── Admit: headers, token and right, room for the body
//!                                                          │
//!                                                          ▼
//!                  route ── Lanes: a place among all requests, and of the feature service
//! ```
//!
//! What changes while the server runs, the tokens and the certificates, are files that are read
//! again; what cannot be used is refused and what was used before goes on.

mod admit;
mod connection;
mod cors;
mod lanes;
mod listener;
mod reread;
mod rights;
mod room;
mod tls;
mod tokens;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, Method, header};
use rustls::ServerConfig;
use tokio::sync::{Notify, Semaphore};
use tower_http::cors::CorsLayer;

use crate::clock;
use crate::error::Problem;
use crate::settings::Settings;

pub(crate) use admit::AdmitLayer;
pub(crate) use connection::Endless;
pub(crate) use lanes::{Lanes, Place};
pub(crate) use listener::{Wire, serve};
use reread::{Read, Reread};
pub(crate) use rights::{Need, need};
use room::Room;
pub(crate) use room::{Taken, is_no_room};
use tls::TlsBytes;
pub use tls::{TlsError, TlsFiles};
use tokens::Shown;
pub use tokens::{NewToken, Right, TokenEntry, Tokens, TokensError};
pub(crate) use workers::Workers;

/// Files are not read more often than this, whatever is asked for.
const LEAST_POLL: Duration = Duration::from_millis(10);

/// Why a server cannot be guarded as it was told to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An origin.
    #[error("`{0}` is no origin; write it as https://app.example or http://localhost:3000")]
    Origin(String),
}

/// Who may ask, and what there is room for.
pub(crate) struct Gate {
    project: String,
    settings: Settings,
    tokens: Option<Reread<Tokens, Vec<u8>>>,
    tls: Option<Reread<ServerConfig, TlsBytes>>,
    cors: Option<CorsLayer>,
    /// Whether the server is about to end.
    closing: AtomicBool,
    /// Notified when it is.
    closes: Notify,
    lanes: Lanes,
    room: Room,
    /// One for each connection that may be open.
    connections: Arc<Semaphore>,
    counts: Counts,
}

/// What happened at the gate since the server started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections that are open now.
    pub(crate) connections: AtomicU64,
    /// Connections that were closed since their client was too slow.
    pub(crate) slow: AtomicU64,
    /// Handshakes that failed.
    pub(crate) handshakes: AtomicU64,
    /// Times that tokens or certificates could not be read again.
    pub(crate) refused_files: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// The gate of a server of `project`: reads the tokens and the certificates.
    ///
    /// # Errors
    /// A file cannot be read, or is not as it must be.
    pub(crate) fn open(settings: &Settings, project: &str) -> Result<Self, GuardError> {
        let connections = settings.connections.clamp(1, Semaphore::MAX_PERMITS);
        let mut gate = Self {
            project: project.to_owned(),
            settings: settings.clone(),
            tokens: None,
            tls: None,
            cors: cors::layer(&settings.cors_origins)?,
            closing: AtomicBool::new(false),
            closes: Notify::new(),
            lanes: Lanes::new(settings),
            room: Room::new(settings.bodies_bytes, settings.body_bytes),
            connections: Arc::new(Semaphore::new(connections)),
            counts: Counts::default(),
        };
        if let Some(file) = &settings.tokens {
            let bytes = tokens::read_bytes(file)?;
            gate.tokens = Some(Reread::new(Tokens::parse(file, &bytes)?, bytes));
        }
        if let Some(files) = &settings.tls {
            let bytes = TlsBytes::read(files)?;
            gate.tls = Some(Reread::new(bytes.config(files)?, bytes));
        }
        Ok(gate)
    }

    /// Whether tokens are asked for.
    pub(crate) const fn asks_for_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// The places for requests.
    pub(crate) const fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// What happened so far.
    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether the server is about to end: it is not ready, and connections are not kept.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// From now on the server is about to end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.closes.notify_waiters();
    }

    /// Ends when the server is about to end.
    pub(crate) async fn closes(&self) {
        // It hears of what comes after it is made, so nothing is missed.
        let told = self.closes.notified();
        if !self.is_closing() {
            told.await;
        }
    }

    /// Lets pages of other origins ask, if any may.
    pub(crate) const fn cors(&self) -> Option<&CorsLayer> {
        self.cors.as_ref()
    }

    /// What a handshake is made with; `None`: connections have no TLS.
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| Arc::clone(&*tls.load()))
    }

    /// Whether a request may be answered, by its token and what its path needs.
    ///
    /// # Errors
    /// It has no token, or none that is known and valid; or the token is for something else.
    pub(crate) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let Some(tokens) = &self.tokens else {
            return Ok(());
        };
        let right = match rights::need(method, path) {
            Need::Nothing => return Ok(()),
            Need::Metrics if self.settings.open_metrics => return Ok(()),
            Need::Metrics => Right::Read,
            Need::Token(right) => right,
        };
        let token = bearer(headers)?;
        let tokens = tokens.load();
        let entry = match tokens.find(token, clock::now()) {
            Shown::Valid(entry) => entry,
            Shown::Unknown => return Err(Problem::Token("no known token".to_owned())),
            Shown::Expired(entry) => {
                let end = entry.end();
                return Err(Problem::Token(format!("a token that expired at {end}")));
            }
        };
        if let Some(project) = entry.project.as_ref().filter(|it| **it != self.project) {
            return Err(Problem::OtherProject {
                token: entry.name.clone(),
                project: project.clone(),
                here: self.project.clone(),
            });
        }
        if !entry.rights.contains(&right) {
            return Err(Problem::Right {
                token: entry.name.clone(),
                right,
                rights: entry.rights.clone(),
            });
        }
        Ok(())
    }

    /// Reads tokens and certificates again, if they have changed. What cannot be used is refused:
    /// what was used before goes on, and the log says why.
    pub(crate) fn refresh(&self) {
        if let (Some(tokens), Some(file)) = (&self.tokens, &self.settings.tokens) {
            let read = tokens::read_bytes(file).map_err(GuardError::from);
            let parse = |bytes: &Vec<u8>| Ok(Tokens::parse(file, bytes)?);
            self.tell("tokens", tokens.replace(read, parse));
        }
        if let (Some(tls), Some(files)) = (&self.tls, &self.settings.tls) {
            let read = TlsBytes::read(files).map_err(GuardError::from);
            let config = |bytes: &TlsBytes| Ok(bytes.config(files)?);
            self.tell("certificates", tls.replace(read, config));
        }
    }

    fn tell(&self, what: &str, read: Read) {
        match read {
            Read::Same => {}
            Read::New => tracing::info!("new {what} are in use"),
            Read::Refused(reason) => {
                Counts::add(&self.counts.refused_files);
                tracing::warn!(reason, "the {what} cannot be used; those before go on");
            }
        }
    }
}

/// Refreshes the gate every [`Settings::poll`] and whenever `asked` says so, and hands the word on
/// to `next`, for as long as it is polled.
pub(crate) async fn keep_fresh(gate: Arc<Gate>, asked: Arc<Notify>, next: Arc<Notify>) {
    let poll = gate.settings.poll.max(LEAST_POLL);
    loop {
        let told = tokio::select! {
            () = tokio::time::sleep(poll) => false,
            () = asked.notified() => true,
        };
        // Files on a network may take their time.
        let fresh = Arc::clone(&gate);
        let _ = tokio::task::spawn_blocking(move || fresh.refresh()).await;
        if told {
            next.notify_one();
        }
    }
}

/// The token of a request.
fn bearer(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Err(Problem::Token("no token".to_owned()));
    };
    if given.next().is_some() {
        return Err(Problem::Token("more than one `authorization`".to_owned()));
    }
    let wanted = b"bearer ";
    match value.as_bytes().split_at_checked(wanted.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(wanted) => Ok(token.trim_ascii()),
        _ => Err(Problem::Token(
            "an `authorization` that is no bearer token".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests;
