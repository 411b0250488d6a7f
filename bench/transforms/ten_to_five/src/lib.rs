//! Five figures of ten, as cheap as features usually are: what is measured is the way into the
//! component and out of it.

use unskew_sdk::prelude::*;

/// Ten features of an entity.
#[derive(Clone, Copy, Row)]
pub struct Ten {
    /// May be null.
    pub f0: Option<f64>,
    /// May be null.
    pub f1: Option<f64>,
    /// Never null.
    pub f2: f64,
    /// Never null.
    pub f3: f64,
    /// Never null.
    pub f4: f64,
    /// Never null.
    pub f5: f64,
    /// Never null.
    pub f6: f64,
    /// Never null.
    pub f7: f64,
    /// Never null.
    pub f8: f64,
    /// Never null.
    pub f9: f64,
}

/// Five figures of them.
#[derive(Clone, Copy, Debug, PartialEq, Row)]
pub struct Five {
    /// The sum of the first two; null if one of them is.
    pub sum: Option<f64>,
    /// The mean of the others.
    pub mean: f64,
    /// The greatest of the others.
    pub greatest: f64,
    /// One of them as a share of two.
    pub share: f64,
    /// A weighted score.
    pub score: f64,
}

/// Five figures of ten.
#[transform(on_demand)]
pub fn ten_to_five(row: Ten) -> Five {
    let others = [
        row.f2, row.f3, row.f4, row.f5, row.f6, row.f7, row.f8, row.f9,
    ];
    Five {
        sum: row.f0.zip(row.f1).map(|(left, right)| left + right),
        mean: others.iter().sum::<f64>() / 8.0,
        greatest: others.iter().copied().fold(f64::MIN, f64::max),
        share: row.f2.abs() / (row.f2.abs() + row.f3.abs() + 1.0),
        score: row.f4 * 0.4 + row.f5 * 0.3 - row.f6 * row.f7 + row.f0.unwrap_or(0.0) * 0.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_ones() {
        let ones = Ten {
            f0: Some(1.0),
            f1: None,
            f2: 1.0,
            f3: 1.0,
            f4: 1.0,
            f5: 1.0,
            f6: 1.0,
            f7: 1.0,
            f8: 1.0,
            f9: 1.0,
        };
        let five = ten_to_five(ones);
        assert_eq!((five.sum, five.mean, five.greatest), (None, 1.0, 1.0));
        assert_eq!(five.share, 1.0 / 3.0);
    }
}
