//! What of some states of the registry is materialized, by one look into the online store.

use std::collections::BTreeMap;
use std::sync::Arc;

use unskew_core::planner::plan_service;
use unskew_core::project::Project;
use unskew_online::{OnlineError, OnlineStore, ViewKey, ViewState};

use super::{states, views};

/// Which of the online views of some states of the registry are materialized.
///
/// All that is chosen for a [`Served`](super::Served) is chosen by one of these: a store that fails
/// between two questions could make a view look like one that has no values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Materialized {
    views: BTreeMap<Arc<ViewKey>, bool>,
}

impl Materialized {
    /// What the store says of the views of these definitions, asked once for all of them.
    ///
    /// # Errors
    /// It does not say.
    pub(super) async fn of<'a>(
        projects: impl IntoIterator<Item = &'a Project>,
        online: &dyn OnlineStore,
    ) -> Result<Self, OnlineError> {
        let views = projects.into_iter().flat_map(online_views).map(Arc::new);
        Self::look(views.collect(), online).await
    }

    /// Asks for the views of more definitions.
    ///
    /// # Errors
    /// The store does not say.
    pub(super) async fn add(
        &mut self,
        project: &Project,
        online: &dyn OnlineStore,
    ) -> Result<(), OnlineError> {
        self.views
            .append(&mut Self::of([project], online).await?.views);
        Ok(())
    }

    /// Forgets all views but those of these definitions.
    pub(super) fn keep<'a>(&mut self, projects: impl IntoIterator<Item = &'a Project>) {
        let mut kept = BTreeMap::new();
        for view in projects.into_iter().flat_map(online_views) {
            kept.extend(self.views.remove_entry(&view));
        }
        self.views = kept;
    }

    /// Whether the store says the same still.
    ///
    /// # Errors
    /// It does not say.
    pub(super) async fn holds(&self, online: &dyn OnlineStore) -> Result<bool, OnlineError> {
        let views = self.views.keys().map(Arc::clone).collect();
        Ok(Self::look(views, online).await? == *self)
    }

    async fn look(views: Vec<Arc<ViewKey>>, online: &dyn OnlineStore) -> Result<Self, OnlineError> {
        let states = states(online, &views).await?;
        let is = |state: Option<ViewState>| state.is_some_and(|state| state.is_materialized());
        let views = views.into_iter().zip(states.into_iter().map(is));
        Ok(Self {
            views: views.collect(),
        })
    }

    /// The names of those views that are not materialized.
    pub(super) fn missing<'a>(&self, views: impl IntoIterator<Item = &'a ViewKey>) -> Vec<String> {
        let missing = views.into_iter().filter(|view| !self.is(view));
        missing.map(|view| view.view.clone()).collect()
    }

    /// The names of the online views of a project that are not materialized.
    pub(super) fn missing_of(&self, project: &Project) -> Vec<String> {
        let views: Vec<ViewKey> = online_views(project).collect();
        self.missing(&views)
    }

    /// Whether the view that a project calls `name` is served online and is materialized.
    pub(super) fn has_view(&self, project: &Project, name: &str) -> bool {
        let view = project.views.get(name).map(|defined| &defined.value.view);
        view.is_some_and(|view| self.is(&ViewKey::of(&project.name, view)))
    }

    /// Whether all views of a project's feature service are materialized; `None` if it cannot be
    /// served at all.
    pub(super) fn has_service(&self, project: &Project, name: &str) -> Option<bool> {
        let plan = plan_service(project, name).ok()?;
        if plan.lookups.iter().any(|lookup| !lookup.view.online) {
            return None;
        }
        let views = views(&project.name, [&plan]);
        Some(views.iter().all(|view| self.is(view)))
    }

    fn is(&self, view: &ViewKey) -> bool {
        self.views.get(view).is_some_and(|is| *is)
    }
}

/// The views of a project that are served online.
fn online_views(project: &Project) -> impl Iterator<Item = ViewKey> {
    let views = project.views.values().map(|defined| &defined.value.view);
    let online = views.filter(|view| view.online);
    online.map(|view| ViewKey::of(&project.name, view))
}
