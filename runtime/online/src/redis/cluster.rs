//! The servers of a cluster, and which of them has which slots.
//!
//! The client of the `redis` crate was not taken. A key whose server it has no connection to it
//! leaves out of the answer to an MGET over several slots; while it looks at the cluster anew, all
//! calls wait, also those to servers that are well; and each slot of a request is a message of its
//! own to the task of its connection, where one for each server will do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::future::select_ok;
use redis::{RedisError, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::address::{Knobs, Place};
use super::backoff::Backoff;
use super::dial::{Dialer, Target};
use super::link::Link;
use super::servers::Master;
use super::slot::SLOTS;
use crate::error::OnlineError;
use crate::store::StoreHealth;

/// The waits between two looks at a cluster in which something is wrong.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(400);

/// A cluster.
pub(super) struct Cluster {
    dialer: Dialer,
    knobs: Knobs,
    address: String,
    /// The servers that the settings name. They are asked about the cluster when no other can be.
    seeds: Vec<Arc<Link>>,
    /// All that are known, by where they listen.
    links: std::sync::Mutex<BTreeMap<Place, Arc<Link>>>,
    slots: ArcSwap<Slots>,
    /// Held by who looks at a cluster that nobody has seen yet; others wait for what comes of it.
    /// How many such looks have ended is counted, so that they can tell.
    first: Mutex<()>,
    looks: AtomicU64,
    failure: ArcSwapOption<OnlineError>,
    looking: AtomicBool,
}

/// Which server has which slots.
pub(super) struct Slots {
    masters: Vec<Master>,
    /// For each slot its server's place among the masters, and [`NOBODY`] for none; empty before
    /// the first look.
    owners: Vec<u16>,
}

const NOBODY: u16 = u16::MAX;

impl Cluster {
    /// The cluster to which the servers at `places` belong. Nothing is sent yet.
    pub(super) fn new(
        dialer: Dialer,
        places: &[Place],
        knobs: Knobs,
    ) -> Result<Arc<Self>, OnlineError> {
        let mut cluster = Self {
            dialer,
            knobs,
            address: unskew_core::text::list(places),
            seeds: Vec::new(),
            links: std::sync::Mutex::default(),
            slots: ArcSwap::from_pointee(Slots {
                masters: Vec::new(),
                owners: Vec::new(),
            }),
            first: Mutex::default(),
            looks: AtomicU64::new(0),
            failure: ArcSwapOption::empty(),
            looking: AtomicBool::new(false),
        };
        let seeds = places.iter().map(|place| cluster.link(place.clone()));
        cluster.seeds = seeds.collect::<Result<_, _>>()?;
        Ok(Arc::new(cluster))
    }

    /// The servers that the settings name.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn health(&self) -> StoreHealth {
        let mut health = StoreHealth::default();
        let slots = self.slots.load();
        let strangers = self.seeds.iter().filter(|seed| {
            let known = slots.masters.iter();
            !known
                .into_iter()
                .any(|master| Arc::ptr_eq(&master.link, seed))
        });
        let masters = slots.masters.iter().map(|master| &master.link);
        for (is_master, link) in masters
            .map(|link| (true, link))
            .chain(strangers.map(|link| (false, link)))
        {
            let one = link.health();
            // A seed that is no master, and that nobody needs, may be gone.
            if slots.owners.is_empty() || is_master {
                health.circuit = health.circuit.max(one.circuit);
            }
            health.connections += one.connections;
            health.reconnects += one.reconnects;
            health.failures += one.failures;
        }
        health
    }

    /// Which server has which slots, as far as is known; the first time somebody is asked.
    pub(super) async fn slots(self: &Arc<Self>) -> Result<Arc<Slots>, OnlineError> {
        let slots = self.slots.load_full();
        if !slots.owners.is_empty() {
            return Ok(slots);
        }
        let looks = self.looks.load(Ordering::Acquire);
        let _first = self.first.lock().await;
        let slots = self.slots.load_full();
        if !slots.owners.is_empty() {
            return Ok(slots);
        }
        if self.looks.load(Ordering::Acquire) != looks
            && let Some(failure) = self.failure.load_full()
        {
            return Err((*failure).clone());
        }
        let looked = self.look().await;
        let failure = looked.as_ref().err().cloned();
        self.failure.store(failure.map(Arc::new));
        self.looks.fetch_add(1, Ordering::Release);
        looked.map(|()| self.slots.load_full())
    }

    /// The server that has a slot.
    pub(super) fn owner<'a>(
        self: &Arc<Self>,
        slots: &'a Slots,
        slot: u16,
    ) -> Result<&'a Arc<Link>, OnlineError> {
        let owner = slots.owners.get(usize::from(slot));
        match owner.and_then(|&owner| slots.masters.get(usize::from(owner))) {
            Some(master) => Ok(&master.link),
            None => {
                self.suspect();
                Err(OnlineError::Unavailable {
                    store: self.address.clone(),
                    reason: format!("no server of the cluster has slot {slot}"),
                })
            }
        }
    }

    /// Every server that has slots now.
    pub(super) async fn masters(&self) -> Result<Vec<Master>, OnlineError> {
        self.look().await?;
        Ok(self.slots.load().masters.clone())
    }

    /// The server to which `by` sends a call, by an error MOVED or ASK.
    pub(super) fn told(
        &self,
        by: &Arc<Link>,
        error: &RedisError,
    ) -> Result<Option<Arc<Link>>, OnlineError> {
        let place = error.redirect_node().and_then(|(to, _)| {
            let (host, port) = to.rsplit_once(':')?;
            let host = match host.trim_matches(['[', ']']) {
                // The server does not know its own name.
                "" => host_of(by.address()),
                host => host,
            };
            Some(Place::Tcp {
                host: host.to_owned(),
                port: port.parse().ok()?,
            })
        });
        match place {
            Some(place) => self.link(place).map(Some),
            None => Err(by.garbled()),
        }
    }

    /// Something is wrong, or has changed: sees to it that the cluster is looked at until all its
    /// slots have a server that is there.
    pub(super) fn suspect(self: &Arc<Self>) {
        if self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let looking = Looking(Arc::downgrade(self));
        tokio::spawn(async move {
            let mut backoff = Backoff::new(FIRST_LOOK, LONGEST_LOOK);
            loop {
                let Some(cluster) = looking.0.upgrade() else {
                    return;
                };
                if cluster.look().await.is_ok() && cluster.is_well() {
                    return;
                }
                drop(cluster);
                tokio::time::sleep(backoff.next()).await;
            }
        });
    }

    fn is_well(&self) -> bool {
        let slots = self.slots.load();
        !slots.owners.contains(&NOBODY) && !slots.masters.iter().any(|master| master.link.is_open())
    }

    /// The link to a server.
    fn link(&self, place: Place) -> Result<Arc<Link>, OnlineError> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&place) {
            return Ok(Arc::clone(link));
        }
        let client = self.dialer.client(&place);
        let client = client.map_err(|error| OnlineError::Settings(error.to_string()))?;
        let link = Link::new(
            Target::Server(client),
            self.dialer.clone(),
            place.to_string(),
            &self.knobs,
        );
        links.insert(place, Arc::clone(&link));
        Ok(link)
    }

    /// Asks the servers which has which slots; the first answer counts. One that is behind sends
    /// calls elsewhere by MOVED, and is asked again.
    async fn look(&self) -> Result<(), OnlineError> {
        let slots = self.slots.load_full();
        let masters = slots.masters.iter();
        let mut asked: Vec<_> = masters.map(|master| Arc::clone(&master.link)).collect();
        for seed in &self.seeds {
            if !asked.iter().any(|link| Arc::ptr_eq(link, seed)) {
                asked.push(Arc::clone(seed));
            }
        }
        // Not always the same is to be the fastest.
        fastrand::shuffle(&mut asked);
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let command = &command;
        let asked = asked.into_iter().map(|link| {
            Box::pin(async move {
                match link.one(command).await? {
                    Value::ServerError(error) => Err(link.failed(&error.into())),
                    answer => match ranges(&answer, host_of(link.address())) {
                        Some(ranges) if !ranges.is_empty() => Ok(ranges),
                        Some(_) => Err(OnlineError::Unavailable {
                            store: link.address().to_owned(),
                            reason: "no slot of its cluster has a server".to_owned(),
                        }),
                        None => Err(link.garbled()),
                    },
                }
            })
        });
        let (ranges, _) = select_ok(asked).await?;
        self.take(ranges)
    }

    /// Goes by what was heard of the cluster.
    fn take(&self, ranges: Vec<Range>) -> Result<(), OnlineError> {
        let mut places: Vec<Place> = Vec::new();
        let mut slots = Slots {
            masters: Vec::new(),
            owners: vec![NOBODY; usize::from(SLOTS)],
        };
        for Range { first, last, owner } in ranges {
            let index = match places.iter().position(|place| *place == owner) {
                Some(index) => index,
                None => {
                    slots.masters.push(Master {
                        link: self.link(owner.clone())?,
                        slots: String::new(),
                    });
                    places.push(owner);
                    places.len() - 1
                }
            };
            if let Some(owners) = slots.owners.get_mut(usize::from(first)..=usize::from(last)) {
                owners.fill(index as u16);
            }
        }
        let former = self.slots.load();
        let same = |(one, other): (&Master, &Master)| Arc::ptr_eq(&one.link, &other.link);
        if slots.owners == former.owners
            && slots.masters.len() == former.masters.len()
            && slots.masters.iter().zip(&former.masters).all(same)
        {
            return Ok(());
        }
        for (index, master) in slots.masters.iter_mut().enumerate() {
            master.slots = digest(&slots.owners, index as u16);
        }
        self.slots.store(Arc::new(slots));
        // Servers that left; calls that are on their way to them keep them until they end.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|place, link| {
            places.contains(place) || self.seeds.iter().any(|seed| Arc::ptr_eq(seed, link))
        });
        Ok(())
    }
}

