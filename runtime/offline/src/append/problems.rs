//! Why rows cannot be appended.

use serde::Serialize;
use unskew_core::text::list;
use unskew_core::values::ValueError;

/// A row that cannot be appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowProblem {
    /// The row, counted from 0.
    pub row: usize,
    /// The column at fault; `None`: the row as a whole, of which a component makes nothing.
    pub column: Option<String>,
    /// What is wrong, and what would be valid.
    pub message: String,
}

impl RowProblem {
    pub(crate) fn of_value(row: usize, column: &str, error: &ValueError) -> Self {
        Self {
            row,
            column: Some(column.to_owned()),
            message: format!("{} is no {}{}", error.value, error.wanted, error.hint),
        }
    }
}

/// Why rows cannot be appended to a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendProblem {
    /// The source is no folder.
    #[error(
        "its path `{path}` names {found}, to which no file can be added; rows are appended to a \
         folder of *.parquet files, so write `{folder}` as its path, or push with --to online"
    )]
    NoFolder {
        /// The path.
        path: String,
        /// What it names.
        found: &'static str,
        /// A path that would do.
        folder: String,
    },
    /// Files lie in folders of different columns.
    #[error(
        "`{one}` and `{other}` lie in folders that name different columns, so that it is not known \
         where a row goes; give all files of the source the same folders"
    )]
    Folders {
        /// A file.
        one: String,
        /// Another.
        other: String,
    },
    /// Columns that are needed are not there.
    #[error("the rows have no column {}{}", quoted(missing), there_are(valid))]
    MissingColumns {
        /// The columns that are missing.
        missing: Vec<String>,
        /// All that there may be; may be empty.
        valid: Vec<String>,
    },
    /// Columns that the source does not have.
    #[error("the source has no column {}{}", quoted(unknown), there_are(valid))]
    UnknownColumns {
        /// The columns.
        unknown: Vec<String>,
        /// Those that there are.
        valid: Vec<String>,
    },
    /// A column is there twice.
    #[error("column `{0}` is given twice")]
    DuplicateColumn(String),
    /// A column that the time of a row gives.
    #[error(
        "column `{0}` is what folders are named after, and comes of each row's event timestamp; \
         leave it out"
    )]
    PartitionColumn(String),
    /// A column of a type that no type of the contract holds.
    #[error(
        "column `{column}` is {found}, and in the files it is {wanted}, which nothing is turned into"
    )]
    ColumnType {
        /// The column.
        column: String,
        /// Its type in the rows.
        found: String,
        /// Its type in the files.
        wanted: String,
    },
    /// Rows that cannot be appended; none was.
    #[error("{}", of_rows(rows, *is_cut))]
    Rows {
        /// The first of them, by row.
        rows: Vec<RowProblem>,
        /// Whether there may be more.
        is_cut: bool,
    },
}

impl AppendProblem {
    /// A single row at fault.
    pub fn of_row(row: RowProblem) -> Self {
        Self::Rows {
            rows: vec![row],
            is_cut: false,
        }
    }
}

fn quoted(names: &[String]) -> String {
    list(names.iter().map(|name| format!("`{name}`")))
}

fn there_are(valid: &[String]) -> String {
    match valid {
        [] => String::new(),
        valid => format!("; its columns are {}", quoted(valid)),
    }
}

fn of_rows(rows: &[RowProblem], is_cut: bool) -> String {
    /// How many a message names; all are in the value.
    const SHOWN: usize = 10;
    let mut said: Vec<String> = rows
        .iter()
        .take(SHOWN)
        .map(|problem| match &problem.column {
            Some(column) => format!(
                "row {}, column `{column}`: {}",
                problem.row, problem.message
            ),
            None => format!("row {}: {}", problem.row, problem.message),
        })
        .collect();
    if rows.len() > SHOWN || is_cut {
        let more = rows.len().saturating_sub(SHOWN);
        let or_more = if is_cut { " or more" } else { "" };
        said.push(format!("and {more}{or_more} others"));
    }
    format!("nothing was written, since {}", said.join("; "))
}

/// Collects what is wrong with rows, up to a limit.
pub(super) struct Collected {
    rows: Vec<RowProblem>,
    is_cut: bool,
}

impl Collected {
    /// How many are listed.
    const LIMIT: usize = 100;

    pub(super) const fn new() -> Self {
        Self {
            rows: Vec::new(),
            is_cut: false,
        }
    }

    /// Adds a problem, if it is the first of its row and column; `false` if no more are taken.
    pub(super) fn add(&mut self, problem: RowProblem) -> bool {
        let is_same =
            |known: &RowProblem| known.row == problem.row && known.column == problem.column;
        if self.rows.iter().any(is_same) {
            return true;
        }
        if self.rows.len() >= Self::LIMIT {
            self.is_cut = true;
            return false;
        }
        self.rows.push(problem);
        true
    }

    /// Nothing, or what is wrong, by row.
    pub(super) fn finish(mut self) -> Result<(), AppendProblem> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.rows
            .sort_by(|a, b| (a.row, &a.column).cmp(&(b.row, &b.column)));
        Err(AppendProblem::Rows {
            rows: self.rows,
            is_cut: self.is_cut,
        })
    }
}
