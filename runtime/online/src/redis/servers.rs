//! Commands to whichever servers there are, and their answers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use redis::{Cmd, Pipeline, RedisError, ServerErrorKind, Value};

use super::address::{Address, Topology};
use super::backoff::Backoff;
use super::cluster::Cluster;
use super::dial::{Dialer, Target};
use super::link::Link;
use super::script::Script;
use crate::error::OnlineError;
use crate::store::StoreHealth;

/// How often a command is sent at most: it may be told to go elsewhere, asked to wait, or have to
/// bring its script along.
const ROUNDS: usize = 12;

/// The waits between two rounds, where something has to change on the servers' side.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// A command, whose keys all lie in one slot.
pub(super) struct Call<'a> {
    pub(super) slot: u16,
    pub(super) command: Cmd,
    /// The script that it runs, which a server may have forgotten.
    pub(super) script: Option<&'a Script>,
}

/// A server that holds keys of its own.
#[derive(Clone)]
pub(super) struct Master {
    pub(super) link: Arc<Link>,
    /// Tells which slots of a cluster it has; empty where there are none.
    pub(super) slots: String,
}

/// The servers.
pub(super) enum Servers {
    One(Arc<Link>),
    Cluster(Arc<Cluster>),
}

/// A call that has no answer yet.
struct Pending<'a> {
    /// Which of the answers is its.
    index: usize,
    slot: u16,
    command: Cmd,
    script: Option<&'a Script>,
    /// Where it was told to go.
    node: Option<Arc<Link>>,
    /// Whether that is for this once.
    asking: bool,
    /// Whether its script goes before it.
    load: bool,
}

/// What comes of the answer to a call.
enum Outcome {
    Answer(Value),
    /// It is to be sent again.
    Again,
    /// It is to be sent again after a while.
    Later,
}

impl Servers {
    /// The servers at `address`. Nothing is sent yet.
    pub(super) fn new(address: &Address) -> Result<Self, OnlineError> {
        let dialer = Dialer::new(address)?;
        let invalid = |error: RedisError| OnlineError::Settings(error.to_string());
        let target = match (&address.topology, address.places.as_slice()) {
            (Topology::Cluster, places) => {
                return Ok(Self::Cluster(Cluster::new(
                    dialer,
                    places,
                    address.knobs.clone(),
                )?));
            }
            (Topology::Sentinel { service }, places) => {
                let ask = dialer.for_sentinels(address);
                let sentinels = places.iter().map(|place| ask.client(place));
                Target::Master {
                    service: service.clone(),
                    sentinels: sentinels.collect::<Result<_, _>>().map_err(invalid)?,
                    ask,
                }
            }
            (Topology::Standalone, [place, ..]) => {
                Target::Server(dialer.client(place).map_err(invalid)?)
            }
            (Topology::Standalone, []) => {
                return Err(OnlineError::Settings("no server is named".to_owned()));
            }
        };
        let shown = address.shown();
        Ok(Self::One(Link::new(target, dialer, shown, &address.knobs)))
    }

    /// Whether commands go to servers by their slots.
    pub(super) const fn has_slots(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    pub(super) fn health(&self) -> StoreHealth {
        match self {
            Self::One(link) => link.health(),
            Self::Cluster(cluster) => cluster.health(),
        }
    }

    /// Every server that holds keys of its own now.
    pub(super) async fn masters(&self) -> Result<Vec<Master>, OnlineError> {
        match self {
            Self::One(link) => Ok(vec![Master {
                link: Arc::clone(link),
                slots: String::new(),
            }]),
            Self::Cluster(cluster) => cluster.masters().await,
        }
    }

    /// The answer to one call.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Value, OnlineError> {
        let mut answers = self.calls(vec![call]).await?;
        match answers.pop() {
            Some(Value::ServerError(error)) => Err(self.meaning(error)),
            Some(answer) => Ok(answer),
            None => Err(self.meaning_of_nothing()),
        }
    }

