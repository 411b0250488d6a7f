//! The rows of former view digests.

use std::collections::BTreeSet;

use unskew_core::project::Project;
use unskew_online::{ViewKey, ViewState};

use crate::error::StoreError;
use crate::feature_store::FeatureStore;

/// How many states before the current one are looked through. Rows of older ones expire, or go
/// with a teardown.
const FORMER_STATES: usize = 20;

impl FeatureStore {
    /// The views of former states of the registry that the current one does not have, by name and
    /// view digest: what is stored under them is read by nobody who has moved to the current state.
    ///
    /// # Errors
    /// Nothing is applied, or the registry cannot be read.
    pub async fn former_views(&self) -> Result<Vec<ViewKey>, StoreError> {
        let current = self.state().await?;
        let former = self.former_projects(current.number).await?;
        let former: BTreeSet<ViewKey> = former.iter().flat_map(views).collect();
        let current: BTreeSet<ViewKey> = views(&current.project).collect();
        Ok(former.difference(&current).cloned().collect())
    }

    /// The definitions of the states of the registry before the one with this number, newest first.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub(crate) async fn former_projects(&self, number: u64) -> Result<Vec<Project>, StoreError> {
        let mut former = Vec::new();
        let mut number = number;
        while former.len() < FORMER_STATES
            && let Some(state) = self.state_before(number).await?
        {
            number = state.number;
            former.push(state.project);
        }
        Ok(former)
    }

    /// Removes the rows of a former view, and says how many there were; `None`, with nothing
    /// changed, if somebody changes its state at the same time. A view that is current is left
    /// alone.
    ///
    /// It is marked as not materialized first, so that whoever still reads it, or takes it up again,
    /// is told so instead of finding half of it.
    ///
    /// # Errors
    /// The registry or the online store does not answer. What was not removed is removed by the
    /// next call.
    pub async fn remove_former(&self, view: &ViewKey) -> Result<Option<u64>, StoreError> {
        if views(&self.state().await?.project).any(|current| current == *view) {
            return Ok(Some(0));
        }
        let online = self.online()?;
        let Some(state) = online.state(view).await? else {
            return Ok(Some(0));
        };
        let nothing = ViewState::default();
        if !online.update_state(view, Some(&state), &nothing).await? {
            return Ok(None);
        }
        Ok(Some(online.remove_view(view).await?))
    }
}

fn views(project: &Project) -> impl Iterator<Item = ViewKey> {
    let views = project.views.values();
    views.map(|defined| ViewKey::of(&project.name, &defined.value.view))
}
