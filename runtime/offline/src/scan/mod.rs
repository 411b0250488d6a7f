//! Scans of a source's Parquet files: the columns that are asked for, under the names that
//! definitions give them, in types that hold the values of every file.
//!
//! ```text
//! Scan      the files, their row groups, the columns
//!   │ pieces(Wanted)     row groups and pages that may hold wanted rows: statistics, page index,
//!   ▼                    bloom filters
//! Piece     rows of one row group
//!   │ read(columns)      renamed; a column that a file lacks is null; types joined
//!   ▼
//! PieceReader            batches of neighbouring rows, each with the number of its first row
//! ```
//!
//! [`ScanExec`] gives all columns of all rows as an `ExecutionPlan`. The point-in-time join reads
//! pieces by itself: it has to know where a row lies, to come back for the rest of its columns.
//!
//! Why not DataFusion's own Parquet source: it fetches whole row groups, cannot split one, and
//! does not say where a row lies; and it would cast between the types of files, but not without
//! loss: nanoseconds before 1970 would be rounded up, and large integers would lose digits.

mod bloom;
mod bytes;
mod exec;
mod piece;
mod prune;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Schema, SchemaRef};
use parquet::file::metadata::RowGroupMetaData;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::from_text;
use unskew_core::view::{Source, View};

use crate::error::{OfflineError, SourceProblem};
use crate::schema::{FileSchema, folder_column, merged_schema, merged_type, plain};

pub(crate) use exec::Failure;
pub use exec::ScanExec;
pub(crate) use piece::Piece;
pub(crate) use prune::{DISTINCT_KEYS, KeyValues, Values, Wanted};

/// Columns of the files of a source, to be read in pieces.
#[derive(Debug)]
pub(crate) struct Scan {
    source: String,
    columns: Vec<Column>,
    schema: SchemaRef,
    files: Vec<File>,
    row_groups: Vec<RowGroup>,
    rows: u64,
    /// How many bytes were read so far.
    bytes_read: Arc<AtomicU64>,
}

/// A column of the output.
#[derive(Debug)]
struct Column {
    name: String,
    /// Its name in the files.
    file_column: String,
    data_type: ArrowType,
    /// Whether it is the one of event timestamps.
    is_event: bool,
}

#[derive(Debug)]
struct File {
    footer: FileSchema,
    /// For each column of the output where this file has it.
    columns: Vec<Place>,
}

impl File {
    /// The type of the values of a column of the output, if this file has it itself.
    fn plain_type(&self, column: usize) -> Option<&ArrowType> {
        let Place::Column(root) = self.columns[column] else {
            return None;
        };
        Some(match self.footer.schema.field(root).data_type() {
            ArrowType::Dictionary(_, values) => values.as_ref(),
            data_type => data_type,
        })
    }
}

/// Where a file has a column.
#[derive(Clone, Debug)]
enum Place {
    /// Among its own columns.
    Column(usize),
    /// In the name of its folder: one value for all its rows.
    Folder(ArrayRef),
    /// Nowhere.
    Nowhere,
}

/// A row group, of any of the files.
#[derive(Clone, Copy, Debug)]
struct RowGroup {
    file: usize,
    /// Its number in the file.
    index: usize,
    rows: u32,
    /// How many rows of the file come before it.
    before: u64,
}

/// Where a row lies, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowPlace {
    pub(crate) file: std::path::PathBuf,
    /// Its number in the file.
    pub(crate) row: u64,
}

impl Scan {
    /// A scan of `columns`, by their names in definitions, over the files of `source`; `types` are
    /// those in which the values of a folder's name are wanted.
    ///
    /// # Errors
    /// No file has a column, files disagree about its type, or a folder's name holds no value of
    /// the type.
    pub(crate) fn new(
        source: &Source,
        columns: &[&str],
        types: &BTreeMap<&str, DataType>,
        footers: Vec<FileSchema>,
    ) -> Result<Self, OfflineError> {
        let mut read = Vec::with_capacity(columns.len());
        for &column in columns {
            let file_column = source.file_column(column);
            let data_type = match merged_type(&source.name, &footers, file_column)? {
                Some(data_type) => data_type,
                None if folder_column(&footers, file_column) => folder_type(types, column),
                None => return Err(missing_column(source, &footers, column)),
            };
            if let Some(&wanted) = types.get(column) {
                check_type(source, column, wanted, &footers)?;
            }
            read.push(Column {
                name: column.to_owned(),
                file_column: file_column.to_owned(),
                data_type,
                is_event: column == source.timestamp_field,
            });
        }
        Self::of(&source.name, read, footers)
    }