/// Tells which slots `master` has.
fn digest(owners: &[u16], master: u16) -> String {
    let mut slots = Sha256::new();
    for slot in (0..SLOTS).filter(|&slot| owners.get(usize::from(slot)) == Some(&master)) {
        slots.update(slot.to_be_bytes());
    }
    // A change is to be seen, and nobody contrives one that is not.
    let digest = slots.finalize();
    digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The right to look at a cluster. It may be lost with the runtime in which it was to be used;
/// then somebody else may claim it.
struct Looking(std::sync::Weak<Cluster>);

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.looking.store(false, Ordering::Release);
        }
    }
}

/// Slots that follow each other and have one server.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    owner: Place,
}

/// Reads an answer to CLUSTER SLOTS from a server on `host`; `None` if it is none.
fn ranges(answer: &Value, host: &str) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else {
        return None;
    };
    let mut read = Vec::with_capacity(ranges.len());
    for range in ranges {
        let Value::Array(parts) = range else {
            return None;
        };
        let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = parts.as_slice()
        else {
            return None;
        };
        let [name, Value::Int(port), ..] = owner.as_slice() else {
            return None;
        };
        let name = match name {
            Value::BulkString(name) => std::str::from_utf8(name).ok()?,
            Value::SimpleString(name) => name.as_str(),
            Value::Nil => "",
            _ => return None,
        };
        let name = match name {
            // The server's own name is not known to it: it is where the answer comes from.
            "" => host,
            // Nobody knows it yet.
            "?" => continue,
            name => name,
        };
        let slot = |number: i64| u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
        read.push(Range {
            first: slot(*first)?,
            last: slot(*last)?,
            owner: Place::Tcp {
                host: name.to_owned(),
                port: u16::try_from(*port).ok()?,
            },
        });
    }
    Some(read)
}

