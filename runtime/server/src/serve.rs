//! From a listener to a server that ends in good order.

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use unskew_store::{FeatureStore, StoreError};

use crate::routes::router;
use crate::settings::Settings;
use crate::state::State;

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// What it is to serve cannot be loaded.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// The network.
    #[error("the server cannot go on listening: {0}")]
    Listen(#[from] std::io::Error),
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Serves what is applied in `store` on `listener`, until `shutdown` ends.
///
/// What is applied is loaded once, at the start. After `shutdown` no connection is accepted any
/// more, and requests that have begun are answered, if they end within [`Settings::grace`].
///
/// # Errors
/// As [`State::load`], or the network fails.
pub async fn serve(
    store: FeatureStore,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let state = State::load(&store, Settings::default()).await?;
    serve_state(state, listener, shutdown).await
}

pub(crate) async fn serve_state(
    state: State,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let grace = state.settings().grace;
    // An answer is one small write: waiting for more to send would only delay it. A socket that
    // cannot be set so works all the same.
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let (ending, ended) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        let _ = ending.send(());
    };
    let server = axum::serve(listener, router(state)).with_graceful_shutdown(shutdown);
    let overdue = async move {
        match ended.await {
            Ok(()) => tokio::time::sleep(grace).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = server => Ok(result?),
        () = overdue => Ok(()),
    }
}
