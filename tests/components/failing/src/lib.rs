//! A component that fails in every way in which one can.

use std::hint::black_box;

use unskew_sdk::prelude::*;

/// How to fail, and with which value.
#[derive(Row)]
pub struct Input {
    /// `ok`, `slow`, `err`, `panic`, `overflow`, `divide`, `loop`, `allocate` or `stack`.
    pub mode: String,
    /// Comes out again, or is in the message.
    pub value: i64,
}

/// What came in.
#[derive(Debug, PartialEq, Row)]
pub struct Output {
    /// What came in.
    pub value: i64,
}

/// Fails as `mode` says.
#[transform(on_demand)]
pub fn failing(row: Input) -> Result<Output, String> {
    let value = match row.mode.as_str() {
        "ok" => row.value,
        "slow" => delay(row.value),
        "err" => return Err(format!("the value {} is refused", row.value)),
        "panic" => panic!("the value {} was not expected", row.value),
        "overflow" => row.value + black_box(i64::MAX),
        "divide" => row.value / black_box(0),
        "loop" => spin(row.value),
        "allocate" => allocate(),
        "stack" => descend(row.value),
        other => return Err(format!("no such mode: {other}")),
    };
    Ok(Output { value })
}

/// Takes some milliseconds.
fn delay(value: i64) -> i64 {
    for turn in 0..2_000_000 {
        black_box(turn);
    }
    value
}

/// Goes on without end.
fn spin(mut value: i64) -> i64 {
    while black_box(true) {
        value = black_box(value.wrapping_add(1));
    }
    value
}

/// Takes memory, and writes to all of it, until there is no more.
fn allocate() -> i64 {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    while black_box(true) {
        blocks.push(black_box(vec![1; 1 << 20]));
    }
    blocks.len() as i64
}

/// Calls itself until the stack is full.
#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn descend(value: i64) -> i64 {
    let frame = black_box([value; 32]);
    black_box(descend(frame[31].wrapping_add(1))) + frame[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: &str, value: i64) -> Result<Output, String> {
        failing(Input {
            mode: mode.to_owned(),
            value,
        })
    }

    #[test]
    fn ok_and_slow_give_the_value() {
        assert_eq!(run("ok", 7), Ok(Output { value: 7 }));
        assert_eq!(run("slow", 7), Ok(Output { value: 7 }));
    }

    #[test]
    fn errors_have_a_message() {
        assert_eq!(run("err", 7), Err("the value 7 is refused".to_owned()));
        assert_eq!(run("no", 7), Err("no such mode: no".to_owned()));
    }

    #[test]
    #[should_panic(expected = "the value 7 was not expected")]
    fn panic_panics() {
        let _ = run("panic", 7);
    }

    #[test]
    #[should_panic(expected = "attempt to divide by zero")]
    fn divide_panics() {
        let _ = run("divide", 7);
    }
}
