//! Training sets.

use std::path::PathBuf;
use std::sync::Arc;

use unskew_offline::{
    EntitySource, Offline, Output, Progress, Settings, Summary, Target, TrainingSetRequest,
    plan_file,
};

use crate::applied::{Applied, Features};
use crate::error::StoreError;
use crate::feature_store::FeatureStore;

/// A training set to be built.
#[derive(Clone)]
pub struct TrainingSet {
    /// The features.
    pub features: Features,
    /// Where the entity rows come from.
    pub entities: EntitySource,
    /// Where the training set goes.
    pub out: Output,
    /// How many bytes of memory the work may take, about; `None`: as many as it likes.
    pub memory_limit: Option<usize>,
    /// Is told how far the work has come.
    pub progress: Arc<dyn Progress>,
}

impl FeatureStore {
    /// Builds a training set: each entity row, and the features as they were at its instant.
    ///
    /// # Errors
    /// The features, the entity rows or the history are wrong, or the target exists or cannot be
    /// written; nothing is left of it then.
    pub async fn training_set(&self, request: TrainingSet) -> Result<Summary, StoreError> {
        let applied = self.applied().await?;
        self.check_out(&request, &applied).await?;
        let offline = self.offline_with(Settings {
            memory_limit: request.memory_limit,
            ..Settings::default()
        });
        let request = TrainingSetRequest {
            evaluator: applied.evaluator(&request.features)?,
            components: applied.components().clone(),
            entities: request.entities,
            out: request.out,
            progress: request.progress,
        };
        Ok(offline.training_set(request).await?)
    }

    /// Refuses to write where entity rows or history lie.
    async fn check_out(&self, request: &TrainingSet, applied: &Applied) -> Result<(), StoreError> {
        let Some(out) = request.out.target.path() else {
            return Ok(());
        };
        let refuse = |why: String| {
            Err(StoreError::Out {
                out: out.to_owned(),
                why,
            })
        };
        if let Err(why) = request.out.check() {
            return refuse(why);
        }
        let mut written = vec![out.to_owned()];
        if let Target::Csv(csv) = &request.out.target {
            written.push(plan_file(csv));
        }
        // What is not there yet overwrites nothing, and what is has one real path.
        let written: Vec<PathBuf> = written
            .iter()
            .filter_map(|path| path.canonicalize().ok())
            .collect();
        if written.is_empty() {
            return Ok(());
        }
        // A folder is written over with all that is in it.
        let is_written = |file: &PathBuf| written.iter().any(|path| file.starts_with(path));
        let offline = self.offline();
        if let EntitySource::Files(path) = &request.entities
            && offline.entity_files(path).await?.iter().any(is_written)
        {
            return refuse("the entity rows are there; name another place".to_owned());
        }
        for lookup in &applied.plan(&request.features)?.lookups {
            let source = &lookup.view.source;
            if offline.source_files(source)?.iter().any(is_written) {
                return refuse(format!(
                    "source `{}` has a file there; name another place",
                    source.name
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn offline(&self) -> Offline {
        self.offline_with(Settings::default())
    }

    fn offline_with(&self, settings: Settings) -> Offline {
        Offline::new(self.root(), settings)
    }
}
