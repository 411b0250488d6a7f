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
mod compact;
mod compile;
mod delete;
mod difference;
mod error;
mod feature_store;
mod files;
mod materialize;
mod parity;
mod push;
mod responder;
mod retire;
mod sdk;
mod training;

pub use applied::{Applied, Features};
pub use apply::{ApplyWatch, Change, ChangeKind, Changes};
pub use compact::Compaction;
pub use compile::{Built, build_component};
pub use delete::{Delete, Deleted};
pub use error::StoreError;
pub use feature_store::FeatureStore;
pub use materialize::{Gap, Materialize, MaterializeSpan, Materialized, ViewStatus};
pub use parity::{Difference, Marked, Parity, ParityReport, RequestError, RequestPath};
pub use push::{Push, PushTarget, PushTo, Pushed, PushedView, Pusher};
pub use responder::{AnswerObserver, BriefAnswer, RequestRows, Responder};
pub use sdk::write_sdk;
pub use training::TrainingSet;
