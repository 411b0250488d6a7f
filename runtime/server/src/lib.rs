//! Unskew over HTTP: the server, and the client with which `parity` asks one.
//!
//! ```text
//! body ── body::read ── Request::read ── Request::rows ── Responder::answer ── answer::write ── body
//!              │              │                │                  │
//!              └──────────────┴── Problem ─────┴──────────────────┘
//!                                   │ one function gives each its status and code
//!                                   ▼
//!                      {"error": {"code", "message"}}
//! ```
//!
//! A request's values are read from their own digits and an answer's are written exactly, both by
//! `unskew_core::json`: no value passes through a general JSON number. The clock is read in
//! [`now`] and nowhere else.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

pub mod client;

mod answer;
mod body;
mod clock;
mod error;
mod feast;
mod grpc;
mod guard;
mod http;
mod object;
mod reload;
mod request;
mod retire;
mod serve;
mod served;
mod settings;
mod state;
mod watch;
mod work;

#[cfg(test)]
mod testing;

pub use clock::now;
pub use guard::{GuardError, NewToken, Right, TlsError, TlsFiles, TokenEntry, Tokens, TokensError};
pub use serve::{Listeners, ServeError, Server, Signals};
pub use settings::Settings;
pub use watch::{FeatureLogSettings, Sample};
