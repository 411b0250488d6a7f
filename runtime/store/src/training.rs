//! Training sets.

use std::path::PathBuf;
use std::sync::Arc;

use unskew_offline::{Offline, Progress, Summary, TrainingSetRequest};

use crate::applied::{Applied, Features};
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
        self.check_out(&request, &applied)?;
        let request = TrainingSetRequest {
            evaluator: applied.evaluator(&request.features)?,
            components: applied.components().clone(),
            entities: request.entities,
            out: request.out,
            progress: request.progress,
        };
        Ok(self.offline().training_set(request).await?)
    }

    /// Refuses to write where entity rows or history lie, and under a name that says it were no
    /// Parquet.
    fn check_out(&self, request: &TrainingSet, applied: &Applied) -> Result<(), StoreError> {
        let out = &request.out;
        let refuse = |why: String| {
            Err(StoreError::Out {
                out: out.clone(),
                why,
            })
        };
        if !out
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
        {
            return refuse(
                "a training set is Parquet; name a file that ends in .parquet".to_owned(),
            );
        }
        // A file that is not there yet overwrites nothing, and one that is has one real path.
        let Ok(real) = out.canonicalize() else {
            return Ok(());
        };
        if request
            .entities
            .canonicalize()
            .is_ok_and(|entities| entities == real)
        {
            return refuse("these are the entity rows; name another file".to_owned());
        }
        for lookup in &applied.plan(&request.features)?.lookups {
            let source = &lookup.view.source;
            if self.offline().source_files(source)?.contains(&real) {
                return refuse(format!(
                    "it is a file of source `{}`; name another file",
                    source.name
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn offline(&self) -> Offline {
        Offline::new(self.root(), unskew_offline::Settings::default())
    }
}
