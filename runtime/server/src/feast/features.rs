//! `POST /get-online-features`.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request as HttpRequest, State as Extracted};
use axum::http::StatusCode;
use axum::response::Response;

use super::refusal::Refusal;
use super::request::Request;
use super::{Column, answer, columns, rows};
use crate::error::{Problem, json};
use crate::state::State;
use crate::work::{Asked, INLINE_BYTES, Turn};
use crate::{body, clock, work};

/// Answers with the features of entities in Feast's form.
pub(crate) async fn get_online_features(
    Extracted(state): Extracted<State>,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts, body, state.settings()).await?;
    let answer = work::in_time(&state, answered(&state, body)).await?;
    Ok(json(StatusCode::OK, answer))
}

async fn answered(state: &State, body: Bytes) -> Result<Body, Problem> {
    let mut turn = Turn::take(state).await?;
    let now = clock::now();
    let (columns, views, asked) = if body.len() <= INLINE_BYTES {
        read(state, &body, now)?
    } else {
        let state = state.clone();
        let asked = turn.off_the_worker(async move { read(&state, &body, now) });
        let (back, asked) = asked.await?;
        turn = back;
        asked
    };
    turn.answer(asked, move |asked, evaluated| {
        let plan = asked.service.plan();
        answer::write(plan, &columns, &asked.rows, evaluated, views)
            .map(Body::from)
            .map_err(|error| Problem::Internal(error.to_string()))
    })
    .await
}

/// What is asked for, the columns of the answer, and whether it names its views.
fn read(state: &State, body: &[u8], now: i64) -> Result<(Vec<Column>, bool, Asked), Problem> {
    let request = Request::read(body)?;
    let served = Arc::clone(&state.served());
    let service = request.wanted.answers(&served)?;
    let plan = service.plan();
    let rows = rows(&request, plan, now, state.settings().rows)?;
    let full = request.wanted.full_feature_names;
    let columns = columns(plan, request.keys(plan), full)?;
    Ok((columns, request.wanted.views, Asked { service, rows }))
}
