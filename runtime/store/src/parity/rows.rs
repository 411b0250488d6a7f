//! The rows on which the two paths are compared.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{concat, take};
use arrow::datatypes::{Field as ArrowField, Schema};
use unskew_core::plan::{EVENT_TIMESTAMP, FeaturePlan, Lookup};
use unskew_core::row;
use unskew_core::types::{DataType, Field, ScalarType, UTC};
use unskew_offline::Offline;
use unskew_online::{OnlineStore, ViewKey};

use crate::applied::Applied;
use crate::error::StoreError;

/// Makes the same rows in each run.
const SEED: u64 = 0x756e_736b_6577;

/// The rows of a file, all at one instant.
pub(super) async fn of_file(
    offline: &Offline,
    plan: &FeaturePlan,
    file: &Path,
    as_of: i64,
) -> Result<RecordBatch, StoreError> {
    let entities = offline.read_entity_rows(plan, file).await?;
    let inputs = entities.inputs()?;
    // The first column is that of their own timestamps.
    batch(
        plan,
        inputs.columns()[1..].to_vec(),
        as_of,
        inputs.num_rows(),
    )
}

fn batch(
    plan: &FeaturePlan,
    mut columns: Vec<ArrayRef>,
    as_of: i64,
    rows: usize,
) -> Result<RecordBatch, StoreError> {
    let inputs = plan.join_keys.iter().chain(&plan.request_fields);
    let mut fields: Vec<ArrowField> = inputs
        .map(|f| ArrowField::new(&f.name, f.data_type.arrow(), true))
        .collect();
    let instant = ScalarType::Timestamp.arrow();
    fields.insert(0, ArrowField::new(EVENT_TIMESTAMP, instant, false));
    let instants = TimestampMicrosecondArray::from(vec![as_of; rows]).with_timezone(UTC);
    columns.insert(0, Arc::new(instants));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| StoreError::RequestPath(error.to_string()))
}

/// Where join keys come from: in thirds from the history, from the store, and made up.
pub(super) struct Sources<'a> {
    pub(super) offline: &'a Offline,
    pub(super) applied: &'a Applied,
    pub(super) online: &'a dyn OnlineStore,
}

impl Sources<'_> {
    pub(super) async fn make_up(
        &self,
        plan: &FeaturePlan,
        rows: usize,
        as_of: i64,
    ) -> Result<RecordBatch, StoreError> {
        let mut random = Random(fastrand::Rng::with_seed(SEED));
        let mut columns: Vec<Option<ArrayRef>> = vec![None; plan.join_keys.len()];
        // Those with most keys first: their keys belong together.
        let mut lookups: Vec<&Lookup> = plan.lookups.iter().collect();
        lookups.sort_by_key(|lookup| std::cmp::Reverse(lookup.keys.len()));
        for lookup in lookups {
            if lookup.keys.iter().all(|&key| columns[key].is_some()) {
                continue;
            }
            let keys = self.keys(lookup, rows, &mut random).await?;
            for (&key, column) in lookup.keys.iter().zip(keys) {
                columns[key].get_or_insert(column);
            }
        }
        let made_up = |field: &Field, random: &mut Random| random.column(field.data_type, rows);
        let mut inputs = Vec::new();
        for (key, column) in plan.join_keys.iter().zip(columns) {
            inputs.push(match column {
                Some(column) => column,
                None => made_up(key, &mut random)?,
            });
        }
        for field in &plan.request_fields {
            inputs.push(made_up(field, &mut random)?);
        }
        batch(plan, inputs, as_of, rows)
    }

    /// The join keys of a lookup, one column for each, of `rows` rows.
    async fn keys(
        &self,
        lookup: &Lookup,
        rows: usize,
        random: &mut Random,
    ) -> Result<Vec<ArrayRef>, StoreError> {
        let view = &lookup.view;
        let third = rows.div_ceil(3);
        let components = self.applied.components();
        let history = self
            .offline
            .sample_keys(view, components, third, Arc::new(()))
            .await?;
        let history = history.columns();
        let key = ViewKey::of(&self.applied.project().name, view);
        let stored = self.online.sample_keys(&key, third, SEED).await?;
        let stored = row::decode_keys(stored.iter().map(Vec::as_slice), &view.key_types())
            .map_err(|error| StoreError::RequestPath(error.to_string()))?;
        let mut columns = Vec::with_capacity(view.keys.len());
        // Rows of the three kinds in turn, so that lookups of one row are of different kinds.
        let offset = random.below(3);
        let picks: Vec<(usize, u64)> = (0..rows)
            .map(|row| ((row + offset) % 3, random.next()))
            .collect();
        for (index, view_key) in view.keys.iter().enumerate() {
            let made_up = random.column(DataType::Scalar(view_key.data_type), third.max(1))?;
            let pools = [&history[index], &stored[index], &made_up];
            let starts = [0, pools[0].len(), pools[0].len() + pools[1].len()];
            let arrays: Vec<&dyn Array> = pools.iter().map(|pool| pool.as_ref()).collect();
            let refused =
                |error: arrow::error::ArrowError| StoreError::RequestPath(error.to_string());
            let all = concat(&arrays).map_err(refused)?;
            let indices: arrow::array::UInt64Array = picks
                .iter()
                .map(|&(kind, pick)| {
                    // An empty history or store leaves its share to what is made up.
                    let kind = if pools[kind].is_empty() { 2 } else { kind };
                    Some((starts[kind] as u64) + pick % pools[kind].len() as u64)
                })
                .collect();
            columns.push(take(&all, &indices, None).map_err(refused)?);
        }
        Ok(columns)
    }
}

