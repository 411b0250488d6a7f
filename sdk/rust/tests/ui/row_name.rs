use unskew_sdk::prelude::*;

#[derive(Row)]
struct Order {
    größe: f64,
}

fn main() {}
