//! What only the Redis store does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use common::{one_row, row, view};
use unskew_online::{
    Held, MAX_ROW_BYTES, OnlineError, OnlineSettings, OnlineStore, StoredRow, ViewKey, ViewState,
    Wanted, connect, patient,
};
use unskew_test_redis::{RedisCluster, RedisServer, RedisTls};

fn store(url: &str) -> Arc<dyn OnlineStore> {
    connect(&OnlineSettings::Redis {
        url: url.to_owned(),
    })
    .unwrap()
}

async fn command<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await.unwrap()
}

async fn expiry(server: &RedisServer) -> i64 {
    let keys: Vec<String> = command(server, &["KEYS", "unskew:*"]).await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    command(server, &["PEXPIRETIME", &keys[0]]).await
}

fn expiring(value: &[u8], expires_at: Option<i64>) -> StoredRow {
    StoredRow {
        expires_at,
        ..row(b"k", value)
    }
}

/// Far in the future of any clock: 2100-01-01, in microseconds.
const LATER: i64 = 4_102_444_800_000_000;

#[tokio::test]
async fn a_write_sets_the_expiry_and_an_equal_one_refreshes_it() {
    let server = RedisServer::start();
    let store = store(&server.url());
    let v = view("v");
    let put = async |row: StoredRow| store.put(&v, vec![row]).await.unwrap();
    put(expiring(b"2", Some(LATER))).await;
    assert_eq!(expiry(&server).await, LATER / 1000 + 1);
    // A row that is kept keeps its expiry.
    put(expiring(b"1", Some(LATER + 5_000_000))).await;
    assert_eq!(expiry(&server).await, LATER / 1000 + 1);
    put(expiring(b"2", Some(LATER + 5_000_000))).await;
    assert_eq!(expiry(&server).await, LATER / 1000 + 5001);
    put(expiring(b"3", Some(LATER + 7_000_000))).await;
    assert_eq!(expiry(&server).await, LATER / 1000 + 7001);
    put(expiring(b"3", None)).await;
    assert_eq!(expiry(&server).await, -1);
    put(expiring(b"3", Some(LATER))).await;
    put(expiring(b"4", None)).await;
    assert_eq!(expiry(&server).await, -1);
    put(expiring(b"4", Some(i64::MAX))).await;
    assert_eq!(expiry(&server).await, i64::MAX / 1000 + 1);
    assert_eq!(one_row(&*store, &v, b"k").await.unwrap(), b"4");
}

#[tokio::test]
async fn rows_as_large_as_may_be_are_written_and_compared_in_time() {
    let server = RedisServer::start();
    let store = store(&server.url());
    let v = view("v");
    let put = async |rows: Vec<StoredRow>| store.put(&v, rows).await.unwrap();
    // The difference is in the last byte.
    let mut value = vec![7; MAX_ROW_BYTES];
    let old = put(vec![row(b"k", &value)]).await;
    let same = put(vec![row(b"k", &value)]).await;
    value[MAX_ROW_BYTES - 1] = 8;
    let new = put(vec![row(b"k", &value)]).await;
    assert_eq!((old.written, same.kept, new.written), (1, 1, 1));
    let held = one_row(&*store, &v, b"k").await.unwrap();
    assert!(held == value);
    // Many at once are sent one after the other.
    value.truncate(MAX_ROW_BYTES / 4);
    let rows = (0..8_u8).map(|key| row(&[key], &value)).collect();
    assert_eq!(put(rows).await.written, 8);
}

#[tokio::test]
async fn rows_are_compared_across_pages() {
    let server = RedisServer::start();
    let store = store(&server.url());
    // The script compares pages of 4096 bytes, then words of 4, then bytes.
    for (case, at) in [0, 1, 4094, 4095, 4096, 8190, 8191, 8192, 8195, 8196]
        .into_iter()
        .enumerate()
    {
        let v = view(&format!("v{case}"));
        let put = async |value: &[u8]| store.put(&v, vec![row(b"k", value)]).await.unwrap();
        let mut value = vec![0x80; 8197];
        assert_eq!(put(&value).await.written, 1);
        value[at] = 0x7f;
        assert_eq!(put(&value).await.kept, 1, "{at}");
        value[at] = 0xff;
        assert_eq!(put(&value).await.written, 1, "{at}");
        assert_eq!(put(&value[..8196]).await.kept, 1, "{at}");
        value.push(0);
        assert_eq!(put(&value).await.written, 1, "{at}");
        assert!(one_row(&*store, &v, b"k").await.unwrap() == value);
    }
}

