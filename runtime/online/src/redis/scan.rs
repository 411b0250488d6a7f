//! Going through the keys of all servers.

use std::sync::Arc;

use redis::Value;

use super::link::Link;
use super::servers::Servers;
use crate::error::OnlineError;

/// How many keys one SCAN goes through.
const COUNT: usize = 1000;
/// How often all keys are gone through again because a cluster changed meanwhile.
const PASSES: usize = 5;

/// A walk through the keys that match a pattern, of all servers. Some may come more than once.
///
/// While a cluster deals its slots anew, keys may move past the walk: then it begins again.
pub(super) struct Scan<'a> {
    servers: &'a Servers,
    address: &'a str,
    pattern: &'a str,
    passes: usize,
    masters: Vec<Arc<Link>>,
    /// What the servers were like when the pass began.
    generation: u64,
    /// Which of the masters is gone through, and where the walk is in it.
    at: usize,
    cursor: u64,
}

impl<'a> Scan<'a> {
    pub(super) const fn new(servers: &'a Servers, address: &'a str, pattern: &'a str) -> Self {
        Self {
            servers,
            address,
            pattern,
            passes: 0,
            masters: Vec::new(),
            generation: 0,
            at: 0,
            cursor: 0,
        }
    }

    /// Some more keys; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Vec<u8>>>, OnlineError> {
        loop {
            if self.at == self.masters.len() && !self.another_pass().await? {
                return Ok(None);
            }
            let link = Arc::clone(&self.masters[self.at]);
            let (next, keys) = self.step(&link).await?;
            self.cursor = next;
            if next == 0 {
                self.at += 1;
            }
            if !keys.is_empty() {
                return Ok(Some(keys));
            }
        }
    }

    /// Begins a pass, unless the last one has seen everything.
    async fn another_pass(&mut self) -> Result<bool, OnlineError> {
        let (masters, generation) = self.servers.masters().await?;
        if self.passes > 0 && generation == self.generation {
            return Ok(false);
        }
        if self.passes == PASSES {
            return Err(OnlineError::Unavailable {
                store: self.address.to_owned(),
                reason: "its servers changed again and again while their keys were read".to_owned(),
            });
        }
        self.passes += 1;
        (self.masters, self.generation) = (masters, generation);
        (self.at, self.cursor) = (0, 0);
        Ok(!self.masters.is_empty())
    }

    async fn step(&self, link: &Arc<Link>) -> Result<(u64, Vec<Vec<u8>>), OnlineError> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(self.cursor)
            .arg("MATCH")
            .arg(self.pattern)
            .arg("COUNT")
            .arg(COUNT);
        match link.one(&command).await? {
            Value::ServerError(error) => Err(link.failed(&error.into())),
            answer => redis::from_redis_value(answer).map_err(|_| link.garbled()),
        }
    }
}
