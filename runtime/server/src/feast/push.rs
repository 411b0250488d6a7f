//! `POST /push` and `POST /write-to-online-store`: rows of a source or a view, column by column.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType as ArrowType, Field, Schema};
use axum::body::Bytes;
use axum::extract::{Request as HttpRequest, State as Extracted};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::value::RawValue;
use tracing::Instrument;
use unskew_core::project::Project;
use unskew_core::types::DataType;
use unskew_core::view::Source;
use unskew_offline::{AppendProblem, OfflineError, PushedRows, RowProblem};
use unskew_store::{Push, PushTarget, PushTo, Pushed, StoreError};

use super::refusal::Refusal;
use super::request::{member, values};
use crate::error::{Problem, json};
use crate::object::Object;
use crate::request::list;
use crate::state::State;
use crate::work::{INLINE_BYTES, Turn, off_the_worker};
use crate::{body, clock, work};

/// The names of timestamps in what Feast's client writes, whatever the source calls them.
const EVENT: &str = "event_timestamp";
const CREATED: &str = "created";

/// How many rows that cannot be read are named.
const NAMED: usize = 100;

/// Where rows are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    target: PushTarget,
    to: PushTo,
}

impl Sent {
    /// To all views of a source; where it is not said, to the source and online, so that what is
    /// served can be trained on.
    ///
    /// # Errors
    /// There is no such place.
    pub(crate) fn to_source(name: String, to: Option<&str>) -> Result<Self, Problem> {
        let to = match to.filter(|to| !to.is_empty()) {
            None => PushTo::default(),
            Some(to) => to.parse().map_err(|_| Problem::Form {
                field: "to".to_owned(),
                found: format!("`{}`", crate::object::shortened(to)),
                valid: "online, offline or online_and_offline".to_owned(),
            })?,
        };
        Ok(Self {
            target: PushTarget::Source(name),
            to,
        })
    }

    /// To a view, online only, as the name of Feast's operation says.
    pub(crate) fn to_view(name: String) -> Self {
        Self {
            target: PushTarget::View(name),
            to: PushTo::Online,
        }
    }

    /// The source whose rows they are.
    fn source<'a>(&self, project: &'a Project) -> Option<&'a Source> {
        match &self.target {
            PushTarget::Source(name) => project.sources.get(name).map(|source| &source.value),
            PushTarget::View(name) => project.views.get(name).map(|view| &view.value.view.source),
        }
    }
}

/// Rows that are sent.
pub(crate) enum Rows {
    /// As JSON.
    Json {
        /// For each column a list.
        columns: Vec<(String, Box<RawValue>)>,
        /// What they were read of; the room that it takes is theirs.
        body: Bytes,
    },
    /// As columns.
    Columns(PushedRows),
}

/// Answers with what became of rows that are pushed to a source.
pub(crate) async fn push(
    Extracted(state): Extracted<State>,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    written(&state, request, |body| {
        let name = member(body, "push_source_name", "the name of a source")?;
        let to: Option<String> = member(body, "to", "a text")?;
        let name = name.ok_or_else(|| Problem::Missing {
            field: "push_source_name".to_owned(),
            what: "the name of the source whose rows are pushed".to_owned(),
        })?;
        Sent::to_source(name, to.as_deref())
    })
    .await
}

/// Answers with what became of rows that are written to a view online.
pub(crate) async fn write_to_online_store(
    Extracted(state): Extracted<State>,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    written(&state, request, |body| {
        let name = member(body, "feature_view_name", "the name of a feature view")?;
        name.map(Sent::to_view).ok_or_else(|| Problem::Missing {
            field: "feature_view_name".to_owned(),
            what: "the name of the feature view whose rows are written".to_owned(),
        })
    })
    .await
}

async fn written(
    state: &State,
    request: HttpRequest,
    sent: impl FnOnce(&Object<'_>) -> Result<Sent, Problem> + Send + 'static,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts, body, state.settings()).await?;
    let pushed = async {
        let mut turn = Turn::take(state).await?;
        let (sent, rows) = if body.len() <= INLINE_BYTES {
            rows(body, sent)?
        } else {
            let (back, read) = turn.off_the_worker(async { rows(body, sent) }).await?;
            turn = back;
            read
        };
        send(state, turn, sent, rows).await
    };
    let pushed = work::in_time(state, pushed).await?;
    let pushed = serde_json::to_vec(&pushed).map_err(|e| Problem::Internal(e.to_string()))?;
    Ok(json(StatusCode::OK, pushed))
}

