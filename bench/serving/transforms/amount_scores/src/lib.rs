//! Two scores of two features and a request field, as cheap as features usually are: what is
//! measured is the way into the component and out of it.

use unskew_sdk::prelude::*;

/// Two features and a request field.
#[derive(Clone, Copy, Row)]
pub struct Inputs {
    /// A feature; may be null.
    pub f0: Option<f64>,
    /// A feature; may be null.
    pub i0: Option<i64>,
    /// A request field.
    pub amount: f64,
}

/// The scores.
#[derive(Clone, Copy, Debug, PartialEq, Row)]
pub struct Scores {
    /// The amount by the first feature; null if that is.
    pub ratio: Option<f64>,
    /// A weighted sum.
    pub score: f64,
}

/// Two scores of two features and a request field.
#[transform(on_demand)]
pub fn amount_scores(row: Inputs) -> Scores {
    Scores {
        ratio: row.f0.map(|f0| row.amount / (f0 + 1.0)),
        score: row.i0.unwrap_or(0) as f64 * 0.5 + row.amount * 0.25,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_nothing_is_null() {
        let scores = amount_scores(Inputs {
            f0: None,
            i0: Some(3),
            amount: 2.0,
        });
        assert_eq!((scores.ratio, scores.score), (None, 2.0));
    }
}
