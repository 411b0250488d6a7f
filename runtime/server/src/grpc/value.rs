//! Feast's values and columns: `feast.types.Value` to and from Arrow.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes as at;
use arrow::datatypes::{DataType as ArrowType, Field};
use unskew_core::types::{DataType, ScalarType, UTC};
use unskew_core::values::{ValueError, coerce};
use unskew_feast_proto::types as proto;
use unskew_feast_proto::types::Value;
use unskew_feast_proto::types::value::Val;

use crate::error::Problem;
use crate::feast::seconds;

/// A value of Feast's that is no list.
#[derive(Clone, Copy, Debug)]
enum Scalar<'a> {
    Null,
    Bool(bool),
    Int32(i32),
    Int64(i64),
    Float32(f32),
    Float64(f64),
    String(&'a str),
    Bytes(&'a [u8]),
    Seconds(i64),
}

impl Scalar<'_> {
    /// The type of which it is; `None` for null.
    fn scalar_type(self) -> Option<ScalarType> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(_) => ScalarType::Bool,
            Self::Int32(_) => ScalarType::Int32,
            Self::Int64(_) => ScalarType::Int64,
            Self::Float32(_) => ScalarType::Float32,
            Self::Float64(_) => ScalarType::Float64,
            Self::String(_) => ScalarType::String,
            Self::Bytes(_) => ScalarType::Bytes,
            Self::Seconds(_) => ScalarType::Timestamp,
        })
    }
}

/// Values as a column of type `wanted`, where nothing is lost: an `int64_val` is an int32 if it is
/// one.
///
/// # Errors
/// Names the first row whose value is none of the type.
pub(super) fn column(values: &[Value], wanted: DataType) -> Result<ArrayRef, ValueError> {
    let refused = |row: usize, value: &Val| ValueError {
        row,
        value: format!("a value of Feast's type {}", name(value)),
        wanted,
        hint: String::new(),
    };
    match wanted {
        DataType::Scalar(_) => {
            let scalars = values.iter().enumerate().map(|(row, value)| {
                let val = value.val.as_ref();
                val.map_or(Ok(Scalar::Null), |val| {
                    scalar(val).ok_or_else(|| refused(row, val))
                })
            });
            scalars_column(&scalars.collect::<Result<Vec<_>, _>>()?, wanted)
        }
        DataType::List(scalar) => {
            let (mut items, mut rows) = (Vec::new(), Vec::new());
            let (mut lengths, mut valid) = (Vec::new(), Vec::new());
            for (row, value) in values.iter().enumerate() {
                let before = items.len();
                let is_valid = match &value.val {
                    None | Some(Val::NullVal(_)) => false,
                    Some(val) => {
                        append_items(val, &mut items).ok_or_else(|| refused(row, val))?;
                        true
                    }
                };
                valid.push(is_valid);
                lengths.push(items.len() - before);
                rows.resize(items.len(), row);
            }
            let items = scalars_column(&items, DataType::Scalar(scalar)).map_err(|error| {
                let row = rows.get(error.row).copied().unwrap_or_default();
                ValueError {
                    row,
                    wanted,
                    ..error
                }
            })?;
            Ok(Arc::new(ListArray::new(
                Arc::new(Field::new("item", scalar.arrow(), true)),
                OffsetBuffer::from_lengths(lengths),
                items,
                valid.contains(&false).then(|| NullBuffer::from(valid)),
            )))
        }
    }
}

/// One row of these values, each of the type that it has.
///
/// # Errors
/// A value is of a type that no column has.
pub(super) fn row(values: &BTreeMap<String, Value>) -> Result<RecordBatch, Problem> {
    let column = |(name, value): (&String, &Value)| {
        let natural = natural(value);
        let column =
            column(std::slice::from_ref(value), natural).map_err(|source| Problem::Value {
                field: name.clone(),
                source,
            })?;
        Ok((name.clone(), column))
    };
    batch(values.iter().map(column).collect::<Result<_, Problem>>()?)
}

/// One row of these texts.
///
/// # Errors
/// There is none.
pub(super) fn row_of_texts(values: &BTreeMap<String, String>) -> Result<RecordBatch, Problem> {
    let column = |(name, value): (&String, &String)| {
        let column: ArrayRef = Arc::new(StringArray::from(vec![value.as_str()]));
        (name.clone(), column)
    };
    batch(values.iter().map(column).collect())
}

fn batch(columns: Vec<(String, ArrayRef)>) -> Result<RecordBatch, Problem> {
    RecordBatch::try_from_iter(columns).map_err(|_| Problem::Missing {
        field: "features".to_owned(),
        what: "for each column of the row its value".to_owned(),
    })
}

