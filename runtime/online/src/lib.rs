//! The online store: the row of each entity that counts now, and how requests find it.
//!
//! ```text
//! materialize ── put, update_state ──▶ ┌─────────────────────────┐
//!                                      │ dyn OnlineStore         │
//!                                      │   embedded (LMDB)       │
//!                                      │   Redis                 │
//! serve ── Joiner::join ◀── get ────── └─────────────────────────┘
//!              │
//!              ▼ joined batch, as `core::plan::Layout` documents it
//!          engine::evaluate
//! ```
//!
//! A store knows nothing of time but expiry, and nothing of types: it compares and keeps bytes.
//! [`lookup`] turns keys into rows into columns; whether a row counts is for `evaluate` to say.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

pub mod lookup;

mod embedded;
mod error;
mod expiry;
mod key;
mod lineage;
mod redis;
mod store;

pub use error::OnlineError;
pub use expiry::expires_at;
pub use key::ViewKey;
pub use lineage::Lineage;
pub use store::{
    Begun, Circuit, Held, MAX_ROW_BYTES, OnlineSettings, OnlineStore, PutSummary, StoreHealth,
    StoredRow, ViewState, Wanted, connect, patient,
};
