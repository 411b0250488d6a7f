//! Whether the server is there, whether it can serve, and what it serves.

use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

use crate::body;
use crate::error::{Problem, json};
use crate::reload::Reloaded;
use crate::state::State;

/// The body of `GET /ready`.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    status: &'static str,
    /// The state of the registry that is served.
    state: u64,
    /// The services that answer by a former plan, each with the views that are to be materialized
    /// before it moves to its newest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    waiting: BTreeMap<String, Vec<String>>,
    /// Why the newest state of the registry is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    reload_failure: Option<String>,
}

/// Whether the server is there.
#[utoipa::path(
    get,
    path = "/health",
    tag = "operation",
    responses((status = 200, description = "It is", body = Object))
)]
pub(super) async fn health() -> Response {
    json(StatusCode::OK, r#"{"status":"up"}"#)
}

/// Whether the server can serve: the online store answers and every view is materialized.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "operation",
    responses(
        (status = 200, description = "It can", body = Ready),
        super::docs::Problems
    )
)]
pub(super) async fn ready(Extracted(state): Extracted<State>) -> Result<Response, Problem> {
    if state.gate().is_closing() {
        return Err(Problem::NotReady("the server is about to end".to_owned()));
    }
    let timeout = state.settings().timeout;
    let served = state.served().clone();
    match tokio::time::timeout(timeout, served.check_ready()).await {
        Ok(ready) => ready?,
        Err(_) => {
            return Err(Problem::NotReady(format!(
                "the online store does not answer within {} s",
                body::seconds(timeout)
            )));
        }
    }
    let failure = state.reloader().and_then(|reloader| reloader.failure());
    written(&Ready {
        status: "ready",
        state: served.number(),
        waiting: served.waiting(),
        reload_failure: failure.map(|failure| failure.to_string()),
    })
}

/// Serves the newest state of the registry, and says what is served then.
#[utoipa::path(
    post,
    path = "/admin/reload",
    tag = "operation",
    responses(
        (status = 200, description = "What is served", body = Reloaded),
        super::docs::Problems
    )
)]
pub(super) async fn reload(Extracted(state): Extracted<State>) -> Result<Response, Problem> {
    let Some(reloader) = state.reloader() else {
        return Err(Problem::Internal("it has no registry".to_owned()));
    };
    let gate = Arc::clone(state.gate());
    // Files on a network may take their time. What could not be used is in the log.
    let _ = tokio::task::spawn_blocking(move || gate.refresh()).await;
    match reloader.reload(&state).await {
        Ok(reloaded) => written(&reloaded),
        Err(error) => Err(Problem::Reload(Box::new(error))),
    }
}

fn written(body: &impl Serialize) -> Result<Response, Problem> {
    serde_json::to_vec(body)
        .map(|body| json(StatusCode::OK, body))
        .map_err(|error| Problem::Internal(error.to_string()))
}
