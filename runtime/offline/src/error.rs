//! What can go wrong on the offline side.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use unskew_core::text::list;
use unskew_core::values::ValueError;
use unskew_engine::{EvaluateError, ViewRowsError, ViewRunnerError};
use unskew_objects::StoreProblem;

use crate::append::AppendProblem;
use crate::compact::CompactProblem;

/// An error of the offline side: of a source, of entity rows, of a transformation, or of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// A source's files are not as its definition, or a view, needs them.
    #[error("source `{name}`: {problem}")]
    Source {
        /// The source.
        name: String,
        /// What is wrong.
        problem: Box<SourceProblem>,
    },

    /// Rows cannot be appended to a source.
    #[error("source `{name}`: {problem}")]
    Append {
        /// The source.
        name: String,
        /// What is wrong.
        problem: Box<AppendProblem>,
    },

    /// Files of a source cannot be merged.
    #[error("source `{name}`: {problem}")]
    Compact {
        /// The source.
        name: String,
        /// What is wrong.
        problem: Box<CompactProblem>,
    },

    /// An object store cannot be used as a path says.
    #[error("`{url}`: {problem}")]
    ObjectStore {
        /// The URL.
        url: String,
        /// What is wrong.
        problem: Box<StoreProblem>,
    },

    /// A file that cannot be read: truncated, corrupt, or no Parquet at all.
    #[error("cannot read `{}`: {reason}", file.display())]
    UnreadableFile {
        /// The file.
        file: PathBuf,
        /// What the reader says.
        reason: String,
    },

    /// A file that is not the one that was listed, or was written while it was read.
    #[error(
        "`{}` has changed since the work began; run it again when nobody writes to the file",
        file.display()
    )]
    ChangedFile {
        /// The file.
        file: PathBuf,
    },

    /// Nobody waits for the work any more.
    #[error("the work was cancelled")]
    Cancelled,

    /// A value of a source that its type in the view cannot hold, or a transformation that fails.
    #[error("{}{error}", in_file(file.as_ref()))]
    ViewRows {
        /// The file of the row at fault, if it could be told; the error's row is counted in it.
        file: Option<PathBuf>,
        /// What is wrong.
        error: Box<ViewRowsError>,
    },

    /// A view's rows cannot be made, whatever the history.
    #[error(transparent)]
    ViewRunner(Box<ViewRunnerError>),

    /// Entity rows that are not as the plan needs them.
    #[error("entity rows{}: {problem}", of_file(file.as_ref()))]
    EntityRows {
        /// Where they were read, if in a file.
        file: Option<PathBuf>,
        /// What is wrong.
        problem: Box<EntityRowsProblem>,
    },

    /// The plan could not be evaluated for an entity row.
    #[error(transparent)]
    Evaluate(Box<EvaluateError>),

    /// A file or folder that cannot be read or written.
    #[error("{action} `{}`: {error}", path.display())]
    Io {
        /// What was tried, such as `cannot write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },

    /// There is something where a training set is to be written.
    #[error("`{}` exists already; name another, or give --overwrite to replace it", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },

    /// Standard output cannot be written; nobody reads it any more, say.
    #[error("cannot write to standard output: {0}")]
    StandardOutput(std::io::Error),

    /// The training set could not be written in its format.
    #[error("cannot write `{}`: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the writer says.
        reason: String,
    },

    /// The sink of [`crate::Offline::latest_rows`] failed.
    #[error("cannot write the rows of view `{view}`: {error}")]
    Sink {
        /// The view.
        view: String,
        /// The sink's own error.
        error: Box<dyn std::error::Error + Send + Sync>,
    },

    /// An error of DataFusion that has no better name.
    #[error(transparent)]
    DataFusion(Arc<DataFusionError>),
}

