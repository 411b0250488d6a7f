//! Problems in the form that Feast's clients read.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use unskew_core::planner::PlanError;
use unskew_store::StoreError;

use crate::error::{Problem, json};

/// A problem, as Feast answers with it: what does not validate with 422 and FastAPI's body, anything
/// else with a JSON text that holds the class of a Python exception, which the client raises.
pub(crate) struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// FastAPI's body of a 422.
#[derive(Serialize)]
struct Invalid {
    detail: [Detail; 1],
}

#[derive(Serialize)]
struct Detail {
    r#type: &'static str,
    loc: [&'static str; 1],
    msg: String,
}

/// Feast's own errors.
#[derive(Serialize)]
struct Exception {
    module: &'static str,
    class: &'static str,
    message: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = self.0.status_and_code();
        let message = self.0.to_string();
        let is_invalid = status == StatusCode::BAD_REQUEST;
        let body = if is_invalid {
            serde_json::to_vec(&Invalid {
                detail: [Detail {
                    r#type: code,
                    loc: ["body"],
                    msg: message,
                }],
            })
        } else {
            serde_json::to_string(&Exception {
                module: "feast.errors",
                class: class(&self.0),
                message,
            })
            .and_then(|exception| serde_json::to_vec(&exception))
        };
        // The headers of the problem itself are kept: it may say when to come again.
        let mut response = self.0.into_response();
        // Texts always have a JSON form.
        let form = json(status, body.unwrap_or_default());
        let (form, body) = form.into_parts();
        response.headers_mut().extend(form.headers);
        if is_invalid {
            *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        }
        response
            .headers_mut()
            .remove(axum::http::header::CONTENT_LENGTH);
        *response.body_mut() = body;
        response
    }
}

/// The class of the exception that Feast's client raises.
fn class(problem: &Problem) -> &'static str {
    match problem {
        Problem::UnknownService { .. } => "FeatureServiceNotFoundException",
        Problem::Store(error) => match &**error {
            StoreError::Plan(PlanError::UnknownService { .. }) => "FeatureServiceNotFoundException",
            StoreError::Plan(PlanError::UnknownView { .. } | PlanError::UnknownFeature { .. })
            | StoreError::UnknownView { .. } => "FeatureViewNotFoundException",
            StoreError::UnknownSource { .. } => "PushSourceNotFoundException",
            _ => "FeastError",
        },
        _ => "FeastError",
    }
}
