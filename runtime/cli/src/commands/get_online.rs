//! `unskew get-online`: the features of one entity row, from the online store.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, TimestampMicrosecondArray};
use serde::Serialize;
use serde_json::value::RawValue;
use unskew_core::types::{DataType, Field, ScalarType, UTC};
use unskew_core::{json, text, time, values};
use unskew_engine::Evaluated;
use unskew_store::RequestRows;

use crate::Outcome;
use crate::arguments;
use crate::clock;
use crate::document::Ordered;
use crate::error::Usage;
use crate::output::Output;
use crate::repository;
use crate::table::Table;

/// The answer, in the form of `POST /online`.
#[derive(Serialize)]
struct Answer {
    plan: String,
    as_of: [String; 1],
    features: Ordered<String, [Box<RawValue>; 1]>,
    statuses: Ordered<String, [&'static str; 1]>,
}

/// Asks for one row.
pub(crate) async fn run(
    arguments: arguments::GetOnline,
    output: &Output,
) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    let responder = store.responder(&arguments.features.into_store()).await?;
    let plan = responder.plan();
    let as_of = arguments.as_of.unwrap_or_else(clock::now);
    let keys = Side {
        option: "-e",
        what: "join key",
        fields: &plan.join_keys,
        given: &arguments.entities,
    };
    let request = Side {
        option: "-r",
        what: "request field",
        fields: &plan.request_fields,
        given: &arguments.requests,
    };
    let rows = rows(as_of, &keys, &request)?;
    let evaluated = responder.answer(&rows).await?;
    let answer = answer(responder.digest().to_string(), as_of, &evaluated)?;
    output.print(&answer, shown)?;
    Ok(Outcome::Done)
}

/// The one row that both options make up.
fn rows(as_of: i64, keys: &Side<'_>, request: &Side<'_>) -> Result<RequestRows, Usage> {
    keys.check(request)?;
    request.check(keys)?;
    let missing: Vec<_> = keys.missing().chain(request.missing()).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Usage(format!("something is missing; give {missing}")));
    }
    Ok(RequestRows {
        as_of: TimestampMicrosecondArray::from(vec![as_of]).with_timezone(UTC),
        keys: keys.columns()?,
        request: request.columns()?,
    })
}

/// The values that an option gives, and the fields that want them.
struct Side<'a> {
    option: &'static str,
    what: &'static str,
    fields: &'a [Field],
    given: &'a [(String, String)],
}

impl Side<'_> {
    /// Refuses a value that is given twice, to nobody, or with the option of the other side.
    fn check(&self, other: &Self) -> Result<(), Usage> {
        let Self { option, what, .. } = self;
        let wants = |side: &Self, name: &str| side.fields.iter().any(|field| field.name == name);
        for (index, (name, _)) in self.given.iter().enumerate() {
            if self.given[..index]
                .iter()
                .any(|(earlier, _)| earlier == name)
            {
                return Err(Usage(format!(
                    "`{option} {name}=…` is given twice; get-online asks for one row"
                )));
            }
            if wants(self, name) {
                continue;
            }
            if wants(other, name) {
                return Err(Usage(format!(
                    "`{name}` is a {}; write `{} {name}=…`",
                    other.what, other.option
                )));
            }
            return Err(Usage(format!(
                "no {what} `{name}`; the {what}s are: {}",
                typed(self.fields)
            )));
        }
        Ok(())
    }

    fn value(&self, field: &Field) -> Option<&str> {
        let given = self.given.iter().find(|(name, _)| *name == field.name);
        given.map(|(_, value)| value.as_str())
    }

    /// How to give each field that is not given.
    fn missing(&self) -> impl Iterator<Item = String> {
        let missing = self
            .fields
            .iter()
            .filter(|field| self.value(field).is_none());
        missing.map(|field| {
            format!(
                "`{} {}=VALUE` ({})",
                self.option, field.name, field.data_type
            )
        })
    }

    /// A column of one row for each field.
    fn columns(&self) -> Result<Vec<ArrayRef>, Usage> {
        let column = |field| self.column(field, self.value(field).unwrap_or_default());
        self.fields.iter().map(column).collect()
    }

    fn column(&self, field: &Field, value: &str) -> Result<ArrayRef, Usage> {
        let is_text = field.data_type == DataType::Scalar(ScalarType::String);
        let value = (is_text || !value.is_empty()).then_some(value);
        let value = StringArray::from(vec![value]);
        values::from_text(&value, field.data_type).map_err(|error| {
            Usage(format!(
                "{} {}: {} is no {}{}",
                self.option, field.name, error.value, error.wanted, error.hint
            ))
        })
    }
}

