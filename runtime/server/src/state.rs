//! What a server serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::Evaluated;
use unskew_online::{OnlineStore, ViewKey, Wanted};
use unskew_store::{FeatureStore, Features, RequestRows, Responder, StoreError};

use crate::error::Problem;
use crate::settings::Settings;

/// What a server serves: the feature services of one state of the registry, each ready to answer.
///
/// Cheap to clone; all clones share one state.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    services: BTreeMap<String, Service>,
    online: Arc<dyn OnlineStore>,
    /// The views of all services that can be served, each once, by the name of the view.
    views: Vec<Arc<ViewKey>>,
    permits: Arc<Semaphore>,
}

/// A feature service.
#[derive(Clone)]
pub(crate) enum Service {
    /// It answers.
    Ready(Arc<dyn Answers>),
    /// It cannot, since this view has `online: false`.
    NotOnline { view: String },
}

/// A plan that is ready to answer requests.
#[async_trait]
pub(crate) trait Answers: Send + Sync {
    /// The plan.
    fn plan(&self) -> &FeaturePlan;

    /// The plan's digest.
    fn digest(&self) -> Digest;

    /// The features of each row.
    ///
    /// # Errors
    /// The online store is unavailable, or a component failed.
    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError>;
}

#[async_trait]
impl Answers for Responder {
    fn plan(&self) -> &FeaturePlan {
        Self::plan(self)
    }

    fn digest(&self) -> Digest {
        Self::digest(self)
    }

    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError> {
        Self::answer(self, rows).await
    }
}

impl State {
    /// The current state of the registry of `store`, each feature service ready to answer.
    ///
    /// A service that uses a view with `online: false` is no error: requests for it are refused.
    /// A later `apply` does not change what is served.
    ///
    /// # Errors
    /// Nothing is applied yet, the registry or a component cannot be read, or the settings of the
    /// online store are not valid. A store that is down is no error.
    pub async fn load(store: &FeatureStore, settings: Settings) -> Result<Self, StoreError> {
        let applied = store.applied().await?;
        let online = store.online()?;
        let mut services = BTreeMap::new();
        for name in applied.project().services.keys() {
            let features = Features::Service(name.clone());
            let service = match Responder::new(&applied, &features, Arc::clone(&online)) {
                Ok(responder) => Service::Ready(Arc::new(responder)),
                Err(StoreError::NotOnline { view }) => Service::NotOnline { view },
                Err(error) => return Err(error),
            };
            services.insert(name.clone(), service);
        }
        Ok(Self::new(
            settings,
            services,
            online,
            &applied.project().name,
        ))
    }

    pub(crate) fn new(
        settings: Settings,
        services: BTreeMap<String, Service>,
        online: Arc<dyn OnlineStore>,
        project: &str,
    ) -> Self {
        let ready = services.values().filter_map(|service| match service {
            Service::Ready(answers) => Some(answers),
            Service::NotOnline { .. } => None,
        });
        let mut views: Vec<ViewKey> = ready
            .flat_map(|answers| &answers.plan().lookups)
            .map(|lookup| ViewKey::of(project, &lookup.view))
            .collect();
        views.sort();
        views.dedup();
        let permits = Arc::new(Semaphore::new(settings.concurrency));
        Self {
            inner: Arc::new(Inner {
                settings,
                services,
                online,
                views: views.into_iter().map(Arc::new).collect(),
                permits,
            }),
        }
    }

    /// The limits.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// One for each request that may be answered at once.
    pub(crate) fn permits(&self) -> &Arc<Semaphore> {
        &self.inner.permits
    }

    /// The feature service called `name`.
    ///
    /// # Errors
    /// There is none, or it cannot be served.
    pub(crate) fn service(&self, name: &str) -> Result<Arc<dyn Answers>, Problem> {
        match self.inner.services.get(name) {
            Some(Service::Ready(answers)) => Ok(Arc::clone(answers)),
            Some(Service::NotOnline { view }) => Err(Problem::NotOnline {
                service: name.to_owned(),
                view: view.clone(),
            }),
            None => Err(Problem::UnknownService {
                name: crate::object::shortened(name),
                valid: self.inner.services.keys().cloned().collect(),
            }),
        }
    }

    /// Whether the online store answers and holds rows of every view that is served.
    ///
    /// # Errors
    /// Names what is waited for.
    pub(crate) async fn check_ready(&self) -> Result<(), Problem> {
        let online = &self.inner.online;
        let asked: Vec<Wanted> = self
            .inner
            .views
            .iter()
            .map(|view| Wanted {
                view: Arc::clone(view),
                entities: Vec::new(),
            })
            .collect();
        let held = async {
            if asked.is_empty() {
                online.ping().await?;
            }
            // All states in one round trip.
            online.get(asked).await
        };
        let held = held
            .await
            .map_err(|error| Problem::NotReady(error.to_string()))?;
        let missing: Vec<String> = self
            .inner
            .views
            .iter()
            .zip(&held)
            .filter(|(_, held)| !held.state.as_ref().is_some_and(|s| s.is_materialized()))
            .map(|(view, _)| format!("`{}`", view.view))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Problem::NotReady(format!(
            "nothing is materialized yet for: {}; run `unskew materialize-incremental END`",
            unskew_core::text::list(missing)
        )))
    }
}
