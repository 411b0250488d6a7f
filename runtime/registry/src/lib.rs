//! The registry: applied definitions, and components by digest.
//!
//! ```text
//! states/00000000000000000007.json   a state: all definitions, resolved; the greatest number counts
//! components/HEX.wasm                a component, by its sha256
//! ```
//!
//! A state is replaced by compare-and-swap: the next one is created under the next number, which
//! succeeds for one writer only. Both a folder and an object store do that without a lock that a
//! crash could leave behind. Components are written before the state that names them, so a crash
//! in the middle leaves the old state.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod error;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use unskew_core::digest::Digest;
use unskew_core::project::Project;

pub use error::RegistryError;

/// The version of a state's form.
const FORMAT: u32 = 1;

/// What was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The version of this form.
    format: u32,
    /// Counts from 1; each `apply` that changes something adds one.
    pub number: u64,
    /// The version of Unskew that wrote it.
    pub written_by: String,
    /// All definitions, resolved.
    pub project: Project,
}

/// A registry in a folder.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Arc<dyn ObjectStore>,
    place: String,
}

impl Registry {
    /// Opens the registry in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: &Path) -> Result<Self, RegistryError> {
        let place = folder.display().to_string();
        let unusable = |source| RegistryError::Folder {
            place: place.clone(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let folder = folder.canonicalize().map_err(unusable)?;
        let store =
            LocalFileSystem::new_with_prefix(&folder).map_err(|source| RegistryError::Store {
                place: place.clone(),
                source,
            })?;
        Ok(Self {
            store: Arc::new(store),
            place,
        })
    }

    /// The current state, or `None` if nothing was applied yet.
    ///
    /// # Errors
    /// It cannot be read, or was written in a newer form.
    pub async fn current(&self) -> Result<Option<State>, RegistryError> {
        let prefix = ObjectPath::from("states");
        let states: Vec<_> = self
            .store
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|source| self.failed(source))?;
        // Numbers have as many digits as the greatest, so the greatest name is the greatest number.
        let Some(latest) = states.into_iter().map(|object| object.location).max() else {
            return Ok(None);
        };
        let damaged = |message: String| RegistryError::Damaged {
            file: format!("{}/{latest}", self.place),
            message,
        };
        let bytes = self.read(&latest).await?;
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => {
                return Err(damaged(format!(
                    "it is of form {format}, and this version reads form {FORMAT}; take the \
                     version of unskew that wrote it"
                )));
            }
            None => return Err(damaged("it has no `format`".to_owned())),
        }
        serde_json::from_value(value)
            .map(Some)
            .map_err(|error| damaged(error.to_string()))
    }

    /// Replaces the state `base` (`None`: nothing was applied yet) by one of `project` that names
    /// `components`.
    ///
    /// # Errors
    /// [`RegistryError::Conflict`] if `base` is not the current state any more; nothing has changed
    /// then.
    pub async fn commit(
        &self,
        base: Option<&State>,
        project: &Project,
        components: &[Bytes],
    ) -> Result<State, RegistryError> {
        for component in components {
            let path = component_path(&Digest::of(component));
            let put = self.store.put(&path, component.clone().into()).await;
            put.map_err(|source| self.failed(source))?;
        }
        let state = State {
            format: FORMAT,
            number: base.map_or(0, |state| state.number) + 1,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            project: project.clone(),
        };
        let path = ObjectPath::from(format!("states/{:020}.json", state.number));
        let bytes = serde_json::to_vec_pretty(&state).map_err(|error| RegistryError::Damaged {
            file: format!("{}/{path}", self.place),
            message: error.to_string(),
        })?;
        let create = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        match self.store.put_opts(&path, bytes.into(), create).await {
            Ok(_) => Ok(state),
            Err(object_store::Error::AlreadyExists { .. }) => Err(RegistryError::Conflict {
                number: state.number,
            }),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// The component with this digest.
    ///
    /// # Errors
    /// It is not there, or not what its name says.
    pub async fn component(&self, digest: &Digest) -> Result<Bytes, RegistryError> {
        let path = component_path(digest);
        let bytes = self.read(&path).await?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(RegistryError::Damaged {
                file: format!("{}/{path}", self.place),
                message: format!("its digest is {}; apply again", Digest::of(&bytes)),
            })
        }
    }

    async fn read(&self, path: &ObjectPath) -> Result<Bytes, RegistryError> {
        let object = self
            .store
            .get(path)
            .await
            .map_err(|source| self.failed(source))?;
        object.bytes().await.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: object_store::Error) -> RegistryError {
        RegistryError::Store {
            place: self.place.clone(),
            source,
        }
    }
}

