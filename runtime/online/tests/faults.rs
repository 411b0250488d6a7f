//! Redis that fails while it is read and written: every answer is right or an error.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{one_row, row, store_at, view};
use tokio::task::JoinHandle;
use unskew_online::{Circuit, OnlineStore, StoredRow, ViewKey, ViewState, Wanted, patient};
use unskew_test_redis::{RedisCluster, RedisSentinels, RedisServer};

type Store = Arc<dyn OnlineStore>;

/// Short, so that a fault is over soon.
const TIMEOUTS: &str = "socket_timeout=0.1&socket_connect_timeout=0.2&connections=2";
const ENTITIES: u64 = 200;
const VIEWS: usize = 3;
const READERS: usize = 8;
const WRITERS: usize = 3;
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Readers and writers of a store. A value holds its view and its entity, so that one that is given
/// for another is seen, and a version that only grows.
struct Load {
    store: Store,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    views: Vec<Arc<ViewKey>>,
    /// The greatest version of each entity and view whose write was answered.
    written: Vec<AtomicU64>,
    /// Whether what was written may be lost.
    lossy: bool,
    stop: AtomicBool,
    answers: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
}

fn key_of(entity: u64) -> Vec<u8> {
    format!("entity-{entity}").into_bytes()
}

fn value_of(view: usize, entity: u64, version: u64) -> Vec<u8> {
    let mut value = version.to_be_bytes().to_vec();
    let name = format!("{view}/{entity}/");
    // Of different lengths, so that a shifted answer would not even look like one.
    let times = 1 + (entity as usize * 7 + view) % 40;
    value.extend(name.repeat(times).into_bytes());
    value
}

impl Shared {
    fn check(&self, view: usize, entity: u64, before: u64, held: Option<&[u8]>) {
        match held {
            None => assert!(self.lossy || before == 0, "{view}/{entity} is missing"),
            Some(value) => {
                let version = u64::from_be_bytes(value[..8].try_into().unwrap());
                assert_eq!(value, value_of(view, entity, version), "{view}/{entity}");
                assert!(self.lossy || version >= before, "{view}/{entity} is old");
            }
        }
    }

    fn version(&self, view: usize, entity: u64) -> &AtomicU64 {
        &self.written[view * ENTITIES as usize + entity as usize]
    }

