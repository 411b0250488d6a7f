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
fn one(row: In) -> Out {
    Out { value: row.value }
}

fn main() {}