fn component_path(digest: &Digest) -> ObjectPath {
    ObjectPath::from(format!("components/{}.wasm", digest.hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> Project {
        Project {
            name: name.to_owned(),
            ..Project::default()
        }
    }

    #[tokio::test]
    async fn a_state_is_read_back_and_the_next_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&folder.path().join("new/registry")).unwrap();
        assert_eq!(registry.current().await.unwrap(), None);
        let component = Bytes::from_static(b"component");
        let first = registry
            .commit(None, &project("a"), std::slice::from_ref(&component))
            .await
            .unwrap();
        assert_eq!(registry.current().await.unwrap().as_ref(), Some(&first));
        let second = registry
            .commit(Some(&first), &project("b"), &[])
            .await
            .unwrap();
        assert_eq!(registry.current().await.unwrap(), Some(second));
        let digest = Digest::of(&component);
        assert_eq!(registry.component(&digest).await.unwrap(), component);
    }

    #[tokio::test]
    async fn of_two_commits_on_one_base_the_second_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path()).unwrap();
        let commits = (0..8).map(|i| {
            let registry = registry.clone();
            tokio::spawn(
                async move { registry.commit(None, &project(&format!("p{i}")), &[]).await },
            )
        });
        let mut done = Vec::new();
        for commit in commits.collect::<Vec<_>>() {
            match commit.await.unwrap() {
                Ok(state) => done.push(state),
                Err(error) => assert!(matches!(error, RegistryError::Conflict { number: 1 })),
            }
        }
        assert_eq!(done.len(), 1);
        assert_eq!(registry.current().await.unwrap(), done.pop());
    }

    #[tokio::test]
    async fn a_crash_before_the_state_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path()).unwrap();
        let state = registry.commit(None, &project("a"), &[]).await.unwrap();
        // What a crash leaves: a component, and a part of a state under a name of its own.
        std::fs::write(folder.path().join("components").join("00.wasm"), b"half").unwrap_or(());
        std::fs::write(
            folder
                .path()
                .join("states")
                .join(format!("{:020}.json#1", 2)),
            b"{",
        )
        .unwrap();
        assert_eq!(registry.current().await.unwrap(), Some(state));
    }

    #[tokio::test]
    async fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path()).unwrap();
        let component = Bytes::from_static(b"component");
        registry
            .commit(None, &project("a"), std::slice::from_ref(&component))
            .await
            .unwrap();
        let digest = Digest::of(&component);
        let file = folder
            .path()
            .join(format!("components/{}.wasm", digest.hex()));
        std::fs::write(file, b"other").unwrap();
        let error = registry.component(&digest).await.unwrap_err().to_string();
        assert!(
            error.contains(&digest.hex()) && error.contains("apply again"),
            "{error}"
        );
        let state = folder.path().join(format!("states/{:020}.json", 1));
        std::fs::write(&state, br#"{"format": 9}"#).unwrap();
        let error = registry.current().await.unwrap_err().to_string();
        assert!(error.contains("form 9"), "{error}");
        std::fs::write(&state, b"").unwrap();
        assert!(registry.current().await.is_err());
    }
}