    /// The answers to calls, in their order; all that go to a server are sent to it at once, and
    /// all servers are asked at once. An answer is an error of the server only if it is TRYAGAIN:
    /// the keys of the call lie in two places just now, and each by itself would be found.
    pub(super) async fn calls(&self, calls: Vec<Call<'_>>) -> Result<Vec<Value>, OnlineError> {
        // The way of a request to one server, which is to cost little.
        if let (Self::One(link), [call]) = (self, calls.as_slice()) {
            match link.one(&call.command).await? {
                // It is sent again, and what was wrong is put right.
                Value::ServerError(_) => {}
                answer => return Ok(vec![answer]),
            }
        }
        let mut answers: Vec<Value> = Vec::new();
        answers.resize_with(calls.len(), || Value::Nil);
        let pending = calls.into_iter().enumerate();
        let mut pending: Vec<Pending<'_>> = pending
            .map(|(index, call)| Pending {
                index,
                slot: call.slot,
                command: call.command,
                script: call.script,
                node: None,
                asking: false,
                load: false,
            })
            .collect();
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut last = None;
        for _ in 0..ROUNDS {
            let groups = self.grouped(pending).await?;
            let sent = groups.into_iter().map(|(link, group)| send(link, group));
            pending = Vec::new();
            let mut wait = false;
            for (link, sent) in join_all(sent).await {
                let answered = match sent {
                    Ok(answered) => answered,
                    Err(error) => {
                        self.suspect();
                        return Err(error);
                    }
                };
                for (mut call, answer) in answered {
                    match self.outcome(&link, &mut call, answer, &mut last).await? {
                        Outcome::Answer(answer) => answers[call.index] = answer,
                        Outcome::Again => pending.push(call),
                        Outcome::Later => {
                            wait = true;
                            pending.push(call);
                        }
                    }
                }
            }
            if pending.is_empty() {
                return Ok(answers);
            }
            if wait {
                tokio::time::sleep(backoff.next()).await;
            }
        }
        Err(last.unwrap_or_else(|| self.meaning_of_nothing()))
    }

    /// The calls by where they go.
    async fn grouped<'a>(
        &self,
        calls: Vec<Pending<'a>>,
    ) -> Result<Vec<(Arc<Link>, Vec<Pending<'a>>)>, OnlineError> {
        let cluster = match self {
            Self::One(link) => return Ok(vec![(Arc::clone(link), calls)]),
            Self::Cluster(cluster) => cluster,
        };
        let slots = cluster.slots().await?;
        let mut groups: Vec<(Arc<Link>, Vec<Pending<'a>>)> = Vec::new();
        for call in calls {
            let link = match &call.node {
                Some(node) => node,
                None => cluster.owner(&slots, call.slot)?,
            };
            match groups.iter_mut().find(|(to, _)| Arc::ptr_eq(to, link)) {
                Some((_, group)) => group.push(call),
                None => groups.push((Arc::clone(link), vec![call])),
            }
        }
        Ok(groups)
    }

    /// What comes of an answer of `link`; what was wrong with it is left in `last`.
    async fn outcome(
        &self,
        link: &Arc<Link>,
        call: &mut Pending<'_>,
        answer: Value,
        last: &mut Option<OnlineError>,
    ) -> Result<Outcome, OnlineError> {
        let Value::ServerError(error) = answer else {
            return Ok(Outcome::Answer(answer));
        };
        let kind = error.kind();
        let error = RedisError::from(error);
        let cluster = match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => Some(cluster),
        };
        let failure = match (kind, cluster) {
            // They send it to each other until both have heard where a slot is.
            (Some(ServerErrorKind::Moved | ServerErrorKind::Ask), Some(_)) => {
                OnlineError::Unavailable {
                    store: link.address().to_owned(),
                    reason: error.to_string(),
                }
            }
            _ => link.failed(&error),
        };
        *last = Some(failure.clone());
        match (kind, cluster) {
            // Also one that was just loaded may be forgotten.
            (Some(ServerErrorKind::NoScript), _) => {
                call.load = true;
                Ok(Outcome::Again)
            }
            (Some(ServerErrorKind::Moved), Some(cluster)) => {
                // Sent on before: whoever did so knew more than this one, or less.
                let wait = call.node.is_some() && !call.asking;
                call.node = cluster.told(link, &error)?;
                call.asking = false;
                cluster.suspect();
                Ok(if wait { Outcome::Later } else { Outcome::Again })
            }
            (Some(ServerErrorKind::Ask), Some(cluster)) => {
                call.node = cluster.told(link, &error)?;
                call.asking = true;
                Ok(Outcome::Again)
            }
            (Some(ServerErrorKind::TryAgain), Some(_)) => match RedisError::try_into(error) {
                Ok(error) => Ok(Outcome::Answer(Value::ServerError(error))),
                Err(_) => Err(failure),
            },
            // Demoted: somebody else is the master, or about to be.
            (Some(ServerErrorKind::ReadOnly), Some(cluster)) => {
                call.node = None;
                cluster.suspect();
                Ok(Outcome::Later)
            }
            (Some(ServerErrorKind::ReadOnly), None) if link.may_move() => Ok(Outcome::Later),
            (Some(ServerErrorKind::ClusterDown), Some(cluster)) => {
                cluster.suspect();
                Err(failure)
            }
            _ => Err(failure),
        }
    }

    /// A server failed: somebody else may have its slots.
    fn suspect(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.suspect();
        }
    }

    /// What an error of a server means, whichever server it was.
    pub(super) fn meaning(&self, error: redis::ServerError) -> OnlineError {
        let error = RedisError::from(error);
        match self {
            Self::One(link) => link.failed(&error),
            Self::Cluster(cluster) => OnlineError::Unavailable {
                store: cluster.address().to_owned(),
                reason: error.to_string(),
            },
        }
    }

    /// What it means that answers are missing, or are none to what was asked.
    pub(super) fn meaning_of_nothing(&self) -> OnlineError {
        match self {
            Self::One(link) => link.garbled(),
            Self::Cluster(cluster) => OnlineError::Refused {
                store: cluster.address().to_owned(),
                reason: "its answer is not of the form that was asked for".to_owned(),
            },
        }
    }
}

