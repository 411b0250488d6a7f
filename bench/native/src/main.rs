//! usage: native COLUMNS THREADS ROUNDS
//!
//! Runs the transformation as an ordinary Rust function, and prints the seconds of each round.
//! COLUMNS holds ten columns one after the other, each of as many little-endian float64; a NaN is a
//! null. As in a component, a row with a null where none may be does not reach the function. Reading
//! the file is not timed; making the columns of the result is.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use ten_to_five::{Five, Ten, ten_to_five};

const WIDTH: usize = 10;
const NULLABLE: usize = 2;

/// The columns of a result, with a flag for each row that has one.
#[derive(Default)]
struct Columns {
    present: Vec<bool>,
    sum: Vec<Option<f64>>,
    rest: [Vec<f64>; 4],
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, rounds] = arguments.as_slice() else {
        return Err("usage: native COLUMNS THREADS ROUNDS".into());
    };
    let (threads, rounds): (usize, usize) = (threads.parse()?, rounds.parse()?);
    let values: Vec<f64> = std::fs::read(path)?
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes))
        .collect();
    let rows = values.len() / WIDTH;
    if rows == 0 || !values.len().is_multiple_of(WIDTH) || threads == 0 {
        return Err(format!(
            "{path} holds {} values, wanted {WIDTH} columns of one length, and a thread or more",
            values.len()
        )
        .into());
    }
    let columns: [&[f64]; WIDTH] = std::array::from_fn(|index| &values[index * rows..][..rows]);
    for _ in 0..rounds {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in 0..threads {
                let range = rows * part / threads..rows * (part + 1) / threads;
                let part = columns.map(|column| &column[range.clone()]);
                scope.spawn(move || black_box(evaluate(part)));
            }
        });
        println!("{}", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Calls the function for each row, and puts the results into columns.
fn evaluate(columns: [&[f64]; WIDTH]) -> Columns {
    let mut out = Columns::default();
    let rows = columns[0].len();
    for row in 0..rows {
        let row = columns.map(|column| column[row]);
        let present = !row[NULLABLE..].iter().any(|value| value.is_nan());
        let five = if present {
            ten_to_five(ten(row))
        } else {
            NOTHING
        };
        out.present.push(present);
        out.sum.push(five.sum);
        for (column, value) in
            out.rest
                .iter_mut()
                .zip([five.mean, five.greatest, five.share, five.score])
        {
            column.push(value);
        }
    }
    out
}

/// What stands in the columns where there is no result.
const NOTHING: Five = Five {
    sum: None,
    mean: 0.0,
    greatest: 0.0,
    share: 0.0,
    score: 0.0,
};

fn ten(row: [f64; WIDTH]) -> Ten {
    let nullable = |value: f64| (!value.is_nan()).then_some(value);
    let [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9] = row;
    Ten {
        f0: nullable(f0),
        f1: nullable(f1),
        f2,
        f3,
        f4,
        f5,
        f6,
        f7,
        f8,
        f9,
    }
}
