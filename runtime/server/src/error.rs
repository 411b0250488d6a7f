//! What is answered instead of features.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use unskew_core::digest::Digest;
use unskew_core::planner::PlanError;
use unskew_core::text;
use unskew_core::values::ValueError;
use unskew_engine::{CallErrorKind, EvaluateError};
use unskew_offline::OfflineError;
use unskew_online::OnlineError;
use unskew_store::StoreError;
use utoipa::ToSchema;

use crate::guard::Right;
use crate::watch::Code;

/// The code of a component's failure; the client knows it by this.
pub(crate) const TRANSFORMATION_FAILED: &str = "transformation_failed";

/// The code of a request with too many rows; the client asks for fewer then.
pub(crate) const TOO_MANY_ROWS: &str = "too_many_rows";

/// Why a request gets no features.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The body is no JSON.
    #[error("the body is no JSON: {0}")]
    NotJson(String),
    /// The body is too large.
    #[error("the body has more than {limit} bytes; ask for fewer rows at a time")]
    BodyTooLarge { limit: usize },
    /// The body stopped arriving.
    #[error("the body did not arrive within {seconds} s")]
    BodyLate { seconds: u64 },
    /// The body broke off.
    #[error("the body broke off: {0}")]
    BodyBroken(String),
    /// There are too many rows.
    #[error("{rows} rows are too many for one request; at most {limit}")]
    TooManyRows { rows: usize, limit: usize },
    /// A field has the wrong JSON type, or another form than it must have.
    #[error("`{field}` is {found}; it must be {valid}")]
    Form {
        field: String,
        found: String,
        valid: String,
    },
    /// A field is given twice.
    #[error("`{0}` is given twice")]
    Duplicate(String),
    /// A field that there is not.
    #[error(
        "there is no `{name}` in {place}{hint}; there are: {}",
        text::list(valid)
    )]
    Unknown {
        place: String,
        name: String,
        hint: String,
        valid: Vec<String>,
    },
    /// A field that must be there.
    #[error("`{field}` is missing: {what}")]
    Missing { field: String, what: String },
    /// A value of the wrong type.
    #[error("`{field}`: {source}")]
    Value { field: String, source: ValueError },
    /// Two fields of different lengths.
    #[error("`{field}` has {found}, but `{other}` has {expected}; each needs one for each row")]
    Lengths {
        field: String,
        found: String,
        other: String,
        expected: String,
    },
    /// A feature service that there is not.
    #[error(
        "there is no feature service `{name}`; there are: {}",
        text::list(valid)
    )]
    UnknownService { name: String, valid: Vec<String> },
    /// A feature service that cannot be served.
    #[error(
        "feature service `{service}` cannot be served: its view `{view}` has `online: false`, so \
         nothing of it is in the online store"
    )]
    NotOnline { service: String, view: String },
    /// Features that cannot be served.
    #[error(
        "these features cannot be served: view `{view}` has `online: false`, so nothing of it is in \
         the online store"
    )]
    FeaturesNotOnline { view: String },
    /// Features and a service, or neither.
    #[error(
        "{}; give either `feature_service`, a name, or `features`, a list of VIEW:FEATURE",
        if *.0 { "both `features` and `feature_service` are given" } else { "no features are named" }
    )]
    FeaturesOrService(bool),
    /// Two columns of an answer with the same name.
    #[error(
        "two columns of the answer are called `{0}`; with `full_feature_names: true` features are \
         called VIEW__FEATURE"
    )]
    SameName(String),
    /// A row in two forms.
    #[error("a row is given as texts and as values; give either `features` or `typed_features`")]
    TextsOrValues,
    /// Another plan than the one demanded.
    #[error("feature service `{service}` has plan {serves} here, and the request demands {wanted}")]
    PlanMismatch {
        service: String,
        serves: Digest,
        wanted: Digest,
    },
    /// What the store says.
    #[error("{0}")]
    Store(Box<StoreError>),
    /// The request shows no token that is known and valid.
    #[error(
        "this needs a token, and the request shows {0}; send the header `authorization: Bearer TOKEN`"
    )]
    Token(String),
    /// The token is for something else.
    #[error(
        "this needs the right `{right}`, and token `{token}` has: {}",
        text::list(rights)
    )]
    Right {
        token: String,
        right: Right,
        rights: BTreeSet<Right>,
    },
    /// The token is for another project.
    #[error("token `{token}` is for project `{project}`, and this is project `{here}`")]
    OtherProject {
        token: String,
        project: String,
        here: String,
    },
    /// There are too many headers.
    #[error("{count} headers are too many for one request; at most {limit}")]
    TooManyHeaders { count: usize, limit: usize },
    /// No more can be taken on.
    #[error("{what} has as much to do as it can; ask again later")]
    Overloaded { what: String },
    /// The answer is not ready in time.
    #[error("there was no answer within {seconds} s; ask for fewer rows at a time, or later")]
    Late { seconds: u64 },
    /// The server is not ready.
    #[error("not ready: {0}")]
    NotReady(String),
    /// The newest state of the registry cannot be served.
    #[error("the newest state of the registry cannot be served, and the one before goes on: {0}")]
    Reload(Box<StoreError>),
    /// A path that there is not.
    #[error(
        "there is no `{0}`; there are: {paths}", paths = crate::http::paths()
    )]
    NoPath(String),
    /// A method that a path does not have.
    #[error(
        "`{path}` has no {method}; there are: {paths}", paths = crate::http::paths()
    )]
    NoMethod { path: String, method: String },
    /// A fault of the server itself.
    #[error("the server failed to answer: {0}")]
    Internal(String),
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl Problem {
    /// The status and the code of each problem: the one place that gives them out.
    pub(crate) fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotJson(_) => (StatusCode::BAD_REQUEST, "invalid_json"),
            Self::BodyBroken(_) => (StatusCode::BAD_REQUEST, "body_broken"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::TooManyRows { .. } => (StatusCode::BAD_REQUEST, TOO_MANY_ROWS),
            Self::BodyLate { .. } => (StatusCode::REQUEST_TIMEOUT, "body_late"),
            Self::Form { .. } | Self::Value { .. } => (StatusCode::BAD_REQUEST, "invalid_value"),
            Self::Duplicate(_) => (StatusCode::BAD_REQUEST, "duplicate_field"),
            Self::Unknown { .. } => (StatusCode::BAD_REQUEST, "unknown_field"),
            Self::Missing { .. } => (StatusCode::BAD_REQUEST, "missing_field"),
            Self::Lengths { .. } => (StatusCode::BAD_REQUEST, "unequal_lengths"),
            Self::UnknownService { .. } => (StatusCode::NOT_FOUND, "unknown_feature_service"),
            Self::NotOnline { .. } | Self::FeaturesNotOnline { .. } => {
                (StatusCode::BAD_REQUEST, "view_not_online")
            }
            Self::FeaturesOrService(_) | Self::TextsOrValues => {
                (StatusCode::BAD_REQUEST, "either_or")
            }
            Self::SameName(_) => (StatusCode::BAD_REQUEST, "same_name"),
            Self::PlanMismatch { .. } => (StatusCode::CONFLICT, "plan_mismatch"),
            Self::Store(error) => of_store(error),
            Self::Token(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Right { .. } | Self::OtherProject { .. } => (StatusCode::FORBIDDEN, "forbidden"),
            Self::TooManyHeaders { .. } => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_many_headers",
            ),
            Self::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Late { .. } => (StatusCode::GATEWAY_TIMEOUT, "late"),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            Self::Reload(_) => (StatusCode::BAD_GATEWAY, "reload_failed"),
            Self::NoPath(_) => (StatusCode::NOT_FOUND, "unknown_path"),
            Self::NoMethod { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

impl Problem {
    /// The same for gRPC, which follows from the status and the code.
    pub(crate) fn grpc_status(&self) -> tonic::Status {
        use tonic::Code;
        let (status, _) = self.status_and_code();
        let code = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Code::InvalidArgument,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::CONFLICT => Code::FailedPrecondition,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => {
                Code::ResourceExhausted
            }
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
            _ => Code::Internal,
        };
        tonic::Status::new(code, self.to_string())
    }
}

/// A failed transformation is the row's fault as far as the server can tell, so 422 and not 500: the
/// author's function refused it, or could not do it, and will not the next time either.
fn of_store(error: &StoreError) -> (StatusCode, &'static str) {
    let internal = (StatusCode::INTERNAL_SERVER_ERROR, "internal");
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, "answer_too_large");
    match error {
        StoreError::Online(OnlineError::Unavailable { .. } | OnlineError::Refused { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
        }
        StoreError::Online(OnlineError::TooLarge { .. }) => too_large,
        StoreError::Evaluate(EvaluateError::TooLarge(_)) => too_large,
        StoreError::Evaluate(EvaluateError::Failure(failure)) => match failure.kind {
            // The host gave the component rows that it does not take: no row's fault.
            CallErrorKind::Input => internal,
            _ => (StatusCode::UNPROCESSABLE_ENTITY, TRANSFORMATION_FAILED),
        },
        StoreError::Evaluate(EvaluateError::Value { .. }) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "unfit_value")
        }
        StoreError::Plan(
            PlanError::UnknownService { .. }
            | PlanError::UnknownView { .. }
            | PlanError::UnknownFeature { .. },
        ) => (StatusCode::NOT_FOUND, "unknown_feature"),
        StoreError::Plan(_) => (StatusCode::BAD_REQUEST, "features_not_together"),
        StoreError::Keys { .. } => (StatusCode::BAD_REQUEST, "invalid_value"),
        StoreError::UnknownView { .. } | StoreError::AliasNamed { .. } => {
            (StatusCode::NOT_FOUND, "unknown_view")
        }
        StoreError::UnknownSource { .. } => (StatusCode::NOT_FOUND, "unknown_source"),
        StoreError::NotOnline { .. } => (StatusCode::BAD_REQUEST, "view_not_online"),
        StoreError::Offline(OfflineError::Append { .. }) => {
            (StatusCode::BAD_REQUEST, "rows_refused")
        }
        StoreError::OfflineAlone { source, .. } => of_store(source),
        _ => internal,
    }
}

