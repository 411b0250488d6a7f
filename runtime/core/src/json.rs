//! JSON forms of values: exact in both directions.
//!
//! Numbers are read from their own digits, a float32 too, and written with the fewest digits that
//! read back as the same bits. Non-finite floats are the strings `"NaN"`, `"Infinity"`,
//! `"-Infinity"`; bytes are base64; timestamps RFC 3339.

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes as at;
use arrow::datatypes::DataType as ArrowType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::builder::{Builder, Scalars};
use crate::time;
use crate::types::DataType;
use crate::values::{ValueError, whole};

/// A constant of a definition: the JSON form of a value whose type its place gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Literal(pub serde_json::Value);

impl Literal {
    /// A column of one row that holds the value.
    ///
    /// # Errors
    /// The value is none of type `wanted`.
    pub fn column(&self, wanted: DataType) -> Result<ArrayRef, ValueError> {
        let text = self.0.to_string();
        let mut builder = Builder::new(wanted, 1);
        append(&mut builder, &text, wanted).ok_or_else(|| ValueError::new(0, &text, wanted))?;
        Ok(builder.finish())
    }
}

/// Reads JSON values as a column.
///
/// # Errors
/// Names the first row whose value is none of type `wanted`.
pub fn read_column(values: &[&RawValue], wanted: DataType) -> Result<ArrayRef, ValueError> {
    let mut builder = Builder::new(wanted, values.len());
    for (row, raw) in values.iter().enumerate() {
        let text = raw.get();
        append(&mut builder, text, wanted).ok_or_else(|| ValueError::new(row, text, wanted))?;
    }
    Ok(builder.finish())
}

/// Appends the value that a JSON text holds.
fn append(builder: &mut Builder, text: &str, wanted: DataType) -> Option<()> {
    let text = text.trim();
    if text == "null" {
        builder.null();
        return Some(());
    }
    match (wanted, &mut *builder) {
        (DataType::Scalar(_), Builder::Scalar(values)) => append_scalar(values, text),
        (DataType::List(_), _) => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let values = builder.list(items.len())?;
            for item in items {
                match item.get().trim() {
                    "null" => values.null(),
                    text => append_scalar(values, text)?,
                }
            }
            Some(())
        }
        (DataType::Scalar(_), Builder::List { .. }) => None,
    }
}

/// Appends the value that a text without JSON's quotes holds; lists are JSON.
pub(crate) fn append_text(builder: &mut Builder, text: &str, wanted: DataType) -> Option<()> {
    match (wanted, &mut *builder) {
        (DataType::Scalar(_), Builder::Scalar(values)) => match values {
            Scalars::Bool(values) => {
                values.append_value(match text.trim() {
                    "true" | "True" | "TRUE" => true,
                    "false" | "False" | "FALSE" => false,
                    _ => return None,
                });
                Some(())
            }
            Scalars::String(_) | Scalars::Bytes(_) | Scalars::Timestamp(_) => {
                append_string(values, text)
            }
            _ => append_number(values, text.trim())
                .or_else(|| append_non_finite(values, text.trim())),
        },
        _ => append(builder, text, wanted),
    }
}

fn append_scalar(values: &mut Scalars, text: &str) -> Option<()> {
    match (values, text) {
        (Scalars::Bool(values), "true") => values.append_value(true),
        (Scalars::Bool(values), "false") => values.append_value(false),
        (values, text) if text.starts_with('"') => {
            let unquoted: String = serde_json::from_str(text).ok()?;
            return append_string(values, &unquoted).or_else(|| match unquoted.as_str() {
                "NaN" | "Infinity" | "-Infinity" => append_non_finite(values, &unquoted),
                _ => None,
            });
        }
        (values, text) => return append_number(values, text),
    }
    Some(())
}

fn append_string(values: &mut Scalars, text: &str) -> Option<()> {
    match values {
        Scalars::String(_) => return values.text(text),
        Scalars::Bytes(_) => return values.bytes(&BASE64.decode(text).ok()?),
        Scalars::Timestamp(values) => values.append_value(time::parse(text).ok()?),
        _ => return None,
    }
    Some(())
}

fn append_non_finite(values: &mut Scalars, text: &str) -> Option<()> {
    let value = match text.to_ascii_lowercase().as_str() {
        "nan" => f64::NAN,
        "infinity" | "inf" => f64::INFINITY,
        "-infinity" | "-inf" => f64::NEG_INFINITY,
        _ => return None,
    };
    match values {
        Scalars::Float32(values) => values.append_value(value as f32),
        Scalars::Float64(values) => values.append_value(value),
        _ => return None,
    }
    Some(())
}

