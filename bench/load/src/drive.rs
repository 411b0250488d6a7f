//! The load generator.
//!
//! An open loop has a time at which each request is due, evenly spaced, whatever the server does. A
//! free connection takes the next request and sends it when it is due; if none is free, requests
//! wait, and their latency counts from when they were due. So a server that stalls is charged with
//! all requests that the stall delays, not only with those that it held (coordinated omission). A
//! closed loop sends a request on each connection as soon as the one before is answered, which
//! measures how much the server can do.
//!
//! One thread with epoll drives all connections, since it shares the cores with what it measures.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rustix::event::{Timespec, epoll};

use crate::connection::Connection;
use crate::outcome::{Outcome, Times};
use crate::timeline::Timeline;
use crate::workload::{Dialect, Workload};

/// How many failed attempts to connect, one after the other, end the run.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
const EVENTS: usize = 128;

/// What to send, and how.
#[derive(Args)]
pub struct Drive {
    /// Where the server listens
    #[arg(long)]
    address: SocketAddr,
    /// How it is spoken to
    #[arg(long)]
    dialect: Dialect,
    /// The feature service
    #[arg(long)]
    service: String,
    /// The features that an answer has to have
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// Send a request field with each entity
    #[arg(long)]
    amounts: bool,
    /// Entities in a request
    #[arg(long, default_value_t = 1)]
    rows: usize,
    /// How many entities there are; each request has random ones
    #[arg(long)]
    entities: u64,
    /// Connections
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests per second, evenly spaced; without it each connection sends as fast as it can
    #[arg(long)]
    rate: Option<f64>,
    /// How long
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many requests; instead of how long
    #[arg(long)]
    requests: Option<u64>,
    /// Seconds before what is measured, with the same load
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// Check the first answer of each connection, and then every so many
    #[arg(long, default_value_t = 101)]
    check_every: u64,
    /// Seconds after which a request is given up
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
    /// Count right answers, errors and wrong answers for each so many milliseconds
    #[arg(long)]
    timeline_ms: Option<u64>,
    /// Of the random entities
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Drives the server, and prints what was measured.
///
/// # Errors
/// The server cannot be reached, or it answers what is no HTTP.
pub fn run(arguments: &Drive) -> anyhow::Result<()> {
    ensure!(
        arguments.rows as u64 <= arguments.entities && arguments.connections > 0,
        "more rows than entities, or no connection"
    );
    // A sleep ends up to 50 µs late by default, which would be the server's.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let outcome = Driver::new(arguments)?.drive()?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// A connection, and the request that is on its way in it.
struct Slot {
    connection: Connection,
    entities: Vec<u64>,
    due: Instant,
    sent: Instant,
    /// Since when it has had nothing to do.
    free: Instant,
    waiting: bool,
    measured: bool,
    answers: u64,
}

struct Driver<'a> {
    arguments: &'a Drive,
    workload: Workload,
    epoll: rustix::fd::OwnedFd,
    slots: Vec<Slot>,
    free: VecDeque<usize>,
    random: fastrand::Rng,
    latency: Times,
    late: Times,
    error_latency: Times,
    errors: BTreeMap<String, u64>,
    right: u64,
    checked: u64,
    wrong: u64,
    first_wrong: Option<String>,
    body_bytes: usize,
    timeline: Option<Timeline>,
    body: Vec<u8>,
    out: Vec<u8>,
}

impl<'a> Driver<'a> {
    fn new(arguments: &'a Drive) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let now = Instant::now();
        let slots = (0..arguments.connections).map(|_| {
            Ok(Slot {
                connection: Connection::open(arguments.address)?,
                entities: Vec::with_capacity(arguments.rows),
                due: now,
                sent: now,
                free: now,
                waiting: false,
                measured: false,
                answers: 0,
            })
        });
        let slots = slots
            .collect::<std::io::Result<Vec<Slot>>>()
            .with_context(|| format!("no server at {}", arguments.address))?;
        for (index, slot) in slots.iter().enumerate() {
            watch(&epoll, slot.connection.stream(), index)?;
        }
        Ok(Self {
            arguments,
            workload: Workload {
                dialect: arguments.dialect,
                service: arguments.service.clone(),
                features: arguments.features.clone(),
                amounts: arguments.amounts,
                host: arguments.address.to_string(),
            },
            epoll,
            free: (0..slots.len()).collect(),
            slots,
            random: fastrand::Rng::with_seed(arguments.seed),
            latency: Times::new()?,
            late: Times::new()?,
            error_latency: Times::new()?,
            errors: BTreeMap::new(),
            right: 0,
            checked: 0,
            wrong: 0,
            first_wrong: None,
            body_bytes: 0,
            timeline: arguments
                .timeline_ms
                .map(|milliseconds| Timeline::new(milliseconds * 1_000_000)),
            body: Vec::new(),
            out: Vec::new(),
        })
    }

