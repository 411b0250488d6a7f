//! Columns on their way out of a component. Nothing in them is believed.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, ListArray, PrimitiveArray,
    StringArray, StringBuilder,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes as at;
use unskew_core::component::{Description, Kind};
use unskew_core::time;
use unskew_core::types::{DataType, Field, ScalarType, UTC};

use crate::bindings::exports::unskew::transform::transformation as wit;
use crate::component::Returned;
use crate::error::CallError;

/// What is wrong with a column, and the value at fault where there is one.
struct Wrong {
    index: Option<usize>,
    message: String,
}

impl Wrong {
    fn all(message: impl Into<String>) -> Self {
        Self {
            index: None,
            message: message.into(),
        }
    }

    fn at(index: usize, message: impl Into<String>) -> Self {
        Self {
            index: Some(index),
            message: message.into(),
        }
    }
}

/// The rows that a call on `rows` rows returned.
///
/// # Errors
/// Says which column breaks which rule, and the row given from which it comes, if one does.
pub(crate) fn output(
    description: &Description,
    output: wit::Output,
    rows: usize,
) -> Result<Returned, CallError> {
    let returned = output.rows as usize;
    check_rows(description.kind, &output, rows)?;
    if output.columns.len() != description.outputs.len() {
        return Err(CallError::contract(
            None,
            format!(
                "returned {} columns; it describes {}",
                output.columns.len(),
                description.outputs.len()
            ),
        ));
    }
    let source_row = output.source_row;
    let columns = description
        .outputs
        .iter()
        .zip(output.columns)
        .map(|(field, values)| {
            column(field, values, returned).map_err(|Wrong { index, message }| {
                let row = index.and_then(|index| match description.kind {
                    Kind::OnDemand => Some(index),
                    Kind::Batch => source_row.get(index).map(|&row| row as usize),
                });
                CallError::contract(row, format!("returned column `{}` {message}", field.name))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Returned {
        columns,
        rows: returned,
        source_row,
    })
}

fn check_rows(kind: Kind, output: &wit::Output, rows: usize) -> Result<(), CallError> {
    let returned = output.rows as usize;
    let source = &output.source_row;
    let wrong = |message: String| Err(CallError::contract(None, message));
    match kind {
        Kind::OnDemand if returned != rows => wrong(format!("returned {returned} rows for {rows}")),
        Kind::OnDemand if !source.is_empty() => wrong(
            "returned source rows, which an on-demand transformation does not have".to_owned(),
        ),
        Kind::Batch if source.len() != returned => wrong(format!(
            "returned {returned} rows and the source row of {}",
            source.len()
        )),
        Kind::Batch => {
            if let Some(&beyond) = source.iter().find(|&&row| row as usize >= rows) {
                return wrong(format!(
                    "returned a row that comes from row {beyond}, of {rows} rows given"
                ));
            }
            match source.windows(2).find(|pair| pair[0] > pair[1]) {
                Some(pair) => wrong(format!(
                    "returned a row that comes from row {} after one from row {}; source rows may \
                     not fall",
                    pair[1], pair[0]
                )),
                None => Ok(()),
            }
        }
        Kind::OnDemand => Ok(()),
    }
}

fn column(field: &Field, column: wit::ColumnResult, rows: usize) -> Result<ArrayRef, Wrong> {
    let array = match (field.data_type, column) {
        (DataType::Scalar(scalar), wit::ColumnResult::Flat(values)) => flat(scalar, values, rows)?,
        (DataType::List(scalar), wit::ColumnResult::Lists(values)) => lists(scalar, values, rows)?,
        (DataType::Scalar(_), wit::ColumnResult::Lists(_)) => {
            return Err(Wrong::all(format!(
                "as lists; it describes {}",
                field.data_type
            )));
        }
        (DataType::List(_), wit::ColumnResult::Flat(_)) => {
            return Err(Wrong::all(format!(
                "without lists; it describes {}",
                field.data_type
            )));
        }
    };
    if !field.nullable
        && array.null_count() > 0
        && let Some(null) = (0..array.len()).find(|&row| array.is_null(row))
    {
        return Err(Wrong::at(
            null,
            "with a null, and describes it as not nullable",
        ));
    }
    Ok(array)
}

fn lists(scalar: ScalarType, lists: wit::ListsResult, rows: usize) -> Result<ArrayRef, Wrong> {
    let wit::ListsResult {
        length,
        validity,
        offsets,
        items,
    } = lists;
    check_length(length, rows)?;
    let nulls = nulls(validity, rows)?;
    let count = items.length as usize;
    let offsets = checked_offsets(offsets, rows, count)?;
    let items = flat(scalar, items, count).map_err(|Wrong { index, message }| Wrong {
        index: index.map(|item| {
            let begun = offsets.partition_point(|&offset| offset as usize <= item);
            begun.saturating_sub(1)
        }),
        message: format!("whose items are {message}"),
    })?;
    let at::DataType::List(item) = DataType::List(scalar).arrow() else {
        return Err(Wrong::all("of no list type"));
    };
    ListArray::try_new(item, offsets, items, nulls)
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|error| Wrong::all(format!("that is broken: {error}")))
}

fn flat(scalar: ScalarType, flat: wit::FlatResult, rows: usize) -> Result<ArrayRef, Wrong> {
    use wit::ValuesResult as V;

    let wit::FlatResult {
        length,
        validity,
        values,
    } = flat;
    check_length(length, rows)?;
    let nulls = nulls(validity, rows)?;
    match (scalar, values) {
        (ScalarType::Bool, V::Bools(bits)) => Ok(Arc::new(BooleanArray::new(
            bitmap(bits, rows, "values")?,
            nulls,
        ))),
        (ScalarType::Int32, V::Int32s(values)) => numbers::<at::Int32Type>(values, nulls, rows),
        (ScalarType::Int64, V::Int64s(values)) => numbers::<at::Int64Type>(values, nulls, rows),
        (ScalarType::Float32, V::Float32s(values)) => {
            numbers::<at::Float32Type>(values, nulls, rows)
        }
        (ScalarType::Float64, V::Float64s(values)) => {
            numbers::<at::Float64Type>(values, nulls, rows)
        }
        (ScalarType::Timestamp, V::Timestamps(values)) => timestamps(values, nulls, rows),
        (ScalarType::String, V::Strings(values)) => strings(values, nulls, rows),
        (ScalarType::Bytes, V::Bytes(values)) => {
            let (offsets, data) = variable_length(values, rows)?;
            Ok(Arc::new(BinaryArray::new(offsets, data.into(), nulls)))
        }
        (wanted, found) => {
            let found = match found {
                V::Bools(_) => ScalarType::Bool,
                V::Int32s(_) => ScalarType::Int32,
                V::Int64s(_) => ScalarType::Int64,
                V::Float32s(_) => ScalarType::Float32,
                V::Float64s(_) => ScalarType::Float64,
                V::Strings(_) => ScalarType::String,
                V::Bytes(_) => ScalarType::Bytes,
                V::Timestamps(_) => ScalarType::Timestamp,
            };
            Err(Wrong::all(format!("as {found}; it describes {wanted}")))
        }
    }
}

fn check_length(length: u32, rows: usize) -> Result<(), Wrong> {
    if length as usize == rows {
        Ok(())
    } else {
        Err(Wrong::all(format!("of {length} values instead of {rows}")))
    }
}

/// The nulls of a column; none where the bitmap is empty.
fn nulls(validity: Vec<u8>, rows: usize) -> Result<Option<NullBuffer>, Wrong> {
    if validity.is_empty() {
        return Ok(None);
    }
    let nulls = NullBuffer::new(bitmap(validity, rows, "validity")?);
    Ok((nulls.null_count() > 0).then_some(nulls))
}

fn bitmap(bytes: Vec<u8>, length: usize, what: &str) -> Result<BooleanBuffer, Wrong> {
    if bytes.len() != length.div_ceil(8) {
        return Err(Wrong::all(format!(
            "with a bitmap of {what} of {} bytes; {length} values have {}",
            bytes.len(),
            length.div_ceil(8)
        )));
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bytes), 0, length))
}

