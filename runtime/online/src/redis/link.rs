//! The connections to one server, and what becomes of a call when they fail.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::runtime::{self, Handle};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use super::address::Knobs;
use super::backoff::Backoff;
use super::breaker::Breaker;
use super::dial::{Dialer, Target};
use crate::error::OnlineError;
use crate::store::{Circuit, StoreHealth};

/// The first wait before a probe. A circuit may have opened for a moment's reason.
const FIRST_PROBE: Duration = Duration::from_millis(10);
/// The longest wait before a probe: service is to be back within a second after the server is.
const LONGEST_PROBE: Duration = Duration::from_millis(500);

/// Multiplexed connections to a server, made when they are first needed and again when they are
/// lost.
///
/// - A call whose connection is lost is made once more over a new one. A server that restarted
///   between two calls is not noticed.
/// - A call that is not answered in time fails. If its connection answered nobody meanwhile, the
///   connection is given up and the call counts as a failure of the server; else it was slow, and
///   the connection stays. An answer that comes late has nobody who waits for it: answers are in
///   the order of the calls, and the place of a call that was given up is kept.
/// - What a call finds out of the server does not depend on its caller's patience: if that goes away
///   first, somebody else waits in its place, and a connection that is being made is made.
/// - After some failures in a row the [`Breaker`] turns calls away, and a task probes the server.
pub(super) struct Link {
    target: Target,
    dialer: Dialer,
    address: String,
    /// One for each runtime that has asked: what a connection waits for is heard where it was made,
    /// and to wake another thread takes longer than to ask.
    pools: ArcSwap<Vec<Arc<Pool>>>,
    /// How many connections each has.
    connections: usize,
    breaker: Arc<Breaker>,
    reconnects: AtomicU64,
}

/// The connections of a runtime.
struct Pool {
    runtime: runtime::Id,
    /// Lost when the runtime has ended.
    alive: Weak<()>,
    /// Its end is that of the task that keeps `alive`.
    _end: oneshot::Sender<()>,
    slots: Box<[Arc<Slot>]>,
    turn: AtomicUsize,
}

/// The place of a connection.
#[derive(Default)]
struct Slot {
    live: ArcSwapOption<Live>,
    /// Held while the connection is made; others wait for what comes of it. How many attempts have
    /// ended is counted, so that they can tell.
    dialing: Arc<Mutex<()>>,
    attempts: AtomicU64,
    failure: ArcSwapOption<OnlineError>,
    /// How many connections there have been.
    made: AtomicU64,
}

struct Live {
    connection: MultiplexedConnection,
    answers: AtomicU64,
    /// Whether somebody waits in place of callers who went away.
    watched: AtomicBool,
}

/// A call that is waited for. If its caller goes away first, nobody would learn that it is never
/// answered; then the server is asked once more, by somebody who waits.
struct Waiting<'a> {
    link: &'a Arc<Link>,
    slot: &'a Arc<Slot>,
    live: &'a Arc<Live>,
    ended: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.ended || self.live.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (link, live) = (Arc::clone(self.link), Arc::clone(self.live));
        let slot = Arc::clone(self.slot);
        runtime.spawn(async move { link.watch(&slot, &live).await });
    }
}

/// What is sent.
#[derive(Clone, Copy)]
enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
}

impl Request<'_> {
    async fn send(self, mut connection: MultiplexedConnection) -> RedisResult<Vec<Value>> {
        match self {
            Self::One(command) => Ok(vec![connection.send_packed_command(command).await?]),
            Self::Many(pipeline) => {
                let count = pipeline.len();
                connection.send_packed_commands(pipeline, 0, count).await
            }
        }
    }
}

impl Link {
    /// A link to `target`, which is shown to a person as `address`. Nothing is sent yet.
    pub(super) fn new(target: Target, dialer: Dialer, address: String, knobs: &Knobs) -> Arc<Self> {
        Arc::new(Self {
            target,
            dialer,
            address,
            pools: ArcSwap::default(),
            connections: knobs.connections,
            breaker: Arc::new(Breaker::new(knobs.failures)),
            reconnects: AtomicU64::new(0),
        })
    }

