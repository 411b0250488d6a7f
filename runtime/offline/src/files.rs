//! From a source's path to the files that it names.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore};
use unskew_core::view::Partition;

use crate::error::{OfflineError, SourceProblem};
use crate::hive;
use crate::objects::objects;
use crate::stores::{Place, StoreOptions, place};

/// A file of a source.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// The file, as messages name it: a path, or a URL.
    pub(crate) path: PathBuf,
    /// Where it lies; `None`: on the file system.
    pub(crate) store: Option<Arc<dyn ObjectStore>>,
    /// Size, modification time, and the object's e_tag and version; `location` is that within its
    /// store.
    pub(crate) meta: ObjectMeta,
    /// The instants of event timestamps that the file's partition allows, both inclusive, slack
    /// included; `None`: it says nothing about them.
    pub(crate) events: Option<(i64, i64)>,
    /// The columns that the file's folders name, hive style (`country=CH`), decoded; in order.
    pub(crate) partition: Vec<(String, String)>,
}

impl SourceFile {
    /// The file at `path`.
    pub(crate) fn at(path: PathBuf) -> Result<Self, OfflineError> {
        let io = |error| OfflineError::Io {
            action: "cannot read",
            path: path.clone(),
            error,
        };
        // Canonical, since an object store has no `..` in its paths.
        let canonical = path.canonicalize().map_err(io)?;
        let metadata = canonical.metadata().map_err(io)?;
        let location = ObjectPath::from_absolute_path(&canonical)
            .map_err(|error| io(std::io::Error::other(error)))?;
        let meta = ObjectMeta {
            location,
            last_modified: metadata.modified().map_err(io)?.into(),
            size: metadata.len(),
            e_tag: None,
            version: None,
        };
        Ok(Self {
            path,
            store: None,
            meta,
            events: None,
            partition: Vec::new(),
        })
    }
}

/// The files that `path`, of the source `name`, names, in the order of their paths, each once, with
/// what their folders say.
///
/// A path that exists is taken as it stands, even if it has the characters of a glob in it. Below a
/// folder every `*.parquet` counts; files and folders that begin with `.` or `_` do not, as with
/// the engines that write such folders. The same holds in an object store, where a folder is what
/// keys begin with; how it is reached say `options`, and else the environment.
///
/// # Errors
/// There is no such file; a folder cannot be read; a store cannot be reached or refuses; a file lies
/// outside of every folder of `partition`.
pub(crate) async fn source_files(
    root: &Path,
    name: &str,
    path: &str,
    partition: Option<&Partition>,
    options: &StoreOptions,
) -> Result<Vec<SourceFile>, OfflineError> {
    let mut files = match place(path, options)? {
        Place::Local => {
            let (root, name, path) = (root.to_owned(), name.to_owned(), path.to_owned());
            let files = move || local_files(&root, &name, &path);
            tokio::task::spawn_blocking(files).await??
        }
        Place::Remote { store, path, url } => remote_files(&store, &path, &url, name).await?,
    };
    if let Some(partition) = partition {
        for file in &mut files {
            let events = hive::events(partition, file);
            file.events = events.map_err(|problem| OfflineError::source(name, problem))?;
        }
    }
    Ok(files)
}

