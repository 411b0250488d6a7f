//! Arrow columns on their way into a component.
//!
//! A buffer that is already as the contract wants it is passed as it is, and wasmtime copies it
//! once into the instance. What would let a component see more than the rows is done away with:
//! slices are rebased, what lies under a null becomes zero or empty, the bits after a bitmap's end
//! become 0, and NaNs get one form. So equal rows are equal bytes, wherever they came from.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes as at;
use arrow::datatypes::DataType as ArrowType;
use unskew_core::types::{DataType, Field, ScalarType};

use crate::bindings::exports::unskew::transform::transformation as wit;
use crate::canonical;
use crate::error::CallError;

/// Columns in the layout of the contract.
pub(crate) struct Lowered {
    rows: u32,
    columns: Vec<Column>,
}

enum Column {
    Flat(Flat),
    Lists {
        length: u32,
        validity: Validity,
        offsets: ScalarBuffer<u32>,
        items: Flat,
    },
}

struct Flat {
    length: u32,
    validity: Validity,
    values: Values,
}

/// `None` where nothing is null; an empty buffer would be an allocation for each column.
type Validity = Option<Buffer>;

enum Values {
    Bools(Buffer),
    Int32s(ScalarBuffer<i32>),
    Int64s(ScalarBuffer<i64>),
    Float32s(ScalarBuffer<f32>),
    Float64s(ScalarBuffer<f64>),
    Strings(VariableLength),
    Bytes(VariableLength),
    Timestamps(ScalarBuffer<i64>),
}

struct VariableLength {
    offsets: ScalarBuffer<u32>,
    data: Buffer,
}

/// The columns of a call.
///
/// # Errors
/// They are not those of `inputs`.
pub(crate) fn batch(
    inputs: &[Field],
    columns: &[ArrayRef],
    rows: usize,
) -> Result<Lowered, CallError> {
    let rows_given = u32::try_from(rows)
        .map_err(|_| CallError::input(format!("{rows} rows; at most {}", u32::MAX)))?;
    if columns.len() != inputs.len() {
        return Err(CallError::input(format!(
            "{} columns were given; it takes {}",
            columns.len(),
            inputs.len()
        )));
    }
    // A loop, since to collect results does not know how many there will be, and moves them.
    let mut lowered = Vec::with_capacity(inputs.len());
    for (field, array) in inputs.iter().zip(columns) {
        check(field, array, rows)
            .map_err(|message| CallError::input(format!("column `{}` {message}", field.name)))?;
        let column = column(field, array)
            .map_err(|message| CallError::input(format!("column `{}`: {message}", field.name)))?;
        lowered.push(column);
    }
    Ok(Lowered {
        rows: rows_given,
        columns: lowered,
    })
}

fn check(field: &Field, array: &ArrayRef, rows: usize) -> Result<(), String> {
    let found = array.data_type();
    let same = match (field.data_type, found) {
        // The name and nullability of the child are of no meaning.
        (DataType::List(scalar), ArrowType::List(item)) => item.data_type() == &scalar.arrow(),
        (wanted, found) => found == &wanted.arrow(),
    };
    if !same {
        return Err(format!("is {found}; it must be {}", field.data_type));
    }
    if array.len() != rows {
        return Err(format!("has {} rows of {rows}", array.len()));
    }
    if !field.nullable && array.null_count() > 0 {
        return Err("has nulls, and is not nullable".to_owned());
    }
    Ok(())
}

fn column(field: &Field, array: &ArrayRef) -> Result<Column, String> {
    match field.data_type {
        DataType::Scalar(scalar) => flat(array, scalar).map(Column::Flat),
        DataType::List(scalar) => {
            let lists = array.as_list::<i32>();
            let nulls = some_nulls(lists.nulls());
            let (items, offsets) = match full_null(lists.offsets(), nulls) {
                false => {
                    let (first, last) = ends(lists.offsets());
                    let items = lists.values().slice(first, last - first);
                    (items, rebased(lists.offsets()))
                }
                true => {
                    let mut indices = Vec::with_capacity(lists.values().len());
                    let offsets = without_nulls(lists.offsets(), nulls, |range| {
                        indices.extend(range.map(|item| item as u32));
                    });
                    let items = take(lists.values(), &UInt32Array::from(indices), None)
                        .map_err(|error| error.to_string())?;
                    (items, offsets)
                }
            };
            Ok(Column::Lists {
                length: length(lists.len())?,
                validity: validity(nulls),
                offsets,
                items: flat(&items, scalar)?,
            })
        }
    }
}

