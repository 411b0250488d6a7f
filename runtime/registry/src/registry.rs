//! A registry, and the states in it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use unskew_core::digest::Digest;
use unskew_core::project::Project;
use unskew_objects::StoreOptions;

use crate::error::RegistryError;
use crate::files::{self, Files, Part};

/// The version of a state's form.
const FORMAT: u32 = 1;

/// How many components are read or written at once.
const AT_ONCE: usize = 8;

/// How many new states [`Registry::newest_after`] asks for one by one before it lists all.
const STEPS: usize = 8;

/// What was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The version of this form.
    format: u32,
    /// Counts from 1; each `apply` that changes something adds one.
    pub number: u64,
    /// The version of Unskew that wrote it.
    pub written_by: String,
    /// Of this commit alone, so that its writer can tell its own state from an equal one.
    #[serde(default)]
    commit: String,
    /// All definitions, resolved.
    pub project: Project,
}

/// A registry, in a folder or in an object store.
///
/// Its methods are to be called within a Tokio runtime. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    files: Arc<dyn Files>,
}

impl Registry {
    /// The registry at `place`: a folder, relative to `root`, which need not be there before
    /// something is committed; or a URL of an object store, such as `s3://BUCKET/PATH`, which is
    /// reached as `options` say, and else the environment. Nothing is read yet.
    ///
    /// # Errors
    /// The URL leads to no object store, or what is needed to reach it is missing; or the current
    /// folder, to which a relative path belongs, is not there.
    pub fn open(root: &Path, place: &str, options: &StoreOptions) -> Result<Self, RegistryError> {
        Ok(Self {
            files: files::open(root, place, options)?,
        })
    }

    /// The current state, or `None` if nothing was applied yet.
    ///
    /// # Errors
    /// It cannot be read, or was written in a newer form.
    pub async fn current(&self) -> Result<Option<State>, RegistryError> {
        self.latest(u64::MAX).await
    }

    /// The state that was current before the one with this number.
    ///
    /// # Errors
    /// As [`Self::current`].
    pub async fn before(&self, number: u64) -> Result<Option<State>, RegistryError> {
        let Some(greatest) = number.checked_sub(1) else {
            return Ok(None);
        };
        // Nearly always the one with the number before.
        match self.files.read(Part::States, &state_name(greatest)).await? {
            Some(bytes) => self.state(greatest, &bytes).map(Some),
            None => self.latest(greatest).await,
        }
    }

    /// The number of the current state, or `None` if nothing was applied yet. The state itself is
    /// not read, but all are listed; see [`Self::newest_after`].
    ///
    /// # Errors
    /// The states cannot be listed.
    pub async fn newest(&self) -> Result<Option<u64>, RegistryError> {
        self.latest_number(u64::MAX).await
    }

    /// The number of the current state, for who knows that it was `known` a while ago; `known`, if
    /// nothing is newer. Meant to be asked often: then it is two small requests, however many
    /// states there are (to an object store two `HEAD`s).
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn newest_after(&self, known: u64) -> Result<u64, RegistryError> {
        let mut newest = known;
        // The first state need not be there any more, and others may.
        if known > 0 {
            for _ in 0..STEPS {
                let next = newest.saturating_add(1);
                if next > newest && self.has(next).await? {
                    newest = next;
                    continue;
                }
                // Old states may be removed, the oldest first: one that is there has lost no
                // successor, and of one that is gone all others are looked for.
                if newest > known || self.has(newest).await? {
                    return Ok(newest);
                }
                break;
            }
        }
        let listed = self.newest().await?;
        Ok(listed.unwrap_or_default().max(newest))
    }

    async fn has(&self, number: u64) -> Result<bool, RegistryError> {
        self.files.has(Part::States, &state_name(number)).await
    }

    /// The state with the greatest number that is not above `greatest`.
    async fn latest(&self, greatest: u64) -> Result<Option<State>, RegistryError> {
        let Some(number) = self.latest_number(greatest).await? else {
            return Ok(None);
        };
        let name = state_name(number);
        match self.files.read(Part::States, &name).await? {
            Some(bytes) => self.state(number, &bytes).map(Some),
            None => Err(self.damaged(
                Part::States,
                &name,
                "it was there, and is missing".to_owned(),
            )),
        }
    }

