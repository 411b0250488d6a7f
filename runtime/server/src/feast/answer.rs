//! The answer of `POST /get-online-features`, column by column.

use std::collections::BTreeMap;
use std::io::{self, Write};

use unskew_core::plan::FeaturePlan;
use unskew_core::{json, time};
use unskew_engine::{Evaluated, Status};
use unskew_store::RequestRows;

use super::columns::{Column, Events, Origin, events, status};
use super::form;

/// What stands for the event timestamp of a value that has none.
const NONE: &str = "\"1970-01-01T00:00:00Z\"";

/// Writes an answer:
///
/// ```json
/// {"metadata": {"feature_names": ["driver_id", "conv_rate"]},
///  "results": [{"values": [1001], "statuses": ["PRESENT"],
///               "event_timestamps": ["1970-01-01T00:00:00Z"]}, …]}
/// ```
///
/// With `views` the metadata names the views too.
///
/// # Errors
/// A column is of none of the contract's types.
pub(super) fn write(
    plan: &FeaturePlan,
    columns: &[Column],
    rows: &RequestRows,
    evaluated: &Evaluated,
    views: bool,
) -> io::Result<Vec<u8>> {
    let count = rows.as_of.len();
    let mut out = Vec::new();
    out.write_all(b"{\"metadata\":{\"feature_names\":")?;
    let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
    serde_json::to_writer(&mut out, &names)?;
    let events = events(columns, evaluated);
    if views {
        let views = events.keys().filter_map(|&lookup| plan.lookups.get(lookup));
        let views: Vec<_> = views
            .map(|lookup| BTreeMap::from([("name", &lookup.name)]))
            .collect();
        out.write_all(b",\"feature_view_metadata\":")?;
        serde_json::to_writer(&mut out, &views)?;
    }
    out.write_all(b"},\"results\":[")?;
    let none = timestamps(&vec![None; count]);
    let events: BTreeMap<usize, String> = events
        .iter()
        .map(|(&lookup, events)| (lookup, timestamps(events)))
        .collect();
    for (index, column) in columns.iter().enumerate() {
        out.write_all(if index > 0 { b",{" } else { b"{" })?;
        let (values, statuses, events) = match column.origin {
            Origin::Key(key) => (&rows.keys[key], None, &none),
            Origin::Output { output, lookup } => (
                evaluated.batch.column(output),
                Some(&evaluated.statuses[output]),
                lookup.and_then(|l| events.get(&l)).unwrap_or(&none),
            ),
        };
        out.write_all(b"\"values\":")?;
        json::write_column(&mut out, &form::of_json(values))?;
        out.write_all(b",\"statuses\":[")?;
        for row in 0..count {
            let found = statuses.map_or(Status::Present, |statuses| status(statuses[row]));
            let comma = if row > 0 { "," } else { "" };
            write!(out, "{comma}\"{}\"", found.name())?;
        }
        write!(out, "],\"event_timestamps\":{events}}}")?;
    }
    out.write_all(b"]}")?;
    Ok(out)
}

fn timestamps(events: &Events) -> String {
    let mut out = String::from("[");
    for (row, event) in events.iter().enumerate() {
        if row > 0 {
            out.push(',');
        }
        match event {
            // An instant has only digits and a few signs, and needs no escapes.
            Some(micros) => out.extend(["\"", &time::format(*micros), "\""]),
            None => out.push_str(NONE),
        }
    }
    out.push(']');
    out
}
