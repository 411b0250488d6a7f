//! Training sets.

use std::path::PathBuf;
use std::sync::Arc;

use unskew_offline::{Offline, Progress, Summary, TrainingSetRequest};

use crate::applied::Features;
use crate::error::StoreError;
use crate::feature_store::FeatureStore;

/// A training set to be built.
#[derive(Clone)]
pub struct TrainingSet {
    /// The features.
    pub features: Features,
    /// The entity rows: a Parquet or CSV file.
    pub entities: PathBuf,
    /// The Parquet file to write.
    pub out: PathBuf,
    /// Is told how far the work has come.
    pub progress: Arc<dyn Progress>,
}

impl FeatureStore {
    /// Builds a training set: each entity row, and the features as they were at its instant.
    ///
    /// # Errors
    /// The features, the entity rows or the history are wrong, or the file cannot be written; no
    /// file is left then.
    pub async fn training_set(&self, request: TrainingSet) -> Result<Summary, StoreError> {
        let applied = self.applied().await?;
        let request = TrainingSetRequest {
            evaluator: applied.evaluator(&request.features)?,
            components: applied.components().clone(),
            entities: request.entities,
            out: request.out,
            progress: request.progress,
        };
        Ok(self.offline().training_set(request).await?)
    }

    pub(crate) fn offline(&self) -> Offline {
        Offline::new(self.root(), unskew_offline::Settings::default())
    }
}
