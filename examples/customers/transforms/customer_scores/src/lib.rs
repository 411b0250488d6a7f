//! Scores of a customer at the moment of an order.

use unskew_sdk::prelude::*;

/// What a customer has done lately, and the order at hand.
#[derive(Row)]
pub struct Activity {
    /// Null for a customer who has never bought anything.
    pub days_since_last_purchase: Option<i64>,
    /// Purchases in the last 7 days.
    pub purchases_last_7d: i64,
    /// Pages viewed in the last 7 days.
    pub page_views_last_7d: i64,
    /// The share of carts in the last 30 days that were not bought, 0 to 1.
    pub cart_abandonment_rate_30d: f64,
    /// The amount of the order at hand, in dollars.
    pub amount: f64,
    /// The mean amount of an order in the last 30 days, in dollars; null if there was none.
    pub mean_amount_30d: Option<f64>,
}

/// Scores of a customer.
#[derive(Debug, PartialEq, Row)]
pub struct Scores {
    /// 1 for a purchase today, a half after 30 days; null without a purchase.
    pub recency_score: Option<f64>,
    /// Higher for a customer who buys and looks around more.
    pub activity_score: f64,
    /// The amount of the order as a multiple of the usual one; null without a usual one.
    pub amount_vs_mean: Option<f64>,
}

/// How recent and how busy a customer is, and how unusual the order.
#[transform(on_demand)]
pub fn customer_scores(row: Activity) -> Scores {
    Scores {
        recency_score: row
            .days_since_last_purchase
            .map(|days| 1.0 / (1.0 + days as f64 / 30.0)),
        activity_score: row.purchases_last_7d as f64 * 0.4
            + row.page_views_last_7d as f64 * 0.01
            + (1.0 - row.cart_abandonment_rate_30d) * 0.3,
        amount_vs_mean: row
            .mean_amount_30d
            .filter(|mean| *mean > 0.0)
            .map(|mean| row.amount / mean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity() -> Activity {
        Activity {
            days_since_last_purchase: Some(30),
            purchases_last_7d: 0,
            page_views_last_7d: 100,
            cart_abandonment_rate_30d: 1.0,
            amount: 50.0,
            mean_amount_30d: Some(25.0),
        }
    }

    #[test]
    fn a_month_halves_the_recency() {
        let scores = Scores {
            recency_score: Some(0.5),
            activity_score: 1.0,
            amount_vs_mean: Some(2.0),
        };
        assert_eq!(customer_scores(activity()), scores);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let newcomer = Activity {
            days_since_last_purchase: None,
            mean_amount_30d: None,
            ..activity()
        };
        let scores = customer_scores(newcomer);
        assert_eq!((scores.recency_score, scores.amount_vs_mean), (None, None));
    }
}
