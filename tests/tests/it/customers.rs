//! The example `customers`: a batch and an on-demand transformation, on both stores.

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use unskew_server::client::HttpPath;
use unskew_store::Parity;
use unskew_tests::{
    Online, Repository, Server, materialize, read_parquet, training_set, with_both_stores,
};

const DAY: i64 = 86_400_000_000;
/// 2025-04-01: the data end with the day before.
const END: i64 = 1_743_465_600_000_000;

/// The example, its components built and its data generated.
fn example(online: Online<'_>) -> Repository {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/customers");
    let definitions = std::fs::read_to_string(example.join("features/customers.yaml")).unwrap();
    let repository = Repository::new(online, &definitions);
    for name in ["customer_scores", "order_features"] {
        let built = unskew_store::build_component(&example, &example.join("transforms").join(name));
        std::fs::copy(built.unwrap().file, repository.path(format!("{name}.wasm"))).unwrap();
    }
    repository.define(
        &definitions
            .replace(
                "component: transforms/customer_scores",
                "component: customer_scores.wasm",
            )
            .replace(
                "component: transforms/order_features",
                "component: order_features.wasm",
            ),
    );
    customers_data::write(&repository.path("data")).unwrap();
    repository
}

fn instants(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    batch
        .column_by_name(column)
        .unwrap()
        .as_primitive::<TimestampMicrosecondType>()
        .iter()
        .collect()
}

fn integers(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    batch
        .column_by_name(column)
        .unwrap()
        .as_primitive::<Int64Type>()
        .iter()
        .collect()
}

