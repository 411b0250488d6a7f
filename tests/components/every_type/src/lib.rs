//! Every type that a column can have goes in and comes out again.

use unskew_sdk::prelude::*;

/// A column of every type.
#[derive(Clone, Debug, Default, PartialEq, Row)]
pub struct Input {
    /// A bool.
    pub a_bool: bool,
    /// A int32.
    pub a_int32: i32,
    /// A int64.
    pub a_int64: i64,
    /// A float32.
    pub a_float32: f32,
    /// A float64.
    pub a_float64: f64,
    /// A string.
    pub a_string: String,
    /// A bytes.
    pub a_bytes: Vec<u8>,
    /// A timestamp.
    pub a_timestamp: Timestamp,
    /// A bool that may be null.
    pub nullable_bool: Option<bool>,
    /// A int32 that may be null.
    pub nullable_int32: Option<i32>,
    /// A int64 that may be null.
    pub nullable_int64: Option<i64>,
    /// A float32 that may be null.
    pub nullable_float32: Option<f32>,
    /// A float64 that may be null.
    pub nullable_float64: Option<f64>,
    /// A string that may be null.
    pub nullable_string: Option<String>,
    /// A bytes that may be null.
    pub nullable_bytes: Option<Vec<u8>>,
    /// A timestamp that may be null.
    pub nullable_timestamp: Option<Timestamp>,
    /// A list of bool.
    pub bool_list: Vec<bool>,
    /// A list of int32.
    pub int32_list: Vec<i32>,
    /// A list of int64.
    pub int64_list: Vec<i64>,
    /// A list of float32.
    pub float32_list: Vec<f32>,
    /// A list of float64.
    pub float64_list: Vec<f64>,
    /// A list of string.
    pub string_list: Vec<String>,
    /// A list of bytes.
    pub bytes_list: Vec<Vec<u8>>,
    /// A list of timestamp.
    pub timestamp_list: Vec<Timestamp>,
    /// A list of bool whose items may be null.
    pub bool_list_with_nulls: Vec<Option<bool>>,
    /// A list of int32 whose items may be null.
    pub int32_list_with_nulls: Vec<Option<i32>>,
    /// A list of int64 whose items may be null.
    pub int64_list_with_nulls: Vec<Option<i64>>,
    /// A list of float32 whose items may be null.
    pub float32_list_with_nulls: Vec<Option<f32>>,
    /// A list of float64 whose items may be null.
    pub float64_list_with_nulls: Vec<Option<f64>>,
    /// A list of string whose items may be null.
    pub string_list_with_nulls: Vec<Option<String>>,
    /// A list of bytes whose items may be null.
    pub bytes_list_with_nulls: Vec<Option<Vec<u8>>>,
    /// A list of timestamp whose items may be null.
    pub timestamp_list_with_nulls: Vec<Option<Timestamp>>,
    /// A list of bool that may be null, and so may its items.
    pub nullable_bool_list: Option<Vec<Option<bool>>>,
    /// A list of int32 that may be null, and so may its items.
    pub nullable_int32_list: Option<Vec<Option<i32>>>,
    /// A list of int64 that may be null, and so may its items.
    pub nullable_int64_list: Option<Vec<Option<i64>>>,
    /// A list of float32 that may be null, and so may its items.
    pub nullable_float32_list: Option<Vec<Option<f32>>>,
    /// A list of float64 that may be null, and so may its items.
    pub nullable_float64_list: Option<Vec<Option<f64>>>,
    /// A list of string that may be null, and so may its items.
    pub nullable_string_list: Option<Vec<Option<String>>>,
    /// A list of bytes that may be null, and so may its items.
    pub nullable_bytes_list: Option<Vec<Option<Vec<u8>>>>,
    /// A list of timestamp that may be null, and so may its items.
    pub nullable_timestamp_list: Option<Vec<Option<Timestamp>>>,
}