/// The files of a source in an object store.
async fn remote_files(
    store: &Arc<dyn ObjectStore>,
    path: &ObjectPath,
    url: &str,
    name: &str,
) -> Result<Vec<SourceFile>, OfflineError> {
    let objects = objects(store.as_ref(), path, url, name).await?;
    // What stands before the key: `s3://bucket/`.
    let bucket = url.match_indices('/').nth(2);
    let bucket = bucket.map_or_else(|| format!("{url}/"), |(end, _)| url[..=end].to_owned());
    let mut files: Vec<SourceFile> = objects
        .into_iter()
        .map(|meta| {
            let key = meta.location.as_ref();
            let folders = key.rsplit_once('/').map_or("", |(folders, _)| folders);
            SourceFile {
                path: PathBuf::from(format!("{bucket}{key}")),
                store: Some(Arc::clone(store)),
                events: None,
                partition: hive::columns(folders.split('/')),
                meta,
            }
        })
        .collect();
    if files.is_empty() {
        return Err(no_files(name, PathBuf::from(url)));
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

/// The files of a source on the file system.
///
/// # Errors
/// There is no such file, or a folder cannot be read. Blocks: to be called off the runtime.
pub(crate) fn local_files(
    root: &Path,
    name: &str,
    path: &str,
) -> Result<Vec<SourceFile>, OfflineError> {
    let pattern = root.join(path);
    let mut found = BTreeSet::new();
    if pattern.exists() {
        collect(&pattern, &mut found)?;
    } else if let Some(folders) = folders_of(path) {
        let folder = root.join(folders);
        let folders = match folder.exists() {
            true => vec![folder],
            false => glob(root, name, folders)?,
        };
        for folder in folders.iter().filter(|path| path.is_dir()) {
            collect(folder, &mut found)?;
        }
    } else {
        for path in glob(root, name, path)? {
            collect(&path, &mut found)?;
        }
    }
    if found.is_empty() {
        return Err(no_files(name, pattern));
    }
    let files = found.into_iter().map(|path| {
        // Folders above the feature repository say nothing of its sources.
        let below = path.strip_prefix(root).unwrap_or(&path);
        let folders = below.parent().into_iter().flat_map(Path::components);
        let partition = hive::columns(folders.filter_map(|folder| folder.as_os_str().to_str()));
        Ok(SourceFile {
            partition,
            ..SourceFile::at(path)?
        })
    });
    files.collect()
}

fn no_files(name: &str, pattern: PathBuf) -> OfflineError {
    OfflineError::source(name, SourceProblem::NoFiles { pattern })
}

/// Adds `path` if it is a file, or else the Parquet files below it.
fn collect(path: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), OfflineError> {
    if path.is_dir() {
        walk(path, &mut BTreeSet::new(), found)
    } else {
        found.insert(path.to_owned());
        Ok(())
    }
}

/// Adds the Parquet files below `folder`; `seen` are the folders above it, so that a link to one of
/// them ends there.
fn walk(
    folder: &Path,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut BTreeSet<PathBuf>,
) -> Result<(), OfflineError> {
    let io = |error| OfflineError::Io {
        action: "cannot read the folder",
        path: folder.to_owned(),
        error,
    };
    let canonical = folder.canonicalize().map_err(io)?;
    if !seen.insert(canonical.clone()) {
        return Ok(());
    }
    for entry in folder.read_dir().map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path
            .file_name()
            .is_some_and(|name| is_left_out(name.as_encoded_bytes()))
        {
            continue;
        }
        if path.is_dir() {
            walk(&path, seen, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
        {
            found.insert(path);
        }
    }
    seen.remove(&canonical);
    Ok(())
}

/// The paths that a source's path matches as a glob.
fn glob(root: &Path, name: &str, path: &str) -> Result<Vec<PathBuf>, OfflineError> {
    let invalid = |reason: String| {
        let pattern = path.to_owned();
        OfflineError::source(name, SourceProblem::InvalidGlob { pattern, reason })
    };
    // The feature repository itself may lie in a folder whose name looks like a glob.
    let pattern = if Path::new(path).is_absolute() {
        path.to_owned()
    } else {
        let root = root
            .to_str()
            .ok_or_else(|| invalid("the feature repository's path is no UTF-8".to_owned()))?;
        format!("{}/{}", glob::Pattern::escape(root), path)
    };
    let fixed = root.join(fixed_part(path)).components().count();
    let named = path
        .split('/')
        .any(|part| is_left_out(part.as_bytes()) && part != "..");
    let mut paths = Vec::new();
    for path in
        glob::glob_with(&pattern, MATCH_OPTIONS).map_err(|error| invalid(error.to_string()))?
    {
        let path = path.map_err(|error| OfflineError::Io {
            action: "cannot read the folder",
            path: error.path().to_owned(),
            error: error.into(),
        })?;
        let mut matched = path.components().skip(fixed);
        let left_out = matched.any(|component| match component {
            Component::Normal(name) => is_left_out(name.as_encoded_bytes()),
            _ => false,
        });
        // Who writes `_archive/*.parquet` means it.
        if named || !left_out {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Of a glob that ends in `**`, what stands for the folders of which everything is meant; as it
/// stands, such a glob matches the folders in them, and the files that lie in none would be missing.
pub(crate) fn folders_of(glob: &str) -> Option<&str> {
    match glob.trim_end_matches('/').strip_suffix("**")? {
        "" => Some(""),
        folders => folders
            .strip_suffix('/')
            .filter(|folders| !folders.is_empty()),
    }
}

/// The characters that make a glob.
pub(crate) const GLOB: [char; 3] = ['*', '?', '['];

/// How a glob matches: `*` goes no further than a `/`.
pub(crate) const MATCH_OPTIONS: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// What a glob has before its first component with a special character.
fn fixed_part(pattern: &str) -> PathBuf {
    Path::new(pattern)
        .components()
        .take_while(|component| {
            let text = component.as_os_str().to_string_lossy();
            !text.contains(GLOB)
        })
        .collect()
}

/// Whether a file or folder of this name is no data: hidden, or an engine's own.
pub(crate) fn is_left_out(name: &[u8]) -> bool {
    name.starts_with(b".") || name.starts_with(b"_")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(root: &Path, path: &str) -> Vec<String> {
        local_files(root, "s", path)
            .unwrap()
            .into_iter()
            .map(|file| {
                let relative = file.path.strip_prefix(root).unwrap();
                relative.to_str().unwrap().to_owned()
            })
            .collect()
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        root
    }

    #[test]
    fn a_folder_gives_its_parquet_files_at_any_depth_but_none_that_is_hidden() {
        let root = tree(&[
            "d/b.parquet",
            "d/a.PARQUET",
            "d/x/y/c.parquet",
            "d/_SUCCESS",
            "d/notes.txt",
            "d/.hidden.parquet",
            "d/_temporary/t.parquet",
            "d/_metadata.parquet",
            "d/.x/z.parquet",
        ]);
        assert_eq!(
            names(root.path(), "d"),
            ["d/a.PARQUET", "d/b.parquet", "d/x/y/c.parquet"]
        );
        assert_eq!(
            names(root.path(), "d/"),
            ["d/a.PARQUET", "d/b.parquet", "d/x/y/c.parquet"]
        );
    }

    #[test]
    fn a_glob_gives_files_and_what_lies_in_folders() {
        let root = tree(&[
            "d/1/a.parquet",
            "d/2/b.parquet",
            "d/_3/c.parquet",
            "e.parquet",
        ]);
        assert_eq!(
            names(root.path(), "d/*/*.parquet"),
            ["d/1/a.parquet", "d/2/b.parquet"]
        );
        assert_eq!(
            names(root.path(), "d/**/*.parquet"),
            ["d/1/a.parquet", "d/2/b.parquet"]
        );
        assert_eq!(
            names(root.path(), "d/[12]"),
            ["d/1/a.parquet", "d/2/b.parquet"]
        );
        assert_eq!(names(root.path(), "d/_3/*"), ["d/_3/c.parquet"]);
        assert_eq!(
            names(root.path(), "d/**"),
            ["d/1/a.parquet", "d/2/b.parquet"]
        );
        assert_eq!(names(root.path(), "d/[2]/**/"), ["d/2/b.parquet"]);
        assert_eq!(names(root.path(), "**").len(), 3);
    }

    #[test]
    fn a_path_that_exists_is_no_glob_whatever_its_characters() {
        let odd = "odd [1]*? #%41 ü.parquet";
        let root = tree(&[odd, "odd 1.parquet"]);
        assert_eq!(names(root.path(), odd), [odd]);
        assert_eq!(names(root.path(), "./odd 1.parquet"), ["odd 1.parquet"]);
    }

    #[test]
    fn the_repository_may_lie_in_any_folder() {
        for folder in ["[a]*", "_a", ".a", "[a]/_b/.c"] {
            let root = tree(&[&format!("{folder}/d/1.parquet")]);
            let root = root.path().join(folder);
            assert_eq!(names(&root, "d/*.parquet"), ["d/1.parquet"], "{folder}");
            assert_eq!(names(&root, "./d/*"), ["d/1.parquet"], "{folder}");
            assert_eq!(names(&root, "d"), ["d/1.parquet"], "{folder}");
        }
    }

    #[test]
    fn no_file_is_an_error_that_names_the_path() {
        let root = tree(&["d/notes.txt"]);
        for path in ["missing.parquet", "d", "d/*.parquet"] {
            let error = local_files(root.path(), "s", path).unwrap_err().to_string();
            assert!(
                error.contains(path) && error.contains("source `s`"),
                "{error}"
            );
        }
        let error = local_files(root.path(), "s", "d/***").unwrap_err();
        assert!(error.to_string().contains("is no glob"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_folder_above_ends_there() {
        let root = tree(&["d/a.parquet"]);
        std::os::unix::fs::symlink(root.path().join("d"), root.path().join("d/loop")).unwrap();
        assert_eq!(names(root.path(), "d"), ["d/a.parquet"]);
    }
}
