//! The embedded store: LMDB in a folder, read and written by many processes at once.
//!
//! Every write is a transaction, so that a process may be killed at any instant. Expiry is not
//! needed: what frees memory in Redis would free disk here, and a row is small.

mod environment;
mod layout;

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use unskew_core::sample::Sample;

use crate::error::OnlineError;
use crate::key::ViewKey;
use crate::store::{
    Held, OnlineStore, PutSummary, StoreHealth, StoredRow, ViewState, Wanted, check_sizes,
};
use environment::Environment;
use layout::Kind;

/// How many rows a transaction writes at most. Each transaction waits for the disk once, and keeps
/// other writers waiting.
const ROWS: usize = 20_000;
/// How many bytes a transaction writes at most, but for a single row.
const BYTES: usize = 16 << 20;
/// How many keys a transaction goes through at most, when it reads or removes all of them.
const PAGE: usize = 10_000;

/// An online store in a folder.
pub(crate) struct EmbeddedStore {
    environment: Arc<Environment>,
}

impl EmbeddedStore {
    /// The store in folder `path`, which is made if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, OnlineError> {
        Ok(Self {
            environment: Environment::open(path)?,
        })
    }

    /// Runs `work` where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Environment) -> Result<T, OnlineError> + Send + 'static,
    ) -> Result<T, OnlineError> {
        let environment = Arc::clone(&self.environment);
        match tokio::task::spawn_blocking(move || work(&environment)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(OnlineError::Unavailable {
                    store: self.address().to_owned(),
                    reason: "the process is ending".to_owned(),
                }),
            },
        }
    }

    /// Runs `work` when it is this process's turn to write.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Environment) -> Result<T, OnlineError> + Send + 'static,
    ) -> Result<T, OnlineError> {
        let turn = self.environment.turn().await;
        self.blocking(move |environment| {
            // The turn ends with the work, not with the caller, who may have gone away.
            let _turn = turn;
            environment.clear_stale_readers()?;
            work(environment)
        })
        .await
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EmbeddedStore")
            .field(&self.address())
            .finish()
    }
}

#[async_trait]
impl OnlineStore for EmbeddedStore {
    fn address(&self) -> &str {
        self.environment.address()
    }

    async fn get(&self, wanted: Vec<Wanted>) -> Result<Vec<Held>, OnlineError> {
        self.blocking(move |environment| {
            let txn = environment.read()?;
            let get = |key: &[u8]| {
                let held = environment.database().get(&txn, key);
                held.map_err(|error| environment.failed(error))
            };
            let held = |wanted: &Wanted| {
                let state = get(&layout::view_prefix(Kind::State, &wanted.view))?
                    .map(|json| ViewState::of_json(&wanted.view, environment.address(), json))
                    .transpose()?;
                let prefix = layout::view_prefix(Kind::Row, &wanted.view);
                let row = |entity: &Vec<u8>| {
                    let key = layout::row_key(&prefix, entity);
                    let held = get(&key)?.map(|value| match layout::split(&key, value) {
                        Some((of, row)) if of == entity => Bytes::copy_from_slice(row),
                        // What is damaged is no row, as whoever decodes it will find.
                        _ => Bytes::new(),
                    });
                    Ok(held)
                };
                Ok(Held {
                    state,
                    rows: wanted.entities.iter().map(row).collect::<Result<_, _>>()?,
                })
            };
            wanted.iter().map(held).collect()
        })
        .await
    }

    async fn put(
        &self,
        view: &ViewKey,
        mut rows: Vec<StoredRow>,
    ) -> Result<PutSummary, OnlineError> {
        check_sizes(view, &rows)?;
        let view = view.clone();
        self.writing(move |environment| {
            let prefix = layout::view_prefix(Kind::Row, &view);
            // Neighbours in the tree are written one after the other.
            rows.sort_unstable_by(|a, b| a.entity_key.cmp(&b.entity_key));
            let mut summary = PutSummary::default();
            let mut rest = rows.as_slice();
            while !rest.is_empty() {
                let (batch, later) = rest.split_at(batch_length(rest));
                summary.add(put_batch(environment, &view, &prefix, batch)?);
                rest = later;
            }
            // To give back what they take is no part of the turn.
            Ok((summary, rows))
        })
        .await
        .map(|(summary, _)| summary)
    }