/// The type that a value has by itself.
fn natural(value: &Value) -> DataType {
    let Some(val) = &value.val else {
        return DataType::Scalar(ScalarType::String);
    };
    if let Some(scalar) = scalar(val) {
        return DataType::Scalar(scalar.scalar_type().unwrap_or(ScalarType::String));
    }
    let mut items = Vec::new();
    // What is no list either is refused by who reads it as one.
    let _ = append_items(val, &mut items);
    let known = items.iter().find_map(|item| item.scalar_type());
    DataType::List(known.unwrap_or(ScalarType::String))
}

fn scalar(val: &Val) -> Option<Scalar<'_>> {
    Some(match val {
        Val::NullVal(_) => Scalar::Null,
        Val::BoolVal(value) => Scalar::Bool(*value),
        Val::Int32Val(value) => Scalar::Int32(*value),
        Val::Int64Val(value) => Scalar::Int64(*value),
        Val::FloatVal(value) => Scalar::Float32(*value),
        Val::DoubleVal(value) => Scalar::Float64(*value),
        Val::StringVal(value) => Scalar::String(value),
        Val::BytesVal(value) => Scalar::Bytes(value),
        Val::UnixTimestampVal(value) => Scalar::Seconds(*value),
        _ => return None,
    })
}

/// Appends the items of a list; `None` if it is none.
fn append_items<'a>(val: &'a Val, items: &mut Vec<Scalar<'a>>) -> Option<()> {
    match val {
        Val::BoolListVal(list) => items.extend(list.val.iter().copied().map(Scalar::Bool)),
        Val::Int32ListVal(list) => items.extend(list.val.iter().copied().map(Scalar::Int32)),
        Val::Int64ListVal(list) => items.extend(list.val.iter().copied().map(Scalar::Int64)),
        Val::FloatListVal(list) => items.extend(list.val.iter().copied().map(Scalar::Float32)),
        Val::DoubleListVal(list) => items.extend(list.val.iter().copied().map(Scalar::Float64)),
        Val::StringListVal(list) => items.extend(list.val.iter().map(|v| Scalar::String(v))),
        Val::BytesListVal(list) => items.extend(list.val.iter().map(|v| Scalar::Bytes(v))),
        Val::UnixTimestampListVal(list) => {
            items.extend(list.val.iter().copied().map(Scalar::Seconds));
        }
        Val::ListVal(list) => {
            for item in &list.val {
                items.push(item.val.as_ref().map_or(Some(Scalar::Null), scalar)?);
            }
        }
        _ => return None,
    }
    Some(())
}

/// The column of these values, all of one type of Feast's.
fn scalars_column(scalars: &[Scalar<'_>], wanted: DataType) -> Result<ArrayRef, ValueError> {
    let Some(first) = scalars.iter().find_map(|scalar| scalar.scalar_type()) else {
        return Ok(new_null_array(&wanted.arrow(), scalars.len()));
    };
    let mixed = |scalar: &Scalar<'_>| scalar.scalar_type().is_some_and(|other| other != first);
    if let Some(row) = scalars.iter().position(mixed) {
        return Err(ValueError {
            row,
            value: format!("{:?}", scalars[row]),
            wanted,
            hint: format!(
                "; the values before it are of type {first}, and one column has one type"
            ),
        });
    }
    macro_rules! array {
        ($array:ty, $variant:ident) => {
            Arc::new(
                scalars
                    .iter()
                    .map(|scalar| match scalar {
                        Scalar::$variant(value) => Some(*value),
                        _ => None,
                    })
                    .collect::<$array>(),
            )
        };
    }
    let array: ArrayRef = match first {
        ScalarType::Bool => array!(BooleanArray, Bool),
        ScalarType::Int32 => array!(Int32Array, Int32),
        ScalarType::Int64 => array!(Int64Array, Int64),
        ScalarType::Float32 => array!(Float32Array, Float32),
        ScalarType::Float64 => array!(Float64Array, Float64),
        ScalarType::String => array!(StringArray, String),
        ScalarType::Bytes => array!(BinaryArray, Bytes),
        ScalarType::Timestamp => {
            let micros = |scalar: &Scalar<'_>| match scalar {
                // Too far away is out of time, of which `coerce` has the bounds.
                Scalar::Seconds(value) => Some(value.saturating_mul(1_000_000)),
                _ => None,
            };
            let instants: TimestampMicrosecondArray = scalars.iter().map(micros).collect();
            Arc::new(instants.with_timezone(UTC))
        }
    };
    coerce(&array, wanted)
}

