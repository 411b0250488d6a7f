//! From what was served to rows of a file.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::compute::concat;
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::file::metadata::KeyValue;
use unskew_core::digest::Digest;
use unskew_core::plan::{EVENT_TIMESTAMP, FeaturePlan};
use unskew_core::types::{ScalarType, UTC};
use unskew_engine::Evaluated;
use unskew_offline::{COMPONENTS, PLAN, PLAN_DIGEST};
use unskew_store::RequestRows;

use crate::watch::request::Context;

/// What the log has to know of a plan. Names with `@` or a colon cannot meet a name of a
/// definition.
pub(crate) struct Logged {
    /// `SERVICE/PLAN`.
    pub(super) folder: PathBuf,
    pub(super) schema: SchemaRef,
    /// What a training set's file says of its plan.
    pub(super) metadata: Vec<KeyValue>,
    digest: String,
    keys: usize,
    request: usize,
    outputs: usize,
}

impl Logged {
    pub(crate) fn new(service: &str, plan: &FeaturePlan, digest: Digest) -> Self {
        let field = |name: String, data_type: ArrowType, nullable| {
            Arc::new(Field::new(name, data_type, nullable))
        };
        let timestamp = ScalarType::Timestamp.arrow();
        let mut fields = vec![field(EVENT_TIMESTAMP.to_owned(), timestamp.clone(), false)];
        for asked in plan.join_keys.iter().chain(&plan.request_fields) {
            fields.push(field(asked.name.clone(), asked.data_type.arrow(), true));
        }
        for output in &plan.outputs {
            let name = format!("served:{}", output.name);
            fields.push(field(name, output.data_type.arrow(), true));
        }
        for output in &plan.outputs {
            let name = format!("status:{}", output.name);
            fields.push(field(name, ArrowType::Utf8, false));
        }
        fields.push(field("@request_id".to_owned(), ArrowType::Utf8, true));
        fields.push(field("@served_at".to_owned(), timestamp, false));
        fields.push(field("@plan".to_owned(), ArrowType::Utf8, false));
        let json = |value: serde_json::Result<String>| value.unwrap_or_default();
        let metadata = [
            (PLAN_DIGEST, digest.to_string()),
            (PLAN, json(serde_json::to_string(plan))),
            (COMPONENTS, json(serde_json::to_string(&plan.components()))),
        ];
        Self {
            folder: PathBuf::from(service).join(digest.short()),
            schema: Arc::new(Schema::new(fields)),
            metadata: metadata
                .map(|(key, value)| KeyValue::new(key.to_owned(), value))
                .to_vec(),
            digest: digest.to_string(),
            keys: plan.join_keys.len(),
            request: plan.request_fields.len(),
            outputs: plan.outputs.len(),
        }
    }

    /// The rows of several requests, in their order.
    ///
    /// # Errors
    /// They are not of this plan, or have more text than a column holds.
    pub(super) fn batch(&self, records: &[Record]) -> Result<RecordBatch, ArrowError> {
        let rows = records.iter().map(Record::rows).sum();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        let instants: Vec<ArrayRef> = records
            .iter()
            .map(|record| Arc::new(record.asked.as_of.clone().with_timezone(UTC)) as ArrayRef)
            .collect();
        columns.push(joined(&mut instants.iter())?);
        for key in 0..self.keys {
            let mut keys = records.iter().filter_map(|r| r.asked.keys.get(key));
            columns.push(joined(&mut keys)?);
        }
        for field in 0..self.request {
            let mut fields = records.iter().filter_map(|r| r.asked.request.get(field));
            columns.push(joined(&mut fields)?);
        }
        for output in 0..self.outputs {
            let mut served = records
                .iter()
                .filter_map(|r| r.evaluated.batch.columns().get(output));
            columns.push(joined(&mut served)?);
        }
        for output in 0..self.outputs {
            let statuses = records
                .iter()
                .filter_map(|r| r.evaluated.statuses.get(output))
                .flat_map(|statuses| statuses.iter());
            let names: Vec<&str> = statuses.map(|status| status.name()).collect();
            columns.push(Arc::new(StringArray::from(names)));
        }
        let mut ids = StringBuilder::with_capacity(rows, rows * 32);
        let mut times = Vec::with_capacity(rows);
        for record in records {
            let id = record.context.as_ref().map(Context::id);
            for _ in 0..record.rows() {
                ids.append_option(id);
                times.push(record.served_at);
            }
        }
        columns.push(Arc::new(ids.finish()));
        columns.push(Arc::new(
            TimestampMicrosecondArray::from(times).with_timezone(UTC),
        ));
        let digests = std::iter::repeat_n(&self.digest, rows);
        columns.push(Arc::new(StringArray::from_iter_values(digests)));
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn joined(columns: &mut dyn Iterator<Item = &ArrayRef>) -> Result<ArrayRef, ArrowError> {
    let columns: Vec<&dyn Array> = columns.map(|column| &**column).collect();
    concat(&columns)
}

/// What was served to one request.
pub(super) struct Record {
    pub(super) logged: Arc<Logged>,
    /// How many bytes of memory it takes.
    pub(super) bytes: usize,
    context: Option<Context>,
    asked: RequestRows,
    evaluated: Evaluated,
    /// In microseconds since 1970.
    served_at: i64,
}

impl Record {
    pub(super) fn new(
        logged: &Arc<Logged>,
        context: Option<&Context>,
        asked: RequestRows,
        evaluated: Evaluated,
        served_at: i64,
    ) -> Self {
        let asked_bytes: usize = asked
            .keys
            .iter()
            .chain(&asked.request)
            .map(|column| column.get_array_memory_size())
            .sum();
        let statuses = evaluated.statuses.len() * asked.as_of.len();
        Self {
            logged: Arc::clone(logged),
            bytes: size_of::<Self>()
                + asked_bytes
                + statuses
                + evaluated.batch.get_array_memory_size(),
            context: context.cloned(),
            asked,
            evaluated,
            served_at,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.asked.as_of.len()
    }
}