    /// The greatest number of a state that is not above `greatest`.
    async fn latest_number(&self, greatest: u64) -> Result<Option<u64>, RegistryError> {
        let names = self.files.names(Part::States).await?;
        let numbers = names.iter().filter_map(|name| state_number(name));
        Ok(numbers.filter(|number| *number <= greatest).max())
    }

    /// The state that these bytes, of the file of state `number`, are.
    fn state(&self, number: u64, bytes: &[u8]) -> Result<State, RegistryError> {
        let damaged = |message| self.damaged(Part::States, &state_name(number), message);
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
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
        let state: State =
            serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        if state.number != number {
            return Err(damaged(format!("it is state {}", state.number)));
        }
        Ok(state)
    }

    /// Replaces the state `base` (`None`: nothing was applied yet) by one of `project` that names
    /// `components`.
    ///
    /// # Errors
    /// [`RegistryError::Conflict`] if `base` is not the current state any more; nothing has changed
    /// then. After any other error the state may have been written if the answer of an object store
    /// was lost; what is current then tells.
    pub async fn commit(
        &self,
        base: Option<&State>,
        project: &Project,
        components: &[Bytes],
    ) -> Result<State, RegistryError> {
        self.restore(components).await?;
        let state = State {
            format: FORMAT,
            // After the greatest number comes itself, which is taken.
            number: base.map_or(0, |state| state.number).saturating_add(1),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            commit: format!("{:032x}", fastrand::u128(..)),
            project: project.clone(),
        };
        let number = state.number;
        let json = serde_json::to_vec_pretty(&state)
            .map_err(|source| RegistryError::State { number, source })?;
        self.files.prepare().await?;
        let created = self
            .files
            .create(Part::States, &state_name(number), json.into())
            .await?;
        match created {
            true => Ok(state),
            false => Err(RegistryError::Conflict { number }),
        }
    }

    /// Writes those of `components` that are missing or damaged.
    ///
    /// # Errors
    /// A component's file cannot be read or written.
    pub async fn restore(&self, components: &[Bytes]) -> Result<(), RegistryError> {
        // Bytes are cheap to clone, and futures that borrow them are not general enough to be sent.
        let components = components.iter().cloned();
        let restored = components.map(|component| self.restore_one(component));
        stream::iter(restored)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn restore_one(&self, component: Bytes) -> Result<(), RegistryError> {
        let digest = Digest::of(&component);
        let name = component_name(&digest);
        let held = self.files.read(Part::Components, &name).await?;
        if held.is_some_and(|held| Digest::of(&held) == digest) {
            return Ok(());
        }
        self.files.replace(Part::Components, &name, component).await
    }

    /// The component with this digest.
    ///
    /// # Errors
    /// It is not there, or not what its name says.
    pub async fn component(&self, digest: &Digest) -> Result<Bytes, RegistryError> {
        let name = component_name(digest);
        let damaged = |message| self.damaged(Part::Components, &name, message);
        let Some(bytes) = self.files.read(Part::Components, &name).await? else {
            return Err(damaged("it is missing; apply again".to_owned()));
        };
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(damaged(format!("its digest is {found}; apply again")));
        }
        Ok(bytes)
    }

    /// The components with these digests, in their order, several read at once.
    ///
    /// # Errors
    /// As [`Self::component`].
    pub async fn components(
        &self,
        digests: impl IntoIterator<Item = Digest>,
    ) -> Result<Vec<(Digest, Bytes)>, RegistryError> {
        let read = digests.into_iter().map(|digest| async move {
            let bytes = self.component(&digest).await?;
            Ok((digest, bytes))
        });
        stream::iter(read).buffered(AT_ONCE).try_collect().await
    }

    fn damaged(&self, part: Part, name: &str, message: String) -> RegistryError {
        RegistryError::Damaged {
            file: self.files.shown(part, name),
            message,
        }
    }
}

/// The name of a state's file: numbers have as many digits as the greatest, so that a listing is in
/// their order.
fn state_name(number: u64) -> String {
    format!("{number:020}.json")
}

/// The number of the state in a file of this name; `None` if it holds none.
fn state_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".json")?.parse().ok()?;
    (state_name(number) == name).then_some(number)
}

fn component_name(digest: &Digest) -> String {
    format!("{}.wasm", digest.hex())
}
