//! Coercion: a widening that loses nothing is done, anything else is an error that names row and
//! value. The same for Parquet, CSV, JSON and pushes.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes as at;
use arrow::datatypes::{DataType as ArrowType, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::builder::Builder;
use crate::json;
use crate::time;
use crate::types::{DataType, ScalarType, UTC, list_item};

/// A value that is none of the wanted type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {value} is no {wanted}{hint}")]
pub struct ValueError {
    /// The row, counted from 0.
    pub row: usize,
    /// The value, cut if it is long.
    pub value: String,
    /// What was wanted.
    pub wanted: DataType,
    /// What would be valid, for a person; may be empty.
    pub hint: String,
}

impl ValueError {
    pub(crate) fn new(row: usize, value: impl Display, wanted: DataType) -> Self {
        const LONGEST: usize = 80;
        let mut value = value.to_string();
        if value.chars().count() > LONGEST {
            value = value.chars().take(LONGEST).chain(['…']).collect();
        }
        let hint = match wanted {
            DataType::List(_) => "; a list is written like [1, null], in the form of JSON",
            DataType::Scalar(scalar) => match scalar {
                ScalarType::Timestamp => {
                    "; an instant is written like 2001-03-01T12:00:00Z, in the years 1 to 9999"
                }
                ScalarType::Bytes => "; bytes are written in base64",
                ScalarType::Int32 | ScalarType::Int64 => {
                    "; only a whole number within its range is taken, since nothing may be lost"
                }
                ScalarType::Float32 | ScalarType::Float64 => {
                    "; only a number that it holds exactly is taken, since nothing may be lost"
                }
                ScalarType::Bool => "; a bool is written true or false",
                ScalarType::String => "",
            },
        };
        Self {
            row,
            value,
            wanted,
            hint: hint.to_owned(),
        }
    }

    fn of(array: &dyn Array, row: usize, wanted: DataType) -> Self {
        let show = |array: &dyn Array| {
            let formatter = ArrayFormatter::try_new(array, &FormatOptions::default())?;
            formatter.value(row).try_to_string()
        };
        // An instant that has no date is shown as the number that it is.
        let number = || cast(array, &ArrowType::Int64).and_then(|numbers| show(&numbers));
        let shown = show(array)
            .or_else(|_| number())
            .unwrap_or_else(|_| "a value".to_owned());
        Self::new(row, format_args!("{shown} ({})", array.data_type()), wanted)
    }
}

/// `array` as a column of type `wanted`; the same array where it is one already.
///
/// # Errors
/// Names the first row whose value `wanted` cannot hold without loss, and the value.
pub fn coerce(array: &ArrayRef, wanted: DataType) -> Result<ArrayRef, ValueError> {
    match wanted {
        DataType::Scalar(scalar) => coerce_scalars(array, scalar),
        DataType::List(scalar) => coerce_lists(array, scalar),
    }
}

fn coerce_lists(array: &ArrayRef, scalar: ScalarType) -> Result<ArrayRef, ValueError> {
    let wanted = DataType::List(scalar);
    let plain = plain(array, wanted)?;
    let as_list = ArrowType::List(match plain.data_type() {
        ArrowType::List(item)
        | ArrowType::LargeList(item)
        | ArrowType::FixedSizeList(item, _)
        | ArrowType::ListView(item)
        | ArrowType::LargeListView(item) => Arc::clone(item),
        _ => return refuse_all(&plain, wanted),
    });
    let lists = without_hidden_items(converted(&plain, &as_list, wanted)?, wanted)?;
    let lists: &ListArray = lists.as_list();
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0], offsets[lists.len()]);
    let items = lists
        .values()
        .slice(first as usize, (last - first) as usize);
    let items = coerce_scalars(&items, scalar).map_err(|error| {
        let item = first.saturating_add(i32::try_from(error.row).unwrap_or(i32::MAX));
        let row = offsets.partition_point(|&offset| offset <= item) - 1;
        ValueError { row, ..error }
    })?;
    Ok(Arc::new(ListArray::new(
        Arc::new(list_item(scalar)),
        OffsetBuffer::new(offsets.iter().map(|offset| offset - first).collect()),
        items,
        lists.nulls().cloned(),
    )))
}

/// The same lists, where a null has no items: those are not values, and may be anything.
fn without_hidden_items(lists: ArrayRef, wanted: DataType) -> Result<ArrayRef, ValueError> {
    let array: &ListArray = lists.as_list();
    if !(0..array.len()).any(|row| array.is_null(row) && array.value_length(row) > 0) {
        return Ok(lists);
    }
    let rows: UInt64Array = (0..array.len() as u64)
        .zip(0..array.len())
        .map(|(index, row)| array.is_valid(row).then_some(index))
        .collect();
    take(array, &rows, None).map_err(|error| ValueError::new(0, error, wanted))
}

