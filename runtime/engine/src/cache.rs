//! Compiled code on disk.
//!
//! A file for each (component, wasmtime and its configuration and machine), written beside its
//! place and renamed, so that a process that is killed leaves no half of one, and two that write
//! the same one do no harm.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use unskew_core::digest::Digest;
use wasmtime::component::Component;

use crate::error::EngineError;

/// A folder of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Tells apart what engines of different versions, configurations and machines compile.
    compatibility: u64,
}

impl Cache {
    /// Opens the folder, which is made if need be.
    ///
    /// # Errors
    /// It cannot be made or written to, or is another user's.
    pub(crate) fn open(folder: &Path, engine: &wasmtime::Engine) -> Result<Self, EngineError> {
        prepare(folder).map_err(|source| EngineError::Cache {
            path: folder.to_owned(),
            source,
        })?;
        if !is_own(folder).map_err(|source| EngineError::Cache {
            path: folder.to_owned(),
            source,
        })? {
            return Err(EngineError::CacheOfAnother {
                path: folder.to_owned(),
            });
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            folder: folder.to_owned(),
            compatibility: hasher.finish(),
        })
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        let Self {
            folder,
            compatibility,
        } = self;
        folder.join(format!("{}-{compatibility:016x}.cwasm", digest.hex()))
    }

    /// The compiled form of the component, if it is there and whole.
    pub(crate) fn get(&self, engine: &wasmtime::Engine, digest: &Digest) -> Option<Component> {
        let file = self.file(digest);
        // Looked at first, since wasmtime's error does not tell a missing file from a damaged one,
        // and a missing one is the usual case.
        if !file.exists() {
            return None;
        }
        #[expect(unsafe_code, reason = "loading a compiled component")]
        // SAFETY: the file must be what `Component::serialize` of a compatible engine gave. Only
        // `put` writes into this folder, whose mode 0700 and owner `open` saw to, and it renames a
        // file to this name after all of it was written and synced; the name holds the digest of
        // the component and the hash of all that decides compatibility. wasmtime itself checks its
        // version and configuration in the file's header, and refuses the file otherwise.
        unsafe { Component::deserialize_file(engine, file) }.ok()
    }

    /// Keeps the compiled form of a component.
    ///
    /// # Errors
    /// The disk's; a cache that cannot be written to costs time and nothing else.
    pub(crate) fn put(&self, digest: &Digest, component: &Component) -> io::Result<()> {
        let code = component.serialize().map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&code)?;
        file.as_file().sync_all()?;
        file.persist(self.file(digest))?;
        Ok(())
    }
}

/// Loads compiled code once more; the copy shares nothing with the first.
///
/// `code` is what [`Component::serialize`] gave for a component of this engine.
///
/// # Errors
/// The system has no memory for it.
pub(crate) fn copy(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    #[expect(unsafe_code, reason = "loading a compiled component")]
    // SAFETY: the bytes must be what `Component::serialize` of a compatible engine gave. The one
    // caller, `lanes`, has just had them from it, for this engine, and nothing else has seen them.
    unsafe {
        Component::deserialize(engine, code)
    }
}

#[cfg(unix)]
fn prepare(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Whether the folder belongs to who runs this process, as a file that the process makes does.
#[cfg(unix)]
fn is_own(folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let probe = tempfile::NamedTempFile::new_in(folder)?;
    Ok(probe.as_file().metadata()?.uid() == fs::metadata(folder)?.uid())
}

#[cfg(not(unix))]
fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(not(unix))]
fn is_own(_folder: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Guest};
    use crate::{Engine, Settings};

    fn settings(folder: &Path) -> Settings {
        Settings {
            cache: Some(folder.to_owned()),
            ..testing::settings()
        }
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    #[test]
    fn compiled_code_is_kept_and_taken_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("a/b");
        let bytes = Guest::identity().bytes();
        let first = Engine::new(&settings(&cache))
            .unwrap()
            .load(&bytes)
            .unwrap();
        let kept = files(&cache);
        assert_eq!(kept.len(), 1, "{kept:?}");
        let written = fs::metadata(&kept[0]).unwrap().modified().unwrap();

        let second = Engine::new(&settings(&cache))
            .unwrap()
            .load(&bytes)
            .unwrap();
        assert_eq!(first.description(), second.description());
        assert_eq!(files(&cache), kept);
        assert_eq!(fs::metadata(&kept[0]).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn a_damaged_file_is_compiled_anew() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = Guest::identity().bytes();
        let engine = Engine::new(&settings(folder.path())).unwrap();
        drop(engine.load(&bytes).unwrap());
        let kept = files(folder.path()).remove(0);
        for damaged in [&b""[..], b"\x7fELF", b"something else"] {
            fs::remove_file(&kept).unwrap();
            fs::write(&kept, damaged).unwrap();
            engine.load(&bytes).unwrap();
            assert!(fs::metadata(&kept).unwrap().len() > 1_000);
        }
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_write_to_the_folder() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
        Engine::new(&settings(&cache)).unwrap();
        assert_eq!(
            fs::metadata(&cache).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Engine::new(&settings(file.path())).unwrap_err().to_string();
        assert!(
            error.contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}