/// The body of every answer that is a problem.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    error: ProblemText,
}

/// What the problem is.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProblemText {
    /// What a program goes by: a word that stays the same.
    #[schema(value_type = String, example = "unknown_feature_service")]
    code: &'static str,
    /// What a person reads: what was found, where, and what would be valid.
    message: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let error = ProblemText {
            code,
            message: self.to_string(),
        };
        // Two texts always have a JSON form.
        let mut response = json(
            status,
            serde_json::to_vec(&ProblemBody { error }).unwrap_or_default(),
        );
        let told = match self {
            Self::Token(_) => Some((header::WWW_AUTHENTICATE, "Bearer realm=\"unskew\"")),
            Self::Overloaded { .. } => Some((header::RETRY_AFTER, "1")),
            _ => None,
        };
        response.extensions_mut().insert(Code(code));
        if let Some((name, value)) = told {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A response whose body is JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use unskew_engine::Failure;

    use super::*;

    fn failure(kind: CallErrorKind) -> StoreError {
        StoreError::Evaluate(EvaluateError::Failure(Box::new(Failure {
            transformation: None,
            component: "route".to_owned(),
            version: "0.1.0".to_owned(),
            function: "route".to_owned(),
            row: None,
            kind,
            message: "no".to_owned(),
        })))
    }

    fn status_of(error: StoreError) -> (u16, &'static str) {
        let (status, code) = Problem::from(error).status_and_code();
        (status.as_u16(), code)
    }

    #[test]
    fn what_a_store_says_has_the_status_of_who_can_do_something_about_it() {
        let refused = OnlineError::Refused {
            store: "127.0.0.1".to_owned(),
            reason: "loading".to_owned(),
        };
        assert_eq!(status_of(refused.into()), (503, "store_unavailable"));
        let too_large = OnlineError::TooLarge {
            view: "things".to_owned(),
            what: "a batch",
            bytes: 2,
            limit: 1,
        };
        assert_eq!(status_of(too_large.into()), (413, "answer_too_large"));
        let too_large = StoreError::Evaluate(EvaluateError::TooLarge("2 GiB".to_owned()));
        assert_eq!(status_of(too_large), (413, "answer_too_large"));
        for kind in [
            CallErrorKind::Failed,
            CallErrorKind::Panicked,
            CallErrorKind::Time,
            CallErrorKind::Contract,
        ] {
            assert_eq!(status_of(failure(kind)), (422, TRANSFORMATION_FAILED));
        }
        assert_eq!(status_of(failure(CallErrorKind::Input)), (500, "internal"));
        let columns = OnlineError::Columns("two".to_owned());
        assert_eq!(status_of(columns.into()), (500, "internal"));
    }
}
