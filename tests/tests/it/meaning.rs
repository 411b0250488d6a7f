//! A stored row is served only under the meaning with which it was written.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use unskew_core::types::{ScalarType, UTC};
use unskew_engine::Status;
use unskew_store::{FeatureStore, Features, RequestRows};
use unskew_tests::{Online, Repository, Server, materialize, with_both_stores};

const DEFINITIONS: &str = "
entities:
  - {name: customer, join_keys: [{name: customer_id, type: int64}]}
sources:
  - {name: orders, path: data/orders.parquet, timestamp_field: event_timestamp, created_timestamp_column: known_from}
feature_views:
  - name: orders
    entities: [customer]
    source: orders
    ttl: 9d
    features: [{name: amount, type: float64}]
feature_services:
  - {name: model, features: [orders]}
";

fn history(amount: f64) -> RecordBatch {
    let timestamp = ScalarType::Timestamp.arrow();
    let fields = vec![
        Field::new("customer_id", DataType::Int64, false),
        Field::new("event_timestamp", timestamp.clone(), false),
        Field::new("known_from", timestamp, false),
        Field::new("amount", DataType::Float64, false),
        Field::new("price", DataType::Float64, false),
        Field::new("refunded", DataType::Boolean, false),
    ];
    let instants = || Arc::new(TimestampMicrosecondArray::from(vec![1_000]).with_timezone(UTC));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7])),
        instants(),
        instants(),
        Arc::new(Float64Array::from(vec![amount])),
        Arc::new(Float64Array::from(vec![amount + 0.5])),
        Arc::new(arrow::array::BooleanArray::from(vec![false])),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The amount that a request gets, and its status.