    /// A scan of all columns that the files have, under their own names; `types` are those in which
    /// the values of a folder's name are wanted.
    ///
    /// # Errors
    /// Files disagree about a column's type, or a folder's name holds no value of the type.
    pub(crate) fn all(
        name: &str,
        types: &BTreeMap<&str, DataType>,
        footers: Vec<FileSchema>,
    ) -> Result<Self, OfflineError> {
        let mut read = Vec::new();
        for field in merged_schema(&footers).fields() {
            let column = field.name().as_str();
            let data_type = match merged_type(name, &footers, column)? {
                Some(data_type) => data_type,
                None => folder_type(types, column),
            };
            read.push(Column {
                name: column.to_owned(),
                file_column: column.to_owned(),
                data_type,
                is_event: false,
            });
        }
        Self::of(name, read, footers)
    }

    fn of(name: &str, read: Vec<Column>, footers: Vec<FileSchema>) -> Result<Self, OfflineError> {
        let fields: Vec<_> = read
            .iter()
            .map(|column| plain(&column.name, column.data_type.clone()))
            .collect();
        let rows = footers
            .iter()
            .fold(0_u64, |sum, file| sum.saturating_add(file.rows));
        let mut files = Vec::with_capacity(footers.len());
        let mut row_groups = Vec::new();
        for footer in footers {
            // Mostly all files have the same columns.
            let alike = files.last().filter(|last: &&File| {
                Arc::ptr_eq(&last.footer.schema, &footer.schema)
                    && last.footer.file.partition == footer.file.partition
            });
            let places = match alike {
                Some(last) => last.columns.clone(),
                None => {
                    let places = read.iter().map(|column| place(name, column, &footer));
                    places.collect::<Result<_, _>>()?
                }
            };
            let mut before = 0;
            for (index, group) in footer.metadata.metadata().row_groups().iter().enumerate() {
                let count = group.num_rows();
                let count = u32::try_from(count).map_err(|_| OfflineError::UnreadableFile {
                    file: footer.file.path.clone(),
                    reason: format!(
                        "its row group {index} says it has {count} rows; up to {} can be read",
                        u32::MAX
                    ),
                })?;
                row_groups.push(RowGroup {
                    file: files.len(),
                    index,
                    rows: count,
                    before,
                });
                before += u64::from(count);
                check_chunks(&footer, group)?;
            }
            files.push(File {
                footer,
                columns: places,
            });
        }
        Ok(Self {
            source: name.to_owned(),
            columns: read,
            schema: Arc::new(Schema::new(fields)),
            files,
            row_groups,
            rows,
            bytes_read: Arc::default(),
        })
    }

    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows the files have, as their footers say.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes were read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// How many files there are.
    pub(crate) fn file_count(&self) -> usize {
        self.files.len()
    }

    /// How many row groups there are.
    pub(crate) fn row_groups(&self) -> usize {
        self.row_groups.len()
    }

    /// Where row `row` of row group `row_group` lies.
    pub(crate) fn row_place(&self, row_group: usize, row: u32) -> RowPlace {
        let group = self.row_groups[row_group];
        RowPlace {
            file: self.files[group.file].footer.file.path.clone(),
            row: group.before + u64::from(row),
        }
    }

    /// Says whether the files of `pieces` are still those of the footers; blocks.
    ///
    /// # Errors
    /// A file is gone or is another.
    fn check_unchanged(
        &self,
        pieces: &[Piece],
        handle: &tokio::runtime::Handle,
    ) -> Result<(), OfflineError> {
        // Pieces are in the order of files.
        let mut files: Vec<usize> = pieces
            .iter()
            .map(|piece| self.row_groups[piece.row_group].file)
            .collect();
        files.dedup();
        let files = files.into_iter().map(|file| &self.files[file].footer.file);
        bytes::check_unchanged(files, handle)
    }
}

/// Where a scan with the columns `schema` has a column of a view's rows, if these are the source's;
/// `None` if the view's batch transformation makes it: of that the files say nothing.
pub(crate) fn column_as_stored(view: &View, schema: &Schema, name: &str) -> Option<usize> {
    let made = view.batch.as_ref().and_then(|batch| batch.output(name));
    schema.index_of(name).ok().filter(|_| made.is_none())
}

