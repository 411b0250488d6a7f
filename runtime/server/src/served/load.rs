//! From the registry to what is served.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use unskew_online::{OnlineError, OnlineStore};
use unskew_store::{Applied, FeatureStore, Features, Responder, StoreError};

use super::lists::{FeatureList, Lists, Planned};
use super::materialized::Materialized;
use super::{Answers, Served, Service, Watched, views};
use crate::error::Problem;

/// How many former states of the registry are looked through for a plan that can be served.
const FORMER_STATES: usize = 20;

/// What answers for some features, and the views for which their newest plan waits.
struct Chosen {
    service: Service,
    waiting: Vec<String>,
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
    /// online store are not valid. A store that is down is no error; see [`Served::is_unsure`].
    pub(crate) async fn load(store: &FeatureStore) -> Result<Self, StoreError> {
        Self::load_over(store, store.online()?).await
    }

    /// As [`Served::load`], of this online store.
    pub(crate) async fn load_over(
        store: &FeatureStore,
        online: Arc<dyn OnlineStore>,
    ) -> Result<Self, StoreError> {
        let newest = store.applied().await?;
        match with_former(store, &newest, &*online).await {
            Ok((states, materialized)) => Self::of(states, Some(materialized), online, Vec::new()),
            // A store that is down says nothing about former plans either.
            Err(_) => Self::of(vec![newest], None, online, Vec::new()),
        }
    }

    /// What takes the place of this when `newest` is applied, or when views are materialized for
    /// which this waits: each service by `newest` if its views are materialized, else by the plan
    /// by which it is served now, else by `newest` all the same. Lists of features that were asked
    /// for are taken along.
    ///
    /// # Errors
    /// A service cannot be served by `newest`, or the store does not say what is materialized.
    pub(crate) async fn next(&self, newest: Arc<Applied>) -> Result<Self, StoreError> {
        let number = newest.state.number;
        let former = self.states.iter().map(Arc::clone);
        let former = former.filter(|former| former.state.number != number);
        let states: Vec<_> = std::iter::once(newest).chain(former).collect();
        let projects = states.iter().map(|state| state.project());
        let materialized = Materialized::of(projects, &*self.online).await?;
        let online = Arc::clone(&self.online);
        Self::of(states, Some(materialized), online, self.lists.asked())
    }

