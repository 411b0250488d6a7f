//! The request path: keys and context in, features out.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::{Evaluated, Evaluator};
use unskew_online::OnlineStore;
use unskew_online::lookup::Joiner;

use crate::applied::{Applied, Features};
use crate::error::StoreError;
use crate::feature_store::FeatureStore;

/// Rows of a request.
#[derive(Clone, Debug)]
pub struct RequestRows {
    /// The instant of each row.
    pub as_of: TimestampMicrosecondArray,
    /// The join keys, in the plan's order and of its types.
    pub keys: Vec<ArrayRef>,
    /// The request fields, in the plan's order and of its types.
    pub request: Vec<ArrayRef>,
}

/// A plan that is ready to answer requests. Cheap to clone.
#[derive(Clone)]
pub struct Responder {
    evaluator: Arc<Evaluator>,
    joiner: Arc<Joiner>,
    online: Arc<dyn OnlineStore>,
}

impl FeatureStore {
    /// The wanted features, ready to answer requests.
    ///
    /// # Errors
    /// They cannot be had together, or a view of theirs is not served online.
    pub async fn responder(&self, features: &Features) -> Result<Responder, StoreError> {
        let applied = self.applied().await?;
        Responder::new(&applied, features, self.online()?)
    }
}

impl Responder {
    /// The wanted features of `applied`, looked up in `online`.
    ///
    /// # Errors
    /// They cannot be had together, or a view of theirs is not served online.
    pub fn new(
        applied: &Applied,
        features: &Features,
        online: Arc<dyn OnlineStore>,
    ) -> Result<Self, StoreError> {
        let evaluator = applied.evaluator(features)?;
        let plan = evaluator.plan();
        if let Some(lookup) = plan.lookups.iter().find(|lookup| !lookup.view.online) {
            return Err(StoreError::NotOnline {
                view: lookup.view.name.clone(),
            });
        }
        let joiner = Arc::new(Joiner::new(plan, &applied.project().name));
        Ok(Self {
            evaluator,
            joiner,
            online,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &FeaturePlan {
        self.evaluator.plan()
    }

    /// The plan's digest.
    pub fn digest(&self) -> Digest {
        self.evaluator.digest()
    }

    /// What computes the features.
    pub(crate) fn evaluator(&self) -> &Arc<Evaluator> {
        &self.evaluator
    }

    /// The features of each row. They are computed on the thread that asks: where a component may
    /// take its time, that should be one on which nobody else waits.
    ///
    /// # Errors
    /// The online store is unavailable, or a component failed.
    pub async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError> {
        let online = &*self.online;
        let joined = self
            .joiner
            .join(online, &rows.as_of, &rows.keys, &rows.request)
            .await?;
        Ok(self.evaluator.evaluate(&joined)?)
    }
}
