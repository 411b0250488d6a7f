use unskew_sdk::prelude::*;

#[derive(Row)]
struct Point(f64, f64);

#[derive(Row)]
struct Unit;

#[derive(Row)]
struct Empty {}

fn main() {}
