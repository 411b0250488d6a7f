//! A registry in an object store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use unskew_objects::{StoreProblem, is_absent, problem};

use super::{Files, Part};
use crate::error::RegistryError;

/// The object by which it is found out whether the store refuses to create what is there.
const PROBE: &str = "conditional-put";

/// What [`PROBE`] holds, for whoever finds it.
const PROBE_TEXT: &[u8] =
    b"Each `unskew apply` tries to create this object again. A store that lets \
    it would let one of two applies at once overwrite the other, and is refused.\n";

/// What keys of a bucket begin with.
#[derive(Debug)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// The whole, without a slash at its end.
    url: String,
}

impl Bucket {
    /// What lies below `prefix` in `store`, at `url`.
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: ObjectPath, url: String) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { store, prefix, url }
    }

    fn key(&self, part: Part, name: &str) -> ObjectPath {
        self.prefix.clone().join(part.name()).join(name)
    }

    /// Turns an error that came up at an object into one for the user.
    fn failed(&self, action: &'static str, object: String) -> impl Fn(Error) -> RegistryError {
        move |error| {
            let problem = problem(&object, &error);
            if is_unconditional(&error, &problem) {
                return self.unconditional(problem.to_string());
            }
            RegistryError::Object {
                action,
                url: object.clone(),
                problem: Box::new(problem),
            }
        }
    }

    fn unconditional(&self, found: String) -> RegistryError {
        RegistryError::NoConditionalPut {
            place: self.url.clone(),
            found,
        }
    }

    /// Puts an object where none is; `false` if the store says that one is there.
    async fn put_new(&self, key: &ObjectPath, bytes: Bytes) -> Result<bool, Error> {
        let options = PutOptions::from(PutMode::Create);
        match self
            .store
            .put_opts(key, PutPayload::from_bytes(bytes), options)
            .await
        {
            Ok(_) => Ok(true),
            // A server may say the latter while another put of the same key is on its way.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether a store says that it cannot create an object on the condition that it is new.
fn is_unconditional(error: &Error, problem: &StoreProblem) -> bool {
    match problem {
        // The code of S3 for a header that a server does not know.
        StoreProblem::Failed { reason } if reason.starts_with("NotImplemented") => true,
        _ => matches!(error, Error::NotImplemented { .. }),
    }
}

#[async_trait]
impl Files for Bucket {
    async fn names(&self, part: Part) -> Result<Vec<String>, RegistryError> {
        let folder = self.prefix.clone().join(part.name());
        let listed = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
        let objects =
            listed.map_err(self.failed("list", format!("{}/{}", self.url, part.name())))?;
        let below = objects.into_iter().filter_map(|object| {
            let mut parts = object.location.prefix_match(&folder)?;
            let name = parts.next()?.as_ref().to_owned();
            // What lies deeper is none of ours.
            parts.next().is_none().then_some(name)
        });
        Ok(below.collect())
    }

    async fn has(&self, part: Part, name: &str) -> Result<bool, RegistryError> {
        match self.store.head(&self.key(part, name)).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(self.failed("read", self.shown(part, name))(error)),
        }
    }

    async fn read(&self, part: Part, name: &str) -> Result<Option<Bytes>, RegistryError> {
        let key = self.key(part, name);
        let read = async { self.store.get(&key).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", self.shown(part, name))(error)),
        }
    }

    async fn replace(&self, part: Part, name: &str, bytes: Bytes) -> Result<(), RegistryError> {
        let put = self.store.put(&self.key(part, name), bytes.into()).await;
        put.map_err(self.failed("write", self.shown(part, name)))?;
        Ok(())
    }

    /// A store that does not know conditions does not say so: it does what it was told, without the
    /// condition. So it is told to create what it has.
    async fn prepare(&self) -> Result<(), RegistryError> {
        let key = self.prefix.clone().join(PROBE);
        let failed = self.failed("write", format!("{}/{PROBE}", self.url));
        // The first time it may be new; the second time it is there.
        for _ in 0..2 {
            let bytes = Bytes::from_static(PROBE_TEXT);
            if !self.put_new(&key, bytes).await.map_err(&failed)? {
                return Ok(());
            }
        }
        Err(self.unconditional("it overwrites what it is told to create".to_owned()))
    }

    async fn create(&self, part: Part, name: &str, bytes: Bytes) -> Result<bool, RegistryError> {
        let put = self.put_new(&self.key(part, name), bytes.clone()).await;
        if put.map_err(self.failed("write", self.shown(part, name)))? {
            return Ok(true);
        }
        // The client tries again where an answer was lost, and is refused for what it wrote itself.
        Ok(self
            .read(part, name)
            .await?
            .is_some_and(|held| held == bytes))
    }

    fn shown(&self, part: Part, name: &str) -> String {
        format!("{}/{}/{name}", self.url, part.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_the_condition_is_told_from_others() {
        let of = |text: &str| Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        };
        for (error, expected) in [
            (
                of(
                    "status code: 501 Not Implemented: <Error><Code>NotImplemented</Code>\
                    <Message>A header implies functionality that is not there</Message></Error>",
                ),
                true,
            ),
            (of("<Error><Code>SlowDown</Code></Error>"), false),
            (
                Error::NotImplemented {
                    operation: "put".to_owned(),
                    implementer: "S3".to_owned(),
                },
                true,
            ),
        ] {
            let problem = problem("s3://b/a", &error);
            assert_eq!(is_unconditional(&error, &problem), expected, "{error}");
        }
    }
}
