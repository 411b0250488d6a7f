//! Transformations of every shape, run as a component runs them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::fmt;

use unskew_sdk::__private::contract::{
    Batch, Column, DataType, Flat, Kind, Output, ScalarType, Values,
};
use unskew_sdk::__private::{About, describe_batch, describe_on_demand, run_batch, run_on_demand};
use unskew_sdk::prelude::*;

/// A number.
#[derive(Row)]
struct Number {
    /// Any number.
    ///
    /// Even a negative one.
    value: i64,
}

#[derive(Row)]
struct Halves {
    r#type: String,
    half: Option<i64>,
    divisors: Vec<i64>,
}

/// Halves a number.
#[transform(on_demand)]
fn halve(row: Number) -> Result<Halves, String> {
    if row.value < 0 {
        return Err(format!("{} is negative", row.value));
    }
    Ok(Halves {
        r#type: if row.value % 2 == 0 { "even" } else { "odd" }.to_owned(),
        half: (row.value % 2 == 0).then_some(row.value / 2),
        divisors: (1..=row.value).filter(|d| row.value % d == 0).collect(),
    })
}

#[transform(on_demand)]
fn destructured(Number { value }: Number) -> Number {
    Number { value: value + 1 }
}

struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

#[transform(batch)]
fn repeated(row: Number) -> Result<Vec<Number>, Refused> {
    match row.value {
        13 => Err(Refused),
        value => Ok((0..value).map(|value| Number { value }).collect()),
    }
}

#[transform(batch)]
fn filtered(row: Number) -> Option<Number> {
    (row.value != 0).then_some(row)
}

#[transform(batch)]
fn lazy(row: Number) -> impl Iterator<Item = Number> {
    std::iter::successors(Some(row), |row| {
        (row.value > 0).then(|| Number {
            value: row.value - 1,
        })
    })
}

#[transform(batch)]
fn lazy_or_refused(row: Number) -> Result<impl IntoIterator<Item = Number>, Refused> {
    Ok([row])
}

fn numbers(values: &[i64]) -> Batch {
    let flat = Flat {
        length: values.len() as u32,
        validity: Vec::new(),
        values: Values::Int64s(values.to_vec()),
    };
    Batch {
        rows: values.len() as u32,
        columns: vec![Column::Flat(flat)],
    }
}

/// The numbers of an output with one column of them.
fn values(output: &Output) -> &[i64] {
    match &output.columns[..] {
        [
            Column::Flat(Flat {
                values: Values::Int64s(values),
                ..
            }),
        ] => values,
        other => panic!("one column of numbers, not {other:?}"),
    }
}

#[test]
fn it_says_what_it_is() {
    let about = About {
        component: "numbers",
        version: "1.2.3",
        function: "halve",
        documentation: "Halves a number.",
    };
    let description = describe_on_demand(about, halve);
    assert_eq!(description.component, "numbers");
    assert_eq!(description.version, "1.2.3");
    assert_eq!(description.function, "halve");
    assert_eq!(description.documentation, "Halves a number.");
    assert_eq!(description.kind, Kind::OnDemand);

    let [value] = &description.inputs[..] else {
        panic!("one input")
    };
    assert_eq!(value.name, "value");
    assert_eq!(value.description, "Any number.\n\nEven a negative one.");

    let outputs = description.outputs.iter();
    let outputs: Vec<_> = outputs
        .map(|f| (f.name.as_str(), f.data_type, f.nullable))
        .collect();
    assert_eq!(
        outputs,
        [
            ("type", DataType::Scalar(ScalarType::String), false),
            ("half", DataType::Scalar(ScalarType::Int64), true),
            ("divisors", DataType::ListOf(ScalarType::Int64), false),
        ]
    );
    assert_eq!(describe_batch(about, repeated).kind, Kind::Batch);
}

#[test]
fn on_demand_gives_a_row_for_each_row() {
    let output = run_on_demand(numbers(&[6, 7]), halve).unwrap();
    assert_eq!(output.rows, 2);
    assert!(output.source_row.is_empty());
    let [
        Column::Flat(kind),
        Column::Flat(half),
        Column::Lists(divisors),
    ] = &output.columns[..]
    else {
        panic!("three columns")
    };
    let Values::Strings(text) = &kind.values else {
        panic!("strings")
    };
    assert_eq!(
        (&text.offsets[..], &text.data[..]),
        (&[0, 4, 7][..], &b"evenodd"[..])
    );
    assert_eq!(half.validity, [0b01]);
    assert_eq!(half.values, Values::Int64s(vec![3, 0]));
    assert_eq!(divisors.offsets, [0, 4, 6]);
    assert_eq!(
        divisors.items.values,
        Values::Int64s(vec![1, 2, 3, 6, 1, 7])
    );
}

#[test]
fn an_error_is_a_failure_of_its_row() {
    let failure = run_on_demand(numbers(&[6, -7, -8]), halve).unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (Some(1), "-7 is negative")
    );
    let failure = run_batch(numbers(&[1, 2, 13]), repeated).unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (Some(2), "refused")
    );
}

#[test]
fn a_plain_row_cannot_fail() {
    let plus_one = |row| Ok::<_, Infallible>(destructured(row));
    let output = run_on_demand(numbers(&[1, 2]), plus_one).unwrap();
    assert_eq!(values(&output), [2, 3]);
}

#[test]
fn batch_gives_any_number_of_rows_and_says_from_which() {
    let output = run_batch(numbers(&[2, 0, 3]), repeated).unwrap();
    assert_eq!(output.rows, 5);
    assert_eq!(values(&output), [0, 1, 0, 1, 2]);
    assert_eq!(output.source_row, [0, 0, 2, 2, 2]);

    let output = run_batch(numbers(&[0, 5, 0]), |row| {
        Ok::<_, Infallible>(filtered(row))
    })
    .unwrap();
    assert_eq!(
        (values(&output), &output.source_row[..]),
        (&[5][..], &[1][..])
    );

    let output = run_batch(numbers(&[1, 2]), |row| Ok::<_, Infallible>(lazy(row))).unwrap();
    assert_eq!(values(&output), [1, 0, 2, 1, 0]);
    assert_eq!(output.source_row, [0, 0, 1, 1, 1]);

    let output = run_batch(numbers(&[4]), lazy_or_refused).unwrap();
    assert_eq!(values(&output), [4]);
}

#[test]
fn batch_may_give_nothing() {
    let output = run_batch(numbers(&[0, 0]), |row| Ok::<_, Infallible>(filtered(row))).unwrap();
    assert_eq!((output.rows, values(&output)), (0, &[][..]));
}
