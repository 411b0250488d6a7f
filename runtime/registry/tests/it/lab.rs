//! Registries, and what lies in them, whatever a registry makes of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;
use unskew_core::project::Project;
use unskew_objects::{Place, place};
use unskew_registry::{Registry, RegistryError, State, StoreOptions};
use unskew_test_s3::S3Server;

/// A component of the states that tests commit.
pub(crate) const COMPONENT: Bytes = Bytes::from_static(b"component");

/// Where registries lie in their store.
const PREFIX: &str = "new/registry";

/// A place for a registry.
pub(crate) struct Lab {
    pub(crate) root: PathBuf,
    pub(crate) place: String,
    pub(crate) options: StoreOptions,
    store: Arc<dyn ObjectStore>,
    _folder: TempDir,
    _server: Option<S3Server>,
}

/// Runs `test` with an empty registry in a folder, and with one in an object store.
pub(crate) async fn everywhere(test: impl AsyncFn(Lab)) {
    test(Lab::folder()).await;
    test(Lab::bucket(S3Server::start())).await;
}

impl Lab {
    pub(crate) fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        Self {
            store: Arc::new(LocalFileSystem::new_with_prefix(&root).unwrap()),
            root,
            place: PREFIX.to_owned(),
            options: StoreOptions::new(),
            _folder: folder,
            _server: None,
        }
    }

    pub(crate) fn bucket(server: S3Server) -> Self {
        let options = server.environment().into_iter().collect();
        let url = server.url(PREFIX);
        let store = match place(&url, &options).unwrap() {
            Place::Remote { store, .. } => store,
            Place::Local => panic!("{url} is no path"),
        };
        Self {
            place: url,
            options,
            store,
            ..Self::folder()
        }
        .with(server)
    }

    fn with(mut self, server: S3Server) -> Self {
        self._server = Some(server);
        self
    }

    /// The registry, opened anew.
    pub(crate) fn registry(&self) -> Registry {
        Registry::open(&self.root, &self.place, &self.options).unwrap()
    }

    /// The registry with one state, which names [`COMPONENT`].
    pub(crate) async fn applied(&self) -> (Registry, State) {
        let registry = self.registry();
        let state = registry.commit(None, &project("a"), &[COMPONENT]).await;
        (registry, state.unwrap())
    }

    /// Stores a file in the registry.
    pub(crate) async fn put(&self, file: &str, bytes: impl Into<Bytes>) {
        let put = self.store.put(&key(file), bytes.into().into()).await;
        put.unwrap();
    }

    pub(crate) async fn get(&self, file: &str) -> Bytes {
        let object = self.store.get(&key(file)).await.unwrap();
        object.bytes().await.unwrap()
    }

    pub(crate) async fn remove(&self, file: &str) {
        self.store.delete(&key(file)).await.unwrap();
    }

    /// The files of a folder of the registry.
    pub(crate) async fn files(&self, folder: &str) -> Vec<String> {
        let objects = self.store.list(Some(&key(folder)));
        let objects: Vec<_> = objects.try_collect().await.unwrap();
        let names = objects
            .iter()
            .map(|object| object.location.filename().unwrap().to_owned());
        names.collect()
    }

    /// A path in the folder of a registry in a folder.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.root.join(Path::new(PREFIX).join(file))
    }
}

fn key(file: &str) -> Key {
    Key::parse(format!("{PREFIX}/{file}")).unwrap()
}

/// The file of a state.
pub(crate) fn state_file(number: u64) -> String {
    format!("states/{number:020}.json")
}

pub(crate) fn project(name: &str) -> Project {
    Project {
        name: name.to_owned(),
        ..Project::default()
    }
}

/// Commits states until the registry has this many.
pub(crate) async fn grow(registry: &Registry, states: u64) -> Result<State, RegistryError> {
    loop {
        let current = registry.current().await?;
        match current {
            Some(state) if state.number >= states => return Ok(state),
            base => registry.commit(base.as_ref(), &project("a"), &[]).await?,
        };
    }
}
