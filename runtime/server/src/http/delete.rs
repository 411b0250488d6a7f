//! `DELETE /online`: takes the values of entities off the online store.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use axum::extract::{Request as HttpRequest, State as Extracted};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use unskew_core::types::DataType;
use unskew_core::view::View;
use unskew_store::{Delete, Deleted, StoreError};
use utoipa::ToSchema;

use crate::error::{Problem, json};
use crate::object::{Object, kind, shortened};
use crate::request::{column, list, text};
use crate::state::State;
use crate::work::{Turn, off_the_worker};
use crate::{body, clock, work};

const MEMBERS: [&str; 3] = ["view", "entities", "history"];

/// The body of `DELETE /online`, for the documentation; it is read value by value.
#[derive(ToSchema)]
#[schema(as = DeleteRequest)]
#[expect(
    dead_code,
    reason = "a request is read from its own text, value by value"
)]
pub(super) struct Question {
    /// The view whose values are deleted.
    view: String,
    /// For each join key of the view its values, one for each entity, or a single one.
    #[schema(value_type = BTreeMap<String, Vec<Value>>, example = json!({"customer_id": [1, 2]}))]
    entities: BTreeMap<String, Vec<Value>>,
    /// Whether to say which files of the source hold rows of these entities, which may read much, or
    /// take longer than an answer may; the values are deleted before. True, if it is left out.
    history: Option<bool>,
}

/// The body of its answer, for the documentation.
#[derive(ToSchema)]
#[schema(as = DeleteAnswer)]
#[expect(dead_code, reason = "an answer is written from what was done")]
pub(super) struct Answer {
    /// The view.
    view: String,
    /// How many of the entities had a value online.
    had_values: u64,
    /// The files of the source that hold rows of them still, each with how many; null, if that
    /// was not wanted.
    #[schema(value_type = Option<Value>)]
    history: Option<Value>,
}

/// Takes the values of entities off the online store. Older rows do not bring them back, later ones
/// do; the source is not touched.
#[utoipa::path(
    delete,
    path = "/online",
    tag = "features",
    request_body = Question,
    responses((status = 200, description = "What was deleted", body = Answer), super::docs::Problems)
)]
pub(super) async fn delete(
    Extracted(state): Extracted<State>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts, body, state.settings()).await?;
    let turn = Turn::take(&state).await?;
    let served = state.served().clone();
    // Looking for history decodes files. What takes too long ends there: to end the waiting for it
    // alone would leave it at work.
    let work = async move {
        let work = async {
            let asked = Asked::read(&body)?;
            let (pusher, applied) = served.pusher(&state).await?;
            let views = &applied.project().views;
            let Some(view) = views.get(&asked.view) else {
                return Err(Problem::from(StoreError::UnknownView {
                    name: shortened(&asked.view),
                    valid: unskew_core::text::list(views.keys()),
                }));
            };
            let delete = Delete {
                keys: asked.keys(&view.value.view, state.settings().rows)?,
                view: asked.view,
                history: asked.history,
                now: clock::now(),
            };
            Ok(pusher.delete(&delete, Arc::new(())).await?)
        };
        let deleted = work::in_time(&state, work).await;
        drop(turn);
        deleted
    };
    let deleted: Deleted = off_the_worker(work).await?;
    serde_json::to_vec(&deleted)
        .map(|body| json(StatusCode::OK, body))
        .map_err(|error| Problem::Internal(error.to_string()))
}

/// What is to be deleted.
struct Asked<'a> {
    view: String,
    entities: Object<'a>,
    history: bool,
}

impl<'a> Asked<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Problem> {
        let body = Object::of_body(body)?;
        let unknown = body
            .members()
            .iter()
            .find(|(name, _)| !MEMBERS.contains(&&**name));
        if let Some((name, _)) = unknown {
            return Err(Problem::Unknown {
                place: "the body".to_owned(),
                name: shortened(name),
                hint: String::new(),
                valid: MEMBERS.map(str::to_owned).into(),
            });
        }
        let missing = |field: &str, what: &str| Problem::Missing {
            field: field.to_owned(),
            what: what.to_owned(),
        };
        let view = body
            .get("view")
            .ok_or_else(|| missing("view", "the name of the view whose values are deleted"))?;
        let entities = body
            .get("entities")
            .ok_or_else(|| missing("entities", "the values of the view's join keys"))?;
        let history = match body.get("history") {
            None => true,
            Some(value) => serde_json::from_str(value.get()).map_err(|_| Problem::Form {
                field: "history".to_owned(),
                found: kind(value).to_owned(),
                valid: "true or false".to_owned(),
            })?,
        };
        Ok(Self {
            view: text("view", view, "the name of a view")?,
            entities: Object::of_member(entities, "entities")?,
            history,
        })
    }

    /// The join keys of `view`, at most `limit` entities.
    fn keys(&self, view: &View, limit: usize) -> Result<Vec<ArrayRef>, Problem> {
        let names = || view.keys.iter().map(|key| key.name.clone());
        let is_key = |name: &str| view.keys.iter().any(|key| key.name == name);
        if let Some((name, _)) = self.entities.members().iter().find(|(n, _)| !is_key(n)) {
            return Err(Problem::Unknown {
                place: format!("`entities` of view `{}`", view.name),
                name: shortened(name),
                hint: String::new(),
                valid: names().collect(),
            });
        }
        let mut keys: Vec<ArrayRef> = Vec::with_capacity(view.keys.len());
        for key in &view.keys {
            let field = format!("entities.{}", key.name);
            let Some(value) = self.entities.get(&key.name) else {
                let what = format!("a join key of type {} of the view", key.data_type);
                return Err(Problem::Missing { field, what });
            };
            let values = match kind(value) {
                "a list" => list(&field, value)?,
                _ => vec![value],
            };
            if values.len() > limit {
                return Err(Problem::TooManyRows {
                    rows: values.len(),
                    limit,
                });
            }
            if let Some(first) = keys.first()
                && first.len() != values.len()
            {
                return Err(Problem::Lengths {
                    field,
                    found: format!("{} values", values.len()),
                    other: format!("entities.{}", view.keys[0].name),
                    expected: format!("{} values", first.len()),
                });
            }
            keys.push(column(&field, &values, DataType::Scalar(key.data_type))?);
        }
        Ok(keys)
    }
}
