//! One compaction of a source at a time.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use unskew_core::time;

use super::CompactProblem;
use crate::append::Folder;
use crate::error::OfflineError;
use crate::stores::failed;

/// The name of what says that a compaction is going on: no reader takes it for data.
const FILE: &str = ".unskew-compact.lock";
const OBJECT: &str = "_unskew-compact.lock";

/// After how long an object is taken for that of a run that was killed. A run that was only held up
/// for longer makes rows that are there twice; that decides no result.
const STALE: i64 = 6 * 3_600 * time::SECOND;

/// Held while a source is compacted.
pub(super) enum Lock {
    /// The system lets go of it with the process, however that ends.
    Local { _file: File },
    Remote {
        store: Arc<dyn ObjectStore>,
        key: ObjectPath,
    },
}

impl Lock {
    /// # Errors
    /// Somebody else holds it, or nothing can be written there.
    pub(super) async fn take(
        source: &str,
        folder: &Folder,
        now: i64,
    ) -> Result<Self, OfflineError> {
        match folder {
            Folder::Local(path) => {
                let (path, source) = (path.join(FILE), source.to_owned());
                tokio::task::spawn_blocking(move || local(&source, &path)).await?
            }
            Folder::Remote { store, path, url } => {
                let key = match path.as_ref() {
                    "" => OBJECT.to_owned(),
                    path => format!("{path}/{OBJECT}"),
                };
                let url = format!("{url}/{OBJECT}");
                let key = ObjectPath::parse(key).map_err(|error| failed(&url, &error.into()))?;
                let taken = remote(store.as_ref(), &key, now).await;
                match taken.map_err(|error| failed(&url, &error))? {
                    true => Ok(Self::Remote {
                        store: Arc::clone(store),
                        key,
                    }),
                    false => Err(OfflineError::compact(
                        source,
                        CompactProblem::Locked {
                            stale: Some(format!(
                                ", or delete that if no compaction runs; one that was killed \
                                 counts for {} hours",
                                STALE / (3_600 * time::SECOND)
                            )),
                            lock: url,
                        },
                    )),
                }
            }
        }
    }

    /// Lets others at it.
    pub(super) async fn release(self) {
        if let Self::Remote { store, key } = self {
            // Should that fail, others wait until it counts as stale.
            let _ = store.delete(&key).await;
        }
    }
}

fn local(source: &str, path: &Path) -> Result<Lock, OfflineError> {
    let unusable = |error| OfflineError::Io {
        action: "cannot lock",
        path: path.to_owned(),
        error,
    };
    let mut options = File::options();
    let options = options.create(true).append(true);
    let file = options.open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock::Local { _file: file }),
        Err(TryLockError::WouldBlock) => Err(OfflineError::compact(
            source,
            CompactProblem::Locked {
                lock: path.display().to_string(),
                stale: None,
            },
        )),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Puts the object; `false` if another is there that counts.
async fn remote(store: &dyn ObjectStore, key: &ObjectPath, now: i64) -> Result<bool, Error> {
    let payload = || PutPayload::from(format!("compaction since {}\n", time::format(now)));
    match store
        .put_opts(key, payload(), PutOptions::from(PutMode::Create))
        .await
    {
        Ok(_) => return Ok(true),
        Err(Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
    }
    let there = match store.head(key).await {
        // It was let go in this moment; whoever asks again gets it.
        Err(Error::NotFound { .. }) => return Ok(false),
        there => there?,
    };
    if there.last_modified.timestamp_micros() > now.saturating_sub(STALE) {
        return Ok(false);
    }
    // Of several that find it stale one replaces it.
    let version = UpdateVersion {
        e_tag: there.e_tag,
        version: there.version,
    };
    let update = PutOptions::from(PutMode::Update(version));
    match store.put_opts(key, payload(), update).await {
        Ok(_) => Ok(true),
        Err(Error::Precondition { .. } | Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
