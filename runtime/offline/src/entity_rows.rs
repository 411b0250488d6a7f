//! Entity rows: the rows for which a training set is built.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::error::DataFusionError;
use futures::TryStreamExt;
use unskew_core::plan::{EVENT_TIMESTAMP, FeaturePlan};
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::coerce;

use crate::entity_csv;
use crate::error::{EntityRowsProblem, OfflineError};
use crate::files::SourceFile;
use crate::footers::{footer, reason};
use crate::offline::{CHUNK_ROWS, Offline};
use crate::scan::parquet_scan;

/// Entity rows, checked against a plan: every column that it needs is there, in its type.
///
/// Their own columns are kept as they came.
#[derive(Clone, Debug)]
pub struct EntityRows {
    schema: SchemaRef,
    /// The names and types of the plan's inputs, in the order of [`EntityChunk::inputs`].
    input_schema: SchemaRef,
    chunks: Vec<EntityChunk>,
}

/// A few thousand entity rows.
#[derive(Clone, Debug)]
pub(crate) struct EntityChunk {
    /// All columns, as they came.
    pub(crate) own: RecordBatch,
    /// `event_timestamp`, then the plan's join keys, then its request fields: each in its type.
    pub(crate) inputs: Vec<ArrayRef>,
}

impl EntityRows {
    /// The rows of a batch.
    ///
    /// # Errors
    /// A column that the plan needs is missing, a name occurs twice or is that of an output, a
    /// value is none of its column's type, or an event timestamp is null.
    pub fn from_batch(plan: &FeaturePlan, batch: &RecordBatch) -> Result<Self, OfflineError> {
        let in_memory = |problem| OfflineError::entity_rows(None, problem);
        let mut rows = Checked::new(plan, batch.schema()).map_err(in_memory)?;
        rows.add(batch).map_err(in_memory)?;
        Ok(rows.finish())
    }

    /// The schema of the rows' own columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.own.num_rows()).sum()
    }

    /// What the plan needs of the rows: `event_timestamp`, then its join keys, then its request
    /// fields, each in its type.
    ///
    /// # Errors
    /// A column takes more than 2 GiB.
    pub fn inputs(&self) -> Result<RecordBatch, OfflineError> {
        let chunks: Vec<RecordBatch> = self
            .chunks
            .iter()
            .map(|chunk| RecordBatch::try_new(Arc::clone(&self.input_schema), chunk.inputs.clone()))
            .collect::<Result<_, _>>()
            .map_err(DataFusionError::from)?;
        Ok(concat_batches(&self.input_schema, &chunks).map_err(DataFusionError::from)?)
    }

    pub(crate) fn chunks(&self) -> &[EntityChunk] {
        &self.chunks
    }
}

impl Offline {
    /// Reads entity rows from a file, by the ending of its name: `.parquet` or `.csv`.
    ///
    /// The first line of a CSV file has the names of the columns. The columns that the plan needs
    /// are read as values of its types, an empty field as null, and come out as such; of the
    /// others the type is inferred from all their values, text where any other would change one.
    /// INT96 of a Parquet file comes as microseconds, other columns in the types that the file has.
    ///
    /// # Errors
    /// The file cannot be read; or as those of [`EntityRows::from_batch`].
    pub async fn read_entity_rows(
        &self,
        plan: &FeaturePlan,
        path: &Path,
    ) -> Result<EntityRows, OfflineError> {
        let in_file = |problem| OfflineError::entity_rows(Some(path), problem);
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        if extension == "csv" {
            let (file, needed) = (path.to_owned(), needed(plan));
            let read = move || entity_csv::read(&file, &needed);
            let (schema, batches) = tokio::task::spawn_blocking(read).await??;
            let mut rows = Checked::new(plan, schema).map_err(in_file)?;
            for batch in &batches {
                rows.add(batch).map_err(in_file)?;
            }
            Ok(rows.finish())
        } else if extension == "parquet" {
            let file = footer(&self.task_context(), SourceFile::at(path.to_owned())?).await?;
            let mut rows = Checked::new(plan, Arc::clone(&file.schema)).map_err(in_file)?;
            let scan = parquet_scan(&Arc::clone(&file.schema), vec![file], None)?;
            let mut batches = scan.execute(0, self.task_context())?;
            loop {
                let batch =
                    batches
                        .try_next()
                        .await
                        .map_err(|error| OfflineError::UnreadableFile {
                            file: path.to_owned(),
                            reason: reason(&error),
                        })?;
                match batch {
                    Some(batch) => rows.add(&batch).map_err(in_file)?,
                    None => return Ok(rows.finish()),
                }
            }
        } else {
            Err(in_file(EntityRowsProblem::UnknownFormat))
        }
    }
}