/// A generator with a fixed seed: parity asks for the same rows in each run.
struct Random(fastrand::Rng);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// A column of made-up values: mostly small and plausible ones, some extreme, some null.
    fn column(&mut self, data_type: DataType, rows: usize) -> Result<ArrayRef, StoreError> {
        let texts: arrow::array::StringArray = (0..rows)
            .map(|_| (self.below(20) != 0).then(|| self.text(data_type)))
            .collect();
        unskew_core::values::from_text(&texts, data_type)
            .map_err(|error| StoreError::RequestPath(error.to_string()))
    }

    /// A value as text, as `values::from_text` reads it.
    fn text(&mut self, data_type: DataType) -> String {
        match data_type {
            DataType::Scalar(scalar) => self.scalar(scalar, false),
            DataType::List(scalar) => {
                let items: Vec<String> = (0..self.below(4))
                    .map(|_| self.scalar(scalar, true))
                    .collect();
                format!("[{}]", items.join(","))
            }
        }
    }

    fn scalar(&mut self, scalar: ScalarType, quoted: bool) -> String {
        const TEXTS: [&str; 6] = ["", "a", "A longer text, with spaces", "Zürich", "𝒳 🛫", "0"];
        const INSTANTS: [&str; 3] = [
            "0001-01-01T00:00:00Z",
            "2001-03-01T12:00:00.000001Z",
            "9999-12-31T23:59:59.999999Z",
        ];
        const BYTES: [&str; 3] = ["", "AA==", "/wA="];
        let extreme = self.below(10) == 0;
        let text = match scalar {
            ScalarType::Bool => return (self.below(2) == 0).to_string(),
            ScalarType::Int32 if extreme => return [i32::MIN, i32::MAX][self.below(2)].to_string(),
            ScalarType::Int64 if extreme => return [i64::MIN, i64::MAX][self.below(2)].to_string(),
            ScalarType::Int32 | ScalarType::Int64 => {
                return (self.below(2_000) as i64 - 500).to_string();
            }
            ScalarType::Float32 | ScalarType::Float64 if extreme => {
                match ["NaN", "Infinity", "-Infinity", "-0.0", "1e-45", "5e-324"][self.below(6)] {
                    "5e-324" if scalar == ScalarType::Float32 => return "1e-45".to_owned(),
                    finite if finite.starts_with(['1', '5', '-']) && finite != "-Infinity" => {
                        return finite.to_owned();
                    }
                    other => other.to_owned(),
                }
            }
            ScalarType::Float32 | ScalarType::Float64 => {
                return format!("{:.3}", self.below(2_000_000) as f64 / 1_000.0 - 500.0);
            }
            ScalarType::String => match TEXTS[self.below(6)] {
                "" => String::new(),
                text => format!("{text}{}", self.below(1_000)),
            },
            ScalarType::Bytes => BYTES[self.below(3)].to_owned(),
            ScalarType::Timestamp => INSTANTS[self.below(3)].to_owned(),
        };
        if quoted {
            serde_json::Value::from(text).to_string()
        } else {
            text
        }
    }
}
