//! The engine: wasmtime as both sides use it.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use unskew_core::digest::Digest;
use wasmtime::component::types::ComponentItem;

use crate::cache::Cache;
use crate::component::Component;
use crate::config::{self, Allocation, limits};
use crate::error::{EngineError, LoadError};
use crate::lanes::Lanes;
use crate::permits::Permits;
use crate::settings::Settings;

/// The interface that a transformation exports.
pub(crate) const INTERFACE: &str = "unskew:transform/transformation@1.0.0";

/// Compiles, loads and runs components; cheap to clone, shared by threads.
///
/// A thread advances its clock of interruptions until it and all its components are dropped.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = unskew_engine::Engine::new(&unskew_engine::Settings::default())?;
/// let error = engine.load(b"no component").unwrap_err();
/// assert!(error.to_string().contains("no WebAssembly component"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all components of an engine share.
pub(crate) struct Shared {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) settings: Settings,
    /// The epochs that a call has.
    pub(crate) ticks: u64,
    /// One for each instance that the pool holds.
    pub(crate) permits: Permits,
    /// One for each instance that the pool holds for calls that take a moment.
    pub(crate) brief_permits: Permits,
    /// One for each instance that the pool holds for calls of several requests.
    pub(crate) shared_permits: Permits,
    /// How many threads of this process run at once.
    cpus: usize,
    allocation: Allocation,
    cache: Option<Cache>,
}

/// What can be said about a component without running it, whether or not it can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: usize,
    /// What it imports; a transformation imports nothing.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

impl Engine {
    /// Makes an engine.
    ///
    /// Where the address space for the pool of instances cannot be reserved, instances are
    /// allocated one by one: slower, with the same results.
    ///
    /// # Errors
    /// A setting is out of its range, the folder of compiled code cannot be used, or the machine
    /// cannot run wasmtime.
    pub fn new(settings: &Settings) -> Result<Self, EngineError> {
        check(settings)?;
        let (wasmtime, allocation) = config::wasmtime_engine(settings)?;
        Self::of(settings, wasmtime, allocation)
    }

    fn of(
        settings: &Settings,
        wasmtime: wasmtime::Engine,
        allocation: Allocation,
    ) -> Result<Self, EngineError> {
        let cache = match &settings.cache {
            Some(folder) => Some(Cache::open(folder, &wasmtime)?),
            None => None,
        };
        let (tick, ticks) = config::epochs(settings.timeout);
        config::start_epochs(&wasmtime, tick).map_err(EngineError::Thread)?;
        Ok(Self {
            shared: Arc::new(Shared {
                wasmtime,
                settings: settings.clone(),
                ticks,
                permits: Permits::new(settings.instances),
                brief_permits: Permits::new(config::brief_instances()),
                shared_permits: Permits::new(config::shared_instances()),
                cpus: match allocation {
                    Allocation::Pool => available_parallelism().map_or(1, NonZeroUsize::get),
                    // Without a pool there are no slots to exchange.
                    Allocation::OnDemand => 1,
                },
                allocation,
                cache,
            }),
        })
    }