    /// The services of the first of `states`, and the lists that were `asked` for, each by the
    /// first of the states whose views are materialized; by the first state, if `materialized` is
    /// not known.
    fn of(
        states: Vec<Arc<Applied>>,
        mut materialized: Option<Materialized>,
        online: Arc<dyn OnlineStore>,
        asked: Vec<Arc<FeatureList>>,
    ) -> Result<Self, StoreError> {
        for component in states.iter().flat_map(|state| state.components().values()) {
            component.warm();
        }
        let choose =
            |features: &Features| choose(features, &states, materialized.as_ref(), &online);
        let (mut services, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        let mut used = BTreeSet::from([0]);
        for name in states[0].project().services.keys() {
            let chosen = choose(&Features::Service(name.clone()))?;
            used.insert(chosen.state);
            if !chosen.waiting.is_empty() {
                waiting.insert(name.clone(), chosen.waiting);
            }
            services.insert(name.clone(), chosen.service);
        }
        let mut lists = HashMap::new();
        for list in asked {
            // One that cannot be had any more is told so when it is asked for.
            if let Ok(chosen) = choose(&list.features())
                && let Service::Ready(answers) = chosen.service
            {
                used.insert(chosen.state);
                let waiting = chosen.waiting;
                lists.insert(list, Planned { answers, waiting });
            }
        }
        if let Some(materialized) = &materialized {
            used.extend(of_lists(&states, materialized));
        }
        let states: Vec<_> = (0..)
            .zip(states)
            .filter_map(|(index, state)| used.contains(&index).then_some(state))
            .take(FORMER_STATES)
            .collect();
        if let Some(materialized) = &mut materialized {
            materialized.keep(states.iter().map(|state| state.project()));
        }
        let project = states[0].project().name.clone();
        Ok(Self {
            lists: Lists::of(lists),
            materialized,
            ..Self::new(&project, services, waiting, online, states)
        })
    }

    /// The features of a list, planned when they are first asked for.
    ///
    /// # Errors
    /// They cannot be had together, or cannot be served.
    pub(crate) fn list(&self, list: &FeatureList) -> Result<Arc<dyn Answers>, Problem> {
        if let Some(answers) = self.lists.get(list) {
            return Ok(answers);
        }
        let materialized = self.materialized.as_ref();
        let chosen = choose(&list.features(), &self.states, materialized, &self.online)?;
        let answers = match chosen.service {
            Service::Ready(answers) => answers,
            Service::NotOnline { view } => return Err(Problem::FeaturesNotOnline { view }),
        };
        let planned = Planned {
            answers: Arc::clone(&answers),
            waiting: chosen.waiting,
        };
        self.lists.keep(list, &planned);
        Ok(answers)
    }

    /// Whether the store was down when this was loaded: it is served by its newest plans, and
    /// former ones may have values.
    pub(crate) fn is_unsure(&self) -> bool {
        self.materialized.is_none()
    }

    /// Whether a former state is kept: for a service that waits, or for lists of features of a view
    /// that is not materialized under its newest definition.
    pub(crate) fn keeps_former(&self) -> bool {
        self.states.len() > 1
    }

    /// Whether nothing was materialized or removed by which other plans would be chosen, if no
    /// newer state is applied.
    ///
    /// # Errors
    /// The store does not say.
    pub(crate) async fn is_settled(&self) -> Result<bool, OnlineError> {
        let online = &*self.online;
        match &self.materialized {
            Some(materialized) if self.keeps_former() => materialized.holds(online).await,
            Some(_) => Ok(true),
            None => {
                let projects = self.states.iter().map(|state| state.project());
                // As long as it is down there is nothing to choose by.
                Ok(Materialized::of(projects, online).await.is_err())
            }
        }
    }
}

/// The state `newest`, and those before it by which something of it can be served that waits.
///
/// # Errors
/// The online store does not say what is materialized.
async fn with_former(
    store: &FeatureStore,
    newest: &Arc<Applied>,
    online: &dyn OnlineStore,
) -> Result<(Vec<Arc<Applied>>, Materialized), OnlineError> {
    let project = newest.project();
    let mut states = vec![Arc::clone(newest)];
    let mut materialized = Materialized::of([project], online).await?;
    // What waits: services, and the views of lists of features.
    let mut views = materialized.missing_of(project);
    let mut services: Vec<&String> = project.services.keys().collect();
    services.retain(|name| materialized.has_service(project, name) == Some(false));
    let mut number = newest.state.number;
    for _ in 0..FORMER_STATES {
        if services.is_empty() && views.is_empty() {
            break;
        }
        // A former state that cannot be read any more is no reason not to serve.
        let Ok(Some(former)) = store.state_before(number).await else {
            break;
        };
        materialized.add(&former.project, online).await?;
        let left = services.len() + views.len();
        services.retain(|name| materialized.has_service(&former.project, name) != Some(true));
        views.retain(|view| !materialized.has_view(&former.project, view));
        // Components are loaded of those states alone that are of use.
        if services.len() + views.len() < left {
            let Ok(Some(applied)) = store.applied_before(number).await else {
                break;
            };
            states.push(applied);
        }
        number = former.number;
    }
    Ok((states, materialized))
}

/// Which of `states` are kept for lists of features: who will ask for which is not known, so for
/// each view of the newest state of which nothing is materialized, it is the first state in which a
/// view of that name is.
fn of_lists(states: &[Arc<Applied>], materialized: &Materialized) -> Vec<usize> {
    let missing = materialized.missing_of(states[0].project());
    let first = |view: &String| {
        let mut projects = states.iter().map(|state| state.project());
        projects.position(|project| materialized.has_view(project, view))
    };
    missing.iter().filter_map(first).collect()
}

/// What answers for `features`: their plan of the first of `states` if its views are materialized,
/// else that of the first other one whose views are, else the first all the same.
///
/// # Errors
/// They cannot be had together by the first state.
fn choose(
    features: &Features,
    states: &[Arc<Applied>],
    materialized: Option<&Materialized>,
    online: &Arc<dyn OnlineStore>,
) -> Result<Chosen, StoreError> {
    let Some((newest, former)) = states.split_first() else {
        return Err(StoreError::NothingApplied);
    };
    let service = Service::of(newest, features, online)?;
    if let Some(materialized) = materialized {
        let waiting = service.missing(newest, materialized);
        if !waiting.is_empty() {
            for (state, former) in (1..).zip(former) {
                if let Ok(service @ Service::Ready(_)) = Service::of(former, features, online)
                    && service.missing(former, materialized).is_empty()
                {
                    return Ok(Chosen {
                        service,
                        waiting,
                        state,
                    });
                }
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

    /// The names of its views of which nothing is materialized.
    fn missing(&self, applied: &Applied, materialized: &Materialized) -> Vec<String> {
        match self {
            Self::Ready(answers) => {
                let views = views(&applied.project().name, [answers.plan()]);
                materialized.missing(views.iter().map(|view| &**view))
            }
            Self::NotOnline { .. } => Vec::new(),
        }
    }
}
