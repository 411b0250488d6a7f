//! Parity: the same rows through the training path and through the request path, compared by bits.

mod rows;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use async_trait::async_trait;
use serde::Serialize;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_core::{json, row};
use unskew_engine::{EvaluateError, Failure};
use unskew_offline::{EntityRows, JoinedRows, Offline};
use unskew_online::{OnlineStore, ViewKey, ViewState};

use crate::applied::{Applied, Features};
use crate::error::StoreError;
use crate::feature_store::FeatureStore;
use crate::materialize::{gaps, unfinished};
use crate::responder::{RequestRows, Responder};

pub use self::stored::Marked;
use self::stored::{Stored, merged};

/// A comparison to be made.
#[derive(Clone, Debug)]
pub struct Parity {
    /// The feature service.
    pub service: String,
    /// The instant, in microseconds since 1970; `None`: the latest watermark of its views.
    pub as_of: Option<i64>,
    /// How many rows are made up where no entity rows are given.
    pub rows: usize,
    /// A file of entity rows, whose own timestamps do not matter.
    pub entities: Option<PathBuf>,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParityReport {
    /// The plan that was run on both sides.
    pub plan: Digest,
    /// The instant, in microseconds since 1970.
    pub as_of: i64,
    /// How many rows were compared: those on which no component failed.
    pub rows: u64,
    /// How many features of each row.
    pub features: u64,
    /// How many values of the training path are not null: where it is 0, nothing was compared.
    pub present: u64,
    /// How many rows and features differ.
    pub differences: u64,
    /// The first differences.
    pub first: Vec<Difference>,
    /// On how many further rows a component failed on both sides, with the same message.
    pub failed_alike: u64,
    /// What it said on the first of them.
    pub first_failure: Option<String>,
    /// How many rows of history each view has that are newer than what is materialized.
    pub lag: BTreeMap<String, u64>,
    /// How many of the rows were compared at an instant of their own, later than `as_of`: of these
    /// the store holds rows that were pushed since the last materialization.
    pub ahead: u64,
    /// How many rows were not compared, since the store holds rows of them that were pushed, and
    /// history has newer ones that are not materialized.
    pub lagging: u64,
    /// By view, the entities that were not compared since their row was pushed online only: no
    /// source has it.
    pub online_only: BTreeMap<String, Marked>,
    /// By view, the entities that were not compared since they were deleted online.
    pub deleted: BTreeMap<String, Marked>,
}

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The row.
    pub row: u64,
    /// Its join keys and request fields, as JSON.
    pub input: String,
    /// The feature; `*` where one side has no row at all.
    pub feature: String,
    /// What the training path gives, as JSON.
    pub training: String,
    /// What the request path gives, as JSON.
    pub request: String,
}

impl ParityReport {
    /// Whether the two paths agree, and not because a component failed on every row for which
    /// there is a value.
    pub fn is_equal(&self) -> bool {
        self.differences == 0 && (self.present > 0 || self.failed_alike == 0)
    }

    /// Counts a difference, and keeps it if it is one of the first.
    fn differ(&mut self, difference: Difference) {
        self.differences += 1;
        if self.first.len() < SHOWN {
            self.first.push(difference);
        }
    }
}

/// How many differences a report holds.
const SHOWN: usize = 10;

/// A way to ask for features as a client does.
#[async_trait]
pub trait RequestPath: Send + Sync {
    /// The outputs for `rows`, in the plan's order and of its types.
    ///
    /// # Errors
    /// A component failed on a row, or no answer came.
    async fn answer(
        &self,
        plan: &FeaturePlan,
        rows: &RequestRows,
    ) -> Result<RecordBatch, RequestError>;
}