fn flat(array: &ArrayRef, scalar: ScalarType) -> Result<Flat, String> {
    let nulls = some_nulls(array.nulls());
    let values = match scalar {
        ScalarType::Bool => {
            let bools = array.as_boolean().values();
            Values::Bools(match nulls {
                None => bitmap(bools),
                Some(nulls) => bitmap(&(bools & nulls.inner())),
            })
        }
        ScalarType::Int32 => Values::Int32s(numbers::<at::Int32Type>(array)),
        ScalarType::Int64 => Values::Int64s(numbers::<at::Int64Type>(array)),
        ScalarType::Float32 => {
            let values = numbers::<at::Float32Type>(array);
            Values::Float32s(canonical::floats_32(&values).unwrap_or(values))
        }
        ScalarType::Float64 => {
            let values = numbers::<at::Float64Type>(array);
            Values::Float64s(canonical::floats_64(&values).unwrap_or(values))
        }
        ScalarType::Timestamp => Values::Timestamps(numbers::<at::TimestampMicrosecondType>(array)),
        ScalarType::String => {
            let array = array.as_string::<i32>();
            Values::Strings(variable_length(array.offsets(), array.values(), nulls))
        }
        ScalarType::Bytes => {
            let array = array.as_binary::<i32>();
            Values::Bytes(variable_length(array.offsets(), array.values(), nulls))
        }
    };
    Ok(Flat {
        length: length(array.len())?,
        validity: validity(nulls),
        values,
    })
}

fn length(length: usize) -> Result<u32, String> {
    u32::try_from(length).map_err(|_| format!("{length} values; at most {}", u32::MAX))
}

fn some_nulls(nulls: Option<&NullBuffer>) -> Option<&NullBuffer> {
    nulls.filter(|nulls| nulls.null_count() > 0)
}

fn validity(nulls: Option<&NullBuffer>) -> Validity {
    nulls.map(|nulls| bitmap(nulls.inner()))
}

/// The bitmap of the contract, which is empty where nothing is null.
fn bits(validity: &Validity) -> &[u8] {
    validity.as_deref().unwrap_or_default()
}

/// A bitmap that begins at bit 0 and whose last byte ends in zeros.
fn bitmap(bits: &BooleanBuffer) -> Buffer {
    let buffer = bits.sliced();
    let bytes = &buffer[..bits.len().div_ceil(8)];
    let rest = bits.len() % 8;
    match bytes.split_last() {
        Some((&last, others)) if rest > 0 && last >> rest != 0 => {
            let mut copy = Vec::with_capacity(bytes.len());
            copy.extend_from_slice(others);
            copy.push(last & ((1 << rest) - 1));
            Buffer::from_vec(copy)
        }
        _ => buffer.slice_with_length(0, bytes.len()),
    }
}

/// The numbers of a column, 0 where it is null.
fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> ScalarBuffer<T::Native> {
    let array: &PrimitiveArray<T> = array.as_primitive();
    match some_nulls(array.nulls()) {
        None => array.values().clone(),
        Some(nulls) => array
            .values()
            .iter()
            .zip(nulls)
            .map(|(&value, valid)| if valid { value } else { T::Native::default() })
            .collect(),
    }
}

fn variable_length(
    offsets: &OffsetBuffer<i32>,
    data: &Buffer,
    nulls: Option<&NullBuffer>,
) -> VariableLength {
    if full_null(offsets, nulls) {
        let mut kept = Vec::with_capacity(data.len());
        let offsets = without_nulls(offsets, nulls, |range| {
            kept.extend_from_slice(&data[range]);
        });
        return VariableLength {
            offsets,
            data: Buffer::from_vec(kept),
        };
    }
    let (first, last) = ends(offsets);
    VariableLength {
        offsets: rebased(offsets),
        data: data.slice_with_length(first, last - first),
    }
}

/// Where the first value begins and the last one ends.
fn ends(offsets: &OffsetBuffer<i32>) -> (usize, usize) {
    let first = offsets.first().copied().unwrap_or_default();
    let last = offsets.last().copied().unwrap_or_default();
    (first as usize, last as usize)
}

/// The offsets, from 0. Offsets are never negative, so that as unsigned words they are the same.
fn rebased(offsets: &OffsetBuffer<i32>) -> ScalarBuffer<u32> {
    match offsets.first() {
        None | Some(0) => ScalarBuffer::from(offsets.inner().inner().clone()),
        Some(first) => offsets
            .iter()
            .map(|offset| (offset - first) as u32)
            .collect(),
    }
}

