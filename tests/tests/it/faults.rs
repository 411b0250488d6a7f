//! A server that is asked all the time while its Redis fails: every answer is right, or says that
//! the store is away.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use serde_json::{Value, json};
use unskew_core::types::UTC;
use unskew_store::FeatureStore;
use unskew_test_redis::{RedisCluster, RedisSentinels, RedisServer};
use unskew_tests::{Client, Online, Repository, Server, materialize};

const DEFINITIONS: &str = "
entities:
  - {name: thing, join_keys: [{name: id, type: int64}]}
sources:
  - {name: history, path: data/history.parquet, timestamp_field: event_timestamp}
feature_views:
  - {name: sizes, entities: [thing], source: history, features: [{name: size, type: float64}]}
  - {name: labels, entities: [thing], source: history, features: [{name: label, type: string}]}
feature_services:
  - {name: model, features: [sizes, labels]}
";
const HOUR: i64 = 3_600_000_000;
/// Those from here on have no row.
const THINGS: i64 = 100;
/// Short, so that a fault is seen soon.
const TIMEOUT: &str = "socket_timeout=1";
/// How a server keeps what it holds when it is killed.
const KEPT: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

fn size_of(thing: i64) -> f64 {
    thing as f64 * 1.25 - 3.5
}

/// Of different lengths, so that a shifted answer would not even look like one.
fn label_of(thing: i64) -> String {
    format!("/{thing}").repeat(1 + thing as usize * 7 % 40)
}

