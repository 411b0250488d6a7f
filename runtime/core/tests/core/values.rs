//! Coercion: a widening that loses nothing is done, anything else names row and value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Date64Array,
    Decimal128Array, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray, Float16Array,
    Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, LargeListArray,
    LargeStringArray, ListArray, ListViewArray, NullArray, RunArray, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, Float64Type, Int16Type, Int32Type, Int64Type};
use proptest::prelude::*;
use unskew_core::json::write_column;
use unskew_core::time;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::{ValueError, coerce, from_text};

use crate::random::{column, data_type, float32, float64};

fn coerced(array: impl Array + 'static, wanted: &str) -> Result<ArrayRef, ValueError> {
    let wanted: DataType = wanted.parse().unwrap();
    let array: ArrayRef = Arc::new(array);
    let coerced = coerce(&array, wanted)?;
    assert_eq!(coerced.data_type(), &wanted.arrow());
    assert_eq!(coerced.len(), array.len());
    Ok(coerced)
}

/// The coerced values as JSON, or the message.
fn shown(array: impl Array + 'static, wanted: &str) -> String {
    match coerced(array, wanted) {
        Ok(array) => {
            let mut out = Vec::new();
            write_column(&mut out, &array).unwrap();
            String::from_utf8(out).unwrap()
        }
        Err(error) => error.to_string(),
    }
}

proptest! {
    #[test]
    fn a_column_of_the_wanted_type_stays(
        (data_type, array) in (data_type(), 0..6_usize)
            .prop_flat_map(|(t, rows)| (Just(t), column(t, rows))),
        start in 0..6_usize,
    ) {
        prop_assert_eq!(&coerce(&array, data_type).unwrap(), &array);
        let sliced = array.slice(start.min(array.len()), array.len() - start.min(array.len()));
        prop_assert_eq!(&coerce(&sliced, data_type).unwrap(), &sliced);
    }

    /// An integer or float reaches another type only if it comes back as the same.
    #[test]
    fn numbers_keep_their_value(integer in any::<i64>(), float in float64(), single in float32()) {
        let integers: ArrayRef = Arc::new(Int64Array::from(vec![integer]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![float]));
        let singles: ArrayRef = Arc::new(Float32Array::from(vec![single]));
        for array in [integers, floats, singles] {
            let own = DataType::of_arrow(array.data_type()).unwrap();
            for scalar in [ScalarType::Int32, ScalarType::Int64, ScalarType::Float32, ScalarType::Float64] {
                if let Ok(other) = coerce(&array, DataType::Scalar(scalar))
                    && !(float.is_nan() || single.is_nan())
                {
                    prop_assert_eq!(&coerce(&other, own).unwrap(), &array);
                }
            }
        }
    }
}

#[test]
fn numbers_widen_and_narrow_where_nothing_is_lost() {
    assert_eq!(
        shown(Int8Array::from(vec![-128, 127]), "int64"),
        "[-128,127]"
    );
    assert_eq!(
        shown(Int64Array::from(vec![i64::from(i32::MIN)]), "int32"),
        "[-2147483648]"
    );
    assert_eq!(shown(UInt8Array::from(vec![255]), "float32"), "[255.0]");
    assert_eq!(
        shown(UInt64Array::from(vec![i64::MAX as u64]), "int64"),
        "[9223372036854775807]"
    );
    assert_eq!(
        shown(UInt64Array::from(vec![1 << 63]), "float64"),
        "[9.223372036854776e+18]"
    );
    assert_eq!(
        shown(Float64Array::from(vec![35.0, -7.0]), "int64"),
        "[35,-7]"
    );
    assert_eq!(
        shown(Float64Array::from(vec![-0.0, 0.5, f64::NAN]), "float32"),
        "[-0.0,0.5,\"NaN\"]"
    );
    assert_eq!(
        shown(Float32Array::from(vec![0.1, -0.0]), "float64"),
        "[0.10000000149011612,-0.0]"
    );
    let half = Float16Array::from_iter_values([half(0x3c00), half(0x8000)]);
    assert_eq!(shown(half, "float32"), "[1.0,-0.0]");
    let gaps = Float64Array::new(
        vec![0.5, 2.0].into(),
        Some(NullBuffer::from(vec![false, true])),
    );
    assert_eq!(
        shown(gaps, "int64"),
        "[null,2]",
        "what lies under a null is no value"
    );
}

