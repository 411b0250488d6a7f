//! `POST /online`.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{Request as HttpRequest, State as Extracted};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::{Problem, json};
use crate::request::Request;
use crate::state::State;
use crate::work::{Asked, INLINE_BYTES, Turn};
use crate::{answer, body, clock, work};

/// The body of `POST /online`, for the documentation; `request.rs` reads it.
#[derive(ToSchema)]
#[schema(as = OnlineRequest)]
#[expect(
    dead_code,
    reason = "a request is read from its own text, value by value"
)]
pub(super) struct Question {
    /// The feature service whose features are wanted.
    feature_service: String,
    /// For each join key its values, one for each row, or a single one.
    #[schema(value_type = BTreeMap<String, Vec<Value>>, example = json!({"customer_id": [1, 2]}))]
    entities: Option<BTreeMap<String, Vec<Value>>>,
    /// For each request field its values, one for each row, or a single one.
    #[schema(value_type = BTreeMap<String, Vec<Value>>, example = json!({"amount": [9.5, 3.0]}))]
    request: Option<BTreeMap<String, Vec<Value>>>,
    /// The instant for which features are wanted, in RFC 3339, or one for each row; the clock's, if
    /// it is left out.
    #[schema(value_type = Value, example = "2001-03-01T12:00:00Z")]
    as_of: Option<Value>,
    /// The plan digest that the answer must come of; any, if it is left out.
    #[schema(example = "sha256:…")]
    plan: Option<String>,
}

/// The body of its answer, for the documentation; `answer.rs` writes it.
#[derive(ToSchema)]
#[schema(as = OnlineAnswer)]
#[expect(dead_code, reason = "an answer is written from columns")]
pub(super) struct Answer {
    /// The digest of the plan by which it was computed.
    plan: String,
    /// The instant of each row.
    as_of: Vec<String>,
    /// For each feature its values, one for each row.
    features: BTreeMap<String, Vec<Value>>,
    /// For each feature what each of its values is: `PRESENT`, `NULL_VALUE`, `NOT_FOUND`,
    /// `OUTSIDE_MAX_AGE`, `IN_FUTURE` or `NOT_MATERIALIZED`.
    statuses: BTreeMap<String, Vec<String>>,
}

/// The features of entities, each row as of its own instant.
#[utoipa::path(
    post,
    path = "/online",
    tag = "features",
    request_body = Question,
    responses((status = 200, description = "The features", body = Answer), super::docs::Problems)
)]
pub(super) async fn online(
    Extracted(state): Extracted<State>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts, body, state.settings()).await?;
    let answer = work::in_time(&state, answered(&state, body)).await?;
    Ok(json(StatusCode::OK, answer))
}

async fn answered(state: &State, body: Bytes) -> Result<Body, Problem> {
    let mut turn = Turn::take(state).await?;
    let now = clock::now();
    let asked = if body.len() <= INLINE_BYTES {
        read(state, &body, now)?
    } else {
        let state = state.clone();
        let asked = turn.off_the_worker(async move { read(&state, &body, now) });
        let (back, asked) = asked.await?;
        turn = back;
        asked
    };
    turn.answer(asked, |asked, evaluated| {
        answer::write(asked.service.digest(), &asked.rows.as_of, evaluated)
            .map(Body::from)
            .map_err(|error| Problem::Internal(error.to_string()))
    })
    .await
}

fn read(state: &State, body: &[u8], now: i64) -> Result<Asked, Problem> {
    let request = Request::read(body)?;
    let service = state.served().service(&request.service)?;
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
    Ok(Asked { service, rows })
}
