//! Files that get their names when they are complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempPath};

use super::cannot_write;
use crate::error::OfflineError;

/// A temporary file in the folder of the one that it will be; it is deleted when dropped.
pub(crate) struct StagedFile {
    out: PathBuf,
    overwrite: bool,
    temporary: TempPath,
    file: File,
}

impl StagedFile {
    /// # Errors
    /// `out` exists and is not to be overwritten, it is a folder, or nothing can be written beside
    /// it.
    pub(crate) fn beside(out: &Path, overwrite: bool) -> Result<Self, OfflineError> {
        if out.is_dir() {
            let error = std::io::Error::other("there is a folder of that name");
            return Err(cannot_write(out, error));
        }
        refuse_existing(out, overwrite)?;
        let name = hidden_name(out)?;
        let mut builder = Builder::new();
        builder.prefix(&name).suffix(".tmp");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any other file of the user's, less what the umask takes away.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let temporary = builder.tempfile_in(parent(out));
        let (file, temporary) = temporary
            .map_err(|error| cannot_write(out, error))?
            .into_parts();
        Ok(Self {
            out: out.to_owned(),
            overwrite,
            temporary,
            file,
        })
    }

    /// The file that it will be.
    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// The file, to be written.
    ///
    /// # Errors
    /// The system has no more handles.
    pub(crate) fn file(&self) -> Result<File, OfflineError> {
        let file = self.file.try_clone();
        file.map_err(|error| cannot_write(&self.out, error))
    }

    /// Writes it whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, bytes: impl AsRef<[u8]>) -> Result<(), OfflineError> {
        let mut file = &self.file;
        let written = file.write_all(bytes.as_ref());
        written
            .and_then(|()| file.sync_all())
            .map_err(|error| cannot_write(&self.out, error))
    }

    /// Writes it whole, and closes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn complete(self, bytes: impl AsRef<[u8]>) -> Result<CompleteFile, OfflineError> {
        self.write(bytes)?;
        Ok(self.closed())
    }

    /// Gives the complete file its name, so that it stays even if the machine stops now.
    ///
    /// # Errors
    /// A file of that name has appeared and is not to be overwritten, or the system refuses.
    pub(crate) fn persist(self) -> Result<(), OfflineError> {
        self.closed().persist().map(drop)
    }

    fn closed(self) -> CompleteFile {
        CompleteFile {
            out: self.out,
            overwrite: self.overwrite,
            temporary: self.temporary,
        }
    }
}

/// A complete file that waits for its name; it is deleted when dropped. It holds no handle, of which
/// a process has few, so there may be many of them.
pub(crate) struct CompleteFile {
    out: PathBuf,
    overwrite: bool,
    temporary: TempPath,
}

impl CompleteFile {
    /// Gives it its name, so that it stays even if the machine stops now, and says which that is.
    ///
    /// # Errors
    /// A file of that name has appeared and is not to be overwritten, or the system refuses.
    pub(crate) fn persist(self) -> Result<PathBuf, OfflineError> {
        let Self {
            out,
            overwrite,
            temporary,
        } = self;
        let persisted = if overwrite {
            temporary.persist(&out)
        } else {
            temporary.persist_noclobber(&out)
        };
        persisted.map_err(|error| failed(&out, error.error))?;
        sync(parent(&out));
        Ok(out)
    }
}

/// Gives both their names, or neither.
pub(super) fn persist_both(first: StagedFile, second: StagedFile) -> Result<(), OfflineError> {
    let out = first.out.clone();
    // What was there comes back should the second fail; a link, so that it is there all the time.
    let former = hidden_name(&out).map(|name| {
        let mut name = name;
        name.push("former.tmp");
        parent(&out).join(name)
    })?;
    let _ = fs::remove_file(&former);
    let had_former = out.exists()
        && fs::hard_link(&out, &former)
            .or_else(|_| fs::copy(&out, &former).map(drop))
            .is_ok();
    let persisted = first.persist().and_then(|()| {
        second.persist().inspect_err(|_| {
            let _ = if had_former {
                fs::rename(&former, &out)
            } else {
                fs::remove_file(&out)
            };
        })
    });
    let _ = fs::remove_file(&former);
    persisted
}

/// # Errors
/// There is something at `out`, and it is not to be overwritten.
pub(super) fn refuse_existing(out: &Path, overwrite: bool) -> Result<(), OfflineError> {
    // A link that leads nowhere is something, too.
    if !overwrite && out.symlink_metadata().is_ok() {
        return Err(OfflineError::Exists {
            path: out.to_owned(),
        });
    }
    Ok(())
}

/// What went wrong when `out` was to get its name.
pub(super) fn failed(out: &Path, error: std::io::Error) -> OfflineError {
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => OfflineError::Exists {
            path: out.to_owned(),
        },
        _ => cannot_write(out, error),
    }
}

/// How the name of a temporary file for `out` begins: `.NAME.`.
pub(super) fn hidden_name(out: &Path) -> Result<OsString, OfflineError> {
    let name = out
        .file_name()
        .ok_or_else(|| cannot_write(out, std::io::Error::other("the path names no file")))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    Ok(hidden)
}

/// Makes a folder, and those above it, so that they stay even if the machine stops now.
///
/// # Errors
/// The system refuses.
pub(crate) fn made_folder(folder: &Path) -> Result<(), OfflineError> {
    let missing = folder.ancestors().take_while(|folder| !folder.is_dir());
    let missing: Vec<&Path> = missing.collect();
    fs::create_dir_all(folder).map_err(|error| cannot_write(folder, error))?;
    for made in missing {
        sync(parent(made));
    }
    Ok(())
}

pub(super) fn parent(out: &Path) -> &Path {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes names in `folder` last.
pub(crate) fn sync(folder: &Path) {
    // Not every file system lets a folder be synchronized, and the file is there by now.
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}
