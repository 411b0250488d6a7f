//! `FeatureStore`: what the parts do together.
//!
//! ```text
//! definitions + components ── apply ──▶ registry ──▶ Applied ──┬── training_set
//!                                                             ├── materialize ──▶ online store
//!                                                             ├── Responder::answer
//!                                                             └── parity: the two above, compared
//! ```
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod applied;
mod apply;
mod compile;
mod difference;
mod error;
mod feature_store;
mod files;
mod materialize;
mod parity;
mod responder;
mod sdk;
mod training;

pub use applied::{Applied, Features};
pub use apply::{ApplyWatch, Change, ChangeKind, Changes};
pub use compile::{Built, build_component};
pub use error::StoreError;
pub use feature_store::FeatureStore;
pub use materialize::{Gap, Materialize, MaterializeSpan, Materialized, ViewStatus};
pub use parity::{Difference, Parity, ParityReport, RequestError, RequestPath};
pub use responder::{RequestRows, Responder};
pub use sdk::write_sdk;
pub use training::TrainingSet;