/// Reads a body: where its rows are sent, and their columns.
fn rows(
    text: Bytes,
    sent: impl FnOnce(&Object<'_>) -> Result<Sent, Problem>,
) -> Result<(Sent, Rows), Problem> {
    let body = Object::of_body(&text)?;
    let rows = body.get("df").ok_or_else(|| Problem::Missing {
        field: "df".to_owned(),
        what: "for each column of the rows a list of its values".to_owned(),
    })?;
    let columns = Object::of_member(rows, "df")?;
    let columns = columns.members().iter();
    let columns = columns.map(|(name, values)| (name.to_string(), (*values).to_owned()));
    let columns = columns.collect();
    let sent = sent(&body)?;
    drop(body);
    let body = text;
    Ok((sent, Rows::Json { columns, body }))
}

/// Sends rows, and says what became of them.
///
/// # Errors
/// They do not fit their source or view, or cannot be written.
pub(crate) async fn send(
    state: &State,
    turn: Turn,
    sent: Sent,
    rows: Rows,
) -> Result<Pushed, Problem> {
    let now = clock::now();
    let served = Arc::clone(&state.served());
    let limit = state.settings().rows;
    let state = state.clone();
    // A client that goes away ends the waiting, and not the writing halfway.
    let work = async move {
        let (pusher, applied) = served.pusher(&state).await?;
        let source = sent.source(applied.project());
        let rows = match rows {
            Rows::Columns(rows) => rows,
            Rows::Json { columns, body } => {
                let types = pusher.columns(&sent.target, sent.to).await?;
                let columns = named(columns, &sent.target, source, |name| {
                    types.iter().any(|(known, _)| known == name)
                });
                let name = source.map_or_else(String::new, |source| source.name.clone());
                let is_small = body.len() <= INLINE_BYTES;
                let read = async move {
                    let read = read(columns, &types, &name, limit);
                    drop(body);
                    read.map(PushedRows::Typed)
                };
                if is_small {
                    read.await?
                } else {
                    off_the_worker(read).await?
                }
            }
        };
        let push = Push {
            target: sent.target,
            rows,
            to: sent.to,
            now,
        };
        let pushed = pusher.push(push).await?;
        state.watch().pushed(&pushed);
        drop(turn);
        Ok(pushed)
    };
    tokio::spawn(work.in_current_span())
        .await
        .unwrap_or_else(|_| Err(work::panicked()))
}

/// The columns with the source's own names of timestamps, where they have those that Feast's client
/// gives them whatever the source is. Rows of a source have its columns first: where it has one of
/// such a name, that is meant. A created timestamp that is not known, or that the source does not
/// have, is left out.
fn named(
    columns: Vec<(String, Box<RawValue>)>,
    target: &PushTarget,
    source: Option<&Source>,
    is_known: impl Fn(&str) -> bool,
) -> Vec<(String, Box<RawValue>)> {
    let Some(source) = source else {
        return columns;
    };
    let names: BTreeSet<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let mut renamed = Vec::with_capacity(columns.len());
    for (name, values) in columns {
        let is_created = source.created_timestamp_column.as_deref() == Some(&*name);
        let is_own = matches!(target, PushTarget::Source(_)) && is_known(&name) && !is_created;
        let own = match &*name {
            _ if is_own => None,
            EVENT => Some(&source.timestamp_field),
            CREATED => source.created_timestamp_column.as_ref(),
            _ => None,
        };
        match own {
            None if name == CREATED && !is_known(CREATED) => {}
            Some(_) if name == CREATED && is_unknown(&values) => {}
            Some(own) if !names.contains(own) => renamed.push((own.clone(), values)),
            _ => renamed.push((name, values)),
        }
    }
    renamed
}

/// Whether all values of a list are null.
fn is_unknown(values: &RawValue) -> bool {
    serde_json::from_str::<Vec<Option<serde::de::IgnoredAny>>>(values.get())
        .is_ok_and(|values| values.iter().all(Option::is_none))
}

/// Reads columns of JSON as rows; what is no column of the source is left to be refused by it.
fn read(
    columns: Vec<(String, Box<RawValue>)>,
    types: &[(String, DataType)],
    source: &str,
    limit: usize,
) -> Result<RecordBatch, Problem> {
    let mut length = crate::request::Length::new(limit);
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    let mut refused = Vec::new();
    for (name, raw) in &columns {
        let path = format!("df.{name}");
        let rows = list(&path, raw)?.len();
        length.take(&path, rows)?;
        let known = types.iter().find(|(known, _)| known == name);
        let array: ArrayRef = match known {
            None => new_null_array(&ArrowType::Utf8, rows),
            Some((_, data_type)) => match values(&path, raw, *data_type) {
                Ok(array) => array,
                Err(Problem::Value { .. }) => {
                    refused.extend(refused_rows(name, raw, *data_type)?);
                    new_null_array(&data_type.arrow(), rows)
                }
                Err(other) => return Err(other),
            },
        };
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    if !refused.is_empty() {
        refused.sort_by_key(|problem: &RowProblem| problem.row);
        let is_cut = refused.len() > NAMED;
        refused.truncate(NAMED);
        let problem = AppendProblem::Rows {
            rows: refused,
            is_cut,
        };
        return Err(StoreError::from(OfflineError::Append {
            name: source.to_owned(),
            problem: Box::new(problem),
        })
        .into());
    }
    let options = RecordBatchOptions::new().with_row_count(Some(length.given().unwrap_or(0)));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| Problem::Internal(error.to_string()))
}

/// The values of a column that are none of its type, with their rows; one more than are named.
fn refused_rows(
    name: &str,
    raw: &RawValue,
    data_type: DataType,
) -> Result<Vec<RowProblem>, Problem> {
    let path = format!("df.{name}");
    let mut refused = Vec::new();
    for (row, value) in list(&path, raw)?.into_iter().enumerate() {
        let alone = RawValue::from_string(format!("[{}]", value.get()));
        let alone = alone.map_err(|error| Problem::Internal(error.to_string()))?;
        if let Err(Problem::Value { source, .. }) = values(&path, &alone, data_type) {
            refused.push(RowProblem {
                row,
                column: Some(name.to_owned()),
                message: format!("{} is no {}{}", source.value, source.wanted, source.hint),
            });
            if refused.len() > NAMED {
                break;
            }
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use unskew_core::time::Mode;

    use super::*;

    fn renamed(columns: &[&str], target: &PushTarget, source: &Source, known: &[&str]) -> String {
        let list = || RawValue::from_string("[1]".to_owned()).unwrap();
        let columns = columns.iter().map(|name| ((*name).to_owned(), list()));
        let named = named(columns.collect(), target, Some(source), |name| {
            known.contains(&name)
        });
        let names: Vec<String> = named.into_iter().map(|(name, _)| name).collect();
        names.join(" ")
    }

    #[test]
    fn timestamps_of_feasts_client_are_the_sources_unless_it_has_such_columns() {
        let source = Source {
            name: "users".to_owned(),
            path: "data".to_owned(),
            timestamp_field: "happened_at".to_owned(),
            created_timestamp_column: Some("known_at".to_owned()),
            point_in_time: Mode::Event,
            late_by: 0,
            columns: BTreeMap::new(),
            partition: None,
        };
        let rows = PushTarget::Source("users".to_owned());
        let view = PushTarget::View("users".to_owned());
        let of_client = ["event_timestamp", "created", "x"];
        for target in [&rows, &view] {
            let named = renamed(&of_client, target, &source, &["x"]);
            assert_eq!(named, "happened_at known_at x");
            let own = ["happened_at", "known_at", "x"];
            assert_eq!(renamed(&own, target, &source, &own), own.join(" "));
        }
        // When an account was made is not when its row became known, nor is that when it happened.
        let known = ["happened_at", "known_at", "event_timestamp", "created", "x"];
        for columns in [&["happened_at", "created"][..], &of_client] {
            let named = renamed(columns, &rows, &source, &known);
            assert_eq!(named, columns.join(" "));
        }
        // What the client writes to a view has its names.
        let named = renamed(&of_client, &view, &source, &known);
        assert_eq!(named, "happened_at known_at x");
        // A created timestamp that the source does not have is left out.
        let without = Source {
            created_timestamp_column: None,
            ..source
        };
        let named = renamed(&of_client, &rows, &without, &["x"]);
        assert_eq!(named, "happened_at x");
    }
}
