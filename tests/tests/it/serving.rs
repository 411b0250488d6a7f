//! The server: answers, refusals, and work beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::Value;
use unskew_core::row;
use unskew_core::types::{ScalarType, UTC};
use unskew_online::{StoredRow, ViewKey, Wanted};
use unskew_server::Settings;
use unskew_store::{Materialize, MaterializeSpan, Parity, StoreError};
use unskew_tests::{Online, Repository, Server, materialize, now, with_both_stores};

const HOUR: i64 = 3_600_000_000;

const DEFINITIONS: &str = "
entities:
  - {name: driver, join_keys: [{name: driver_id, type: int64}]}
sources:
  - {name: stats, path: data/stats.parquet, timestamp_field: event_timestamp, created_timestamp_column: created}
feature_views:
  - name: stats
    entities: [driver]
    source: stats
    ttl: 5h
    features: [{name: rate, type: float64}, {name: share, type: float32}, {name: city, type: string}]
  - name: offline_only
    entities: [driver]
    source: stats
    online: false
    features: [{name: share, type: float32}]
feature_services:
  - {name: model, features: [stats]}
  - {name: offline_model, features: [offline_only]}
";

/// Another view of the source, and a service of both.
const MORE: &str = "
feature_views:
  - {name: cities, entities: [driver], source: stats, features: [{name: city, type: string}]}
feature_services:
  - {name: city_model, features: [cities]}
  - {name: both_model, features: ['stats:rate', 'cities:city']}
";

/// Drivers 0 to `drivers`, a row each hour.
fn history(drivers: i64, hours: i64) -> RecordBatch {
    let rows: Vec<(i64, i64)> = (0..hours)
        .flat_map(|hour| (0..drivers).map(move |driver| (driver, hour)))
        .collect();
    let fields = vec![
        Field::new("driver_id", DataType::Int64, false),
        Field::new("event_timestamp", ScalarType::Timestamp.arrow(), false),
        Field::new("created", ScalarType::Timestamp.arrow(), false),
        Field::new("rate", DataType::Float64, true),
        Field::new("share", DataType::Float32, true),
        Field::new("city", DataType::Utf8, true),
    ];
    let instants = || -> ArrayRef {
        let values: Vec<i64> = rows.iter().map(|(_, hour)| hour * HOUR).collect();
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone(UTC))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            rows.iter()
                .map(|(driver, _)| Some(*driver))
                .collect::<Int64Array>(),
        ),
        instants(),
        instants(),
        Arc::new(
            rows.iter()
                .map(|(driver, hour)| (driver % 4 != 3).then_some(*hour as f64 + 0.1))
                .collect::<Float64Array>(),
        ),
        Arc::new(
            rows.iter()
                .map(|(driver, _)| Some(*driver as f32 / 10.0))
                .collect::<Float32Array>(),
        ),
        Arc::new(
            rows.iter()
                .map(|(driver, _)| Some(format!("Zürich {driver}")))
                .collect::<StringArray>(),
        ),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

async fn repository(online: Online<'_>, drivers: i64, hours: i64) -> Repository {
    let repository = Repository::new(online, DEFINITIONS);
    repository.write("data/stats.parquet", &history(drivers, hours));
    repository.store().apply(&()).await.unwrap();
    repository
}

/// The same with [`MORE`].
async fn larger_repository(online: Online<'_>, drivers: i64, hours: i64) -> Repository {
    let repository = repository(online, drivers, hours).await;
    std::fs::write(repository.path("features/more.yaml"), MORE).unwrap();
    repository.store().apply(&()).await.unwrap();
    repository
}

