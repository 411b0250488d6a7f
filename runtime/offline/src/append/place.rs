//! The folder of a source, into which files can be put.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use unskew_core::view::Source;

use super::AppendProblem;
use crate::error::OfflineError;
use crate::files::{GLOB, folders_of};
use crate::stores::{Place, StoreOptions, failed, place};

/// Where the files of a source lie.
#[derive(Clone, Debug)]
pub(crate) enum Folder {
    /// On the file system; it may have to be made.
    Local(PathBuf),
    /// In an object store.
    Remote {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// What keys begin with.
        path: ObjectPath,
        /// The same as a URL, without a slash at its end.
        url: String,
    },
}

/// The folder of a source, or why it has none.
///
/// # Errors
/// The object store cannot be reached, or refuses.
pub(crate) async fn folder(
    root: &Path,
    source: &Source,
    options: &StoreOptions,
) -> Result<Result<Folder, AppendProblem>, OfflineError> {
    let path = source.path.as_str();
    let folders = folders_of(path).filter(|folders| !folders.contains(GLOB));
    match place(folders.unwrap_or(path), options)? {
        Place::Local => {
            let at = root.join(folders.unwrap_or(path));
            if at.is_dir() {
                return Ok(Ok(Folder::Local(at)));
            }
            Ok(match kind(path, folders.is_some(), at.exists()) {
                Some(found) => Err(no_folder(path, found)),
                None => Ok(Folder::Local(at)),
            })
        }
        Place::Remote {
            store,
            path: key,
            url,
        } => {
            let is_object = if url.ends_with('/') || key.is_root() || folders.is_some() {
                false
            } else {
                match store.head(&key).await {
                    Ok(_) => true,
                    Err(Error::NotFound { .. }) => false,
                    Err(error) => return Err(failed(&url, &error)),
                }
            };
            Ok(match kind(path, folders.is_some(), is_object) {
                Some(found) => Err(no_folder(path, found)),
                None => Ok(Folder::Remote {
                    store,
                    path: key,
                    url: url.trim_end_matches('/').to_owned(),
                }),
            })
        }
    }
}

/// What a path names that is no folder.
fn kind(path: &str, is_folders: bool, exists: bool) -> Option<&'static str> {
    let is_file = Path::new(path)
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    if exists {
        Some("a single file")
    } else if !is_folders && path.contains(GLOB) {
        Some("whatever files match it")
    } else if is_file && !path.ends_with('/') {
        Some("a single file")
    } else {
        None
    }
}

fn no_folder(path: &str, found: &'static str) -> AppendProblem {
    let mut parts: Vec<&str> = path.split('/').collect();
    let glob = parts.iter().position(|part| part.contains(GLOB));
    parts.truncate(glob.unwrap_or(parts.len() - 1));
    let folder = match parts.join("/") {
        folder if folder.is_empty() || folder.ends_with(":/") => "data".to_owned(),
        folder => folder,
    };
    AppendProblem::NoFolder {
        path: path.to_owned(),
        found,
        folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_folder_is_told_with_what_would_be() {
        for (path, is_folders, exists, found) in [
            ("data", false, false, None),
            ("data.parquet/", false, false, None),
            ("data/**", true, false, None),
            ("data/a.parquet", false, false, Some("a single file")),
            ("data/a", false, true, Some("a single file")),
            (
                "data/*.parquet",
                false,
                false,
                Some("whatever files match it"),
            ),
        ] {
            assert_eq!(kind(path, is_folders, exists), found, "{path}");
        }
        for (path, folder) in [
            ("data/a.parquet", "data"),
            ("a.parquet", "data"),
            ("data/*/x/*.parquet", "data"),
            ("s3://b/data/x.parquet", "s3://b/data"),
        ] {
            let said = no_folder(path, "a single file").to_string();
            assert!(said.contains(&format!("write `{folder}` as")), "{said}");
        }
    }
}