    fn drive(mut self) -> anyhow::Result<Outcome> {
        let interval = self.arguments.rate.map(|rate| 1.0 / rate);
        let start = Instant::now();
        let begin = start + Duration::from_secs_f64(self.arguments.warm_up);
        let end = match self.arguments.requests {
            Some(_) => None,
            None => Some(begin + Duration::from_secs_f64(self.arguments.seconds)),
        };
        let timeout = Duration::from_secs_f64(self.arguments.timeout);
        let (mut number, mut measured) = (0_u64, 0_u64);
        let mut events = Vec::with_capacity(EVENTS);
        let mut swept = start;
        loop {
            let mut now = Instant::now();
            let mut next = None;
            // What is due goes to the connections that are free.
            while let Some(&slot) = self.free.front() {
                let due = match interval {
                    // From the start each time, so that rounding does not add up.
                    Some(interval) => start + Duration::from_secs_f64(interval * number as f64),
                    None => now,
                };
                if end.is_some_and(|end| due >= end) || self.arguments.requests == Some(measured) {
                    break;
                }
                if due > now {
                    next = Some(due);
                    break;
                }
                self.free.pop_front();
                number += 1;
                measured += u64::from(due >= begin);
                self.send(slot, due, due >= begin)?;
                now = Instant::now();
            }
            if self.free.len() == self.slots.len() && next.is_none() {
                break;
            }
            let wait = next.map_or(PAUSE, |due| due.saturating_duration_since(Instant::now()));
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(wait.min(PAUSE).subsec_nanos()),
            };
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&wait),
            )?;
            for event in events.drain(..) {
                let index = usize::try_from(event.data.u64())?;
                self.readable(index)?;
            }
            if now.duration_since(swept) > PAUSE {
                swept = now;
                self.give_up(now, timeout)?;
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        Ok(Outcome {
            right: self.right,
            seconds,
            per_second: self.right as f64 / seconds,
            latency: self.latency.quantiles(),
            points: self.latency.points(),
            late: self.late.quantiles(),
            error_latency: self.error_latency.quantiles(),
            errors: self.errors,
            checked: self.checked,
            wrong: self.wrong,
            first_wrong: self.first_wrong,
            body_bytes: self.body_bytes,
            timeline: self.timeline,
        })
    }

