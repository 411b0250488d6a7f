//! What a request has to pass before its path sees it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::{BoxFuture, Either, Ready, ready};
use hyper::body::Body;
use tower::{Layer, Service};

use crate::error::Problem;
use crate::guard::Gate;
use crate::guard::room::Taken;

/// The content type of gRPC.
const GRPC: &str = "application/grpc";

/// Lets those requests pass that may.
#[derive(Clone)]
pub(crate) struct AdmitLayer(Arc<Gate>);

impl AdmitLayer {
    pub(crate) const fn new(gate: Arc<Gate>) -> Self {
        Self(gate)
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit {
            gate: Arc::clone(&self.0),
            inner,
        }
    }
}

/// See [`AdmitLayer`].
#[derive(Clone)]
pub(crate) struct Admit<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Request> for Admit<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    /// Most requests take the second way, which costs no allocation.
    type Future = Either<
        Ready<Result<Response, Infallible>>,
        Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // A path that there is not is said so to anybody.
        let is_path = request.extensions().get::<MatchedPath>().is_some();
        if !is_path && !is_grpc(&request) {
            return Either::Right(Either::Left(self.inner.call(request)));
        }
        let is_http_1 = request.version() < Version::HTTP_2;
        let closing = self.gate.is_closing() && is_http_1;
        let room = match self.gate.admit(&mut request) {
            Ok(room) => room,
            Err(problem) => {
                let mut response = refusal(problem, is_grpc(&request));
                // A body that is not read is still on its way, and its connection ends with it.
                if closing || is_http_1 && !request.body().is_end_stream() {
                    close(&mut response);
                }
                return Either::Left(ready(Ok(response)));
            }
        };
        if let Some(room) = &room {
            // For as long as the body is worked with, also when nobody waits for the answer.
            request.extensions_mut().insert(room.clone());
        }
        let answer = self.inner.call(request);
        if room.is_none() && !closing {
            return Either::Right(Either::Left(answer));
        }
        let answer = async move {
            let mut response = answer.await?;
            drop(room);
            if closing {
                close(&mut response);
            }
            Ok(response)
        };
        Either::Right(Either::Right(answer.boxed()))
    }
}

/// A client that is told so opens its next connection elsewhere.
fn close(response: &mut Response) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

/// What a client of gRPC is told: its statuses are other numbers, and come in headers.
fn refusal(problem: Problem, is_grpc: bool) -> Response {
    let response = problem.to_string();
    let refused = problem.into_response();
    if !is_grpc {
        return refused;
    }
    let status = match refused.status() {
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN => "7",
        StatusCode::SERVICE_UNAVAILABLE => "14",
        _ => "8",
    };
    let mut answer = Response::default();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert("grpc-status", HeaderValue::from_static(status));
    // Other characters would have to be encoded, and a message is for people.
    let message: String = response
        .chars()
        .map(|char| match char {
            ' '..='~' if char != '%' => char,
            _ => '?',
        })
        .collect();
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert("grpc-message", message);
    }
    answer
}

fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(GRPC.as_bytes()))
}

impl Gate {
    /// The room that the request's body takes, if it takes any.
    fn admit(&self, request: &mut Request) -> Result<Option<Taken>, Problem> {
        let headers = request.headers();
        let (count, limit) = (headers.len(), self.settings.headers);
        // HTTP/1.1 has refused it by now; HTTP/2 knows a limit of bytes alone.
        if count > limit {
            return Err(Problem::TooManyHeaders { count, limit });
        }
        self.check(request.method(), request.uri().path(), headers)?;
        Ok(self.room.counted(request.body_mut()))
    }
}