fn typed(fields: &[Field]) -> String {
    text::list(
        fields
            .iter()
            .map(|field| format!("{} ({})", field.name, field.data_type)),
    )
}

fn answer(plan: String, as_of: i64, evaluated: &Evaluated) -> anyhow::Result<Answer> {
    let schema = evaluated.batch.schema();
    let names = || schema.fields().iter().map(|field| field.name().clone());
    let values = evaluated.batch.columns().iter().map(value);
    let values: Vec<_> = values.collect::<anyhow::Result<_>>()?;
    let statuses = evaluated.statuses.iter();
    let statuses = statuses.map(|rows| [rows.first().map_or("", |status| status.name())]);
    Ok(Answer {
        plan,
        as_of: [time::format(as_of)],
        features: Ordered(names().zip(values).collect()),
        statuses: Ordered(names().zip(statuses).collect()),
    })
}

/// The value of a column of one row.
fn value(column: &Arc<dyn Array>) -> anyhow::Result<[Box<RawValue>; 1]> {
    Ok([RawValue::from_string(json::display(column.as_ref(), 0))?])
}

fn shown(answer: &Answer) -> String {
    let mut table = Table::new(&["feature", "value", "status"], &[false; 3]);
    let statuses = answer.statuses.0.iter();
    for ((name, [value]), (_, [status])) in answer.features.0.iter().zip(statuses) {
        table.row([name.as_str(), value.get(), status]);
    }
    format!(
        "{}\nas of {}\nplan {}\n",
        table.text(""),
        answer.as_of[0],
        answer.plan
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }

    /// What becomes of join keys `id` and `name` and request field `km`, where `given` are join
    /// keys.
    fn keys(given: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let scalar = DataType::Scalar;
        let keys = [
            Field::new("id", scalar(ScalarType::Int64)),
            Field::new("name", scalar(ScalarType::String)),
        ];
        let request = [Field::new("km", scalar(ScalarType::Float64))];
        let keys = Side {
            option: "-e",
            what: "join key",
            fields: &keys,
            given: &pairs(given),
        };
        let request = Side {
            option: "-r",
            what: "request field",
            fields: &request,
            given: &pairs(&[("km", "-0")]),
        };
        let rows = rows(0, &keys, &request).map_err(|error| error.to_string())?;
        assert_eq!(json::display(rows.request[0].as_ref(), 0), "-0.0");
        let columns = rows.keys.iter();
        Ok(columns
            .map(|column| json::display(column.as_ref(), 0))
            .collect())
    }

    #[test]
    fn values_come_in_the_order_and_types_of_the_fields() {
        let given = [("name", "ü \""), ("id", "-9223372036854775808")];
        assert_eq!(
            keys(&given).unwrap(),
            ["-9223372036854775808", "\"ü \\\"\""]
        );
    }

    #[test]
    fn an_empty_value_is_null_except_of_a_string() {
        assert_eq!(keys(&[("name", ""), ("id", "")]).unwrap(), ["null", "\"\""]);
    }

    #[test]
    fn mistakes_are_named_with_what_would_be_valid() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (
                &[("id", "1")],
                "something is missing; give `-e name=VALUE` (string)",
            ),
            (
                &[("id", "1"), ("id", "2")],
                "`-e id=…` is given twice; get-online asks for one row",
            ),
            (
                &[("ix", "1")],
                "no join key `ix`; the join keys are: id (int64), name (string)",
            ),
            (&[("km", "1")], "`km` is a request field; write `-r km=…`"),
            (
                &[("id", "1.5"), ("name", "")],
                "-e id: `1.5` is no int64; only a whole number within its range is taken, since \
                 nothing may be lost",
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(keys(given).unwrap_err(), expected);
        }
    }
}
