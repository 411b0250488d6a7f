use unskew_sdk::prelude::*;

#[derive(Row)]
enum Status {
    Open,
    Closed,
}

fn main() {}
