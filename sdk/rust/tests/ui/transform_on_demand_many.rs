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
fn list(row: In) -> Vec<Out> {
    vec![Out { value: row.value }]
}

#[transform(on_demand)]
fn maybe(row: In) -> Result<Option<Out>, String> {
    Ok(Some(Out { value: row.value }))
}

fn main() {}
