//! A running server moves to what is applied later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::Value;
use unskew_core::types::{ScalarType, UTC};
use unskew_online::ViewKey;
use unskew_server::Settings;
use unskew_store::FeatureStore;
use unskew_test_redis::RedisServer;
use unskew_tests::{Online, Repository, Server, component, materialize, with_both_stores};

const DEFINITIONS: &str = "
entities:
  - {name: customer, join_keys: [{name: customer_id, type: int64}]}
sources:
  - {name: orders, path: data/orders.parquet, timestamp_field: event_timestamp}
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
/// What the service gives besides, computed by a component that is new.
const RATES: &str = "
transformations:
  - name: rates
    kind: on_demand
    component: driver_rates.wasm
    inputs: {conv_rate: orders:amount, avg_daily_trips: {value: 20}, val_to_add: {value: 1}}
feature_services:
  - {name: model, features: [orders, rates]}
";
const STATE_2: &str = ".unskew/registry/states/00000000000000000002.json";
const ASK: &str = r#"{"feature_service": "model", "entities": {"customer_id": 7}, "as_of": "1970-01-01T00:00:00.002Z"}"#;

fn history() -> RecordBatch {
    let fields = vec![
        Field::new("customer_id", DataType::Int64, false),
        Field::new("event_timestamp", ScalarType::Timestamp.arrow(), false),
        Field::new("amount", DataType::Float64, false),
        Field::new("price", DataType::Float64, false),
    ];
    let instants = TimestampMicrosecondArray::from(vec![1_000]).with_timezone(UTC);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7])),
        Arc::new(instants),
        Arc::new(Float64Array::from(vec![3.5])),
        Arc::new(Float64Array::from(vec![4.0])),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// A repository whose view is materialized.
async fn repository(online: Online<'_>) -> Repository {
    let repository = Repository::new(online, DEFINITIONS);
    repository.write("data/orders.parquet", &history());
    let store = repository.store();
    store.apply(&()).await.unwrap();
    materialize(&store, 1_500).await;
    repository
}

async fn redefine(repository: &Repository, definitions: &str) {
    repository.define(definitions);
    repository.store().apply(&()).await.unwrap();
}

fn changed() -> String {
    assert!(DEFINITIONS.contains(CHANGED.0));
    DEFINITIONS.replace(CHANGED.0, CHANGED.1)
}

/// The definitions without their feature services.
fn without_services(definitions: &str) -> &str {
    definitions.split("feature_services").next().unwrap()
}

fn polling() -> Settings {
    Settings {
        poll: Duration::from_millis(20),
        ..Settings::default()
    }
}