/// The same columns.
#[derive(Clone, Debug, Default, PartialEq, Row)]
pub struct Output {
    /// A bool.
    pub out_a_bool: bool,
    /// A int32.
    pub out_a_int32: i32,
    /// A int64.
    pub out_a_int64: i64,
    /// A float32.
    pub out_a_float32: f32,
    /// A float64.
    pub out_a_float64: f64,
    /// A string.
    pub out_a_string: String,
    /// A bytes.
    pub out_a_bytes: Vec<u8>,
    /// A timestamp.
    pub out_a_timestamp: Timestamp,
    /// A bool that may be null.
    pub out_nullable_bool: Option<bool>,
    /// A int32 that may be null.
    pub out_nullable_int32: Option<i32>,
    /// A int64 that may be null.
    pub out_nullable_int64: Option<i64>,
    /// A float32 that may be null.
    pub out_nullable_float32: Option<f32>,
    /// A float64 that may be null.
    pub out_nullable_float64: Option<f64>,
    /// A string that may be null.
    pub out_nullable_string: Option<String>,
    /// A bytes that may be null.
    pub out_nullable_bytes: Option<Vec<u8>>,
    /// A timestamp that may be null.
    pub out_nullable_timestamp: Option<Timestamp>,
    /// A list of bool.
    pub out_bool_list: Vec<bool>,
    /// A list of int32.
    pub out_int32_list: Vec<i32>,
    /// A list of int64.
    pub out_int64_list: Vec<i64>,
    /// A list of float32.
    pub out_float32_list: Vec<f32>,
    /// A list of float64.
    pub out_float64_list: Vec<f64>,
    /// A list of string.
    pub out_string_list: Vec<String>,
    /// A list of bytes.
    pub out_bytes_list: Vec<Vec<u8>>,
    /// A list of timestamp.
    pub out_timestamp_list: Vec<Timestamp>,
    /// A list of bool whose items may be null.
    pub out_bool_list_with_nulls: Vec<Option<bool>>,
    /// A list of int32 whose items may be null.
    pub out_int32_list_with_nulls: Vec<Option<i32>>,
    /// A list of int64 whose items may be null.
    pub out_int64_list_with_nulls: Vec<Option<i64>>,
    /// A list of float32 whose items may be null.
    pub out_float32_list_with_nulls: Vec<Option<f32>>,
    /// A list of float64 whose items may be null.
    pub out_float64_list_with_nulls: Vec<Option<f64>>,
    /// A list of string whose items may be null.
    pub out_string_list_with_nulls: Vec<Option<String>>,
    /// A list of bytes whose items may be null.
    pub out_bytes_list_with_nulls: Vec<Option<Vec<u8>>>,
    /// A list of timestamp whose items may be null.
    pub out_timestamp_list_with_nulls: Vec<Option<Timestamp>>,
    /// A list of bool that may be null, and so may its items.
    pub out_nullable_bool_list: Option<Vec<Option<bool>>>,
    /// A list of int32 that may be null, and so may its items.
    pub out_nullable_int32_list: Option<Vec<Option<i32>>>,
    /// A list of int64 that may be null, and so may its items.
    pub out_nullable_int64_list: Option<Vec<Option<i64>>>,
    /// A list of float32 that may be null, and so may its items.
    pub out_nullable_float32_list: Option<Vec<Option<f32>>>,
    /// A list of float64 that may be null, and so may its items.
    pub out_nullable_float64_list: Option<Vec<Option<f64>>>,
    /// A list of string that may be null, and so may its items.
    pub out_nullable_string_list: Option<Vec<Option<String>>>,
    /// A list of bytes that may be null, and so may its items.
    pub out_nullable_bytes_list: Option<Vec<Option<Vec<u8>>>>,
    /// A list of timestamp that may be null, and so may its items.
    pub out_nullable_timestamp_list: Option<Vec<Option<Timestamp>>>,
}

/// Gives what it gets.
#[transform(on_demand)]
pub fn every_type(row: Input) -> Output {
    Output {
        out_a_bool: row.a_bool,
        out_a_int32: row.a_int32,
        out_a_int64: row.a_int64,
        out_a_float32: row.a_float32,
        out_a_float64: row.a_float64,
        out_a_string: row.a_string,
        out_a_bytes: row.a_bytes,
        out_a_timestamp: row.a_timestamp,
        out_nullable_bool: row.nullable_bool,
        out_nullable_int32: row.nullable_int32,
        out_nullable_int64: row.nullable_int64,
        out_nullable_float32: row.nullable_float32,
        out_nullable_float64: row.nullable_float64,
        out_nullable_string: row.nullable_string,
        out_nullable_bytes: row.nullable_bytes,
        out_nullable_timestamp: row.nullable_timestamp,
        out_bool_list: row.bool_list,
        out_int32_list: row.int32_list,
        out_int64_list: row.int64_list,
        out_float32_list: row.float32_list,
        out_float64_list: row.float64_list,
        out_string_list: row.string_list,
        out_bytes_list: row.bytes_list,
        out_timestamp_list: row.timestamp_list,
        out_bool_list_with_nulls: row.bool_list_with_nulls,
        out_int32_list_with_nulls: row.int32_list_with_nulls,
        out_int64_list_with_nulls: row.int64_list_with_nulls,
        out_float32_list_with_nulls: row.float32_list_with_nulls,
        out_float64_list_with_nulls: row.float64_list_with_nulls,
        out_string_list_with_nulls: row.string_list_with_nulls,
        out_bytes_list_with_nulls: row.bytes_list_with_nulls,
        out_timestamp_list_with_nulls: row.timestamp_list_with_nulls,
        out_nullable_bool_list: row.nullable_bool_list,
        out_nullable_int32_list: row.nullable_int32_list,
        out_nullable_int64_list: row.nullable_int64_list,
        out_nullable_float32_list: row.nullable_float32_list,
        out_nullable_float64_list: row.nullable_float64_list,
        out_nullable_string_list: row.nullable_string_list,
        out_nullable_bytes_list: row.nullable_bytes_list,
        out_nullable_timestamp_list: row.nullable_timestamp_list,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        assert_eq!(every_type(Input::default()), Output::default());
        let row = Input {
            a_string: "ä".to_owned(),
            nullable_timestamp: Some(Timestamp::from_micros(-1)),
            bytes_list_with_nulls: vec![None, Some(vec![0, 255])],
            nullable_float64_list: Some(vec![Some(-0.0)]),
            ..Input::default()
        };
        let out = every_type(row.clone());
        assert_eq!(out.out_a_string, row.a_string);
        assert_eq!(out.out_nullable_timestamp, row.nullable_timestamp);
        assert_eq!(out.out_bytes_list_with_nulls, row.bytes_list_with_nulls);
        assert_eq!(out.out_nullable_float64_list, row.nullable_float64_list);
    }
}
