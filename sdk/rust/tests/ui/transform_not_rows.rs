use unskew_sdk::prelude::*;

#[derive(Row)]
struct In {
    value: i64,
}

#[derive(Row)]
struct Out {
    value: i64,
}

#[transform(on_demand)]
fn number_in(value: f64) -> Out {
    Out { value: value as i64 }
}

#[transform(on_demand)]
fn number_out(row: In) -> f64 {
    row.value as f64
}

fn main() {}
