//! Which history of writes a server continues.

use futures::future::try_join_all;
use redis::{FromRedisValue, Value};

use super::servers::Master;
use crate::error::OnlineError;
use crate::lineage::{History, Lineage};

/// How much of a replication id is kept. Of its 160 random bits 64 tell it from any other, and it
/// stands in the state of each view.
const ID: usize = 16;

/// The histories that the masters continue.
pub(super) async fn lineage(masters: &[Master]) -> Result<Lineage, OnlineError> {
    Ok(Lineage::of(
        try_join_all(masters.iter().map(history)).await?,
    ))
}

async fn history(master: &Master) -> Result<History, OnlineError> {
    let Master { link, slots } = master;
    let mut command = redis::cmd("INFO");
    command.arg("replication");
    let text = match link.one(&command).await? {
        Value::ServerError(error) => return Err(link.failed(&error.into())),
        answer => String::from_redis_value(answer).map_err(|_| link.garbled())?,
    };
    // It tells of its master's history, of which it may have heard less than its replicas.
    if !slots.is_empty() && field(&text, "role") != Some("master") {
        return Err(OnlineError::Unavailable {
            store: link.address().to_owned(),
            reason: "it is not the master any more".to_owned(),
        });
    }
    let history = read(&text).ok_or_else(|| link.garbled())?;
    Ok(History {
        slots: slots.clone(),
        ..history
    })
}

/// What `INFO replication` says of a master's history.
fn read(text: &str) -> Option<History> {
    let id = |name| field(text, name)?.get(..ID).map(str::to_owned);
    // A master that never was a replica says so by zeros and −1.
    let end = field(text, "second_repl_offset")?.parse::<u64>().ok();
    Some(History {
        id: id("master_replid")?,
        offset: field(text, "master_repl_offset")?.parse().ok()?,
        former: id("master_replid2").zip(end),
        slots: String::new(),
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    lines.find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_master_says_is_read() {
        let said = |id2: &str, end: &str| {
            format!(
                "# Replication\r\nrole:master\r\nconnected_slaves:1\r\n\
                 slave0:ip=127.0.0.1,port=1,state=online,offset=42,lag=0\r\n\
                 master_replid:8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb\r\n\
                 master_replid2:{id2}\r\nmaster_repl_offset:43\r\nsecond_repl_offset:{end}\r\n"
            )
        };
        let first = read(&said(&"0".repeat(40), "-1")).unwrap();
        assert_eq!((first.id.as_str(), first.offset), ("8371b4fb1155b71f", 43));
        assert_eq!(first.former, None);
        let heir = read(&said(&"ab".repeat(20), "40")).unwrap();
        assert_eq!(heir.former, Some(("ab".repeat(8), 40)));
        assert_eq!(read("# Replication\r\nrole:master\r\n"), None);
        assert_eq!(read("master_repl_offset:x\r\n"), None);
    }
}
