//! Feast's interface: what its HTTP and its gRPC clients ask for, by the same path as `/online`.
//!
//! ```text
//! POST /get-online-features ── request::Request ──┐                              ┌── answer::write
//!                                                 ├── Wanted ── rows ── Turn ────┤
//! gRPC GetOnlineFeatures ───── grpc::features ────┘                              └── grpc::features
//! ```
//!
//! What Feast has no word for is said in the words that it has: a row that is not available yet,
//! and a view of which nothing is materialized, are `NOT_FOUND`; an instant is in whole seconds.
//! The instant of a request is the clock.

mod answer;
mod columns;
mod features;
mod form;
mod push;
mod refusal;
mod request;
mod rows;

use std::sync::Arc;

use crate::error::Problem;
use crate::served::{Answers, FeatureList, Served};

pub(crate) use columns::{Column, Origin, columns, events, status};
pub(crate) use features::get_online_features;
pub(crate) use form::seconds;
pub(crate) use push::{Rows, Sent, push, send, write_to_online_store};
pub(crate) use rows::{Given, rows};

/// The features that a client of Feast wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Features {
    /// Those of a feature service.
    Service(String),
    /// These, `VIEW:FEATURE` or `TRANSFORMATION:OUTPUT`.
    Named(Vec<String>),
}

/// What a client of Feast wants, but for the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The features.
    pub(crate) features: Features,
    /// Whether an output is called `view__feature`, whatever a feature service says about it.
    pub(crate) full_feature_names: bool,
    /// Whether the answer names the views that it comes from.
    pub(crate) views: bool,
}

impl Wanted {
    /// What answers.
    ///
    /// # Errors
    /// There is no such feature service, or the features cannot be had together or served.
    pub(crate) fn answers(&self, served: &Served) -> Result<Arc<dyn Answers>, Problem> {
        match &self.features {
            Features::Service(name) => served.service(name),
            Features::Named(features) => {
                let list = FeatureList {
                    features: features.clone(),
                    full_feature_names: self.full_feature_names,
                };
                served.list(&list)
            }
        }
    }
}

#[cfg(test)]
mod tests;