fn coerce_scalars(array: &ArrayRef, scalar: ScalarType) -> Result<ArrayRef, ValueError> {
    let wanted = DataType::Scalar(scalar);
    let plain = plain(array, wanted)?;
    match scalar {
        ScalarType::Bool => match plain.data_type() {
            ArrowType::Boolean => Ok(plain),
            _ => refuse_all(&plain, wanted),
        },
        ScalarType::String => match plain.data_type() {
            ArrowType::Utf8 => Ok(plain),
            ArrowType::LargeUtf8 | ArrowType::Utf8View => {
                converted(&plain, &ArrowType::Utf8, wanted)
            }
            _ => refuse_all(&plain, wanted),
        },
        ScalarType::Bytes => match plain.data_type() {
            ArrowType::Binary => Ok(plain),
            ArrowType::LargeBinary | ArrowType::BinaryView | ArrowType::FixedSizeBinary(_) => {
                converted(&plain, &ArrowType::Binary, wanted)
            }
            _ => refuse_all(&plain, wanted),
        },
        ScalarType::Timestamp => timestamps(&plain),
        ScalarType::Int32 => numbers::<at::Int32Type>(&plain, wanted),
        ScalarType::Int64 => numbers::<at::Int64Type>(&plain, wanted),
        ScalarType::Float32 => numbers::<at::Float32Type>(&plain, wanted),
        ScalarType::Float64 => numbers::<at::Float64Type>(&plain, wanted),
    }
}

/// The array without a dictionary or runs.
fn plain(array: &ArrayRef, wanted: DataType) -> Result<ArrayRef, ValueError> {
    match array.data_type() {
        ArrowType::Dictionary(_, value) => converted(array, value, wanted),
        ArrowType::RunEndEncoded(_, value) => converted(array, value.data_type(), wanted),
        _ => Ok(Arc::clone(array)),
    }
}

/// A conversion that arrow does without loss, or not at all (a string array over 2 GiB).
fn converted(array: &ArrayRef, to: &ArrowType, wanted: DataType) -> Result<ArrayRef, ValueError> {
    // Of views arrow builds the array value by value, and panics where it is too long.
    let length: u64 = match array.data_type() {
        ArrowType::Utf8View => array.as_string_view().lengths().map(u64::from).sum(),
        ArrowType::BinaryView => array.as_binary_view().lengths().map(u64::from).sum(),
        _ => 0,
    };
    if i32::try_from(length).is_err() {
        let message = format_args!("a column of {length} bytes, more than 2^31,");
        return Err(ValueError::new(0, message, wanted));
    }
    cast(array, to).map_err(|error: ArrowError| ValueError::new(0, error, wanted))
}

/// The error of the first value; nulls alone are fine in any type.
fn refuse_all(array: &ArrayRef, wanted: DataType) -> Result<ArrayRef, ValueError> {
    let nulls = array.logical_nulls();
    let is_valid = |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    match (0..array.len()).find(|&row| is_valid(row)) {
        None => Ok(arrow::array::new_null_array(&wanted.arrow(), array.len())),
        Some(row) => Err(ValueError::of(array, row, wanted)),
    }
}

fn timestamps(array: &ArrayRef) -> Result<ArrayRef, ValueError> {
    let wanted = DataType::Scalar(ScalarType::Timestamp);
    let micros: TimestampMicrosecondArray = match array.data_type() {
        ArrowType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive::<at::TimestampMicrosecondType>().clone()
        }
        ArrowType::Timestamp(TimeUnit::Second, _) => {
            each::<at::TimestampSecondType, _>(array, wanted, |v| v.checked_mul(1_000_000))?
        }
        ArrowType::Timestamp(TimeUnit::Millisecond, _) => {
            each::<at::TimestampMillisecondType, _>(array, wanted, |v| v.checked_mul(1_000))?
        }
        ArrowType::Timestamp(TimeUnit::Nanosecond, _) => {
            each::<at::TimestampNanosecondType, _>(array, wanted, |v| Some(v.div_euclid(1_000)))?
        }
        ArrowType::Date32 => {
            each::<at::Date32Type, _>(array, wanted, |v| i64::from(v).checked_mul(time::DAY))?
        }
        ArrowType::Date64 => each::<at::Date64Type, _>(array, wanted, |v| v.checked_mul(1_000))?,
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => {
            return from_text(
                converted(array, &ArrowType::Utf8, wanted)?.as_string(),
                wanted,
            );
        }
        _ => return refuse_all(array, wanted),
    };
    match (0..micros.len()).find(|&r| micros.is_valid(r) && time::check(micros.value(r)).is_err()) {
        Some(row) => Err(ValueError::new(
            row,
            format_args!("{} microseconds since 1970", micros.value(row)),
            wanted,
        )),
        None => Ok(Arc::new(micros.with_timezone(UTC))),
    }
}

