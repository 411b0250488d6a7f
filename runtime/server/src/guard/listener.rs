//! Accepts connections, so many at once, and serves each.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::guard::connection::{self, End, Version};
use crate::guard::{Counts, Gate, Workers};

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/1.1 and, where TLS lets both sides agree on it, HTTP/2.
    Http,
    /// HTTP/2 alone, with TLS and without.
    Grpc,
}

/// How long to wait when the system has no more connections to give.
const BREATH: Duration = Duration::from_millis(200);

/// Serves `router` on `listener` until `closing` turns true. Then no connection is accepted any
/// more, and those that are there end as soon as their requests are answered; what is dropped ends
/// at once.
///
/// There are never more than [`Settings::connections`](crate::Settings::connections), at all ports
/// together: others wait, without a handshake or an answer, until one ends.
pub(crate) async fn serve(
    gate: Arc<Gate>,
    workers: Arc<Workers>,
    listener: TcpListener,
    router: Router,
    wire: Wire,
    mut closing: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let closed = closing.clone();
    let accept = async {
        loop {
            let stream = accept(&listener).await;
            // Taken after a connection is there: who listens at one port and hears nothing keeps no
            // place from another port.
            let Ok(place) = Arc::clone(&gate.connections).acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            // Its new thread is to hear of what arrives.
            let stream = match stream.into_std() {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection broke off");
                    continue;
                }
            };
            let one = serve_one(
                Arc::clone(&gate),
                stream,
                router.clone(),
                wire,
                closed.clone(),
                place,
            );
            connections.spawn_on(one, workers.next());
        }
    };
    tokio::select! {
        () = accept => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // An answer is one small write: waiting for more to send would only delay it. A
                // socket that cannot be set so works all the same.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => match error.kind() {
                // The client is gone already.
                ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionRefused => {}
                // Mostly the system's limit of open files: it passes when connections end.
                _ => {
                    tracing::error!(%error, "no connection can be accepted");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
}

async fn serve_one(
    gate: Arc<Gate>,
    stream: std::net::TcpStream,
    router: Router,
    wire: Wire,
    closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let _open = Open::begin(&gate);
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::error!(%error, "a connection cannot be served");
            return;
        }
    };
    let settings = &gate.settings;
    let end = match gate.tls() {
        None => {
            let version = match wire {
                Wire::Http => Version::One,
                Wire::Grpc => Version::Two,
            };
            connection::serve(stream, version, router, settings, closing).await
        }
        Some(config) => {
            let handshake = TlsAcceptor::from(config).accept(stream);
            let stream = match tokio::time::timeout(settings.header_timeout, handshake).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    Counts::add(&gate.counts.handshakes);
                    tracing::debug!(%error, "a TLS handshake failed");
                    return;
                }
                Err(_) => {
                    Counts::add(&gate.counts.slow);
                    return;
                }
            };
            let version = match (stream.get_ref().1.alpn_protocol(), wire) {
                (Some(b"h2"), _) | (None, Wire::Grpc) => Version::Two,
                _ => Version::One,
            };
            connection::serve(stream, version, router, settings, closing).await
        }
    };
    if end == End::Slow {
        Counts::add(&gate.counts.slow);
        tracing::debug!("a connection was closed, since its client was too slow");
    }
}

/// A connection that is counted as open.
struct Open<'a>(&'a Gate);

impl<'a> Open<'a> {
    fn begin(gate: &'a Gate) -> Self {
        Counts::add(&gate.counts.connections);
        Self(gate)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let open = &self.0.counts.connections;
        open.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
