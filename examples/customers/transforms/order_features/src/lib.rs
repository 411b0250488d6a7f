//! Features of an order, from the raw orders.

use unskew_sdk::prelude::*;

/// An order as it was recorded.
#[derive(Row)]
pub struct Order {
    /// In dollars.
    pub amount: f64,
    /// Whether the money was given back.
    pub refunded: bool,
}

/// Features of an order.
#[derive(Debug, PartialEq, Row)]
pub struct OrderFeatures {
    /// The natural logarithm of 1 + `amount`.
    pub log_amount: f64,
    /// In dollars.
    pub amount: f64,
}

/// Drops the orders that were refunded.
#[transform(batch)]
pub fn order_features(order: Order) -> Option<OrderFeatures> {
    (!order.refunded).then(|| OrderFeatures {
        log_amount: order.amount.ln_1p(),
        amount: order.amount,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refunded_order_is_dropped() {
        let order = Order {
            amount: 10.0,
            refunded: true,
        };
        assert_eq!(order_features(order), None);
    }

    #[test]
    fn another_order_has_features() {
        let order = Order {
            amount: 0.0,
            refunded: false,
        };
        let features = OrderFeatures {
            log_amount: 0.0,
            amount: 0.0,
        };
        assert_eq!(order_features(order), Some(features));
    }
}
