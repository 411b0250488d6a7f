//! One request from its head to its answer: its id, its trace, its line in the log, what is counted.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use opentelemetry::trace::TraceId;
use prometheus_client::metrics::gauge::Gauge;
use tower::{Layer, Service};
use tracing::{Instrument, Level, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::Watch;
use super::plan::PlanWatch;
use super::routes::Route;
use super::trace::Trace;
use crate::state::State;
use crate::work::panicked;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What stands for a path that the server does not have. What clients invent must not become
/// labels.
const NO_ROUTE: &str = "other";

/// The status that stands for a client that went away before its answer.
const GONE: u16 = 499;

/// The code of a problem, which its response carries for metrics and log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code(pub(crate) &'static str);

/// What a request is known by while it is answered.
#[derive(Clone)]
pub(crate) struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    id: HeaderValue,
    trace: Option<TraceId>,
    asked: OnceLock<(Arc<PlanWatch>, usize)>,
}

tokio::task_local! {
    static CURRENT: Context;
}

impl Context {
    /// The request that the current task answers; `None` outside of one.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// The request's id.
    pub(crate) fn id(&self) -> &str {
        self.inner.id.to_str().unwrap_or_default()
    }

    /// Keeps for the log what was asked for.
    pub(crate) fn asked(&self, plan: &Arc<PlanWatch>, rows: usize) {
        // A request asks once; were it to ask again, the first would be logged.
        let _ = self.inner.asked.set((Arc::clone(plan), rows));
    }
}

/// Watches requests, and answers those in which there is a panic. It has to be the outermost of all
/// layers, so that what any of them answers is seen.
#[derive(Clone)]
pub(crate) struct ObserveLayer(State);

impl ObserveLayer {
    pub(crate) const fn new(state: State) -> Self {
        Self(state)
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe {
            state: self.0.clone(),
            inner,
        }
    }
}

/// See [`ObserveLayer`].
#[derive(Clone)]
pub(crate) struct Observe<S> {
    state: State,
    inner: S,
}

impl<S> Service<Request> for Observe<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let asking = Asking::begin(&self.state, &request);
        let answer = self.inner.call(request);
        let state = self.state.clone();
        asking.observe(state, answer).map(Ok).boxed()
    }
}

/// A request, before its path sees it.
struct Asking {
    began: Instant,
    seen: Seen,
    id: HeaderValue,
    span: Span,
    context: Context,
    method: Option<Method>,
}

impl Asking {
    fn begin(state: &State, request: &Request) -> Self {
        let watch = state.watch();
        let began = Instant::now();
        let path = request.extensions().get::<MatchedPath>();
        let path = path.map_or(NO_ROUTE, MatchedPath::as_str);
        let seen = Seen::begin(watch, watch.metrics.routes.of(path));
        let id = id(request.headers());
        let (span, trace) = span(request, &id, &seen.route);
        let context = Context {
            inner: Arc::new(Inner {
                id: id.clone(),
                trace,
                asked: OnceLock::new(),
            }),
        };
        let method = watch.request_level.map(|_| request.method().clone());
        Self {
            began,
            seen,
            id,
            span,
            context,
            method,
        }
    }

    async fn observe(
        self,
        state: State,
        answer: impl Future<Output = Result<Response, Infallible>>,
    ) -> Response {
        let Self {
            began,
            seen,
            id,
            span,
            context,
            method,
        } = self;
        let watch = state.watch();
        let answered = CURRENT.scope(context.clone(), unwinding(answer));
        let mut response = if span.is_disabled() {
            answered.await
        } else {
            answered.instrument(span.clone()).await
        };
        let status = response.status().as_u16();
        let code = code(&response);
        if let Some(code) = code {
            watch.metrics.problems.count(code);
        }
        if !span.is_disabled() {
            end(&span, &context, status, code);
        }
        if let Some(level) = watch.request_level {
            let line = Line {
                context: &context,
                method,
                route: &seen.route.path,
                status,
                code,
                began,
            };
            line.write(level);
        }
        seen.end(status, began);
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
}

/// An answer, also where a panic happens: it costs the one request.
async fn unwinding(answer: impl Future<Output = Result<Response, Infallible>>) -> Response {
    // What a panic leaves behind belongs to the request alone; what requests share has no state
    // that a panic could leave half changed.
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => panicked().into_response(),
    }
}

/// Of a problem its code; that of gRPC, where an answer has nothing but it.
fn code(response: &Response) -> Option<&'static str> {
    const GRPC: [&str; 16] = [
        "grpc_cancelled",
        "grpc_unknown",
        "grpc_invalid_argument",
        "grpc_deadline_exceeded",
        "grpc_not_found",
        "grpc_already_exists",
        "grpc_permission_denied",
        "grpc_resource_exhausted",
        "grpc_failed_precondition",
        "grpc_aborted",
        "grpc_out_of_range",
        "grpc_unimplemented",
        "grpc_internal",
        "grpc_unavailable",
        "grpc_data_loss",
        "grpc_unauthenticated",
    ];
    if let Some(code) = response.extensions().get::<Code>() {
        return Some(code.0);
    }
    let status = response.headers().get("grpc-status")?.to_str().ok()?;
    let number: usize = status.parse().ok()?;
    GRPC.get(number.checked_sub(1)?).copied()
}

/// A request that is being answered; dropped before its end, it counts as one whose client went
/// away.
struct Seen {
    route: Arc<Route>,
    in_flight: Gauge,
    is_answered: bool,
}

impl Seen {
    fn begin(watch: &Watch, route: Arc<Route>) -> Self {
        let in_flight = watch.metrics.in_flight.clone();
        in_flight.inc();
        Self {
            route,
            in_flight,
            is_answered: false,
        }
    }

