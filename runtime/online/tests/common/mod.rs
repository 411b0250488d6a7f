//! What the tests of both stores share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;

use tempfile::TempDir;
use unskew_core::digest::Digest;
use unskew_online::{OnlineSettings, OnlineStore, StoredRow, ViewKey, Wanted, connect};
use unskew_test_redis::RedisServer;

/// A store and what keeps it alive.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn OnlineStore>,
    _folder: Option<TempDir>,
    _server: Option<RedisServer>,
}

pub(crate) fn embedded() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let settings = OnlineSettings::Embedded {
        path: folder.path().join("online"),
    };
    Fixture {
        store: connect(&settings).unwrap(),
        _folder: Some(folder),
        _server: None,
    }
}

pub(crate) fn redis() -> Fixture {
    let server = RedisServer::start();
    let store = connect(&OnlineSettings::Redis { url: server.url() }).unwrap();
    Fixture {
        store,
        _folder: None,
        _server: Some(server),
    }
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

pub(crate) fn view_of(project: &str, view: &str, meaning: &str) -> ViewKey {
    ViewKey {
        project: project.to_owned(),
        view: view.to_owned(),
        digest: Digest::of(meaning.as_bytes()),
    }
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
