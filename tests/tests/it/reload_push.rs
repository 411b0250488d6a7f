//! Rows and deletions that come while a server is answered by a former plan, since the newest one
//! waits for its views.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use serde_json::{Value, json};
use unskew_core::types::UTC;
use unskew_server::Settings;
use unskew_store::Delete;
use unskew_tests::{Online, Repository, Server, materialize, now, with_both_stores};

const DEFINITIONS: &str = "
entities:
  - {name: customer, join_keys: [{name: customer_id, type: int64}]}
sources:
  - {name: orders, path: data, timestamp_field: event_timestamp}
feature_views:
  - name: orders
    entities: [customer]
    source: orders
    features: [{name: amount, type: float64}]
feature_services:
  - {name: model, features: [orders]}
";
/// The same view with another meaning: `amount` is read from the column `price`.
const CHANGED: (&str, &str) = (
    "event_timestamp}",
    "event_timestamp, columns: {amount: price}}",
);

/// A server of a repository whose view is materialized, with an order of each of the customers 7, 8
/// and 9.
async fn served(online: Online<'_>) -> (Repository, Server) {
    let repository = Repository::new(online, DEFINITIONS);
    let columns: [(&str, ArrayRef); 4] = [
        ("customer_id", Arc::new(Int64Array::from(vec![7, 8, 9]))),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from(vec![1_000; 3]).with_timezone(UTC)),
        ),
        ("amount", Arc::new(Float64Array::from(vec![3.5; 3]))),
        ("price", Arc::new(Float64Array::from(vec![4.0; 3]))),
    ];
    let history = RecordBatch::try_from_iter(columns).unwrap();
    repository.write("data/orders.parquet", &history);
    let store = repository.store();
    store.apply(&()).await.unwrap();
    materialize(&store, 1_500).await;
    let settings = Settings {
        poll: Duration::from_millis(20),
        ..Settings::default()
    };
    let server = Server::start_with(&repository.store(), settings).await;
    (repository, server)
}

/// Applies the definitions, and waits until the server waits for their view, or does not.
async fn apply(repository: &Repository, server: &Server, definitions: &str, waits: bool) {
    repository.define(definitions);
    repository.store().apply(&()).await.unwrap();
    until(server, waits).await;
}

/// Waits until the newest plan waits for its view, or does not.
async fn until(server: &Server, waits: bool) {
    while waiting(server).await != waits {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn waiting(server: &Server) -> bool {
    let (_, body) = server.get("/ready").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    body["waiting"].is_object()
}

/// What is served of the customers 7, 8 and 9.
async fn amounts(server: &Server) -> Value {
    let ask = r#"{"feature_service": "model", "entities": {"customer_id": [7, 8, 9]}}"#;
    let (status, body) = server.post("/online", ask).await;
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["features"]["amount"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_while_a_plan_waits_is_served_by_none() {
    with_both_stores(async |online| {
        let (repository, server) = served(online).await;
        let store = repository.store();
        let changed = DEFINITIONS.replace(CHANGED.0, CHANGED.1);
        assert_eq!(amounts(&server).await, json!([3.5, 3.5, 3.5]));
        apply(&repository, &server, &changed, true).await;
        let delete =
            r#"{"view": "orders", "entities": {"customer_id": [7, 77]}, "history": false}"#;
        let (status, body) = server.delete("/online", delete).await;
        assert_eq!(status, 200, "{body}");
        let deleted: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&deleted["had_values"], &deleted["history"]),
            (&json!(1), &Value::Null)
        );
        // As the command does it, which knows no server.
        let of_command = Delete {
            view: "orders".to_owned(),
            keys: vec![Arc::new(Int64Array::from(vec![8]))],
            history: false,
            now: now(),
        };
        let deleted = store.delete(&of_command, Arc::new(())).await.unwrap();
        assert_eq!(deleted.had_values, 1);
        assert_eq!(amounts(&server).await, json!([null, null, 3.5]));
        assert!(waiting(&server).await);
        // Rows that are older than the deletion are materialized.
        materialize(&store, 1_500).await;
        until(&server, false).await;
        assert_eq!(amounts(&server).await, json!([null, null, 4.0]));
        // Back to the former definition, whose rows are still there.
        apply(&repository, &server, DEFINITIONS, false).await;
        loop {
            let amounts = amounts(&server).await;
            if amounts == json!([null, null, 3.5]) {
                break;
            }
            assert_eq!(amounts, json!([null, null, 4.0]));
        }
        server.stop().await;
        store.teardown().await.unwrap();
    })
    .await;
}
