//! Rows that are appended to a source: checked against its files, and written as files of their own.
//!
//! ```text
//! rows ─▶ Appender::check ─▶ SourceRows ─┬▶ of_view: what a view's rows are made of
//!          by the files' columns,        └▶ Appender::append: for each folder a new file, complete
//!          the views' types, the clock      before it has its name
//! ```
//!
//! What a view gets to see is what was written: the values after coercion to the files' types, and
//! the columns that the folder of each row names.

mod check;
mod folders;
mod place;
mod problems;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType as ArrowType, Schema};
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::from_text;
use unskew_core::view::{FOLDER_COLUMN, Source, View};

pub(crate) use self::place::{Folder, folder};
pub use self::problems::{AppendProblem, RowProblem};
pub(crate) use self::write::{create, unique};

use self::folders::Levels;
use crate::error::{OfflineError, SourceProblem};
use crate::offline::Offline;
use crate::scan::wanted_types;
use crate::schema::{merged_schema, plain};

/// A source to which rows are appended: its columns and its folders, as they are when it is opened.
///
/// Nothing is read or listed again after that, so it serves any number of calls.
pub struct Appender {
    source: Source,
    /// Where files go, or why none can be written.
    folder: Result<Folder, AppendProblem>,
    /// The columns of the files.
    columns: Vec<FileColumn>,
    levels: Levels,
    views: Vec<Arc<View>>,
}

/// A column of the source's files.
struct FileColumn {
    /// Its name in the files.
    name: String,
    /// The names under which rows may have it: those of definitions first.
    names: Vec<String>,
    /// The type in which it is written.
    data_type: ArrowType,
    /// The same, if it is one of the contract.
    contract: Option<DataType>,
}

/// Rows in the form in which they come.
#[derive(Clone, Debug)]
pub enum PushedRows {
    /// Values.
    Typed(RecordBatch),
    /// Texts that stand for values, as CSV has them.
    Texts(RecordBatch),
}

impl PushedRows {
    /// The columns.
    pub fn batch(&self) -> &RecordBatch {
        match self {
            Self::Typed(batch) | Self::Texts(batch) => batch,
        }
    }
}

/// Rows that a source takes, in its types.
pub struct SourceRows {
    /// The columns of the files, by their names there.
    batch: RecordBatch,
    /// What the folder of each row says, by the name of the column.
    folder_columns: BTreeMap<String, StringArray>,
    /// The folders, below that of the source, and the rows that go into each.
    folders: BTreeMap<String, Vec<u32>>,
}

impl Offline {
    /// Opens `source` for rows of `views`, which are all views of it whose rows are to be made of
    /// them. Lists its files and reads their footers.
    ///
    /// A source that is no folder is opened too: its rows can be checked, and not appended.
    ///
    /// # Errors
    /// The files cannot be listed or read, or disagree about their folders.
    pub async fn appender(
        &self,
        source: &Source,
        views: Vec<Arc<View>>,
    ) -> Result<Appender, OfflineError> {
        let files = match self
            .files(&source.name, &source.path, source.partition.as_ref())
            .await
        {
            Ok(files) => files,
            // The first rows of all.
            Err(OfflineError::Source { problem, .. })
                if matches!(*problem, SourceProblem::NoFiles { .. }) =>
            {
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let folder = folder(self.root(), source, &self.settings().object_store).await?;
        let levels = Levels::of(source, self.root(), folder.as_ref().ok(), &files)?;
        let mut types: BTreeMap<&str, DataType> = BTreeMap::new();
        for view in &views {
            for (name, data_type) in wanted_types(view) {
                types.entry(source.file_column(name)).or_insert(data_type);
            }
        }
        let mut columns: Vec<FileColumn> = Vec::new();
        for field in merged_schema(&files).fields() {
            // What folders alone give is in no file.
            if !field.metadata().contains_key(FOLDER_COLUMN) {
                columns.push(FileColumn::new(source, field.name(), field.data_type()));
            }
        }
        if files.is_empty() {
            for (name, data_type) in &types {
                if !levels.has(name) {
                    columns.push(FileColumn::new(source, name, &data_type.arrow()));
                }
            }
        }
        Ok(Appender {
            source: source.clone(),
            folder,
            columns,
            levels,
            views,
        })
    }
}

impl FileColumn {
    fn new(source: &Source, name: &str, data_type: &ArrowType) -> Self {
        let renamed = source.columns.iter().filter(|(_, file)| *file == name);
        let mut names: Vec<String> = renamed.map(|(here, _)| here.clone()).collect();
        // Its own name, unless definitions give that to another column.
        if source.file_column(name) == name {
            names.push(name.to_owned());
        }
        let contract = DataType::of_arrow(data_type);
        Self {
            name: name.to_owned(),
            names,
            data_type: contract.map_or_else(|| data_type.clone(), DataType::arrow),
            contract,
        }
    }
}

impl Appender {
    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The columns that rows may have, with their types: those of the files, and those that name
    /// folders. The type of a column that no type of the contract holds is left out.
    pub fn columns(&self) -> Vec<(String, DataType)> {
        let mut columns: Vec<(String, DataType)> = self
            .columns
            .iter()
            .filter_map(|column| Some((column.names.first()?.clone(), column.contract?)))
            .collect();
        for name in self.levels.given() {
            if columns.iter().any(|(known, _)| known == name) {
                continue;
            }
            let wanted = self.wanted(name).unwrap_or(TEXT);
            columns.push((name.to_owned(), wanted));
        }
        columns
    }

    /// Says whether rows can be appended at all.
    ///
    /// # Errors
    /// The source is a single file, or a glob that matches single files.
    pub fn check_folder(&self) -> Result<(), OfflineError> {
        self.folder.as_ref().map(drop).map_err(|problem| {
            let problem = problem.clone();
            OfflineError::append(&self.source.name, problem)
        })
    }

    /// The type in which views want the column `name` of the files.
    fn wanted(&self, name: &str) -> Option<DataType> {
        self.views.iter().find_map(|view| {
            let types = wanted_types(view);
            let mut types = types.into_iter();
            types.find_map(|(column, data_type)| {
                (self.source.file_column(column) == name).then_some(data_type)
            })
        })
    }
}

const TEXT: DataType = DataType::Scalar(ScalarType::String);

impl SourceRows {
    /// How many there are.
    pub fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The columns that `view` reads of its source, by their names in definitions: what a scan of
    /// the files with these rows would give.
    ///
    /// # Errors
    /// The rows lack a column, or what a folder says is no value of the view's type.
    pub fn of_view(&self, view: &View) -> Result<RecordBatch, OfflineError> {
        let types = wanted_types(view);
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for name in view.source_columns() {
            let file_column = view.source.file_column(name);
            let column = match self.batch.column_by_name(file_column) {
                Some(column) => Arc::clone(column),
                None => {
                    let texts = self.folder_columns.get(file_column).ok_or_else(|| {
                        let problem = AppendProblem::MissingColumns {
                            missing: vec![name.to_owned()],
                            valid: Vec::new(),
                        };
                        OfflineError::append(&view.source.name, problem)
                    })?;
                    let wanted = types.get(name).copied().unwrap_or(TEXT);
                    from_text(texts, wanted).map_err(|error| {
                        let row = RowProblem::of_value(error.row, name, &error);
                        OfflineError::append(&view.source.name, AppendProblem::of_row(row))
                    })?
                }
            };
            fields.push(plain(name, column.data_type().clone()));
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.num_rows()));
        let schema = Arc::new(Schema::new(fields));
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender")
            .field("source", &self.source.name)
            .finish_non_exhaustive()
    }
}