/// Why the request path gave no features.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A component failed on a row.
    #[error("{message}")]
    Transformation {
        /// The failure, with its provenance.
        message: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The request path within this process.
#[async_trait]
impl RequestPath for Responder {
    async fn answer(
        &self,
        _plan: &FeaturePlan,
        rows: &RequestRows,
    ) -> Result<RecordBatch, RequestError> {
        match Self::answer(self, rows).await {
            Ok(evaluated) => Ok(evaluated.batch),
            Err(StoreError::Evaluate(EvaluateError::Failure(failure))) => {
                Err(RequestError::Transformation {
                    message: failure.to_string(),
                })
            }
            Err(error) => Err(RequestError::Other(error.to_string())),
        }
    }
}

impl FeatureStore {
    /// Builds the same rows once through the training path and once through the request path
    /// (`None`: the one within this process), and compares them by bits.
    ///
    /// # Errors
    /// The service is none or is not served online; its views are not materialized, or with a
    /// gap; `as_of` lies before a watermark; either path cannot be had.
    pub async fn parity(
        &self,
        request: Parity,
        path: Option<&dyn RequestPath>,
    ) -> Result<ParityReport, StoreError> {
        let applied = self.applied().await?;
        let features = Features::Service(request.service.clone());
        let online = self.online()?;
        let responder = Responder::new(&applied, &features, Arc::clone(&online))?;
        let states = states(&applied, responder.plan(), &*online).await?;
        let as_of = as_of(request.as_of, &states)?;
        let offline = self.offline();
        let rows = match &request.entities {
            Some(file) => rows::of_file(&offline, responder.plan(), file, as_of).await?,
            None => {
                let sources = rows::Sources {
                    offline: &offline,
                    applied: &applied,
                    online: &*online,
                };
                sources
                    .make_up(responder.plan(), request.rows, as_of)
                    .await?
            }
        };
        let comparison = Comparison {
            offline: &offline,
            applied: &applied,
            responder: &responder,
            online: &*online,
            path: path.unwrap_or(&responder),
            until: states
                .iter()
                .filter_map(|(view, state)| Some((view.clone(), state.watermark?)))
                .collect(),
        };
        comparison.run(rows, as_of).await
    }
}

/// The state of each view of the plan, none of which has a gap or is being materialized.
async fn states(
    applied: &Applied,
    plan: &FeaturePlan,
    online: &dyn OnlineStore,
) -> Result<BTreeMap<String, ViewState>, StoreError> {
    let mut states = BTreeMap::new();
    for lookup in &plan.lookups {
        let view = lookup.view.name.clone();
        let state = online
            .state(&ViewKey::of(&applied.project().name, &lookup.view))
            .await?;
        let state = state.filter(ViewState::is_materialized);
        let Some(state) = state else {
            return Err(StoreError::NotMaterialized { view });
        };
        if let Some(gap) = gaps(&state).first().copied() {
            return Err(StoreError::Gap { view, gap });
        }
        if let Some(end) = unfinished(&state) {
            return Err(StoreError::Unfinished { view, end });
        }
        states.insert(view, state);
    }
    Ok(states)
}

/// The instant at which both sides are asked: none before a watermark, since the store holds only
/// the newest row of a key.
fn as_of(wanted: Option<i64>, states: &BTreeMap<String, ViewState>) -> Result<i64, StoreError> {
    let latest = states
        .iter()
        .filter_map(|(view, state)| Some((state.watermark?, view)))
        .max();
    match (wanted, latest) {
        (Some(as_of), Some((watermark, view))) if as_of < watermark => {
            Err(StoreError::BeforeWatermark {
                as_of,
                watermark,
                view: view.clone(),
            })
        }
        (Some(as_of), _) => Ok(as_of),
        (None, Some((watermark, _))) => Ok(watermark),
        // A service without views: any instant does.
        (None, None) => Ok(0),
    }
}

struct Comparison<'a> {
    offline: &'a Offline,
    applied: &'a Applied,
    responder: &'a Responder,
    online: &'a dyn OnlineStore,
    path: &'a dyn RequestPath,
    /// How far each view is materialized.
    until: BTreeMap<String, i64>,
}

