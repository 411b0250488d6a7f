//! The store in Redis: one server, the master that sentinels name, or a cluster.
//!
//! ```text
//! RedisStore ── Call (slot, command) ──▶ Servers ──▶ Link: a server ──▶ connections
//!   what is asked, in whose words          │           its circuit breaker
//!                                          └─▶ Cluster: which slots which server has
//! ```
//!
//! The servers are not to evict (`maxmemory-policy noeviction`, which is the default): an evicted
//! row is like one that never was. A server that is full then refuses writes, and goes on serving.
//!
//! Replication is asynchronous: a failover loses what the new master had not heard of. A view's
//! state is written after its rows and in the same history of writes, so on one server, and under
//! sentinels, it is lost with them. In a cluster rows lie on all servers and the state on one: it
//! tells how far the history of each was, so that a loss is seen later. See [`Lineage`].

mod address;
mod backoff;
mod breaker;
mod cluster;
mod dial;
mod keys;
mod link;
mod patience;
mod replication;
mod scan;
mod script;
mod servers;
mod slot;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use redis::{Cmd, FromRedisValue, Value};
use tokio::sync::Semaphore;
use unskew_core::sample::Sample;

use crate::error::OnlineError;
use crate::key::ViewKey;
use crate::lineage::Lineage;
use crate::store::{
    Held, OnlineStore, PutSummary, StoreHealth, StoredRow, ViewState, Wanted, check_sizes,
};
use address::Address;
use keys::RowKeys;
use patience::Patience;
use scan::Scan;
use script::Script;
use servers::{Call, Master, Servers};

/// How many keys one MGET asks for; all of a request are sent at once. Redis does nothing else
/// while it answers one.
const MGET: usize = 4096;
/// How many rows one call of the script writes.
const ROWS: usize = 128;
/// How many rows are dealt out to the slots of a cluster at once: there is a call for each slot.
const DEALT: usize = 1024;
/// How many bytes one call of the script writes, but for a single row.
const BYTES: usize = 1 << 20;
/// How many calls of the script are on their way at once.
const CALLS: usize = 8;
/// How many bytes of rows are on their way at once, but for a single row, which then goes alone:
/// an answer has to come in time also over a slow line.
const SENT: usize = CALLS * BYTES;
/// How often keys that are to be removed are looked for, until none is found.
const REMOVALS: usize = 20;

/// An online store in Redis.
pub(crate) struct RedisStore {
    inner: Arc<Inner>,
    patience: Patience,
}

struct Inner {
    servers: Servers,
    address: String,
    put: Script,
    swap: Script,
    /// [`SENT`], less what is on its way.
    unsent: Semaphore,
}

/// A value that is asked for: the state of a view, or the row of one of its entities.
#[derive(Clone, Copy)]
struct Asked {
    slot: u16,
    view: usize,
    entity: Option<usize>,
}

impl RedisStore {
    /// The store in what `url` names. Nothing is sent yet.
    pub(crate) fn new(url: &str) -> Result<Self, OnlineError> {
        let address = Address::parse(url)?;
        let inner = Arc::new(Inner {
            servers: Servers::new(&address)?,
            address: address.shown(),
            put: Script::new(include_str!("put.lua")),
            swap: Script::new(include_str!("swap.lua")),
            unsent: Semaphore::new(SENT),
        });
        let patience = Patience::default();
        Ok(Self { inner, patience })
    }
}

impl Inner {
    /// What an answer is of the type that was asked for.
    fn read<T: FromRedisValue>(&self, answer: Value) -> Result<T, OnlineError> {
        redis::from_redis_value(answer).map_err(|_| self.servers.meaning_of_nothing())
    }

    /// The values that are asked for by MGETs of one slot each, in the order of `asked`.
    async fn values(
        &self,
        wanted: &[Wanted],
        mut asked: Vec<Asked>,
        take: &mut impl FnMut(Asked, Option<Bytes>),
    ) -> Result<(), OnlineError> {
        if self.servers.has_slots() {
            asked.sort_unstable_by_key(|asked| asked.slot);
        }
        let mut groups: Vec<&[Asked]> = asked
            .chunk_by(|one, next| one.slot == next.slot)
            .flat_map(|group| group.chunks(MGET))
            .collect();
        while !groups.is_empty() {
            let calls = groups.iter().map(|group| mget(wanted, group));
            let answers = self.servers.calls(calls.collect()).await?;
            let mut again = Vec::new();
            for (group, answer) in std::mem::take(&mut groups).into_iter().zip(answers) {
                match answer {
                    Value::Array(values) if values.len() == group.len() => {
                        for (&asked, value) in group.iter().zip(values) {
                            take(asked, self.bytes(value)?);
                        }
                    }
                    // Some of the keys have moved to another server already. Each by itself is
                    // where it is.
                    Value::ServerError(_) if group.len() > 1 => again.extend(group.chunks(1)),
                    Value::ServerError(error) => return Err(self.servers.meaning(error)),
                    _ => return Err(self.servers.meaning_of_nothing()),
                }
            }
            groups = again;
        }
        Ok(())
    }

