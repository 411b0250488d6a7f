//! Materializations into Redis servers that fall silent or give way to others.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::datatypes::Float64Type;
use unskew_offline::Progress;
use unskew_online::patient;
use unskew_store::{
    FeatureStore, Features, Materialize, MaterializeSpan, Materialized, RequestRows,
};
use unskew_test_redis::{RedisCluster, RedisSentinels, RedisServer};
use unskew_tests::{Online, Repository, materialize, now};

const THINGS: i64 = 300;
const HOUR: i64 = 3_600_000_000;
/// Short, so that a fault is seen soon.
const TIMEOUTS: &str = "socket_timeout=0.2&socket_connect_timeout=0.2";
const PATIENCE: Duration = Duration::from_secs(60);

/// Views of the same table, whose states lie on different servers of a cluster.
fn repository(url: &str, views: usize) -> Repository {
    let mut definitions = "
entities:
  - {name: thing, join_keys: [{name: id, type: int64}]}
sources:
  - {name: history, path: data, timestamp_field: event_timestamp}
feature_views:
"
    .to_owned();
    for view in 0..views {
        writeln!(
            definitions,
            "  - {{name: v{view}, entities: [thing], source: history, \
             features: [{{name: value, type: float64}}]}}"
        )
        .unwrap();
    }
    definitions.push_str("feature_services:\n");
    for view in 0..views {
        writeln!(definitions, "  - {{name: s{view}, features: [v{view}]}}").unwrap();
    }
    let repository = Repository::new(Online::Embedded, &definitions);
    let project =
        format!("project: test\nonline_store: {{type: redis, url: '{url}?{TIMEOUTS}'}}\n");
    std::fs::write(repository.path("unskew.yaml"), project).unwrap();
    repository
}

/// A value of each thing at an hour: the hour.
fn write(repository: &Repository, hour: i64) {
    let instants = vec![hour * HOUR; THINGS as usize];
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..THINGS))),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from(instants).with_timezone("UTC")),
        ),
        (
            "value",
            Arc::new(Float64Array::from(vec![hour as f64; THINGS as usize])),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    repository.write(&format!("data/{hour}.parquet"), &batch);
}

/// Whether every thing has the value of that hour.
async fn all_have(store: &FeatureStore, view: usize, hour: i64) -> bool {
    let features = Features::Service(format!("s{view}"));
    let responder = store.responder(&features).await.unwrap();
    let request = RequestRows {
        as_of: TimestampMicrosecondArray::from(vec![10 * HOUR; THINGS as usize])
            .with_timezone("UTC"),
        keys: vec![Arc::new(Int64Array::from_iter_values(0..THINGS))],
        request: Vec::new(),
    };
    let batch = responder.answer(&request).await.unwrap().batch;
    let values = batch.column(0).as_primitive::<Float64Type>();
    values.null_count() == 0 && values.values().iter().all(|value| *value == hour as f64)
}

async fn available(store: &FeatureStore) {
    let online = store.online().unwrap();
    patient(&online, PATIENCE).ping().await.unwrap();
}

/// Whether a replica has all that was written on `master`.
fn has_heard(master: &RedisServer) -> bool {
    let info = master.command(&["info", "replication"]);
    let number = |text: &str| {
        let digits = text.split(|char: char| !char.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse::<u64>().ok())
    };
    let written = info.split("master_repl_offset:").nth(1).and_then(number);
    let replica = info.lines().find(|line| line.contains("state=online"));
    let heard = replica.and_then(|line| number(line.split("offset=").nth(1)?));
    heard.is_some() && heard >= written
}

/// Does something when the first rows have been read.
struct Midway<F>(F, AtomicBool);

impl<F: Fn() + Send + Sync> Progress for Midway<F> {
    fn advance(&self, _rows: u64) {
        if !self.1.swap(true, Ordering::SeqCst) {
            (self.0)();
        }
    }
}

async fn disturbed(
    store: &FeatureStore,
    end: i64,
    fault: impl Fn() + Send + Sync + 'static,
) -> Vec<Materialized> {
    let request = Materialize {
        views: Vec::new(),
        span: MaterializeSpan::Incremental { end },
        now: now(),
    };
    let midway = Arc::new(Midway(fault, AtomicBool::new(false)));
    let done = store.materialize(request, Arc::clone(&midway) as _).await;
    assert!(midway.1.load(Ordering::SeqCst), "nothing was read");
    done.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_for_a_while_is_waited_for() {
    let server = Arc::new(RedisServer::start());
    let repository = repository(&server.url(), 1);
    write(&repository, 1);
    let store = repository.store();
    store.apply(&()).await.unwrap();
    let silent = Arc::clone(&server);
    let done = disturbed(&store, 2 * HOUR, move || {
        silent.freeze();
        let silent = Arc::clone(&silent);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(1));
            silent.thaw();
        });
    })
    .await;
    assert_eq!(done[0].rows_written, THINGS as u64);
    assert!(all_have(&store, 0, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_written_again_where_a_server_gave_way_meanwhile() {
    let sentinels = Arc::new(RedisSentinels::start(1));
    let repository = repository(&sentinels.url(), 1);
    write(&repository, 1);
    let store = repository.store();
    store.apply(&()).await.unwrap();
    let failing = Arc::clone(&sentinels);
    let done = disturbed(&store, 2 * HOUR, move || {
        // The replica has heard of the run's mark.
        while !has_heard(&failing.servers[0]) {
            std::thread::sleep(Duration::from_millis(20));
        }
        failing.servers[0].freeze();
        failing.wait_until_master(1);
    })
    .await;
    assert_eq!(done[0].watermark, Some(2 * HOUR));
    assert!(all_have(&store, 0, 1).await);
}

/// A replica that had not heard of the last rows takes over after the run that wrote them. What
/// tells of it depends on whether the state of the view lay on the same server.
#[tokio::test(flavor = "multi_thread")]
async fn an_increment_writes_again_what_a_failover_before_it_lost() {
    const VIEWS: usize = 8;
    let mut cluster = RedisCluster::start_with(3, true);
    let repository = repository(&cluster.url(), VIEWS);
    let store = repository.store();
    write(&repository, 1);
    store.apply(&()).await.unwrap();
    materialize(&store, 2 * HOUR).await;
    cluster.wait_until_heard(3, 0);
    let states = cluster.servers[0].command(&["keys", "unskew:state:*"]);
    let states = states.lines().filter(|line| !line.is_empty()).count();
    assert!(states > 0 && states < VIEWS, "{states}");
    cluster.servers[0].cut_off_replicas();
    write(&repository, 3);
    materialize(&store, 4 * HOUR).await;
    cluster.servers[0].stop();
    cluster.wait_until_master(3);
    available(&store).await;
    assert!(!all_have(&store, 0, 3).await);

    let done = materialize(&store, 5 * HOUR).await;
    let lost = done[0].rows_written;
    assert!(lost > 0 && lost < THINGS as u64, "{lost}");
    for (view, done) in done.iter().enumerate() {
        assert_eq!(done.rows_written, lost, "{view}");
        assert_eq!(done.watermark, Some(5 * HOUR), "{view}");
        assert!(all_have(&store, view, 3).await, "{view}");
    }
    // Now all is kept.
    for done in materialize(&store, 6 * HOUR).await {
        assert_eq!((done.rows_written, done.watermark), (0, Some(6 * HOUR)));
    }
}