#[tokio::test]
async fn a_row_whose_time_to_be_forgotten_has_passed_is_forgotten() {
    let server = RedisServer::start();
    let store = store(&server.url());
    for passed in [i64::MIN, -1, 0, 1_000_000] {
        let rows = vec![expiring(b"row", Some(passed))];
        assert_eq!(store.put(&view("v"), rows).await.unwrap().written, 1);
        assert_eq!(one_row(&*store, &view("v"), b"k").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_unavailable_and_comes_back() {
    let mut server = RedisServer::start();
    let store = store(&server.url());
    let v = view("v");
    let state = ViewState {
        watermark: Some(1),
        pending: vec![],
        ..ViewState::default()
    };
    for _ in 0..3 {
        store.put(&v, vec![row(b"k", b"row")]).await.unwrap();
        assert_eq!(one_row(&*store, &v, b"k").await.unwrap(), b"row");
        server.stop();
        let errors = [
            store.ping().await.unwrap_err(),
            store
                .get(vec![unskew_online::Wanted {
                    view: Arc::new(v.clone()),
                    entities: vec![b"k".to_vec()],
                }])
                .await
                .unwrap_err(),
            store.put(&v, vec![row(b"k", b"row")]).await.unwrap_err(),
            store.state(&v).await.unwrap_err(),
            store.update_state(&v, None, &state).await.unwrap_err(),
            store.sample_keys(&v, 1, 0).await.unwrap_err(),
            store.remove_project("project").await.unwrap_err(),
            store.remove_view(&v).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_unavailable(), "{error:?}");
            assert!(error.to_string().contains("127.0.0.1"), "{error}");
        }
        server.start_again();
        // Calls fail at once until a probe has found it; who can wait does.
        let waiting = patient(&store, Duration::from_secs(60));
        assert_eq!(one_row(&*waiting, &v, b"k").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_between_two_calls_is_not_noticed() {
    let mut server = RedisServer::start();
    let store = store(&server.url());
    for _ in 0..3 {
        store
            .put(&view("v"), vec![row(b"k", b"row")])
            .await
            .unwrap();
        server.start_again();
    }
    assert_eq!(one_row(&*store, &view("v"), b"k").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_unavailable() {
    // It accepts connections, by its backlog, and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let store = store(&format!("redis://127.0.0.1:{port}"));
    let pings: Vec<_> = (0..50)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.ping().await })
        })
        .collect();
    for ping in pings {
        let error = ping.await.unwrap().unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_unavailable_until_it_speaks() {
    let server = RedisServer::start();
    let store = store(&server.url());
    store
        .put(&view("v"), vec![row(b"k", b"row")])
        .await
        .unwrap();
    server.freeze();
    // The first gets no answer, the second no connection.
    for _ in 0..2 {
        let error = store.state(&view("v")).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
    }
    server.thaw();
    assert_eq!(one_row(&*store, &view("v"), b"k").await.unwrap(), b"row");
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = RedisServer::start();
    let store = store(&server.url());
    for value in [b"1", b"2"] {
        store.put(&view("v"), vec![row(b"k", value)]).await.unwrap();
        let _: () = command(&server, &["SCRIPT", "FLUSH"]).await;
    }
    assert_eq!(one_row(&*store, &view("v"), b"k").await.unwrap(), b"2");
}

#[tokio::test]
async fn an_emptied_store_has_no_state() {
    let server = RedisServer::start();
    let store = store(&server.url());
    let state = ViewState {
        watermark: Some(1),
        pending: vec![],
        ..ViewState::default()
    };
    assert!(store.update_state(&view("v"), None, &state).await.unwrap());
    let _: () = command(&server, &["FLUSHALL"]).await;
    assert_eq!(store.state(&view("v")).await.unwrap(), None);
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_an_error_that_names_the_view() {
    let server = RedisServer::start();
    let store = store(&server.url());
    assert!(
        store
            .update_state(&view("v"), None, &ViewState::default())
            .await
            .unwrap()
    );
    let keys: Vec<String> = command(&server, &["KEYS", "*"]).await;
    let _: () = command(&server, &["SET", &keys[0], "{\"later\":1}"]).await;
    let error = store.state(&view("v")).await.unwrap_err();
    assert!(
        matches!(&error, OnlineError::DamagedState { view, .. } if view == "v"),
        "{error}"
    );
    let error = store
        .update_state(&view("v"), None, &ViewState::default())
        .await
        .unwrap_err();
    assert!(matches!(error, OnlineError::DamagedState { .. }));
}

#[tokio::test]
async fn a_server_that_is_full_says_so() {
    let server = RedisServer::start();
    let store = store(&server.url());
    store
        .put(&view("v"), vec![row(b"k", b"row")])
        .await
        .unwrap();
    let _: () = command(&server, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = store
        .put(&view("v"), vec![row(b"l", b"row")])
        .await
        .unwrap_err();
    assert!(matches!(error, OnlineError::Full { .. }), "{error:?}");
    // It still serves.
    assert_eq!(one_row(&*store, &view("v"), b"k").await.unwrap(), b"row");
}

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}/0", server.port());
    let right = store(&url("hunter2"));
    right.ping().await.unwrap();
    assert!(!format!("{right:?} {}", right.address()).contains("hunter2"));
    for url in [url("hunter3"), server.url()] {
        let wrong = store(&url);
        let error = wrong.ping().await.unwrap_err();
        assert!(matches!(error, OnlineError::Refused { .. }), "{error:?}");
        assert!(
            !format!("{error} {error:?} {wrong:?}").contains("hunter"),
            "{error}"
        );
    }
}

/// The rights that a user needs, as the guide has them.
const RIGHTS: &str = "~unskew:* +mget +get +set +unlink +evalsha +script|load +scan +pexpireat \
     +persist +ping +info +role +cluster|slots";

#[tokio::test]
async fn a_user_with_the_least_rights_can_do_everything() {
    let rights = format!("app on >s3:c@ret {RIGHTS}");
    let user: Vec<&str> = ["--user"].into_iter().chain(rights.split(' ')).collect();
    let server = RedisServer::start_with(&[&user[..], &["--user", "default", "off"]].concat());
    let port = server.port();
    let store = store(&format!("redis://app:s3%3Ac%40ret@127.0.0.1:{port}"));
    let v = view("v");
    let state = ViewState::default();
    let rows = vec![expiring(b"1", Some(LATER)), row(b"l", b"2")];
    assert_eq!(store.put(&v, rows.clone()).await.unwrap().written, 2);
    assert_eq!(store.put(&v, rows).await.unwrap().kept, 2);
    let lineage = store.lineage().await.unwrap();
    let updated = store.update_state_within(&lineage, &v, None, &state).await;
    assert!(updated.unwrap());
    assert_eq!(one_row(&*store, &v, b"k").await.unwrap(), b"1");
    assert_eq!(store.sample_keys(&v, 9, 0).await.unwrap().len(), 2);
    store.ping().await.unwrap();
    assert_eq!(store.remove_view(&v).await.unwrap(), 2);
    assert_eq!(store.remove_project("project").await.unwrap(), 0);
    for wrong in [
        format!("redis://app:wrong@127.0.0.1:{port}"),
        format!("redis://127.0.0.1:{port}"),
        format!("127.0.0.1:{port},username=other,password=s3:c@ret"),
    ] {
        let error = common::store_at(&wrong).ping().await.unwrap_err();
        assert!(matches!(error, OnlineError::Refused { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("ret"), "{error}");
    }
}

#[tokio::test]
async fn a_user_that_may_not_load_scripts_is_told_so() {
    let rights = RIGHTS.replace("+script|load ", "");
    let user = format!("default on nopass {rights}");
    let user: Vec<&str> = ["--user"].into_iter().chain(user.split(' ')).collect();
    let server = RedisServer::start_with(&user);
    let store = store(&server.url());
    let put = store.put(&view("v"), vec![row(b"k", b"row")]).await;
    let error = put.unwrap_err();
    assert!(matches!(error, OnlineError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("'script|load'"), "{error}");
}

#[tokio::test]
async fn a_certificate_is_verified_unless_it_is_said_otherwise() {
    let server = RedisTls::start(false);
    let (port, authority) = (server.server.port(), server.file("ca.pem"));
    let authority = authority.display();
    let trusting = format!("ssl_ca_certs={authority}");
    for (url, verified) in [
        (format!("rediss://localhost:{port}?{trusting}"), true),
        (format!("rediss://localhost:{port}"), false),
        // The certificate is for another name.
        (format!("rediss://127.0.0.1:{port}?{trusting}"), false),
        (
            format!("rediss://127.0.0.1:{port}?{trusting}&ssl_check_hostname=false"),
            true,
        ),
        (
            format!("rediss://127.0.0.1:{port}?ssl_check_hostname=false"),
            false,
        ),
        (format!("rediss://127.0.0.1:{port}#insecure"), true),
        (
            format!("127.0.0.1:{port},ssl=true,ssl_cert_reqs=none"),
            true,
        ),
        (format!("redis://127.0.0.1:{port}"), false),
    ] {
        let pinged = store(&url).ping().await;
        assert_eq!(pinged.is_ok(), verified, "{url}: {pinged:?}");
    }
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_given_one() {
    let server = RedisTls::start(true);
    let file = |name: &str| server.file(name).display().to_string();
    let url = format!(
        "{}&ssl_certfile={}&ssl_keyfile={}",
        server.url(),
        file("client.pem"),
        file("client.key")
    );
    store(&url).ping().await.unwrap();
    assert!(store(&server.url()).ping().await.is_err());
    // What is wrong with a file is said at once.
    for (name, wrong) in [
        ("client.key", "client.pem"),
        ("ca.pem", "ca.key"),
        ("client.pem", "none"),
    ] {
        let url = url.replace(name, wrong);
        let error = connect(&OnlineSettings::Redis { url }).unwrap_err();
        assert!(
            matches!(error, OnlineError::Settings(_)),
            "{name}: {error:?}"
        );
    }
}

#[tokio::test]
async fn one_of_a_cluster_by_itself_says_how_to_name_it() {
    let cluster = RedisCluster::start();
    let store = store(&cluster.servers[0].url());
    let mut errors = Vec::new();
    for key in 0..20_u8 {
        errors.extend(store.put(&view("v"), vec![row(&[key], b"row")]).await.err());
    }
    let error = errors.first().unwrap();
    assert!(matches!(error, OnlineError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_none_of_a_cluster_says_so() {
    let server = RedisServer::start();
    let url = format!("redis+cluster://127.0.0.1:{}", server.port());
    let error = store(&url).ping().await.unwrap_err();
    assert!(matches!(error, OnlineError::Refused { .. }), "{error:?}");
    let url = format!("redis+sentinel://127.0.0.1:{}/main", server.port());
    let error = store(&url).ping().await.unwrap_err();
    assert!(matches!(error, OnlineError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn the_servers_of_a_cluster_that_are_named_need_not_all_be_there() {
    let mut cluster = RedisCluster::start_with(3, true);
    let dead = RedisServer::start().port();
    let replica = cluster.servers[3].port();
    let url = format!("redis+cluster://127.0.0.1:{dead},127.0.0.1:{replica}");
    let store = store(&url);
    let rows = (0..100_u8).map(|key| row(&[key], b"row")).collect();
    assert_eq!(store.put(&view("v"), rows).await.unwrap().written, 100);
    assert_eq!(
        store.sample_keys(&view("v"), 200, 0).await.unwrap().len(),
        100
    );
    // What the others hold is served while one is gone, of a view whose state is among it.
    let mut names = (0..).map(|i| view(&format!("v{i}")));
    let v = loop {
        let v = names.next().unwrap();
        let state = ViewState::default();
        assert!(store.update_state(&v, None, &state).await.unwrap());
        let states = cluster.servers[2].command(&["keys", "unskew:state:*"]);
        if !states.contains(&format!(":{}:", v.view)) {
            break v;
        }
    };
    let rows = (0..40_u8).map(|key| row(&[key], b"row")).collect();
    assert_eq!(store.put(&v, rows).await.unwrap().written, 40);
    let gone: Vec<bool> = (0..40_u8)
        .map(|key| cluster.owner_of(cluster.slot_of(&[key])) == 2)
        .collect();
    assert!(gone.contains(&true) && gone.contains(&false));
    cluster.servers[2].stop();
    for (key, gone) in gone.into_iter().enumerate() {
        let wanted = unskew_online::Wanted {
            view: Arc::new(v.clone()),
            entities: vec![vec![key as u8]],
        };
        match store.get(vec![wanted]).await {
            Ok(held) => assert_eq!(held[0].rows[0].as_deref(), Some(&b"row"[..])),
            Err(error) => assert!(gone && error.is_unavailable(), "{key}: {error:?}"),
        }
    }
}

/// Views that each hold the same entities, and are materialized.
struct Filled {
    store: Arc<dyn OnlineStore>,
    views: Vec<ViewKey>,
    entities: Vec<Vec<u8>>,
}

impl Filled {
    async fn new(url: &str, views: usize, entities: u8) -> Self {
        let filled = Self {
            store: store(url),
            views: (0..views).map(|i| view(&format!("v{i}"))).collect(),
            entities: (0..entities).map(|entity| vec![entity]).collect(),
        };
        let state = ViewState::default();
        for view in &filled.views {
            let put = filled.store.put(view, filled.rows(view, 1)).await;
            assert_eq!(put.unwrap().written, u64::from(entities));
            let updated = filled.store.update_state(view, None, &state).await;
            assert!(updated.unwrap());
        }
        filled
    }

    fn rows(&self, view: &ViewKey, round: u8) -> Vec<StoredRow> {
        let value = |entity: &[u8]| [&[round][..], view.view.as_bytes(), entity].concat();
        let entities = self.entities.iter();
        entities.map(|entity| row(entity, &value(entity))).collect()
    }

    /// All of all views, by one request.
    fn wanted(&self) -> Vec<Wanted> {
        let wanted = |view: &ViewKey| Wanted {
            view: Arc::new(view.clone()),
            entities: self.entities.clone(),
        };
        self.views.iter().map(wanted).collect()
    }

    #[track_caller]
    fn assert_all(&self, held: &[Held]) {
        assert_eq!(held.len(), self.views.len());
        for (view, held) in self.views.iter().zip(held) {
            assert!(held.state.is_some(), "{}", view.view);
            let rows = self.rows(view, 1);
            let expected: Vec<&[u8]> = rows.iter().map(|row| &*row.value).collect();
            let rows: Vec<&[u8]> = held.rows.iter().flatten().map(|row| &**row).collect();
            assert_eq!(rows, expected, "{}", view.view);
        }
    }
}

/// How often a server has done a command since `CONFIG RESETSTAT`.
fn calls_of(server: &RedisServer, command: &str) -> usize {
    let stats = server.command(&["info", "commandstats"]);
    let stat = format!("cmdstat_{command}:calls=");
    let mut lines = stats.lines();
    let calls = lines.find_map(|line| line.strip_prefix(&stat)?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn all_views_and_entities_of_a_request_are_one_command() {
    let server = RedisServer::start();
    let filled = Filled::new(&server.url(), 20, 50).await;
    server.command(&["config", "resetstat"]);
    let held = filled.store.get(filled.wanted()).await.unwrap();
    filled.assert_all(&held);
    assert_eq!(
        (calls_of(&server, "mget"), calls_of(&server, "get")),
        (1, 0)
    );
    let rows = filled.rows(&filled.views[0], 2);
    assert_eq!(
        filled
            .store
            .put(&filled.views[0], rows)
            .await
            .unwrap()
            .written,
        50
    );
    assert_eq!(calls_of(&server, "evalsha"), 1);
}

#[tokio::test]
async fn a_request_to_a_cluster_is_one_command_for_each_slot() {
    let cluster = RedisCluster::start();
    let filled = Filled::new(&cluster.url(), 20, 50).await;
    let mut slots = BTreeSet::new();
    for server in &cluster.servers {
        let keys: Vec<String> = command(server, &["KEYS", "unskew:*"]).await;
        let mut asked = redis::pipe();
        for key in &keys {
            asked.cmd("CLUSTER").arg("KEYSLOT").arg(key);
        }
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let found: Vec<u16> = asked.query_async(&mut connection).await.unwrap();
        slots.extend(found);
    }
    // The rows of an entity share a slot, whatever the view.
    assert!(slots.len() > 20, "{slots:?}");
    let reset = || {
        for server in &cluster.servers {
            server.command(&["config", "resetstat"]);
        }
    };
    let calls = |command: &str| -> usize {
        let servers = cluster.servers.iter();
        servers.map(|server| calls_of(server, command)).sum()
    };
    reset();
    let held = filled.store.get(filled.wanted()).await.unwrap();
    filled.assert_all(&held);
    assert_eq!((calls("mget"), calls("get")), (slots.len(), 0));

    let of_rows: BTreeSet<u16> = filled
        .entities
        .iter()
        .map(|entity| cluster.slot_of(entity))
        .collect();
    reset();
    let rows = filled.rows(&filled.views[0], 2);
    let put = filled.store.put(&filled.views[0], rows).await.unwrap();
    assert_eq!(put.written, 50);
    assert_eq!(calls("evalsha"), of_rows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_of_a_cluster_waits_for_the_answer_of_another() {
    let cluster = RedisCluster::start();
    let url = format!("{}?socket_timeout=120", cluster.url());
    let filled = Arc::new(Filled::new(&url, 2, 50).await);
    for frozen in 0..cluster.servers.len() {
        let others = || {
            let servers = cluster.servers.iter().enumerate();
            servers.filter(|(index, _)| *index != frozen)
        };
        for server in &cluster.servers {
            server.command(&["config", "resetstat"]);
        }
        cluster.servers[frozen].freeze();
        let asking = Arc::clone(&filled);
        let asked = tokio::spawn(async move { asking.store.get(asking.wanted()).await });
        for (_, other) in others() {
            while calls_of(other, "mget") == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert!(!asked.is_finished());
        cluster.servers[frozen].thaw();
        filled.assert_all(&asked.await.unwrap().unwrap());
    }
}

/// How many connections a server has, but for the one that asks.
fn connections_of(server: &RedisServer) -> usize {
    let clients = server.command(&["client", "list"]);
    let others = clients
        .lines()
        .filter(|client| !client.contains("cmd=client|list"));
    others.filter(|client| !client.is_empty()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_as_many_connections_as_were_asked_for_however_many_calls() {
    let server = RedisServer::start();
    for connections in [1, 4] {
        let url = format!("{}?connections={connections}", server.url());
        let store = store(&url);
        let v = view("v");
        store.put(&v, vec![row(b"k", b"row")]).await.unwrap();
        let many = async |store: &dyn OnlineStore| {
            let calls = (0..200).map(|_| one_row(store, &v, b"k"));
            for held in futures::future::join_all(calls).await {
                assert_eq!(held.unwrap(), b"row");
            }
        };
        many(&*store).await;
        assert_eq!(connections_of(&server), connections);
        assert_eq!(store.health().connections, connections as u64);
        // Another runtime has as many of its own, which end with it.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(many(&*store));
                assert_eq!(connections_of(&server), 2 * connections);
                assert_eq!(store.health().connections, 2 * connections as u64);
            });
        });
        while connections_of(&server) > connections {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        many(&*store).await;
        assert_eq!(connections_of(&server), connections);
        assert_eq!(store.health().connections, connections as u64);
        drop(store);
        while connections_of(&server) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[test]
fn a_url_that_is_none_is_refused_without_being_shown() {
    for url in [
        "",
        "hunter2",
        "http://:hunter2@localhost",
        "redis://:hunter2@localhost:99999999",
        "redis://:hunter2@localhost/hunter2",
        "rediss+cluster://:hunter2@localhost/1",
    ] {
        let error = connect(&OnlineSettings::Redis {
            url: url.to_owned(),
        })
        .unwrap_err();
        assert!(matches!(error, OnlineError::Settings(_)), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("redis://"), "{shown}");
    }
}
