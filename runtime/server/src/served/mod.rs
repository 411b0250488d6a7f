//! What is served: the feature services of one state of the registry, each ready to answer.
//!
//! A [`Served`] never changes. A reload makes another and puts it in the place of the first, which
//! goes on for the requests that hold it.

mod lists;
mod load;
mod materialized;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::OnceCell;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::Evaluated;
use unskew_online::{OnlineError, OnlineStore, ViewKey, ViewState, Wanted};
use unskew_store::{Applied, BriefAnswer, Pusher, RequestRows, Responder, StoreError};

use crate::error::Problem;
use crate::object::shortened;
use crate::state::State;
use crate::watch::{PlanWatch, Stages, Watch};
use crate::work::INLINE_ROWS;

pub(crate) use lists::FeatureList;
use lists::Lists;
use materialized::Materialized;
pub(crate) use together::FEW_ROWS;
use together::Together;

/// What is served, of one state of the registry.
pub(crate) struct Served {
    services: BTreeMap<String, Service>,
    lists: Lists,
    online: Arc<dyn OnlineStore>,
    /// The views of all services that can be served, each once, by the name of the view.
    views: Vec<Arc<ViewKey>>,
    /// The services that answer by a former plan, and the views for which their newest one waits.
    waiting: BTreeMap<String, Vec<String>>,
    /// The state of the registry that is served, and after it those of which services are that
    /// wait, or lists of features may be that do; newest first. None in tests that have no registry.
    states: Vec<Arc<Applied>>,
    /// What of the states is materialized, as far as the store said so when this was made.
    materialized: Option<Materialized>,
    /// What takes rows, made when the first come.
    pusher: OnceCell<Arc<Pusher>>,
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

    /// What is counted of its answers, made by `watch` when it is asked for first; `None` if
    /// nothing is.
    fn watch(&self, watch: &Watch) -> Option<Arc<PlanWatch>> {
        let _ = watch;
        None
    }

    /// The features of each row.
    ///
    /// # Errors
    /// The online store is unavailable, or a component failed.
    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError>;

    /// The features of each row, if components take a moment for them.
    ///
    /// # Errors
    /// As [`Answers::answer`].
    async fn answer_briefly(&self, rows: &RequestRows) -> Result<BriefAnswer, StoreError> {
        self.answer(rows).await.map(BriefAnswer::Done)
    }

    /// The features of each row, evaluated with those of other requests.
    ///
    /// # Errors
    /// As [`Answers::answer`].
    async fn answer_together(&self, rows: &RequestRows) -> Result<BriefAnswer, StoreError> {
        self.answer(rows).await.map(BriefAnswer::Done)
    }

    /// The features of `rows`, for which components had too little time; `joined` is what they were
    /// joined to.
    ///
    /// # Errors
    /// As [`Answers::answer`].
    async fn finish(
        &self,
        rows: &RequestRows,
        joined: RecordBatch,
    ) -> Result<Evaluated, StoreError> {
        drop(joined);
        self.answer(rows).await
    }
}

/// A responder whose answers are timed and counted.
pub(crate) struct Watched {
    responder: Responder,
    together: Arc<Together>,
    watch: OnceLock<Arc<PlanWatch>>,
}

impl From<Responder> for Watched {
    fn from(responder: Responder) -> Self {
        Self {
            together: Together::new(responder.clone()),
            responder,
            watch: OnceLock::new(),
        }
    }
}

#[async_trait]
impl Answers for Watched {
    fn plan(&self) -> &FeaturePlan {
        self.responder.plan()
    }

    fn digest(&self) -> Digest {
        self.responder.digest()
    }

    fn watch(&self, watch: &Watch) -> Option<Arc<PlanWatch>> {
        Some(Arc::clone(self.watch.get_or_init(|| watch.plan(self))))
    }

    async fn answer(&self, rows: &RequestRows) -> Result<Evaluated, StoreError> {
        let Some(plan) = self.watch.get() else {
            return self.responder.answer(rows).await;
        };
        let mut stages = Stages::begin(plan);
        let answer = self.responder.answer_observed(rows, &mut stages).await;
        if answer.is_ok() {
            let span = stages.end();
            if rows.as_of.len() <= INLINE_ROWS {
                plan.pace.took(span);
            }
        }
        answer
    }

    async fn answer_briefly(&self, rows: &RequestRows) -> Result<BriefAnswer, StoreError> {
        let Some(plan) = self.watch.get() else {
            return self.responder.answer_briefly(rows, &mut ()).await;
        };
        let mut stages = Stages::begin(plan);
        let answer = self.responder.answer_briefly(rows, &mut stages).await;
        match &answer {
            Ok(BriefAnswer::Done(_)) => plan.pace.took(stages.end()),
            Ok(BriefAnswer::Unfinished(_)) => plan.pace.took_too_long(),
            Err(_) => {}
        }
        answer
    }

    async fn answer_together(&self, rows: &RequestRows) -> Result<BriefAnswer, StoreError> {
        let Some(plan) = self.watch.get() else {
            return self.answer_briefly(rows).await;
        };
        let mut stages = Stages::begin(plan);
        let joined = self.responder.join(rows, &mut stages).await?;
        let answer = self.together.evaluate(plan, joined).await;
        if let BriefAnswer::Done(_) = &answer {
            stages.end();
        }
        Ok(answer)
    }

