//! `unskew serve`: answers requests over HTTP.

use std::net::{IpAddr, SocketAddr};

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
    let listener = listen(&arguments.host, arguments.port).await?;
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
