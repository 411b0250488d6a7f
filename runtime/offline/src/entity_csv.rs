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
use arrow::datatypes::{DataType as ArrowType, Field, Schema};
use unskew_core::types::DataType;
use unskew_core::values::from_text;

use crate::entity_source::{Batches, ReadError};
use crate::error::EntityRowsProblem;
use crate::offline::CHUNK_ROWS;

/// Reads a CSV file: the columns `declared` in their types, the others in inferred ones: text,
/// unless all fields of a column are values of another type and lose nothing by it.
///
/// # Errors
/// The file cannot be read, or a declared column's field is no value of its type.
pub(crate) fn read(
    path: &Path,
    declared: &[(String, DataType)],
    rows: &Batches,
) -> Result<(), ReadError> {
    let format = Format::default().with_header(true);
    let (inferred, _) = format.infer_schema(open(path)?, None)?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = inferred
        .fields()
        .iter()
        .find(|field| !seen.insert(field.name()))
    {
        // Before fields are read by their names.
        let name = twice.name().clone();
        return Err(ReadError::Problem(EntityRowsProblem::DuplicateColumn(name)));
    }

    let mut columns: Vec<Column> = inferred
        .fields()
        .iter()
        .map(|field| Column::new(field, declared))
        .collect();
    let text = |column: &Column| Field::new(&column.name, ArrowType::Utf8, true);
    let texts = Arc::new(Schema::new(columns.iter().map(text).collect::<Vec<_>>()));
    let reader = || -> Result<_, ReadError> {
        Ok(ReaderBuilder::new(Arc::clone(&texts))
            .with_format(format.clone())
            .with_batch_size(CHUNK_ROWS)
            .build_buffered(open(path)?)?)
    };
    // Of what types they are is known only when all of them were seen, and not all fit into memory.
    if columns.iter().any(Column::may_be_text) {
        for batch in reader()? {
            let batch = batch?;
            for (column, texts) in columns.iter_mut().zip(batch.columns()) {
                column.look_at(texts);
            }
        }
    }
    let field = |column: &Column| Field::new(&column.name, column.arrow(), true);
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    rows.schema(Arc::clone(&schema))?;
    let mut before = 0;
    for batch in reader()? {
        let batch = batch?;
        let arrays = columns.iter().zip(batch.columns());
        let arrays = arrays
            .map(|(column, texts)| column.read(texts, before))
            .collect::<Result<Vec<_>, _>>()?;
        before += batch.num_rows();
        rows.rows(RecordBatch::try_new(Arc::clone(&schema), arrays)?)?;
    }
    Ok(())
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

    /// Whether a field may yet show that it is text.
    fn may_be_text(&self) -> bool {
        matches!(self.kind, Kind::Looks(_))
    }

    /// Sees whether texts are as they look.
    fn look_at(&mut self, texts: &ArrayRef) {
        if let Kind::Looks(looks) = &self.kind
            && !all_are(texts, looks)
        {
            self.kind = Kind::Text;
        }
    }

    /// The values of texts; `before` is how many rows come before them.
    fn read(&self, texts: &ArrayRef, before: usize) -> Result<ArrayRef, ReadError> {
        match &self.kind {
            Kind::Declared(data_type) => {
                from_text(texts.as_string(), *data_type).map_err(|mut error| {
                    error.row += before;
                    let column = self.name.clone();
                    ReadError::Problem(EntityRowsProblem::Value { column, error })
                })
            }
            Kind::Looks(looks) => Ok(cast(texts, looks)?),
            Kind::Text => Ok(Arc::clone(texts)),
        }
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
fn open(path: &Path) -> std::io::Result<BufReader<File>> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    let mut reader = BufReader::new(File::open(path)?);
    if reader.fill_buf()?.starts_with(MARK) {
        reader.consume(MARK.len());
    }
    Ok(reader)
}