async fn served(store: &FeatureStore) -> (Option<f64>, Status) {
    use arrow::array::{Array, AsArray};
    let responder = store
        .responder(&Features::Service("model".to_owned()))
        .await
        .unwrap();
    let rows = RequestRows {
        as_of: TimestampMicrosecondArray::from(vec![2_000]).with_timezone(UTC),
        keys: vec![Arc::new(Int64Array::from(vec![7]))],
        request: Vec::new(),
    };
    let evaluated = responder.answer(&rows).await.unwrap();
    let amounts = evaluated
        .batch
        .column(0)
        .as_primitive::<arrow::datatypes::Float64Type>()
        .clone();
    (
        amounts.is_valid(0).then(|| amounts.value(0)),
        evaluated.statuses[0][0],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_change_of_meaning_no_former_row_is_served() {
    let changes = [
        ("ttl", "ttl: 9d", "ttl: 8d"),
        ("no ttl", "    ttl: 9d\n", ""),
        ("mode", "known_from}", "known_from, point_in_time: known}"),
        ("created", ", created_timestamp_column: known_from", ""),
        (
            "mapping",
            "known_from}",
            "known_from, columns: {amount: price}}",
        ),
        ("path", "data/orders.parquet", "data/*.parquet"),
        (
            "schema",
            "features: [{name: amount, type: float64}]",
            "features: [{name: amount, type: float64}, {name: price}]",
        ),
        (
            "batch",
            "    source: orders\n",
            "    source: orders\n    transformation: net\n",
        ),
    ];
    const BATCH: &str = "transformations:\n  - {name: net, kind: batch, component: order_features.wasm, inputs: {amount: amount, refunded: refunded}}\n";
    with_both_stores(async |online| {
        for (what, before, after) in changes {
            assert!(DEFINITIONS.contains(before), "{what}");
            let batch = if what == "batch" { BATCH } else { "" };
            let repository = Repository::new(online, DEFINITIONS);
            repository.write("data/orders.parquet", &history(3.5));
            let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/customers");
            let example = std::path::Path::new(example);
            let component =
                unskew_store::build_component(example, &example.join("transforms/order_features"));
            std::fs::copy(
                component.unwrap().file,
                repository.path("order_features.wasm"),
            )
            .unwrap();
            let store = repository.store();
            store.apply(&()).await.unwrap();
            assert_eq!(
                served(&store).await,
                (None, Status::NotMaterialized),
                "{what}"
            );
            materialize(&store, 1_500).await;
            assert_eq!(served(&store).await, (Some(3.5), Status::Present), "{what}");

            let old = store
                .responder(&Features::Service("model".to_owned()))
                .await
                .unwrap();
            repository.define(&(DEFINITIONS.replace(before, after) + batch));
            let changed = store.apply(&()).await.unwrap();
            assert_eq!(changed.materialize, ["orders"], "{what}");
            assert_eq!(
                served(&store).await,
                (None, Status::NotMaterialized),
                "{what}"
            );

            // The former plan goes on being served from its own rows.
            let rows = RequestRows {
                as_of: TimestampMicrosecondArray::from(vec![2_000]).with_timezone(UTC),
                keys: vec![Arc::new(Int64Array::from(vec![7]))],
                request: Vec::new(),
            };
            assert_eq!(
                old.answer(&rows).await.unwrap().statuses[0][..],
                [Status::Present],
                "{what}"
            );

            materialize(&store, 1_500).await;
            let expected = if what == "mapping" { 4.0 } else { 3.5 };
            assert_eq!(
                served(&store).await,
                (Some(expected), Status::Present),
                "{what}"
            );
            assert_eq!(
                old.answer(&rows).await.unwrap().statuses[0][..],
                [Status::Present],
                "{what}"
            );
            store.teardown().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_about_a_definition_are_no_part_of_its_meaning() {
    let repository = Repository::new(Online::Embedded, DEFINITIONS);
    repository.write("data/orders.parquet", &history(3.5));
    let store = repository.store();
    store.apply(&()).await.unwrap();
    materialize(&store, 1_500).await;
    repository.define(&DEFINITIONS.replace(
        "    ttl: 9d",
        "    ttl: 9d\n    owner: a@example.com\n    description: other words",
    ));
    let changed = store.apply(&()).await.unwrap();
    assert!(changed.any() && changed.materialize.is_empty());
    assert_eq!(served(&store).await, (Some(3.5), Status::Present));
    // Nothing is changed the second time.
    assert!(!store.apply(&()).await.unwrap().any());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_batch_component_is_another_meaning() {
    let definitions = DEFINITIONS.replace(
        "    source: orders\n",
        "    source: orders\n    transformation: net\n",
    ) + "transformations:\n  - {name: net, kind: batch, component: transforms/order_features, inputs: {amount: amount, refunded: refunded}}\n";
    let repository = Repository::new(Online::Embedded, &definitions);
    repository.write("data/orders.parquet", &history(3.5));
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/customers");
    let sources = repository.path("transforms/order_features");
    std::fs::create_dir_all(sources.join("src")).unwrap();
    for file in [
        "Cargo.toml",
        "Cargo.lock",
        "transforms/order_features/Cargo.toml",
        "transforms/order_features/src/lib.rs",
    ] {
        std::fs::copy(example.join(file), repository.path(file)).unwrap();
    }
    let store = repository.store();
    store.apply(&()).await.unwrap();
    materialize(&store, 1_500).await;
    assert_eq!(served(&store).await, (Some(3.5), Status::Present));
    // The same sources in two folders are the same component, and so the same meaning.
    let there = unskew_store::build_component(&example, &example.join("transforms/order_features"));
    let applied = store.applied().await.unwrap();
    assert!(applied.components().contains_key(&there.unwrap().digest));

    let code = std::fs::read_to_string(sources.join("src/lib.rs")).unwrap();
    assert!(code.contains("amount: order.amount,"), "{code}");
    let code = code.replacen("amount: order.amount,", "amount: order.amount * 2.0,", 1);
    std::fs::write(sources.join("src/lib.rs"), code).unwrap();
    assert_eq!(store.plan(&()).await.unwrap().materialize, ["orders"]);
    // `plan` changed nothing.
    assert_eq!(served(&store).await, (Some(3.5), Status::Present));
    store.apply(&()).await.unwrap();
    assert_eq!(served(&store).await, (None, Status::NotMaterialized));
    materialize(&store, 1_500).await;
    assert_eq!(served(&store).await, (Some(7.0), Status::Present));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_before_a_changed_view_is_materialized_serves_the_former_plan() {
    with_both_stores(async |online| {
        let repository = Repository::new(online, DEFINITIONS);
        repository.write("data/orders.parquet", &history(3.5));
        let store = repository.store();
        store.apply(&()).await.unwrap();
        materialize(&store, 1_500).await;
        let changed = DEFINITIONS.replace("known_from}", "known_from, columns: {amount: price}}");
        repository.define(&changed);
        store.apply(&()).await.unwrap();

        const ASK: &str = r#"{"feature_service": "model", "entities": {"customer_id": 7}, "as_of": "1970-01-01T00:00:00.002Z"}"#;
        let server = Server::start(&repository.store()).await;
        let (status, body) = server.post("/online", ASK).await;
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(r#""amount":[3.5]"#), "{body}");
        let (status, body) = server.get("/ready").await;
        assert_eq!(status, 200);
        assert!(body.contains(r#""waiting":{"model":["orders"]}"#), "{body}");
        server.stop().await;

        materialize(&store, 1_500).await;
        let server = Server::start(&repository.store()).await;
        let (_, body) = server.post("/online", ASK).await;
        assert!(body.contains(r#""amount":[4.0]"#), "{body}");
        assert!(!server.get("/ready").await.1.contains("waiting"));
        server.stop().await;
        store.teardown().await.unwrap();
    })
    .await;
}