    async fn finish(
        &self,
        _rows: &RequestRows,
        joined: RecordBatch,
    ) -> Result<Evaluated, StoreError> {
        let Some(plan) = self.watch.get() else {
            return self.responder.finish(&joined, ());
        };
        let mut stages = Stages::again(plan);
        let answer = self.responder.finish(&joined, &mut stages);
        if answer.is_ok() {
            plan.pace.took(stages.end());
        }
        answer
    }
}

impl Served {
    /// These services over `online`, of which those in `waiting` answer by a former plan.
    pub(crate) fn new(
        project: &str,
        services: BTreeMap<String, Service>,
        waiting: BTreeMap<String, Vec<String>>,
        online: Arc<dyn OnlineStore>,
        states: Vec<Arc<Applied>>,
    ) -> Self {
        let ready = services.values().filter_map(|service| match service {
            Service::Ready(answers) => Some(answers),
            Service::NotOnline { .. } => None,
        });
        let views = views(project, ready.map(|answers| answers.plan()));
        Self {
            services,
            lists: Lists::default(),
            online,
            views,
            waiting,
            states,
            materialized: None,
            pusher: OnceCell::new(),
        }
    }

    /// The number of the state of the registry, 0 where there is none.
    pub(crate) fn number(&self) -> u64 {
        self.states
            .first()
            .map_or(0, |applied| applied.state.number)
    }

    /// The state of the registry that is served; `None` in tests that have no registry.
    pub(crate) fn applied(&self) -> Option<&Arc<Applied>> {
        self.states.first()
    }

    /// Whether the state that is served has this view.
    pub(crate) fn has_view(&self, key: &ViewKey) -> bool {
        self.applied().is_some_and(|applied| {
            let project = applied.project();
            let view = project.views.get(&key.view);
            view.is_some_and(|view| ViewKey::of(&project.name, &view.value.view) == *key)
        })
    }

    /// The feature services by name.
    pub(crate) const fn services(&self) -> &BTreeMap<String, Service> {
        &self.services
    }

    /// The online store.
    pub(crate) fn online(&self) -> &dyn OnlineStore {
        &*self.online
    }

    /// How far each view of a service is materialized, by the name of the view.
    ///
    /// # Errors
    /// The online store does not say.
    pub(crate) async fn view_states(
        &self,
    ) -> Result<Vec<(String, Option<ViewState>)>, OnlineError> {
        let states = states(&*self.online, &self.views).await?;
        let names = self.views.iter().map(|view| view.view.clone());
        Ok(names.zip(states).collect())
    }

    /// The services and lists of features that answer by a former plan, and the views for which
    /// their newest one waits.
    pub(crate) fn waiting(&self) -> BTreeMap<String, Vec<String>> {
        let mut waiting = self.waiting.clone();
        waiting.extend(self.lists.waiting());
        waiting
    }

    /// The feature service called `name`.
    ///
    /// # Errors
    /// There is none, or it cannot be served.
    pub(crate) fn service(&self, name: &str) -> Result<Arc<dyn Answers>, Problem> {
        match self.services.get(name) {
            Some(service) => service.answers(name),
            None => Err(Problem::UnknownService {
                name: shortened(name),
                valid: self.services.keys().cloned().collect(),
            }),
        }
    }

    /// What takes rows for the newest state, and that state.
    ///
    /// # Errors
    /// There is no registry, or a component is not what its view needs.
    pub(crate) async fn pusher(
        &self,
        state: &State,
    ) -> Result<(Arc<Pusher>, &Arc<Applied>), Problem> {
        let (Some(reloader), Some(applied)) = (state.reloader(), self.applied()) else {
            return Err(Problem::Internal("it has no registry".to_owned()));
        };
        let made = async || Pusher::new(reloader.store(), applied).map(Arc::new);
        Ok((
            Arc::clone(self.pusher.get_or_try_init(made).await?),
            applied,
        ))
    }

    /// Whether the online store answers and holds rows of every view that is served.
    ///
    /// # Errors
    /// Names what is waited for.
    pub(crate) async fn check_ready(&self) -> Result<(), Problem> {
        let missing = missing(&*self.online, &self.views)
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
    fn answers(&self, name: &str) -> Result<Arc<dyn Answers>, Problem> {
        match self {
            Self::Ready(answers) => Ok(Arc::clone(answers)),
            Self::NotOnline { view } => Err(Problem::NotOnline {
                service: shortened(name),
                view: view.clone(),
            }),
        }
    }
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
    let states = states(online, views).await?;
    let missing = views
        .iter()
        .zip(states)
        .filter(|(_, state)| !state.as_ref().is_some_and(ViewState::is_materialized));
    Ok(missing.map(|(view, _)| view.view.clone()).collect())
}

/// How far views are materialized; all in one round trip.
async fn states(
    online: &dyn OnlineStore,
    views: &[Arc<ViewKey>],
) -> Result<Vec<Option<ViewState>>, OnlineError> {
    if views.is_empty() {
        return Ok(Vec::new());
    }
    let asked = views.iter().map(|view| Wanted {
        view: Arc::clone(view),
        entities: Vec::new(),
    });
    let held = online.get(asked.collect()).await?;
    Ok(held.into_iter().map(|held| held.state).collect())
}