fn floats(batch: &RecordBatch, column: &str) -> Vec<Option<f64>> {
    batch
        .column_by_name(column)
        .unwrap()
        .as_primitive::<Float64Type>()
        .iter()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_training_set_is_what_an_obvious_loop_computes() {
    let repository = example(Online::Embedded);
    let store = repository.store();
    store.apply(&()).await.unwrap();
    let carts = repository.path("data/carts.parquet");
    let training = training_set(&store, "purchase_model", &carts).await;

    let entities = read_parquet(&carts);
    assert_eq!(training.num_rows(), entities.num_rows());
    for (index, column) in entities.columns().iter().enumerate() {
        assert_eq!(
            column,
            training.column(index),
            "{}",
            entities.schema().field(index).name()
        );
    }

    let activity = read_parquet(&repository.path("data/customer_activity.parquet"));
    let history: Vec<_> = integers(&activity, "customer_id")
        .into_iter()
        .zip(instants(&activity, "event_timestamp"))
        .zip(instants(&activity, "created_timestamp"))
        .collect();
    let mut of_customer = std::collections::BTreeMap::<_, Vec<usize>>::new();
    for (row, ((customer, _), _)) in history.iter().enumerate() {
        of_customer.entry(*customer).or_default().push(row);
    }
    let purchases = integers(&activity, "purchases_last_7d");
    let days = integers(&activity, "days_since_last_purchase");
    let mean = floats(&activity, "mean_amount_30d");

    let at = instants(&training, "event_timestamp");
    let customers = integers(&training, "customer_id");
    let amounts = floats(&training, "amount");
    let found_purchases = integers(&training, "purchases_last_7d");
    let found_recency = floats(&training, "recency_score");
    let found_ratio = floats(&training, "amount_vs_mean");
    let mut present = 0;
    for row in 0..training.num_rows() {
        let rows = of_customer
            .get(&customers[row])
            .into_iter()
            .flatten()
            .copied();
        let winner = rows
            .filter(|&h| history[h].0.1 <= at[row])
            .max_by_key(|&h| (history[h].0.1, history[h].1))
            .filter(|&h| at[row].unwrap() - history[h].0.1.unwrap() <= 7 * DAY);
        assert_eq!(
            found_purchases[row],
            winner.and_then(|h| purchases[h]),
            "row {row}"
        );
        let recency = winner
            .and_then(|h| days[h])
            .map(|days| 1.0 / (1.0 + days as f64 / 30.0));
        assert_eq!(found_recency[row], recency, "row {row}");
        let usual = winner.and_then(|h| mean[h]).filter(|mean| *mean > 0.0);
        let ratio = usual.zip(amounts[row]).map(|(mean, amount)| amount / mean);
        assert_eq!(found_ratio[row], ratio, "row {row}");
        present += usize::from(winner.is_some());
    }
    assert!(present > training.num_rows() / 2 && present < training.num_rows());

    // Every result says where it came from.
    let file = std::fs::File::open(repository.path("training.parquet")).unwrap();
    let metadata = SerializedFileReader::new(file).unwrap();
    let metadata = metadata
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap()
        .clone();
    let value = |key: &str| {
        metadata
            .iter()
            .find(|pair| pair.key == key)
            .and_then(|pair| pair.value.clone())
            .unwrap()
    };
    let applied = store.applied().await.unwrap();
    let plan = applied
        .plan(&unskew_store::Features::Service(
            "purchase_model".to_owned(),
        ))
        .unwrap();
    assert_eq!(value("unskew.plan_digest"), plan.digest().to_string());
    for digest in plan.components() {
        assert!(value("unskew.components").contains(&digest.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refunded_orders_are_not_served() {
    let repository = example(Online::Embedded);
    let store = repository.store();
    store.apply(&()).await.unwrap();
    let training = training_set(
        &store,
        "purchase_model",
        &repository.path("data/carts.parquet"),
    )
    .await;
    let mut orders: std::collections::BTreeMap<i64, Vec<(i64, f64)>> =
        std::collections::BTreeMap::new();
    let mut refunds = 0;
    for file in std::fs::read_dir(repository.path("data/orders")).unwrap() {
        let batch = read_parquet(&file.unwrap().path());
        let refunded = batch
            .column_by_name("refunded")
            .unwrap()
            .as_boolean()
            .clone();
        let (ids, at) = (
            integers(&batch, "customer_id"),
            instants(&batch, "ordered_at"),
        );
        let amounts = floats(&batch, "amount");
        for row in 0..batch.num_rows() {
            if refunded.value(row) {
                refunds += 1;
            } else {
                let order = (at[row].unwrap(), amounts[row].unwrap());
                orders.entry(ids[row].unwrap()).or_default().push(order);
            }
        }
    }
    assert!(refunds > 0);
    let (at, ids) = (
        instants(&training, "event_timestamp"),
        integers(&training, "customer_id"),
    );
    for (row, found) in floats(&training, "log_amount").into_iter().enumerate() {
        let before = orders.get(&ids[row].unwrap()).into_iter().flatten();
        let before: Vec<_> = before.filter(|order| order.0 <= at[row].unwrap()).collect();
        let newest = before.iter().map(|order| order.0).max();
        // Two orders of one instant: the greater encoded row, which is one of them.
        let amounts = before
            .iter()
            .filter(|order| Some(order.0) == newest)
            .map(|order| order.1.ln_1p());
        let amounts: Vec<f64> = amounts.collect();
        match found {
            None => assert!(amounts.is_empty(), "row {row}"),
            Some(found) => {
                let close = amounts.iter().any(|amount| (amount - found).abs() < 1e-12);
                assert!(close, "row {row}: {found} is none of {amounts:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paths_agree_on_both_stores_and_over_http() {
    with_both_stores(async |online| {
        let repository = example(online);
        let store = repository.store();
        store.apply(&()).await.unwrap();
        materialize(&store, END).await;
        let server = Server::start(&store).await;
        let http = HttpPath::new(server.url.clone(), "purchase_model".to_owned());
        for entities in [None, Some(repository.path("data/carts.parquet"))] {
            let request =
                Parity { service: "purchase_model".to_owned(), as_of: None, rows: 999, entities };
            for path in [None, Some(&http as &dyn unskew_store::RequestPath)] {
                let report = store.parity(request.clone(), path).await.unwrap();
                assert_eq!(report.differences, 0, "{online:?}: {:#?}", report.first);
                assert_eq!((report.features, report.as_of), (9, END));
            }
        }
        let ask = r#"{"feature_service": "purchase_model", "entities": {"customer_id": [1003, 999999]},
            "request": {"amount": [59.90, 1]}, "as_of": "2025-04-01T00:00:00Z"}"#;
        let (status, body) = server.post("/online", ask).await;
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["statuses"]["purchases_last_7d"], serde_json::json!(["PRESENT", "NOT_FOUND"]));
        assert_eq!(body["statuses"]["activity_score"], serde_json::json!(["PRESENT", "NULL_VALUE"]));
        server.stop().await;
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parity_sees_a_value_that_was_changed_in_the_store() {
    use unskew_core::row;
    use unskew_online::{StoredRow, ViewKey};
    let repository = example(Online::Embedded);
    let store = repository.store();
    store.apply(&()).await.unwrap();
    materialize(&store, END).await;
    let applied = store.applied().await.unwrap();
    let view = &applied.project().views["customer_orders"].value.view;
    let key = ViewKey::of("test", view);
    let online = store.online().unwrap();
    let entity = online.sample_keys(&key, 1, 0).await.unwrap().pop().unwrap();
    let features: Vec<arrow::array::ArrayRef> = vec![
        std::sync::Arc::new(arrow::array::Float64Array::from(vec![0.25])),
        std::sync::Arc::new(arrow::array::Float64Array::from(vec![0.25])),
    ];
    let mut value = Vec::new();
    row::encode(&features, 0, END - 1, None, &mut value);
    let rows = vec![StoredRow {
        entity_key: entity,
        value,
        expires_at: None,
    }];
    assert_eq!(online.put(&key, rows).await.unwrap().written, 1);
    let request = Parity {
        service: "purchase_model".to_owned(),
        as_of: None,
        rows: 6_000,
        entities: Some(repository.path("data/carts.parquet")),
    };
    let report = store.parity(request, None).await.unwrap();
    assert!(report.differences > 0);
    assert!(
        report
            .first
            .iter()
            .all(|difference| difference.feature == "log_amount")
    );
}
