//! One form for NaN.
//!
//! Arrow's buffers hold NaNs of any sign and payload; JSON knows only "NaN". So that a component
//! cannot tell whether a NaN came out of a file or a request, and so that the bits of a training
//! set are those that a client decodes from a response, NaNs become the quiet one without sign and
//! payload, 0x7fc00000 and 0x7ff8000000000000, on their way into a component and out of
//! `evaluate`. The online store, on the way between, keeps all bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type};

const NAN_32: f32 = f32::from_bits(0x7fc0_0000);
const NAN_64: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// The same column with canonical NaNs, lists' items included; the same array where all are.
pub(crate) fn nans(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => {
            let floats = array.as_primitive::<Float32Type>();
            match floats_32(floats.values()) {
                None => Arc::clone(array),
                Some(values) => Arc::new(Float32Array::new(values, floats.nulls().cloned())),
            }
        }
        DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>();
            match floats_64(floats.values()) {
                None => Arc::clone(array),
                Some(values) => Arc::new(Float64Array::new(values, floats.nulls().cloned())),
            }
        }
        DataType::List(item) => {
            let lists = array.as_list::<i32>();
            let items = nans(lists.values());
            if Arc::ptr_eq(&items, lists.values()) {
                return Arc::clone(array);
            }
            Arc::new(ListArray::new(
                Arc::clone(item),
                lists.offsets().clone(),
                items,
                lists.nulls().cloned(),
            ))
        }
        _ => Arc::clone(array),
    }
}

/// The values with canonical NaNs, or `None` where all are.
pub(crate) fn floats_32(values: &[f32]) -> Option<ScalarBuffer<f32>> {
    let other = |v: &f32| v.is_nan() && v.to_bits() != NAN_32.to_bits();
    // Without a way out in the middle, so that the compiler looks at many values at once.
    let others = values.iter().fold(false, |found, v| found | other(v));
    others.then(|| {
        let canonical = values.iter().map(|&v| if v.is_nan() { NAN_32 } else { v });
        canonical.collect()
    })
}

/// The values with canonical NaNs, or `None` where all are.
pub(crate) fn floats_64(values: &[f64]) -> Option<ScalarBuffer<f64>> {
    let other = |v: &f64| v.is_nan() && v.to_bits() != NAN_64.to_bits();
    let others = values.iter().fold(false, |found, v| found | other(v));
    others.then(|| {
        let canonical = values.iter().map(|&v| if v.is_nan() { NAN_64 } else { v });
        canonical.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nans_have_one_form_and_nothing_else_changes() {
        let strange = f64::from_bits(0xfff0_0000_0000_0001);
        let array: ArrayRef = Arc::new(Float64Array::from(vec![
            Some(strange),
            Some(-0.0),
            None,
            Some(f64::MIN_POSITIVE / 2.0),
            Some(f64::NEG_INFINITY),
        ]));
        let canonical = nans(&array);
        let bits: Vec<_> = canonical
            .as_primitive::<Float64Type>()
            .iter()
            .map(|v| v.map(f64::to_bits))
            .collect();
        assert_eq!(
            bits,
            [
                Some(0x7ff8_0000_0000_0000),
                Some(1 << 63),
                None,
                Some((f64::MIN_POSITIVE / 2.0).to_bits()),
                Some(f64::NEG_INFINITY.to_bits()),
            ]
        );
        assert!(Arc::ptr_eq(&nans(&canonical), &canonical));
    }

    #[test]
    fn lists_too_sliced_or_not() {
        let strange = f32::from_bits(0xffff_ffff);
        let mut builder = arrow::array::ListBuilder::new(arrow::array::Float32Builder::new());
        builder.append_value([Some(1.0), Some(strange)]);
        builder.append_null();
        builder.append_value([None, Some(strange), Some(2.0)]);
        let array: ArrayRef = Arc::new(builder.finish());
        let canonical = nans(&array.slice(1, 2));
        let list = canonical.as_list::<i32>();
        assert!(list.is_null(0));
        let items = list.value(1);
        let items = items.as_primitive::<Float32Type>();
        assert!(items.is_null(0));
        assert_eq!(items.value(1).to_bits(), 0x7fc0_0000);
        assert_eq!(items.value(2).to_bits(), 2.0_f32.to_bits());
    }
}
