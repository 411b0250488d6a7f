use unskew_sdk::prelude::*;

#[transform(on_demand)]
struct In {
    value: i64,
}

fn main() {}
