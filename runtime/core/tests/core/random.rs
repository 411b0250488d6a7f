//! Random columns of every type of the contract, edge cases often.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::Field;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use unskew_core::time;
use unskew_core::types::{DataType, ScalarType, UTC};

/// Any type of the contract.
pub(crate) fn data_type() -> impl Strategy<Value = DataType> {
    let scalar = proptest::sample::select(ScalarType::ALL.to_vec());
    (scalar, any::<bool>()).prop_map(|(scalar, list)| {
        if list {
            DataType::List(scalar)
        } else {
            DataType::Scalar(scalar)
        }
    })
}

/// A column of `rows` rows.
pub(crate) fn column(data_type: DataType, rows: usize) -> BoxedStrategy<ArrayRef> {
    match data_type {
        DataType::Scalar(scalar) => scalars(scalar, rows),
        DataType::List(scalar) => vec(option::of(0..10_usize), rows)
            .prop_flat_map(move |lengths| {
                let items = scalars(scalar, lengths.iter().flatten().sum());
                (Just(lengths), items).prop_map(move |(lengths, items)| lists(&lengths, items))
            })
            .boxed(),
    }
}

fn lists(lengths: &[Option<usize>], items: ArrayRef) -> ArrayRef {
    let item = Field::new("item", items.data_type().clone(), true);
    Arc::new(ListArray::new(
        Arc::new(item),
        OffsetBuffer::from_lengths(lengths.iter().map(|length| length.unwrap_or(0))),
        items,
        Some(NullBuffer::from_iter(lengths.iter().map(Option::is_some))),
    ))
}

fn scalars(scalar: ScalarType, rows: usize) -> BoxedStrategy<ArrayRef> {
    fn array<T: std::fmt::Debug, A: arrow::array::Array + From<Vec<Option<T>>> + 'static>(
        value: impl Strategy<Value = T> + 'static,
        rows: usize,
    ) -> BoxedStrategy<ArrayRef> {
        vec(option::of(value), rows)
            .prop_map(|values| Arc::new(A::from(values)) as ArrayRef)
            .boxed()
    }
    match scalar {
        ScalarType::Bool => array::<_, BooleanArray>(any::<bool>(), rows),
        ScalarType::Int32 => {
            let edges = proptest::sample::select(vec![i32::MIN, -1, 0, 1, i32::MAX]);
            array::<_, Int32Array>(prop_oneof![edges, any::<i32>()], rows)
        }
        ScalarType::Int64 => {
            let edges = proptest::sample::select(vec![i64::MIN, -1, 0, (1 << 53) + 1, i64::MAX]);
            array::<_, Int64Array>(prop_oneof![edges, any::<i64>()], rows)
        }
        ScalarType::Float32 => array::<_, Float32Array>(float32(), rows),
        ScalarType::Float64 => array::<_, Float64Array>(float64(), rows),
        ScalarType::String => {
            let edges =
                proptest::sample::select(vec!["", "\0", "\"\\", "null", "\u{1f600}é\u{fffd}"]);
            let any = prop_oneof![edges.prop_map(str::to_owned), any::<String>()];
            vec(option::of(any), rows)
                .prop_map(|values| Arc::new(StringArray::from(values)) as ArrayRef)
                .boxed()
        }
        ScalarType::Bytes => vec(option::of(vec(any::<u8>(), 0..6)), rows)
            .prop_map(|values| Arc::new(BinaryArray::from_iter(values)) as ArrayRef)
            .boxed(),
        ScalarType::Timestamp => {
            let edges = proptest::sample::select(vec![time::MIN, -1, 0, 1, time::MAX]);
            vec(option::of(prop_oneof![edges, time::MIN..=time::MAX]), rows)
                .prop_map(|values| {
                    let array = TimestampMicrosecondArray::from(values).with_timezone(UTC);
                    Arc::new(array) as ArrayRef
                })
                .boxed()
        }
    }
}

/// Any bits; NaNs, infinities, subnormals and both zeros often.
pub(crate) fn float32() -> impl Strategy<Value = f32> {
    let edges = [
        0x8000_0000,
        0,
        1,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0xffc0_0001,
        0x7f7f_ffff,
    ];
    let edges = proptest::sample::select(edges.to_vec());
    prop_oneof![edges, any::<u32>()].prop_map(f32::from_bits)
}

/// Any bits; NaNs, infinities, subnormals and both zeros often.
pub(crate) fn float64() -> impl Strategy<Value = f64> {
    let edges = [
        0.0,
        -0.0,
        0.1,
        f64::from_bits(1),
        f64::MAX,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::from_bits(0xfff8_0000_dead_beef),
    ];
    let edges = proptest::sample::select(edges.map(f64::to_bits).to_vec());
    prop_oneof![edges, any::<u64>()].prop_map(f64::from_bits)
}