type Answered<'a> = Vec<(Pending<'a>, Value)>;

/// Sends calls to a server, all at once, and gives them back with their answers.
async fn send(
    link: Arc<Link>,
    mut calls: Vec<Pending<'_>>,
) -> (Arc<Link>, Result<Answered<'_>, OnlineError>) {
    if let [call] = calls.as_mut_slice()
        && !call.asking
        && !call.load
    {
        let answer = link.one(&call.command).await;
        let answered = answer.map(|answer| calls.pop().map(|call| (call, answer)));
        return (link, answered.map(|one| one.into_iter().collect()));
    }
    let mut pipeline = Pipeline::with_capacity(calls.len());
    // Where in the pipeline each call's own command stands, and what loads its script.
    let mut places = Vec::with_capacity(calls.len());
    for call in &mut calls {
        let script = call.script.filter(|_| call.load);
        let load = script.map(|script| {
            pipeline.add_command(script.load());
            pipeline.len() - 1
        });
        if call.asking {
            pipeline.add_command(redis::cmd("ASKING"));
        }
        places.push((pipeline.len(), load));
        pipeline.add_command(call.command.take());
    }
    let answers = link.many(&pipeline).await;
    let mut commands = pipeline.cmd_iter().enumerate();
    let answered = answers.map(|mut answers| {
        let calls = calls.into_iter().zip(places);
        calls
            .map(|(mut call, (place, load))| {
                let mut take = |at: usize| std::mem::replace(&mut answers[at], Value::Nil);
                let mut answer = take(place);
                // Why there is no script.
                if is_no_script(&answer)
                    && let Some(refused @ Value::ServerError(_)) = load.map(take)
                {
                    answer = refused;
                }
                if matches!(answer, Value::ServerError(_))
                    && let Some((_, command)) = commands.find(|(at, _)| *at == place)
                {
                    call.command = command.clone();
                }
                (call, answer)
            })
            .collect()
    });
    drop(commands);
    (link, answered)
}

fn is_no_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}
