//! Feast's own clients, unchanged: its remote online store over HTTP, its stubs over gRPC.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::Field;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use unskew_core::types::UTC;
use unskew_server::{Listeners, NewToken, Right, Settings, Signals, TokenEntry, Tokens};
use unskew_store::{FeatureStore, Materialize, MaterializeSpan};
use unskew_test_feast::run;
use unskew_tests::{Online, Repository, component, now, with_both_stores};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

/// The views of `tests/feast/clients/definitions.py`, and some that only the server knows.
const DEFINITIONS: &str = r"
entities:
  - {name: driver, join_keys: [{name: driver_id, type: int64}]}
  - {name: zone, join_keys: [{name: zone, type: string}]}
  - name: everything
    join_keys:
      - {name: by_bytes, type: bytes}
      - {name: by_bool, type: bool}
      - {name: by_int32, type: int32}
      - {name: by_instant, type: timestamp}
sources:
  - {name: driver_stats, path: data/stats, timestamp_field: happened_at, created_timestamp_column: known_at}
  - {name: rides, path: data/rides, timestamp_field: event_timestamp}
  - {name: every_type, path: data/every_type, timestamp_field: event_timestamp}
feature_views:
  - name: driver_hourly_stats
    entities: [driver]
    source: driver_stats
    ttl: 5h
    features:
      - {name: conv_rate, type: float64}
      - {name: acc_rate, type: float32}
      - {name: avg_daily_trips, type: int64}
      - {name: city, type: string}
  - {name: backup_stats, alias_of: driver_hourly_stats, join_keys: {driver_id: backup_id}}
  - name: zone_rides
    entities: [driver, zone]
    source: rides
    features:
      - {name: rides, type: int32}
      - {name: surge, type: float64}
      - {name: last_ride, type: timestamp}
      - {name: tags, type: list<string>}
  - name: weather
    entities: [zone]
    source: rides
    features: [{name: degrees, type: float64}]
  - name: every_type
    entities: [everything]
    source: every_type
    features:
      - {name: a_bytes, type: bytes}
      - {name: a_string, type: string}
      - {name: an_int32, type: int32}
      - {name: an_int64, type: int64}
      - {name: a_double, type: float64}
      - {name: a_float, type: float32}
      - {name: a_bool, type: bool}
      - {name: an_instant, type: timestamp}
      - {name: some_bytes, type: list<bytes>}
      - {name: some_strings, type: list<string>}
      - {name: some_int32, type: list<int32>}
      - {name: some_int64, type: list<int64>}
      - {name: some_doubles, type: list<float64>}
      - {name: some_floats, type: list<float32>}
      - {name: some_bools, type: list<bool>}
      - {name: some_instants, type: list<timestamp>}
      - {name: with_null, type: list<int64>}
      - {name: no_items, type: list<int64>}
transformations:
  - name: driver_rates
    kind: on_demand
    component: transforms/driver_rates.wasm
    inputs:
      conv_rate: driver_hourly_stats:conv_rate
      avg_daily_trips: driver_hourly_stats:avg_daily_trips
      val_to_add: request:val_to_add
feature_services:
  - name: driver_model
    features: ['driver_hourly_stats:conv_rate', 'zone_rides:rides', driver_rates]
";

fn instants(micros: &[i64]) -> ArrayRef {
    let instants = TimestampMicrosecondArray::from(micros.to_vec());
    Arc::new(instants.with_timezone(UTC))
}

/// A list in each row, all of the same length.
fn lists(rows: usize, items: ArrayRef) -> ArrayRef {
    let item = Field::new("item", items.data_type().clone(), true);
    let lengths = std::iter::repeat_n(items.len() / rows.max(1), rows);
    Arc::new(ListArray::new(
        Arc::new(item),
        OffsetBuffer::from_lengths(lengths),
        items,
        None,
    ))
}

