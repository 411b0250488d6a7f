//! Two figures of three, of different types and with nulls, as cheap as features usually are: what
//! is measured is one call on the request path.

use unskew_sdk::prelude::*;

/// Three features of an entity.
#[derive(Clone, Copy, Row)]
pub struct Three {
    /// Null for a customer who has never bought anything.
    pub days_since_last_purchase: Option<i64>,
    /// Never null.
    pub purchases_last_7d: i64,
    /// May be null.
    pub spend_last_30d: Option<f64>,
}

/// Two figures of them.
#[derive(Clone, Copy, Debug, PartialEq, Row)]
pub struct Two {
    /// Null if the last purchase is.
    pub recency: Option<f64>,
    /// Never null.
    pub activity: f64,
}

/// Two figures of three.
#[transform(on_demand)]
pub fn three_to_two(row: Three) -> Two {
    Two {
        recency: row
            .days_since_last_purchase
            .map(|days| 1.0 / (1.0 + days as f64 / 30.0)),
        activity: row.purchases_last_7d as f64 * 0.4 + row.spend_last_30d.unwrap_or(0.0) * 0.01,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_who_never_bought_anything_has_no_recency() {
        let two = three_to_two(Three {
            days_since_last_purchase: None,
            purchases_last_7d: 5,
            spend_last_30d: None,
        });
        assert_eq!(
            two,
            Two {
                recency: None,
                activity: 2.0
            }
        );
    }
}
