//! The store in a Redis server.
//!
//! The server is not to evict (`maxmemory-policy noeviction`, which is the default): an evicted row
//! is like one that never was. A server that is full then refuses writes, and goes on serving.

mod keys;
mod link;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use redis::{Pipeline, Script, ScriptInvocation};
use tokio::sync::Semaphore;
use unskew_core::sample::Sample;

use crate::error::OnlineError;
use crate::key::ViewKey;
use crate::store::{Held, OnlineStore, PutSummary, StoredRow, ViewState, Wanted, check_sizes};
use keys::RowKeys;
use link::Link;

/// How many keys one MGET asks for; all of a request are sent at once. Redis does nothing else
/// while it answers one.
const MGET: usize = 4096;
/// How many rows one call of the script writes.
const ROWS: usize = 128;
/// How many bytes one call of the script writes, but for a single row.
const BYTES: usize = 1 << 20;
/// How many calls of the script are on their way at once.
const CALLS: usize = 8;
/// How many bytes of rows are on their way at once, but for a single row, which then goes alone:
/// an answer has to come in time also over a slow line.
const SENT: usize = CALLS * BYTES;
/// How many keys one SCAN goes through.
const SCAN: usize = 1000;

/// An online store in a Redis server.
pub(crate) struct RedisStore {
    link: Link,
    put: Script,
    swap: Script,
    /// [`SENT`], less what is on its way.
    unsent: Semaphore,
}

impl RedisStore {
    /// The store in the server that `url` names. Nothing is sent yet.
    pub(crate) fn new(url: &str) -> Result<Self, OnlineError> {
        Ok(Self {
            link: Link::new(url)?,
            put: Script::new(include_str!("put.lua")),
            swap: Script::new(include_str!("swap.lua")),
            unsent: Semaphore::new(SENT),
        })
    }

    async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Vec<Option<Bytes>>>, OnlineError> {
        self.link
            .run(|mut connection| async move { pipeline.query_async(&mut connection).await })
            .await
    }

    async fn invoke(&self, script: &ScriptInvocation<'_>) -> Result<u64, OnlineError> {
        self.link
            .run(|mut connection| async move { script.invoke_async(&mut connection).await })
            .await
    }

    async fn put_batch(
        &self,
        keys: &RowKeys,
        batch: &[StoredRow],
    ) -> Result<PutSummary, OnlineError> {
        let bytes = batch.iter().map(size).sum::<usize>().min(SENT);
        // It is never closed.
        let _sent = self.unsent.acquire_many(bytes as u32).await;
        let mut call = self.put.prepare_invoke();
        for row in batch {
            call.key(keys.key(&row.entity_key))
                .arg(row.value.as_slice());
            match row.expires_at {
                Some(micros) => call.arg(milliseconds(micros)),
                None => call.arg(""),
            };
        }
        let written = self.invoke(&call).await?;
        Ok(PutSummary {
            written,
            kept: (batch.len() as u64).saturating_sub(written),
        })
    }

    async fn read_state(&self, view: &ViewKey) -> Result<Option<Vec<u8>>, OnlineError> {
        let mut command = redis::cmd("GET");
        command.arg(keys::state(view));
        let command = &command;
        self.link
            .run(|mut connection| async move { command.query_async(&mut connection).await })
            .await
    }

    /// One step through the keys that match `pattern`: where to go on (0: nowhere) and some keys,
    /// of which some may come more than once.
    async fn scan(&self, cursor: u64, pattern: &str) -> Result<(u64, Vec<Bytes>), OnlineError> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(SCAN);
        let command = &command;
        self.link
            .run(|mut connection| async move { command.query_async(&mut connection).await })
            .await
    }

    async fn remove(&self, pattern: &str) -> Result<u64, OnlineError> {
        let (mut cursor, mut removed) = (0, 0);
        loop {
            let (next, keys) = self.scan(cursor, pattern).await?;
            if !keys.is_empty() {
                let mut command = redis::cmd("UNLINK");
                for key in &keys {
                    command.arg(key.as_ref());
                }
                let command = &command;
                let count: u64 = self
                    .link
                    .run(|mut connection| async move { command.query_async(&mut connection).await })
                    .await?;
                removed += count;
            }
            if next == 0 {
                return Ok(removed);
            }
            cursor = next;
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisStore").field(&self.address()).finish()
    }
}

#[async_trait]
impl OnlineStore for RedisStore {
    fn address(&self) -> &str {
        self.link.address()
    }