    async fn read(&self, store: &Store) {
        let entities: Vec<u64> = (0..fastrand::usize(1..20))
            .map(|_| fastrand::u64(..ENTITIES))
            .collect();
        let before: Vec<Vec<u64>> = (0..VIEWS)
            .map(|view| {
                let versions = entities.iter().map(|&entity| self.version(view, entity));
                versions
                    .map(|version| version.load(Ordering::SeqCst))
                    .collect()
            })
            .collect();
        let wanted = self.views.iter().map(|view| Wanted {
            view: Arc::clone(view),
            entities: entities.iter().map(|&entity| key_of(entity)).collect(),
        });
        // Some go away before they are answered.
        let patience = match fastrand::u8(..8) {
            0 => Duration::from_micros(fastrand::u64(..5_000)),
            _ => PATIENCE,
        };
        let Ok(answer) = tokio::time::timeout(patience, store.get(wanted.collect())).await else {
            return;
        };
        match answer {
            Ok(held) => {
                assert_eq!(held.len(), VIEWS);
                for (view, held) in held.iter().enumerate() {
                    assert_eq!(held.rows.len(), entities.len());
                    for ((&entity, row), &before) in
                        entities.iter().zip(&held.rows).zip(&before[view])
                    {
                        self.check(view, entity, before, row.as_deref());
                    }
                }
                self.answers.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => self.failed(&error).await,
        }
    }

    async fn write(&self, store: &Store, version: u64) {
        let view = fastrand::usize(..VIEWS);
        let entities: Vec<u64> = (0..30).map(|_| fastrand::u64(..ENTITIES)).collect();
        let rows: Vec<StoredRow> = entities
            .iter()
            .map(|&entity| row(&key_of(entity), &value_of(view, entity, version)))
            .collect();
        match store.put(&self.views[view], rows).await {
            Ok(summary) => {
                assert_eq!(summary.written + summary.kept, 30);
                for entity in entities {
                    self.version(view, entity)
                        .fetch_max(version, Ordering::SeqCst);
                }
                self.writes.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => self.failed(&error).await,
        }
    }

    async fn failed(&self, error: &unskew_online::OnlineError) {
        assert!(error.is_unavailable(), "{error:?}");
        self.errors.fetch_add(1, Ordering::SeqCst);
        // An open circuit answers faster than anybody can ask.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Load {
    async fn start(store: Store, lossy: bool) -> Self {
        let shared = Arc::new(Shared {
            views: (0..VIEWS)
                .map(|i| Arc::new(view(&format!("v{i}"))))
                .collect(),
            written: (0..VIEWS as u64 * ENTITIES)
                .map(|_| AtomicU64::new(0))
                .collect(),
            lossy,
            stop: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        });
        let versions = Arc::new(AtomicU64::new(1));
        let mut workers = Vec::new();
        for worker in 0..READERS + WRITERS {
            let (store, shared) = (Arc::clone(&store), Arc::clone(&shared));
            let versions = Arc::clone(&versions);
            workers.push(tokio::spawn(async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    if worker < READERS {
                        shared.read(&store).await;
                    } else {
                        let version = versions.fetch_add(1, Ordering::SeqCst);
                        shared.write(&store, version).await;
                    }
                }
            }));
        }
        let load = Self {
            store,
            shared,
            workers,
        };
        load.served().await;
        load
    }

    fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::SeqCst)
    }

    /// Waits until calls have been answered that were made after this one.
    async fn served(&self) {
        let answers = self.shared.answers.load(Ordering::SeqCst);
        let writes = self.shared.writes.load(Ordering::SeqCst);
        // More than were on their way.
        self.until("reads are answered", || {
            self.shared.answers.load(Ordering::SeqCst) > answers + 50
        })
        .await;
        self.until("writes are answered", || {
            self.shared.writes.load(Ordering::SeqCst) > writes + 20
        })
        .await;
        self.until("the circuit is closed", || {
            self.store.health().circuit == Circuit::Closed
        })
        .await;
    }

    async fn refused(&self) {
        let errors = self.errors();
        self.until("the circuit is open", || {
            self.store.health().circuit != Circuit::Closed && self.errors() > errors + 20
        })
        .await;
    }

    async fn until(&self, what: &str, so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !so() {
            let panicked = self.workers.iter().any(JoinHandle::is_finished);
            assert!(!panicked, "a worker has panicked");
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the load, and says how many errors there were.
    async fn end(self) -> u64 {
        self.served().await;
        self.shared.stop.store(true, Ordering::SeqCst);
        let errors = self.errors();
        for worker in self.workers {
            worker.await.unwrap();
        }
        errors
    }
}

/// Does what waits for processes where it may.
async fn apart<T: Send + 'static, S: Send + 'static>(
    servers: S,
    work: impl FnOnce(&mut S) -> T + Send + 'static,
) -> (S, T) {
    tokio::task::spawn_blocking(move || {
        let mut servers = servers;
        let done = work(&mut servers);
        (servers, done)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_killed_and_started_again() {
    let mut server = RedisServer::start();
    let store = store_at(&format!("{}?{TIMEOUTS}", server.url()));
    let load = Load::start(store, true).await;
    for _ in 0..3 {
        server.stop();
        load.refused().await;
        server.start_again();
        load.served().await;
        // So fast that the circuit may not even have opened.
        server.start_again();
        load.served().await;
    }
    let health = load.store.health();
    assert!(health.reconnects >= 6 && health.failures >= 9, "{health:?}");
    assert!(load.end().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_falls_silent_and_speaks_again() {
    let server = RedisServer::start();
    let store = store_at(&format!("{}?{TIMEOUTS}", server.url()));
    let load = Load::start(store, false).await;
    for _ in 0..3 {
        server.freeze();
        load.refused().await;
        server.thaw();
        load.served().await;
    }
    load.end().await;
}

/// Some calls time out, and their answers come all the same, before those of later calls.
#[tokio::test(flavor = "multi_thread")]
async fn late_answers_are_given_to_nobody() {
    let server = RedisServer::start();
    let url = format!("{}?socket_timeout=0.02&failures=1000", server.url());
    let load = Load::start(store_at(&url), false).await;
    for round in 0..40 {
        server.freeze();
        tokio::time::sleep(Duration::from_millis(15 + round % 10)).await;
        server.thaw();
        load.served().await;
    }
    assert!(load.end().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_forgotten_and_nobody_notices() {
    let server = RedisServer::start();
    let load = Load::start(store_at(&server.url()), false).await;
    for _ in 0..20 {
        server.command(&["script", "flush"]);
        load.served().await;
    }
    assert_eq!(load.end().await, 0);

    let cluster = RedisCluster::start();
    let load = Load::start(store_at(&cluster.url()), false).await;
    for server in cluster.servers.iter().cycle().take(12) {
        server.command(&["script", "flush"]);
        load.served().await;
    }
    assert_eq!(load.end().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_put_a_replica_in_place_of_a_master_that_died() {
    let sentinels = RedisSentinels::start(3);
    let store = store_at(&format!("{}?{TIMEOUTS}", sentinels.url()));
    let load = Load::start(store, true).await;
    let (sentinels, ()) = apart(sentinels, |sentinels| {
        sentinels.servers[0].stop();
        sentinels.wait_until_master(1);
    })
    .await;
    load.served().await;
    // The former master comes back, empty, and is made a replica.
    let (sentinels, ()) = apart(sentinels, |sentinels| {
        sentinels.servers[0].start_again();
        sentinels.wait_until_replica(0);
    })
    .await;
    load.served().await;
    assert_eq!(sentinels.master(), sentinels.servers[1].port());
    assert!(load.end().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_fell_silent_is_not_the_master_when_it_speaks_again() {
    let sentinels = RedisSentinels::start(1);
    let store = store_at(&format!("{}?{TIMEOUTS}", sentinels.url()));
    let load = Load::start(store, true).await;
    let (sentinels, ()) = apart(sentinels, |sentinels| {
        sentinels.servers[0].freeze();
        sentinels.wait_until_master(1);
    })
    .await;
    load.served().await;
    let (sentinels, ()) = apart(sentinels, |sentinels| {
        sentinels.servers[0].thaw();
        sentinels.wait_until_replica(0);
    })
    .await;
    load.served().await;
    // Each way once: also while both are well.
    let (_sentinels, ()) = apart(sentinels, |sentinels| {
        sentinels.fail_over();
        sentinels.wait_until_master(0);
        sentinels.wait_until_replica(1);
    })
    .await;
    load.served().await;
    load.end().await;
}

/// The watermark is written after the rows: who has not heard of the rows has not heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_loses_is_lost_together_with_the_watermark() {
    let sentinels = RedisSentinels::start(1);
    let store = patient(&store_at(&sentinels.url()), PATIENCE);
    let v = view("v");
    let state = |watermark| ViewState {
        watermark: Some(watermark),
        ..ViewState::default()
    };
    let (one, two) = (state(1), state(2));
    store.put(&v, vec![row(b"k", b"1")]).await.unwrap();
    assert!(store.update_state(&v, None, &one).await.unwrap());
    let (sentinels, ()) = apart(sentinels, |sentinels| {
        let [master, replica] = &sentinels.servers;
        while replica.command(&["dbsize"]).trim() != "2" {
            std::thread::sleep(Duration::from_millis(5));
        }
        master.cut_off_replicas();
    })
    .await;
    let rows = vec![row(b"k", b"2"), row(b"l", b"2")];
    assert_eq!(store.put(&v, rows.clone()).await.unwrap().written, 2);
    assert!(store.update_state(&v, Some(&one), &two).await.unwrap());
    let (_sentinels, ()) = apart(sentinels, |sentinels| {
        sentinels.servers[0].stop();
        sentinels.wait_until_master(1);
    })
    .await;
    assert_eq!(store.state(&v).await.unwrap().as_ref(), Some(&one));
    assert_eq!(one_row(&*store, &v, b"k").await.unwrap(), b"1");
    assert_eq!(one_row(&*store, &v, b"l").await, None);
    // What begins from the watermark that is left writes the rest again.
    assert_eq!(store.put(&v, rows).await.unwrap().written, 2);
    assert!(store.update_state(&v, Some(&one), &two).await.unwrap());
    assert_eq!(one_row(&*store, &v, b"l").await.unwrap(), b"2");
}

/// In a cluster the state of a view lies on one server and its rows on all: that rows are lost is
/// told by the server that took over.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_kept_by_a_replica_that_has_heard_of_all_and_by_no_other() {
    for cut_off in [false, true] {
        let cluster = RedisCluster::start_with(3, true);
        let store = patient(&store_at(&cluster.url()), PATIENCE);
        let v = view("v");
        let put = async |value: &[u8]| {
            let rows = (0..200_u8).map(|i| row(&[b'k', i], value)).collect();
            assert_eq!(store.put(&v, rows).await.unwrap().written, 200);
            store.lineage().await.unwrap()
        };
        let before = put(b"1").await;
        let (cluster, ()) = apart(cluster, move |cluster| {
            cluster.wait_until_heard(3, 0);
            if cut_off {
                cluster.servers[0].cut_off_replicas();
            }
        })
        .await;
        let then = put(b"2").await;
        assert!(then.is_same(&before) && then.keeps(&before.mark()));
        let (_cluster, ()) = apart(cluster, move |cluster| {
            if !cut_off {
                cluster.wait_until_heard(3, 0);
            }
            cluster.servers[0].stop();
            cluster.wait_until_master(3);
        })
        .await;
        let now = store.lineage().await.unwrap();
        assert!(!now.is_same(&then), "{now:?}");
        assert!(now.keeps(&before.mark()), "{before:?} {now:?}");
        assert_eq!(now.keeps(&then.mark()), !cut_off, "{then:?} {now:?}");
        let mut lost = 0;
        for i in 0..200_u8 {
            let held = one_row(&*store, &v, &[b'k', i]).await.unwrap();
            lost += u32::from(held == b"1");
        }
        assert_eq!(lost > 0, cut_off);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_written_in_the_history_of_its_rows_or_not_at_all() {
    let sentinels = RedisSentinels::start(1);
    let store = patient(&store_at(&sentinels.url()), PATIENCE);
    let v = view("v");
    let state = ViewState {
        watermark: Some(1),
        ..ViewState::default()
    };
    let before = store.lineage().await.unwrap();
    assert_eq!(before.mark(), "");
    let (_sentinels, ()) = apart(sentinels, |sentinels| {
        sentinels.servers[0].stop();
        sentinels.wait_until_master(1);
    })
    .await;
    let update = async |lineage| store.update_state_within(lineage, &v, None, &state).await;
    assert!(!update(&before).await.unwrap());
    assert_eq!(store.state(&v).await.unwrap(), None);
    let now = store.lineage().await.unwrap();
    assert!(!now.is_same(&before));
    assert!(update(&now).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_again_begins_another_history() {
    let server = RedisServer::start();
    let store = patient(&store_at(&server.url()), PATIENCE);
    let before = store.lineage().await.unwrap();
    assert!(store.lineage().await.unwrap().is_same(&before));
    let (_server, ()) = apart(server, RedisServer::start_again).await;
    assert!(!store.lineage().await.unwrap().is_same(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_a_cluster_dies_and_its_replica_takes_over() {
    let cluster = RedisCluster::start_with(3, true);
    let store = store_at(&format!("{}?{TIMEOUTS}", cluster.url()));
    let load = Load::start(store, true).await;
    let (cluster, ()) = apart(cluster, |cluster| {
        cluster.servers[0].stop();
        cluster.wait_until_master(3);
    })
    .await;
    load.served().await;
    let (cluster, ()) = apart(cluster, |cluster| {
        cluster.servers[1].freeze();
        cluster.wait_until_master(4);
    })
    .await;
    load.served().await;
    let (cluster, ()) = apart(cluster, |cluster| {
        cluster.servers[1].thaw();
        cluster.servers[0].start_again();
        cluster.wait_until_replica(0);
        cluster.wait_until_replica(1);
    })
    .await;
    load.served().await;
    // And back, as an operator would have it.
    let (_cluster, ()) = apart(cluster, |cluster| {
        cluster.fail_over_to(0);
    })
    .await;
    load.served().await;
    assert!(load.end().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_and_nobody_notices() {
    let cluster = RedisCluster::start();
    let load = Load::start(store_at(&cluster.url()), false).await;
    let (_cluster, ()) = apart(cluster, |cluster| {
        for entity in 0..20 {
            let slot = cluster.slot_of(&key_of(entity));
            let from = cluster.owner_of(slot);
            cluster.migrate(slot, from, (from + 1) % 3);
        }
        let new = cluster.join();
        for entity in 20..28 {
            let slot = cluster.slot_of(&key_of(entity));
            let from = cluster.owner_of(slot);
            if from != new {
                cluster.migrate(slot, from, new);
            }
        }
    })
    .await;
    assert_eq!(load.end().await, 0);
}

/// Some keys of a slot are here and some are there: a command for all of them is told to try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_on_its_way_is_read_and_written() {
    let cluster = RedisCluster::start();
    let store = store_at(&cluster.url());
    let views = [view("a"), view("b"), view("c")];
    let state = ViewState {
        watermark: Some(7),
        ..ViewState::default()
    };
    for view in &views {
        store.put(view, vec![row(b"k", b"old")]).await.unwrap();
        assert!(store.update_state(view, None, &state).await.unwrap());
    }
    let slot = cluster.slot_of(b"k");
    let from = cluster.owner_of(slot);
    let to = (from + 1) % 3;
    cluster.begin_migration(slot, from, to);
    for moved in 0..3 {
        let wanted = views.iter().map(|view| Wanted {
            view: Arc::new(view.clone()),
            entities: vec![b"k".to_vec(), b"none".to_vec()],
        });
        let held = store.get(wanted.collect()).await.unwrap();
        for held in held {
            assert_eq!(held.state.as_ref(), Some(&state));
            let old = bytes::Bytes::from_static(b"old");
            assert_eq!(held.rows, [Some(old), None], "{moved}");
        }
        assert_eq!(cluster.migrate_keys(slot, from, to, 1), 1);
    }
    // A key that is nowhere yet is written where the slot goes.
    for view in &views {
        let rows = vec![row(b"k", b"renewed"), row(b"l", b"new")];
        assert_eq!(store.put(view, rows).await.unwrap().written, 2);
    }
    store.put(&view("d"), vec![row(b"k", b"d")]).await.unwrap();
    cluster.end_migration(slot, to);
    for view in &views {
        assert_eq!(one_row(&*store, view, b"k").await.unwrap(), b"renewed");
    }
    assert_eq!(one_row(&*store, &view("d"), b"k").await.unwrap(), b"d");
    assert_eq!(store.remove_project("project").await.unwrap(), 7);
}

/// Each of two servers sends calls to the other, until both have heard which has the slot.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_two_servers_ascribe_to_each_other_is_waited_for() {
    let cluster = RedisCluster::start();
    let store = store_at(&cluster.url());
    let v = view("v");
    store.put(&v, vec![row(b"k", b"row")]).await.unwrap();
    let slot = cluster.slot_of(b"k");
    let from = cluster.owner_of(slot);
    let to = (from + 1) % 3;
    cluster.begin_migration(slot, from, to);
    assert_eq!(cluster.migrate_keys(slot, from, to, 10), 1);
    cluster.set_owner(from, slot, to);
    let read = tokio::spawn(async move { one_row(&*store, &v, b"k").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_cluster, ()) = apart(cluster, move |cluster| cluster.end_migration(slot, to)).await;
    assert_eq!(read.await.unwrap().unwrap(), b"row");
}

/// A peer that accepts connections and says nothing costs a waiting call its whole timeout, which
/// is far more than this test may take.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_costs_a_call_no_wait_and_the_server_no_attempt() {
    let mut server = RedisServer::start();
    let url = format!("{}?failures=2&socket_connect_timeout=3000", server.url());
    let store = store_at(&url);
    store.ping().await.unwrap();
    server.stop();
    // A connection that is refused fails at once; after the second a probe is on its way, which
    // hangs for as long as the test takes.
    for _ in 0..2 {
        store.ping().await.unwrap_err();
    }
    let silent = TcpListener::bind(("127.0.0.1", server.port())).unwrap();
    silent.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    let mut kept = Vec::new();
    while kept.is_empty() {
        kept.extend(silent.accept());
        assert!(begun.elapsed() < PATIENCE, "nobody probes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let failures = store.health().failures;
    for _ in 0..10_000 {
        let error = store.state(&view("v")).await.unwrap_err();
        assert!(error.is_unavailable());
        assert!(error.to_string().contains("circuit open"), "{error}");
    }
    assert_eq!(store.health().circuit, Circuit::HalfOpen);
    assert_eq!(store.health().failures, failures);
    assert!(silent.accept().is_err(), "there was a second attempt");
    // The probe's attempt ends, another follows, and the circuit closes.
    drop((silent, kept));
    server.start_again();
    let begun = Instant::now();
    while store.ping().await.is_err() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.health().circuit, Circuit::Closed);
}

/// Whether the server is there is found out all the same.
#[tokio::test(flavor = "multi_thread")]
async fn callers_who_never_wait_for_their_answers_open_the_circuit() {
    let hurried = async |store: &Store| {
        let begun = Instant::now();
        while store.health().circuit == Circuit::Closed {
            let _ = tokio::time::timeout(Duration::from_millis(20), store.ping()).await;
            assert!(begun.elapsed() < PATIENCE, "{:?}", store.health());
        }
    };
    let server = RedisServer::start();
    let short = "socket_timeout=0.2&socket_connect_timeout=0.2";
    let store = store_at(&format!("{}?{short}", server.url()));
    store.ping().await.unwrap();
    server.freeze();
    hurried(&store).await;
    server.thaw();
    patient(&store, PATIENCE).ping().await.unwrap();

    // Connections are accepted, by the backlog, and nobody says anything.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    hurried(&store_at(&format!("redis://127.0.0.1:{port}?{short}"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_answer_does_not_open_a_circuit() {
    let server = RedisServer::start();
    let store = store_at(&format!("{}?socket_timeout=0.05&failures=2", server.url()));
    store.ping().await.unwrap();
    for _ in 0..5 {
        server.freeze();
        assert!(store.ping().await.unwrap_err().is_unavailable());
        server.thaw();
        store.ping().await.unwrap();
    }
    assert_eq!(store.health().circuit, Circuit::Closed);
}

/// A sentinel that takes connections and names no master costs what two connections may.
#[tokio::test(flavor = "multi_thread")]
async fn a_dial_by_way_of_sentinels_takes_as_long_as_two_connections_at_most() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut connection, _)) = listener.accept() {
            // What a client says of itself is answered.
            let mut said = [0; 4096];
            let length = connection.read(&mut said).unwrap_or(0);
            for command in said[..length].split(|byte| *byte == b'*').skip(1) {
                let _ = match command.windows(6).any(|word| word == b"CLIENT") {
                    true => connection.write_all(b"+OK\r\n"),
                    false => Ok(()),
                };
            }
            kept.push(connection);
        }
    });
    let url = "socket_connect_timeout=0.3&socket_timeout=20";
    let store = store_at(&format!("redis+sentinel://127.0.0.1:{port}/main?{url}"));
    let begun = Instant::now();
    let error = store.ping().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(begun.elapsed() >= Duration::from_millis(600), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_can_wait_does_until_the_server_is_there_again() {
    let mut server = RedisServer::start();
    let store = store_at(&server.url());
    store.ping().await.unwrap();
    server.stop();
    for _ in 0..4 {
        assert!(store.ping().await.unwrap_err().is_unavailable());
    }
    let waiting = patient(&store, PATIENCE);
    let write = tokio::spawn(async move {
        let rows = (0..300_u16)
            .map(|i| row(&i.to_be_bytes(), b"row"))
            .collect();
        waiting.put(&view("v"), rows).await
    });
    server.start_again();
    assert_eq!(write.await.unwrap().unwrap().written, 300);
    // And no longer than it said.
    server.stop();
    let waiting = patient(&store, Duration::from_millis(50));
    assert!(waiting.ping().await.unwrap_err().is_unavailable());
}

/// Whoever made the attempts that failed is gone with its runtime; the next caller takes over.
#[test]
fn a_circuit_that_opened_in_another_runtime_closes() {
    let mut server = RedisServer::start();
    let store = store_at(&format!("{}?failures=1", server.url()));
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    runtime().block_on(async { store.ping().await.unwrap() });
    server.stop();
    runtime().block_on(async { store.ping().await.unwrap_err() });
    assert_ne!(store.health().circuit, Circuit::Closed);
    server.start_again();
    let store = patient(&store, PATIENCE);
    runtime().block_on(async { store.ping().await.unwrap() });
}