fn half(bits: u16) -> <arrow::datatypes::Float16Type as arrow::array::ArrowPrimitiveType>::Native {
    <arrow::datatypes::Float16Type as arrow::array::ArrowPrimitiveType>::Native::from_bits(bits)
}

#[test]
fn what_would_be_lost_names_row_value_and_type() {
    let whole = "; only a whole number within its range is taken, since nothing may be lost";
    let exact = "; only a number that it holds exactly is taken, since nothing may be lost";
    for (found, expected) in [
        (
            shown(Int64Array::from(vec![0, 1 << 31]), "int32"),
            format!("row 1: 2147483648 (Int64) is no int32{whole}"),
        ),
        (
            shown(UInt64Array::from(vec![u64::MAX]), "int64"),
            format!("row 0: 18446744073709551615 (UInt64) is no int64{whole}"),
        ),
        (
            shown(UInt64Array::from(vec![u64::MAX]), "float64"),
            format!("row 0: 18446744073709551615 (UInt64) is no float64{exact}"),
        ),
        (
            shown(Int64Array::from(vec![(1 << 53) + 1]), "float64"),
            format!("row 0: 9007199254740993 (Int64) is no float64{exact}"),
        ),
        (
            shown(Int32Array::from(vec![(1 << 24) + 1]), "float32"),
            format!("row 0: 16777217 (Int32) is no float32{exact}"),
        ),
        (
            shown(
                Float64Array::from(vec![Some(1.0), None, Some(0.5)]),
                "int32",
            ),
            format!("row 2: 0.5 (Float64) is no int32{whole}"),
        ),
        (
            shown(Float64Array::from(vec![-0.0]), "int64"),
            format!("row 0: -0.0 (Float64) is no int64{whole}"),
        ),
        (
            shown(
                Float64Array::from(vec![9_223_372_036_854_775_808.0]),
                "int64",
            ),
            format!("row 0: 9.223372036854776e18 (Float64) is no int64{whole}"),
        ),
        (
            shown(Float64Array::from(vec![f64::NAN]), "int64"),
            format!("row 0: NaN (Float64) is no int64{whole}"),
        ),
        (
            shown(Float64Array::from(vec![0.1]), "float32"),
            format!("row 0: 0.1 (Float64) is no float32{exact}"),
        ),
        (
            shown(Float64Array::from(vec![1e300]), "float32"),
            format!("row 0: 1e300 (Float64) is no float32{exact}"),
        ),
        (
            shown(StringArray::from(vec!["1"]), "int64"),
            format!("row 0: 1 (Utf8) is no int64{whole}"),
        ),
        (
            shown(BooleanArray::from(vec![true]), "int32"),
            format!("row 0: true (Boolean) is no int32{whole}"),
        ),
        (
            shown(Int32Array::from(vec![1]), "bool"),
            "row 0: 1 (Int32) is no bool; a bool is written true or false".to_owned(),
        ),
        (
            shown(Int32Array::from(vec![1]), "string"),
            "row 0: 1 (Int32) is no string".to_owned(),
        ),
        (
            shown(Decimal128Array::from(vec![100]), "float64"),
            format!("row 0: 0.0000000100 (Decimal128(38, 10)) is no float64{exact}"),
        ),
        (
            shown(Int32Array::from(vec![1]), "list<int32>"),
            "row 0: 1 (Int32) is no list<int32>; a list is written like [1, null], in the form of \
             JSON"
                .to_owned(),
        ),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn texts_and_bytes_of_every_layout() {
    let texts = vec![Some(""), None, Some("\u{1f600}")];
    let expected = "[\"\",null,\"\u{1f600}\"]";
    assert_eq!(
        shown(LargeStringArray::from(texts.clone()), "string"),
        expected
    );
    assert_eq!(
        shown(StringViewArray::from(texts.clone()), "string"),
        expected
    );
    let dictionary: DictionaryArray<Int32Type> = texts.iter().copied().collect();
    assert_eq!(
        shown(dictionary.slice(1, 2), "string"),
        "[null,\"\u{1f600}\"]"
    );
    assert_eq!(shown(dictionary, "string"), expected);
    let runs: RunArray<Int16Type> = vec![Some("a"), Some("a"), None].into_iter().collect();
    assert_eq!(shown(runs, "string"), "[\"a\",\"a\",null]");

    assert_eq!(
        shown(BinaryViewArray::from(vec![&b"\0\xff"[..]]), "bytes"),
        "[\"AP8=\"]"
    );
    let fixed = FixedSizeBinaryArray::try_from_iter([[0_u8, 255]].into_iter()).unwrap();
    assert_eq!(shown(fixed, "bytes"), "[\"AP8=\"]");
    assert!(coerced(StringArray::from(vec!["AP8="]), "bytes").is_err());
    assert!(coerced(BinaryArray::from(vec![&b"a"[..]]), "string").is_err());

    let numbers: DictionaryArray<Int32Type> = DictionaryArray::new(
        Int32Array::from(vec![Some(1), None, Some(0)]),
        Arc::new(Float64Array::from(vec![0.5, 2.0])),
    );
    assert_eq!(shown(numbers.slice(0, 2), "int64"), "[2,null]");
    assert!(shown(numbers, "int64").starts_with("row 2: 0.5 (Float64)"));
}

#[test]
fn instants_of_every_unit() {
    let first = "[\"1969-12-31T23:59:59.999999Z\",null]";
    let nanos = TimestampNanosecondArray::from(vec![Some(-1), None]);
    assert_eq!(
        shown(nanos, "timestamp"),
        first,
        "nanoseconds are floored, before 1970 too"
    );
    let nanos = TimestampNanosecondArray::from(vec![1_999, -1_000, -1_001]);
    let floored = coerced(nanos, "timestamp").unwrap();
    let expected = TimestampMicrosecondArray::from(vec![1, -1, -2]).with_timezone("UTC");
    assert_eq!(floored.to_data(), expected.to_data());

    let berlin = TimestampMillisecondArray::from(vec![1_500]).with_timezone("+01:00");
    assert_eq!(
        shown(berlin, "timestamp"),
        "[\"1970-01-01T00:00:01.500000Z\"]"
    );
    let micros = TimestampMicrosecondArray::from(vec![time::MIN, time::MAX]);
    let edges = "[\"0001-01-01T00:00:00Z\",\"9999-12-31T23:59:59.999999Z\"]";
    assert_eq!(shown(micros, "timestamp"), edges);
    assert_eq!(
        shown(Date32Array::from(vec![-1]), "timestamp"),
        "[\"1969-12-31T00:00:00Z\"]"
    );
    assert_eq!(
        shown(Date64Array::from(vec![86_400_001]), "timestamp"),
        "[\"1970-01-02T00:00:00.001000Z\"]"
    );
    let text = StringViewArray::from(vec!["2001-03-01T13:00:00+01:00"]);
    assert_eq!(shown(text, "timestamp"), "[\"2001-03-01T12:00:00Z\"]");
}

#[test]
fn instants_outside_of_the_years_1_to_9999_are_refused() {
    for (found, value) in [
        (
            shown(
                TimestampMicrosecondArray::from(vec![time::MAX, time::MAX + 1]),
                "timestamp",
            ),
            "row 1: 253402300800000000",
        ),
        (
            shown(
                TimestampMicrosecondArray::from(vec![0, time::MIN - 1]),
                "timestamp",
            ),
            "row 1: -62135596800000001",
        ),
        (
            shown(TimestampSecondArray::from(vec![0, i64::MAX]), "timestamp"),
            "row 1: 9223372036854775807",
        ),
        (
            shown(
                TimestampMillisecondArray::from(vec![0, i64::MIN]),
                "timestamp",
            ),
            "row 1: -9223372036854775808",
        ),
        (
            shown(Date32Array::from(vec![0, i32::MAX]), "timestamp"),
            "row 1: ",
        ),
        (
            shown(StringArray::from(vec!["2001-01-01", "soon"]), "timestamp"),
            "row 1: `soon`",
        ),
        (
            shown(Int64Array::from(vec![None, Some(5)]), "timestamp"),
            "row 1: 5 (Int64)",
        ),
    ] {
        assert!(found.starts_with(value), "{found}");
        assert!(found.ends_with("in the years 1 to 9999"), "{found}");
    }
}

#[test]
fn columns_of_nulls_alone_fit_every_type() {
    for scalar in ScalarType::ALL {
        for wanted in [DataType::Scalar(scalar), DataType::List(scalar)] {
            let wanted = wanted.to_string();
            assert_eq!(shown(NullArray::new(2), &wanted), "[null,null]");
            assert_eq!(
                shown(StringArray::from(vec![None::<&str>; 2]), &wanted),
                "[null,null]"
            );
            assert_eq!(
                shown(Decimal128Array::from(vec![None; 2]), &wanted),
                "[null,null]"
            );
            assert_eq!(shown(Int32Array::from(Vec::<i32>::new()), &wanted), "[]");
        }
    }
}

fn list_of_floats() -> ListArray {
    ListArray::from_iter_primitive::<Float64Type, _, _>([
        Some(vec![Some(1.0)]),
        None,
        Some(vec![]),
        Some(vec![Some(2.0), None]),
        Some(vec![Some(0.5)]),
    ])
}

#[test]
fn lists_are_coerced_item_by_item() {
    let lists = list_of_floats();
    assert_eq!(
        shown(lists.slice(0, 4), "list<int64>"),
        "[[1],null,[],[2,null]]"
    );
    assert_eq!(shown(lists.slice(2, 2), "list<int64>"), "[[],[2,null]]");
    assert!(shown(lists.clone(), "list<int64>").starts_with("row 4: 0.5 (Float64) is no int64"));
    assert!(shown(lists.slice(3, 2), "list<int64>").starts_with("row 1: 0.5"));
    assert!(coerced(lists, "float64").is_err());

    let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None]);
    assert_eq!(shown(large, "list<float64>"), "[[1.0],null]");
    let fixed = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(
        [Some(vec![Some(1), Some(2)]), None],
        2,
    );
    assert_eq!(shown(fixed, "list<int32>"), "[[1,2],null]");
    let view = ListViewArray::from(list_of_floats().slice(0, 4));
    assert_eq!(shown(view, "list<int64>"), "[[1],null,[],[2,null]]");
    let dictionary: DictionaryArray<Int32Type> = [Some("a"), None].into_iter().collect();
    let item = Arc::new(Field::new("element", dictionary.data_type().clone(), true));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 2]));
    let lists = ListArray::new(item, offsets, Arc::new(dictionary), None);
    assert_eq!(shown(lists, "list<string>"), "[[\"a\",null]]");
}