/// Whether something lies under a null.
fn full_null(offsets: &OffsetBuffer<i32>, nulls: Option<&NullBuffer>) -> bool {
    nulls.is_some_and(|nulls| {
        nulls
            .iter()
            .zip(offsets.windows(2))
            .any(|(valid, ends)| !valid && ends[0] != ends[1])
    })
}

/// The offsets of values that are empty where they are null; `keep` is told each range to keep.
fn without_nulls(
    offsets: &OffsetBuffer<i32>,
    nulls: Option<&NullBuffer>,
    mut keep: impl FnMut(std::ops::Range<usize>),
) -> ScalarBuffer<u32> {
    let mut rebased = Vec::with_capacity(offsets.len());
    let mut at = 0;
    rebased.push(at);
    for (row, ends) in offsets.windows(2).enumerate() {
        if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
            keep(ends[0] as usize..ends[1] as usize);
            at += (ends[1] - ends[0]) as u32;
        }
        rebased.push(at);
    }
    ScalarBuffer::from(rebased)
}

impl Lowered {
    /// The columns as the bindings take them.
    pub(crate) fn params(&self) -> Vec<wit::ColumnParam<'_>> {
        self.columns
            .iter()
            .map(|column| match column {
                Column::Flat(flat) => wit::ColumnParam::Flat(flat.param()),
                Column::Lists {
                    length,
                    validity,
                    offsets,
                    items,
                } => wit::ColumnParam::Lists(wit::ListsParam {
                    length: *length,
                    validity: bits(validity),
                    offsets,
                    items: items.param(),
                }),
            })
            .collect()
    }

    /// The batch of these columns.
    pub(crate) fn batch<'a>(&self, params: &'a [wit::ColumnParam<'a>]) -> wit::Batch<'a> {
        wit::Batch {
            rows: self.rows,
            columns: params,
        }
    }
}

impl Flat {
    fn param(&self) -> wit::FlatParam<'_> {
        wit::FlatParam {
            length: self.length,
            validity: bits(&self.validity),
            values: match &self.values {
                Values::Bools(values) => wit::ValuesParam::Bools(values),
                Values::Int32s(values) => wit::ValuesParam::Int32s(values),
                Values::Int64s(values) => wit::ValuesParam::Int64s(values),
                Values::Float32s(values) => wit::ValuesParam::Float32s(values),
                Values::Float64s(values) => wit::ValuesParam::Float64s(values),
                Values::Strings(values) => wit::ValuesParam::Strings(values.param()),
                Values::Bytes(values) => wit::ValuesParam::Bytes(values.param()),
                Values::Timestamps(values) => wit::ValuesParam::Timestamps(values),
            },
        }
    }
}

impl VariableLength {
    fn param(&self) -> wit::VariableLengthParam<'_> {
        wit::VariableLengthParam {
            offsets: &self.offsets,
            data: &self.data,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Float64Array, Int64Array, Int64Builder, ListArray, ListBuilder, StringArray,
    };
    use arrow::buffer::NullBuffer;

    use super::*;

    fn lowered(data_type: DataType, array: ArrayRef) -> Lowered {
        let rows = array.len();
        batch(&[Field::new("a", data_type)], &[array], rows).unwrap()
    }

    /// What the component sees, as text.
    fn seen(lowered: &Lowered) -> String {
        format!("{:?}", lowered.params())
    }

    fn assert_same(data_type: DataType, left: ArrayRef, right: ArrayRef) {
        assert_eq!(
            seen(&lowered(data_type, left)),
            seen(&lowered(data_type, right))
        );
    }

    #[test]
    fn a_slice_is_seen_as_the_rows_that_it_has() {
        let strings: Vec<_> = (0..40)
            .map(|i| (i % 7 != 0).then(|| "é".repeat(i)))
            .collect();
        let bools: Vec<_> = (0..40)
            .map(|i| (i % 5 != 0).then_some(i % 3 == 0))
            .collect();
        let ints: Vec<_> = (0..40).map(|i| (i % 5 != 0).then_some(i)).collect();
        for (start, length) in [(0, 40), (0, 3), (3, 0), (3, 13), (8, 16), (9, 31), (39, 1)] {
            let part = start..start + length;
            assert_same(
                DataType::Scalar(ScalarType::String),
                Arc::new(StringArray::from(strings.clone()).slice(start, length)),
                Arc::new(StringArray::from(strings[part.clone()].to_vec())),
            );
            assert_same(
                DataType::Scalar(ScalarType::Bool),
                Arc::new(BooleanArray::from(bools.clone()).slice(start, length)),
                Arc::new(BooleanArray::from(bools[part.clone()].to_vec())),
            );
            assert_same(
                DataType::Scalar(ScalarType::Int64),
                Arc::new(Int64Array::from(ints.clone()).slice(start, length)),
                Arc::new(Int64Array::from(ints[part.clone()].to_vec())),
            );
            assert_same(
                DataType::List(ScalarType::Int64),
                Arc::new(lists(&ints).slice(start, length)),
                {
                    let mut builder = ListBuilder::new(Int64Builder::new());
                    for row in part {
                        append_list(&mut builder, &ints, row);
                    }
                    Arc::new(builder.finish())
                },
            );
        }
    }

