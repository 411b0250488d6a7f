//! The request path: keys and context in, features out.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::{Evaluated, Evaluator, Observer};
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

/// Is told how far an answer is, while it is computed: first of what is here, then of the
/// evaluation.
pub trait AnswerObserver: Observer + Send {
    /// The rows have come from the online store.
    fn fetched(&mut self) {}

    /// They are decoded, and the evaluation begins.
    fn joined(&mut self) {}
}

impl AnswerObserver for () {}

/// An answer for which components had little time.
#[derive(Debug)]
pub enum BriefAnswer {
    /// That was enough.
    Done(Evaluated),
    /// It was not: what [`Responder::finish`] has to be given, on a thread where that may take long.
    Unfinished(RecordBatch),
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
        let joiner = Joiner::new(plan, &applied.project().name).with_layout(evaluator.layout());
        Ok(Self {
            evaluator,
            joiner: Arc::new(joiner),
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
        self.answer_observed(rows, &mut ()).await
    }

    /// As [`Responder::answer`], and tells the observer how far it is.
    ///
    /// # Errors
    /// As [`Responder::answer`].
    pub async fn answer_observed<O: AnswerObserver>(
        &self,
        rows: &RequestRows,
        observer: &mut O,
    ) -> Result<Evaluated, StoreError> {
        let joined = self.join(rows, observer).await?;
        self.finish(&joined, observer)
    }

    /// The features of each row, if components take a moment for them, as
    /// [`Evaluator::evaluate_briefly`] has it: for a thread on which others wait.
    ///
    /// # Errors
    /// As [`Responder::answer`].
    pub async fn answer_briefly<O: AnswerObserver>(
        &self,
        rows: &RequestRows,
        observer: &mut O,
    ) -> Result<BriefAnswer, StoreError> {
        let joined = self.join(rows, observer).await?;
        let done = self.evaluator.evaluate_briefly(&joined, observer)?;
        Ok(match done {
            Some(evaluated) => BriefAnswer::Done(evaluated),
            None => BriefAnswer::Unfinished(joined),
        })
    }

    /// The features of the rows of several requests that were joined, with one call of each
    /// component, as [`Evaluator::evaluate_together`] has it.
    pub fn finish_together(
        &self,
        joined: &[RecordBatch],
        observer: impl Observer,
    ) -> Option<Vec<Evaluated>> {
        self.evaluator.evaluate_together(joined, observer)
    }

    /// The features of rows for which components had too little time.
    ///
    /// # Errors
    /// A component failed.
    pub fn finish(
        &self,
        joined: &RecordBatch,
        observer: impl Observer,
    ) -> Result<Evaluated, StoreError> {
        Ok(self.evaluator.evaluate_observed(joined, observer)?)
    }

    /// What the online store has for the rows, and their own columns: what components are given.
    ///
    /// # Errors
    /// The online store is unavailable.
    pub async fn join<O: AnswerObserver>(
        &self,
        rows: &RequestRows,
        observer: &mut O,
    ) -> Result<RecordBatch, StoreError> {
        let fetched = || observer.fetched();
        let RequestRows {
            as_of,
            keys,
            request,
        } = rows;
        let joined = self
            .joiner
            .join_observed(&*self.online, as_of, keys, request, fetched)
            .await?;
        observer.joined();
        Ok(joined)
    }
}