fn append_number(values: &mut Scalars, text: &str) -> Option<()> {
    if !text.bytes().next_back()?.is_ascii_digit() {
        // Rust's parser also knows "inf", "nan" and "1.".
        return None;
    }
    match values {
        Scalars::Int32(values) => values.append_value(i32::try_from(integer(text)?).ok()?),
        Scalars::Int64(values) => values.append_value(integer(text)?),
        Scalars::Float32(values) => {
            let value: f32 = text.parse().ok()?;
            values.append_value(keeps(text, value.into()).then_some(value)?);
        }
        Scalars::Float64(values) => {
            let value: f64 = text.parse().ok()?;
            values.append_value(keeps(text, value).then_some(value)?);
        }
        Scalars::Bool(_) | Scalars::String(_) | Scalars::Bytes(_) | Scalars::Timestamp(_) => {
            return None;
        }
    }
    Some(())
}

/// Whether `value`, the float next to `text`, may stand for it: a number without fraction and
/// exponent is an integer, of which nothing may be lost; any other means the float next to it.
fn keeps(text: &str, value: f64) -> bool {
    if !value.is_finite() {
        return false;
    }
    if text.contains(['.', 'e', 'E']) || text == "-0" {
        return true;
    }
    match text.parse() {
        Ok(exact) => whole(value) == Some(exact),
        // Beyond 128 bits: Rust writes all digits of the integer that the float is.
        Err(_) => format!("{value:.0}") == text,
    }
}

/// The integer that a number is, from its own digits: 35, 35.0, 1e3, but neither 0.5 nor −0.0.
fn integer(text: &str) -> Option<i64> {
    if let Ok(integer) = text.parse() {
        return Some(integer);
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = unsigned
        .split_once(['e', 'E'])
        .map_or(Some((unsigned, 0)), |(mantissa, exponent)| {
            Some((mantissa, exponent.parse::<i32>().ok()?))
        })?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        // The sign of −0.0 would be lost.
        return (!negative).then_some(0);
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let power =
        i64::from(exponent) + i64::try_from(trailing).ok()? - i64::try_from(fraction.len()).ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(power).ok()?)?;
    let magnitude = significant.parse::<i128>().ok()?.checked_mul(scale)?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Writes the value in row `row` of `array`, a column of one of the contract's types.
///
/// # Errors
/// Only those of `out`.
pub fn write_value(out: &mut impl Write, array: &dyn Array, row: usize) -> std::io::Result<()> {
    if array.is_null(row) {
        return out.write_all(b"null");
    }
    match array.data_type() {
        ArrowType::Boolean => write!(out, "{}", array.as_boolean().value(row)),
        ArrowType::Int32 => write!(out, "{}", array.as_primitive::<at::Int32Type>().value(row)),
        ArrowType::Int64 => write!(out, "{}", array.as_primitive::<at::Int64Type>().value(row)),
        ArrowType::Float32 => {
            let value = array.as_primitive::<at::Float32Type>().value(row);
            match non_finite(value.into()) {
                Some(text) => out.write_all(text),
                None => Ok(serde_json::to_writer(out, &value)?),
            }
        }
        ArrowType::Float64 => {
            let value = array.as_primitive::<at::Float64Type>().value(row);
            match non_finite(value) {
                Some(text) => out.write_all(text),
                None => Ok(serde_json::to_writer(out, &value)?),
            }
        }
        ArrowType::Utf8 => Ok(serde_json::to_writer(
            out,
            array.as_string::<i32>().value(row),
        )?),
        ArrowType::Binary => write!(
            out,
            "\"{}\"",
            BASE64.encode(array.as_binary::<i32>().value(row))
        ),
        ArrowType::Timestamp(..) => {
            let micros = array
                .as_primitive::<at::TimestampMicrosecondType>()
                .value(row);
            write!(out, "\"{}\"", time::format(micros))
        }
        ArrowType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            write_column(out, &items)
        }
        other => Err(std::io::Error::other(format!(
            "{other} is no type of the contract"
        ))),
    }
}

/// Writes a column as a JSON array.
///
/// # Errors
/// Only those of `out`.
pub fn write_column(out: &mut impl Write, array: &dyn Array) -> std::io::Result<()> {
    out.write_all(b"[")?;
    for row in 0..array.len() {
        if row > 0 {
            out.write_all(b",")?;
        }
        write_value(out, array, row)?;
    }
    out.write_all(b"]")
}

/// The value in row `row`, as text for a person or a message.
pub fn display(array: &dyn Array, row: usize) -> String {
    let mut text = Vec::new();
    match write_value(&mut text, array, row) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => error.to_string(),
    }
}

fn non_finite(value: f64) -> Option<&'static [u8]> {
    if value.is_nan() {
        Some(b"\"NaN\"")
    } else if value == f64::INFINITY {
        Some(b"\"Infinity\"")
    } else if value == f64::NEG_INFINITY {
        Some(b"\"-Infinity\"")
    } else {
        None
    }
}