/// The types in which a view wants the columns of its source.
pub(crate) fn wanted_types(view: &View) -> BTreeMap<&str, DataType> {
    use unskew_core::view::SourceBinding;
    let mut types = BTreeMap::new();
    let timestamp = DataType::Scalar(ScalarType::Timestamp);
    types.insert(view.source.timestamp_field.as_str(), timestamp);
    if let Some(created) = &view.source.created_timestamp_column {
        types.insert(created, timestamp);
    }
    for key in &view.keys {
        types
            .entry(key.name.as_str())
            .or_insert(DataType::Scalar(key.data_type));
    }
    match &view.batch {
        None => {
            for feature in &view.features {
                types.entry(&feature.name).or_insert(feature.data_type);
            }
        }
        Some(batch) => {
            let inputs = batch.inputs.iter().zip(&batch.description.inputs);
            for ((binding, _), input) in inputs {
                if let SourceBinding::Column(name) = binding {
                    types.entry(name).or_insert(input.data_type);
                }
            }
        }
    }
    types
}

/// The type of a column that only the names of folders give: text, unless another is wanted.
fn folder_type(types: &BTreeMap<&str, DataType>, column: &str) -> ArrowType {
    let wanted = types.get(column).map(|wanted| wanted.arrow());
    wanted.unwrap_or(ArrowType::Utf8)
}

fn place(source: &str, column: &Column, footer: &FileSchema) -> Result<Place, OfflineError> {
    if let Ok(index) = footer.schema.index_of(&column.file_column) {
        return Ok(Place::Column(index));
    }
    let mut folders = footer.file.partition.iter().rev();
    let Some((_, text)) = folders.find(|(name, _)| *name == column.file_column) else {
        return Ok(Place::Nowhere);
    };
    let failed = |wanted: String| {
        OfflineError::source(
            source,
            SourceProblem::FolderValue {
                column: column.file_column.clone(),
                file: footer.file.path.clone(),
                value: text.clone(),
                wanted,
            },
        )
    };
    let Some(wanted) = DataType::of_arrow(&column.data_type) else {
        return Err(failed(column.data_type.to_string()));
    };
    let text = (text != crate::hive::NULL).then_some(text.as_str());
    let value = from_text(&StringArray::from(vec![text]), wanted);
    let value = value.map_err(|_| failed(wanted.to_string()))?;
    // The contract has one form of each type, and other files may have another.
    let value = cast(&value, &column.data_type);
    value
        .map(Place::Folder)
        .map_err(|_| failed(column.data_type.to_string()))
}

/// Refuses a column of which no value can be one of the wanted type, whatever rows count.
fn check_type(
    source: &Source,
    column: &str,
    wanted: DataType,
    footers: &[FileSchema],
) -> Result<(), OfflineError> {
    let file_column = source.file_column(column);
    for footer in footers {
        let Ok(field) = footer.schema.field_with_name(file_column) else {
            continue;
        };
        if DataType::of_arrow(field.data_type()).is_some_and(|found| !found.may_become(wanted)) {
            return Err(OfflineError::source(
                &source.name,
                SourceProblem::ColumnType {
                    column: file_column.to_owned(),
                    file: footer.file.path.clone(),
                    found: field.data_type().clone(),
                    wanted,
                },
            ));
        }
    }
    Ok(())
}

/// Refuses a column chunk that does not lie in its file: the Parquet reader would panic.
fn check_chunks(footer: &FileSchema, group: &RowGroupMetaData) -> Result<(), OfflineError> {
    let size = footer.file.meta.size;
    let lies_within = group.columns().iter().all(|chunk| {
        let dictionary = chunk.dictionary_page_offset();
        let start = dictionary.unwrap_or_else(|| chunk.data_page_offset());
        let start = u64::try_from(start).ok();
        let length = u64::try_from(chunk.compressed_size()).ok();
        let end = start
            .zip(length)
            .and_then(|(start, length)| start.checked_add(length));
        chunk.data_page_offset() >= 0 && end.is_some_and(|end| end <= size)
    });
    if lies_within {
        return Ok(());
    }
    Err(OfflineError::UnreadableFile {
        file: footer.file.path.clone(),
        reason: format!("its footer names columns beyond its {size} bytes"),
    })
}

fn missing_column(source: &Source, files: &[FileSchema], column: &str) -> OfflineError {
    let schema = merged_schema(files);
    OfflineError::source(
        &source.name,
        SourceProblem::MissingColumn {
            column: column.to_owned(),
            file_column: source.file_column(column).to_owned(),
            file: files
                .first()
                .map(|file| file.file.path.clone())
                .unwrap_or_default(),
            files: files.len(),
            columns: schema.fields().iter().map(|f| f.name().clone()).collect(),
        },
    )
}
