//! `GET /metrics`.

use axum::extract::State as Extracted;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::error::Problem;
use crate::state::State;
use crate::watch;

/// What is counted, in the text form of OpenMetrics, which Prometheus reads.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "All metrics", content_type = watch::CONTENT_TYPE, body = String),
        super::docs::Problems
    )
)]
pub(super) async fn metrics(Extracted(state): Extracted<State>) -> Result<Response, Problem> {
    let text = watch::scrape(&state)
        .await
        .map_err(|error| Problem::Internal(error.to_string()))?;
    let content_type = HeaderValue::from_static(watch::CONTENT_TYPE);
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