#[test]
fn what_lies_under_a_null_list_is_no_value() {
    let (item, offsets, items, _) = list_of_floats().into_parts();
    let nulls = NullBuffer::from(vec![true, true, true, true, false]);
    let lists = ListArray::new(item, offsets, items, Some(nulls));
    assert_eq!(shown(lists.slice(3, 2), "list<int64>"), "[[2,null],null]");
}

#[test]
fn texts_of_csv_files_and_command_lines() {
    let read = |text: &str, wanted: &str| {
        let array = from_text(
            &StringArray::from(vec![None, Some(text)]),
            wanted.parse().unwrap(),
        )?;
        Ok::<_, ValueError>(unskew_core::json::display(&array, 1))
    };
    for (text, wanted, value) in [
        ("true", "bool", "true"),
        ("False", "bool", "false"),
        (" 35.0 ", "int64", "35"),
        ("+5", "int32", "5"),
        ("-0", "float64", "-0.0"),
        ("inf", "float32", "\"Infinity\""),
        ("NaN", "float64", "\"NaN\""),
        (" a ", "string", "\" a \""),
        ("null", "string", "\"null\""),
        ("AP8=", "bytes", "\"AP8=\""),
        (
            "2001-03-01 12:00:00",
            "timestamp",
            "\"2001-03-01T12:00:00Z\"",
        ),
        ("[1, null]", "list<int64>", "[1,null]"),
        ("[\"a\"]", "list<string>", "[\"a\"]"),
    ] {
        assert_eq!(read(text, wanted).as_deref(), Ok(value), "{text}");
    }
    for (text, wanted) in [
        ("", "int64"),
        ("yes", "bool"),
        ("1", "bool"),
        ("1_000", "int64"),
        ("0x10", "int64"),
        ("9223372036854775808", "int64"),
        ("1.", "float64"),
        ("1e999", "float64"),
        ("9007199254740993", "float64"),
        ("1,2", "list<int64>"),
        ("01-03-01", "timestamp"),
    ] {
        let error = read(text, wanted).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("row 1: `{text}` is no {wanted}")),
            "{error}"
        );
    }
}
