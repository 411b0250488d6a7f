//! A component that breaks the law that a row's result depends on that row alone: it counts.

use std::sync::atomic::{AtomicI64, Ordering};

use unskew_sdk::prelude::*;

static CALLS: AtomicI64 = AtomicI64::new(0);

/// A row that is only counted.
#[derive(Row)]
pub struct Input {
    /// Comes out again.
    pub value: i64,
}

/// A row and how many there were.
#[derive(Row)]
pub struct Counted {
    /// What came in.
    pub value: i64,
    /// How many rows this instance has seen, this one included.
    pub calls: i64,
}

/// Counts the rows that it sees.
#[transform(on_demand)]
pub fn counter(row: Input) -> Counted {
    Counted {
        value: row.value,
        calls: CALLS.fetch_add(1, Ordering::Relaxed) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_impure() {
        let first = counter(Input { value: 1 });
        let second = counter(Input { value: 1 });
        assert_ne!(first.calls, second.calls);
    }
}
