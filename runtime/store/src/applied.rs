//! What was applied, ready to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_core::planner::{plan_features, plan_service};
use unskew_core::project::Project;
use unskew_engine::{Component, Evaluator};
use unskew_registry::{Registry, State};

use crate::error::StoreError;
use crate::feature_store::FeatureStore;

/// Which features are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Features {
    /// Those of a feature service.
    Service(String),
    /// Those named one by one, `VIEW:FEATURE`.
    Named {
        /// The names.
        features: Vec<String>,
        /// Whether outputs are called `view__feature`.
        full_feature_names: bool,
    },
}

/// A state of the registry, its components loaded.
pub struct Applied {
    /// The state.
    pub state: State,
    components: BTreeMap<Digest, Arc<Component>>,
}

impl Applied {
    pub(crate) async fn load(
        store: &FeatureStore,
        registry: &Registry,
        state: State,
    ) -> Result<Self, StoreError> {
        let components = store.loaded(registry, state.project.components()).await?;
        Ok(Self { state, components })
    }

    /// The definitions, resolved.
    pub fn project(&self) -> &Project {
        &self.state.project
    }

    /// All components by digest.
    pub fn components(&self) -> &BTreeMap<Digest, Arc<Component>> {
        &self.components
    }

    /// The plan of the wanted features.
    ///
    /// # Errors
    /// They cannot be had together, or are none.
    pub fn plan(&self, features: &Features) -> Result<FeaturePlan, StoreError> {
        Ok(match features {
            Features::Service(name) => plan_service(self.project(), name)?,
            Features::Named {
                features,
                full_feature_names,
            } => plan_features(self.project(), None, features, *full_feature_names)?,
        })
    }

    /// The wanted features, ready to be evaluated.
    ///
    /// # Errors
    /// They cannot be had together, or are none.
    pub fn evaluator(&self, features: &Features) -> Result<Arc<Evaluator>, StoreError> {
        let plan = Arc::new(self.plan(features)?);
        Ok(Arc::new(Evaluator::new(plan, &self.components)?))
    }
}
