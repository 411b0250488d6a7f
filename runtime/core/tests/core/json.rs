//! Values as JSON: exact in both directions.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use proptest::prelude::*;
use serde_json::value::RawValue;
use unskew_core::json::{Literal, display, read_column, write_column};
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::ValueError;

use crate::random::{column, data_type};

fn read(json: &str, data_type: &str) -> Result<ArrayRef, ValueError> {
    let values: Vec<&RawValue> = serde_json::from_str(json).unwrap();
    read_column(&values, data_type.parse().unwrap())
}

fn written(array: &ArrayRef) -> String {
    let mut out = Vec::new();
    write_column(&mut out, array).unwrap();
    String::from_utf8(out).unwrap()
}

/// JSON has one NaN, that of `f64::NAN` and `f32::NAN`.
fn with_one_nan(array: &ArrayRef) -> ArrayRef {
    if let Some(floats) = array.as_primitive_opt::<Float64Type>() {
        let one = floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v });
        Arc::new(one)
    } else if let Some(floats) = array.as_primitive_opt::<Float32Type>() {
        let one = floats.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v });
        Arc::new(one)
    } else if let Some(lists) = array.as_list_opt::<i32>() {
        let (item, offsets, items, nulls) = lists.clone().into_parts();
        Arc::new(ListArray::new(item, offsets, with_one_nan(&items), nulls))
    } else {
        Arc::clone(array)
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back_by_bits(
        (data_type, array) in (data_type(), 0..6_usize)
            .prop_flat_map(|(t, rows)| (Just(t), column(t, rows))),
    ) {
        let json = written(&array);
        let values: Vec<&RawValue> = serde_json::from_str(&json).unwrap();
        let back = read_column(&values, data_type).unwrap();
        prop_assert_eq!(&back, &with_one_nan(&array), "{}", json);
        prop_assert_eq!(back.data_type(), &data_type.arrow());
    }

    #[test]
    fn a_text_is_never_taken_for_another_integer(value in any::<i64>(), zeros in 0..4_usize) {
        let text = format!("[{value}.{}, {value}0e-1]", "0".repeat(zeros + 1));
        let back = read(&text, "int64").unwrap();
        prop_assert_eq!(back.as_primitive::<Int64Type>().values(), &[value, value]);
    }
}

