//! Entity rows from CSV files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use unskew_core::types::DataType;
use unskew_core::values::from_text;

use crate::error::{EntityRowsProblem, OfflineError};
use crate::offline::CHUNK_ROWS;

/// The rows of a CSV file, the columns `declared` in their types, the others in inferred ones.
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

    let columns: Vec<_> = inferred
        .fields()
        .iter()
        .map(|field| {
            let declared = declared.iter().find(|(name, _)| name == field.name());
            (
                field.name(),
                field.data_type(),
                declared.map(|(_, data_type)| *data_type),
            )
        })
        .collect();
    let read_as = columns.iter().map(|(name, inferred, declared)| {
        // A column of empty fields only has no type to infer.
        let text = declared.is_some() || **inferred == ArrowType::Null;
        let data_type = if text { &ArrowType::Utf8 } else { *inferred };
        Field::new(*name, data_type.clone(), true)
    });
    let read_as = Arc::new(Schema::new(read_as.collect::<Vec<_>>()));
    let schema = columns
        .iter()
        .zip(read_as.fields())
        .map(|((name, _, declared), read_as)| {
            let data_type = declared.map_or_else(|| read_as.data_type().clone(), DataType::arrow);
            Field::new(*name, data_type, true)
        });
    let schema = Arc::new(Schema::new(schema.collect::<Vec<_>>()));

    let reader = ReaderBuilder::new(read_as)
        .with_format(format)
        .with_batch_size(CHUNK_ROWS)
        .build_buffered(open(path)?)
        .map_err(unreadable)?;
    let mut batches = Vec::new();
    let mut rows = 0;
    for batch in reader {
        let batch = batch.map_err(unreadable)?;
        let arrays = columns.iter().zip(batch.columns());
        let arrays = arrays.map(|((name, _, declared), array)| -> Result<ArrayRef, _> {
            let Some(data_type) = declared else {
                return Ok(Arc::clone(array));
            };
            from_text(array.as_string(), *data_type).map_err(|mut error| {
                error.row += rows;
                problem(EntityRowsProblem::Value {
                    column: (*name).clone(),
                    error,
                })
            })
        });
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        rows += batch.num_rows();
        batches.push(RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(unreadable)?);
    }
    Ok((schema, batches))
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
