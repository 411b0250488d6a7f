use unskew_sdk::prelude::*;

#[derive(Row)]
struct Unsigned {
    id: u64,
    name: &'static str,
    point: (f64, f64),
    counts: Vec<u32>,
    twice: Option<Option<i64>>,
    prices: std::collections::HashMap<String, f64>,
}

// No more errors here.
#[transform(on_demand)]
fn f(row: Unsigned) -> Unsigned {
    row
}

fn main() {}