    /// `host:port`, or the path of a socket.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn health(&self) -> StoreHealth {
        let pools = self.pools.load();
        let pools = pools.iter().filter(|pool| pool.is_alive());
        let slots = pools.flat_map(|pool| &pool.slots);
        let open = slots.filter(|slot| slot.live.load().is_some());
        StoreHealth {
            circuit: self.breaker.circuit(),
            connections: open.count() as u64,
            reconnects: self.reconnects.load(Ordering::Relaxed),
            failures: self.breaker.failures(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.breaker.circuit() != Circuit::Closed
    }

    /// The answer to one command, which may be an error of the server.
    pub(super) async fn one(self: &Arc<Self>, command: &Cmd) -> Result<Value, OnlineError> {
        let mut answers = self.run(Request::One(command)).await?;
        answers.pop().ok_or_else(|| self.garbled())
    }

    /// The answers to the commands of a pipeline, of which each may be an error of the server.
    pub(super) async fn many(
        self: &Arc<Self>,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, OnlineError> {
        let answers = self.run(Request::Many(pipeline)).await?;
        if answers.len() != pipeline.len() {
            return Err(self.garbled());
        }
        Ok(answers)
    }

    /// Whether the next call may find another server than the one that answered that it is the
    /// master no more: that connection is let go.
    pub(super) const fn may_move(&self) -> bool {
        self.target.may_move()
    }

    /// The answers to a request, which must bear being done twice.
    async fn run(self: &Arc<Self>, request: Request<'_>) -> Result<Vec<Value>, OnlineError> {
        let mut again = true;
        loop {
            self.admit()?;
            let slot = self.slot();
            let live = self.live(&slot).await?;
            let before = live.answers.load(Ordering::Relaxed);
            let mut waiting = Waiting {
                link: self,
                slot: &slot,
                live: &live,
                ended: false,
            };
            let sent = request.send(live.connection.clone()).await;
            waiting.ended = true;
            let error = match sent {
                Ok(answers) => {
                    live.answers.fetch_add(1, Ordering::Relaxed);
                    self.breaker.succeeded();
                    if self.may_move() && answers.iter().any(is_read_only) {
                        slot.discard(&live);
                    }
                    return Ok(answers);
                }
                Err(error) => error,
            };
            let failure = self.failed(&error);
            if !is_lost(&error) {
                return Err(failure);
            }
            let timeout = error.is_timeout();
            if timeout && live.answers.load(Ordering::Relaxed) != before {
                return Err(failure);
            }
            let last = slot.discard(&live);
            if timeout || !again {
                // It tells nothing of a server that was reached again meanwhile.
                if last {
                    self.count(failure.clone());
                }
                return Err(failure);
            }
            again = false;
        }
    }

    /// Finds out whether a connection is still answered.
    async fn watch(self: &Arc<Self>, slot: &Slot, live: &Arc<Live>) {
        let before = live.answers.load(Ordering::Relaxed);
        let ping = redis::cmd("PING");
        let answered = Request::One(&ping).send(live.connection.clone()).await;
        live.watched.store(false, Ordering::Release);
        match answered {
            Err(error) if is_lost(&error) => {
                let silent = live.answers.load(Ordering::Relaxed) == before;
                if (silent || !error.is_timeout()) && slot.discard(live) {
                    self.count(self.failed(&error));
                }
            }
            _ => {
                live.answers.fetch_add(1, Ordering::Relaxed);
                self.breaker.succeeded();
            }
        }
    }

    /// The place of the next connection of this runtime.
    fn slot(&self) -> Arc<Slot> {
        let runtime = Handle::current();
        let find = |pools: &[Arc<Pool>]| {
            let mut pools = pools.iter();
            pools
                .find(|pool| pool.runtime == runtime.id() && pool.is_alive())
                .map(|pool| pool.next())
        };
        if let Some(slot) = find(&self.pools.load()) {
            return slot;
        }
        let new = Arc::new(Pool::new(&runtime, self.connections));
        self.pools.rcu(|pools| {
            let mut pools = Vec::clone(pools);
            pools.retain(|pool| pool.is_alive());
            if find(&pools).is_none() {
                pools.push(Arc::clone(&new));
            }
            pools
        });
        find(&self.pools.load()).unwrap_or_else(|| new.next())
    }

    /// The connection, which is made if there is none. Those who wait while another makes it share
    /// what comes of it, so that a server that is down costs a request one timeout at most.
    async fn live(self: &Arc<Self>, place: &Arc<Slot>) -> Result<Arc<Live>, OnlineError> {
        if let Some(live) = place.live.load_full() {
            return Ok(live);
        }
        let attempts = place.attempts.load(Ordering::Acquire);
        let dialing = Arc::clone(&place.dialing).lock_owned().await;
        if let Some(live) = place.live.load_full() {
            return Ok(live);
        }
        self.admit()?;
        if place.attempts.load(Ordering::Acquire) != attempts
            && let Some(failure) = place.failure.load_full()
        {
            return Err((*failure).clone());
        }
        // A task of its own: it ends, and counts, also if the caller goes away.
        let (link, place) = (Arc::clone(self), Arc::clone(place));
        match tokio::spawn(async move { link.dial(&place, dialing).await }).await {
            Ok(dialed) => dialed,
            Err(_) => Err(OnlineError::Unavailable {
                store: self.address.clone(),
                reason: "the process is ending".to_owned(),
            }),
        }
    }

    async fn dial(
        self: &Arc<Self>,
        place: &Slot,
        _dialing: OwnedMutexGuard<()>,
    ) -> Result<Arc<Live>, OnlineError> {
        let dialed = self.target.dial(&self.dialer).await;
        place.attempts.fetch_add(1, Ordering::Release);
        match dialed {
            Ok(connection) => Ok(self.install(place, connection)),
            Err(error) => {
                let failure = self.failed(&error);
                place.failure.store(Some(Arc::new(failure.clone())));
                self.count(failure.clone());
                Err(failure)
            }
        }
    }

    fn install(&self, slot: &Slot, connection: MultiplexedConnection) -> Arc<Live> {
        let live = Arc::new(Live {
            connection,
            answers: AtomicU64::new(0),
            watched: AtomicBool::new(false),
        });
        slot.failure.store(None);
        slot.live.store(Some(Arc::clone(&live)));
        if slot.made.fetch_add(1, Ordering::Relaxed) > 0 {
            self.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        live
    }

    /// Turns a call away while the circuit is open.
    fn admit(self: &Arc<Self>) -> Result<(), OnlineError> {
        match self.breaker.turned_away() {
            None => Ok(()),
            Some(error) => {
                self.probe();
                Err(error)
            }
        }
    }

    fn count(self: &Arc<Self>, failure: OnlineError) {
        if self.breaker.failed(failure) {
            self.probe();
        }
    }

    /// Sees to it that somebody probes the server until it is there again, or nobody wants it any
    /// more.
    fn probe(self: &Arc<Self>) {
        let Some(probe) = self.breaker.probe() else {
            return;
        };
        let link = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut backoff = Backoff::new(FIRST_PROBE, LONGEST_PROBE);
            loop {
                let wait = backoff.next();
                probe.waits(wait);
                tokio::time::sleep(wait).await;
                let Some(link) = link.upgrade() else {
                    return;
                };
                probe.tries();
                match link.target.dial(&link.dialer).await {
                    Ok(connection) => {
                        // Others may have gone silent with the server and not have been noticed.
                        for slot in link.pools.load().iter().flat_map(|pool| &pool.slots) {
                            slot.live.store(None);
                        }
                        link.install(&link.slot(), connection);
                        return probe.succeeded();
                    }
                    Err(error) => probe.failed(link.failed(&error)),
                }
            }
        });
    }

    /// What an error of the client or of the server means to who called.
    pub(super) fn failed(&self, error: &RedisError) -> OnlineError {
        let store = self.address.clone();
        let reason = error.to_string();
        // Redis has no kind of its own for "OOM command not allowed when used memory > maxmemory".
        if error.code() == Some("OOM") || reason.contains("OOM command not allowed") {
            return OnlineError::Full { store, reason };
        }
        match error.kind() {
            ErrorKind::Io => {
                let reason = if error.is_timeout() {
                    "it did not answer in time".to_owned()
                } else {
                    reason
                };
                OnlineError::Unavailable { store, reason }
            }
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ReadOnly,
            ) => OnlineError::Unavailable { store, reason },
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
                OnlineError::Refused {
                    store,
                    reason: format!("{reason}; it is one of a cluster: name it redis+cluster://"),
                }
            }
            _ => match error.code() {
                // A server that waits too long for a script, or for its master, or its replicas.
                Some("BUSY" | "MASTERDOWN" | "NOREPLICAS") => {
                    OnlineError::Unavailable { store, reason }
                }
                _ => OnlineError::Refused { store, reason },
            },
        }
    }

    /// An answer that cannot be one to what was asked.
    pub(super) fn garbled(&self) -> OnlineError {
        OnlineError::Refused {
            store: self.address.clone(),
            reason: "its answer is not of the form that was asked for".to_owned(),
        }
    }
}