    async fn get(&self, wanted: Vec<Wanted>) -> Result<Vec<Held>, OnlineError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut names: Vec<String> = wanted.iter().map(|w| keys::state(&w.view)).collect();
        for wanted in &wanted {
            let rows = RowKeys::of(&wanted.view);
            names.extend(wanted.entities.iter().map(|entity| rows.key(entity)));
        }
        let mut pipeline = Pipeline::new();
        for names in names.chunks(MGET) {
            pipeline.cmd("MGET").arg(names);
        }
        let mut values = self.pipeline(&pipeline).await?.into_iter().flatten();
        let states: Vec<Option<Bytes>> = values.by_ref().take(wanted.len()).collect();
        wanted
            .iter()
            .zip(states)
            .map(|(wanted, state)| {
                let state = state
                    .map(|json| ViewState::of_json(&wanted.view, self.address(), &json))
                    .transpose()?;
                let rows = values.by_ref().take(wanted.entities.len()).collect();
                Ok(Held { state, rows })
            })
            .collect()
    }

    async fn put(&self, view: &ViewKey, rows: Vec<StoredRow>) -> Result<PutSummary, OnlineError> {
        check_sizes(view, &rows)?;
        let keys = RowKeys::of(view);
        let calls: Vec<_> = batches(&rows)
            .map(|batch| self.put_batch(&keys, batch))
            .collect();
        stream::iter(calls)
            .buffer_unordered(CALLS)
            .try_fold(PutSummary::default(), |mut sum, one| async move {
                sum.add(one);
                Ok(sum)
            })
            .await
    }

    async fn state(&self, view: &ViewKey) -> Result<Option<ViewState>, OnlineError> {
        self.read_state(view)
            .await?
            .map(|json| ViewState::of_json(view, self.address(), &json))
            .transpose()
    }

    async fn update_state(
        &self,
        view: &ViewKey,
        expected: Option<&ViewState>,
        new: &ViewState,
    ) -> Result<bool, OnlineError> {
        let json = self.read_state(view).await?;
        let held = json
            .as_deref()
            .map(|json| ViewState::of_json(view, self.address(), json))
            .transpose()?;
        if held.as_ref() == Some(new) {
            return Ok(true);
        }
        if held.as_ref() != expected {
            return Ok(false);
        }
        // What is compared in Redis is the text that was read, however it is written.
        let mut call = self.swap.prepare_invoke();
        call.key(keys::state(view)).arg(new.to_json()?);
        if let Some(json) = json {
            call.arg(json);
        }
        if self.invoke(&call).await? == 1 {
            return Ok(true);
        }
        // Another was faster; or this was done, and its answer lost, and done again.
        Ok(self.state(view).await?.as_ref() == Some(new))
    }

    async fn sample_keys(
        &self,
        view: &ViewKey,
        limit: usize,
        seed: u64,
    ) -> Result<Vec<Vec<u8>>, OnlineError> {
        let keys = RowKeys::of(view);
        let pattern = keys.pattern();
        let mut sample = Sample::new(limit, seed);
        let mut cursor = 0;
        loop {
            let (next, found) = self.scan(cursor, &pattern).await?;
            for entity in found.iter().filter_map(|key| keys.entity(key)) {
                sample.offer(&entity);
            }
            if next == 0 {
                return Ok(sample.into_keys());
            }
            cursor = next;
        }
    }

    async fn remove_project(&self, project: &str) -> Result<u64, OnlineError> {
        let [states, rows] = keys::project_patterns(project);
        self.remove(&states).await?;
        self.remove(&rows).await
    }

    async fn ping(&self) -> Result<(), OnlineError> {
        self.link
            .run(|mut connection| async move {
                redis::cmd("PING").query_async::<()>(&mut connection).await
            })
            .await
    }
}

/// The rows in batches for the script.
fn batches(mut rows: &[StoredRow]) -> impl Iterator<Item = &[StoredRow]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |row: &&StoredRow| {
            bytes += size(row);
            bytes <= BYTES
        };
        let length = rows.iter().take(ROWS).take_while(fits).count().max(1);
        let (batch, rest) = rows.split_at_checked(length)?;
        rows = rest;
        Some(batch)
    })
}

/// How many bytes of a call a row takes, about.
fn size(row: &StoredRow) -> usize {
    row.entity_key.len() + row.value.len()
}

/// An instant in the milliseconds of PEXPIREAT, not before it.
fn milliseconds(micros: i64) -> i64 {
    micros.div_euclid(1000) + 1
}