    fn lists(ints: &[Option<i64>]) -> ListArray {
        let mut builder = ListBuilder::new(Int64Builder::new());
        for row in 0..ints.len() {
            append_list(&mut builder, ints, row);
        }
        builder.finish()
    }

    fn append_list(builder: &mut ListBuilder<Int64Builder>, ints: &[Option<i64>], row: usize) {
        builder.values().append_slice(&[row as i64]);
        builder.values().append_option(ints[row]);
        builder.append(row % 4 != 1 || row == 0);
    }

    #[test]
    fn nothing_is_seen_under_a_null() {
        let nulls = || Some(NullBuffer::from(vec![true, false, true]));
        assert_same(
            DataType::Scalar(ScalarType::Int64),
            Arc::new(Int64Array::new(vec![1, 99, 3].into(), nulls())),
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
        );
        assert_same(
            DataType::Scalar(ScalarType::Bool),
            Arc::new(BooleanArray::new(vec![true, true, false].into(), nulls())),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        );
        let full = StringArray::from(vec!["a", "secret", "c"]);
        assert_same(
            DataType::Scalar(ScalarType::String),
            Arc::new(StringArray::new(
                full.offsets().clone(),
                full.values().clone(),
                nulls(),
            )),
            Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])),
        );
        let mut builder = ListBuilder::new(Int64Builder::new());
        builder.append_value([Some(1)]);
        builder.append_null();
        builder.append_value([Some(3)]);
        let empty = builder.finish();
        let full = lists(&[Some(1), Some(2), Some(3)]);
        let full_values = Int64Array::from(vec![1, 2, 3]);
        assert_same(
            DataType::List(ScalarType::Int64),
            Arc::new(ListArray::new(
                match full.data_type() {
                    ArrowType::List(item) => Arc::clone(item),
                    _ => unreachable!(),
                },
                OffsetBuffer::from_lengths([1, 1, 1]),
                Arc::new(full_values),
                nulls(),
            )),
            Arc::new(empty),
        );
    }

    #[test]
    fn nans_are_seen_in_one_form() {
        assert_same(
            DataType::Scalar(ScalarType::Float64),
            Arc::new(Float64Array::from(vec![f64::from_bits(u64::MAX), 1.0])),
            Arc::new(Float64Array::from(vec![f64::NAN, 1.0])),
        );
        let lowered = lowered(
            DataType::Scalar(ScalarType::Float64),
            Arc::new(Float64Array::from(vec![f64::from_bits(u64::MAX)])),
        );
        let params = lowered.params();
        let wit::ColumnParam::Flat(flat) = &params[0] else {
            panic!("a scalar column is flat")
        };
        let wit::ValuesParam::Float64s(values) = flat.values else {
            panic!("float64")
        };
        assert_eq!(values[0].to_bits(), 0x7ff8_0000_0000_0000);
    }

    #[test]
    fn a_plain_buffer_is_not_copied() {
        let array: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
        let lowered = lowered(DataType::Scalar(ScalarType::Float64), Arc::clone(&array));
        let params = lowered.params();
        let wit::ColumnParam::Flat(flat) = &params[0] else {
            panic!("a scalar column is flat")
        };
        let wit::ValuesParam::Float64s(values) = flat.values else {
            panic!("float64")
        };
        assert_eq!(
            values.as_ptr(),
            array.as_primitive::<at::Float64Type>().values().as_ptr()
        );
    }

    #[test]
    fn other_columns_than_it_takes_are_refused() {
        let int = Field {
            nullable: false,
            ..Field::new("n", DataType::Scalar(ScalarType::Int64))
        };
        let refuse = |columns: &[ArrayRef], rows: usize| {
            let Err(error) = batch(std::slice::from_ref(&int), columns, rows) else {
                panic!("refused")
            };
            error.message
        };
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert!(refuse(&[], 1).contains("0 columns"));
        assert!(refuse(&[Arc::clone(&column)], 2).contains("`n` has 1 rows of 2"));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert!(refuse(&[floats], 1).contains("`n` is Float64; it must be int64"));
        let null: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        assert!(refuse(&[null], 1).contains("not nullable"));
    }
}
