use unskew_sdk::prelude::*;

#[derive(Row)]
struct In {
    value: i64,
}

#[derive(Row)]
struct Out {
    value: i64,
}

#[transform(batch)]
fn numbers(row: In) -> Vec<i64> {
    vec![row.value]
}

#[transform(batch)]
fn hidden(row: In) -> impl Iterator<Item = i64> {
    std::iter::once(row.value)
}

fn main() {}