/// The name of a value's type, for a message.
fn name(val: &Val) -> &'static str {
    match val {
        Val::BytesVal(_) => "bytes_val",
        Val::StringVal(_) => "string_val",
        Val::Int32Val(_) => "int32_val",
        Val::Int64Val(_) => "int64_val",
        Val::DoubleVal(_) => "double_val",
        Val::FloatVal(_) => "float_val",
        Val::BoolVal(_) => "bool_val",
        Val::UnixTimestampVal(_) => "unix_timestamp_val",
        Val::NullVal(_) => "null_val",
        Val::JsonVal(_) => "json_val",
        Val::UuidVal(_) | Val::TimeUuidVal(_) => "uuid_val",
        Val::DecimalVal(_) => "decimal_val",
        Val::MapVal(_) | Val::StructVal(_) | Val::ScalarMapVal(_) => "map_val",
        Val::ZonedTimestampVal(_) => "zoned_timestamp_val",
        Val::ListVal(_)
        | Val::BytesListVal(_)
        | Val::StringListVal(_)
        | Val::Int32ListVal(_)
        | Val::Int64ListVal(_)
        | Val::DoubleListVal(_)
        | Val::FloatListVal(_)
        | Val::BoolListVal(_)
        | Val::UnixTimestampListVal(_) => "a list",
        _ => "a set or a list of such values",
    }
}

/// A column as values; a null is a value of which nothing is set. A list of which an item is null is
/// a `list_val`, since Feast's typed lists hold no nulls.
///
/// # Errors
/// The column is of none of the contract's types.
pub(super) fn values(column: &ArrayRef) -> Result<Vec<Value>, Problem> {
    let Some(lists) = column.as_list_opt::<i32>() else {
        return scalar_values(column);
    };
    let of_list = |row: usize| {
        if lists.is_null(row) {
            return Ok(Value { val: None });
        }
        let items = lists.value(row);
        let val = if items.null_count() > 0 {
            Val::ListVal(proto::RepeatedValue {
                val: scalar_values(&items)?,
            })
        } else {
            typed_list(&items)?
        };
        Ok(Value { val: Some(val) })
    };
    (0..lists.len()).map(of_list).collect()
}

fn scalar_values(column: &ArrayRef) -> Result<Vec<Value>, Problem> {
    fn each<T>(values: impl Iterator<Item = Option<T>>, val: impl Fn(T) -> Val) -> Vec<Value> {
        let value = |value: Option<T>| Value {
            val: value.map(&val),
        };
        values.map(value).collect()
    }
    Ok(match column.data_type() {
        ArrowType::Boolean => each(column.as_boolean().iter(), Val::BoolVal),
        ArrowType::Int32 => each(column.as_primitive::<at::Int32Type>().iter(), Val::Int32Val),
        ArrowType::Int64 => each(column.as_primitive::<at::Int64Type>().iter(), Val::Int64Val),
        ArrowType::Float32 => each(
            column.as_primitive::<at::Float32Type>().iter(),
            Val::FloatVal,
        ),
        ArrowType::Float64 => each(
            column.as_primitive::<at::Float64Type>().iter(),
            Val::DoubleVal,
        ),
        ArrowType::Utf8 => each(column.as_string::<i32>().iter(), |text| {
            Val::StringVal(text.to_owned())
        }),
        ArrowType::Binary => each(column.as_binary::<i32>().iter(), |bytes| {
            Val::BytesVal(bytes.to_vec())
        }),
        ArrowType::Timestamp(..) => each(
            seconds(column).as_primitive::<at::Int64Type>().iter(),
            Val::UnixTimestampVal,
        ),
        other => return Err(no_type(other)),
    })
}

/// The list of items of which none is null.
fn typed_list(items: &ArrayRef) -> Result<Val, Problem> {
    Ok(match items.data_type() {
        ArrowType::Boolean => Val::BoolListVal(proto::BoolList {
            val: items.as_boolean().iter().flatten().collect(),
        }),
        ArrowType::Int32 => Val::Int32ListVal(proto::Int32List {
            val: items.as_primitive::<at::Int32Type>().values().to_vec(),
        }),
        ArrowType::Int64 => Val::Int64ListVal(proto::Int64List {
            val: items.as_primitive::<at::Int64Type>().values().to_vec(),
        }),
        ArrowType::Float32 => Val::FloatListVal(proto::FloatList {
            val: items.as_primitive::<at::Float32Type>().values().to_vec(),
        }),
        ArrowType::Float64 => Val::DoubleListVal(proto::DoubleList {
            val: items.as_primitive::<at::Float64Type>().values().to_vec(),
        }),
        ArrowType::Utf8 => Val::StringListVal(proto::StringList {
            val: items
                .as_string::<i32>()
                .iter()
                .flatten()
                .map(str::to_owned)
                .collect(),
        }),
        ArrowType::Binary => Val::BytesListVal(proto::BytesList {
            val: items
                .as_binary::<i32>()
                .iter()
                .flatten()
                .map(<[u8]>::to_vec)
                .collect(),
        }),
        ArrowType::Timestamp(..) => Val::UnixTimestampListVal(proto::Int64List {
            val: seconds(items)
                .as_primitive::<at::Int64Type>()
                .values()
                .to_vec(),
        }),
        other => return Err(no_type(other)),
    })
}

fn no_type(found: &ArrowType) -> Problem {
    Problem::Internal(format!("{found} is no type of the contract"))
}
