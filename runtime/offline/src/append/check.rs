//! Whether rows fit a source: columns, values, timestamps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::concat;
use arrow::datatypes::{DataType as ArrowType, Schema, TimestampMicrosecondType};
use unskew_core::json;
use unskew_core::time;
use unskew_core::types::{DataType, ScalarType, UTC};
use unskew_core::values::{ValueError, coerce, from_text};

use super::problems::Collected;
use super::{AppendProblem, Appender, FileColumn, PushedRows, RowProblem, SourceRows, TEXT};
use crate::error::OfflineError;
use crate::scan::wanted_types;
use crate::schema::plain;

const TIMESTAMP: DataType = DataType::Scalar(ScalarType::Timestamp);

/// A column of the rows, found by its place.
type Given<'a> = BTreeMap<&'a str, &'a ArrayRef>;

impl Appender {
    /// The rows in the source's types, if all of them can be appended: each value is one of its
    /// column's type, in the files and in each view, by the rules of `core::values`; each row has an
    /// event timestamp; none lies after `now`, in microseconds since 1970.
    ///
    /// Rows may have columns by their names in definitions or in the files. A created timestamp
    /// that they do not have is `now`, since a row is known from then on; a column that no view
    /// needs is null.
    ///
    /// # Errors
    /// A column is missing, unknown or there twice; or some rows do not fit, up to 100 of which are
    /// listed.
    pub fn check(&self, rows: &PushedRows, now: i64) -> Result<SourceRows, OfflineError> {
        let failed = |problem| OfflineError::append(&self.source.name, problem);
        let (in_files, in_folders) = self.resolve(rows.batch()).map_err(failed)?;
        self.check_missing(&in_files, &in_folders).map_err(failed)?;
        let length = rows.batch().num_rows();
        let mut problems = Collected::new();
        let mut fields = Vec::with_capacity(self.columns.len());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let values = match in_files.get(column.name.as_str()) {
                Some(array) => self
                    .values(column, array, rows, &mut problems)
                    .map_err(failed)?,
                None if self.is_created(column) => {
                    let instants = TimestampMicrosecondArray::from(vec![now; length]);
                    Arc::new(instants.with_timezone(UTC))
                }
                None => new_null_array(&column.data_type, length),
            };
            fields.push(plain(&column.name, column.data_type.clone()));
            columns.push(values);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(length));
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let folder_values = self.folder_values(&in_files, &in_folders, rows, &mut problems);
        self.check_views(&batch, &mut problems);
        let events = self.check_times(&batch, now, &mut problems);
        problems.finish().map_err(failed)?;
        Ok(self.dealt_out(batch, &events, &folder_values))
    }

    /// Finds for each column of the rows the column of the files, or of the folders.
    fn resolve<'a>(
        &'a self,
        batch: &'a RecordBatch,
    ) -> Result<(Given<'a>, Given<'a>), AppendProblem> {
        let (mut in_files, mut in_folders) = (Given::new(), Given::new());
        let mut unknown = Vec::new();
        let mut seen = BTreeSet::new();
        for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let name = field.name();
            let by_definition =
                |column: &&FileColumn| column.names.first().is_some_and(|first| first == name);
            let by_any = |column: &&FileColumn| {
                column.names.iter().any(|known| known == name) || column.name == *name
            };
            let mut columns = self.columns.iter();
            let column = columns
                .clone()
                .find(by_definition)
                .or_else(|| columns.find(by_any));
            let in_file = column.map(|column| column.name.as_str());
            if let Some(in_file) = in_file {
                in_files.insert(in_file, array);
            }
            let is_level = self.levels.given().find(|level| *level == name);
            if let Some(level) = is_level {
                in_folders.insert(level, array);
            }
            let known = in_file.or(is_level);
            match known {
                Some(known) if !seen.insert(known) => {
                    return Err(AppendProblem::DuplicateColumn(known.to_owned()));
                }
                Some(_) => {}
                None if self.levels.is_made(name) => {
                    return Err(AppendProblem::PartitionColumn(name.clone()));
                }
                None => unknown.push(name.clone()),
            }
        }
        if unknown.is_empty() {
            return Ok((in_files, in_folders));
        }
        Err(AppendProblem::UnknownColumns {
            unknown,
            valid: self.valid(),
        })
    }

    fn valid(&self) -> Vec<String> {
        let columns = self
            .columns
            .iter()
            .filter_map(|column| column.names.first());
        let mut valid: Vec<String> = columns.cloned().collect();
        for level in self.levels.given() {
            if !valid.iter().any(|known| known == level) {
                valid.push(level.to_owned());
            }
        }
        valid
    }

    /// Refuses rows without the columns that views read, or that say into which folder they go.
    fn check_missing(
        &self,
        in_files: &Given<'_>,
        in_folders: &Given<'_>,
    ) -> Result<(), AppendProblem> {
        let mut needed: Vec<&str> = vec![&self.source.timestamp_field];
        for view in &self.views {
            needed.extend(view.source_columns());
        }
        if self.folder.is_ok() {
            needed.extend(self.levels.given());
        }
        let mut missing: Vec<String> = Vec::new();
        for name in needed {
            let column = self.source.file_column(name);
            let is_there = in_files.contains_key(column)
                || in_folders.contains_key(column)
                || self.levels.is_made(column)
                || Some(name) == self.source.created_timestamp_column.as_deref();
            if !is_there && !missing.iter().any(|known| known == name) {
                missing.push(name.to_owned());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let valid = self.valid();
        Err(AppendProblem::MissingColumns { missing, valid })
    }

    fn is_created(&self, column: &FileColumn) -> bool {
        let created = self.source.created_timestamp_column.as_deref();
        created.is_some_and(|created| self.source.file_column(created) == column.name)
    }

    /// A column in the type of the files; values that do not fit are null, until all is looked at.
    fn values(
        &self,
        column: &FileColumn,
        array: &ArrayRef,
        rows: &PushedRows,
        problems: &mut Collected,
    ) -> Result<ArrayRef, AppendProblem> {
        let name = column.names.first().unwrap_or(&column.name);
        match column.contract {
            Some(wanted) => Ok(converted(name, array, wanted, rows, problems)),
            None if array.data_type() == &column.data_type => Ok(Arc::clone(array)),
            None => Err(AppendProblem::ColumnType {
                column: name.clone(),
                found: array.data_type().to_string(),
                wanted: column.data_type.to_string(),
            }),
        }
    }

    /// The values that name folders, as texts, in the order of [`super::Levels::given`].
    fn folder_values(
        &self,
        in_files: &Given<'_>,
        in_folders: &Given<'_>,
        rows: &PushedRows,
        problems: &mut Collected,
    ) -> Vec<Option<StringArray>> {
        let of_level = |level: &str| {
            let array = in_folders.get(level).or_else(|| in_files.get(level))?;
            let own = match rows {
                PushedRows::Texts(_) => None,
                PushedRows::Typed(_) => DataType::of_arrow(array.data_type()),
            };
            let wanted = self.wanted(level).or(own).unwrap_or(TEXT);
            let values = converted(level, array, wanted, rows, problems);
            let texts: StringArray = (0..values.len())
                .map(|row| values.is_valid(row).then(|| text_of(&values, row)))
                .collect();
            // What the folder says is what a reader will make of it.
            if let Err(error) = from_text(&texts, wanted) {
                problems.add(RowProblem::of_value(error.row, level, &error));
            }
            Some(texts)
        };
        self.levels.given().map(of_level).collect()
    }

    /// Whether each value fits each view; the files may hold more than a view takes.
    fn check_views(&self, batch: &RecordBatch, problems: &mut Collected) {
        let mut checked: BTreeSet<(&str, DataType)> = BTreeSet::new();
        for view in &self.views {
            for (name, wanted) in wanted_types(view) {
                let column = self.source.file_column(name);
                let Some(array) = batch.column_by_name(column) else {
                    continue;
                };
                if checked.insert((column, wanted)) {
                    let convert = |array: &ArrayRef| coerce(array, wanted);
                    each(name, array, &wanted.arrow(), convert, problems);
                }
            }
        }
    }

    /// Whether each row has an event timestamp, and none lies after the clock; gives the event
    /// timestamps.
    fn check_times(
        &self,
        batch: &RecordBatch,
        now: i64,
        problems: &mut Collected,
    ) -> TimestampMicrosecondArray {
        let event = Some((self.source.timestamp_field.as_str(), true));
        let created = self.source.created_timestamp_column.as_deref();
        let mut events = TimestampMicrosecondArray::from(vec![now; batch.num_rows()]);
        for (name, is_event) in event.into_iter().chain(created.map(|name| (name, false))) {
            let column = batch.column_by_name(self.source.file_column(name));
            let Some(Ok(column)) = column.map(|column| coerce(column, TIMESTAMP)) else {
                continue;
            };
            let instants = column.as_primitive::<TimestampMicrosecondType>();
            for (row, instant) in instants.iter().enumerate() {
                let message = match instant {
                    None if is_event => {
                        "it is null or no instant; each row needs an event timestamp".to_owned()
                    }
                    Some(instant) if instant > now => format!(
                        "{} lies after now ({}); what has not happened yet cannot be pushed",
                        time::format(instant),
                        time::format(now)
                    ),
                    _ => continue,
                };
                let column = Some(name.to_owned());
                if !problems.add(RowProblem {
                    row,
                    column,
                    message,
                }) {
                    break;
                }
            }
            if is_event {
                events = instants.clone();
            }
        }
        events
    }

    /// The rows, and the folder of each.
    fn dealt_out(
        &self,
        batch: RecordBatch,
        events: &TimestampMicrosecondArray,
        values: &[Option<StringArray>],
    ) -> SourceRows {
        let mut folders: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut texts: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
        for row in 0..batch.num_rows() {
            let given = values.iter().map(|texts| {
                let texts = texts.as_ref().filter(|texts| texts.is_valid(row));
                texts.map(|texts| texts.value(row).to_owned())
            });
            let (folder, columns) = self.levels.folder(events.value(row), given);
            // An Arrow batch of rows that were pushed has fewer than 2^32.
            folders.entry(folder).or_default().push(row as u32);
            for (name, value) in columns {
                let value = (value != crate::hive::NULL).then_some(value);
                texts.entry(name).or_default().push(value);
            }
        }
        let columns = texts.into_iter();
        SourceRows {
            batch,
            folder_columns: columns
                .map(|(name, texts)| (name, StringArray::from(texts)))
                .collect(),
            folders,
        }
    }
}

/// Each value as `wanted`; null if it is none, which `problems` hears of.
fn converted(
    name: &str,
    array: &ArrayRef,
    wanted: DataType,
    rows: &PushedRows,
    problems: &mut Collected,
) -> ArrayRef {
    let convert = |array: &ArrayRef| match (rows, array.as_string_opt::<i32>()) {
        (PushedRows::Texts(_), Some(texts)) => from_text(texts, wanted),
        _ => coerce(array, wanted),
    };
    each(name, array, &wanted.arrow(), convert, problems)
}

/// Converts an array, and after a value that does not fit what follows it, so that all such values
/// are found; these are null then.
fn each(
    name: &str,
    array: &ArrayRef,
    wanted: &ArrowType,
    convert: impl Fn(&ArrayRef) -> Result<ArrayRef, ValueError>,
    problems: &mut Collected,
) -> ArrayRef {
    let nulls = |count| new_null_array(wanted, count);
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < array.len() || pieces.is_empty() {
        let rest = array.slice(start, array.len() - start);
        let error = match convert(&rest) {
            Ok(whole) if pieces.is_empty() => return whole,
            Ok(last) => {
                pieces.push(last);
                break;
            }
            Err(error) => error,
        };
        let before = convert(&rest.slice(0, error.row));
        pieces.push(before.unwrap_or_else(|_| nulls(error.row)));
        pieces.push(nulls(1));
        start += error.row + 1;
        if !problems.add(RowProblem::of_value(start - 1, name, &error)) {
            pieces.push(nulls(array.len() - start));
            break;
        }
    }
    let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
    // They are of one type, and no longer than what they were.
    concat(&pieces).unwrap_or_else(|_| nulls(array.len()))
}

/// A value as the name of a folder says it.
fn text_of(values: &ArrayRef, row: usize) -> String {
    match values.as_string_opt::<i32>() {
        Some(texts) => texts.value(row).to_owned(),
        None => {
            let shown = json::display(values.as_ref(), row);
            // An instant or bytes are a string of JSON without anything that is escaped in one.
            shown.trim_matches('"').to_owned()
        }
    }
}