    fn bytes(&self, value: Value) -> Result<Option<Bytes>, OnlineError> {
        match value {
            Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
            Value::Nil => Ok(None),
            _ => Err(self.servers.meaning_of_nothing()),
        }
    }

    /// Writes rows by one call of the script for each slot.
    async fn put_batch(
        &self,
        keys: RowKeys<'_>,
        batch: &[StoredRow],
    ) -> Result<PutSummary, OnlineError> {
        let bytes = batch.iter().map(size).sum::<usize>().min(SENT);
        // It is never closed.
        let _sent = self.unsent.acquire_many(bytes as u32).await;
        let mut groups: Vec<Vec<&StoredRow>> = if self.servers.has_slots() {
            let mut rows: Vec<(u16, &StoredRow)> = batch
                .iter()
                .map(|row| (keys.key(&row.entity_key).slot(), row))
                .collect();
            rows.sort_by_key(|(slot, _)| *slot);
            let slots = rows.chunk_by(|(one, _), (next, _)| one == next);
            slots
                .flat_map(|rows| rows.chunks(ROWS))
                .map(|rows| rows.iter().map(|(_, row)| *row).collect())
                .collect()
        } else {
            vec![batch.iter().collect()]
        };
        let mut written = 0;
        while !groups.is_empty() {
            let calls = groups.iter().map(|rows| self.put_call(keys, rows));
            let answers = self.servers.calls(calls.collect()).await?;
            let mut again = Vec::new();
            for (rows, answer) in std::mem::take(&mut groups).into_iter().zip(answers) {
                match answer {
                    Value::ServerError(_) if rows.len() > 1 => {
                        again.extend(rows.into_iter().map(|row| vec![row]));
                    }
                    Value::ServerError(error) => return Err(self.servers.meaning(error)),
                    answer => written += self.read::<u64>(answer)?,
                }
            }
            groups = again;
        }
        Ok(PutSummary {
            written,
            kept: (batch.len() as u64).saturating_sub(written),
        })
    }

