//! One connection: HTTP over it, and clients that are too slow.
//!
//! A client may take its time in four ways, each with its limit: for the head of a request
//! ([`Settings::header_timeout`]), for its body (`crate::body`), for reading the answer
//! ([`Settings::timeout`]) and between two requests ([`Settings::idle_timeout`]).
//!
//! No timer is set for a request. What happens on the connection is noted, and looked at now and
//! then: a limit may be exceeded by a quarter, and a request costs nothing.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use futures::future::FutureExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tower::Service;

use crate::settings::Settings;

/// The version of HTTP that is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// In good order, or the client broke it off.
    Closed,
    /// The client was too slow.
    Slow,
}

/// Serves `router` on a connection until it ends. When `closing` turns true, requests that have
/// begun are answered and no other is.
pub(super) async fn serve<S>(
    stream: S,
    version: Version,
    router: Router,
    settings: &Settings,
    closing: watch::Receiver<bool>,
) -> End
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let activity = Arc::new(Activity::new());
    let stream = TokioIo::new(Noted {
        stream,
        activity: Arc::clone(&activity),
    });
    let service = Answering {
        router,
        activity: Arc::clone(&activity),
    };
    match version {
        Version::One => {
            let connection = http_1(settings).serve_connection(stream, service);
            let shutdown = |connection: Pin<&mut _>| {
                http1::Connection::graceful_shutdown(connection);
            };
            drive(connection, shutdown, &activity, version, settings, closing).await
        }
        Version::Two => {
            let connection = http_2(settings).serve_connection(stream, service);
            let shutdown = |connection: Pin<&mut _>| {
                http2::Connection::graceful_shutdown(connection);
            };
            drive(connection, shutdown, &activity, version, settings, closing).await
        }
    }
}

fn http_1(settings: &Settings) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_header_size(settings.header_bytes)
        // A head is refused as soon as so much of it is here; hyper takes no less.
        .max_buf_size(settings.header_bytes.max(8 << 10));
    // Room for any other number is allocated for each request.
    if settings.headers != HEADERS_FOR_NOTHING {
        http.max_headers(settings.headers);
    }
    http
}

/// How many headers hyper has room for on its stack.
const HEADERS_FOR_NOTHING: usize = 100;
/// How many requests one connection of HTTP/2 may have at once.
const STREAMS: u32 = 256;

fn http_2(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX))
        // A client that is gone without a word is found out.
        .keep_alive_interval(Some(settings.idle_timeout))
        .keep_alive_timeout(settings.header_timeout);
    http
}

async fn drive<C, E>(
    connection: C,
    shutdown: impl Fn(Pin<&mut C>),
    activity: &Activity,
    version: Version,
    settings: &Settings,
    closing: watch::Receiver<bool>,
) -> End
where
    C: Future<Output = Result<(), E>>,
{
    let mut connection = pin!(connection);
    let limits = Limits::of(version, settings);
    let mut look = pin!(tokio::time::sleep(limits.look()));
    let mut told = pin!(is_told(closing));
    let mut ended = false;
    loop {
        tokio::select! {
            biased;
            // What the client did wrong, it knows; there is nobody else to tell.
            _ = connection.as_mut() => return End::Closed,
            () = look.as_mut() => {
                if activity.is_slow(&limits) {
                    return End::Slow;
                }
                look.as_mut().reset(tokio::time::Instant::now() + limits.look());
            }
            () = told.as_mut(), if !ended => {
                ended = true;
                shutdown(connection.as_mut());
            }
        }
    }
}