/// Waits until `/ready` is as `is` wants it.
async fn ready(server: &Server, is: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (_, body) = server.get("/ready").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        if is(&body) {
            return body;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn view_key(store: &FeatureStore) -> ViewKey {
    let applied = store.applied().await.unwrap();
    let project = applied.project();
    ViewKey::of(&project.name, &project.views["orders"].value.view)
}

/// The plan and the amount of an answer.
fn answered(status: u16, body: &str) -> (String, String) {
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(body).unwrap();
    (
        body["plan"].as_str().unwrap().to_owned(),
        format!(
            "{} {}",
            body["features"]["amount"][0], body["statuses"]["amount"][0]
        ),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_moves_on_under_load_without_a_failed_or_a_mixed_answer() {
    with_both_stores(async |online| {
        let repository = repository(online).await;
        let rates = repository.path("driver_rates.wasm");
        std::fs::copy(component("driver_rates"), rates).unwrap();
        let store = repository.store();
        let server = Arc::new(Server::start_with(&repository.store(), polling()).await);
        let (stop, count) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (server, stop, count) =
                    (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&count));
                tokio::spawn(async move {
                    // What a client got, without repetitions.
                    let mut got: Vec<(String, String)> = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let (status, body) = server.post("/online", ASK).await;
                        assert_eq!(status, 200, "{body}");
                        let body: Value = serde_json::from_str(&body).unwrap();
                        let plan = body["plan"].as_str().unwrap().to_owned();
                        let answer = (plan, body["features"].to_string());
                        if got.last() != Some(&answer) {
                            got.push(answer);
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    got
                })
            })
            .collect();
        let more = async || {
            let until = count.load(Ordering::Relaxed) + 40;
            while count.load(Ordering::Relaxed) < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        more().await;
        // A state that cannot be served changes nothing.
        let refused = repository.path(STATE_2);
        std::fs::write(&refused, r#"{"format": 9}"#).unwrap();
        ready(&server, |ready| ready["reload_failure"].is_string()).await;
        more().await;
        std::fs::remove_file(&refused).unwrap();
        ready(&server, |ready| ready["reload_failure"].is_null()).await;
        let next = without_services(&changed()).to_owned() + RATES;
        redefine(&repository, &next).await;
        let waiting = ready(&server, |ready| ready["waiting"].is_object()).await;
        assert_eq!(waiting["waiting"], serde_json::json!({"model": ["orders"]}));
        let views = r#"unskew_waiting_views{service="model"}"#;
        assert_eq!(server.metric(views).await, 1.0);
        more().await;
        materialize(&store, 1_500).await;
        ready(&server, |ready| ready["waiting"].is_null()).await;
        more().await;
        stop.store(true, Ordering::Relaxed);
        let mut answers = BTreeSet::new();
        for client in clients {
            let got = client.await.unwrap();
            // Each client sees the change once, and none goes back.
            assert_eq!(got.len(), 2, "{got:?}");
            assert_eq!(got[0].1, r#"{"amount":[3.5]}"#);
            let rates = r#""conv_rate_plus_val":[5.0],"trips_plus_val":[21]"#;
            assert_eq!(got[1].1, format!(r#"{{"amount":[4.0],{rates}}}"#));
            answers.extend(got);
        }
        assert_eq!(answers.len(), 2, "{answers:?}");
        Arc::into_inner(server).unwrap().stop().await;
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_features_goes_on_by_its_former_plan_until_its_views_are_materialized() {
    const LIST: &str = r#"{"features": ["orders:amount"], "entities": {"customer_id": [7]}}"#;
    with_both_stores(async |online| {
        let repository = repository(online).await;
        redefine(&repository, without_services(DEFINITIONS)).await;
        let store = repository.store();
        let former = view_key(&store).await;
        let settings = Settings {
            former_rows: Some(Duration::ZERO),
            ..polling()
        };
        let server = Server::start_with(&store, settings.clone()).await;
        let value = async |server: &Server| {
            let (status, body) = server.post("/get-online-features", LIST).await;
            assert_eq!(status, 200, "{body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            body["results"][1]["values"][0].clone()
        };
        // One of which lists were asked for, and one of which none were.
        let other = Server::start_with(&store, settings.clone()).await;
        assert_eq!(value(&server).await, 3.5);
        redefine(&repository, without_services(&changed())).await;
        let waiting = ready(&server, |ready| ready["state"] == 3).await;
        let expected = serde_json::json!({"orders:amount": ["orders"]});
        assert_eq!(waiting["waiting"], expected);
        ready(&other, |ready| ready["state"] == 3).await;
        let restarted = Server::start_with(&store, settings).await;
        let servers = [&server, &other, &restarted];
        for server in servers {
            assert_eq!(value(server).await, 3.5);
        }
        let changes = server.metric("unskew_reload_changes_total").await;
        assert_eq!(changes, 1.0);
        // While it is waited for, polls change nothing, and former rows stay.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            for server in servers {
                assert_eq!(value(server).await, 3.5);
            }
        }
        assert_eq!(server.metric("unskew_reload_changes_total").await, changes);
        let views = r#"unskew_waiting_views{service="@features"}"#;
        for server in servers {
            assert_eq!(server.metric(views).await, 1.0);
            let waiting = ready(server, |_| true).await;
            assert_eq!(waiting["waiting"], expected);
        }
        let held = store.online().unwrap();
        assert!(held.state(&former).await.unwrap().is_some());
        materialize(&store, 1_500).await;
        for server in servers {
            ready(server, |ready| ready["waiting"].is_null()).await;
            assert_eq!(value(server).await, 4.0);
        }
        while held.state(&former).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for server in [server, other, restarted] {
            server.stop().await;
        }
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_while_the_store_is_away_goes_on_by_the_former_plan_later() {
    let redis = RedisServer::start();
    let repository = repository(Online::Redis(&redis)).await;
    redefine(&repository, &changed()).await;
    redis.freeze();
    let server = Server::start_with(&repository.store(), polling()).await;
    redis.thaw();
    ready(&server, |ready| ready["waiting"].is_object()).await;
    let (status, body) = server.post("/online", ASK).await;
    assert_eq!(answered(status, &body).1, "3.5 \"PRESENT\"");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_former_view_are_removed_after_the_grace_period_and_not_before_the_move() {
    with_both_stores(async |online| {
        let repository = repository(online).await;
        let store = repository.store();
        let former = view_key(&store).await;
        let settings = Settings {
            former_rows: Some(Duration::ZERO),
            ..polling()
        };
        let server = Server::start_with(&repository.store(), settings).await;
        redefine(&repository, &changed()).await;
        ready(&server, |ready| ready["waiting"].is_object()).await;
        let held = store.online().unwrap();
        assert!(held.state(&former).await.unwrap().is_some());
        materialize(&store, 1_500).await;
        while held.state(&former).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The state goes last.
        assert!(held.sample_keys(&former, 10, 0).await.unwrap().is_empty());
        // What is served stays.
        let (status, body) = server.post("/online", ASK).await;
        assert_eq!(answered(status, &body).1, "4.0 \"PRESENT\"");

        // Back to the former definition: its rows are gone, so the server waits for new ones.
        redefine(&repository, DEFINITIONS).await;
        ready(&server, |ready| ready["waiting"].is_object()).await;
        let (status, body) = server.post("/online", ASK).await;
        assert_eq!(answered(status, &body).1, "4.0 \"PRESENT\"");
        materialize(&store, 1_500).await;
        ready(&server, |ready| ready["waiting"].is_null()).await;
        let (status, body) = server.post("/online", ASK).await;
        assert_eq!(answered(status, &body).1, "3.5 \"PRESENT\"");
        server.stop().await;
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_cannot_be_served_is_refused_and_said() {
    let repository = repository(Online::Embedded).await;
    let settings = Settings {
        poll: Duration::from_secs(3600),
        ..Settings::default()
    };
    let server = Server::start_with(&repository.store(), settings).await;
    // What a newer version of unskew might write.
    let state = repository.path(STATE_2);
    assert!(state.parent().unwrap().is_dir());
    std::fs::write(&state, r#"{"format": 9}"#).unwrap();
    let (status, body) = server.post("/admin/reload", "").await;
    assert_eq!(status, 502, "{body}");
    assert!(
        body.contains("reload_failed") && body.contains("form 9"),
        "{body}"
    );
    let (status, body) = server.post("/online", ASK).await;
    assert_eq!(answered(status, &body).1, "3.5 \"PRESENT\"");
    let (status, body) = server.get("/ready").await;
    assert_eq!(status, 200);
    assert!(body.contains("form 9"), "{body}");
    let failed = r#"unskew_reloads_total{result="failure"}"#;
    assert_eq!(server.metric("unskew_reload_failing").await, 1.0);
    assert_eq!(server.metric(failed).await, 1.0);

    std::fs::remove_file(&state).unwrap();
    let (status, body) = server.post("/admin/reload", "").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body, r#"{"state":1,"changed":false,"waiting":{}}"#);
    let (_, body) = server.get("/ready").await;
    assert!(!body.contains("reload_failure"), "{body}");
    assert_eq!(server.metric("unskew_reload_failing").await, 0.0);
    assert_eq!(server.metric(failed).await, 1.0);

    // A service more, asked for at once.
    let more = DEFINITIONS.to_owned() + "  - {name: second, features: [orders]}\n";
    redefine(&repository, &more).await;
    let (_, body) = server.post("/admin/reload", "").await;
    assert_eq!(body, r#"{"state":2,"changed":true,"waiting":{}}"#);
    let (status, body) = server.post("/online", ASK.replace("model", "second")).await;
    assert_eq!(answered(status, &body).1, "3.5 \"PRESENT\"");
    server.stop().await;
}
