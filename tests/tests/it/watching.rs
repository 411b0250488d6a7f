//! What is seen of a server: metrics of a transformation, and a log of features that is a file of
//! entity rows.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use unskew_core::types::UTC;
use unskew_server::{FeatureLogSettings, Settings};
use unskew_tests::{
    Online, Repository, Server, component, materialize, training_set, with_both_stores,
};

const HOUR: i64 = 3_600_000_000;

const DEFINITIONS: &str = "
entities:
  - {name: driver, join_keys: [{name: driver_id, type: int64}]}
sources:
  - {name: stats, path: data/stats.parquet, timestamp_field: event_timestamp}
feature_views:
  - name: stats
    entities: [driver]
    source: stats
    ttl: 5h
    features: [{name: conv_rate, type: float64}, {name: avg_daily_trips, type: int64}]
transformations:
  - name: rates
    kind: on_demand
    component: driver_rates.wasm
    inputs:
      conv_rate: stats:conv_rate
      avg_daily_trips: stats:avg_daily_trips
      val_to_add: request:val_to_add
feature_services:
  - {name: model, features: [stats, rates]}
";

/// Drivers 0 to 4, a row each hour; every fourth rate is null.
fn history() -> RecordBatch {
    let rows: Vec<(i64, i64)> = (0..10)
        .flat_map(|hour| (0..5).map(move |driver| (driver, hour)))
        .collect();
    let instants: Vec<i64> = rows.iter().map(|(_, hour)| hour * HOUR).collect();
    let drivers = rows.iter().map(|(driver, _)| *driver);
    let rates = rows.iter().map(|(driver, hour)| {
        let rate = *hour as f64 / 10.0 + *driver as f64;
        ((driver + hour) % 4 != 0).then_some(rate)
    });
    let trips = rows.iter().map(|(driver, hour)| driver * 100 + hour);
    let columns: [(&str, ArrayRef); 4] = [
        ("driver_id", Arc::new(Int64Array::from_iter_values(drivers))),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from(instants).with_timezone(UTC)),
        ),
        ("conv_rate", Arc::new(rates.collect::<Float64Array>())),
        (
            "avg_daily_trips",
            Arc::new(Int64Array::from_iter_values(trips)),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

async fn repository(online: Online<'_>) -> Repository {
    let repository = Repository::new(online, DEFINITIONS);
    repository.write("data/stats.parquet", &history());
    std::fs::copy(
        component("driver_rates"),
        repository.path("driver_rates.wasm"),
    )
    .unwrap();
    let store = repository.store();
    store.apply(&()).await.unwrap();
    materialize(&store, 9 * HOUR).await;
    repository
}

fn ask(drivers: &str, hour: i64, values: &str) -> String {
    format!(
        r#"{{"feature_service": "model", "entities": {{"driver_id": {drivers}}},
            "request": {{"val_to_add": {values}}}, "as_of": "1970-01-01T{hour:02}:00:00Z"}}"#
    )
}

/// The value of a sample.
fn value(metrics: &str, sample: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
    let value = line.unwrap_or_else(|| panic!("no {sample} in {metrics}"));
    value.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_set_of_the_log_has_what_was_served() {
    with_both_stores(async |online| {
        let repository = repository(online).await;
        let store = repository.store();
        let log = repository.path("log");
        let settings = Settings {
            feature_log: Some(FeatureLogSettings::all(&log)),
            ..Settings::default()
        };
        let server = Server::start_with(&store, settings).await;
        // Drivers that are known and not, values that are given and not, rows that are too old.
        for (drivers, hour, values) in [
            ("[0, 1, 2, 3, 4]", 9, "[1, 2, 3, null, 5]"),
            ("[4, 99, null]", 10, "[-7, 8, 9]"),
            ("3", 14, "10"),
            ("[2, 3]", 15, "[1, 1]"),
        ] {
            let (status, body) = server.post("/online", ask(drivers, hour, values)).await;
            assert_eq!(status, 200, "{body}");
        }
        server.stop().await;

        let plans: Vec<PathBuf> = std::fs::read_dir(log.join("model"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let [plan] = &plans[..] else {
            panic!("{plans:?}");
        };
        let training = training_set(&store, "model", plan).await;
        assert_eq!(training.num_rows(), 11);
        let mut nulls = 0;
        for output in [
            "conv_rate",
            "avg_daily_trips",
            "conv_rate_plus_val",
            "trips_plus_val",
        ] {
            let served = &training[format!("served:{output}").as_str()];
            // Arrow compares floats by their bits.
            assert_eq!(&training[output], served, "{output}");
            nulls += served.null_count();
        }
        assert!(nulls > 4 && nulls < 40, "{nulls}");
        let statuses = training["status:conv_rate"].as_string::<i32>();
        let mut found: Vec<&str> = statuses.iter().flatten().collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(
            found,
            ["NOT_FOUND", "NULL_VALUE", "OUTSIDE_MAX_AGE", "PRESENT"]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_a_component_is_timed_under_its_version() {
    let repository = repository(Online::Embedded).await;
    let store = repository.store();
    let server = Server::start(&store).await;
    let metrics = async || server.get("/metrics").await.1;
    let of = "{transformation=\"rates\",component=\"driver_rates\",version=\"0.1.0\"}";
    let calls = format!("unskew_transform_duration_seconds_count{of}");
    let taken = format!("unskew_transform_duration_seconds_sum{of}");
    // It is there before the first request.
    assert_eq!(value(&metrics().await, &calls), 0.0);
    for _ in 0..3 {
        let (status, body) = server.post("/online", ask("[0, 1]", 9, "[1, 2]")).await;
        assert_eq!(status, 200, "{body}");
    }
    let after = metrics().await;
    assert_eq!(value(&after, &calls), 3.0);
    assert!(value(&after, &taken) > 0.0);
    let evaluated = r#"unskew_stage_duration_seconds_sum{service="model",stage="evaluate"}"#;
    assert!(value(&after, evaluated) >= value(&after, &taken));
    let plan = store
        .applied()
        .await
        .unwrap()
        .plan(&unskew_store::Features::Service("model".to_owned()))
        .unwrap();
    let info = format!(
        r#"unskew_plan_info{{service="model",plan="{}"}}"#,
        plan.digest()
    );
    assert_eq!(value(&after, &info), 1.0);
    assert_eq!(value(&after, "unskew_registry_state"), 1.0);
    assert_eq!(value(&after, "unskew_reload_failing"), 0.0);
    let watermark = r#"unskew_view_watermark_timestamp_seconds{view="stats"}"#;
    assert_eq!(value(&after, watermark), 9.0 * 3600.0);

    // A list of features has no name of its own.
    let list = r#"{"features": ["stats:conv_rate"], "entities": {"driver_id": [1]}}"#;
    assert_eq!(server.post("/get-online-features", list).await.0, 200);
    let rows = r#"unskew_request_rows_sum{service="@features"}"#;
    assert_eq!(value(&metrics().await, rows), 1.0);
    server.stop().await;
}