/// Ends when `closing` turns true.
///
/// To wait for a change takes a lock that all connections share, and whoever waits is polled at
/// each step of a request. So the lock is taken once, to leave the waker there, and again when there
/// was a change.
async fn is_told(closing: watch::Receiver<bool>) {
    let change = closing.clone();
    let mut closing = closing;
    let mut told = pin!(closing.wait_for(|closing| *closing));
    let mut left: Option<Waker> = None;
    poll_fn(|context| {
        let waits = left
            .as_ref()
            .is_some_and(|left| left.will_wake(context.waker()));
        if waits && matches!(change.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        left = Some(context.waker().clone());
        told.as_mut().poll(context).map(drop)
    })
    .await;
}

/// How long a client may take for what.
struct Limits {
    head: Duration,
    idle: Duration,
    write: Duration,
}

impl Limits {
    fn of(version: Version, settings: &Settings) -> Self {
        let head = match version {
            Version::One => settings.header_timeout,
            // Bytes that come between requests are no head of one: settings and pings. A head that
            // does not end is a pause.
            Version::Two => settings.idle_timeout,
        };
        Self {
            head,
            idle: settings.idle_timeout,
            write: settings.timeout,
        }
    }

    /// How often a connection is looked at.
    fn look(&self) -> Duration {
        let least = self.head.min(self.idle).min(self.write);
        (least / 4).max(Duration::from_millis(5))
    }
}

/// What happens on a connection. Instants are in microseconds since it began; 0: not now.
struct Activity {
    began: Instant,
    requests: AtomicUsize,
    /// Since when a head is arriving.
    head: AtomicU64,
    /// Since when nothing has been happening.
    idle: AtomicU64,
    /// Since when bytes wait for the client to take them.
    stuck: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            requests: AtomicUsize::new(0),
            // The first head has to come as soon as any other has to end.
            head: AtomicU64::new(1),
            idle: AtomicU64::new(1),
            stuck: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).map_or(u64::MAX, |now| now.max(1))
    }

    fn is_slow(&self, limits: &Limits) -> bool {
        let now = self.now();
        let beyond = |since: &AtomicU64, limit: Duration| match since.load(Ordering::Relaxed) {
            0 => false,
            since => u128::from(now.saturating_sub(since)) > limit.as_micros(),
        };
        if beyond(&self.stuck, limits.write) {
            return true;
        }
        self.requests.load(Ordering::Relaxed) == 0
            && (beyond(&self.head, limits.head) || beyond(&self.idle, limits.idle))
    }

    fn arrived(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(self.now(), Ordering::Relaxed);
        }
    }

    fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
    }

    fn end(&self) {
        self.idle.store(self.now(), Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    fn stuck(&self) {
        if self.stuck.load(Ordering::Relaxed) == 0 {
            self.stuck.store(self.now(), Ordering::Relaxed);
        }
    }

    /// All that was written is on its way: a client that takes a byte now and then is stuck still.
    fn flushed(&self) {
        self.stuck.store(0, Ordering::Relaxed);
    }
}

/// The paths, for one connection.
struct Answering {
    router: Router,
    activity: Arc<Activity>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Answering {
    type Response = hyper::Response<Held>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: hyper::Request<Incoming>) -> Answer {
        let ongoing = Ongoing::begin(&self.activity);
        // A router is always ready.
        let mut router = self.router.clone();
        let request: Request = request.map(Body::new);
        Answer {
            answer: router.call(request),
            ongoing: Some(ongoing),
        }
    }
}

/// An answer that is on its way.
struct Answer {
    answer: <Router as Service<Request>>::Future,
    ongoing: Option<Ongoing>,
}

impl Future for Answer {
    type Output = Result<hyper::Response<Held>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.answer.poll_unpin(context))?;
        let ongoing = self.ongoing.take();
        let ongoing = ongoing.filter(|_| answer.extensions().get::<Endless>().is_some());
        Poll::Ready(Ok(answer.map(|body| Held {
            body,
            _ongoing: ongoing,
        })))
    }
}

/// Marks, among its extensions, an answer that goes on for as long as its client listens: a
/// connection is not without requests while there is one on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endless;

/// The body of an answer, and its request, if that lasts as long.
struct Held {
    body: Body,
    _ongoing: Option<Ongoing>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request of a connection, until its answer is there or nobody waits for it; one that is
/// [`Endless`], until that ends.
struct Ongoing(Arc<Activity>);

impl Ongoing {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begin();
        Self(Arc::clone(activity))
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A stream on which it is noted what happens.
struct Noted<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Noted<S> {
    fn wrote<T>(&self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.activity.stuck();
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.arrived();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(polled)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        if polled.is_ready() {
            self.activity.flushed();
        }
        self.wrote(polled)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
