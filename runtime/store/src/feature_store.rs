//! A feature repository, opened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use unskew_core::definitions::{FileText, OnlineStore as OnlineShape, PROJECT_FILE, Settings};
use unskew_core::digest::Digest;
use unskew_engine::{Component, Engine, EngineError};
use unskew_online::{OnlineSettings, OnlineStore};
use unskew_registry::{Registry, State, StoreOptions};

use crate::applied::Applied;
use crate::compile::{self, Built};
use crate::error::StoreError;
use crate::files::read_text;

/// A feature repository: its definitions, its registry, its online store.
///
/// Cheap to clone; all clones share one engine and one connection.
#[derive(Clone)]
pub struct FeatureStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    settings: Settings,
    engine_settings: unskew_engine::Settings,
    engine: OnceLock<Engine>,
    online: OnceLock<Arc<dyn OnlineStore>>,
    /// The components that are loaded, for as long as somebody holds them: a new state of the
    /// registry mostly names the same.
    components: Mutex<BTreeMap<Digest, Weak<Component>>>,
}

impl FeatureStore {
    /// Opens the feature repository in `root`. Neither its registry nor its online store is
    /// touched.
    ///
    /// # Errors
    /// It has no `unskew.yaml`, or that is wrong.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, unskew_engine::Settings::default())
    }

    /// The same, whose components run in an engine of these settings; its cache is the
    /// repository's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(root: &Path, engine: unskew_engine::Settings) -> Result<Self, StoreError> {
        let file = root.join(PROJECT_FILE);
        if !file.is_file() {
            return Err(StoreError::NoRepository {
                root: root.to_owned(),
            });
        }
        let text = read_text(&file)?;
        let settings = Settings::read(&text, |name| std::env::var(name).ok())?;
        let inner = Inner {
            root: root.to_owned(),
            settings,
            engine_settings: engine,
            engine: OnceLock::new(),
            online: OnceLock::new(),
            components: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The folder of the repository.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// What `unskew.yaml` says.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The files of definitions, by name.
    pub(crate) fn definition_files(&self) -> Result<Vec<FileText>, StoreError> {
        let folder = self.inner.root.join("features");
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let unreadable = |source| StoreError::File {
            action: "read",
            file: folder.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_file() && matches!(extension, Some("yaml" | "yml")) {
                names.push(path);
            }
        }
        names.sort();
        names
            .iter()
            .map(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                Ok((format!("features/{name}"), read_text(path)?))
            })
            .collect()
    }

    pub(crate) fn registry(&self) -> Result<Registry, StoreError> {
        let (root, place) = (&self.inner.root, &self.inner.settings.registry);
        // How to reach an object store, the environment says.
        Ok(Registry::open(root, place, &StoreOptions::new())?)
    }

    /// The engine that runs components, started at the first call.
    ///
    /// # Errors
    /// It cannot start: its folder of compiled code cannot be used, or memory is short.
    pub fn engine(&self) -> Result<&Engine, StoreError> {
        if let Some(engine) = self.inner.engine.get() {
            return Ok(engine);
        }
        let settings = unskew_engine::Settings {
            cache: Some(self.inner.root.join(".unskew/compiled")),
            ..self.inner.engine_settings.clone()
        };
        let engine = match Engine::new(&settings) {
            // A repository that is read-only, or another user's: what is compiled is not kept.
            Err(EngineError::Cache { .. } | EngineError::CacheOfAnother { .. }) => {
                Engine::new(&unskew_engine::Settings {
                    cache: None,
                    ..settings
                })?
            }
            engine => engine?,
        };
        Ok(self.inner.engine.get_or_init(|| engine))
    }

    /// The components with these digests; those that are not loaded yet are read from `registry`.
    pub(crate) async fn loaded(
        &self,
        registry: &Registry,
        digests: BTreeSet<Digest>,
    ) -> Result<BTreeMap<Digest, Arc<Component>>, StoreError> {
        let components = || {
            let components = self.inner.components.lock();
            components.unwrap_or_else(PoisonError::into_inner)
        };
        let mut loaded: BTreeMap<Digest, Arc<Component>> = {
            let held = components();
            let held = |digest: &Digest| Some((*digest, held.get(digest)?.upgrade()?));
            digests.iter().filter_map(held).collect()
        };
        let missing = digests.into_iter().filter(|it| !loaded.contains_key(it));
        let missing: Vec<Digest> = missing.collect();
        for (digest, bytes) in registry.components(missing).await? {
            let component = self
                .engine()?
                .load(&bytes)
                .map_err(|source| StoreError::Component { digest, source })?;
            let mut components = components();
            components.retain(|_, held| held.strong_count() > 0);
            components.insert(digest, Arc::downgrade(&component));
            loaded.insert(digest, component);
        }
        Ok(loaded)
    }

    /// The online store, connected at the first call.
    ///
    /// # Errors
    /// Its folder or its URL cannot be used. A Redis server that is down is no error yet.
    pub fn online(&self) -> Result<Arc<dyn OnlineStore>, StoreError> {
        if let Some(online) = self.inner.online.get() {
            return Ok(Arc::clone(online));
        }
        let settings = match &self.inner.settings.online_store {
            OnlineShape::Embedded { path } => OnlineSettings::Embedded {
                path: self.inner.root.join(path),
            },
            OnlineShape::Redis { url } => OnlineSettings::Redis { url: url.clone() },
        };
        let online = unskew_online::connect(&settings)?;
        Ok(Arc::clone(self.inner.online.get_or_init(|| online)))
    }

    /// The registry's current state.
    ///
    /// # Errors
    /// Nothing is applied yet, or it cannot be read.
    pub async fn state(&self) -> Result<State, StoreError> {
        let current = self.registry()?.current().await?;
        let state = current.ok_or(StoreError::NothingApplied)?;
        self.check_project(&state.project.name)?;
        Ok(state)
    }

    /// The registry's current state, its components loaded.
    ///
    /// # Errors
    /// As [`Self::state`]; or a component cannot be loaded.
    pub async fn applied(&self) -> Result<Arc<Applied>, StoreError> {
        let (state, registry) = (self.state().await?, self.registry()?);
        Ok(Arc::new(Applied::load(self, &registry, state).await?))
    }

    /// Whether `applied` is what is applied still. Meant to be asked often: the registry is asked
    /// for the next state's name alone.
    ///
    /// # Errors
    /// The registry does not answer.
    pub async fn is_current(&self, applied: &Applied) -> Result<bool, StoreError> {
        let number = applied.state.number;
        Ok(self.registry()?.newest_after(number).await? == number)
    }

    /// The registry's state before the one with this number; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn state_before(&self, number: u64) -> Result<Option<State>, StoreError> {
        Ok(self.registry()?.before(number).await?)
    }

    /// What was applied before the state with this number, its components loaded; `None` if
    /// nothing was.
    ///
    /// # Errors
    /// It cannot be read, or a component cannot be loaded.
    pub async fn applied_before(&self, number: u64) -> Result<Option<Arc<Applied>>, StoreError> {
        let registry = self.registry()?;
        let Some(state) = registry.before(number).await? else {
            return Ok(None);
        };
        self.check_project(&state.project.name)?;
        let applied = Applied::load(self, &registry, state).await?;
        Ok(Some(Arc::new(applied)))
    }

    pub(crate) fn check_project(&self, found: &str) -> Result<(), StoreError> {
        let wanted = &self.inner.settings.project;
        if found == wanted {
            return Ok(());
        }
        Err(StoreError::OtherProject {
            found: found.to_owned(),
            wanted: wanted.clone(),
        })
    }

    /// Builds the transformation in `folder`, a path relative to the repository or an absolute one.
    ///
    /// # Errors
    /// The toolchain is missing, or it refuses the sources.
    pub async fn build(&self, folder: &Path) -> Result<Built, StoreError> {
        let (root, folder) = (self.inner.root.clone(), self.inner.root.join(folder));
        tokio::task::spawn_blocking(move || compile::build_component(&root, &folder)).await?
    }

    /// Removes the project's values from the online store, and says how many rows that were.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn teardown(&self) -> Result<u64, StoreError> {
        Ok(self
            .online()?
            .remove_project(&self.inner.settings.project)
            .await?)
    }
}
