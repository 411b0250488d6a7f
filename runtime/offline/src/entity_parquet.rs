//! Entity rows from Parquet files.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Schema, SchemaRef};
use unskew_core::types::DataType;
use unskew_core::values::{ValueError, coerce, from_text};

use crate::schema::{FileSchema, merged_schema, plain};

/// The columns of all files: those of the first, then those that only others have, then those that
/// only the names of folders give; of these the ones that are `needed` in their types.
pub(crate) fn schema(files: &[FileSchema], needed: &[(String, DataType)]) -> SchemaRef {
    if let [file] = files
        && file.file.partition.is_empty()
    {
        return Arc::clone(&file.schema);
    }
    let in_files = |name: &str| {
        let mut files = files.iter();
        files.any(|file| file.schema.field_with_name(name).is_ok())
    };
    let merged = merged_schema(files);
    let fields = merged.fields().iter().map(|field| {
        let needed = needed.iter().find(|(name, _)| name == field.name());
        match needed {
            Some((name, data_type)) if !in_files(name) => plain(name, data_type.arrow()),
            _ => Arc::clone(field),
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The columns of a batch in the types and the order of `schema`; `folders` are those that only
/// the names of its file's folders give.
///
/// # Errors
/// A value is none of its column's type; the error names the column.
pub(crate) fn as_merged(
    folders: &[(String, String)],
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, (String, ValueError)> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let columns = schema.fields().iter().map(|field| {
        let column = batch.column_by_name(field.name());
        let folder = folders.iter().find(|(name, _)| name == field.name());
        match (column, folder) {
            (_, Some((_, text))) => repeated(text, batch.num_rows(), field.data_type()),
            (Some(column), None) => converted(column, field.data_type()),
            (None, None) => Ok(new_null_array(field.data_type(), batch.num_rows())),
        }
        .map_err(|error| (field.name().clone(), error))
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    // A batch that did not fit would be refused by the next that takes it.
    Ok(RecordBatch::try_new(Arc::clone(schema), columns).unwrap_or_else(|_| batch.clone()))
}

fn converted(column: &ArrayRef, wanted: &ArrowType) -> Result<ArrayRef, ValueError> {
    if column.data_type() == wanted {
        return Ok(Arc::clone(column));
    }
    if *column.data_type() == ArrowType::Null {
        return Ok(new_null_array(wanted, column.len()));
    }
    let value = match DataType::of_arrow(wanted) {
        Some(data_type) => coerce(column, data_type)?,
        None => Arc::clone(column),
    };
    // The contract has one form of each type, and a file may have another.
    Ok(cast(&value, wanted).unwrap_or(value))
}

/// A column of one value, which a folder's name gives.
fn repeated(text: &str, rows: usize, wanted: &ArrowType) -> Result<ArrayRef, ValueError> {
    let texts = StringArray::from_iter_values(std::iter::repeat_n(text, rows));
    match DataType::of_arrow(wanted) {
        Some(data_type) => converted(&from_text(&texts, data_type)?, wanted),
        None => converted(&(Arc::new(texts) as ArrayRef), wanted),
    }
}
