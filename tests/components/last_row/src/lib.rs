//! A component that breaks the law that a row's result depends on that row alone: a null is filled
//! with the value of the row before.

use std::sync::Mutex;

use unskew_sdk::prelude::*;

static LAST: Mutex<Option<f64>> = Mutex::new(None);

/// A row with a gap.
#[derive(Row)]
pub struct Input {
    /// What may be missing.
    pub value: Option<f64>,
}

/// A row without the gap.
#[derive(Row)]
pub struct Filled {
    /// The value of this row, or else of the last row that had one.
    pub value: Option<f64>,
}

/// Fills a gap with what the rows before had.
#[transform(on_demand)]
pub fn last_row(row: Input) -> Result<Filled, String> {
    let mut last = LAST.lock().map_err(|error| error.to_string())?;
    *last = row.value.or(*last);
    Ok(Filled { value: *last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_impure() {
        let alone = last_row(Input { value: None });
        assert_eq!(alone.map(|row| row.value), Ok(None));
        let before = last_row(Input { value: Some(1.5) });
        assert_eq!(before.map(|row| row.value), Ok(Some(1.5)));
        let after = last_row(Input { value: None });
        assert_eq!(after.map(|row| row.value), Ok(Some(1.5)));
    }
}
