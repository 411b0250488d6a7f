//! `GetOnlineFeatures`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use prost_types::Timestamp;
use unskew_core::plan::FeaturePlan;
use unskew_core::types::Field;
use unskew_engine::{Evaluated, Status};
use unskew_feast_proto::serving::get_online_features_request::Kind;
use unskew_feast_proto::serving::get_online_features_response::FeatureVector;
use unskew_feast_proto::serving::{
    FeatureList, FeatureViewMetadata, FieldStatus, GetOnlineFeaturesRequest,
    GetOnlineFeaturesResponse, GetOnlineFeaturesResponseMetadata,
};
use unskew_feast_proto::types::RepeatedValue;
use unskew_store::RequestRows;

use super::value;
use crate::clock;
use crate::error::Problem;
use crate::feast::{Column, Features, Given, Origin, Wanted, columns, events, rows, status};
use crate::state::State;
use crate::work::{Asked, INLINE_ROWS, Turn};

/// Answers a request.
///
/// # Errors
/// It does not fit the features that it asks for, or they cannot be had.
pub(super) async fn answered(
    state: &State,
    request: GetOnlineFeaturesRequest,
) -> Result<GetOnlineFeaturesResponse, Problem> {
    let mut turn = Turn::take(state).await?;
    let now = clock::now();
    let mut given = request
        .entities
        .values()
        .chain(request.request_context.values());
    let (columns, views, asked) = if given.all(|values| values.val.len() <= INLINE_ROWS) {
        read(state, request, now)?
    } else {
        let state = state.clone();
        let asked = turn.off_the_worker(async move { read(&state, request, now) });
        let (back, asked) = asked.await?;
        turn = back;
        asked
    };
    turn.answer(asked, move |asked, evaluated| {
        answer(asked.service.plan(), columns, &asked.rows, evaluated, views)
    })
    .await
}

/// What is asked for, the columns of the answer, and whether it names its views.
fn read(
    state: &State,
    request: GetOnlineFeaturesRequest,
    now: i64,
) -> Result<(Vec<Column>, bool, Asked), Problem> {
    let features = match request.kind {
        Some(Kind::FeatureService(service)) => Features::Service(service),
        Some(Kind::Features(FeatureList { val })) if !val.is_empty() => Features::Named(val),
        Some(Kind::Features(_)) | None => return Err(Problem::FeaturesOrService(false)),
    };
    let wanted = Wanted {
        features,
        full_feature_names: request.full_feature_names,
        views: request.include_feature_view_version_metadata,
    };
    let given = Columns::new(request.entities, request.request_context)?;
    let served = Arc::clone(&state.served());
    let service = wanted.answers(&served)?;
    let plan = service.plan();
    let rows = rows(&given, plan, now, state.settings().rows)?;
    // A map has no order: the keys come in that of the plan.
    let columns = columns(plan, 0..plan.join_keys.len(), wanted.full_feature_names)?;
    Ok((columns, wanted.views, Asked { service, rows }))
}

/// The columns of a request, join keys and request data alike.
struct Columns(BTreeMap<String, RepeatedValue>);

impl Columns {
    fn new(
        mut entities: BTreeMap<String, RepeatedValue>,
        context: BTreeMap<String, RepeatedValue>,
    ) -> Result<Self, Problem> {
        for (name, values) in context {
            if entities.contains_key(&name) {
                return Err(Problem::Duplicate(format!("request_context.{name}")));
            }
            entities.insert(name, values);
        }
        Ok(Self(entities))
    }
}

impl Given for Columns {
    fn rows(&self) -> Option<usize> {
        self.0.values().next().map(|values| values.val.len())
    }

    fn column(&self, field: &Field) -> Result<Option<ArrayRef>, Problem> {
        let Some(values) = self.0.get(&field.name) else {
            return Ok(None);
        };
        value::column(&values.val, field.data_type)
            .map(Some)
            .map_err(|source| Problem::Value {
                field: format!("entities.{}", field.name),
                source,
            })
    }
}

fn answer(
    plan: &FeaturePlan,
    columns: Vec<Column>,
    rows: &RequestRows,
    evaluated: &Evaluated,
    views: bool,
) -> Result<GetOnlineFeaturesResponse, Problem> {
    let count = rows.as_of.len();
    let events = events(&columns, evaluated);
    let views = events.keys().filter(|_| views);
    let views = views.filter_map(|&lookup| {
        Some(FeatureViewMetadata {
            name: plan.lookups.get(lookup)?.name.clone(),
            version: 0,
        })
    });
    let views = views.collect();
    let none = vec![Timestamp::default(); count];
    let events: BTreeMap<usize, Vec<Timestamp>> = events
        .iter()
        .map(|(&lookup, events)| (lookup, events.iter().copied().map(timestamp).collect()))
        .collect();
    let vector = |column: &Column| -> Result<FeatureVector, Problem> {
        let (values, statuses, events) = match column.origin {
            Origin::Key(key) => (&rows.keys[key], None, &none),
            Origin::Output { output, lookup } => (
                evaluated.batch.column(output),
                Some(&evaluated.statuses[output]),
                lookup.and_then(|l| events.get(&l)).unwrap_or(&none),
            ),
        };
        Ok(FeatureVector {
            values: value::values(values)?,
            statuses: (0..count)
                .map(|row| {
                    let found = statuses.map_or(Status::Present, |statuses| statuses[row]);
                    field_status(found).into()
                })
                .collect(),
            event_timestamps: events.clone(),
        })
    };
    let results = columns.iter().map(vector).collect::<Result<_, _>>()?;
    Ok(GetOnlineFeaturesResponse {
        metadata: Some(GetOnlineFeaturesResponseMetadata {
            feature_names: Some(FeatureList {
                val: columns.into_iter().map(|column| column.name).collect(),
            }),
            feature_view_metadata: views,
        }),
        results,
        status: true,
    })
}

fn field_status(found: Status) -> FieldStatus {
    match status(found) {
        Status::Present => FieldStatus::Present,
        Status::NullValue => FieldStatus::NullValue,
        Status::OutsideMaxAge => FieldStatus::OutsideMaxAge,
        Status::NotFound | Status::InFuture | Status::NotMaterialized => FieldStatus::NotFound,
    }
}

/// An instant of microseconds; the first of 1970 where there is none.
fn timestamp(micros: Option<i64>) -> Timestamp {
    const SECOND: i64 = 1_000_000;
    let micros = micros.unwrap_or_default();
    Timestamp {
        seconds: micros.div_euclid(SECOND),
        nanos: i32::try_from(micros.rem_euclid(SECOND) * 1_000).unwrap_or_default(),
    }
}
