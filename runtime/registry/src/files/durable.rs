//! Files that stay, whole, even if the machine stops: each is written beside its place under
//! another name, synchronized, and only then given its own.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Makes `folder`, and those above it, where they are not there.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent();
    if let Some(above) = above {
        make_folder(above)?;
    }
    match std::fs::create_dir(folder) {
        // Another was faster.
        Err(_) if folder.is_dir() => {}
        made => made?,
    }
    above.map_or(Ok(()), synchronize)
}

/// Writes a file that must not be there yet; if it is, the error is `AlreadyExists`.
pub(crate) fn create(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    written(folder, bytes)?.persist_noclobber(folder.join(name))?;
    synchronize(folder)
}

/// Writes a file, which replaces the one that is there.
pub(crate) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    written(folder, bytes)?.persist(folder.join(name))?;
    synchronize(folder)
}

/// Sees to it that the names in `folder` stay.
pub(crate) fn synchronize(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder is no file that could be synchronized.
    if cfg!(not(unix)) {
        return Ok(());
    }
    match std::fs::File::open(folder)?.sync_all() {
        // Not every file system does that for a folder.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

fn written(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any other file of the user's, less what the umask takes away.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}
