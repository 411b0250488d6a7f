//! A registry in a folder.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Files, Part, durable};
use crate::error::RegistryError;

/// A folder, which need not be there before something is written.
///
/// Not by way of the `object_store` library, whose store of local files creates a file for one writer
/// only as well, but does not see to it that it is on the disk.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at `path`.
    ///
    /// # Errors
    /// The current folder, to which a relative path belongs, is not there.
    pub(super) fn open(path: &Path) -> Result<Self, RegistryError> {
        let root = std::path::absolute(path).map_err(|source| RegistryError::Folder {
            place: path.display().to_string(),
            source,
        })?;
        Ok(Self { root })
    }

    fn part(&self, part: Part) -> PathBuf {
        self.root.join(part.name())
    }
}

/// Does `work` on `path` off the runtime, since files block.
async fn off_runtime<T: Send + 'static>(
    action: &'static str,
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, RegistryError> {
    let file = path.display().to_string();
    // A task that did not end: it panicked, or the runtime is being shut down.
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| RegistryError::File {
            action,
            file,
            source,
        })
}

#[async_trait]
impl Files for Folder {
    async fn names(&self, part: Part) -> Result<Vec<String>, RegistryError> {
        off_runtime("read", self.part(part), |folder| {
            let entries = match std::fs::read_dir(folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut names = Vec::new();
            for entry in entries {
                // Who cannot be told in UTF-8 is none of ours.
                names.extend(entry?.file_name().into_string().ok());
            }
            Ok(names)
        })
        .await
    }

    async fn has(&self, part: Part, name: &str) -> Result<bool, RegistryError> {
        off_runtime("read", self.part(part).join(name), Path::try_exists).await
    }

    async fn read(&self, part: Part, name: &str) -> Result<Option<Bytes>, RegistryError> {
        let file = self.part(part).join(name);
        off_runtime("read", file, |file| match std::fs::read(file) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn replace(&self, part: Part, name: &str, bytes: Bytes) -> Result<(), RegistryError> {
        let (folder, name) = (self.part(part), name.to_owned());
        off_runtime("write", folder.join(&name), move |_| {
            durable::make_folder(&folder)?;
            durable::replace(&folder, &name, &bytes)
        })
        .await
    }

    async fn prepare(&self) -> Result<(), RegistryError> {
        // A component may have been written by another who is still about to do that.
        off_runtime(
            "write",
            self.part(Part::Components),
            |components| match components.is_dir() {
                true => durable::synchronize(components),
                false => Ok(()),
            },
        )
        .await
    }

    async fn create(&self, part: Part, name: &str, bytes: Bytes) -> Result<bool, RegistryError> {
        let (folder, name) = (self.part(part), name.to_owned());
        off_runtime("write", folder.join(&name), move |_| {
            durable::make_folder(&folder)?;
            match durable::create(&folder, &name, &bytes) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    fn shown(&self, part: Part, name: &str) -> String {
        self.part(part).join(name).display().to_string()
    }
}
