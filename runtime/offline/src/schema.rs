//! What columns the files of a source have, and the one type that stands for several.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::view::FOLDER_COLUMN;

use crate::error::{OfflineError, SourceProblem};
use crate::files::SourceFile;

/// A file of a source, with what its footer says.
#[derive(Clone, Debug)]
pub(crate) struct FileSchema {
    /// The file.
    pub(crate) file: SourceFile,
    /// Its columns, as the reader will give them.
    pub(crate) schema: SchemaRef,
    /// How many rows it has.
    pub(crate) rows: u64,
    /// The footer itself.
    pub(crate) metadata: ArrowReaderMetadata,
}

/// The columns of all the files, each where it first occurs, in a type that holds its values of
/// every file; then those that only the names of their folders give, as text.
///
/// A column whose types no type joins has that of the first file: such a column is an error only
/// for those who read it, by [`merged_type`].
pub(crate) fn merged_schema(files: &[FileSchema]) -> SchemaRef {
    let mut merged: Vec<FieldRef> = Vec::new();
    let mut positions: BTreeMap<&str, usize> = BTreeMap::new();
    for field in files.iter().flat_map(|file| file.schema.fields()) {
        match positions.get(field.name().as_str()) {
            None => {
                positions.insert(field.name(), merged.len());
                merged.push(plain(field.name(), field.data_type().clone()));
            }
            Some(&position) => {
                let known = merged[position].data_type();
                if let Some(joined) = join(known, field.data_type()) {
                    merged[position] = plain(field.name(), joined);
                }
            }
        }
    }
    let folders = files.iter().flat_map(|file| &file.file.partition);
    let mut named: Vec<&str> = Vec::new();
    for (name, _) in folders {
        if !positions.contains_key(name.as_str()) && !named.contains(&name.as_str()) {
            named.push(name);
        }
    }
    let of_folders = HashMap::from([(FOLDER_COLUMN.to_owned(), String::new())]);
    merged.extend(named.into_iter().map(|name| {
        let field = Field::new(name, ArrowType::Utf8, true);
        Arc::new(field.with_metadata(of_folders.clone()))
    }));
    Arc::new(Schema::new(merged))
}

/// Whether the names of folders give column `column`.
pub(crate) fn folder_column(files: &[FileSchema], column: &str) -> bool {
    files
        .iter()
        .flat_map(|file| &file.file.partition)
        .any(|(name, _)| name == column)
}

/// The type that holds the values of column `column` (its name in the files) of every file; `None`
/// if no file has it.
///
/// # Errors
/// Two files hold it in types that no type joins; the error names both.
pub(crate) fn merged_type(
    source: &str,
    files: &[FileSchema],
    column: &str,
) -> Result<Option<ArrowType>, OfflineError> {
    let mut merged: Option<(ArrowType, &FileSchema)> = None;
    let mut last: Option<&SchemaRef> = None;
    for file in files {
        // Mostly all files have the same columns, and there may be thousands of both.
        if last.is_some_and(|last| Arc::ptr_eq(last, &file.schema)) {
            continue;
        }
        last = Some(&file.schema);
        let Ok(field) = file.schema.field_with_name(column) else {
            continue;
        };
        merged = Some(match merged {
            None => (field.data_type().clone(), file),
            Some((known, first)) => match join(&known, field.data_type()) {
                Some(joined) => (joined, first),
                None => {
                    return Err(OfflineError::source(
                        source,
                        SourceProblem::IncompatibleTypes {
                            column: column.to_owned(),
                            first: first.file.path.clone(),
                            first_type: known,
                            other: file.file.path.clone(),
                            other_type: field.data_type().clone(),
                        },
                    ));
                }
            },
        });
    }
    Ok(merged.map(|(data_type, _)| data_type))
}

/// A nullable field without metadata.
pub(crate) fn plain(name: &str, data_type: ArrowType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

/// The type that holds the values of both: the same, or a type of the contract, into which
/// [`unskew_core::values::coerce`] takes each value without loss or not at all.
fn join(one: &ArrowType, other: &ArrowType) -> Option<ArrowType> {
    if one == other || other == &ArrowType::Null {
        return Some(one.clone());
    }
    if one == &ArrowType::Null {
        return Some(other.clone());
    }
    let joined = match (DataType::of_arrow(one)?, DataType::of_arrow(other)?) {
        (DataType::Scalar(one), DataType::Scalar(other)) => DataType::Scalar(wider(one, other)?),
        (DataType::List(one), DataType::List(other)) => DataType::List(wider(one, other)?),
        _ => return None,
    };
    Some(joined.arrow())
}

/// The type that holds the values of both.
fn wider(one: ScalarType, other: ScalarType) -> Option<ScalarType> {
    use ScalarType::{Float32, Float64, Int32, Int64};
    match (one, other) {
        _ if one == other => Some(one),
        (Int32, Int64) | (Int64, Int32) => Some(Int64),
        // A column of integers with nulls is often written as floats.
        (Int32 | Int64 | Float32, Float64)
        | (Float64, Int32 | Int64 | Float32)
        | (Int32 | Int64, Float32)
        | (Float32, Int32 | Int64) => Some(Float64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn types_join_where_a_type_of_the_contract_holds_both() {
        use ArrowType::{Float32, Float64, Int8, Int32, Int64, LargeUtf8, Null, Utf8, Utf8View};
        let timestamp = |unit| ArrowType::Timestamp(unit, None);
        let dictionary = ArrowType::Dictionary(Box::new(Int8), Box::new(Utf8));
        for (one, other, joined) in [
            (Int32, Int64, Some(Int64)),
            (Int8, Int32, Some(Int32)),
            (Int64, Float64, Some(Float64)),
            (Int64, Float32, Some(Float64)),
            (Utf8View, LargeUtf8, Some(Utf8)),
            (dictionary, Utf8, Some(Utf8)),
            (Null, Utf8View, Some(Utf8View)),
            (
                timestamp(TimeUnit::Nanosecond),
                ArrowType::Date32,
                Some(ScalarType::Timestamp.arrow()),
            ),
            (Utf8, Int64, None),
            (Utf8, timestamp(TimeUnit::Second), None),
            (ArrowType::Boolean, Int32, None),
        ] {
            assert_eq!(join(&one, &other), joined, "{one} {other}");
            assert_eq!(join(&other, &one), joined, "{other} {one}");
        }
    }
}
