//! `unskew serve`: answers requests over HTTP.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use unskew_server::{Listeners, Server, Settings, Signals};

use crate::Outcome;
use crate::arguments;
use crate::interrupt::Interrupted;
use crate::logging::Logging;
use crate::output::Output;
use crate::repository;

#[derive(Serialize)]
struct Serving<'a> {
    project: &'a str,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
}

/// Serves until Ctrl-C or SIGTERM; requests that are under way are answered, unless a second signal
/// ends them.
pub(crate) async fn run(arguments: &arguments::Serve, output: &Output) -> anyhow::Result<Outcome> {
    let logging = Logging::start(&arguments.watching)?;
    let store = repository::open_with(arguments.limits.engine())?;
    // What cannot be served is said before an address is.
    store.applied().await?;
    let mut settings = Settings::default();
    arguments.access.set(&mut settings);
    arguments.limits.set(&mut settings);
    arguments.watching.set(&mut settings);
    make_room(&mut settings);
    let http = listen(&arguments.host, arguments.port).await?;
    let grpc = match arguments.grpc_port {
        Some(port) => Some(listen(&arguments.host, port).await?),
        None => None,
    };
    let scheme = arguments.access.scheme();
    // The real port, where any was asked for.
    let url = |listener: &TcpListener| -> std::io::Result<String> {
        Ok(format!("{scheme}://{}", listener.local_addr()?))
    };
    let project = store.settings().project.clone();
    let serving = Serving {
        project: &project,
        url: url(&http)?,
        grpc: grpc.as_ref().map(url).transpose()?,
    };
    let server = Server::new(&project, settings, Listeners { http, grpc })?;
    let (mut stop, hangup) = (Stop::new()?, hangup()?);
    output.print(&serving, |serving| {
        let grpc = serving.grpc.as_ref();
        let grpc = grpc.map_or_else(String::new, |url| format!("serving gRPC on {url}\n"));
        format!(
            "serving project `{}` on {}\n{grpc}",
            serving.project, serving.url
        )
    })?;
    let (tell, told) = oneshot::channel();
    let signals = Signals::new(async {
        let _ = told.await;
    });
    let served = server.serve(store, signals.reload_on(hangup));
    let insisted = async {
        stop.next().await;
        let _ = tell.send(());
        stop.next().await
    };
    let done = tokio::select! {
        done = served => done.map_err(anyhow::Error::from),
        // Whoever asks twice does not want to wait.
        interrupted = insisted => Err(interrupted.into()),
    };
    logging.end().await;
    done.map(|()| Outcome::Done)
}

/// Files that the server opens beside connections: those of the stores, of the registry and of the
/// log of features.
#[cfg(unix)]
const OTHER_FILES: u64 = 256;

/// Lets the process open as many files as its connections need, as far as the system allows;
/// otherwise it has fewer connections. Where they took all files, neither the online store nor the
/// registry could be reached.
#[cfg(unix)]
fn make_room(settings: &mut Settings) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = settings.connections as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(mut have) = current.filter(|&have| have < wanted) else {
        return;
    };
    let more = maximum.map_or(wanted, |most| most.min(wanted));
    let limit = Rlimit {
        current: Some(more),
        maximum,
    };
    if setrlimit(Resource::Nofile, limit).is_ok() {
        have = more;
    }
    if have < wanted {
        let left = usize::try_from(have.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
        settings.connections = left.max(1);
        tracing::warn!(
            open_files = have,
            connections = settings.connections,
            "there may be fewer connections than asked for: the system lets the process open so \
             many files (`ulimit -n`)"
        );
    }
}

#[cfg(not(unix))]
fn make_room(_: &mut Settings) {}

/// Listens on the first address of `host` on which this can be done.
async fn listen(host: &str, port: u16) -> anyhow::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .with_context(|| {
                format!("`{host}` is no address and no name of a host; `--host 127.0.0.1` is valid")
            })?
            .collect(),
    };
    let listener = TcpListener::bind(addresses.as_slice()).await;
    listener.with_context(|| {
        let place = match addresses.as_slice() {
            [address] => address.to_string(),
            _ => format!("{host}:{port}"),
        };
        format!("cannot listen on {place}; `--port 0` takes any port that is free")
    })
}

/// Notified for each SIGHUP from now on: the signal by which servers are told to look for what is
/// new.
#[cfg(unix)]
fn hangup() -> anyhow::Result<Arc<Notify>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let notify = Arc::new(Notify::new());
    let notified = Arc::clone(&notify);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            notified.notify_one();
        }
    });
    Ok(notify)
}

#[cfg(not(unix))]
fn hangup() -> anyhow::Result<Arc<Notify>> {
    Ok(Arc::default())
}

/// The signals that end a server.
#[cfg(unix)]
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stop {
    /// Listens for them from now on, so that none is missed between the address being printed and
    /// the first request.
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next of them.
    async fn next(&mut self) -> Interrupted {
        tokio::select! {
            _ = self.interrupt.recv() => Interrupted::Interrupt,
            _ = self.terminate.recv() => Interrupted::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Stop;

#[cfg(not(unix))]
impl Stop {
    fn new() -> anyhow::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Interrupted {
        // Where no signal can be heard, serving ends with the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Interrupted::Interrupt
    }
}
