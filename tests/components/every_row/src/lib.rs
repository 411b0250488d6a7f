//! Rows of almost every type, each as often as it says.

use unskew_sdk::prelude::*;

/// A row of the source; anything in it may be null.
#[derive(Clone, Debug, Default, PartialEq, Row)]
pub struct Input {
    /// How many rows it becomes: the remainder when divided by 4; none for null.
    pub copies: Option<i64>,
    /// A bool.
    pub of_bool: Option<bool>,
    /// An int32.
    pub of_int32: Option<i32>,
    /// An int64.
    pub of_int64: Option<i64>,
    /// A float32.
    pub of_float32: Option<f32>,
    /// A float64.
    pub of_float64: Option<f64>,
    /// A string.
    pub of_string: Option<String>,
    /// A bytes.
    pub of_bytes: Option<Vec<u8>>,
    /// A timestamp.
    pub of_timestamp: Option<Timestamp>,
    /// A list of bool.
    pub of_bool_list: Option<Vec<Option<bool>>>,
    /// A list of int64.
    pub of_int64_list: Option<Vec<Option<i64>>>,
    /// A list of float32.
    pub of_float32_list: Option<Vec<Option<f32>>>,
    /// A list of string.
    pub of_string_list: Option<Vec<Option<String>>>,
    /// A list of bytes.
    pub of_bytes_list: Option<Vec<Option<Vec<u8>>>>,
    /// A list of timestamp.
    pub of_timestamp_list: Option<Vec<Option<Timestamp>>>,
}

/// The same values.
#[derive(Clone, Debug, Default, PartialEq, Row)]
pub struct Output {
    /// Which of the rows of one row it is, from 0.
    pub copy: i32,
    /// A bool.
    pub out_of_bool: Option<bool>,
    /// An int32.
    pub out_of_int32: Option<i32>,
    /// An int64.
    pub out_of_int64: Option<i64>,
    /// A float32.
    pub out_of_float32: Option<f32>,
    /// A float64.
    pub out_of_float64: Option<f64>,
    /// A string.
    pub out_of_string: Option<String>,
    /// A bytes.
    pub out_of_bytes: Option<Vec<u8>>,
    /// A timestamp.
    pub out_of_timestamp: Option<Timestamp>,
    /// A list of bool.
    pub out_of_bool_list: Option<Vec<Option<bool>>>,
    /// A list of int64.
    pub out_of_int64_list: Option<Vec<Option<i64>>>,
    /// A list of float32.
    pub out_of_float32_list: Option<Vec<Option<f32>>>,
    /// A list of string.
    pub out_of_string_list: Option<Vec<Option<String>>>,
    /// A list of bytes.
    pub out_of_bytes_list: Option<Vec<Option<Vec<u8>>>>,
    /// A list of timestamp.
    pub out_of_timestamp_list: Option<Vec<Option<Timestamp>>>,
}

/// Gives what it gets, 0 to 3 times.
#[transform(batch)]
pub fn every_row(row: Input) -> Vec<Output> {
    let copies = row.copies.map_or(0, |copies| copies.rem_euclid(4) as i32);
    let output = Output {
        copy: 0,
        out_of_bool: row.of_bool,
        out_of_int32: row.of_int32,
        out_of_int64: row.of_int64,
        out_of_float32: row.of_float32,
        out_of_float64: row.of_float64,
        out_of_string: row.of_string,
        out_of_bytes: row.of_bytes,
        out_of_timestamp: row.of_timestamp,
        out_of_bool_list: row.of_bool_list,
        out_of_int64_list: row.of_int64_list,
        out_of_float32_list: row.of_float32_list,
        out_of_string_list: row.of_string_list,
        out_of_bytes_list: row.of_bytes_list,
        out_of_timestamp_list: row.of_timestamp_list,
    };
    (0..copies)
        .map(|copy| Output {
            copy,
            ..output.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied() {
        let row = |copies| Input {
            copies,
            of_string: Some("ä".to_owned()),
            of_float32_list: Some(vec![None, Some(-0.0)]),
            ..Input::default()
        };
        for (copies, count) in [(None, 0), (Some(4), 0), (Some(-3), 1), (Some(i64::MAX), 3)] {
            let rows = every_row(row(copies));
            assert_eq!(rows.len(), count);
            for (copy, output) in (0..).zip(rows) {
                assert_eq!(output.copy, copy);
                assert_eq!(output.out_of_string, row(copies).of_string);
                assert_eq!(output.out_of_float32_list, row(copies).of_float32_list);
                assert_eq!(output.out_of_bool, None);
            }
        }
    }
}