fn numbers<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> Result<ArrayRef, Wrong> {
    check_values(values.len(), rows)?;
    Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
}

fn check_values(values: usize, rows: usize) -> Result<(), Wrong> {
    if values == rows {
        Ok(())
    } else {
        Err(Wrong::all(format!("of {values} numbers instead of {rows}")))
    }
}

fn timestamps(values: Vec<i64>, nulls: Option<NullBuffer>, rows: usize) -> Result<ArrayRef, Wrong> {
    check_values(values.len(), rows)?;
    let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    if let Some((row, value)) = values
        .iter()
        .enumerate()
        .find(|&(row, &value)| valid(row) && time::check(value).is_err())
    {
        return Err(Wrong::at(
            row,
            format!("with the timestamp {value}, which lies outside of the years 1 to 9999"),
        ));
    }
    let array = PrimitiveArray::<at::TimestampMicrosecondType>::new(values.into(), nulls);
    Ok(Arc::new(array.with_timezone(UTC)))
}

fn strings(
    values: wit::VariableLengthResult,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> Result<ArrayRef, Wrong> {
    let (offsets, data) = variable_length(values, rows)?;
    let data = Buffer::from_vec(data);
    if let Ok(array) = StringArray::try_new(offsets.clone(), data.clone(), nulls.clone()) {
        return Ok(Arc::new(array));
    }
    // Not everything is UTF-8, but what lies under a null is of no meaning.
    let text = |row: usize| std::str::from_utf8(value(&offsets, &data, row));
    let mut texts = StringBuilder::with_capacity(rows, data.len());
    for row in 0..rows {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            texts.append_null();
            continue;
        }
        match text(row) {
            Ok(text) => texts.append_value(text),
            Err(error) => {
                return Err(Wrong::at(
                    row,
                    format!("with a text that is no UTF-8: {error}"),
                ));
            }
        }
    }
    Ok(Arc::new(texts.finish()))
}

