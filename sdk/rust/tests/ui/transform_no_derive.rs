use unskew_sdk::prelude::*;

struct In {
    value: i64,
}

#[derive(Row)]
struct Out {
    value: i64,
}

#[transform(on_demand)]
fn f(row: In) -> Result<Out, String> {
    Ok(Out { value: row.value })
}

fn main() {}
