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
mod object;
mod request;
mod routes;
mod serve;
mod settings;
mod state;

#[cfg(test)]
mod testing;

pub use clock::now;
pub use routes::router;
pub use serve::{ServeError, serve};
pub use settings::Settings;
pub use state::State;
