//! `unskew serve`: answers requests over HTTP.

use std::net::SocketAddr;

use anyhow::Context;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::Outcome;
use crate::arguments;
use crate::output::Output;
use crate::repository;

#[derive(Serialize)]
struct Serving<'a> {
    project: &'a str,
    url: String,
}

/// Serves until Ctrl-C or SIGTERM; requests that are under way are answered.
pub(crate) async fn run(arguments: &arguments::Serve, output: &Output) -> anyhow::Result<Outcome> {
    let store = repository::open()?;
    // What cannot be served is said before an address is.
    store.applied().await?;
    let address = SocketAddr::new(arguments.host, arguments.port);
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; `--port 0` takes any port that is free")
    })?;
    let stop = Stop::new()?;
    let serving = Serving {
        project: &store.settings().project,
        // The real port, where any was asked for.
        url: format!("http://{}", listener.local_addr()?),
    };
    output.print(&serving, |serving| {
        format!("serving project `{}` on {}\n", serving.project, serving.url)
    })?;
    unskew_server::serve(store, listener, stop.wait()).await?;
    Ok(Outcome::Done)
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

    async fn wait(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
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

    async fn wait(self) {
        // Where no signal can be heard, serving ends with the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