    async fn state(&self, view: &ViewKey) -> Result<Option<ViewState>, OnlineError> {
        let view = view.clone();
        self.blocking(move |environment| {
            let txn = environment.read()?;
            read_state(environment, &txn, &view)
        })
        .await
    }

    async fn update_state(
        &self,
        view: &ViewKey,
        expected: Option<&ViewState>,
        new: &ViewState,
    ) -> Result<bool, OnlineError> {
        let (view, expected, new) = (view.clone(), expected.cloned(), new.clone());
        self.writing(move |environment| {
            let mut txn = environment.write()?;
            let held = read_state(environment, &txn, &view)?;
            if held.as_ref() == Some(&new) {
                return Ok(true);
            }
            if held != expected {
                return Ok(false);
            }
            let key = layout::view_prefix(Kind::State, &view);
            environment
                .database()
                .put(&mut txn, &key, &new.to_json()?)
                .and_then(|()| txn.commit())
                .map_err(|error| environment.failed(error))?;
            Ok(true)
        })
        .await
    }

    async fn sample_keys(
        &self,
        view: &ViewKey,
        limit: usize,
        seed: u64,
    ) -> Result<Vec<Vec<u8>>, OnlineError> {
        let prefix = layout::view_prefix(Kind::Row, view);
        self.blocking(move |environment| {
            let mut sample = Sample::new(limit, seed);
            let mut after = None;
            // A transaction for each page, so that none is long.
            loop {
                let txn = environment.read()?;
                let page = page(
                    environment,
                    &txn,
                    &prefix,
                    after.as_deref(),
                    |key, value| {
                        if let Some((entity, _)) = layout::split(key, value) {
                            sample.offer(entity);
                        }
                    },
                )?;
                match page {
                    Some(last) => after = Some(last),
                    None => return Ok(sample.into_keys()),
                }
            }
        })
        .await
    }

    async fn remove_project(&self, project: &str) -> Result<u64, OnlineError> {
        let prefixes = [Kind::State, Kind::Row].map(|kind| layout::project_prefix(kind, project));
        self.writing(move |environment| {
            let [states, rows] = prefixes;
            remove(environment, &states)?;
            remove(environment, &rows)
        })
        .await
    }

    async fn remove_view(&self, view: &ViewKey) -> Result<u64, OnlineError> {
        let prefixes = [Kind::State, Kind::Row].map(|kind| layout::view_prefix(kind, view));
        self.writing(move |environment| {
            let [states, rows] = prefixes;
            let rows = remove(environment, &rows)?;
            remove(environment, &states)?;
            Ok(rows)
        })
        .await
    }

    async fn ping(&self) -> Result<(), OnlineError> {
        self.blocking(|environment| environment.read().map(drop))
            .await
    }

    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }
}

/// How many of the rows the next transaction writes: at least one.
fn batch_length(rows: &[StoredRow]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&StoredRow| {
        bytes += row.entity_key.len() + row.value.len();
        bytes <= BYTES
    };
    rows.iter().take(ROWS).take_while(fits).count().max(1)
}