    /// The settings with which it was made.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Loads a component: compiles it or takes its compiled form from the cache, checks that it
    /// imports nothing and exports a transformation, and asks what it is.
    ///
    /// # Errors
    /// Says which of these does not hold, what was found, and what would be valid.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Component>, LoadError> {
        let digest = Digest::of(bytes);
        let compiled = self.compile(digest, bytes)?;
        let inspection = self.inspected(digest, bytes, &compiled);
        if !inspection.imports.is_empty() {
            return Err(LoadError::Imports {
                digest,
                imports: inspection.imports,
            });
        }
        if !inspection.exports.iter().any(|name| name == INTERFACE) {
            return Err(LoadError::NoTransformation {
                digest,
                exports: inspection.exports,
            });
        }
        self.check_resources(digest, &compiled)?;
        let lanes =
            Lanes::new(&self.shared.wasmtime, &compiled, self.shared.cpus).map_err(|error| {
                LoadError::Contract {
                    digest,
                    message: format!("{error:#}"),
                }
            })?;
        Component::describe(Arc::clone(&self.shared), lanes, digest, bytes.len()).map(Arc::new)
    }

    /// What a component imports and exports.
    ///
    /// # Errors
    /// The bytes are no component.
    pub fn inspect(&self, bytes: &[u8]) -> Result<Inspection, LoadError> {
        let digest = Digest::of(bytes);
        let compiled = self.compile(digest, bytes)?;
        Ok(self.inspected(digest, bytes, &compiled))
    }

    fn compile(
        &self,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<wasmtime::component::Component, LoadError> {
        check_preamble(bytes)?;
        let Shared {
            wasmtime, cache, ..
        } = &*self.shared;
        if let Some(compiled) = cache.as_ref().and_then(|c| c.get(wasmtime, &digest)) {
            return Ok(compiled);
        }
        let compiled =
            wasmtime::component::Component::from_binary(wasmtime, bytes).map_err(|error| {
                LoadError::Compile {
                    digest,
                    message: format!("{error:#}"),
                }
            })?;
        if let Some(cache) = cache {
            // A cache that cannot be written to, on a full disk say, costs time and nothing else.
            let _ = cache.put(&digest, &compiled);
        }
        Ok(compiled)
    }

    fn inspected(
        &self,
        digest: Digest,
        bytes: &[u8],
        compiled: &wasmtime::component::Component,
    ) -> Inspection {
        let engine = &self.shared.wasmtime;
        let component = compiled.component_type();
        Inspection {
            digest,
            size: bytes.len(),
            imports: component
                .imports(engine)
                .map(|(name, _)| name.to_owned())
                .collect(),
            exports: component
                .exports(engine)
                // Types alone do nothing.
                .filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)))
                .map(|(name, _)| name.to_owned())
                .collect(),
        }
    }

    /// Refuses at once what no instance has, instead of at each call.
    fn check_resources(
        &self,
        digest: Digest,
        compiled: &wasmtime::component::Component,
    ) -> Result<(), LoadError> {
        const PAGE: u64 = 65_536;
        let resources = |needs: String, limit: String| {
            Err(LoadError::Resources {
                digest,
                needs,
                limit,
            })
        };
        let Some(required) = compiled.resources_required() else {
            return resources(
                "core modules of somebody else".to_owned(),
                "what it brings itself".to_owned(),
            );
        };
        let limit = self.shared.settings.memory_limit;
        let initial = required
            .max_initial_memory_size
            .unwrap_or(0)
            .saturating_mul(PAGE);
        if initial > limit as u64 {
            return resources(
                format!("{} of memory at the start", size(initial)),
                size(limit as u64),
            );
        }
        for (needs, limit, what) in [
            (required.num_memories, limits::MEMORIES, "memories"),
            (required.num_tables, limits::TABLES, "tables"),
        ] {
            if needs > limit {
                return resources(format!("{needs} {what}"), limit.to_string());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("settings", &self.shared.settings)
            .field("allocation", &self.shared.allocation)
            .finish_non_exhaustive()
    }
}

/// A number of bytes, for a person.
pub(crate) fn size(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    format!("{bytes} bytes")
}

fn check(settings: &Settings) -> Result<(), EngineError> {
    const PAGE: usize = 65_536;
    let wrong = |name, found: String, valid| Err(EngineError::Setting { name, found, valid });
    if !(PAGE..=4 << 30).contains(&settings.memory_limit)
        || !settings.memory_limit.is_multiple_of(PAGE)
    {
        return wrong(
            "memory_limit",
            settings.memory_limit.to_string(),
            "a multiple of 65536, at most 4 GiB",
        );
    }
    if settings.timeout < Duration::from_millis(1) {
        return wrong("timeout", format!("{:?}", settings.timeout), "1 ms or more");
    }
    if settings.instances == 0 || settings.instances > 1_000 {
        return wrong("instances", settings.instances.to_string(), "1 to 1000");
    }
    if settings.chunk_rows == 0 || u32::try_from(settings.chunk_rows).is_err() {
        return wrong(
            "chunk_rows",
            settings.chunk_rows.to_string(),
            "1 to 2^32 - 1",
        );
    }
    Ok(())
}

/// Tells apart what people give by mistake: a core module, a text, another file.
fn check_preamble(bytes: &[u8]) -> Result<(), LoadError> {
    // `\0asm`, then the version and the layer, 0 of a module and 1 of a component.
    match bytes.split_at_checked(8) {
        Some(([0, b'a', b's', b'm', _, _, 0, 0], _)) => Err(LoadError::Module),
        Some(([0, b'a', b's', b'm', ..], _)) => Ok(()),
        _ if bytes.is_empty() => Err(LoadError::NotWasm {
            found: "nothing".to_owned(),
        }),
        _ => Err(LoadError::NotWasm {
            found: format!("`{}`", bytes[..bytes.len().min(8)].escape_ascii()),
        }),
    }
}

#[cfg(test)]
mod tests;