    fn put_call(&self, keys: RowKeys<'_>, rows: &[&StoredRow]) -> Call<'_> {
        let keyed = |row: &&&StoredRow| keys.key(&row.entity_key).len() + row.value.len() + 20;
        let bytes = rows.iter().map(|row| keyed(&row)).sum();
        let mut command = self.put.call(rows.len(), 2 * rows.len(), bytes);
        for row in rows {
            command.arg(keys.key(&row.entity_key));
        }
        for row in rows {
            command.arg(row.value.as_slice());
            match row.expires_at {
                Some(micros) => command.arg(milliseconds(micros)),
                None => command.arg(""),
            };
        }
        Call {
            slot: rows
                .first()
                .filter(|_| self.servers.has_slots())
                .map_or(0, |row| keys.key(&row.entity_key).slot()),
            command,
            script: Some(&self.put),
        }
    }

    async fn read_state(&self, view: &ViewKey) -> Result<Option<Vec<u8>>, OnlineError> {
        let key = RowKeys::of(view).state();
        let mut command = redis::cmd("GET");
        command.arg(key);
        let answer = self.servers.call(Call {
            slot: key.slot(),
            command,
            script: None,
        });
        self.read(answer.await?)
    }

    /// Removes the keys that match `pattern`, and adds how many there were to `removed`.
    async fn remove(&self, pattern: &str, removed: &AtomicU64) -> Result<(), OnlineError> {
        // A walk may miss keys that move past it. The last one finds none.
        for _ in 0..REMOVALS {
            if !self.remove_once(pattern, removed).await? {
                return Ok(());
            }
        }
        Err(OnlineError::Unavailable {
            store: self.address.clone(),
            reason: "somebody writes what is being removed".to_owned(),
        })
    }

    /// Removes the keys that one walk finds, and says whether there were any.
    async fn remove_once(&self, pattern: &str, removed: &AtomicU64) -> Result<bool, OnlineError> {
        let mut found = false;
        let mut scan = Scan::new(&self.servers, &self.address, pattern);
        while let Some(mut keys) = scan.next().await? {
            found = true;
            let slot = |key: &Vec<u8>| match self.servers.has_slots() {
                true => slot::of_key(key),
                false => 0,
            };
            keys.sort_by_cached_key(slot);
            let groups = keys.chunk_by(|one, next| slot(one) == slot(next));
            let unlink = |keys: &[Vec<u8>]| {
                let mut command = redis::cmd("UNLINK");
                command.arg(keys);
                Call {
                    slot: keys.first().map_or(0, slot),
                    command,
                    script: None,
                }
            };
            let calls: Vec<Call<'_>> = groups.map(unlink).collect();
            for answer in self.servers.calls(calls).await? {
                match answer {
                    Value::ServerError(error) => return Err(self.servers.meaning(error)),
                    answer => {
                        removed.fetch_add(self.read::<u64>(answer)?, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(found)
    }

    async fn get(&self, wanted: &[Wanted]) -> Result<Vec<Held>, OnlineError> {
        let slots = self.servers.has_slots();
        let count = wanted.iter().map(|wanted| 1 + wanted.entities.len()).sum();
        let mut asked = Vec::with_capacity(count);
        for (view, wanted) in wanted.iter().enumerate() {
            let keys = RowKeys::of(&wanted.view);
            asked.push(Asked {
                slot: if slots { keys.state().slot() } else { 0 },
                view,
                entity: None,
            });
            let entities = wanted.entities.iter().enumerate();
            asked.extend(entities.map(|(entity, key)| Asked {
                slot: if slots { keys.key(key).slot() } else { 0 },
                view,
                entity: Some(entity),
            }));
        }
        let mut states = vec![None; wanted.len()];
        let mut rows: Vec<Vec<Option<Bytes>>> = wanted
            .iter()
            .map(|wanted| vec![None; wanted.entities.len()])
            .collect();
        self.values(wanted, asked, &mut |asked, value| match asked.entity {
            None => states[asked.view] = value,
            Some(entity) => rows[asked.view][entity] = value,
        })
        .await?;
        let held = wanted.iter().zip(states).zip(rows);
        held.map(|((wanted, state), rows)| {
            let state = state
                .map(|json| ViewState::of_json(&wanted.view, &self.address, &json))
                .transpose()?;
            Ok(Held { state, rows })
        })
        .collect()
    }

    async fn put(
        &self,
        view: &ViewKey,
        rows: &[StoredRow],
        patience: Patience,
    ) -> Result<PutSummary, OnlineError> {
        let keys = RowKeys::of(view);
        let rows_at_once = match self.servers.has_slots() {
            true => DEALT,
            false => ROWS,
        };
        let calls: Vec<_> = batches(rows, rows_at_once)
            .map(|batch| patience.wait(move || self.put_batch(keys, batch)))
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
            .map(|json| ViewState::of_json(view, &self.address, &json))
            .transpose()
    }

    async fn update_state(
        &self,
        view: &ViewKey,
        expected: Option<&ViewState>,
        new: &ViewState,
        within: &Lineage,
    ) -> Result<bool, OnlineError> {
        let json = self.read_state(view).await?;
        let held = json
            .as_deref()
            .map(|json| ViewState::of_json(view, &self.address, json))
            .transpose()?;
        if held.as_ref() == Some(new) {
            return Ok(true);
        }
        if held.as_ref() != expected {
            return Ok(false);
        }
        // What is compared in Redis is the text that was read, however it is written.
        let key = RowKeys::of(view).state();
        let mut command = self.swap.call(1, 3, 512);
        let histories: Vec<&str> = within.ids().collect();
        command.arg(key).arg(new.to_json()?);
        command.arg(histories.join(" "));
        if let Some(json) = json {
            command.arg(json);
        }
        let answer = self.servers.call(Call {
            slot: key.slot(),
            command,
            script: Some(&self.swap),
        });
        if self.read::<u64>(answer.await?)? == 1 {
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
        let mut sample = Sample::new(limit, seed);
        let pattern = keys.pattern();
        let mut scan = Scan::new(&self.servers, &self.address, &pattern);
        while let Some(found) = scan.next().await? {
            for entity in found.iter().filter_map(|key| keys.entity(key)) {
                sample.offer(&entity);
            }
        }
        Ok(sample.into_keys())
    }

    async fn remove_project(&self, project: &str, removed: &AtomicU64) -> Result<(), OnlineError> {
        let [states, rows] = keys::project_patterns(project);
        self.remove(&states, &AtomicU64::new(0)).await?;
        self.remove(&rows, removed).await
    }

    async fn remove_view(&self, view: &ViewKey, removed: &AtomicU64) -> Result<(), OnlineError> {
        self.remove(&RowKeys::of(view).pattern(), removed).await?;
        let key = RowKeys::of(view).state();
        let mut command = redis::cmd("UNLINK");
        command.arg(key);
        let call = Call {
            slot: key.slot(),
            command,
            script: None,
        };
        self.servers.call(call).await.map(drop)
    }

    async fn lineage(&self) -> Result<Lineage, OnlineError> {
        replication::lineage(&self.servers.masters().await?).await
    }

    async fn ping(&self) -> Result<(), OnlineError> {
        for Master { link, .. } in self.servers.masters().await? {
            if let Value::ServerError(error) = link.one(&redis::cmd("PING")).await? {
                return Err(link.failed(&error.into()));
            }
        }
        Ok(())
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
        &self.inner.address
    }

    async fn get(&self, wanted: Vec<Wanted>) -> Result<Vec<Held>, OnlineError> {
        self.patience.wait(|| self.inner.get(&wanted)).await
    }

    async fn put(&self, view: &ViewKey, rows: Vec<StoredRow>) -> Result<PutSummary, OnlineError> {
        check_sizes(view, &rows)?;
        self.inner.put(view, &rows, self.patience).await
    }

    async fn state(&self, view: &ViewKey) -> Result<Option<ViewState>, OnlineError> {
        self.patience.wait(|| self.inner.state(view)).await
    }

    async fn update_state(
        &self,
        view: &ViewKey,
        expected: Option<&ViewState>,
        new: &ViewState,
    ) -> Result<bool, OnlineError> {
        // Whichever history it is.
        let any = Lineage::default();
        self.update_state_within(&any, view, expected, new).await
    }

    async fn update_state_within(
        &self,
        lineage: &Lineage,
        view: &ViewKey,
        expected: Option<&ViewState>,
        new: &ViewState,
    ) -> Result<bool, OnlineError> {
        let update = || self.inner.update_state(view, expected, new, lineage);
        self.patience.wait(update).await
    }

    async fn sample_keys(
        &self,
        view: &ViewKey,
        limit: usize,
        seed: u64,
    ) -> Result<Vec<Vec<u8>>, OnlineError> {
        let sample = || self.inner.sample_keys(view, limit, seed);
        self.patience.wait(sample).await
    }

    async fn remove_project(&self, project: &str) -> Result<u64, OnlineError> {
        let removed = AtomicU64::new(0);
        let remove = || self.inner.remove_project(project, &removed);
        self.patience.wait(remove).await?;
        Ok(removed.into_inner())
    }

    async fn remove_view(&self, view: &ViewKey) -> Result<u64, OnlineError> {
        let removed = AtomicU64::new(0);
        let remove = || self.inner.remove_view(view, &removed);
        self.patience.wait(remove).await?;
        Ok(removed.into_inner())
    }

    async fn lineage(&self) -> Result<Lineage, OnlineError> {
        self.patience.wait(|| self.inner.lineage()).await
    }

    async fn ping(&self) -> Result<(), OnlineError> {
        self.patience.wait(|| self.inner.ping()).await
    }

    fn health(&self) -> StoreHealth {
        self.inner.servers.health()
    }

    fn patient(&self, within: Duration) -> Option<Arc<dyn OnlineStore>> {
        Some(Arc::new(Self {
            inner: Arc::clone(&self.inner),
            patience: Patience::of(within),
        }))
    }
}

/// An MGET of values that lie in one slot.
fn mget(wanted: &[Wanted], group: &[Asked]) -> Call<'static> {
    let keys = |asked: &Asked| RowKeys::of(&wanted[asked.view].view);
    let entity = |asked: &Asked| Some(wanted[asked.view].entities[asked.entity?].as_slice());
    let bytes = group.iter().map(|asked| match entity(asked) {
        Some(entity) => keys(asked).key(entity).len(),
        None => keys(asked).state().len(),
    });
    let mut command = Cmd::with_capacity(1 + group.len(), 4 + bytes.sum::<usize>());
    command.arg("MGET");
    for asked in group {
        match entity(asked) {
            Some(entity) => command.arg(keys(asked).key(entity)),
            None => command.arg(keys(asked).state()),
        };
    }
    Call {
        slot: group.first().map_or(0, |asked| asked.slot),
        command,
        script: None,
    }
}

/// The rows in batches of at most `most`.
fn batches(mut rows: &[StoredRow], most: usize) -> impl Iterator<Item = &[StoredRow]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |row: &&StoredRow| {
            bytes += size(row);
            bytes <= BYTES
        };
        let length = rows.iter().take(most).take_while(fits).count().max(1);
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
