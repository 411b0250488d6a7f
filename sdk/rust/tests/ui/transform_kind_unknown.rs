use unskew_sdk::prelude::*;

#[derive(Row)]
struct In {
    value: i64,
}

#[derive(Row)]
struct Out {
    value: i64,
}

#[transform(streaming)]
fn f(row: In) -> Out {
    Out { value: row.value }
}

#[transform(on_demand, batch)]
fn g(row: In) -> Out {
    Out { value: row.value }
}

fn main() {}
