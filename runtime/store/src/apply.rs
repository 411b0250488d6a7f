//! `plan` and `apply`: from definition files to a state of the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use serde::Serialize;
use unskew_core::component::Description;
use unskew_core::definitions::Definitions;
use unskew_core::digest::Digest;
use unskew_core::project::Project;
use unskew_core::resolve::{Surroundings, resolve};
use unskew_engine::Verified;
use unskew_registry::{RegistryError, State};

use crate::difference::difference;
use crate::error::StoreError;
use crate::feature_store::FeatureStore;
use crate::files;

/// Is told what `apply` does at the moment; every method does nothing by default.
pub trait ApplyWatch: Send + Sync {
    /// The component of a transformation is being built.
    fn building(&self, transformation: &str) {
        let _ = transformation;
    }

    /// The component of a transformation is being verified.
    fn verifying(&self, transformation: &str) {
        let _ = transformation;
    }

    /// A transformation is sound as far as can be told, and hardly what its author wants; the
    /// message is a sentence that names it.
    fn warn(&self, transformation: &str, message: &str) {
        let _ = (transformation, message);
    }
}

/// Nobody is told.
impl ApplyWatch for () {}

/// What `apply` changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The number of the state: the registry's after `apply`; after `plan` the one that there is.
    pub state: u64,
    /// Each definition that is or was, by kind and name.
    pub objects: Vec<Change>,
    /// The online views that have to be materialized anew, because they are new or their view
    /// digest changed.
    pub materialize: Vec<String>,
}

impl Changes {
    /// Whether anything changes.
    pub fn any(&self) -> bool {
        self.objects
            .iter()
            .any(|object| object.change != ChangeKind::Unchanged)
    }
}

/// What becomes of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `entity`, `source`, `feature view`, `alias`, `transformation` or `feature service`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub change: ChangeKind,
    /// Of an updated one: the fields that differ, with both values where they are short.
    pub details: Vec<String>,
}

/// What becomes of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It was another.
    Updated,
    /// It is gone.
    Deleted,
    /// It is as it was.
    Unchanged,
}

/// What the definition files amount to.
struct Resolved {
    project: Project,
    /// The components by digest.
    components: BTreeMap<Digest, Bytes>,
}

/// How often `apply` starts over when somebody else applies at the same time.
const ATTEMPTS: usize = 10;

impl FeatureStore {
    /// Shows what [`apply`](Self::apply) would change, and changes nothing.
    ///
    /// # Errors
    /// As `apply`.
    pub async fn plan(&self, watch: &dyn ApplyWatch) -> Result<Changes, StoreError> {
        let current = self.registry()?.current().await?;
        let resolved = self.resolve(current.as_ref(), watch).await?;
        Ok(changes(current.as_ref(), &resolved.project))
    }

