//! Training sets as CSV.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use unskew_core::json;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::coerce;

use super::{COMPONENTS, PLAN, PLAN_DIGEST, Provenance, cannot_write};
use crate::error::OfflineError;

/// The file that says by which plan the training set in `csv` was made: its name with `.plan.json`
/// after it.
pub fn plan_file(csv: &Path) -> PathBuf {
    let mut name = csv.as_os_str().to_owned();
    name.push(".plan.json");
    PathBuf::from(name)
}

/// What is in that file.
pub(super) fn plan_json(provenance: &Provenance) -> String {
    let json = serde_json::json!({
        PLAN_DIGEST: provenance.digest,
        COMPONENTS: provenance.components,
        PLAN: provenance.plan,
    });
    format!("{json:#}\n")
}

/// # Errors
/// A column's values cannot be written as text.
pub(super) fn check(path: &Path, schema: &Schema) -> Result<(), OfflineError> {
    let nested = |field: &&arrow::datatypes::FieldRef| {
        field.data_type().is_nested() && DataType::of_arrow(field.data_type()).is_none()
    };
    match schema.fields().iter().find(nested) {
        None => Ok(()),
        Some(field) => Err(OfflineError::Write {
            path: path.to_owned(),
            reason: format!(
                "column `{}` is {}, which CSV cannot hold; name a file that ends in .parquet",
                field.name(),
                field.data_type()
            ),
        }),
    }
}

/// Writes batches to `file`, which will be at `path`.
pub(super) fn write(
    file: File,
    path: &Path,
    schema: &SchemaRef,
    batches: impl Iterator<Item = RecordBatch>,
) -> Result<(), OfflineError> {
    let io = |error| cannot_write(path, error);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    for (index, field) in schema.fields().iter().enumerate() {
        separate(&mut line, index);
        append(&mut line, field.name());
    }
    line.push(b'\n');
    out.write_all(&line).map_err(io)?;
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(texts)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| OfflineError::Write {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        let columns: Vec<&StringArray> = columns.iter().map(AsArray::as_string).collect();
        for row in 0..batch.num_rows() {
            line.clear();
            for (index, column) in columns.iter().enumerate() {
                separate(&mut line, index);
                if column.is_valid(row) {
                    append(&mut line, column.value(row));
                }
            }
            line.push(b'\n');
            out.write_all(&line).map_err(io)?;
        }
    }
    let file = out.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)
}

fn separate(line: &mut Vec<u8>, index: usize) {
    if index > 0 {
        line.push(b',');
    }
}

/// Appends a field, quoted where it has to be. An empty text is quoted too: readers that tell it
/// from a null, which is an empty field without quotes, do so by them.
fn append(line: &mut Vec<u8>, text: &str) {
    let special = |byte: u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    let bytes = text.as_bytes();
    let at_ends = |byte: &u8| byte.is_ascii_whitespace();
    if !text.is_empty()
        && !bytes.iter().copied().any(special)
        && !bytes.first().is_some_and(at_ends)
        && !bytes.last().is_some_and(at_ends)
    {
        line.extend_from_slice(bytes);
        return;
    }
    line.push(b'"');
    for &byte in bytes {
        if byte == b'"' {
            line.push(b'"');
        }
        line.push(byte);
    }
    line.push(b'"');
}

/// Each value as text, as entity rows in CSV are read.
fn texts(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let own = |array: &ArrayRef, data_type| {
        coerce(array, data_type).map_err(|error| ArrowError::ExternalError(Box::new(error)))
    };
    match column.data_type() {
        ArrowType::Null => Ok(Arc::new(StringArray::new_null(column.len()))),
        ArrowType::Dictionary(_, values) => texts(&cast(column, values)?),
        ArrowType::Timestamp(unit, _) => {
            // Finer than a microsecond, so that the contract's type would lose something.
            if *unit == TimeUnit::Nanosecond {
                let utc = ArrowType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
                return displayed(&cast(column, &utc)?);
            }
            let instants = own(column, DataType::Scalar(ScalarType::Timestamp))?;
            written(&instants)
        }
        // A date is no instant, and not every unsigned integer has a signed one.
        ArrowType::Date32 | ArrowType::Date64 | ArrowType::UInt32 | ArrowType::UInt64 => {
            displayed(column)
        }
        other => match DataType::of_arrow(other) {
            Some(data_type) => written(&own(column, data_type)?),
            None => displayed(column),
        },
    }
}

/// Values of a type of the contract.
fn written(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if *column.data_type() == ArrowType::Utf8 {
        return Ok(Arc::clone(column));
    }
    let mut json = Vec::new();
    let mut texts = arrow::array::StringBuilder::with_capacity(column.len(), 16 * column.len());
    let is_list = column.data_type().is_nested();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        json.clear();
        json::write_value(&mut json, column, row)?;
        let text = std::str::from_utf8(&json)
            .map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        // A scalar stands for itself: instants, bytes and `NaN` have no characters to escape.
        texts.append_value(if is_list {
            text
        } else {
            text.trim_matches('"')
        });
    }
    Ok(Arc::new(texts.finish()))
}

/// Values of other types, such as decimals and times of the day.
fn displayed(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let texts: Result<StringArray, ArrowError> = (0..column.len())
        .map(|row| match column.is_null(row) {
            true => Ok(None),
            false => formatter.value(row).try_to_string().map(Some),
        })
        .collect();
    Ok(Arc::new(texts?))
}