fn put_batch(
    environment: &Environment,
    view: &ViewKey,
    prefix: &[u8],
    rows: &[StoredRow],
) -> Result<PutSummary, OnlineError> {
    let failed = |error| environment.failed(error);
    let mut summary = PutSummary::default();
    let mut txn = environment.write()?;
    for row in rows {
        let key = layout::row_key(prefix, &row.entity_key);
        let value = layout::row_value(&row.entity_key, &row.value);
        // One search of the tree for a row that is new.
        let database = environment.database();
        let held = database.get_or_put(&mut txn, &key, &value);
        if let Some(held) = held.map_err(failed)? {
            match layout::split(&key, held) {
                Some((entity, held)) if entity == row.entity_key => {
                    if held >= row.value.as_slice() {
                        summary.kept += 1;
                        continue;
                    }
                }
                _ => {
                    return Err(OnlineError::Refused {
                        store: environment.address().to_owned(),
                        reason: format!(
                            "what it holds of view `{}` is damaged; remove the folder and \
                             materialize again",
                            view.view
                        ),
                    });
                }
            }
            database.put(&mut txn, &key, &value).map_err(failed)?;
        }
        summary.written += 1;
    }
    txn.commit().map_err(failed)?;
    Ok(summary)
}

fn read_state(
    environment: &Environment,
    txn: &heed::RoTxn<'_>,
    view: &ViewKey,
) -> Result<Option<ViewState>, OnlineError> {
    environment
        .database()
        .get(txn, &layout::view_prefix(Kind::State, view))
        .map_err(|error| environment.failed(error))?
        .map(|json| ViewState::of_json(view, environment.address(), json))
        .transpose()
}

/// Visits the next [`PAGE`] entries under `prefix` that come after the key `after`; the last of
/// them, if there may be more.
fn page(
    environment: &Environment,
    txn: &heed::RoTxn<'_>,
    prefix: &[u8],
    after: Option<&[u8]>,
    mut visit: impl FnMut(&[u8], &[u8]),
) -> Result<Option<Vec<u8>>, OnlineError> {
    let failed = |error| environment.failed(error);
    let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
    let range = (start, Bound::Unbounded);
    let entries = environment.database().range(txn, &range).map_err(failed)?;
    for (index, entry) in entries.enumerate() {
        let (key, value) = entry.map_err(failed)?;
        if !key.starts_with(prefix) {
            return Ok(None);
        }
        visit(key, value);
        if index + 1 == PAGE {
            return Ok(Some(key.to_vec()));
        }
    }
    Ok(None)
}

/// Removes all entries under `prefix`, a page in each transaction.
fn remove(environment: &Environment, prefix: &[u8]) -> Result<u64, OnlineError> {
    let failed = |error| environment.failed(error);
    let mut removed = 0;
    loop {
        let mut txn = environment.write()?;
        let mut keys = Vec::new();
        let more = page(environment, &txn, prefix, None, |key, _| {
            keys.push(key.to_vec())
        })?;
        for key in &keys {
            environment
                .database()
                .delete(&mut txn, key)
                .map_err(failed)?;
        }
        txn.commit().map_err(failed)?;
        removed += keys.len() as u64;
        if more.is_none() {
            return Ok(removed);
        }
    }
}

#[cfg(test)]
mod tests {
    use unskew_core::digest::Digest;

    use super::*;

    #[tokio::test]
    async fn a_damaged_row_is_there_and_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path()).unwrap();
        let view = ViewKey::new("p", "v", Digest::of(b"meaning"));
        let (one, other) = (vec![1; 1000], vec![2; 1000]);
        let key = layout::row_key(&layout::view_prefix(Kind::Row, &view), &one);
        for damaged in [
            b"\xff\xff\xff\xffrow".to_vec(),
            layout::row_value(&other, b"row").into_owned(),
        ] {
            let environment = &store.environment;
            let mut txn = environment.write().unwrap();
            environment
                .database()
                .put(&mut txn, &key, &damaged)
                .unwrap();
            txn.commit().unwrap();
            let wanted = Wanted {
                view: Arc::new(view.clone()),
                entities: vec![one.clone(), other.clone()],
            };
            let held = store.get(vec![wanted]).await.unwrap();
            assert_eq!(held[0].rows, [Some(Bytes::new()), None]);
        }
    }
}