/// `convert` on each value that is not null.
fn each<F: ArrowPrimitiveType, T: ArrowPrimitiveType>(
    array: &ArrayRef,
    wanted: DataType,
    convert: impl Fn(F::Native) -> Option<T::Native>,
) -> Result<PrimitiveArray<T>, ValueError> {
    let values = array.as_primitive::<F>();
    let mut converted = Vec::with_capacity(values.len());
    for (row, &value) in values.values().iter().enumerate() {
        converted.push(match convert(value) {
            Some(value) => value,
            None if array.is_null(row) => T::Native::default(),
            None => return Err(ValueError::of(array, row, wanted)),
        });
    }
    Ok(PrimitiveArray::new(
        converted.into(),
        array.nulls().cloned(),
    ))
}

/// A number type that takes what it can hold exactly.
trait Exact: ArrowPrimitiveType {
    fn of_integer(value: i128) -> Option<Self::Native>;
    fn of_float(value: f64) -> Option<Self::Native>;
}

impl Exact for at::Int32Type {
    fn of_integer(value: i128) -> Option<i32> {
        i32::try_from(value).ok()
    }
    fn of_float(value: f64) -> Option<i32> {
        whole(value).and_then(|v| i32::try_from(v).ok())
    }
}

impl Exact for at::Int64Type {
    fn of_integer(value: i128) -> Option<i64> {
        i64::try_from(value).ok()
    }
    fn of_float(value: f64) -> Option<i64> {
        whole(value).and_then(|v| i64::try_from(v).ok())
    }
}

impl Exact for at::Float32Type {
    fn of_integer(value: i128) -> Option<f32> {
        let float = value as f32;
        (float as i128 == value).then_some(float)
    }
    fn of_float(value: f64) -> Option<f32> {
        let float = value as f32;
        (value.is_nan() || f64::from(float) == value).then_some(float)
    }
}

impl Exact for at::Float64Type {
    fn of_integer(value: i128) -> Option<f64> {
        let float = value as f64;
        (float as i128 == value).then_some(float)
    }
    fn of_float(value: f64) -> Option<f64> {
        Some(value)
    }
}

/// The whole number that a float is; −0.0 is none, for its sign would be lost.
pub(crate) fn whole(value: f64) -> Option<i128> {
    const BEYOND: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0;
    let negative_zero = value == 0.0 && value.is_sign_negative();
    (value.fract() == 0.0 && value.abs() < BEYOND && !negative_zero).then_some(value as i128)
}

fn numbers<T: Exact>(array: &ArrayRef, wanted: DataType) -> Result<ArrayRef, ValueError> {
    if array.data_type() == &wanted.arrow() {
        return Ok(Arc::clone(array));
    }
    let integer = |v: i128| T::of_integer(v);
    let numbers: PrimitiveArray<T> = match array.data_type() {
        ArrowType::Int8 => each::<at::Int8Type, _>(array, wanted, |v| integer(v.into()))?,
        ArrowType::Int16 => each::<at::Int16Type, _>(array, wanted, |v| integer(v.into()))?,
        ArrowType::Int32 => each::<at::Int32Type, _>(array, wanted, |v| integer(v.into()))?,
        ArrowType::Int64 => each::<at::Int64Type, _>(array, wanted, |v| integer(v.into()))?,
        ArrowType::UInt8 => each::<at::UInt8Type, _>(array, wanted, |v| integer(v.into()))?,
        ArrowType::UInt16 => each::<at::UInt16Type, _>(array, wanted, |v| integer(v.into()))?,
        ArrowType::UInt32 => each::<at::UInt32Type, _>(array, wanted, |v| integer(v.into()))?,
        ArrowType::UInt64 => each::<at::UInt64Type, _>(array, wanted, |v| integer(v.into()))?,
        ArrowType::Float16 => {
            each::<at::Float16Type, _>(array, wanted, |v| T::of_float(v.to_f64()))?
        }
        ArrowType::Float32 => each::<at::Float32Type, _>(array, wanted, |v| T::of_float(v.into()))?,
        ArrowType::Float64 => each::<at::Float64Type, _>(array, wanted, T::of_float)?,
        _ => return refuse_all(array, wanted),
    };
    Ok(Arc::new(numbers))
}

/// Reads each text as a value: how CSV files and command lines hold them. Lists are JSON.
///
/// # Errors
/// Names the first row whose text is no such value.
pub fn from_text(texts: &StringArray, wanted: DataType) -> Result<ArrayRef, ValueError> {
    let mut builder = Builder::new(wanted, texts.len());
    for (row, text) in texts.iter().enumerate() {
        match text {
            None => builder.null(),
            Some(text) => {
                json::append_text(&mut builder, text, wanted)
                    .ok_or_else(|| ValueError::new(row, format_args!("`{text}`"), wanted))?;
            }
        }
    }
    Ok(builder.finish())
}