#[tokio::test(flavor = "multi_thread")]
async fn each_status_is_given_where_it_belongs() {
    with_both_stores(async |online| {
        let repository = repository(online, 5, 10).await;
        let store = repository.store();
        let server = Server::start(&store).await;
        let ask = |as_of: &str| {
            format!(r#"{{"feature_service": "model", "entities": {{"driver_id": [1, 3, 99]}}, "as_of": "{as_of}"}}"#)
        };
        let statuses = async |as_of: &str| {
            let (status, body) = server.post("/online", ask(as_of)).await;
            assert_eq!(status, 200, "{body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            (body["statuses"]["rate"].clone(), body["features"].clone())
        };
        let (found, _) = statuses("1970-01-01T12:00:00Z").await;
        assert_eq!(found, serde_json::json!(["NOT_MATERIALIZED", "NOT_MATERIALIZED", "NOT_MATERIALIZED"]));
        let (status, body) = server.get("/ready").await;
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("stats"), "{body}");

        materialize(&store, 9 * HOUR).await;
        assert_eq!(server.get("/ready").await.0, 200);
        let (found, features) = statuses("1970-01-01T14:00:00Z").await;
        assert_eq!(found, serde_json::json!(["PRESENT", "NULL_VALUE", "NOT_FOUND"]));
        assert_eq!(features["rate"], serde_json::json!([9.1, null, null]));
        assert_eq!(features["share"].to_string(), "[0.1,0.3,null]");
        assert_eq!(features["city"], serde_json::json!(["Zürich 1", "Zürich 3", null]));
        let (found, features) = statuses("1970-01-01T14:00:00.000001Z").await;
        assert_eq!(found, serde_json::json!(["OUTSIDE_MAX_AGE", "OUTSIDE_MAX_AGE", "NOT_FOUND"]));
        assert_eq!(features["rate"], serde_json::json!([null, null, null]));
        let (found, _) = statuses("1970-01-01T08:59:59.999999Z").await;
        assert_eq!(found, serde_json::json!(["IN_FUTURE", "IN_FUTURE", "NOT_FOUND"]));
        // Three features of each entity were asked for four times.
        for (status, count) in [
            ("not_materialized", 9.0),
            ("present", 5.0),
            ("null_value", 1.0),
            ("outside_max_age", 6.0),
            ("in_future", 6.0),
            ("not_found", 9.0),
        ] {
            let sample = format!(r#"unskew_feature_values_total{{view="stats",status="{status}"}}"#);
            assert_eq!(server.metric(&sample).await, count, "{status}");
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_asks_redis_once_whatever_it_asks_for() {
    let redis = unskew_test_redis::RedisServer::start();
    let repository = larger_repository(Online::Redis(&redis), 5, 3).await;
    let store = repository.store();
    materialize(&store, 2 * HOUR).await;
    let settings = Settings {
        poll: Duration::from_secs(3_600),
        ..Settings::default()
    };
    let server = Server::start_with(&store, settings).await;
    redis.command(&["config", "resetstat"]);
    let ask = r#"{"feature_service": "both_model", "entities": {"driver_id": [0, 1, 2, 4, 99]}, "as_of": "1970-01-01T02:00:00Z"}"#;
    let (status, body) = server.post("/online", ask).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains(r#""rate":[2.1,2.1,2.1,2.1,null]"#), "{body}");
    assert!(body.contains("Zürich 4"), "{body}");
    let done = redis.command(&["info", "commandstats"]);
    assert!(done.contains("cmdstat_mget:calls=1,"), "{done}");
    assert!(!done.contains("cmdstat_get:"), "{done}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_4xx_that_names_the_field_and_the_server_goes_on() {
    let repository = repository(Online::Embedded, 3, 3).await;
    let store = repository.store();
    materialize(&store, 2 * HOUR).await;
    let server = Server::start(&store).await;
    let ok = r#"{"feature_service": "model", "entities": {"driver_id": 1}, "as_of": "1970-01-01T02:00:00Z"}"#;
    let cases = [
        ("", "JSON"),
        ("[]", ""),
        ("{\"feature_service\": \"model\"", "JSON"),
        (r#"{"entities": {"driver_id": [1]}}"#, "feature_service"),
        (
            r#"{"feature_service": "other", "entities": {"driver_id": [1]}}"#,
            "model",
        ),
        (
            r#"{"feature_service": "offline_model", "entities": {"driver_id": [1]}}"#,
            "offline_only",
        ),
        (
            r#"{"feature_service": "model", "entities": {}}"#,
            "driver_id",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver": [1]}}"#,
            "driver",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver_id": [1, "x"]}}"#,
            "driver_id",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver_id": [9223372036854775808]}}"#,
            "9223372036854775808",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver_id": [1.5]}}"#,
            "1.5",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver_id": [1]}, "request": {"x": [1]}}"#,
            "x",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver_id": [1]}, "as_of": "soon"}"#,
            "as_of",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver_id": [1]}, "asof": "2001-01-01"}"#,
            "asof",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver_id": [{}]}}"#,
            "driver_id",
        ),
        (
            r#"{"feature_service": "model", "entities": {"driver_id": [1]}, "plan": "sha256:00"}"#,
            "plan",
        ),
    ];
    for (body, names) in cases {
        let (status, answer) = server.post("/online", body).await;
        assert!((400..500).contains(&status), "{body}: {status} {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"]["code"].is_string(), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(names), "{body}: {message}");
        let (status, answer) = server.post("/online", ok).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (status, answer) = server.post("/online", ok.replace('}', r#", "x"}"#)).await;
    assert_eq!(status, 400, "{answer}");
    let digest = format!("sha256:{}", "0".repeat(64));
    let other = ok.replacen('{', &format!(r#"{{"plan": "{digest}", "#), 1);
    assert_eq!(server.post("/online", other).await.0, 409);
    // Numbers that are the same integer.
    let body = ok.replace(": 1}", ": [1.0, 1e0, 1]}");
    let (status, answer) = server.post("/online", body).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(r#""rate":[2.1,2.1,2.1]"#), "{answer}");
    let (status, answer) = server.get("/nowhere").await;
    assert_eq!(status, 404);
    assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{answer}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_is_a_503_and_back_again_an_answer() {
    let mut redis = unskew_test_redis::RedisServer::start();
    let repository = repository(Online::Redis(&redis), 3, 3).await;
    let store = repository.store();
    materialize(&store, 2 * HOUR).await;
    let server = Server::start(&store).await;
    let ask = r#"{"feature_service": "model", "entities": {"driver_id": 1}, "as_of": "1970-01-01T02:00:00Z"}"#;
    assert_eq!(server.post("/online", ask).await.0, 200);
    redis.stop();
    let (status, body) = server.post("/online", ask).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(server.get("/health").await.0, 200);
    assert_eq!(server.get("/ready").await.0, 503);
    redis.start_again();
    // The emptied store is not taken for a filled one.
    let body = loop {
        let (status, body) = server.post("/online", ask).await;
        if status == 200 {
            break body;
        }
        assert_eq!(status, 503, "{body}");
    };
    assert!(body.contains("NOT_MATERIALIZED"), "{body}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn materialize_and_parity_run_while_the_server_answers() {
    with_both_stores(async |online| {
        let repository = repository(online, 200, 24).await;
        let store = repository.store();
        materialize(&store, 0).await;
        let server = Arc::new(Server::start(&store).await);
        let done = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (server, done) = (Arc::clone(&server), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut answers = 0;
                    while !done.load(Ordering::Relaxed) {
                        let ask = format!(
                            r#"{{"feature_service": "model", "entities": {{"driver_id": [{client}, 100]}}, "as_of": "1970-01-01T23:00:00Z"}}"#
                        );
                        let (status, body) = server.post("/online", ask).await;
                        assert_eq!(status, 200, "{body}");
                        let body: Value = serde_json::from_str(&body).unwrap();
                        assert_eq!(body["features"]["city"][0].is_null(), body["statuses"]["city"][0] != "PRESENT");
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        for hour in 1..24 {
            // Another process would open the store as this does.
            let other = repository.store();
            materialize(&other, hour * HOUR).await;
            if hour % 8 == 7 {
                let request = Parity { service: "model".to_owned(), as_of: None, rows: 300, entities: None };
                let report = other.parity(request, None).await.unwrap();
                assert_eq!(report.differences, 0, "{:#?}", report.first);
                assert_eq!(report.lag["stats"], 200 * (23 - hour as u64));
            }
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.await.unwrap() > 0);
        }
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_gaps_and_the_clock() {
    with_both_stores(async |online| {
        let repository = repository(online, 2, 10).await;
        let store = repository.store();
        let run = async |start: i64, end: i64| {
            let request = Materialize {
                views: vec!["stats".to_owned()],
                span: MaterializeSpan::Range {
                    start: start * HOUR,
                    end: end * HOUR,
                },
                now: now(),
            };
            store
                .materialize(request, Arc::new(()))
                .await
                .unwrap()
                .pop()
                .unwrap()
        };
        let first = run(4, 6).await;
        assert_eq!((first.watermark, first.gap), (None, Some((None, 4 * HOUR))));
        let parity = Parity {
            service: "model".to_owned(),
            as_of: None,
            rows: 30,
            entities: None,
        };
        let refused = store.parity(parity.clone(), None).await.unwrap_err();
        assert!(matches!(refused, StoreError::Gap { .. }), "{refused}");
        let closed = run(0, 3).await;
        assert_eq!(
            (closed.watermark, closed.gap),
            (Some(3 * HOUR), Some((Some(3 * HOUR), 4 * HOUR)))
        );
        let closed = run(3, 4).await;
        assert_eq!((closed.watermark, closed.gap), (Some(6 * HOUR), None));
        assert_eq!(run(3, 6).await.rows_written, 0);
        let report = store.parity(parity.clone(), None).await.unwrap();
        assert_eq!((report.differences, report.as_of), (0, 6 * HOUR));
        let early = Parity {
            as_of: Some(5 * HOUR),
            ..parity
        };
        assert!(matches!(
            store.parity(early, None).await,
            Err(StoreError::BeforeWatermark { .. })
        ));
        let clock = now();
        let future = Materialize {
            views: Vec::new(),
            span: MaterializeSpan::Incremental { end: clock + 1 },
            now: clock,
        };
        assert!(matches!(
            store.materialize(future, Arc::new(())).await,
            Err(StoreError::EndInFuture { .. })
        ));
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_value_that_is_damaged_is_an_error_and_counted_and_never_a_number() {
    with_both_stores(async |online| {
        let repository = larger_repository(online, 3, 3).await;
        let store = repository.store();
        materialize(&store, 2 * HOUR).await;
        let applied = store.applied().await.unwrap();
        let project = applied.project();
        let view = ViewKey::of(&project.name, &project.views["stats"].value.view);
        let entities = [1_i64, 2].map(|driver| {
            let mut entity = Vec::new();
            let keys: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![driver]))];
            assert!(row::encode_key(&keys, 0, &mut entity));
            entity
        });
        let wanted = Wanted {
            view: Arc::new(view.clone()),
            entities: entities[..1].to_vec(),
        };
        let held = store.online().unwrap().get(vec![wanted]).await.unwrap();
        let mut bytes = held[0].rows[0].as_deref().unwrap().to_vec();
        // One bit of the first feature, and a later event, or the store would keep what it has.
        bytes[20] ^= 1;
        bytes[6] += 1;
        let damaged = StoredRow {
            entity_key: entities[0].clone(),
            value: bytes,
            expires_at: None,
        };
        let put = store.online().unwrap().put(&view, vec![damaged]).await;
        assert_eq!(put.unwrap().written, 1);

        let server = Server::start(&store).await;
        let ask_of = |service: &str, drivers: &str| {
            format!(
                r#"{{"feature_service": "{service}", "entities": {{"driver_id": {drivers}}}, "as_of": "1970-01-01T02:00:00Z"}}"#
            )
        };
        let ask = |driver: i64| ask_of("model", &driver.to_string());
        let (status, body) = server.post("/online", ask(1)).await;
        assert_eq!(status, 500, "{body}");
        assert!(body.contains("stats") && body.contains("damaged"), "{body}");
        let (status, body) = server.post("/online", ask(2)).await;
        assert_eq!(status, 200, "{body}");
        // Nothing is given of an answer that needs it: neither other entities nor other views.
        for (service, drivers) in [("model", "[2, 1]"), ("model", "[0, 1, 2]"), ("both_model", "1")] {
            let (status, body) = server.post("/online", ask_of(service, drivers)).await;
            assert_eq!(status, 500, "{body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            let members: Vec<&String> = body.as_object().unwrap().keys().collect();
            assert_eq!(members, ["error"]);
            assert!(body["error"]["message"].as_str().unwrap().contains("damaged"), "{body}");
        }
        let for_feast = |feature: &str, drivers: &str| {
            format!(r#"{{"features": ["{feature}"], "entities": {{"driver_id": {drivers}}}}}"#)
        };
        let path = "/get-online-features";
        for drivers in ["[1]", "[2, 1]"] {
            let (status, body) = server.post(path, for_feast("stats:rate", drivers)).await;
            assert_eq!(status, 500, "{body}");
            // A text that holds an object, as Feast's clients expect.
            let body: String = serde_json::from_str(&body).unwrap();
            assert!(body.contains("damaged") && !body.contains("results"), "{body}");
        }
        // What does not need it is answered.
        for (service, drivers) in [("city_model", "1"), ("both_model", "2"), ("model", "[0, 2]")] {
            let (status, body) = server.post("/online", ask_of(service, drivers)).await;
            assert_eq!(status, 200, "{body}");
            assert!(body.contains("PRESENT"), "{body}");
        }
        let (status, body) = server.post(path, for_feast("cities:city", "[1]")).await;
        assert!(status == 200 && body.contains("Zürich 1"), "{status} {body}");
        let damaged = |view: &str| format!("unskew_damaged_values_total{{view=\"{view}\"}}");
        assert_eq!(server.metric(&damaged("stats")).await, 6.0);
        let (_, metrics) = server.get("/metrics").await;
        assert!(!metrics.contains(&damaged("cities")), "{metrics}");

        // A deletion replaces it, unless it is greater than any row.
        let delete = |driver: i64| {
            format!(r#"{{"view": "stats", "entities": {{"driver_id": {driver}}}, "history": false}}"#)
        };
        let (status, body) = server.delete("/online", &delete(1)).await;
        assert_eq!((status, body.contains(r#""had_values":0"#)), (200, true), "{body}");
        let (status, body) = server.post("/online", ask(1)).await;
        assert!(status == 200 && body.contains("NOT_FOUND"), "{body}");
        let greatest = StoredRow {
            entity_key: entities[1].clone(),
            value: vec![0xff; 40],
            expires_at: None,
        };
        let put = store.online().unwrap().put(&view, vec![greatest]).await;
        assert_eq!(put.unwrap().written, 1);
        let (status, body) = server.delete("/online", &delete(2)).await;
        assert!(status == 500 && body.contains("damaged"), "{status} {body}");
        server.stop().await;
        store.teardown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_are_deleted_over_http_and_their_history_is_named() {
    with_both_stores(async |online| {
        let repository = repository(online, 5, 3).await;
        let store = repository.store();
        materialize(&store, 2 * HOUR).await;
        let server = Server::start(&store).await;
        let statuses = async || {
            let ask = r#"{"feature_service": "model", "entities": {"driver_id": [0, 1, 2]}, "as_of": "1970-01-01T02:00:00Z"}"#;
            let (status, body) = server.post("/online", ask).await;
            assert_eq!(status, 200, "{body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            body["statuses"]["share"].clone()
        };
        assert_eq!(statuses().await, serde_json::json!(["PRESENT", "PRESENT", "PRESENT"]));
        for (body, status, part) in [
            (r#"{"view": "nothing", "entities": {"driver_id": 1}}"#, 404, "stats"),
            (r#"{"view": "stats"}"#, 400, "entities"),
            (r#"{"view": "stats", "entities": {}}"#, 400, "entities.driver_id"),
            (r#"{"view": "stats", "entities": {"driver_id": null}}"#, 400, "driver_id"),
            (r#"{"view": "stats", "entities": {"driver_id": [1, null]}}"#, 400, "driver_id"),
            (r#"{"view": "stats", "entities": {"driver_id": "x"}}"#, 400, "driver_id"),
            (r#"{"view": "stats", "entities": {"driver": 1}}"#, 400, "driver_id"),
            (r#"{"view": "stats", "entities": {"driver_id": 1}, "history": 1}"#, 400, "true or false"),
            (r#"{"view": "stats", "rows": 1}"#, 400, "history"),
            (r#"{"view": "offline_only", "entities": {"driver_id": 1}}"#, 400, "online: false"),
        ] {
            let (found, answer) = server.delete("/online", body).await;
            assert_eq!(found, status, "{body}: {answer}");
            assert!(answer.contains(part), "{body}: {answer}");
        }
        let body = r#"{"view": "stats", "entities": {"driver_id": [1, 2, 77]}}"#;
        let (status, body) = server.delete("/online", body).await;
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["had_values"], 2);
        let files = body["history"]["files"].as_array().unwrap();
        assert_eq!((files.len(), &files[0]["rows"]), (1, &serde_json::json!(6)));
        assert!(files[0]["file"].as_str().unwrap().ends_with("stats.parquet"));
        assert_eq!(statuses().await, serde_json::json!(["PRESENT", "NOT_FOUND", "NOT_FOUND"]));
        // What is older does not come back.
        let again = Materialize {
            views: Vec::new(),
            span: MaterializeSpan::Range { start: 0, end: 2 * HOUR },
            now: now(),
        };
        store.materialize(again, Arc::new(())).await.unwrap();
        assert_eq!(statuses().await, serde_json::json!(["PRESENT", "NOT_FOUND", "NOT_FOUND"]));
        server.stop().await;
        store.teardown().await.unwrap();
    })
    .await;
}