/// What is wrong with a source's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceProblem {
    /// A source's path names no file.
    #[error(
        "no Parquet file at `{}`; a path is a file, a folder with *.parquet files \
         in it, or a glob, relative to the feature repository; hidden files and those that begin \
         with `_` are left out", pattern.display()
    )]
    NoFiles {
        /// The path, under the feature repository.
        pattern: PathBuf,
    },

    /// A file of a source with a partition lies in none of its folders.
    #[error(
        "`{}` lies in no folder `{column}=…`, as every file must under the source's partition; \
         move it, or leave out the partition", file.display()
    )]
    NotInPartition {
        /// The partition's column.
        column: String,
        /// The file.
        file: PathBuf,
    },

    /// The folder of a partition by time names no time.
    #[error(
        "`{value}`, the `{column}` of `{}`, is no time; a folder is named after a year (2024), a \
         month (2024-01), a day (2024-01-01, 20240101) or an hour (2024-01-01T05, 2024-01-01-05, \
         2024-01-01 05), in UTC, or is {}",
        file.display(), crate::hive::NULL
    )]
    InvalidPartition {
        /// The partition's column.
        column: String,
        /// What the folder says.
        value: String,
        /// The file.
        file: PathBuf,
    },

    /// A glob that cannot be read as one.
    #[error("`{pattern}` is no glob: {reason}")]
    InvalidGlob {
        /// The glob.
        pattern: String,
        /// What is wrong with it, and where.
        reason: String,
    },

    /// No file of a source has a column that is needed.
    #[error(
        "no column `{column}`{} in `{}`{}; the columns there are {}",
        renamed(column, file_column), file.display(), others(*files), list(columns)
    )]
    MissingColumn {
        /// The column, by its name in definitions.
        column: String,
        /// Its name in the file.
        file_column: String,
        /// A file without it: the first.
        file: PathBuf,
        /// How many files the source has; none has the column.
        files: usize,
        /// The columns of all the files.
        columns: Vec<String>,
    },

    /// A column is of a type of which no value is one of the wanted type.
    #[error(
        "column `{column}` is {found} in `{}`, and {wanted} is wanted; write it to the file as \
         such, or define it as what it is", file.display()
    )]
    ColumnType {
        /// The column, by its name in the file.
        column: String,
        /// The file.
        file: PathBuf,
        /// Its type there.
        found: DataType,
        /// The type that the view wants.
        wanted: unskew_core::types::DataType,
    },

    /// The name of a folder holds no value of the column's type.
    #[error("column `{column}` in the path of `{}`: `{value}` is no {wanted}", file.display())]
    FolderValue {
        /// The column.
        column: String,
        /// The file.
        file: PathBuf,
        /// The value.
        value: String,
        /// What was wanted.
        wanted: String,
    },

    /// A row lies in a folder to which it does not belong.
    #[error(
        "row {row} of `{}` has the event timestamp {event}, but its folder is for {start} to {end}; \
         give the source's partition more slack, or leave `partition` out if folders are not by \
         event timestamp", file.display()
    )]
    OutsidePartition {
        /// The file.
        file: PathBuf,
        /// The row's number in it.
        row: u64,
        /// Its event timestamp.
        event: String,
        /// The first instant that the folder allows.
        start: String,
        /// The last.
        end: String,
    },

    /// Two files of a source hold a column in types that no type of the contract joins.
    #[error(
        "column `{column}` is {first_type} in `{}` and {other_type} in `{}`; \
         the files of a source must agree, up to a widening that loses nothing",
        first.display(), other.display()
    )]
    IncompatibleTypes {
        /// The column, by its name in the files.
        column: String,
        /// The one file.
        first: PathBuf,
        /// Its type there.
        first_type: DataType,
        /// The other file.
        other: PathBuf,
        /// Its type there.
        other_type: DataType,
    },
}

/// What is wrong with entity rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntityRowsProblem {
    /// Columns that the plan needs are not there.
    #[error(
        "no column {}; the columns there are {}",
        quoted(missing),
        quoted(there)
    )]
    MissingColumns {
        /// The columns that are missing.
        missing: Vec<String>,
        /// The columns that are there.
        there: Vec<String>,
    },
    /// A column name that occurs twice.
    #[error("two columns are called `{0}`; rename or drop one of them")]
    DuplicateColumn(String),
    /// A column with the name of an output of the plan.
    #[error(
        "their column `{0}` has the name of an output of the plan; rename it, or set \
         full_feature_names: true in the feature service"
    )]
    OutputName(String),
    /// A row without an event timestamp.
    #[error("row {0}: its event_timestamp is null; each entity row needs one")]
    NullTimestamp(u64),
    /// A value that is none of its column's type.
    #[error("column `{column}`: {error}")]
    Value {
        /// The column.
        column: String,
        /// The row and the value.
        error: ValueError,
    },
    /// A file that is neither Parquet nor CSV.
    #[error(
        "the file's name ends neither in .parquet nor in .csv, so its format is not known; a \
         folder or a glob of *.parquet files is valid too"
    )]
    UnknownFormat,
    /// A CSV file among several, or in an object store.
    #[error("CSV is read from one file of the file system; take Parquet")]
    RemoteCsv,
    /// A folder, glob or URL that names no file.
    #[error("no Parquet file is there; hidden files and those that begin with `_` are left out")]
    NoFiles,
    /// Files that are not as those of one table.
    #[error("{0}")]
    Files(Box<SourceProblem>),
    /// A view whose rows are to be the entity rows is not told, or is none of the plan.
    #[error("{}", unknown_view(name.as_ref(), views))]
    UnknownView {
        /// What was named.
        name: Option<String>,
        /// The plan's views, by the names under which it uses them.
        views: Vec<String>,
    },
    /// Rows of a view that are to be the entity rows lack what the plan needs.
    #[error(
        "rows of view `{view}` have its join keys and an event_timestamp; the features need {} \
         too, so give entity rows that have these",
        quoted(missing)
    )]
    NotOfView {
        /// The view.
        view: String,
        /// What it has not.
        missing: Vec<String>,
    },
    /// A file that cannot be read as what its name says.
    #[error("{0}")]
    Unreadable(String),
    /// More entity rows than can be held.
    #[error("there are more than {0} of them, the most that one training set can have")]
    TooMany(u32),
}

