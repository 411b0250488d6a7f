//! Where the files of a registry lie: a folder, or what keys of an object store begin with.

mod bucket;
mod durable;
mod folder;

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use unskew_objects::{Place, StoreOptions, place};

use crate::error::RegistryError;
use bucket::Bucket;
use folder::Folder;

/// A folder of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The states, by number.
    States,
    /// The components, by digest.
    Components,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::States => "states",
            Self::Components => "components",
        }
    }
}

/// Small files, each of which is there whole or not at all.
///
/// Law: of any number of calls of [`Files::create`] with one name, in whatever processes and on
/// whatever machines, at most one says `true`; and what it wrote is what [`Files::read`] gives from
/// then on.
#[async_trait]
pub(crate) trait Files: Debug + Send + Sync {
    /// The names of what lies in a folder, whatever it is; none if there is no such folder.
    async fn names(&self, part: Part) -> Result<Vec<String>, RegistryError>;

    /// Whether there is a file of this name.
    async fn has(&self, part: Part, name: &str) -> Result<bool, RegistryError>;

    /// What a file holds; `None` if it is not there.
    async fn read(&self, part: Part, name: &str) -> Result<Option<Bytes>, RegistryError>;

    /// Writes a file, in place of the one that is there.
    async fn replace(&self, part: Part, name: &str, bytes: Bytes) -> Result<(), RegistryError>;

    /// Sees to it that [`Files::create`] can be relied on, and that what was read stays.
    async fn prepare(&self) -> Result<(), RegistryError>;

    /// Writes a file that must not be there yet; `false` if it is, and then nothing has changed.
    async fn create(&self, part: Part, name: &str, bytes: Bytes) -> Result<bool, RegistryError>;

    /// A file, as messages name it.
    fn shown(&self, part: Part, name: &str) -> String;
}

/// The files at `path`: of a folder, relative to `root`, or of an object store, if it is a URL.
pub(crate) fn open(
    root: &Path,
    path: &str,
    options: &StoreOptions,
) -> Result<Arc<dyn Files>, RegistryError> {
    let opened = place(path, options).map_err(|problem| RegistryError::Place {
        place: path.to_owned(),
        problem: Box::new(problem),
    })?;
    Ok(match opened {
        Place::Local => Arc::new(Folder::open(&root.join(path))?),
        Place::Remote { store, path, url } => Arc::new(Bucket::new(store, path, url)),
    })
}
