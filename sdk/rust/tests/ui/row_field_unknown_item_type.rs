use unskew_sdk::prelude::*;

struct Money(i64);

#[derive(Row)]
struct Order {
    amounts: Vec<Money>,
    nested: Vec<Vec<i64>>,
}

fn main() {}
