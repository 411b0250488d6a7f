//! What an online store does, whichever it is.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::embedded::EmbeddedStore;
use crate::error::OnlineError;
use crate::key::ViewKey;
use crate::lineage::Lineage;
use crate::redis::RedisStore;

/// The largest row that a store takes, in bytes: one that Redis takes in, and compares with the one
/// that it holds, well within the time that an answer may take. Of 64 MiB that took half that time.
pub const MAX_ROW_BYTES: usize = 16 << 20;

/// The rows of each entity that was materialized last, and how far each view was materialized.
///
/// Three laws hold for every store:
///
/// 1. **Newer wins.** A row is never replaced by one that is less, comparing the encoded rows as
///    unsigned bytes; so the order of writes does not matter, nor how many write at once, nor
///    where a writer was killed. Every method may be called again after a failure.
/// 2. **Nothing is mixed up.** What is written under one [`ViewKey`] and entity key is only ever
///    read under the same.
/// 3. **Lossless.** The bytes that are read are the bytes that were written.
#[async_trait]
pub trait OnlineStore: Send + Sync + fmt::Debug {
    /// The folder or the address of the store, for a person; without a password.
    fn address(&self) -> &str;

    /// The rows of the wanted entities and the states of their views, in one round trip however
    /// many views there are. The answers are in the order of the questions.
    ///
    /// # Errors
    /// The store is unavailable, or holds a state that cannot be read.
    async fn get(&self, wanted: Vec<Wanted>) -> Result<Vec<Held>, OnlineError>;

    /// Writes rows of a view, each unless the store holds a greater or the same. The same row
    /// written again gets the new expiry. The rows may come in any order and repeat keys.
    ///
    /// # Errors
    /// The store is unavailable or full, or a row is larger than [`MAX_ROW_BYTES`]. Some of the
    /// rows may have been written then.
    async fn put(&self, view: &ViewKey, rows: Vec<StoredRow>) -> Result<PutSummary, OnlineError>;

    /// How far a view was materialized; `None` if it never was.
    ///
    /// # Errors
    /// The store is unavailable, or holds a state that cannot be read.
    async fn state(&self, view: &ViewKey) -> Result<Option<ViewState>, OnlineError>;

    /// Replaces the state `expected` of a view by `new`; `false`, with nothing changed, if the
    /// store holds another. A store that holds `new` already is left as it is, with `true`, so that
    /// a call whose answer was lost can be repeated.
    ///
    /// # Errors
    /// The store is unavailable or full, or holds a state that cannot be read.
    async fn update_state(
        &self,
        view: &ViewKey,
        expected: Option<&ViewState>,
        new: &ViewState,
    ) -> Result<bool, OnlineError>;

    /// At most `limit` of the entity keys that are held for a view. Which ones depends on `seed`
    /// and on the keys that are held, on nothing else. Reads all keys of the view.
    ///
    /// # Errors
    /// The store is unavailable.
    async fn sample_keys(
        &self,
        view: &ViewKey,
        limit: usize,
        seed: u64,
    ) -> Result<Vec<Vec<u8>>, OnlineError>;

    /// Removes all that is held for a project, states first, and says how many rows that were.
    ///
    /// # Errors
    /// The store is unavailable. Some of the rows may have been removed then.
    async fn remove_project(&self, project: &str) -> Result<u64, OnlineError>;

    /// Removes all that is held for a view under its digest, the state last, and says how many
    /// rows that were. As long as the state is there, something may be left to remove; whoever
    /// might still read the view has to be told by the state that it is not materialized.
    ///
    /// # Errors
    /// The store is unavailable. Some of the rows may have been removed then.
    async fn remove_view(&self, view: &ViewKey) -> Result<u64, OnlineError>;

    /// The histories that the servers of the store continue now.
    ///
    /// # Errors
    /// The store is unavailable.
    async fn lineage(&self) -> Result<Lineage, OnlineError> {
        Ok(Lineage::default())
    }

    /// As [`Self::update_state`], where the server that has the state continues one of the
    /// histories of `lineage`; `false`, with nothing changed, where it does not.
    ///
    /// # Errors
    /// As those of [`Self::update_state`].
    async fn update_state_within(
        &self,
        _lineage: &Lineage,
        view: &ViewKey,
        expected: Option<&ViewState>,
        new: &ViewState,
    ) -> Result<bool, OnlineError> {
        self.update_state(view, expected, new).await
    }

    /// Asks the store whether it is there.
    ///
    /// # Errors
    /// It is not, or it refuses this client.
    async fn ping(&self) -> Result<(), OnlineError>;

    /// How the store is, as far as this process knows without asking it. It waits for nobody and
    /// locks nothing, so that metrics may read it at any time.
    fn health(&self) -> StoreHealth;

    /// The same store for somebody who can wait; `None` if it never makes anybody wait. See
    /// [`patient`].
    fn patient(&self, _within: Duration) -> Option<Arc<dyn OnlineStore>> {
        None
    }
}

/// The same store, whose calls are made again while it is unavailable, until `within` has passed
/// since the first failure of a call.
///
/// A store by itself fails at once: that is right for a request, whose caller is waiting. A command
/// that has written rows for an hour rather waits until the server is there again.
pub fn patient(store: &Arc<dyn OnlineStore>, within: Duration) -> Arc<dyn OnlineStore> {
    store.patient(within).unwrap_or_else(|| Arc::clone(store))
}

/// The entities of one view that are asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The view.
    pub view: Arc<ViewKey>,
    /// Entity keys, as `core::row::encode_key` makes them.
    pub entities: Vec<Vec<u8>>,
}