impl Pool {
    fn new(runtime: &Handle, connections: usize) -> Self {
        let kept = Arc::new(());
        let alive = Arc::downgrade(&kept);
        let (end, ended) = oneshot::channel();
        runtime.spawn(async move {
            let _kept = kept;
            // Either way the pool is of no more use.
            let _ = ended.await;
        });
        Self {
            runtime: runtime.id(),
            alive,
            _end: end,
            slots: (0..connections).map(|_| Arc::default()).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    fn is_alive(&self) -> bool {
        self.alive.strong_count() > 0
    }

    /// The place of the next connection.
    fn next(&self) -> Arc<Slot> {
        let place = match self.slots.len() {
            1 => 0,
            places => self.turn.fetch_add(1, Ordering::Relaxed) % places,
        };
        Arc::clone(&self.slots[place])
    }
}

impl Slot {
    /// Lets go of a connection, unless another has replaced it: then `false`.
    fn discard(&self, live: &Arc<Live>) -> bool {
        let found = self.live.compare_and_swap(live, None);
        found.as_ref().is_none_or(|found| Arc::ptr_eq(found, live))
    }
}

/// Whether the connection is of no more use, or the call was not answered in time.
fn is_lost(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error()
}

/// Whether a server says that it is not the master.
fn is_read_only(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ReadOnly))
}
