//! What must hold for any bytes whatever: those that a store holds, and those that a client sends.
//!
//! `fuzz/` looks for bytes for which it does not; `tests/fuzzed.rs` tries those that were kept.

mod answers;
mod connection;
pub mod http;
mod repository;
pub mod stored;