    fn send(&mut self, index: usize, due: Instant, measured: bool) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        slot.entities.clear();
        // Each entity once: one that is there twice need be fetched once only.
        while slot.entities.len() < self.arguments.rows {
            let entity = self.random.u64(..self.arguments.entities);
            if !slot.entities.contains(&entity) {
                slot.entities.push(entity);
            }
        }
        self.workload
            .write(&slot.entities, &mut self.body, &mut self.out);
        (slot.due, slot.sent) = (due, Instant::now());
        (slot.waiting, slot.measured) = (true, measured);
        if measured {
            let could = due.max(slot.free);
            self.late.record(slot.sent.saturating_duration_since(could));
        }
        if let Err(error) = slot.connection.send(&self.out) {
            self.failed(index, &format!("while sending: {error}"))?;
        }
        Ok(())
    }

    fn readable(&mut self, index: usize) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        let complete = match slot.connection.read() {
            Ok(complete) => complete,
            // One that is not in use may be closed, and is opened again.
            Err(_) if !slot.waiting => return self.reopen(index),
            Err(error) => return self.failed(index, &error.to_string()),
        };
        if !complete {
            return Ok(());
        }
        let now = Instant::now();
        let Some(answer) = slot.connection.answer() else {
            bail!("an answer that is complete and none");
        };
        (slot.waiting, slot.free) = (false, now);
        slot.answers += 1;
        let closes = answer.closes;
        let latency = now.duration_since(slot.due);
        let mut error = None;
        let mut wrong = None;
        if answer.status != 200 {
            error = Some(format!("status {}", answer.status));
        } else {
            if (slot.answers - 1).is_multiple_of(self.arguments.check_every) {
                self.checked += 1;
                wrong = self.workload.check(&slot.entities, answer.body).err();
            }
            self.body_bytes = answer.body.len();
        }
        if let Some(timeline) = &mut self.timeline {
            let bin = timeline.now();
            match (&error, &wrong) {
                (Some(_), _) => bin.errors += 1,
                (None, Some(_)) => bin.wrong += 1,
                (None, None) => bin.right += 1,
            }
        }
        match (error, wrong) {
            (Some(error), _) => {
                if slot.measured {
                    *self.errors.entry(error).or_default() += 1;
                    self.error_latency.record(latency);
                }
            }
            // A wrong answer counts wherever it is.
            (None, Some(wrong)) => {
                self.wrong += 1;
                self.first_wrong.get_or_insert(wrong);
            }
            (None, None) if slot.measured => {
                self.right += 1;
                self.latency.record(latency);
            }
            (None, None) => {}
        }
        if closes {
            self.reopen(index)?;
        }
        self.free.push_back(index);
        Ok(())
    }

    /// The request of a connection was not answered.
    fn failed(&mut self, index: usize, why: &str) -> anyhow::Result<()> {
        let slot = &mut self.slots[index];
        (slot.waiting, slot.free) = (false, Instant::now());
        *self.errors.entry(why.to_owned()).or_default() += 1;
        self.error_latency.record(slot.due.elapsed());
        if let Some(timeline) = &mut self.timeline {
            timeline.now().errors += 1;
        }
        self.reopen(index)?;
        self.free.push_back(index);
        Ok(())
    }

    /// Replaces a connection; the old one leaves epoll when it is closed.
    fn reopen(&mut self, index: usize) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            if let Ok(connection) = Connection::open(self.arguments.address) {
                watch(&self.epoll, connection.stream(), index)?;
                self.slots[index].connection = connection;
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        bail!("the server at {} is gone", self.arguments.address)
    }

    fn give_up(&mut self, now: Instant, timeout: Duration) -> anyhow::Result<()> {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.waiting && now.saturating_duration_since(slot.sent) > timeout {
                self.failed(index, "no answer in time")?;
            }
        }
        Ok(())
    }
}

fn watch(
    epoll: &rustix::fd::OwnedFd,
    stream: &std::net::TcpStream,
    index: usize,
) -> anyhow::Result<()> {
    let data = epoll::EventData::new_u64(index as u64);
    Ok(epoll::add(epoll, stream, data, epoll::EventFlags::IN)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A server of one connection, which answers `status` and leaves its first request waiting.
    fn server(status: &'static str, stall: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let mut stall = Some(stall);
            // A request arrives in one piece, since it was sent in one.
            while stream.read(&mut request).is_ok_and(|read| read > 0) {
                std::thread::sleep(stall.take().unwrap_or_default());
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        address
    }

    fn drive(address: SocketAddr, dialect: Dialect, rate: Option<f64>) -> Outcome {
        let arguments = Drive {
            address,
            dialect,
            service: "s".to_owned(),
            features: vec!["f0".to_owned()],
            amounts: false,
            rows: 1,
            entities: 10,
            connections: 1,
            rate,
            seconds: 0.0,
            requests: Some(100),
            warm_up: 0.0,
            check_every: 1,
            timeout: 30.0,
            timeline_ms: None,
            seed: 1,
        };
        Driver::new(&arguments).unwrap().drive().unwrap()
    }

    #[test]
    fn a_stall_is_charged_with_all_requests_that_were_due_meanwhile() {
        let stall = Duration::from_millis(600);
        // 60 of the 100 requests are due while the first one waits.
        let open = drive(server("200 OK", stall), Dialect::Bare, Some(100.0));
        assert_eq!((open.right, open.wrong), (100, 0));
        assert!(open.latency.p50 > 50_000.0, "{}", open.latency.p50);
        // What a closed loop sees of the same: one slow request.
        let closed = drive(server("200 OK", stall), Dialect::Bare, None);
        assert!(closed.latency.max >= 600_000.0);
        assert_eq!(closed.right, 100);
    }

    #[test]
    fn errors_and_wrong_answers_are_none_that_are_right() {
        let failing = drive(server("503 No", Duration::ZERO), Dialect::Bare, None);
        assert_eq!(failing.right, 0);
        assert_eq!(failing.errors["status 503"], 100);
        let wrong = drive(server("200 OK", Duration::ZERO), Dialect::Unskew, None);
        assert_eq!((wrong.right, wrong.wrong, wrong.checked), (0, 100, 100));
    }
}
