//! How far the replicas of servers are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, Value};

use super::link::Link;
use crate::error::OnlineError;
use crate::store::Lineage;

/// How long a replica may take to confirm what was written. It does so each second.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// What `INFO replication` says of a master.
#[derive(Debug, Default, PartialEq, Eq)]
struct Replication {
    /// Names the history of writes that it continues; a replica that takes its place begins another.
    id: String,
    /// How many bytes of writes there were.
    offset: u64,
    /// How many of them each replica has confirmed that follows.
    confirmed: Vec<u64>,
}

impl Replication {
    async fn of(link: &Arc<Link>) -> Result<Self, OnlineError> {
        let mut command = redis::cmd("INFO");
        command.arg("replication");
        match link.one(&command).await? {
            Value::ServerError(error) => Err(link.failed(&error.into())),
            answer => {
                let text = String::from_redis_value(answer).map_err(|_| link.garbled())?;
                Self::read(&text).ok_or_else(|| link.garbled())
            }
        }
    }

    fn read(text: &str) -> Option<Self> {
        let mut read = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.trim().split_once(':') else {
                continue;
            };
            match name {
                "master_replid" => value.clone_into(&mut read.id),
                "master_repl_offset" => read.offset = value.parse().ok()?,
                // slave0:ip=127.0.0.1,port=6380,state=online,offset=42,lag=0
                _ if name.strip_prefix("slave").is_some_and(is_number) => {
                    let field = |wanted: &str| {
                        let mut fields = value.split(',').filter_map(|field| field.split_once('='));
                        fields.find(|(name, _)| *name == wanted).map(|(_, v)| v)
                    };
                    if field("state") == Some("online") {
                        read.confirmed.push(field("offset")?.parse().ok()?);
                    }
                }
                _ => {}
            }
        }
        (!read.id.is_empty()).then_some(read)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The histories that the masters continue.
pub(super) async fn lineage(masters: &[Arc<Link>]) -> Result<Lineage, OnlineError> {
    let mut histories = BTreeSet::new();
    for link in masters {
        histories.insert(Replication::of(link).await?.id);
    }
    Ok(Lineage(histories))
}

/// Waits until what a master was told before is confirmed by a replica, if it has any: by the one
/// that would take its place, since that is the one that is furthest.
pub(super) async fn settle(link: &Arc<Link>) -> Result<(), OnlineError> {
    let written = Replication::of(link).await?.offset;
    let confirmed = async {
        loop {
            let now = Replication::of(link).await?;
            if now.confirmed.is_empty() || now.confirmed.iter().any(|offset| *offset >= written) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(PATIENCE, confirmed).await {
        Ok(settled) => settled,
        Err(_) => Err(OnlineError::Unavailable {
            store: link.address().to_owned(),
            reason: format!(
                "none of its replicas has confirmed within {} s what was written",
                PATIENCE.as_secs()
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_master_says_is_read() {
        let text = "# Replication\r\nrole:master\r\nconnected_slaves:3\r\n\
                    slave0:ip=127.0.0.1,port=1,state=online,offset=42,lag=0\r\n\
                    slave1:ip=127.0.0.1,port=2,state=send_bulk,offset=0,lag=0\r\n\
                    slave2:ip=::1,port=3,state=online,offset=40,lag=1,type=replica\r\n\
                    slave_expires_tracked_keys:0\r\n\
                    master_replid:8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb\r\n\
                    master_replid2:0\r\nmaster_repl_offset:43\r\nsecond_repl_offset:-1\r\n";
        let read = Replication::read(text).unwrap();
        assert_eq!(read.id, "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb");
        assert_eq!((read.offset, read.confirmed), (43, vec![42, 40]));
        assert_eq!(Replication::read("# Replication\r\n"), None);
        assert_eq!(Replication::read("master_repl_offset:x\r\n"), None);
    }
}