/// Drivers 1001 to 1003: one with all values, one without a rate, one whose row is too old.
fn stats(now: i64) -> RecordBatch {
    let at = instants(&[now - HOUR, now - HOUR, now - 10 * HOUR]);
    let columns: [(&str, ArrayRef); 7] = [
        (
            "driver_id",
            Arc::new(Int64Array::from(vec![1001, 1002, 1003])),
        ),
        ("happened_at", Arc::clone(&at)),
        ("known_at", at),
        (
            "conv_rate",
            Arc::new(Float64Array::from(vec![Some(0.5), None, Some(0.75)])),
        ),
        (
            "acc_rate",
            Arc::new(Float32Array::from(vec![0.1, 0.2, 0.3])),
        ),
        (
            "avg_daily_trips",
            Arc::new(Int64Array::from(vec![9_007_199_254_740_993, 7, 8])),
        ),
        (
            "city",
            Arc::new(StringArray::from(vec!["Zürich \"1\"", "", "Chur"])),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The rides of driver 1001 in two zones; the weather has no column of its own.
fn rides(now: i64) -> RecordBatch {
    let at = now - HOUR;
    let tags: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let item = Field::new("item", tags.data_type().clone(), true);
    let tags = ListArray::new(
        Arc::new(item),
        OffsetBuffer::from_lengths([2, 1]),
        tags,
        None,
    );
    let columns: [(&str, ArrayRef); 8] = [
        ("driver_id", Arc::new(Int64Array::from(vec![1001, 1001]))),
        ("zone", Arc::new(StringArray::from(vec!["north", "south"]))),
        ("event_timestamp", instants(&[at, at])),
        ("rides", Arc::new(Int32Array::from(vec![3, 4]))),
        ("surge", Arc::new(Float64Array::from(vec![1.5, 0.1]))),
        ("last_ride", instants(&[at + 1, at + SECOND - 1])),
        ("tags", Arc::new(tags)),
        ("degrees", Arc::new(Float64Array::from(vec![20.0, 21.0]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// One row with a value of every type.
fn every_type(now: i64) -> RecordBatch {
    let strings = || -> ArrayRef { Arc::new(StringArray::from(vec!["", "x"])) };
    let columns: [(&str, ArrayRef); 23] = [
        ("event_timestamp", instants(&[now - HOUR])),
        (
            "by_bytes",
            Arc::new(BinaryArray::from_vec(vec![b"\x00".as_slice()])),
        ),
        ("by_bool", Arc::new(BooleanArray::from(vec![true]))),
        ("by_int32", Arc::new(Int32Array::from(vec![7]))),
        ("by_instant", instants(&[now - HOUR])),
        (
            "a_bytes",
            Arc::new(BinaryArray::from_vec(vec![b"\x00\xff".as_slice()])),
        ),
        ("a_string", Arc::new(StringArray::from(vec!["Zürich"]))),
        ("an_int32", Arc::new(Int32Array::from(vec![i32::MIN]))),
        ("an_int64", Arc::new(Int64Array::from(vec![i64::MIN]))),
        ("a_double", Arc::new(Float64Array::from(vec![0.1]))),
        ("a_float", Arc::new(Float32Array::from(vec![0.1]))),
        ("a_bool", Arc::new(BooleanArray::from(vec![false]))),
        // Half a second before 1970 lies within the second before.
        ("an_instant", instants(&[-SECOND / 2])),
        (
            "some_bytes",
            lists(
                1,
                Arc::new(BinaryArray::from_vec(vec![b"".as_slice(), b"\x01"])),
            ),
        ),
        ("some_strings", lists(1, strings())),
        (
            "some_int32",
            lists(1, Arc::new(Int32Array::from(vec![1, -1]))),
        ),
        (
            "some_int64",
            lists(1, Arc::new(Int64Array::from(vec![(1_i64 << 53) + 1]))),
        ),
        (
            "some_doubles",
            lists(1, Arc::new(Float64Array::from(vec![0.1, f64::INFINITY]))),
        ),
        (
            "some_floats",
            lists(1, Arc::new(Float32Array::from(vec![0.1]))),
        ),
        (
            "some_bools",
            lists(1, Arc::new(BooleanArray::from(vec![true, false]))),
        ),
        ("some_instants", lists(1, instants(&[0, SECOND]))),
        (
            "with_null",
            lists(1, Arc::new(Int64Array::from(vec![Some(1), None]))),
        ),
        (
            "no_items",
            lists(1, Arc::new(Int64Array::from(Vec::<i64>::new()))),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The repository, all views but one of it materialized.
async fn repository(online: Online<'_>, now: i64) -> (Repository, FeatureStore) {
    let repository = Repository::new(online, DEFINITIONS);
    repository.write("data/stats/history.parquet", &stats(now));
    repository.write("data/rides/history.parquet", &rides(now));
    repository.write("data/every_type/history.parquet", &every_type(now));
    std::fs::create_dir(repository.path("transforms")).unwrap();
    std::fs::copy(
        component("driver_rates"),
        repository.path("transforms/driver_rates.wasm"),
    )
    .unwrap();
    let store = repository.store();
    store.apply(&()).await.unwrap();
    let views = ["driver_hourly_stats", "zone_rides", "every_type"];
    let request = Materialize {
        views: views.map(str::to_owned).to_vec(),
        span: MaterializeSpan::Incremental { end: now },
        now: unskew_tests::now(),
    };
    store.materialize(request, Arc::new(())).await.unwrap();
    (repository, store)
}

/// A server with both ports.
struct Both {
    http: String,
    grpc: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Both {
    async fn start(store: &FeatureStore) -> Self {
        Self::start_with(store, Settings::default()).await
    }

    async fn start_with(store: &FeatureStore, settings: Settings) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let addresses = (http.local_addr().unwrap(), grpc.local_addr().unwrap());
        let store = store.clone();
        let settings = Settings {
            drain: std::time::Duration::ZERO,
            ..settings
        };
        let listeners = Listeners {
            http,
            grpc: Some(grpc),
        };
        let server =
            unskew_server::Server::new(&store.settings().project, settings, listeners).unwrap();
        let task = tokio::spawn(async move {
            let signals = Signals::new(async move {
                let _ = stopped.await;
            });
            server.serve(store, signals).await.unwrap();
        });
        Self {
            http: format!("http://{}", addresses.0),
            grpc: addresses.1.to_string(),
            stop,
            task,
        }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }
}

/// Runs a client where it may take its time.
async fn client(name: &'static str, arguments: [String; 2]) -> String {
    tokio::task::spawn_blocking(move || run(name, &[&arguments[0], &arguments[1]]))
        .await
        .unwrap()
}

/// The clock, in whole seconds: what Feast's instants can say.
fn whole_seconds() -> i64 {
    now() / SECOND * SECOND
}

#[tokio::test(flavor = "multi_thread")]
async fn feasts_remote_store_reads_what_is_served() {
    with_both_stores(async |online| {
        let now = whole_seconds();
        let (_repository, store) = repository(online, now).await;
        let server = Both::start(&store).await;
        let said = client("read", [server.http.clone(), (now / SECOND).to_string()]).await;
        assert_eq!(said.trim(), "read");
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feasts_client_pushes_and_writes_rows_that_are_served() {
    with_both_stores(async |online| {
        let now = whole_seconds();
        let (_repository, store) = repository(online, now).await;
        let server = Both::start(&store).await;
        let said = client("write", [server.http.clone(), String::new()]).await;
        assert_eq!(said.trim(), "written");
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feasts_client_shows_a_token_where_the_server_wants_one() {
    let (repository, store) = repository(Online::Embedded, whole_seconds()).await;
    let token = NewToken::generate().unwrap();
    let mut tokens = Tokens::default();
    let entry = TokenEntry {
        name: "client".to_owned(),
        hash: token.hash(),
        rights: BTreeSet::from([Right::Read]),
        project: None,
        expires: None,
    };
    tokens.add(entry).unwrap();
    let file = repository.path("tokens.json");
    tokens.write(&file).unwrap();
    let settings = Settings {
        tokens: Some(file),
        ..Settings::default()
    };
    let server = Both::start_with(&store, settings).await;
    let said = client("guarded", [server.http.clone(), token.text().to_owned()]).await;
    assert_eq!(said.trim(), "guarded");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feasts_stubs_ask_over_grpc() {
    let now = whole_seconds();
    let (_repository, store) = repository(Online::Embedded, now).await;
    let server = Both::start(&store).await;
    let said = client(
        "ask_grpc",
        [server.grpc.clone(), (now / SECOND).to_string()],
    )
    .await;
    assert_eq!(said.trim(), "asked");
    server.stop().await;
}