/// The host of `host:port` or `[host]:port`.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, name: Value, port: i64) -> Value {
        let node = |name, port| Value::Array(vec![name, Value::Int(port)]);
        let replica = node(Value::BulkString(b"replica".to_vec()), 9);
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            node(name, port),
            replica,
        ])
    }

    #[test]
    fn ranges_name_the_masters() {
        let text = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let answer = Value::Array(vec![
            range(0, 5, text("a"), 1),
            range(6, 9, Value::Nil, 2),
            range(10, 11, text("?"), 3),
            range(12, 16383, text(""), 4),
        ]);
        let read = ranges(&answer, "h").unwrap();
        let owners: Vec<_> = read.iter().map(|range| range.owner.to_string()).collect();
        assert_eq!(owners, ["a:1", "h:2", "h:4"]);
        assert_eq!((read[2].first, read[2].last), (12, 16383));
    }

    #[test]
    fn an_answer_of_another_form_is_none() {
        let text = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        for wrong in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(1), Value::Int(2)])]),
            Value::Array(vec![range(0, 16384, text("a"), 1)]),
            Value::Array(vec![range(-1, 5, text("a"), 1)]),
            Value::Array(vec![range(0, 5, text("a"), 65536)]),
        ] {
            assert_eq!(ranges(&wrong, "h"), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_digest_tells_which_slots_a_server_has() {
        let mut owners = vec![0; usize::from(SLOTS)];
        owners[7] = 1;
        let before = [0, 1].map(|master| digest(&owners, master));
        assert_ne!(before[0], before[1]);
        // It does not depend on the order in which the servers are named.
        let swapped: Vec<u16> = owners.iter().map(|owner| 1 - owner).collect();
        assert_eq!(digest(&swapped, 1), before[0]);
        owners[8] = 1;
        assert!([0, 1].map(|master| digest(&owners, master)) != before);
    }

    #[test]
    fn a_host_is_found_in_an_address() {
        for (address, host) in [
            ("h:1", "h"),
            ("[::1]:1", "::1"),
            ("10.0.0.1:6379", "10.0.0.1"),
        ] {
            assert_eq!(host_of(address), host);
        }
    }
}