impl Comparison<'_> {
    async fn run(&self, rows: RecordBatch, as_of: i64) -> Result<ParityReport, StoreError> {
        let plan = self.responder.plan();
        let mut report = ParityReport {
            plan: self.responder.digest(),
            as_of,
            rows: 0,
            features: plan.outputs.len() as u64,
            present: 0,
            differences: 0,
            first: Vec::new(),
            failed_alike: 0,
            first_failure: None,
            lag: BTreeMap::new(),
            ahead: 0,
            lagging: 0,
            online_only: BTreeMap::new(),
            deleted: BTreeMap::new(),
        };
        let (rows, joined, left_out) = self.joined(rows, as_of, &mut report).await?;
        // The rows that are left, by their index: those on which a component fails are taken out
        // one by one, after it was seen to fail on the other side too.
        let mut left: Vec<u64> = (0..rows.num_rows() as u64)
            .filter(|row| !left_out.contains(row))
            .collect();
        let training = loop {
            let batch = select(&joined, &left)?;
            let evaluator = Arc::clone(self.responder.evaluator());
            match tokio::task::spawn_blocking(move || evaluator.evaluate(&batch)).await? {
                Ok(evaluated) => break evaluated.batch,
                Err(EvaluateError::Failure(failure)) => {
                    let Some(at) = failure.row.filter(|row| *row < left.len()) else {
                        return Err(StoreError::Evaluate(EvaluateError::Failure(failure)));
                    };
                    let row = left.remove(at);
                    self.fails_alike(&rows, row, &failure, &mut report).await?;
                }
                Err(error) => return Err(error.into()),
            }
        };
        report.rows = left.len() as u64;
        let requested = select(&rows, &left)?;
        match self
            .path
            .answer(plan, &request_rows(plan, &requested)?)
            .await
        {
            Ok(answer) => compare(plan, &requested, &left, &training, &answer, &mut report),
            Err(RequestError::Other(message)) => return Err(StoreError::RequestPath(message)),
            Err(RequestError::Transformation { .. }) => {
                self.one_by_one(&requested, &left, &training, &mut report)
                    .await?;
            }
        }
        Ok(report)
    }

    /// The rows, each at its instant, and the joined batch of the training path for them; and which
    /// of them are not to be compared.
    ///
    /// What was pushed since a materialization lies beyond the watermark, and the store holds no
    /// older row of the key. So such a row is compared from when it is available, and without a
    /// bound.
    async fn joined(
        &self,
        rows: RecordBatch,
        as_of: i64,
        report: &mut ParityReport,
    ) -> Result<(RecordBatch, RecordBatch, BTreeSet<u64>), StoreError> {
        let plan = self.responder.plan();
        let keys = request_rows(plan, &rows)?.keys;
        let count = rows.num_rows();
        let project = &self.applied.project().name;
        let stored = Stored::look(plan, project, self.online, &self.until, &keys, count).await?;
        let mut columns = rows.columns().to_vec();
        if let Some(instants) = columns.first_mut() {
            *instants = Arc::new(stored.instants(as_of, count));
        }
        let rows = RecordBatch::try_new(rows.schema(), columns)
            .map_err(|error| StoreError::RequestPath(error.to_string()))?;
        let ahead: Vec<u64> = stored.ahead.keys().copied().collect();
        let covered: Vec<u64> = (0..count as u64)
            .filter(|row| !stored.ahead.contains_key(row))
            .collect();
        let bounds: Vec<Option<i64>> = plan
            .lookups
            .iter()
            .map(|lookup| self.until.get(&lookup.view.name).copied())
            .collect();
        let joined = self.join(&select(&rows, &covered)?, &bounds).await?;
        let lookups = plan.lookups.iter().map(|lookup| lookup.view.name.clone());
        report.lag = lookups.zip(joined.lag).collect();
        let mut joined = joined.batch;
        let mut left_out = stored.left_out.clone();
        if !ahead.is_empty() {
            let newer = self.join(&select(&rows, &ahead)?, &[]).await?.batch;
            let lagging = stored.lagging(plan, &newer, &self.until);
            report.lagging = lagging.len() as u64;
            report.ahead = ahead.len() as u64 - report.lagging;
            left_out.extend(lagging);
            joined = merged((&joined, &covered), (&newer, &ahead))?;
        }
        report.online_only = stored.online_only;
        report.deleted = stored.deleted;
        Ok((rows, joined, left_out))
    }

    /// Asks the request path for each row alone: it fails on one on which the training path did
    /// not.
    async fn one_by_one(
        &self,
        rows: &RecordBatch,
        indices: &[u64],
        training: &RecordBatch,
        report: &mut ParityReport,
    ) -> Result<(), StoreError> {
        let plan = self.responder.plan();
        for (at, index) in indices.iter().enumerate() {
            let row = rows.slice(at, 1);
            let training = training.slice(at, 1);
            match self.path.answer(plan, &request_rows(plan, &row)?).await {
                Ok(answer) => compare(plan, &row, &[*index], &training, &answer, report),
                Err(RequestError::Other(message)) => return Err(StoreError::RequestPath(message)),
                Err(RequestError::Transformation { message }) => {
                    report.differ(Difference {
                        row: *index,
                        input: shown_inputs(&row, 0),
                        feature: "*".to_owned(),
                        training: "features".to_owned(),
                        request: message,
                    });
                }
            }
        }
        Ok(())
    }

    /// The joined batch of the training path.
    async fn join(
        &self,
        rows: &RecordBatch,
        until: &[Option<i64>],
    ) -> Result<JoinedRows, StoreError> {
        let plan = self.responder.plan();
        let entities = EntityRows::from_batch(plan, rows)?;
        let components = self.applied.components();
        Ok(self
            .offline
            .joined_rows(plan, components, &entities, until, Arc::new(()))
            .await?)
    }

    /// Asks the request path for a row on which the training path failed.
    async fn fails_alike(
        &self,
        rows: &RecordBatch,
        row: u64,
        failure: &Failure,
        report: &mut ParityReport,
    ) -> Result<(), StoreError> {
        let plan = self.responder.plan();
        let batch = select(rows, &[row])?;
        let request = match self.path.answer(plan, &request_rows(plan, &batch)?).await {
            Err(RequestError::Transformation { message }) if message.contains(&failure.message) => {
                report.failed_alike += 1;
                report
                    .first_failure
                    .get_or_insert_with(|| failure.to_string());
                return Ok(());
            }
            Err(RequestError::Transformation { message }) => message,
            Err(RequestError::Other(message)) => return Err(StoreError::RequestPath(message)),
            Ok(_) => "features".to_owned(),
        };
        report.differ(Difference {
            row,
            input: shown_inputs(&batch, 0),
            feature: "*".to_owned(),
            training: failure.to_string(),
            request,
        });
        Ok(())
    }
}

