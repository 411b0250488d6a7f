//! Entity rows: the rows for which a training set is built.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use unskew_core::plan::{EVENT_TIMESTAMP, FeaturePlan};
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::coerce;

use crate::entity_chunks::{Budget, EntityChunk, EntityChunks, EntityChunksBuilder, Needed};
use crate::error::{EntityRowsProblem, OfflineError};
use crate::offline::{CHUNK_ROWS, Offline};

/// Entity rows, checked against a plan: every column that it needs is there, in its type.
///
/// Their own columns are kept as they came. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EntityRows {
    schema: SchemaRef,
    /// The names and types of the plan's inputs, in the order of [`EntityChunk::inputs`].
    input_schema: SchemaRef,
    chunks: Arc<EntityChunks>,
}

impl EntityRows {
    /// The rows of a batch.
    ///
    /// # Errors
    /// A column that the plan needs is missing, a name occurs twice or is that of an output, a
    /// value is none of its column's type, or an event timestamp is null.
    pub fn from_batch(plan: &FeaturePlan, batch: &RecordBatch) -> Result<Self, OfflineError> {
        let mut rows = Checked::new(plan, batch.schema(), Budget::default(), None)?;
        rows.add(batch)?;
        rows.finish()
    }

    /// The schema of the rows' own columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.chunks.rows()
    }

    /// What the plan needs of the rows: `event_timestamp`, then its join keys, then its request
    /// fields, each in its type.
    ///
    /// # Errors
    /// A column takes more than 2 GiB.
    pub fn inputs(&self) -> Result<RecordBatch, OfflineError> {
        let chunks: Vec<RecordBatch> = (0..self.chunk_count())
            .map(|index| {
                let inputs = self.chunk(index)?.inputs;
                Ok(RecordBatch::try_new(
                    Arc::clone(&self.input_schema),
                    inputs,
                )?)
            })
            .collect::<Result<_, OfflineError>>()?;
        Ok(concat_batches(&self.input_schema, &chunks)?)
    }

    /// How many chunks there are: each of [`CHUNK_ROWS`] rows, but the last.
    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The chunk of that index. Blocks if it has to be read from a temporary file.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(crate) fn chunk(&self, index: usize) -> Result<EntityChunk, OfflineError> {
        self.chunks.get(index)
    }
}

impl Offline {
    /// How much of the entity rows is held in memory: a quarter of all that may be.
    pub(crate) fn entity_budget(&self) -> Budget {
        let disk = || Arc::clone(&self.task_context().runtime_env().disk_manager);
        let limit = self.settings().memory_limit;
        Budget {
            limit: limit.map(|limit| (limit / 4, disk())),
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
pub(crate) struct Checked {
    schema: SchemaRef,
    needed: Vec<Needed>,
    chunks: EntityChunksBuilder,
    /// Rows that do not make a chunk yet.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    /// Where they are read, for errors.
    place: Option<PathBuf>,
    /// The files of which that consists, and how many rows come before each.
    files: Vec<(usize, PathBuf)>,
    /// How many rows these have.
    rows_said: usize,
}

impl Checked {
    /// For rows of that schema, held up to `budget`; errors name `place`.
    ///
    /// # Errors
    /// A column that the plan needs is missing, or a name occurs twice or is that of an output.
    pub(crate) fn new(
        plan: &FeaturePlan,
        schema: SchemaRef,
        budget: Budget,
        place: Option<&Path>,
    ) -> Result<Self, OfflineError> {
        let wrong = |problem| OfflineError::entity_rows(place, problem);
        let names = || schema.fields().iter().map(|field| field.name());
        let mut seen = BTreeSet::new();
        if let Some(twice) = names().find(|name| !seen.insert(name.as_str())) {
            return Err(wrong(EntityRowsProblem::DuplicateColumn(twice.clone())));
        }
        if let Some(output) = plan.outputs.iter().find(|o| seen.contains(o.name.as_str())) {
            return Err(wrong(EntityRowsProblem::OutputName(output.name.clone())));
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
            return Err(wrong(EntityRowsProblem::MissingColumns { missing, there }));
        }
        Ok(Self {
            // What a file's writer said of the whole file is not true of a file with more columns.
            schema: Arc::new(Schema::new(schema.fields().clone())),
            needed: found,
            chunks: EntityChunksBuilder::new(budget),
            pending: Vec::new(),
            pending_rows: 0,
            place: place.map(Path::to_owned),
            files: Vec::new(),
            rows_said: 0,
        })
    }

    /// Says that the next `count` rows are those of `file`, with columns of these names; errors of
    /// them name it. All files are said before their rows are added.
    ///
    /// # Errors
    /// A column that the plan needs is not among them.
    pub(crate) fn begin_file<'a>(
        &mut self,
        file: &Path,
        count: u64,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), OfflineError> {
        let there: Vec<&str> = names.collect();
        let needed = self.needed.iter().map(|(name, ..)| name);
        let missing: Vec<String> = needed
            .filter(|name| !there.contains(&name.as_str()))
            .cloned()
            .collect();
        if !missing.is_empty() {
            let there = there.into_iter().map(str::to_owned).collect();
            let problem = EntityRowsProblem::MissingColumns { missing, there };
            return Err(OfflineError::entity_rows(Some(file), problem));
        }
        self.files.push((self.rows_said, file.to_owned()));
        self.rows_said += usize::try_from(count).unwrap_or(usize::MAX);
        Ok(())
    }

    /// Adds rows, whose columns are those of the schema.
    ///
    /// # Errors
    /// A value is none of its column's type, an event timestamp is null, or a temporary file
    /// cannot be written.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), OfflineError> {
        let mut start = 0;
        while start < batch.num_rows() {
            let wanted = CHUNK_ROWS - self.pending_rows;
            let length = wanted.min(batch.num_rows() - start);
            let columns = batch.slice(start, length).columns().to_vec();
            let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)
                .map_err(|error| self.unreadable(&error))?;
            self.pending.push(rows);
            self.pending_rows += length;
            start += length;
            if length == wanted {
                self.complete_chunk()?;
            }
        }
        Ok(())
    }

