//! Feast's paths, for the documentation: what answers them is in `feast`.
#![expect(
    dead_code,
    reason = "the types and functions are descriptions; bodies are read and written as text"
)]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

use super::docs::Problems;

/// The body of `POST /get-online-features`: either a feature service or features.
#[derive(ToSchema)]
#[schema(as = FeastRequest)]
pub(super) struct Asked {
    /// The feature service whose features are wanted.
    feature_service: Option<String>,
    /// The features that are wanted, `VIEW:FEATURE` or `TRANSFORMATION:OUTPUT`.
    #[schema(example = json!(["driver_stats:conv_rate"]))]
    features: Option<Vec<String>>,
    /// For each join key and request field its values, one for each row.
    #[schema(example = json!({"driver_id": [1001, 1002]}))]
    entities: BTreeMap<String, Vec<Value>>,
    /// Whether features are called `VIEW__FEATURE`.
    full_feature_names: Option<bool>,
}

/// The body of its answer.
#[derive(ToSchema)]
#[schema(as = FeastAnswer)]
pub(super) struct Answer {
    metadata: Metadata,
    /// One for each name of the metadata.
    results: Vec<Column>,
}

/// What the columns are.
#[derive(ToSchema)]
#[schema(as = FeastMetadata)]
struct Metadata {
    feature_names: Vec<String>,
}

/// A join key or a feature, one value for each row.
#[derive(ToSchema)]
#[schema(as = FeastColumn)]
struct Column {
    values: Vec<Value>,
    /// `PRESENT`, `NULL_VALUE`, `NOT_FOUND` or `OUTSIDE_MAX_AGE`.
    statuses: Vec<String>,
    event_timestamps: Vec<String>,
}

/// The body of `POST /push`.
#[derive(ToSchema)]
#[schema(as = PushRequest)]
struct Pushing {
    /// The source.
    push_source_name: String,
    /// For each column of the source the values of the rows.
    df: BTreeMap<String, Vec<Value>>,
    /// Where to: `online`, `offline` or `online_and_offline`, which is meant where it is left out.
    to: Option<String>,
}

/// The body of `POST /write-to-online-store`.
#[derive(ToSchema)]
#[schema(as = WriteRequest)]
struct Writing {
    /// The feature view.
    feature_view_name: String,
    /// For each column of the view's source the values of the rows.
    df: BTreeMap<String, Vec<Value>>,
}

/// Features of entities, in Feast's form, as of now.
#[utoipa::path(
    post,
    path = "/get-online-features",
    tag = "feast",
    request_body = Asked,
    responses((status = 200, description = "The features", body = Answer), Problems)
)]
pub(super) fn get_online_features() {}

/// Adds rows to a source, and writes them online under each of its views.
#[utoipa::path(
    post,
    path = "/push",
    tag = "feast",
    request_body = Pushing,
    responses((status = 200, description = "What became of the rows", body = Object), Problems)
)]
pub(super) fn push() {}

/// Writes rows of a view online, and nowhere else.
#[utoipa::path(
    post,
    path = "/write-to-online-store",
    tag = "feast",
    request_body = Writing,
    responses((status = 200, description = "What became of the rows", body = Object), Problems)
)]
pub(super) fn write_to_online_store() {}
