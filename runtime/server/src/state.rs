//! What a server serves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::Evaluated;
use unskew_online::{OnlineError, OnlineStore, ViewKey, Wanted};
use unskew_store::{Applied, FeatureStore, Features, RequestRows, Responder, StoreError};

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
    /// The services that answer by a former plan, and the views for which their newest one waits.
    waiting: BTreeMap<String, Vec<String>>,
}

/// How many former states of the registry are looked through for a plan that can be served.
const FORMER_STATES: usize = 20;

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
    /// What is applied in `store`, each feature service ready to answer: by its newest plan whose
    /// views are all materialized, so that a change of a view does not take its values away before
    /// the new ones are there; by the newest of all where none is.
    ///
    /// A service that uses a view with `online: false` is no error: requests for it are refused.
    /// A later `apply` does not change what is served.
    ///
    /// # Errors
    /// Nothing is applied yet, the registry or a component cannot be read, or the settings of the
    /// online store are not valid. A store that is down is no error.
    pub async fn load(store: &FeatureStore, settings: Settings) -> Result<Self, StoreError> {
        let newest = store.applied().await?;
        let online = store.online()?;
        let project = newest.project().name.clone();
        let mut services = BTreeMap::new();
        let mut waiting = BTreeMap::new();
        for name in newest.project().services.keys() {
            let service = Service::of(&newest, name, &online)?;
            if let Service::Ready(answers) = &service {
                let missing = missing(&*online, &views(&project, [answers.plan()])).await;
                // A store that is down says nothing about former plans either.
                if let Ok(missing) = missing
                    && !missing.is_empty()
                {
                    waiting.insert(name.clone(), missing);
                }
            }
            services.insert(name.clone(), service);
        }
        let mut former = newest.state.number;
        let mut left: Vec<String> = waiting.keys().cloned().collect();
        for _ in 0..FORMER_STATES {
            if left.is_empty() {
                break;
            }
            // A former state that cannot be loaded any more is no reason not to serve.
            let Ok(Some(applied)) = store.applied_before(former) else {
                break;
            };
            former = applied.state.number;
            for name in std::mem::take(&mut left) {
                match former_service(&applied, &name, &online).await {
                    Some(service) => {
                        services.insert(name, service);
                    }
                    None => left.push(name),
                }
            }
        }
        // Those for which nothing better was found wait as well, which `/ready` says of them.
        waiting.retain(|name, _| !left.contains(name));
        Ok(Self::new(settings, services, online, &project).with_waiting(waiting))
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
        let views = views(project, ready.map(|answers| answers.plan()));
        let permits = Arc::new(Semaphore::new(settings.concurrency));
        Self {
            inner: Arc::new(Inner {
                settings,
                services,
                online,
                views,
                permits,
                waiting: BTreeMap::new(),
            }),
        }
    }

    fn with_waiting(mut self, waiting: BTreeMap<String, Vec<String>>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.waiting = waiting;
        }
        self
    }

    /// The services that answer by a former plan, and the views for which their newest one waits.
    pub(crate) fn waiting(&self) -> &BTreeMap<String, Vec<String>> {
        &self.inner.waiting
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
        let missing = missing(&*self.inner.online, &self.inner.views)
            .await
            .map_err(|error| Problem::NotReady(error.to_string()))?;
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.iter().map(|view| format!("`{view}`"));
        Err(Problem::NotReady(format!(
            "nothing is materialized yet for: {}; run `unskew materialize-incremental END`",
            unskew_core::text::list(missing)
        )))
    }
}

impl Service {
    /// A feature service of a state of the registry.
    fn of(
        applied: &Applied,
        name: &str,
        online: &Arc<dyn OnlineStore>,
    ) -> Result<Self, StoreError> {
        let features = Features::Service(name.to_owned());
        match Responder::new(applied, &features, Arc::clone(online)) {
            Ok(responder) => Ok(Self::Ready(Arc::new(responder))),
            Err(StoreError::NotOnline { view }) => Ok(Self::NotOnline { view }),
            Err(error) => Err(error),
        }
    }
}

/// The service of a former state, if it is there and all its views are materialized.
async fn former_service(
    applied: &Applied,
    name: &str,
    online: &Arc<dyn OnlineStore>,
) -> Option<Service> {
    let service = Service::of(applied, name, online).ok()?;
    let Service::Ready(answers) = &service else {
        return None;
    };
    let views = views(&applied.project().name, [answers.plan()]);
    let missing = missing(&**online, &views).await.ok()?;
    missing.is_empty().then_some(service)
}

/// The views that plans look up, each once.
fn views<'a>(project: &str, plans: impl IntoIterator<Item = &'a FeaturePlan>) -> Vec<Arc<ViewKey>> {
    let lookups = plans.into_iter().flat_map(|plan| &plan.lookups);
    let views: BTreeSet<ViewKey> = lookups
        .map(|lookup| ViewKey::of(project, &lookup.view))
        .collect();
    views.into_iter().map(Arc::new).collect()
}

/// The names of those views of which nothing is materialized; all states in one round trip.
async fn missing(
    online: &dyn OnlineStore,
    views: &[Arc<ViewKey>],
) -> Result<Vec<String>, OnlineError> {
    if views.is_empty() {
        online.ping().await?;
        return Ok(Vec::new());
    }
    let asked = views.iter().map(|view| Wanted {
        view: Arc::clone(view),
        entities: Vec::new(),
    });
    let held = online.get(asked.collect()).await?;
    let states = views.iter().zip(&held);
    let missing =
        states.filter(|(_, held)| !held.state.as_ref().is_some_and(|s| s.is_materialized()));
    Ok(missing.map(|(view, _)| view.view.clone()).collect())
}
