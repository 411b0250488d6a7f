//! Going through the keys of all servers.

use std::sync::Arc;

use redis::Value;

use super::link::Link;
use super::replication;
use super::servers::{Master, Servers};
use crate::error::OnlineError;
use crate::lineage::Lineage;

/// How many keys one SCAN goes through.
const COUNT: usize = 1000;
/// How often all keys are gone through again because the servers changed meanwhile.
const PASSES: usize = 5;

/// A walk through the keys that match a pattern, of all servers. Some may come more than once.
///
/// A cursor means something to the process alone that gave it, and while a cluster deals its slots
/// anew, keys may move past the walk. So if servers gave way to others, began anew, or have other
/// slots at the end of a walk than at its beginning, it begins again. Keys that move between two
/// servers while the slot's owner is the same are not seen so: who has to have them all goes through
/// them until none is left.
pub(super) struct Scan<'a> {
    servers: &'a Servers,
    address: &'a str,
    pattern: &'a str,
    passes: usize,
    masters: Vec<Master>,
    /// What the servers were like when the pass began.
    lineage: Lineage,
    /// Which of the masters is gone through, and where the walk is in it.
    at: usize,
    cursor: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(servers: &'a Servers, address: &'a str, pattern: &'a str) -> Self {
        Self {
            servers,
            address,
            pattern,
            passes: 0,
            masters: Vec::new(),
            lineage: Lineage::default(),
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
            let link = Arc::clone(&self.masters[self.at].link);
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
        let masters = self.servers.masters().await?;
        let lineage = replication::lineage(&masters).await?;
        if self.passes > 0 && lineage.is_unmoved(&self.lineage) {
            return Ok(false);
        }
        if self.passes == PASSES {
            return Err(OnlineError::Unavailable {
                store: self.address.to_owned(),
                reason: "its servers changed again and again while their keys were read".to_owned(),
            });
        }
        self.passes += 1;
        (self.masters, self.lineage) = (masters, lineage);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use unskew_test_redis::RedisServer;

    use super::super::address::Address;
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_walk_begins_again_where_its_server_did() {
        const KEYS: usize = 20_000;
        let mut server = RedisServer::start_with(&["--appendonly", "yes"]);
        let servers = Servers::new(&Address::parse(&server.url()).unwrap()).unwrap();
        let mut set = redis::cmd("MSET");
        for key in 0..KEYS {
            set.arg(key).arg("");
        }
        let masters = servers.masters().await.unwrap();
        masters[0].link.one(&set).await.unwrap();
        let mut scan = Scan::new(&servers, "server", "*");
        let mut found = BTreeSet::new();
        while found.len() < KEYS / 2 {
            found.extend(scan.next().await.unwrap().unwrap());
        }
        // With all its keys, in another order.
        server.start_again();
        while let Some(keys) = scan.next().await.unwrap() {
            found.extend(keys);
        }
        assert_eq!(found.len(), KEYS);
    }
}
