//! What a training set is written to.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use super::Compression;
use super::folder;

/// Where a training set goes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where.
    pub target: Target,
    /// Whether what is there already is replaced. Default: it is an error.
    pub overwrite: bool,
    /// How columns are compressed; only for Parquet. Default: zstd.
    pub compression: Option<Compression>,
    /// How many rows a row group has; only for Parquet. Default: 262,144, or fewer where they
    /// take more than 64 MiB.
    pub row_group_rows: Option<NonZero<usize>>,
}

/// Where a training set goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Parquet file.
    Parquet(PathBuf),
    /// A folder of Parquet files, `part-00000.parquet` and so on, rows in order across them.
    Folder {
        /// The folder.
        path: PathBuf,
        /// How many rows a file has at most. Default: all.
        rows_per_file: Option<NonZero<usize>>,
    },
    /// A CSV file, and a `.plan.json` beside it.
    Csv(PathBuf),
    /// A stream of Arrow IPC on standard output.
    StandardOutput,
}

impl Target {
    /// The target that `path` names: by the ending of its name, or a folder where it ends in `/` or
    /// where there is one.
    ///
    /// # Errors
    /// It names no format; the message says what is valid.
    pub fn of(path: &Path, rows_per_file: Option<NonZero<usize>>) -> Result<Self, String> {
        const VALID: &str = "name a file that ends in .parquet or .csv, a folder with / at its \
                             end, or - for Arrow IPC on standard output";
        if path.to_str().is_some_and(|path| path.contains("://")) {
            return Err(format!("it is a URL, and only files are written; {VALID}"));
        }
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") || folder::is_training_set(path) {
            return Ok(Self::Folder {
                path: path.to_owned(),
                rows_per_file,
            });
        }
        if path.is_dir() {
            return Err(format!(
                "it is a folder, and no training set lies in it; put / at its end to replace it \
                 by one, if it is empty; or {VALID}"
            ));
        }
        let target = match extension.to_str() {
            Some("parquet") => Self::Parquet(path.to_owned()),
            Some("csv") => Self::Csv(path.to_owned()),
            _ => return Err(format!("its name says no format that is written; {VALID}")),
        };
        match rows_per_file {
            None => Ok(target),
            Some(_) => Err("several files need a folder; put / at the end of its name".to_owned()),
        }
    }

    /// The file or folder; `None`: standard output.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Parquet(path) | Self::Folder { path, .. } | Self::Csv(path) => Some(path),
            Self::StandardOutput => None,
        }
    }
}

impl Output {
    /// To `target`, nothing being overwritten, all else by default.
    pub fn to(target: Target) -> Self {
        Self {
            target,
            overwrite: false,
            compression: None,
            row_group_rows: None,
        }
    }

    /// Whether the options fit the target.
    ///
    /// # Errors
    /// An option is for Parquet alone.
    pub fn check(&self) -> Result<(), String> {
        let is_parquet = matches!(self.target, Target::Parquet(_) | Target::Folder { .. });
        let needs = |option: &str| Err(format!("{option} is for Parquet alone"));
        match (self.compression, self.row_group_rows) {
            (Some(_), _) if !is_parquet => needs("a compression"),
            (_, Some(_)) if !is_parquet => needs("a size of row groups"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let rows = NonZero::new(5);
        assert_eq!(
            Target::of(&at("a.PARQUET"), None),
            Ok(Target::Parquet(at("a.PARQUET")))
        );
        assert_eq!(Target::of(&at("a.csv"), None), Ok(Target::Csv(at("a.csv"))));
        let path = at("new/");
        assert_eq!(
            Target::of(&path, rows),
            Ok(Target::Folder {
                path: path.clone(),
                rows_per_file: rows
            })
        );
        for name in ["a.arrow", "a.feather", "a", "a.parquet.gz"] {
            let error = Target::of(&at(name), None).unwrap_err();
            for valid in [".parquet", ".csv", "folder", "Arrow IPC"] {
                assert!(error.contains(valid), "{error}");
            }
        }
        let error = Target::of(Path::new("s3://bucket/a.parquet"), None).unwrap_err();
        assert!(error.contains("it is a URL"), "{error}");
        let error = Target::of(&at("a.parquet"), rows).unwrap_err();
        assert!(error.contains("several files need a folder"), "{error}");

        // A folder that is there is taken for one only if a training set lies in it.
        std::fs::create_dir(at("set")).unwrap();
        let error = Target::of(&at("set"), None).unwrap_err();
        assert!(error.contains("no training set lies in it"), "{error}");
        std::fs::write(at("set/part-00000.parquet"), "").unwrap();
        let target = Target::of(&at("set"), None);
        assert!(matches!(target, Ok(Target::Folder { .. })), "{target:?}");
    }
}