fn value<'a>(offsets: &OffsetBuffer<i32>, data: &'a [u8], row: usize) -> &'a [u8] {
    &data[offsets[row] as usize..offsets[row + 1] as usize]
}

fn variable_length(
    values: wit::VariableLengthResult,
    rows: usize,
) -> Result<(OffsetBuffer<i32>, Vec<u8>), Wrong> {
    let wit::VariableLengthResult { offsets, data } = values;
    let offsets = checked_offsets(offsets, rows, data.len())?;
    Ok((offsets, data))
}

/// Offsets of `rows` values in a whole of `end`.
fn checked_offsets(offsets: Vec<u32>, rows: usize, end: usize) -> Result<OffsetBuffer<i32>, Wrong> {
    if offsets.len() != rows + 1 {
        return Err(Wrong::all(format!(
            "with {} offsets; {rows} values have {}",
            offsets.len(),
            rows + 1
        )));
    }
    let (first, last) = (offsets.first().copied(), offsets.last().copied());
    if first != Some(0) || last.map(|last| last as usize) != Some(end) {
        return Err(Wrong::all(format!(
            "with offsets from {} to {}; they must be from 0 to {end}",
            first.unwrap_or_default(),
            last.unwrap_or_default()
        )));
    }
    if let Some(row) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(Wrong::at(
            row,
            format!(
                "with an offset that falls from {} to {}",
                offsets[row],
                offsets[row + 1]
            ),
        ));
    }
    // The last is the greatest, so all others fit if it does.
    if i32::try_from(end).is_err() {
        return Err(Wrong::all(format!("of {end} bytes; at most 2^31 - 1")));
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(Buffer::from_vec(
        offsets,
    ))))
}