/// What a store holds of a [`Wanted`].
#[derive(Clone, Debug)]
pub struct Held {
    /// How far the view was materialized; `None` if it never was.
    pub state: Option<ViewState>,
    /// For each entity its row, if there is one.
    pub rows: Vec<Option<Bytes>>,
}

/// A row to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// The entity key, as `core::row::encode_key` makes it.
    pub entity_key: Vec<u8>,
    /// The row, as `core::row::encode` makes it.
    pub value: Vec<u8>,
    /// When the store may forget the row, in microseconds since 1970; see [`crate::expires_at`].
    pub expires_at: Option<i64>,
}

/// What became of rows that were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutSummary {
    /// How many were new, or greater than the row that was held.
    pub written: u64,
    /// How many met a greater row, or the same.
    pub kept: u64,
}

/// How a store is, by what this process has seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether calls are sent; of several servers that of the worst.
    pub circuit: Circuit,
    /// Connections that are open.
    pub connections: u64,
    /// Connections that were made in place of one that was lost, so far.
    pub reconnects: u64,
    /// Attempts to connect and calls that failed for want of an answer, so far. Calls that an open
    /// circuit turned away are not among them.
    pub failures: u64,
}

/// Whether calls to a server are sent. Ordered from the best to the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Circuit {
    /// They are.
    #[default]
    Closed,
    /// They fail at once, and a probe is asking the server whether it is there again.
    HalfOpen,
    /// They fail at once, until the next probe.
    Open,
}

impl PutSummary {
    pub(crate) fn add(&mut self, other: Self) {
        self.written += other.written;
        self.kept += other.kept;
    }
}

/// How far a view was materialized. Its JSON form lies in the store, written after the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewState {
    /// The end of what was materialized without a gap, in microseconds since 1970.
    pub watermark: Option<i64>,
    /// Ranges that were materialized beyond a gap.
    #[serde(default)]
    pub pending: Vec<(i64, i64)>,
    /// Materializations that have begun and not ended: some of their rows may be there already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begun: Vec<Begun>,
    /// What the store had written when this was, as [`Lineage::mark`] has it: whether it still has
    /// it is for [`Lineage::keeps`] to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lineage: String,
}

/// A materialization that has begun. It is written before the first row, so that a store that is
/// emptied meanwhile is not taken for a filled one at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Tells it from every other.
    pub id: String,
    /// Up to where it materializes, in microseconds since 1970.
    pub end: i64,
}

impl ViewState {
    /// Whether any rows were materialized.
    pub fn is_materialized(&self) -> bool {
        self.watermark.is_some() || !self.pending.is_empty()
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, OnlineError> {
        serde_json::to_vec(self).map_err(|error| OnlineError::Settings(error.to_string()))
    }

    /// Reads what `store` holds as the state of `view`.
    pub(crate) fn of_json(view: &ViewKey, store: &str, json: &[u8]) -> Result<Self, OnlineError> {
        serde_json::from_slice(json).map_err(|error| OnlineError::DamagedState {
            view: view.view.clone(),
            store: store.to_owned(),
            reason: error.to_string(),
        })
    }
}

/// Which online store a project has.
#[derive(Clone, PartialEq, Eq)]
pub enum OnlineSettings {
    /// LMDB in a folder.
    Embedded {
        /// The folder; it is made if there is none.
        path: PathBuf,
    },
    /// Redis: a server, a cluster, or what sentinels watch over.
    Redis {
        /// `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, `rediss://` for TLS, `redis+unix://`,
        /// `redis+cluster://`, `redis+sentinel://`, or Feast's `HOST:PORT,password=…`; the guide
        /// lists the options.
        url: String,
    },
}

impl fmt::Debug for OnlineSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { path } => f.debug_struct("Embedded").field("path", path).finish(),
            // A URL may hold a password.
            Self::Redis { .. } => f.debug_struct("Redis").finish_non_exhaustive(),
        }
    }
}

/// The online store that the settings name.
///
/// The folder of an embedded store is made if there is none. A Redis server is not spoken to
/// before the first call, and may be down until then, and at any time later.
///
/// # Errors
/// The URL is none, or the folder cannot be opened as a store.
pub fn connect(settings: &OnlineSettings) -> Result<Arc<dyn OnlineStore>, OnlineError> {
    Ok(match settings {
        OnlineSettings::Embedded { path } => Arc::new(EmbeddedStore::open(path)?),
        OnlineSettings::Redis { url } => Arc::new(RedisStore::new(url)?),
    })
}

/// Refuses rows that no store can hold.
pub(crate) fn check_sizes(view: &ViewKey, rows: &[StoredRow]) -> Result<(), OnlineError> {
    let size = |row: &StoredRow| row.value.len().max(row.entity_key.len());
    match rows.iter().map(size).find(|&size| size > MAX_ROW_BYTES) {
        None => Ok(()),
        Some(bytes) => Err(OnlineError::TooLarge {
            view: view.view.clone(),
            what: "a row",
            bytes,
            limit: MAX_ROW_BYTES,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_do_not_show_their_password() {
        let settings = OnlineSettings::Redis {
            url: "redis://:hunter2@localhost".to_owned(),
        };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn a_state_is_materialized_when_any_range_is() {
        let state = |watermark, pending| ViewState {
            watermark,
            pending,
            ..ViewState::default()
        };
        assert!(!state(None, vec![]).is_materialized());
        assert!(state(Some(0), vec![]).is_materialized());
        assert!(state(None, vec![(1, 2)]).is_materialized());
    }
}
