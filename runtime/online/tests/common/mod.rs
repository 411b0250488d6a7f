//! What the tests of both stores share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::any::Any;
use std::sync::Arc;

use unskew_core::digest::Digest;
use unskew_online::{OnlineSettings, OnlineStore, StoredRow, ViewKey, Wanted, connect};
use unskew_test_redis::{RedisCluster, RedisSentinels, RedisServer, RedisTls};

/// A store and what keeps it alive.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn OnlineStore>,
    _server: Box<dyn Any + Send>,
}

impl Fixture {
    fn new(settings: &OnlineSettings, server: impl Any + Send) -> Self {
        Self {
            store: connect(settings).unwrap(),
            _server: Box::new(server),
        }
    }
}

fn redis_at(url: impl Into<String>) -> OnlineSettings {
    OnlineSettings::Redis { url: url.into() }
}

/// The store in what `url` names.
pub(crate) fn store_at(url: &str) -> Arc<dyn OnlineStore> {
    connect(&redis_at(url)).unwrap()
}

pub(crate) fn embedded() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let settings = OnlineSettings::Embedded {
        path: folder.path().join("online"),
    };
    Fixture::new(&settings, folder)
}

pub(crate) fn redis() -> Fixture {
    let server = RedisServer::start();
    Fixture::new(&redis_at(server.url()), server)
}

pub(crate) fn pool() -> Fixture {
    let server = RedisServer::start();
    let url = format!("127.0.0.1:{},connections=4,protocol=3", server.port());
    Fixture::new(&redis_at(url), server)
}

pub(crate) fn cluster() -> Fixture {
    let cluster = RedisCluster::start();
    Fixture::new(&redis_at(cluster.url()), cluster)
}

pub(crate) fn sentinel() -> Fixture {
    let sentinels = RedisSentinels::start(1);
    Fixture::new(&redis_at(sentinels.url()), sentinels)
}

pub(crate) fn tls() -> Fixture {
    let server = RedisTls::start(false);
    Fixture::new(&redis_at(server.url()), server)
}

pub(crate) fn unix() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let server = RedisServer::start_with(&["--unixsocket", socket.to_str().unwrap()]);
    let url = format!("redis+unix://{}?db=3", socket.display());
    Fixture::new(&redis_at(url), (server, folder))
}

/// Makes of each `async fn test(store: Arc<dyn OnlineStore>)` a test on the embedded store and one
/// on Redis.
#[macro_export]
macro_rules! on_both_stores {
    ($($test:ident),* $(,)?) => {
        mod on_embedded {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let fixture = $crate::common::embedded();
                    super::$test(std::sync::Arc::clone(&fixture.store)).await;
                }
            )*
        }
        mod on_redis {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let fixture = $crate::common::redis();
                    super::$test(std::sync::Arc::clone(&fixture.store)).await;
                }
            )*
        }
    };
}

/// Makes of each `async fn test(store: Arc<dyn OnlineStore>)` a test on the embedded store and one
/// on Redis by each of the ways to run and to reach it.
#[macro_export]
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        $crate::on_every_store!(@ embedded, [$($test),*]);
        $crate::on_every_store!(@ redis, [$($test),*]);
        $crate::on_every_store!(@ pool, [$($test),*]);
        $crate::on_every_store!(@ cluster, [$($test),*]);
        $crate::on_every_store!(@ sentinel, [$($test),*]);
        $crate::on_every_store!(@ tls, [$($test),*]);
        $crate::on_every_store!(@ unix, [$($test),*]);
    };
    (@ $fixture:ident, [$($test:ident),*]) => {
        mod $fixture {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let fixture = $crate::common::$fixture();
                    super::$test(std::sync::Arc::clone(&fixture.store)).await;
                }
            )*
        }
    };
}

pub(crate) fn view_of(project: &str, view: &str, meaning: &str) -> ViewKey {
    ViewKey::new(project, view, Digest::of(meaning.as_bytes()))
}

pub(crate) fn view(name: &str) -> ViewKey {
    view_of("project", name, name)
}

pub(crate) fn row(entity: &[u8], value: &[u8]) -> StoredRow {
    StoredRow {
        entity_key: entity.to_vec(),
        value: value.to_vec(),
        expires_at: None,
    }
}

/// The rows that the store holds of a view for some entities.
pub(crate) async fn rows(
    store: &dyn OnlineStore,
    view: &ViewKey,
    entities: &[&[u8]],
) -> Vec<Option<Vec<u8>>> {
    let wanted = Wanted {
        view: Arc::new(view.clone()),
        entities: entities.iter().map(|e| e.to_vec()).collect(),
    };
    let held = store.get(vec![wanted]).await.unwrap().remove(0);
    let rows = held.rows.into_iter();
    rows.map(|row| row.map(|row| row.to_vec())).collect()
}

pub(crate) async fn one_row(
    store: &dyn OnlineStore,
    view: &ViewKey,
    entity: &[u8],
) -> Option<Vec<u8>> {
    rows(store, view, &[entity]).await.remove(0)
}