    /// Makes a chunk of the rows that are pending.
    fn complete_chunk(&mut self) -> Result<(), OfflineError> {
        self.pending_rows = 0;
        let pending = std::mem::take(&mut self.pending);
        let own = match pending.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            several => {
                concat_batches(&self.schema, several).map_err(|error| self.unreadable(&error))?
            }
        };
        let inputs = self.inputs(&own)?;
        self.chunks.push(EntityChunk { own, inputs })
    }

    fn inputs(&self, own: &RecordBatch) -> Result<Vec<ArrayRef>, OfflineError> {
        let before = self.chunks.rows();
        let inputs = self
            .needed
            .iter()
            .map(|(name, data_type, index)| {
                coerce(own.column(*index), *data_type).map_err(|mut error| {
                    self.wrong_row(before + error.row, |row| {
                        error.row = row;
                        let column = name.clone();
                        EntityRowsProblem::Value { column, error }
                    })
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let times = inputs
            .first()
            .and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        if let Some(times) = times.filter(|times| times.null_count() > 0)
            && let Some(row) = (0..times.len()).find(|&row| times.is_null(row))
        {
            return Err(self.wrong_row(before + row, |row| {
                EntityRowsProblem::NullTimestamp(row as u64)
            }));
        }
        Ok(inputs)
    }

    /// The error of a row, counted in its file.
    fn wrong_row(
        &self,
        row: usize,
        problem: impl FnOnce(usize) -> EntityRowsProblem,
    ) -> OfflineError {
        let file = self.files.iter().rfind(|(before, _)| *before <= row);
        match file {
            Some((before, file)) => OfflineError::entity_rows(Some(file), problem(row - before)),
            None => self.wrong(problem(row)),
        }
    }

    fn wrong(&self, problem: EntityRowsProblem) -> OfflineError {
        OfflineError::entity_rows(self.place.as_deref(), problem)
    }

    fn unreadable(&self, error: &ArrowError) -> OfflineError {
        self.wrong(EntityRowsProblem::Unreadable(error.to_string()))
    }

    /// The rows that were added.
    ///
    /// # Errors
    /// As those of [`Self::add`].
    pub(crate) fn finish(mut self) -> Result<EntityRows, OfflineError> {
        self.complete_chunk()?;
        let inputs = self.needed.iter().map(|(name, data_type, _)| {
            Field::new(name, data_type.arrow(), name != EVENT_TIMESTAMP)
        });
        Ok(EntityRows {
            input_schema: Arc::new(Schema::new(inputs.collect::<Vec<_>>())),
            schema: self.schema,
            chunks: Arc::new(self.chunks.finish(self.needed)?),
        })
    }
}