/// The columns that a plan needs, in the order of [`EntityChunk::inputs`].
pub(crate) fn needed(plan: &FeaturePlan) -> Vec<(String, DataType)> {
    let event = (
        EVENT_TIMESTAMP.to_owned(),
        DataType::Scalar(ScalarType::Timestamp),
    );
    let declared = plan.join_keys.iter().chain(&plan.request_fields);
    std::iter::once(event)
        .chain(declared.map(|field| (field.name.clone(), field.data_type)))
        .collect()
}

/// Entity rows in the making.
struct Checked {
    schema: SchemaRef,
    /// What the plan needs, and where it is in the schema.
    needed: Vec<(String, DataType, usize)>,
    chunks: Vec<EntityChunk>,
    rows: usize,
}

impl Checked {
    fn new(plan: &FeaturePlan, schema: SchemaRef) -> Result<Self, EntityRowsProblem> {
        let names = || schema.fields().iter().map(|field| field.name());
        let mut seen = BTreeSet::new();
        if let Some(twice) = names().find(|name| !seen.insert(name.as_str())) {
            return Err(EntityRowsProblem::DuplicateColumn(twice.clone()));
        }
        if let Some(output) = plan.outputs.iter().find(|o| seen.contains(o.name.as_str())) {
            return Err(EntityRowsProblem::OutputName(output.name.clone()));
        }
        let mut missing = Vec::new();
        let mut found = Vec::new();
        for (name, data_type) in needed(plan) {
            match names().position(|there| *there == name) {
                Some(index) => found.push((name, data_type, index)),
                None => missing.push(name),
            }
        }
        if !missing.is_empty() {
            let there = names().cloned().collect();
            return Err(EntityRowsProblem::MissingColumns { missing, there });
        }
        Ok(Self {
            // What a file's writer said of the whole file is not true of a file with more columns.
            schema: Arc::new(Schema::new(schema.fields().clone())),
            needed: found,
            chunks: Vec::new(),
            rows: 0,
        })
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), EntityRowsProblem> {
        let mut start = 0;
        while start < batch.num_rows() {
            let length = CHUNK_ROWS.min(batch.num_rows() - start);
            let own = RecordBatch::try_new(
                Arc::clone(&self.schema),
                batch.slice(start, length).columns().to_vec(),
            )
            .map_err(|error| EntityRowsProblem::Unreadable(error.to_string()))?;
            let inputs = self.inputs(&own)?;
            self.chunks.push(EntityChunk { own, inputs });
            self.rows += length;
            start += length;
        }
        Ok(())
    }

    fn inputs(&self, own: &RecordBatch) -> Result<Vec<ArrayRef>, EntityRowsProblem> {
        let inputs = self
            .needed
            .iter()
            .map(|(name, data_type, index)| {
                coerce(own.column(*index), *data_type).map_err(|mut error| {
                    error.row += self.rows;
                    EntityRowsProblem::Value {
                        column: name.clone(),
                        error,
                    }
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let times = inputs
            .first()
            .and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        if let Some(row) = times.and_then(|t| (0..t.len()).find(|&row| t.is_null(row))) {
            return Err(EntityRowsProblem::NullTimestamp((self.rows + row) as u64));
        }
        Ok(inputs)
    }

    fn finish(self) -> EntityRows {
        let inputs = self.needed.iter().map(|(name, data_type, _)| {
            Field::new(name, data_type.arrow(), name != EVENT_TIMESTAMP)
        });
        EntityRows {
            schema: self.schema,
            input_schema: Arc::new(Schema::new(inputs.collect::<Vec<_>>())),
            chunks: self.chunks,
        }
    }
}
