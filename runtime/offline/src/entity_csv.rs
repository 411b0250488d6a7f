//! Entity rows from CSV files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use unskew_core::types::DataType;
use unskew_core::values::{ValueError, from_text};

use crate::error::{EntityRowsProblem, OfflineError};
use crate::offline::CHUNK_ROWS;

/// The rows of a CSV file, the columns `declared` in their types, the others in inferred ones: text,
/// unless all fields of a column are values of another type and lose nothing by it.
///
/// # Errors
/// The file cannot be read, or a declared column's field is no value of its type.
pub(crate) fn read(
    path: &Path,
    declared: &[(String, DataType)],
) -> Result<(SchemaRef, Vec<RecordBatch>), OfflineError> {
    let problem = |problem| OfflineError::entity_rows(Some(path), problem);
    let unreadable =
        |error: arrow::error::ArrowError| problem(EntityRowsProblem::Unreadable(error.to_string()));
    let format = Format::default().with_header(true);
    let (inferred, _) = format.infer_schema(open(path)?, None).map_err(unreadable)?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = inferred
        .fields()
        .iter()
        .find(|field| !seen.insert(field.name()))
    {
        // Before fields are read by their names.
        let name = twice.name().clone();
        return Err(problem(EntityRowsProblem::DuplicateColumn(name)));
    }

    let mut columns: Vec<Column> = inferred
        .fields()
        .iter()
        .map(|field| Column::new(field, declared))
        .collect();
    let text = |column: &Column| Field::new(&column.name, ArrowType::Utf8, true);
    let texts = Arc::new(Schema::new(columns.iter().map(text).collect::<Vec<_>>()));
    let reader = ReaderBuilder::new(texts)
        .with_format(format)
        .with_batch_size(CHUNK_ROWS)
        .build_buffered(open(path)?)
        .map_err(unreadable)?;
    let mut batches = Vec::new();
    let mut rows = 0;
    for batch in reader {
        let batch = batch.map_err(unreadable)?;
        let arrays = columns.iter_mut().zip(batch.columns());
        let arrays = arrays
            .map(|(column, texts)| {
                column.read(texts).map_err(|mut error| {
                    error.row += rows;
                    problem(EntityRowsProblem::Value {
                        column: column.name.clone(),
                        error,
                    })
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        rows += batch.num_rows();
        batches.push(arrays);
    }

    // Only now is it known of what types they are.
    let field = |column: &Column| Field::new(&column.name, column.arrow(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let batches = batches.into_iter().map(|arrays| {
        let arrays = columns.iter().zip(arrays);
        let arrays = arrays.map(|(column, array)| cast(&array, &column.arrow()));
        RecordBatch::try_new(Arc::clone(&schema), arrays.collect::<Result<_, _>>()?)
    });
    let batches = batches.collect::<Result<_, _>>().map_err(unreadable)?;
    Ok((schema, batches))
}

/// A column while it is read.
struct Column {
    name: String,
    kind: Kind,
}

enum Kind {
    /// Of a type that was declared.
    Declared(DataType),
    /// Of a type as which all its texts look, so far.
    Looks(ArrowType),
    /// Text.
    Text,
}

impl Column {
    fn new(inferred: &Field, declared: &[(String, DataType)]) -> Self {
        let name = inferred.name().clone();
        let declared = declared.iter().find(|(declared, _)| *declared == name);
        let kind = match (declared, inferred.data_type()) {
            (Some((_, data_type)), _) => Kind::Declared(*data_type),
            // A column of empty fields only has no type to infer.
            (None, ArrowType::Null | ArrowType::Utf8) => Kind::Text,
            (None, inferred) => Kind::Looks(inferred.clone()),
        };
        Self { name, kind }
    }

    /// The values of a declared column; those of another stay texts until all are seen.
    fn read(&mut self, texts: &ArrayRef) -> Result<ArrayRef, ValueError> {
        match &self.kind {
            Kind::Declared(data_type) => return from_text(texts.as_string(), *data_type),
            Kind::Looks(looks) if !all_are(texts, looks) => self.kind = Kind::Text,
            Kind::Looks(_) | Kind::Text => {}
        }
        Ok(Arc::clone(texts))
    }

    fn arrow(&self) -> ArrowType {
        match &self.kind {
            Kind::Declared(data_type) => data_type.arrow(),
            Kind::Looks(looks) => looks.clone(),
            Kind::Text => ArrowType::Utf8,
        }
    }
}

/// Whether `texts`, which look like values of `data_type`, are such and nothing else: a postal code
/// of `00712` is no number, for as one it would lose its zeros.
fn all_are(texts: &ArrayRef, data_type: &ArrowType) -> bool {
    let is_number: fn(&str) -> bool = match data_type {
        ArrowType::Int64 => is_integer,
        ArrowType::Float64 => is_float,
        _ => |_| true,
    };
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    texts.as_string::<i32>().iter().flatten().all(is_number)
        && cast_with_options(texts, data_type, &strict).is_ok()
}

/// Whether it is an integer that is written back as it is.
fn is_integer(text: &str) -> bool {
    text.parse::<i64>()
        .is_ok_and(|integer| integer.to_string() == text)
}

/// Whether it is a number without leading zeros, and, if whole, one that a float64 holds.
fn is_float(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let has_leading_zero = match digits.as_bytes() {
        [b'0', next, ..] => next.is_ascii_digit(),
        _ => false,
    };
    let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    !has_leading_zero
        && (!is_whole
            || text
                .parse::<f64>()
                .is_ok_and(|float| float.to_string() == text))
}

/// The file from its first line on: spreadsheets write a byte order mark before it.
fn open(path: &Path) -> Result<BufReader<File>, OfflineError> {
    let io = |error| OfflineError::Io {
        action: "cannot read",
        path: path.to_owned(),
        error,
    };
    const MARK: &[u8] = "\u{feff}".as_bytes();
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    if reader.fill_buf().map_err(io)?.starts_with(MARK) {
        reader.consume(MARK.len());
    }
    Ok(reader)
}
