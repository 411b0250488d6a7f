//! Object stores: from a URL to the store, and from an error of a store to what a user can do.
//!
//! Sources and entity rows may lie in one, and so may the registry. All of them reach it by
//! [`place`], so that the same URL, options and variables of the environment lead to the same store
//! everywhere, and the same mistake is told in the same words.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod error;
mod place;

pub use error::{StoreProblem, is_absent, problem};
pub use place::{Place, StoreOptions, place};
