//! The registry: applied definitions, and components by digest.
//!
//! ```text
//! states/00000000000000000007.json   a state: all definitions, resolved; the greatest number counts
//! components/HEX.wasm                a component, by its sha256
//! conditional-put                    in an object store alone: see below
//! ```
//!
//! It lies in a folder, or in an object store (`s3://BUCKET/PATH`, `gs://…`, `az://…`), where several
//! machines can share it.
//!
//! A state is replaced by compare-and-swap: the next one is created under the next number, which
//! succeeds for one writer only, without a lock that a crash could leave behind. A file system does
//! that, and so does an object store whose put can have a condition. Whether it knows conditions is
//! tried out before each commit, on the object `conditional-put`: one that ignores them would lose an
//! apply without a word. Components are written before the state that names them. In a folder each
//! file is on the disk before it gets its name, so a crash or a power loss in the middle leaves the
//! old state.
//!
//! All that is read is checked: a state by its form and number, a component by its digest.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod error;
mod files;
mod registry;

pub use error::RegistryError;
pub use registry::{Registry, State};
pub use unskew_objects::{StoreOptions, StoreProblem};
