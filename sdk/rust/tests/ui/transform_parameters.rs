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
fn two(row: In, factor: i64) -> Out {
    Out { value: row.value * factor }
}

#[transform(on_demand)]
fn none() -> Out {
    Out { value: 1 }
}

#[transform(on_demand)]
fn reference(row: &In) -> Out {
    Out { value: row.value }
}

fn main() {}