impl From<DataFusionError> for OfflineError {
    /// Finds the [`OfflineError`] that came through DataFusion, if one did.
    fn from(error: DataFusionError) -> Self {
        match unwrap_external(error) {
            Ok(error) => error,
            Err(error) => Self::DataFusion(Arc::new(error)),
        }
    }
}

impl From<OfflineError> for DataFusionError {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::DataFusion(error) => Self::Shared(error),
            error => Self::External(Box::new(error)),
        }
    }
}

impl OfflineError {
    pub(crate) fn source(name: &str, problem: SourceProblem) -> Self {
        Self::Source {
            name: name.to_owned(),
            problem: Box::new(problem),
        }
    }

    pub(crate) fn append(name: &str, problem: AppendProblem) -> Self {
        Self::Append {
            name: name.to_owned(),
            problem: Box::new(problem),
        }
    }

    pub(crate) fn compact(name: &str, problem: CompactProblem) -> Self {
        Self::Compact {
            name: name.to_owned(),
            problem: Box::new(problem),
        }
    }

    pub(crate) fn store(url: &str, problem: StoreProblem) -> Self {
        Self::ObjectStore {
            url: url.to_owned(),
            problem: Box::new(problem),
        }
    }

    pub(crate) fn entity_rows(file: Option<&Path>, problem: EntityRowsProblem) -> Self {
        Self::EntityRows {
            file: file.map(Path::to_owned),
            problem: Box::new(problem),
        }
    }

    pub(crate) fn view_rows(file: Option<PathBuf>, error: ViewRowsError) -> Self {
        Self::ViewRows {
            file,
            error: Box::new(error),
        }
    }
}

impl From<ViewRunnerError> for OfflineError {
    fn from(error: ViewRunnerError) -> Self {
        Self::ViewRunner(Box::new(error))
    }
}

impl From<ArrowError> for OfflineError {
    fn from(error: ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

impl From<tokio::task::JoinError> for OfflineError {
    /// A panic of a task goes on in the caller; the task of a runtime that shuts down is an error.
    fn from(error: tokio::task::JoinError) -> Self {
        if error.is_panic() {
            std::panic::resume_unwind(error.into_panic());
        }
        Self::DataFusion(Arc::new(DataFusionError::Execution(
            "the runtime was shut down before the work was done".to_owned(),
        )))
    }
}

/// The [`OfflineError`] inside of an error of DataFusion, or the error itself.
fn unwrap_external(error: DataFusionError) -> Result<OfflineError, DataFusionError> {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<OfflineError>() {
            Ok(error) => Ok(*error),
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(error) => unwrap_external(*error),
                Err(inner) => Err(DataFusionError::External(inner)),
            },
        },
        DataFusionError::Context(_, inner) => unwrap_external(*inner),
        DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
            Ok(error) => unwrap_external(error),
            Err(shared) => Err(DataFusionError::Shared(shared)),
        },
        other => Err(other),
    }
}

fn renamed(column: &str, file_column: &str) -> String {
    if column == file_column {
        String::new()
    } else {
        format!(" (`{file_column}` in the file)")
    }
}

fn others(files: usize) -> String {
    match files.saturating_sub(1) {
        0 => String::new(),
        1 => " nor in its other file".to_owned(),
        others => format!(" nor in its {others} other files"),
    }
}

fn in_file(file: Option<&PathBuf>) -> String {
    file.map_or_else(String::new, |file| format!("file `{}`: ", file.display()))
}

fn of_file(file: Option<&PathBuf>) -> String {
    file.map_or_else(String::new, |file| format!(" of `{}`", file.display()))
}

fn unknown_view(name: Option<&String>, views: &[String]) -> String {
    let there = match views {
        [] => "the features come from no view".to_owned(),
        views => format!("the features come from {}", quoted(views)),
    };
    match name {
        Some(name) => format!("`{name}` is none of the views; {there}"),
        None if views.is_empty() => format!("{there}, so none has rows to start from"),
        None => format!("name the view whose rows they are with --of; {there}"),
    }
}

fn quoted(names: &[String]) -> String {
    list(names.iter().map(|name| format!("`{name}`")))
}
