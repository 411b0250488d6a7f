//! From a listener to a server that ends in good order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use futures::future::OptionFuture;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use unskew_store::{FeatureStore, StoreError};

use crate::grpc::{self, DeadlineLayer};
use crate::guard::{self, AdmitLayer, Gate, GuardError, Wire, Workers};
use crate::http::router;
use crate::reload::{Reloader, keep_reloading};
use crate::served::Served;
use crate::settings::Settings;
use crate::state::State;
use crate::watch::ObserveLayer;

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// What it is to serve cannot be loaded.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// The network.
    #[error("the server cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// What guards it.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// What is served cannot be logged.
    #[error("the log of features cannot be written into `{}`: {reason}", dir.display())]
    FeatureLog {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// Nothing guards it.
    #[error(
        "{address} can be reached from other machines, and nobody is asked for a token; give \
         `--tokens FILE` (`unskew token new` makes one), or `--insecure-no-auth` where something \
         else keeps others out, or listen on 127.0.0.1"
    )]
    Unguarded {
        /// Where it listens.
        address: SocketAddr,
    },
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// What a running server is told from outside.
pub struct Signals {
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    reload: Arc<Notify>,
}

impl Signals {
    /// The server ends when `shutdown` does.
    pub fn new(shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            shutdown: Box::pin(shutdown),
            reload: Arc::default(),
        }
    }

    /// Makes the server look for a new state of the registry at once when it is notified.
    #[must_use]
    pub fn reload_on(mut self, reload: Arc<Notify>) -> Self {
        self.reload = reload;
        self
    }
}

/// Where a server listens.
pub struct Listeners {
    /// HTTP.
    pub http: TcpListener,
    /// gRPC, if it is served.
    pub grpc: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(http: TcpListener) -> Self {
        Self { http, grpc: None }
    }
}

impl Listeners {
    fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        let listeners = [Some(&self.http), self.grpc.as_ref()];
        let addresses = listeners.into_iter().flatten().map(TcpListener::local_addr);
        addresses.collect()
    }
}

/// A server that can begin: what guards it is read and found good.
pub struct Server {
    gate: Arc<Gate>,
    settings: Settings,
    listeners: Listeners,
}

impl Server {
    /// A server of `project` at `listeners`.
    ///
    /// # Errors
    /// Other machines could ask without a token and nobody said that they may; or the tokens, the
    /// certificates, the origins or the folder of the log of features cannot be used.
    pub fn new(
        project: &str,
        settings: Settings,
        listeners: impl Into<Listeners>,
    ) -> Result<Self, ServeError> {
        let listeners = listeners.into();
        let gate = Arc::new(Gate::open(&settings, project)?);
        if !gate.asks_for_tokens() && !settings.insecure_no_auth {
            for address in listeners.addresses()? {
                if !address.ip().is_loopback() {
                    return Err(ServeError::Unguarded { address });
                }
            }
        }
        if let Some(log) = &settings.feature_log {
            log.check().map_err(|reason| ServeError::FeatureLog {
                dir: log.dir.clone(),
                reason,
            })?;
        }
        Ok(Self {
            gate,
            settings,
            listeners,
        })
    }

    /// Serves what is applied in `store`, until the server is told to end.
    ///
    /// A newer state of the registry takes the place of the one that is served within
    /// [`Settings::poll`], or as soon as `signals` say so; so do new tokens and certificates. Told
    /// to end, the server says at once that it is not ready; after [`Settings::drain`] it accepts no
    /// connection any more, and requests that have begun are answered, if they end within
    /// [`Settings::grace`].
    ///
    /// # Errors
    /// Nothing is applied yet, the registry or a component cannot be read, or the settings of the
    /// online store are not valid; a store that is down is no error.
    pub async fn serve(self, store: FeatureStore, signals: Signals) -> Result<(), ServeError> {
        let served = Served::load(&store).await?;
        let reloader = Some(Reloader::new(store));
        let state = State::new(self.gate, self.settings, served, reloader);
        serve_state(state, self.listeners, signals).await
    }
}

pub(crate) async fn serve_state(
    state: State,
    listeners: impl Into<Listeners>,
    signals: Signals,
) -> Result<(), ServeError> {
    let Listeners { http, grpc } = listeners.into();
    let (gate, settings) = (Arc::clone(state.gate()), state.settings());
    let (drain, grace) = (settings.drain, settings.grace);
    let (closing, closed) = watch::channel(false);

    let reload = Arc::new(Notify::new());
    let fresh = guard::keep_fresh(Arc::clone(&gate), signals.reload, Arc::clone(&reload));
    let reloading = keep_reloading(state.clone(), reload);
    let workers = Arc::new(Workers::start()?);
    let port = |listener, router, wire| {
        let (gate, workers) = (Arc::clone(&gate), Arc::clone(&workers));
        guard::serve(gate, workers, listener, router, wire, closed.clone())
    };
    let http = port(http, router(state.clone()), Wire::Http);
    let grpc = grpc.map(|listener| {
        let layers = (
            ObserveLayer::new(state.clone()),
            AdmitLayer::new(Arc::clone(&gate)),
            DeadlineLayer::new(settings),
        );
        port(
            listener,
            grpc::router(state.clone()).layer(layers),
            Wire::Grpc,
        )
    });
    let ports = futures::future::join(http, OptionFuture::from(grpc));
    let told = async {
        signals.shutdown.await;
        gate.close();
        tokio::time::sleep(drain).await;
        // Somebody listens still, or there is nothing to end.
        let _ = closing.send(true);
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        _ = ports => {}
        () = told => tracing::warn!("requests were cut off, since they did not end in time"),
        () = reloading => {}
        () = fresh => {}
    }
    state.watch().close().await;
    Ok(())
}
