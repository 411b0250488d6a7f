//! From a place in an object store to the objects that it names, by the rules of the file system.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::error::{OfflineError, SourceProblem};
use crate::files::{GLOB, MATCH_OPTIONS, folders_of, is_left_out};
use crate::stores;

/// The objects that `path`, of the source `name`, names: itself, what lies below it, or what it
/// matches as a glob; none, if there are none.
///
/// # Errors
/// The store refuses, or does not answer; or the path is neither there nor a glob.
pub(crate) async fn objects(
    store: &dyn ObjectStore,
    path: &ObjectPath,
    url: &str,
    name: &str,
) -> Result<Vec<ObjectMeta>, OfflineError> {
    let failed = |error: Error| stores::failed(url, &error);
    let mut denied = None;
    // What a slash follows is a folder, whatever else is called so.
    if !path.is_root() && !url.ends_with('/') {
        match store.head(path).await {
            Ok(object) => return Ok(vec![object]),
            Err(Error::NotFound { .. }) => {}
            // Who may list gets to know more, and of a refusal a listing says why.
            Err(error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => {
                denied = Some(error);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let below = list(store, path).await.map_err(failed)?;
    if below.is_empty() && path.as_ref().contains(GLOB) {
        return globbed(store, path, url, name).await;
    }
    match denied {
        Some(error) if below.is_empty() => Err(failed(error)),
        _ => {
            let depth = path.parts_count();
            let data = below.into_iter();
            Ok(data.filter(|object| is_data(object, depth)).collect())
        }
    }
}

/// The objects that a glob matches, and those below what it matches.
async fn globbed(
    store: &dyn ObjectStore,
    path: &ObjectPath,
    url: &str,
    name: &str,
) -> Result<Vec<ObjectMeta>, OfflineError> {
    let folders = folders_of(path.as_ref());
    let pattern = folders.unwrap_or(path.as_ref());
    let glob = glob::Pattern::new(pattern).map_err(|error| {
        let (pattern, reason) = (url.to_owned(), error.to_string());
        OfflineError::source(name, SourceProblem::InvalidGlob { pattern, reason })
    })?;
    let parts = || pattern.split('/').filter(|part| !part.is_empty());
    let names_hidden = parts().any(|part| is_left_out(part.as_bytes()));
    let fixed: Vec<&str> = parts().take_while(|part| !part.contains(GLOB)).collect();
    let depth = fixed.len();
    let is_folder = depth == parts().count();
    // The parts of a path are one, too; made of strings, it would have them escaped.
    let prefix =
        ObjectPath::parse(fixed.join("/")).map_err(|error| stores::failed(url, &error.into()))?;
    let below = list(store, &prefix)
        .await
        .map_err(|error| stores::failed(url, &error))?;
    // Who writes `_archive/*.parquet` means it; what lies below a match may not be hidden.
    let shown_from = |parts: usize| if names_hidden { parts } else { depth };
    let matched = below.into_iter().filter(|object| {
        let key = object.location.as_ref();
        let matches = |key: &str| glob.matches_with(key, MATCH_OPTIONS);
        let is_object =
            folders.is_none() && matches(key) && (names_hidden || !is_hidden(object, depth));
        let mut above = key.match_indices('/').enumerate();
        is_object
            || (is_folder && is_data(object, depth))
            || above.any(|(index, (end, _))| {
                matches(&key[..end]) && is_data(object, shown_from(index + 1))
            })
    });
    Ok(matched.collect())
}

/// All objects below `prefix`, but none that stands for a folder.
async fn list(store: &dyn ObjectStore, prefix: &ObjectPath) -> Result<Vec<ObjectMeta>, Error> {
    let prefix = (!prefix.is_root()).then_some(prefix);
    let objects: Vec<ObjectMeta> = store.list(prefix).try_collect().await?;
    // Consoles make an empty object `a/` for the folder `a`; a path has no slash at its end.
    let objects: BTreeMap<ObjectPath, ObjectMeta> = objects
        .into_iter()
        .map(|object| (object.location.clone(), object))
        .collect();
    let folders: BTreeSet<&str> = objects
        .keys()
        .flat_map(|key| {
            let key = key.as_ref();
            key.match_indices('/').map(move |(end, _)| &key[..end])
        })
        .collect();
    let is_folder = |object: &ObjectMeta| {
        let key = object.location.as_ref();
        object.size == 0
            && (folders.contains(key) || prefix.is_some_and(|prefix| prefix.as_ref() == key))
    };
    let files = objects.values().filter(|object| !is_folder(object));
    Ok(files.cloned().collect())
}

/// Whether an object of a folder is one of Parquet; `depth` is how many parts its folder has.
fn is_data(object: &ObjectMeta, depth: usize) -> bool {
    let extension = object.location.extension();
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
        && !is_hidden(object, depth)
}

/// Whether a part of its path after the first `depth` is left out.
fn is_hidden(object: &ObjectMeta, depth: usize) -> bool {
    let mut parts = object.location.parts().skip(depth);
    parts.any(|part| is_left_out(part.as_ref().as_bytes()))
}
