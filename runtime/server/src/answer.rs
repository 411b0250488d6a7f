//! The answer of `POST /online`: written by the server, read by the client.

use std::io::{self, Write};

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use serde_json::value::RawValue;
use unskew_core::digest::Digest;
use unskew_core::json;
use unskew_core::plan::FeaturePlan;
use unskew_core::types::{DataType, ScalarType};
use unskew_engine::{Evaluated, Status};

use crate::object::{Object, write_object};

/// Writes the features of each row, column by column:
///
/// ```json
/// {"plan": "sha256:…", "as_of": ["2001-03-01T12:00:00Z"],
///  "features": {"mean_delay": [3.5]}, "statuses": {"mean_delay": ["PRESENT"]}}
/// ```
///
/// # Errors
/// A column is of none of the contract's types.
pub(crate) fn write(
    digest: Digest,
    as_of: &TimestampMicrosecondArray,
    evaluated: &Evaluated,
) -> io::Result<Vec<u8>> {
    let schema = evaluated.batch.schema_ref();
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    let mut out = Vec::with_capacity(expected(evaluated));
    write!(out, "{{\"plan\":\"{digest}\",\"as_of\":")?;
    json::write_column(&mut out, as_of)?;
    out.write_all(b",\"features\":")?;
    let columns = names().zip(evaluated.batch.columns());
    write_object(&mut out, columns, |out, column| {
        json::write_column(out, column)
    })?;
    out.write_all(b",\"statuses\":")?;
    write_object(
        &mut out,
        names().zip(&evaluated.statuses),
        |out, statuses| {
            write_statuses(out, statuses);
            Ok(())
        },
    )?;
    out.write_all(b"}")?;
    Ok(out)
}

/// About how many bytes an answer has, so that it need not move as it grows.
fn expected(evaluated: &Evaluated) -> usize {
    const AROUND: usize = 160;
    const INSTANT: usize = 32;
    const VALUE: usize = 20;
    const STATUS: usize = 10;
    let rows = evaluated.batch.num_rows();
    let schema = evaluated.batch.schema_ref();
    let columns = schema.fields().iter();
    let columns = columns.map(|field| 2 * (field.name().len() + 6) + rows * (VALUE + STATUS));
    AROUND + rows * INSTANT + columns.sum::<usize>()
}

fn write_statuses(out: &mut Vec<u8>, statuses: &[Status]) {
    out.push(b'[');
    for (row, status) in statuses.iter().enumerate() {
        if row > 0 {
            out.push(b',');
        }
        // A status is a word of capital letters and needs no escapes.
        out.push(b'"');
        out.extend_from_slice(status.name().as_bytes());
        out.push(b'"');
    }
    out.push(b']');
}

/// Reads an answer as the plan's outputs for rows of the instants `as_of`.
///
/// # Errors
/// Says what of the answer is not as it should be.
pub(crate) fn read(
    body: &[u8],
    plan: &FeaturePlan,
    digest: Digest,
    as_of: &TimestampMicrosecondArray,
) -> Result<RecordBatch, String> {
    let body = Object::of_body(body).map_err(|problem| problem.to_string())?;
    let member = |name: &str| body.get(name).ok_or_else(|| format!("it has no `{name}`"));

    let given: String = serde_json::from_str(member("plan")?.get())
        .map_err(|error| format!("its `plan` is no text: {error}"))?;
    if given != digest.to_string() {
        return Err(format!("it comes of plan {given}, not of {digest}"));
    }

    let instants = column(
        "as_of",
        member("as_of")?,
        DataType::Scalar(ScalarType::Timestamp),
        as_of.len(),
    )?;
    if instants.as_primitive::<TimestampMicrosecondType>() != as_of {
        return Err("its `as_of` is not that of the request".to_owned());
    }

    let features = Object::of_member(member("features")?, "features")
        .map_err(|problem| problem.to_string())?;
    if let Some((name, _)) = features
        .members()
        .iter()
        .find(|(name, _)| plan.outputs.iter().all(|output| output.name != *name))
    {
        return Err(format!("its feature `{name}` is none of the plan"));
    }
    let columns = plan.outputs.iter().map(|output| {
        let values = features
            .get(&output.name)
            .ok_or_else(|| format!("it has no feature `{}`", output.name))?;
        column(&output.name, values, output.data_type, as_of.len())
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(plan.output_schema(), columns).map_err(|error| error.to_string())
}

fn column(
    name: &str,
    value: &RawValue,
    data_type: DataType,
    rows: usize,
) -> Result<ArrayRef, String> {
    let values: Vec<&RawValue> = serde_json::from_str(value.get())
        .map_err(|error| format!("its `{name}` is no list: {error}"))?;
    if values.len() != rows {
        return Err(format!(
            "its `{name}` has {} values for {rows} rows",
            values.len()
        ));
    }
    json::read_column(&values, data_type).map_err(|error| format!("its `{name}`: {error}"))
}
