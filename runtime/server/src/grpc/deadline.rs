//! How long a call may take.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::response::Response;
use futures::FutureExt;
use futures::future::{Join, Map, Ready, join, ready};
use tokio::time::Timeout;
use tokio::time::error::Elapsed;
use tower::{Layer, Service};

use crate::body;
use crate::error::Problem;
use crate::settings::Settings;

/// Lets a call take no longer than [`Settings::timeout`] until its answer begins, the arrival of its
/// message included: tonic waits for that as long as a client likes. A stream begins at once.
#[derive(Clone)]
pub(crate) struct DeadlineLayer {
    limit: Duration,
}

impl DeadlineLayer {
    pub(crate) const fn new(settings: &Settings) -> Self {
        Self {
            limit: settings.timeout,
        }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            limit: self.limit,
            inner,
        }
    }
}

/// See [`DeadlineLayer`].
#[derive(Clone)]
pub(crate) struct Deadline<S> {
    limit: Duration,
    inner: S,
}

/// What became of a call, and how long it might take.
type Done = (Result<Result<Response, Infallible>, Elapsed>, Duration);

impl<S> Service<Request> for Deadline<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    /// It has a name, so that it needs no allocation; a closure has none.
    type Future =
        Map<Join<Timeout<S::Future>, Ready<Duration>>, fn(Done) -> Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let answer = tokio::time::timeout(self.limit, self.inner.call(request));
        join(answer, ready(self.limit)).map(answered)
    }
}

const STATUS: &str = "grpc-status";

fn answered((answer, limit): Done) -> Result<Response, Infallible> {
    let Ok(answer) = answer else {
        let seconds = body::seconds(limit);
        return Ok(Problem::Late { seconds }.grpc_status().into_http());
    };
    let mut answer = answer?;
    // Nothing here answers OUT_OF_RANGE but tonic, to a message that is too large. What is beyond a
    // limit is RESOURCE_EXHAUSTED.
    if answer.headers().get(STATUS).is_some_and(|it| it == "11") {
        let exhausted = HeaderValue::from_static("8");
        answer.headers_mut().insert(STATUS, exhausted);
    }
    Ok(answer)
}
