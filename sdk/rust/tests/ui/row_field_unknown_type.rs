use unskew_sdk::prelude::*;

struct Money(i64);

#[derive(Row)]
struct Order {
    amount: Money,
}

fn main() {}