/// What is taken, and how it is written.
#[test]
fn values_of_every_type() {
    for (data_type, json, back) in [
        ("bool", "[true,false,null]", "[true,false,null]"),
        (
            "int32",
            "[-2147483648, 35.0, 1e3, -0, 3.5e1]",
            "[-2147483648,35,1000,0,35]",
        ),
        (
            "int64",
            "[9223372036854775807, 9007199254740993.0, 9.223372036854775807e18]",
            "[9223372036854775807,9007199254740993,9223372036854775807]",
        ),
        (
            "int64",
            "[-9223372036854775808, 0.0, 0e5, 100e-2]",
            "[-9223372036854775808,0,0,1]",
        ),
        (
            "float64",
            "[35, -0, -0.0, 0.1, 1e-999, 5e-324]",
            "[35.0,-0.0,-0.0,0.1,0.0,5e-324]",
        ),
        (
            "float64",
            "[9007199254740992, 18446744073709551616]",
            "[9007199254740992.0,1.8446744073709552e+19]",
        ),
        (
            "float64",
            "[\"NaN\", \"Infinity\", \"-Infinity\"]",
            "[\"NaN\",\"Infinity\",\"-Infinity\"]",
        ),
        (
            "float32",
            "[0.1, 16777216, 3.4028235e38, 1.00000017881393432617187499]",
            "[0.1,16777216.0,3.4028235e+38,1.0000001]",
        ),
        (
            "string",
            r#"["", "\ud83d\ude00", "a\"\n", "NaN", "null"]"#,
            "[\"\",\"😀\",\"a\\\"\\n\",\"NaN\",\"null\"]",
        ),
        ("bytes", r#"["", "AP8="]"#, r#"["","AP8="]"#),
        (
            "timestamp",
            r#"["2001-03-01T12:00:00Z", "2001-03-01", "2001-03-01T13:00:00.5+01:00"]"#,
            r#"["2001-03-01T12:00:00Z","2001-03-01T00:00:00Z","2001-03-01T12:00:00.500000Z"]"#,
        ),
        (
            "list<int64>",
            "[[], null, [1, null, 2.0]]",
            "[[],null,[1,null,2]]",
        ),
        ("list<string>", r#"[["a", ""], []]"#, r#"[["a",""],[]]"#),
        ("list<float32>", r#"[["NaN", -0.0]]"#, r#"[["NaN",-0.0]]"#),
    ] {
        let array = read(json, data_type).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(written(&array), back, "{data_type}");
    }
}

#[test]
fn what_would_lose_something_is_refused() {
    for (data_type, json) in [
        ("bool", "1"),
        ("bool", "\"true\""),
        ("int32", "2147483648"),
        ("int32", "\"1\""),
        ("int64", "9223372036854775808"),
        ("int64", "-9223372036854775809"),
        ("int64", "9.3e18"),
        ("int64", "0.5"),
        ("int64", "-0.0"),
        ("int64", "1e-400"),
        ("int64", "1.00000000000000000001"),
        ("int64", "1e99999999999"),
        ("int64", "true"),
        ("int64", "\"NaN\""),
        ("float64", "1e999"),
        ("float64", "9007199254740993"),
        ("float64", "10000000000000000000000000000000000000000"),
        ("float64", "\"1.5\""),
        ("float64", "\"nan\""),
        ("float32", "16777217"),
        ("float32", "1e39"),
        ("string", "1"),
        ("string", r#""\ud800""#),
        ("bytes", r#""AP8""#),
        ("bytes", r#""*""#),
        ("timestamp", "983448000"),
        ("timestamp", r#""10000-01-01T00:00:00Z""#),
        ("list<int64>", "1"),
        ("list<int64>", "[[1]]"),
        ("list<int64>", "[0.5]"),
        ("list<int64>", "{}"),
        ("int64", "[1]"),
    ] {
        let error = read(&format!("[null, {json}]"), data_type).unwrap_err();
        assert_eq!(error.row, 1);
        let message = error.to_string();
        assert!(
            message.contains(json) && message.contains(data_type),
            "{message}"
        );
    }
}

#[test]
fn a_float32_is_read_from_its_own_digits() {
    // The float64 next to this lies in the middle of two float32s, and would be rounded down.
    let text = "1.00000017881393432617187499";
    let direct: f32 = text.parse().unwrap();
    let by_way_of_64 = text.parse::<f64>().unwrap() as f32;
    assert_ne!(direct.to_bits(), by_way_of_64.to_bits());
    let back = read(&format!("[{text}]"), "float32").unwrap();
    assert_eq!(
        back.as_primitive::<Float32Type>().value(0).to_bits(),
        direct.to_bits()
    );
}

#[test]
fn a_long_value_is_cut_in_messages() {
    let error = read(&format!("[\"{}\"]", "é".repeat(200)), "int64").unwrap_err();
    assert_eq!(error.value.chars().count(), 81);
    assert!(error.value.ends_with('…'));
}

#[test]
fn constants_of_definitions() {
    let float = Literal(serde_json::json!(15.0));
    let column = float.column(DataType::Scalar(ScalarType::Float64)).unwrap();
    assert_eq!(column.as_primitive::<Float64Type>().values(), &[15.0]);
    let column = float.column(DataType::Scalar(ScalarType::Int32)).unwrap();
    assert_eq!(column.as_primitive::<Int32Type>().values(), &[15]);
    let instant = Literal(serde_json::json!("1970-01-01T00:00:01Z"));
    let column = instant
        .column(DataType::Scalar(ScalarType::Timestamp))
        .unwrap();
    assert_eq!(
        column.as_primitive::<TimestampMicrosecondType>().values(),
        &[1_000_000]
    );
    let list = Literal(serde_json::json!([1, null]));
    let column = list.column(DataType::List(ScalarType::Int64)).unwrap();
    assert_eq!(display(&column, 0), "[1,null]");
    assert!(float.column(DataType::List(ScalarType::Float64)).is_err());
}
