use unskew_sdk::prelude::*;

#[derive(Row)]
struct Pair<T> {
    left: T,
    right: T,
}

#[derive(Row)]
struct Borrowed<'a> {
    name: &'a str,
}

fn main() {}