    /// Builds, verifies and registers all definitions. Also when nothing changes, components that
    /// the registry has lost are put back.
    ///
    /// # Errors
    /// Definitions are wrong (all that is wrong is reported), or the registry cannot be changed;
    /// nothing is changed then.
    pub async fn apply(&self, watch: &dyn ApplyWatch) -> Result<Changes, StoreError> {
        let registry = self.registry()?;
        let mut current = registry.current().await?;
        let resolved = self.resolve(current.as_ref(), watch).await?;
        let components: Vec<Bytes> = resolved.components.into_values().collect();
        for _ in 0..ATTEMPTS {
            let changes = changes(current.as_ref(), &resolved.project);
            if !changes.any() {
                registry.restore(&components).await?;
                return Ok(changes);
            }
            let committed = registry
                .commit(current.as_ref(), &resolved.project, &components)
                .await;
            match committed {
                Ok(state) => {
                    return Ok(Changes {
                        state: state.number,
                        ..changes
                    });
                }
                // Somebody else was first: what changes is what differs from theirs.
                Err(RegistryError::Conflict { .. }) => current = registry.current().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Contended {
            what: "the registry".to_owned(),
        })
    }

    async fn resolve(
        &self,
        current: Option<&State>,
        watch: &dyn ApplyWatch,
    ) -> Result<Resolved, StoreError> {
        if let Some(state) = current {
            self.check_project(&state.project.name)?;
        }
        let definitions = Definitions::read(&self.definition_files()?);
        let mut surroundings = Surroundings::default();
        for source in &definitions.sources {
            let shape = &source.value;
            let schema = self.offline().source_schema(&shape.name, &shape.path).await;
            let schema = schema
                .map(|schema| schema.as_ref().clone())
                .map_err(|error| error.to_string());
            surroundings.sources.insert(shape.name.clone(), schema);
        }
        // What is registered was verified by whoever registered it.
        let verified = current
            .map(|state| state.project.components())
            .unwrap_or_default();
        let mut components = BTreeMap::new();
        for transformation in &definitions.transformations {
            let shape = &transformation.value;
            let component = self
                .component(&shape.name, Path::new(&shape.component), &verified, watch)
                .await;
            let component = component.map(|(bytes, digest, description)| {
                components.insert(digest, bytes);
                (digest, description)
            });
            surroundings
                .components
                .insert(shape.name.clone(), component);
        }
        let project = resolve(&self.settings().project, &definitions, &surroundings)?;
        Ok(Resolved {
            project,
            components,
        })
    }

    /// The component of a transformation, built if it is given as sources, loaded and verified.
    /// The error is a text, since it becomes a problem of the definition.
    async fn component(
        &self,
        transformation: &str,
        path: &Path,
        verified: &BTreeSet<Digest>,
        watch: &dyn ApplyWatch,
    ) -> Result<(Bytes, Digest, Description), String> {
        let place = self.root().join(path);
        let bytes: Bytes = if place.is_dir() {
            watch.building(transformation);
            self.build(path)
                .await
                .map_err(|error| error.to_string())?
                .bytes
        } else if place.is_file() {
            files::read(&place)
                .map_err(|error| error.to_string())?
                .into()
        } else {
            return Err(format!(
                "there is no `{}`; name the folder of a transformation's sources, or a .wasm file",
                path.display()
            ));
        };
        let engine = self.engine().map_err(|error| error.to_string())?;
        let component = engine.load(&bytes).map_err(|error| error.to_string())?;
        let digest = component.digest();
        let description = component.description().clone();
        if !verified.contains(&digest) {
            watch.verifying(transformation);
            let verify =
                move || unskew_engine::verify(&component).map_err(|error| error.to_string());
            let verified = tokio::task::spawn_blocking(verify)
                .await
                .map_err(|error| error.to_string())??;
            if let Some(message) = doubt(transformation, &verified) {
                watch.warn(transformation, &message);
            }
        }
        Ok((bytes, digest, description))
    }
}

/// What is to be said about a component that failed on every row that it was tried on.
fn doubt(transformation: &str, verified: &Verified) -> Option<String> {
    let Verified {
        rows,
        failed,
        first,
    } = verified;
    let first = first.as_ref().filter(|_| failed == rows)?;
    // What Rust's standard library says on a platform without a clock.
    let hint = if first.contains("time not implemented") {
        "; a component has no clock, random numbers or network: bind an input to \
         `event_timestamp` for the time"
    } else {
        ""
    };
    Some(format!(
        "`{transformation}` failed on all {rows} generated rows, first: {first}{hint}"
    ))
}

/// What differs between the registry's state and `project`.
fn changes(current: Option<&State>, project: &Project) -> Changes {
    let empty = Project::default();
    let before = current.map_or(&empty, |state| &state.project);
    let mut objects = Vec::new();
    compare("entity", &before.entities, &project.entities, &mut objects);
    compare("source", &before.sources, &project.sources, &mut objects);
    compare("feature view", &before.views, &project.views, &mut objects);
    compare("alias", &before.aliases, &project.aliases, &mut objects);
    compare(
        "transformation",
        &before.transformations,
        &project.transformations,
        &mut objects,
    );
    compare(
        "feature service",
        &before.services,
        &project.services,
        &mut objects,
    );
    let digest = |project: &Project, name: &str| {
        let view = &project.views.get(name)?.value.view;
        view.online.then(|| view.digest())
    };
    let materialize = project.views.keys().filter(|name| {
        let now = digest(project, name);
        now.is_some() && now != digest(before, name)
    });
    Changes {
        state: current.map_or(0, |state| state.number),
        materialize: materialize.cloned().collect(),
        objects,
    }
}

fn compare<T: PartialEq + Serialize>(
    kind: &'static str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
    objects: &mut Vec<Change>,
) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (change, details) = match (before.get(name), after.get(name)) {
            (None, _) => (ChangeKind::Created, Vec::new()),
            (_, None) => (ChangeKind::Deleted, Vec::new()),
            (Some(before), Some(after)) if before == after => (ChangeKind::Unchanged, Vec::new()),
            (Some(before), Some(after)) => (ChangeKind::Updated, difference(before, after)),
        };
        objects.push(Change {
            kind,
            name: name.clone(),
            change,
            details,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_component_that_always_fails_is_doubted() {
        let verified = |failed, first: &str| Verified {
            rows: 256,
            failed,
            first: Some(first.to_owned()),
        };
        assert_eq!(doubt("pickup", &verified(255, "no")), None);
        assert_eq!(
            doubt("pickup", &verified(256, "no")).unwrap(),
            "`pickup` failed on all 256 generated rows, first: no"
        );
        assert_eq!(
            doubt(
                "pickup",
                &verified(256, "panicked: time not implemented on this platform")
            )
            .unwrap(),
            "`pickup` failed on all 256 generated rows, first: panicked: time not implemented on \
             this platform; a component has no clock, random numbers or network: bind an input to \
             `event_timestamp` for the time"
        );
    }
}
