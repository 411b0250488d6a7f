use unskew_sdk::prelude::*;

struct Refused;

#[derive(Row)]
struct In {
    value: i64,
}

#[derive(Row)]
struct Out {
    value: i64,
}

#[transform(on_demand)]
fn f(row: In) -> Result<Out, Refused> {
    Ok(Out { value: row.value })
}

fn main() {}