    fn end(mut self, status: u16, began: Instant) {
        self.is_answered = true;
        self.route.count(status);
        self.route.duration.observe(began.elapsed());
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.in_flight.dec();
        if !self.is_answered {
            self.route.count(GONE);
        }
    }
}

/// The id that the client gives, if it is one that a log can hold; a new one otherwise.
fn id(headers: &HeaderMap) -> HeaderValue {
    const LONGEST: usize = 128;
    let is_valid = |id: &&HeaderValue| {
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(valid)
    };
    match headers.get(REQUEST_ID).filter(is_valid) {
        Some(given) => given.clone(),
        None => new_id(),
    }
}

/// 128 random bits as hexadecimal digits.
fn new_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut bits = fastrand::u128(..);
    let digits: [u8; 32] = std::array::from_fn(|_| {
        let digit = DIGITS[(bits % 16) as usize];
        bits /= 16;
        digit
    });
    // Digits are always a value of a header.
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// The span of a request, and the trace that it belongs to. It is one of the level DEBUG, which
/// costs nothing while nobody asks for it; what exports spans asks for it by its target.
fn span(request: &Request, id: &HeaderValue, route: &Route) -> (Span, Option<TraceId>) {
    let caller = Trace::of(request.headers());
    let span = tracing::debug_span!(
        target: "unskew_server::request",
        "request",
        otel.name = %format_args!("{} {}", request.method(), route.path),
        otel.kind = "server",
        otel.status_code = field::Empty,
        request_id = id.to_str().unwrap_or_default(),
        http.request.method = %request.method(),
        http.route = &*route.path,
        url.path = request.uri().path(),
        http.response.status_code = field::Empty,
        error.type = field::Empty,
        unskew.service = field::Empty,
        unskew.rows = field::Empty,
    );
    let mut trace = caller.map(Trace::id);
    if !span.is_disabled() {
        if let Some(caller) = caller {
            // It fails where nothing exports spans.
            let _ = span.set_parent(caller.parent(request.headers()));
        }
        trace = Trace::of_span(&span).or(trace);
    }
    (span, trace)
}

fn end(span: &Span, context: &Context, status: u16, code: Option<&str>) {
    span.record("http.response.status_code", status);
    if let Some(code) = code {
        span.record("error.type", code);
    }
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    if let Some((plan, rows)) = context.inner.asked.get() {
        span.record("unskew.service", &*plan.service);
        span.record("unskew.rows", *rows);
    }
}

/// A line of the log.
struct Line<'a> {
    context: &'a Context,
    method: Option<Method>,
    route: &'a str,
    status: u16,
    code: Option<&'static str>,
    began: Instant,
}

impl Line<'_> {
    /// Writes it, if lines of `level` are written.
    fn write(&self, level: Level) {
        // The level of an event is part of the program, so each has its own; where it is off, it
        // costs one comparison.
        macro_rules! line {
            ($level:expr) => {{
                if tracing::enabled!(target: "unskew_server::request", $level) {
                    let asked = self.context.inner.asked.get();
                    let trace = self.context.inner.trace.map(field::display);
                    tracing::event!(
                        target: "unskew_server::request",
                        $level,
                        request_id = self.context.id(),
                        trace_id = trace,
                        method = self.method.as_ref().map(Method::as_str),
                        route = self.route,
                        status = self.status,
                        code = self.code,
                        service = asked.map(|(plan, _)| &*plan.service),
                        rows = asked.map(|(_, rows)| *rows),
                        micros = u64::try_from(self.began.elapsed().as_micros()).ok(),
                        "answered"
                    );
                }
            }};
        }
        // What is the server's own fault is worth a line whatever the level of others.
        let level = if self.status == 500 {
            Level::ERROR
        } else {
            level
        };
        match level {
            Level::ERROR => line!(Level::ERROR),
            Level::WARN => line!(Level::WARN),
            Level::INFO => line!(Level::INFO),
            Level::DEBUG => line!(Level::DEBUG),
            Level::TRACE => line!(Level::TRACE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &str) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, given.parse().unwrap());
        id(&headers)
    }

    #[test]
    fn an_id_that_a_log_can_hold_is_kept_and_another_is_replaced() {
        assert_eq!(of("0af7-651_9.16:cd"), "0af7-651_9.16:cd");
        let longest = "x".repeat(128);
        assert_eq!(of(&longest), longest.as_str());
        for invalid in ["", "a b", "a\"b", "ü", "a;b", &"x".repeat(129)] {
            let new = of(invalid);
            assert_ne!(new, invalid);
            let text = new.to_str().unwrap();
            assert!(text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()));
        }
        assert_ne!(new_id(), new_id());
    }

    #[test]
    fn a_client_that_goes_away_is_counted_and_is_in_flight_no_more() {
        let watch = Watch::new(&crate::settings::Settings::default());
        let route = || watch.metrics.routes.of("/online");
        let seen = Seen::begin(&watch, route());
        assert_eq!(watch.metrics.in_flight.get(), 1);
        drop(seen);
        Seen::begin(&watch, route()).end(200, Instant::now());
        assert_eq!(watch.metrics.in_flight.get(), 0);
        let mut text = String::new();
        let registry = watch.metrics.registry();
        prometheus_client::encoding::text::encode_registry(&mut text, registry).unwrap();
        for line in [
            r#"unskew_http_requests_total{route="/online",status="200"} 1"#,
            r#"unskew_http_requests_total{route="/online",status="499"} 1"#,
            r#"unskew_http_request_duration_seconds_count{route="/online"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
