//! What `apply` refuses of batch transformations: inputs that do not fit the source, and outputs
//! that do not fit the view.

use unskew_core::component::Kind;

use crate::repository::Repository;
use crate::resolve::refused;

#[test]
fn inputs_of_batch_transformations() {
    refused(&[
        (
            "total, default: 0",
            "amount, default: 0",
            &[
                "orders.yaml:14: input `amount` of `clean_orders`: source `orders` has no column `amount`; it has: customer_id, ordered_at, loaded_at, amount_in_cents, gift",
            ],
        ),
        (
            "gift: gift",
            "gift: total",
            &[
                "orders.yaml:14: input `gift` of `clean_orders` is bool, and column `total` of source `orders` is int32",
            ],
        ),
        (
            "gift: gift",
            r#"gift: "request:gift""#,
            &[
                "orders.yaml:23: `request:gift` says not where the input of a transformation of kind batch comes from; valid: a column of the source, event_timestamp, {value: CONSTANT}",
            ],
        ),
        (
            "gift: gift",
            "gift: event_timestamp",
            &[
                "orders.yaml:14: input `gift` of `clean_orders` is bool, and `event_timestamp` is timestamp",
            ],
        ),
        (
            "amount: {from: total, default: 0}",
            "amount: {from: total, default: 0.5}",
            &[
                "orders.yaml:22: 0.5 is no int64, the type of input `amount`; only a whole number within its range is taken, since nothing may be lost",
            ],
        ),
    ]);
}

#[test]
fn join_keys_of_a_component_widen_to_the_views() {
    let giving = |outputs: &str, key: &str| {
        let mut repository = Repository::new();
        repository.component(
            "clean_orders",
            Kind::Batch,
            "amount: int64!, gift: bool, rate: float64, at: timestamp",
            outputs,
        );
        let key = format!("{{name: customer_id, type: {key}}}");
        repository.with("{name: customer_id}", &key).problems()
    };
    let features = "log_amount: float64, is_gift: bool";
    let int32 = format!("customer_id: int32, {features}");
    let int64 = format!("customer_id: int64, {features}");
    assert_eq!(giving(&int32, "int32"), "");
    assert_eq!(giving(&int32, "int64"), "");
    assert_eq!(giving(&int64, "int64"), "");
    assert_eq!(
        giving(&int64, "int32"),
        "orders.yaml:12: join key `customer_id` is int32, and in transformation `clean_orders` it \
         is int64"
    );
    // A column of the file, an int64, is narrowed value by value.
    assert_eq!(giving(features, "int32"), "");
    assert_eq!(
        giving(features, "string"),
        "orders.yaml:12: join key `customer_id` is string, and in source `orders` it is int64"
    );
}
