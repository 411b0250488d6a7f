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
fn f(row: In) {
    let _ = row.value;
}

#[transform(batch)]
fn g(row: In) {
    let _ = row.value;
}

fn main() {}
