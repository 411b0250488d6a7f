//! From the registry to what is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use unskew_online::OnlineStore;
use unskew_store::{Applied, FeatureStore, Features, Responder, StoreError};

use super::{Served, Service, Watched, missing, views};

/// How many former states of the registry are looked through for a plan that can be served.
const FORMER_STATES: usize = 20;

/// What answers for some features, and the views for which their newest plan waits.
pub(super) struct Chosen {
    pub(super) service: Service,
    pub(super) waiting: Vec<String>,
    /// Which of the states it is of.
    state: usize,
}

impl Served {
    /// What is applied in `store`, each feature service ready to answer: by its newest plan whose
    /// views are all materialized, so that a change of a view does not take its values away before
    /// the new ones are there; by the newest of all where none is.
    ///
    /// A service that uses a view with `online: false` is no error: requests for it are refused.
    ///
    /// # Errors
    /// Nothing is applied yet, the registry or a component cannot be read, or the settings of the
    /// online store are not valid. A store that is down is no error.
    pub(crate) async fn load(store: &FeatureStore) -> Result<Self, StoreError> {
        let online = store.online()?;
        let mut states = vec![store.applied().await?];
        let (mut services, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        let mut left = Vec::new();
        for name in states[0].project().services.keys() {
            let features = Features::Service(name.clone());
            let service = Service::of(&states[0], &features, &online)?;
            // A store that is down says nothing about former plans either.
            if let Ok(missing) = service.missing(&states[0], &*online).await
                && !missing.is_empty()
            {
                left.push((features, name.clone(), missing));
            }
            services.insert(name.clone(), service);
        }
        let mut before = states[0].state.number;
        for _ in 0..FORMER_STATES {
            if left.is_empty() {
                break;
            }
            // A former state that cannot be loaded any more is no reason not to serve.
            let Ok(Some(applied)) = store.applied_before(before).await else {
                break;
            };
            before = applied.state.number;
            let mut used = false;
            for (features, name, missing) in std::mem::take(&mut left) {
                if let Some(service) = Service::of_former(&applied, &features, &online).await {
                    services.insert(name.clone(), service);
                    waiting.insert(name, missing);
                    used = true;
                } else {
                    left.push((features, name, missing));
                }
            }
            if used {
                states.push(applied);
            }
        }
        let project = states[0].project().name.clone();
        Ok(Self::new(&project, services, waiting, online, states))
    }

    /// What takes the place of this when `newest` is applied, or when views are materialized for
    /// which this waits: each service by `newest` if its views are materialized, else by the plan
    /// by which it is served now, else by `newest` all the same.
    ///
    /// # Errors
    /// A service cannot be served by `newest`, or the store does not say what is materialized.
    pub(crate) async fn next(&self, newest: Arc<Applied>) -> Result<Self, StoreError> {
        let online = Arc::clone(&self.online);
        let mut candidates = vec![newest];
        let newest = candidates[0].state.number;
        let former = self
            .states
            .iter()
            .filter(|former| former.state.number != newest);
        candidates.extend(former.map(Arc::clone));
        let (mut services, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        let mut used = vec![false; candidates.len()];
        used[0] = true;
        for name in candidates[0].project().services.keys() {
            let features = Features::Service(name.clone());
            let chosen = choose(&features, &candidates, &online).await?;
            used[chosen.state] = true;
            if !chosen.waiting.is_empty() {
                waiting.insert(name.clone(), chosen.waiting);
            }
            services.insert(name.clone(), chosen.service);
        }
        // Lists of features have no names by which it is known who still asks for them: while one
        // waits, the states by which it may be served are kept.
        let lists = !self.lists.waiting().is_empty();
        let states: Vec<_> = candidates
            .into_iter()
            .zip(used)
            .filter_map(|(state, used)| (used || lists).then_some(state))
            .take(FORMER_STATES)
            .collect();
        let project = states[0].project().name.clone();
        Ok(Self::new(&project, services, waiting, online, states))
    }
}

/// What answers for `features`: their plan of the first of `states` if its views are materialized,
/// else that of the first other one whose views are, else the first all the same.
///
/// # Errors
/// They cannot be had together by the first state, or the store does not say what is materialized.
pub(super) async fn choose(
    features: &Features,
    states: &[Arc<Applied>],
    online: &Arc<dyn OnlineStore>,
) -> Result<Chosen, StoreError> {
    let Some((newest, former)) = states.split_first() else {
        return Err(StoreError::NothingApplied);
    };
    let service = Service::of(newest, features, online)?;
    let waiting = service.missing(newest, &**online).await?;
    if !waiting.is_empty() {
        for (state, former) in (1..).zip(former) {
            if let Some(service) = Service::of_former(former, features, online).await {
                return Ok(Chosen {
                    service,
                    waiting,
                    state,
                });
            }
        }
    }
    Ok(Chosen {
        service,
        // Where nothing better is found, nothing is waited for: it is served as it is.
        waiting: Vec::new(),
        state: 0,
    })
}

impl Service {
    /// Features of a state of the registry.
    fn of(
        applied: &Applied,
        features: &Features,
        online: &Arc<dyn OnlineStore>,
    ) -> Result<Self, StoreError> {
        match Responder::new(applied, features, Arc::clone(online)) {
            Ok(responder) => Ok(Self::Ready(Arc::new(Watched::from(responder)))),
            Err(StoreError::NotOnline { view }) => Ok(Self::NotOnline { view }),
            Err(error) => Err(error),
        }
    }

    /// Features of a former state, if they are there and all their views are materialized.
    async fn of_former(
        applied: &Applied,
        features: &Features,
        online: &Arc<dyn OnlineStore>,
    ) -> Option<Self> {
        let service = Self::of(applied, features, online).ok()?;
        if matches!(service, Self::NotOnline { .. }) {
            return None;
        }
        let missing = service.missing(applied, &**online).await.ok()?;
        missing.is_empty().then_some(service)
    }

    /// The names of its views of which nothing is materialized.
    async fn missing(
        &self,
        applied: &Applied,
        online: &dyn OnlineStore,
    ) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Ready(answers) => {
                let views = views(&applied.project().name, [answers.plan()]);
                Ok(missing(online, &views).await?)
            }
            Self::NotOnline { .. } => Ok(Vec::new()),
        }
    }
}
