//! Reading and writing files, with errors that name them.

use std::io::Write;
use std::path::Path;

use crate::error::StoreError;

/// The bytes of a file.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(file).map_err(|source| failed("read", file, source))
}

/// The text of a file.
pub(crate) fn read_text(file: &Path) -> Result<String, StoreError> {
    std::fs::read_to_string(file).map_err(|source| failed("read", file, source))
}

/// Writes a file, and the folders above it, unless it holds these bytes already. By rename: who
/// reads it at the same time never sees half of it.
pub(crate) fn write_if_changed(file: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    if std::fs::read(file).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(file);
    let replace = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut partial = tempfile::NamedTempFile::new_in(folder)?;
        partial.write_all(bytes)?;
        partial.persist(file)?;
        Ok(())
    };
    replace().map_err(|source| failed("write", file, source))
}

fn failed(action: &'static str, file: &Path, source: std::io::Error) -> StoreError {
    StoreError::File {
        action,
        file: file.to_owned(),
        source,
    }
}
