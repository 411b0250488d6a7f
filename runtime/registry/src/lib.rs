//! The registry: applied definitions, and components by digest.
//!
//! ```text
//! states/00000000000000000007.json   a state: all definitions, resolved; the greatest number counts
//! components/HEX.wasm                a component, by its sha256
//! ```
//!
//! A state is replaced by compare-and-swap: the next one is created under the next number, which
//! succeeds for one writer only, without a lock that a crash could leave behind. Components are
//! written before the state that names them, and each file is on the disk before it gets its name,
//! so a crash or a power loss in the middle leaves the old state.
//!
//! A registry is a folder; one on an object store, whose conditional put does the same, comes later.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod durable;
mod error;
mod registry;

pub use error::RegistryError;
pub use registry::{Registry, State};
