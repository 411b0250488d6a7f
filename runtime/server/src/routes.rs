//! The paths of the server.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request as HttpRequest, State as Extracted};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::FutureExt;
use unskew_store::RequestRows;

use crate::answer;
use crate::body;
use crate::clock;
use crate::error::{Problem, json};
use crate::object::shortened;
use crate::request::Request;
use crate::state::{Answers, State};

/// Bodies up to this size are read on the thread that received them: that takes less time than
/// another thread takes to wake up.
const INLINE_BYTES: usize = 16 << 10;

/// Up to this many rows are answered on the thread that received them, for the same reason, if no
/// component has a part in it. A component may run until its deadline, and the thread would serve
/// nobody in the meantime, not even `/health`.
const INLINE_ROWS: usize = 64;

/// `POST /online`, `GET /health` and `GET /ready`. Whatever fails is answered as JSON, and a panic
/// costs the one request in which it happens.
pub fn router(state: State) -> Router {
    guarded(
        Router::new()
            .route("/online", post(online))
            .route("/health", get(health))
            .route("/ready", get(ready))
            .with_state(state),
    )
}

/// Gives `routes` the answers that all paths share: to other paths, to other methods, to a panic.
fn guarded(routes: Router) -> Router {
    routes
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(catch_panic))
}

async fn online(
    Extracted(state): Extracted<State>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, state.settings()).await?;
    let timeout = state.settings().timeout;
    match tokio::time::timeout(timeout, answer(state, body)).await {
        Ok(answer) => Ok(json(StatusCode::OK, answer?)),
        Err(_) => Err(Problem::Late {
            seconds: body::seconds(timeout),
        }),
    }
}

async fn health() -> Response {
    json(StatusCode::OK, r#"{"status":"up"}"#)
}

async fn ready(Extracted(state): Extracted<State>) -> Result<Response, Problem> {
    let timeout = state.settings().timeout;
    match tokio::time::timeout(timeout, state.check_ready()).await {
        Ok(ready) => ready.map(|()| json(StatusCode::OK, ready_body(&state))),
        Err(_) => Err(Problem::NotReady(format!(
            "the online store does not answer within {} s",
            body::seconds(timeout)
        ))),
    }
}

/// `waiting` names the services that answer by a former plan, each with the views that are to be
/// materialized before it moves to its newest.
fn ready_body(state: &State) -> String {
    match state.waiting() {
        none if none.is_empty() => r#"{"status":"ready"}"#.to_owned(),
        waiting => serde_json::json!({"status": "ready", "waiting": waiting}).to_string(),
    }
}

async fn no_path(uri: Uri) -> Problem {
    Problem::NoPath(shortened(uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Problem {
    Problem::NoMethod {
        path: shortened(uri.path()),
        method: shortened(method.as_str()),
    }
}

async fn catch_panic(request: HttpRequest, next: Next) -> Response {
    // What a panic leaves behind belongs to the request alone; what requests share has no state
    // that a panic could leave half changed.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => panicked().into_response(),
    }
}

/// What is asked for, free of the body.
struct Asked {
    service: Arc<dyn Answers>,
    rows: RequestRows,
}

async fn answer(state: State, body: Bytes) -> Result<Body, Problem> {
    let permit = Arc::clone(state.permits())
        .acquire_owned()
        .await
        .map_err(|closed| Problem::Internal(closed.to_string()))?;
    let now = clock::now();
    let asked = if body.len() <= INLINE_BYTES {
        Asked::read(&state, &body, now)?
    } else {
        off_the_worker(async move { Asked::read(&state, &body, now) }).await?
    };
    let inline = asked.rows.as_of.len() <= INLINE_ROWS && asked.service.plan().steps.is_empty();
    // The permit lies with the work: a client that goes away ends the waiting for it, not the work.
    let work = async move {
        let answer = asked.answer().await;
        drop(permit);
        answer
    };
    if inline {
        work.await
    } else {
        off_the_worker(work).await
    }
}

impl Asked {
    fn read(state: &State, body: &[u8], now: i64) -> Result<Self, Problem> {
        let request = Request::read(body)?;
        let service = state.service(&request.service)?;
        if let Some(wanted) = request.plan
            && wanted != service.digest()
        {
            return Err(Problem::PlanMismatch {
                service: request.service,
                serves: service.digest(),
                wanted,
            });
        }
        let rows = request.rows(service.plan(), now, state.settings().rows)?;
        Ok(Self { rows, service })
    }

    async fn answer(&self) -> Result<Body, Problem> {
        let evaluated = self.service.answer(&self.rows).await?;
        answer::write(self.service.digest(), &self.rows.as_of, &evaluated)
            .map(Body::from)
            .map_err(|error| Problem::Internal(error.to_string()))
    }
}

/// Runs `work` on a thread where it may take its time.
async fn off_the_worker<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(work))
        .await
        .unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Problem {
    Problem::Internal("it panicked; its log says where".to_owned())
}

#[cfg(test)]
mod tests;