fn select(rows: &RecordBatch, indices: &[u64]) -> Result<RecordBatch, StoreError> {
    take_record_batch(rows, &UInt64Array::from(indices.to_vec()))
        .map_err(|error| StoreError::RequestPath(error.to_string()))
}

/// The entity rows as a request: their columns are those that `rows` makes.
fn request_rows(plan: &FeaturePlan, batch: &RecordBatch) -> Result<RequestRows, StoreError> {
    use arrow::array::AsArray;
    let column = |name: &str| -> Result<ArrayRef, StoreError> {
        let column = batch.column_by_name(name).map(Arc::clone);
        column.ok_or_else(|| StoreError::RequestPath(format!("no column `{name}`")))
    };
    Ok(RequestRows {
        as_of: column(unskew_core::plan::EVENT_TIMESTAMP)?
            .as_primitive()
            .clone(),
        keys: plan
            .join_keys
            .iter()
            .map(|key| column(&key.name))
            .collect::<Result<_, _>>()?,
        request: plan
            .request_fields
            .iter()
            .map(|f| column(&f.name))
            .collect::<Result<_, _>>()?,
    })
}

/// Counts and shows the values that differ by a bit, or by being null.
fn compare(
    plan: &FeaturePlan,
    rows: &RecordBatch,
    indices: &[u64],
    training: &RecordBatch,
    request: &RecordBatch,
    report: &mut ParityReport,
) {
    for (column, output) in plan.outputs.iter().enumerate() {
        let (training, request) = (training.column(column), request.column(column));
        report.present += (training.len() - training.null_count()) as u64;
        let (mut one, mut other) = (Vec::new(), Vec::new());
        for (at, &row) in indices.iter().enumerate() {
            one.clear();
            other.clear();
            // The stored form of a value tells every bit of it, and null from any value.
            row::encode(std::slice::from_ref(training), at, 0, None, &mut one);
            row::encode(std::slice::from_ref(request), at, 0, None, &mut other);
            if one == other {
                continue;
            }
            report.differ(Difference {
                row,
                input: shown_inputs(rows, at),
                feature: output.name.clone(),
                training: json::display(training, at),
                request: json::display(request, at),
            });
        }
    }
}

fn shown_inputs(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let values =
        columns.map(|(field, column)| format!("{}: {}", field.name(), json::display(column, row)));
    values.collect::<Vec<_>>().join(", ")
}