fn history() -> RecordBatch {
    let things = || 0..THINGS;
    let instants = vec![HOUR; THINGS as usize];
    let labels = things().map(|thing| Some(label_of(thing)));
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(things()))),
        (
            "event_timestamp",
            Arc::new(TimestampMicrosecondArray::from(instants).with_timezone(UTC)),
        ),
        (
            "size",
            Arc::new(Float64Array::from_iter_values(things().map(size_of))),
        ),
        ("label", Arc::new(labels.collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A server of things that are materialized.
struct Serving {
    store: FeatureStore,
    server: Server,
    _repository: Repository,
}

impl Serving {
    async fn start(redis: impl Display, options: &str) -> Self {
        let repository = Repository::new(Online::Url(&format!("{redis}?{options}")), DEFINITIONS);
        repository.write("data/history.parquet", &history());
        let store = repository.store();
        store.apply(&()).await.unwrap();
        materialize(&store, 2 * HOUR).await;
        Self {
            server: Server::start(&store).await,
            store,
            _repository: repository,
        }
    }
}

/// In whose words a client asks.
#[derive(Clone, Copy, Debug)]
enum Form {
    Unskew,
    Feast,
}

/// What may be answered.
#[derive(Debug, PartialEq)]
enum Answer {
    Right,
    /// The view was materialized, and the store holds nothing of that.
    Lost,
    Away,
}

impl Form {
    /// Asks for things.
    ///
    /// # Panics
    /// The answer is none of those that may be; they may be lost only if they are `lossy`.
    fn ask(self, client: &Client, things: &[i64], lossy: &AtomicBool) -> Answer {
        let path = match self {
            Self::Unskew => "/online",
            Self::Feast => "/get-online-features",
        };
        let asked = json!({"feature_service": "model", "entities": {"id": things}}).to_string();
        let before = lossy.load(Ordering::SeqCst);
        let (status, body) = client.post(path, &asked);
        let lossy = before || lossy.load(Ordering::SeqCst);
        let answer = serde_json::from_str(&body).unwrap_or(Value::Null);
        let meant = match status {
            200 => self.features(&answer, things),
            503 => self.is_away(&answer).then_some(Answer::Away),
            _ => None,
        };
        let meant = meant.filter(|answer| lossy || *answer != Answer::Lost);
        meant.unwrap_or_else(|| panic!("{path} {asked}\nwas answered\n{status} {body}"))
    }

    /// What an answer says of things; `None` if that is not so.
    fn features(self, answer: &Value, things: &[i64]) -> Option<Answer> {
        // Feast's form has one word for both.
        let no_view = match self {
            Self::Unskew => "NOT_MATERIALIZED",
            Self::Feast => "NOT_FOUND",
        };
        let known = |thing: i64| thing < THINGS;
        let values = |value: &dyn Fn(i64) -> Value| -> Value {
            let values = things.iter().map(|&thing| match known(thing) {
                true => value(thing),
                false => Value::Null,
            });
            values.collect()
        };
        let statuses = things.iter().map(|&thing| match known(thing) {
            true => "PRESENT",
            false => "NOT_FOUND",
        });
        let statuses: Value = statuses.collect();
        let lost = (
            json!(vec![Value::Null; things.len()]),
            json!(vec![no_view; things.len()]),
        );
        let mut meant = Answer::Right;
        for (index, (feature, right)) in [
            ("size", values(&|thing| json!(size_of(thing)))),
            ("label", values(&|thing| json!(label_of(thing)))),
        ]
        .into_iter()
        .enumerate()
        {
            let found = match self {
                Self::Unskew => (&answer["features"][feature], &answer["statuses"][feature]),
                Self::Feast => {
                    let column = &answer["results"][1 + index];
                    (&column["values"], &column["statuses"])
                }
            };
            if found == (&right, &statuses) {
                continue;
            }
            if found != (&lost.0, &lost.1) {
                return None;
            }
            meant = Answer::Lost;
        }
        let is_of_them = match self {
            Self::Unskew => true,
            Self::Feast => {
                answer["metadata"]["feature_names"] == json!(["id", "size", "label"])
                    && answer["results"][0]["values"] == json!(things)
            }
        };
        is_of_them.then_some(meant)
    }

    /// Whether a problem is the one of a store that does not answer.
    fn is_away(self, problem: &Value) -> bool {
        match self {
            Self::Unskew => problem["error"]["code"] == "store_unavailable",
            Self::Feast => {
                let exception = problem.as_str().unwrap_or_default();
                let exception: Value = serde_json::from_str(exception).unwrap_or(Value::Null);
                let message = exception["message"].as_str().unwrap_or_default();
                exception["class"] == "FeastError" && message.starts_with("the online store ")
            }
        }
    }
}

/// Clients that ask all the time: for one thing, for some, for some of them as Feast's.
struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

const CLIENTS: [(Form, usize); 4] = [
    (Form::Unskew, 1),
    (Form::Unskew, 1),
    (Form::Unskew, 20),
    (Form::Feast, 10),
];

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Whether what was materialized may be lost.
    lossy: AtomicBool,
    seen: [Seen; CLIENTS.len()],
}

/// How often a client was answered, and how.
#[derive(Default)]
struct Seen {
    right: AtomicU64,
    lost: AtomicU64,
    away: AtomicU64,
}

impl Shared {
    fn ask(&self, client: usize, by: &Client) {
        let (form, most) = CLIENTS[client];
        let seen = &self.seen[client];
        // Some have no row.
        let thing = || fastrand::i64(0..THINGS + 5);
        while !self.stop.load(Ordering::SeqCst) {
            let count = fastrand::usize(1..=most);
            let things: Vec<i64> = (0..count).map(|_| thing()).collect();
            let answers = match form.ask(by, &things, &self.lossy) {
                Answer::Right => &seen.right,
                Answer::Lost => &seen.lost,
                Answer::Away => &seen.away,
            };
            answers.fetch_add(1, Ordering::SeqCst);
            // Others have to work here too.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Load {
    async fn start(server: &Server) -> Self {
        let shared = Arc::new(Shared::default());
        let clients = (0..CLIENTS.len()).map(|client| {
            let (shared, by) = (Arc::clone(&shared), server.client());
            std::thread::spawn(move || shared.ask(client, &by))
        });
        let load = Self {
            clients: clients.collect(),
            shared,
        };
        load.served().await;
        load
    }

    /// Waits until something is so.
    async fn until(&self, what: &str, so: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !so().await {
            let failed = self.clients.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a client has failed");
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "{what}: not within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until each client has been answered so for a while.
    async fn all(&self, what: &str, count: impl Fn(&Seen) -> &AtomicU64) {
        let counts = || {
            let seen = self.shared.seen.iter();
            let counts = seen.map(|seen| count(seen).load(Ordering::SeqCst));
            counts.collect::<Vec<_>>()
        };
        let before = counts();
        self.until(what, async || {
            let now = counts();
            before
                .iter()
                .zip(now)
                .all(|(before, now)| now >= before + 20)
        })
        .await;
    }

    async fn served(&self) {
        self.all("all clients are answered right", |seen| &seen.right)
            .await;
    }

    async fn refused(&self) {
        self.all("all clients are told that the store is away", |seen| {
            &seen.away
        })
        .await;
    }

    /// How often the store was away.
    fn away(&self) -> u64 {
        let seen = self.shared.seen.iter();
        seen.map(|seen| seen.away.load(Ordering::SeqCst)).sum()
    }

    /// Ends the load, asks for each thing once more, and ends the server.
    async fn end(self, serving: Serving) {
        self.served().await;
        self.shared.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
        let client = serving.server.client();
        for thing in 0..THINGS {
            answered_right(&client, thing);
        }
        serving.server.stop().await;
    }
}

/// Asks for a thing until the answer is right, in both forms.
fn answered_right(client: &Client, thing: i64) {
    for form in [Form::Unskew, Form::Feast] {
        let begun = Instant::now();
        while form.ask(client, &[thing], &AtomicBool::new(false)) != Answer::Right {
            assert!(begun.elapsed() < PATIENCE, "{form:?}: {thing}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_is_killed_and_started_again_with_its_data() {
    const OPEN: &str = r#"unskew_online_store_circuit{state="open"}"#;
    const CLOSED: &str = r#"unskew_online_store_circuit{state="closed"}"#;
    const FAILURES: &str = "unskew_online_store_failures_total";
    const RECONNECTS: &str = "unskew_online_store_reconnects_total";
    const CONNECTIONS: &str = "unskew_online_store_connections";
    let mut redis = RedisServer::start_with(&KEPT);
    let serving = Serving::start(redis.url(), TIMEOUT).await;
    let load = Load::start(&serving.server).await;
    let metric = async |sample| serving.server.metric(sample).await;
    load.until("the circuit is closed", async || {
        metric(CLOSED).await == 1.0
    })
    .await;
    for _ in 0..3 {
        let before = (metric(FAILURES).await, metric(RECONNECTS).await);
        redis.stop();
        load.refused().await;
        load.until("the circuit is open", async || metric(OPEN).await == 1.0)
            .await;
        redis.start_again();
        load.served().await;
        load.until("the circuit is closed", async || {
            metric(CLOSED).await == 1.0 && metric(OPEN).await == 0.0
        })
        .await;
        assert!(metric(FAILURES).await > before.0);
        assert!(metric(RECONNECTS).await > before.1);
    }
    // So fast that the circuit may not even open.
    redis.start_again();
    load.served().await;
    // Clients came one after the other, so each thread that serves has some.
    let threads = std::thread::available_parallelism().unwrap().get();
    let threads = threads.min(CLIENTS.len()) as f64;
    load.until("each thread has a connection", async || {
        metric(CONNECTIONS).await >= threads
    })
    .await;
    load.end(serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_started_again_empty_is_filled_again() {
    let mut redis = RedisServer::start();
    let serving = Serving::start(redis.url(), TIMEOUT).await;
    let load = Load::start(&serving.server).await;
    load.shared.lossy.store(true, Ordering::SeqCst);
    redis.stop();
    load.refused().await;
    redis.start_again();
    load.all("all clients are told of the loss", |seen| &seen.lost)
        .await;
    materialize(&serving.store, 2 * HOUR).await;
    load.shared.lossy.store(false, Ordering::SeqCst);
    load.end(serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_falls_silent_and_speaks_again() {
    let redis = RedisServer::start();
    let serving = Serving::start(redis.url(), TIMEOUT).await;
    let load = Load::start(&serving.server).await;
    for _ in 0..2 {
        redis.freeze();
        load.refused().await;
        redis.thaw();
        load.served().await;
    }
    load.end(serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_is_restarted_in_good_order() {
    let mut redis = RedisServer::start_with(&KEPT);
    let serving = Serving::start(redis.url(), TIMEOUT).await;
    let load = Load::start(&serving.server).await;
    redis.shut_down();
    load.refused().await;
    redis.start_again();
    load.served().await;
    for _ in 0..3 {
        redis.shut_down();
        redis.start_again();
        load.served().await;
    }
    load.end(serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_put_a_replica_in_place_of_the_master() {
    let mut sentinels = RedisSentinels::start(3);
    let serving = Serving::start(sentinels.url(), TIMEOUT).await;
    let load = Load::start(&serving.server).await;
    let [master, replica] = &mut sentinels.servers;
    replica.wait_until_heard(master);
    let away = load.away();
    master.stop();
    sentinels.wait_until_master(1);
    load.served().await;
    assert!(load.away() > away);
    load.end(serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_cluster_take_the_place_of_masters() {
    let mut cluster = RedisCluster::start_with(3, true);
    let serving = Serving::start(cluster.url(), TIMEOUT).await;
    let load = Load::start(&serving.server).await;
    for master in 0..3 {
        cluster.wait_until_heard(3 + master, master);
    }
    let away = load.away();
    cluster.servers[0].stop();
    cluster.wait_until_master(3);
    load.served().await;
    assert!(load.away() > away);
    // Another, though it is well.
    cluster.fail_over_to(4);
    load.served().await;
    load.end(serving).await;
}

/// A call that is sent to a Redis that says nothing costs the whole timeout.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_silent_redis_take_less_time_together_than_one_timeout() {
    const LONG: Duration = Duration::from_secs(8);
    let redis = RedisServer::start();
    let options = format!("socket_timeout={}&failures=1", LONG.as_secs());
    let serving = Serving::start(redis.url(), &options).await;
    // One for each thread that serves, and more.
    let clients: [Client; 3] = std::array::from_fn(|_| serving.server.client());
    for client in &clients {
        answered_right(client, 7);
    }
    redis.freeze();
    let is_away = |client| {
        let answer = Form::Unskew.ask(client, &[7], &AtomicBool::new(false));
        assert_eq!(answer, Answer::Away);
    };
    is_away(&clients[0]);
    let begun = Instant::now();
    for client in clients.iter().cycle().take(300) {
        is_away(client);
        assert!(begun.elapsed() < LONG);
    }
    redis.thaw();
    for client in &clients {
        answered_right(client, 7);
    }
    serving.server.stop().await;
}
