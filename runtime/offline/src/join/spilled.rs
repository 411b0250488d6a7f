//! The join for more entity rows than fit into memory: in parts by key, by way of temporary files.
//!
//! ```text
//! entity rows ─ hash of the key ─▶ part 0 │ part 1 │ …      their keys and instants
//! history ───── hash of the key ─▶ part 0 │ part 1 │ …      the view's rows that may count
//!                                    │         │            each part joined as one that fits
//!                                    ▼         ▼
//!                              what was found, in the order of the part's entity rows
//!                                    └────┬────┘
//!                                       merged into the order of all entity rows
//! ```
//!
//! Every file is written once and read once. As within memory, the greatest row wins, so the result
//! is the same to the bit.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, UInt8Array, UInt32Array, new_null_array,
};
use arrow::compute::{concat_batches, interleave, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{DiskManager, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use hashbrown::DefaultHashBuilder;
use tokio::sync::mpsc;
use unskew_core::plan::found;
use unskew_core::time::availability;

use super::counts::Counts;
use super::keys::each_hash;
use super::parallel::{self, Cancelled, map};
use super::probe::{Admission, Prober};
use super::slots::{SlotsBuilder, TooMany};
use super::temporary::{Spill, SpillReader, SpillWriter};
use super::winners::Winners;
use super::{Join, carried};
use crate::error::OfflineError;
use crate::offline::CHUNK_ROWS;
use crate::schema::plain;
use crate::view_rows::ViewBatch;

/// In place of a part, for an entity row with a null join key.
const NO_PART: u8 = u8::MAX;

/// The most parts there can be.
pub(crate) const MOST_PARTS: usize = 128;

/// How many temporary files may be open at once: a process has often no more than 1,024.
pub(crate) const MOST_FILES: usize = 512;

/// How many rows wait for a part until they are written, if there are many parts.
const LEAST_ROWS: usize = 512;

/// How rows are dealt out to parts.
#[derive(Clone, Debug)]
struct Parts {
    count: usize,
    hasher: DefaultHashBuilder,
}

impl Parts {
    /// The part of each of `rows` keys.
    fn of(&self, keys: &[ArrayRef], rows: usize) -> Vec<u8> {
        let mut parts = Vec::with_capacity(rows);
        each_hash(keys, rows, &self.hasher, |hash| {
            // There are fewer parts than a byte counts. Hash tables use the lowest bits and the
            // highest, parts those between.
            parts.push(hash.map_or(NO_PART, |hash| ((hash >> 24) % self.count as u64) as u8));
        });
        parts
    }
}

/// Temporary files, one for each part, written batch by batch.
struct Writers {
    disk: Arc<DiskManager>,
    schema: SchemaRef,
    files: Vec<Part>,
    /// How many rows of a part are written at once.
    batch_rows: usize,
}

#[derive(Default)]
struct Part {
    file: Option<SpillWriter>,
    /// Rows that are too few for a batch of their own.
    waiting: Vec<RecordBatch>,
    rows: usize,
}

impl Writers {
    fn new(disk: &Arc<DiskManager>, schema: SchemaRef, count: usize) -> Self {
        Self {
            disk: Arc::clone(disk),
            schema,
            files: (0..count).map(|_| Part::default()).collect(),
            // What waits is memory that nobody counts.
            batch_rows: (4 * CHUNK_ROWS / count.max(1)).clamp(LEAST_ROWS, CHUNK_ROWS),
        }
    }

    /// Adds the rows of `batch` to the parts to which `parts` assigns them.
    fn add(&mut self, batch: &RecordBatch, parts: &[u8]) -> Result<(), OfflineError> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.files.len()];
        for (row, &part) in parts.iter().enumerate() {
            if let Some(rows) = rows.get_mut(usize::from(part)) {
                rows.push(row as u32);
            }
        }
        for (part, rows) in rows.into_iter().enumerate() {
            if !rows.is_empty() {
                let rows = take_record_batch(batch, &UInt32Array::from(rows))?;
                self.push(part, rows)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, part: usize, batch: RecordBatch) -> Result<(), OfflineError> {
        let waiting = &mut self.files[part];
        waiting.rows += batch.num_rows();
        waiting.waiting.push(batch);
        if waiting.rows >= self.batch_rows {
            self.write(part)?;
        }
        Ok(())
    }

    fn write(&mut self, part: usize) -> Result<(), OfflineError> {
        let waiting = &mut self.files[part];
        let batch = concat_batches(&self.schema, &waiting.waiting)?;
        waiting.waiting.clear();
        waiting.rows = 0;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let file = match &mut waiting.file {
            Some(file) => file,
            None => {
                let file = SpillWriter::create(&self.disk, &self.schema)?;
                waiting.file.insert(file)
            }
        };
        file.write(&batch)
    }

    /// The files; `None` for a part without rows.
    fn finish(mut self) -> Result<Vec<Option<Spill>>, OfflineError> {
        let mut files = Vec::with_capacity(self.files.len());
        for part in 0..self.files.len() {
            self.write(part)?;
            let file = self.files[part].file.take();
            files.push(file.map(SpillWriter::finish).transpose()?);
        }
        Ok(files)
    }
}

/// Collects entity rows in temporary files.
pub(crate) struct SpilledBuilder {
    disk: Arc<DiskManager>,
    parts: Parts,
    sets: Vec<SpilledSet>,
    /// The files of the last set, while rows are added to it.
    writers: Option<Writers>,
}

/// The entity rows of a lookup, in temporary files.
#[derive(Debug, Default)]
struct SpilledSet {
    /// The part of each row.
    part_of_row: Vec<u8>,
    /// The keys and instants of each part's rows, in their order.
    files: Vec<Option<Spill>>,
}

/// Entity rows in temporary files.
#[derive(Debug)]
pub(crate) struct SpilledRows {
    parts: Parts,
    sets: Vec<SpilledSet>,
}

impl SpilledRows {
    /// How many entity rows a set has.
    pub(crate) fn rows(&self) -> usize {
        self.sets.first().map_or(0, |set| set.part_of_row.len())
    }
}

impl SpilledBuilder {
    /// No entity rows yet; they will be dealt out to `parts` parts.
    pub(crate) fn new(disk: &Arc<DiskManager>, parts: usize) -> Self {
        Self {
            disk: Arc::clone(disk),
            parts: Parts {
                count: parts.clamp(1, MOST_PARTS),
                hasher: DefaultHashBuilder::default(),
            },
            sets: Vec::new(),
            writers: None,
        }
    }

    /// Begins the next entity set.
    pub(crate) fn begin(&mut self) -> Result<(), OfflineError> {
        self.end()?;
        self.sets.push(SpilledSet::default());
        Ok(())
    }

    /// Adds entity rows to the set: their join keys in the view's types, and their instants.
    pub(crate) fn add(&mut self, keys: &[ArrayRef], times: &ArrayRef) -> Result<(), OfflineError> {
        let mut columns = keys.to_vec();
        columns.push(Arc::clone(times));
        let fields = columns.iter().zip(0..);
        let fields = fields.map(|(column, index)| {
            let name = format!("{index}");
            plain(&name, column.data_type().clone())
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let writers = self
            .writers
            .get_or_insert_with(|| Writers::new(&self.disk, Arc::clone(&schema), self.parts.count));
        let parts = self.parts.of(keys, times.len());
        writers.add(&RecordBatch::try_new(schema, columns)?, &parts)?;
        if let Some(set) = self.sets.last_mut() {
            set.part_of_row.extend(parts);
        }
        Ok(())
    }

    /// The rows that were added.
    pub(crate) fn finish(mut self) -> Result<SpilledRows, OfflineError> {
        self.end()?;
        Ok(SpilledRows {
            parts: self.parts,
            sets: self.sets,
        })
    }

    fn end(&mut self) -> Result<(), OfflineError> {
        if let (Some(writers), Some(set)) = (self.writers.take(), self.sets.last_mut()) {
            set.files = writers.finish()?;
        }
        Ok(())
    }
}

/// What was found, chunk by chunk, on its way to the output partitions.
#[derive(Debug)]
pub(crate) struct Spilled {
    receivers: Mutex<Vec<Option<mpsc::Receiver<DataFusionResult<RecordBatch>>>>>,
    /// Ends with this.
    _merging: SpawnedTask<()>,
}

impl Spilled {
    /// The chunks of an output partition; they can be taken once.
    pub(crate) fn take(
        &self,
        partition: usize,
    ) -> Option<mpsc::Receiver<DataFusionResult<RecordBatch>>> {
        let mut receivers = self
            .receivers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        receivers.get_mut(partition)?.take()
    }
}

/// Joins part after part, as many at once as there are threads.
pub(crate) async fn join(
    input: &Arc<dyn ExecutionPlan>,
    join: &Arc<Join>,
    rows: &Arc<SpilledRows>,
    counts: &Counts,
    context: &Arc<TaskContext>,
) -> DataFusionResult<Spilled> {
    let disk = Arc::clone(&context.runtime_env().disk_manager);
    let history = spill_history(input, join, &rows.parts, counts, context).await?;
    let (joined, asked, counts) = (Arc::clone(join), Arc::clone(rows), counts.clone());
    let work = move |cancelled: &Cancelled| {
        let parts: Vec<usize> = (0..asked.parts.count).collect();
        map(joined.threads, &parts, cancelled, |&part| {
            join_part(&joined, &asked, &history, part, &counts, &disk, cancelled)
        })
    };
    let found = parallel::blocking(work).await??;

    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..join.threads).map(|_| mpsc::channel(1)).unzip();
    let merge = Merge::new(join, rows, &found)?;
    Ok(Spilled {
        receivers: Mutex::new(receivers.into_iter().map(Some).collect()),
        _merging: SpawnedTask::spawn_blocking(move || merge.run(&senders, found)),
    })
}

/// The files of all parts of a history: several of a part, one for each partition of the input.
struct SpilledHistory(Vec<Vec<Spill>>);

/// Deals out the history to parts.
async fn spill_history(
    input: &Arc<dyn ExecutionPlan>,
    join: &Arc<Join>,
    parts: &Parts,
    counts: &Counts,
    context: &Arc<TaskContext>,
) -> DataFusionResult<SpilledHistory> {
    let partitions = input.properties().partitioning.partition_count();
    let mut tasks = Vec::with_capacity(partitions);
    for partition in 0..partitions {
        let stream = input.execute(partition, Arc::clone(context))?;
        let disk = &context.runtime_env().disk_manager;
        let writers = Writers::new(disk, input.schema(), parts.count);
        let (join, parts, counts) = (Arc::clone(join), parts.clone(), counts.clone());
        tasks.push(SpawnedTask::spawn(async move {
            spill_partition(stream, &join, &parts, writers, &counts).await
        }));
    }
    let mut files: Vec<Vec<Spill>> = (0..parts.count).map(|_| Vec::new()).collect();
    for task in tasks {
        let of_partition = task.await.map_err(OfflineError::from)??;
        for (files, file) in files.iter_mut().zip(of_partition) {
            files.extend(file);
        }
    }
    Ok(SpilledHistory(files))
}

async fn spill_partition(
    mut stream: SendableRecordBatchStream,
    join: &Join,
    parts: &Parts,
    mut writers: Writers,
    counts: &Counts,
) -> Result<Vec<Option<Spill>>, OfflineError> {
    let admission = join.admission();
    let last = join.asked.span.map_or(i64::MIN, |(_, last)| last);
    while let Some(batch) = stream.try_next().await? {
        counts.read.add(batch.num_rows());
        let rows = ViewBatch::of(&join.view, &batch)?;
        let mut parts = parts.of(rows.keys, batch.num_rows());
        for (row, part) in parts.iter_mut().enumerate() {
            let (event, created) = rows.timestamps(row);
            let available = availability(admission.mode, event, created);
            let counts_for_somebody = match (event, available) {
                (Some(event), Some(available)) => {
                    if admission.until.is_some_and(|until| available > until) {
                        counts.lag.add(1);
                        false
                    } else {
                        event >= admission.from && available <= last
                    }
                }
                _ => false,
            };
            if !counts_for_somebody {
                *part = NO_PART;
            }
        }
        writers.add(&batch, &parts)?;
    }
    let files = writers.finish()?;
    counts
        .spilled
        .add(files.iter().flatten().map(Spill::bytes).sum());
    Ok(files)
}

/// Joins one part; gives, for each set, what was found for its rows, in their order. Blocks.
fn join_part(
    join: &Join,
    rows: &SpilledRows,
    history: &SpilledHistory,
    part: usize,
    counts: &Counts,
    disk: &Arc<DiskManager>,
    cancelled: &Cancelled,
) -> Result<Vec<Option<Spill>>, OfflineError> {
    let goes_on = || match cancelled.is_set() {
        true => Err(OfflineError::Cancelled),
        false => Ok(()),
    };
    let mut slots = SlotsBuilder::default();
    let mut lengths = Vec::with_capacity(rows.sets.len());
    for set in &rows.sets {
        let before = slots.rows();
        if let Some(Some(file)) = set.files.get(part) {
            for batch in file.read()? {
                goes_on()?;
                let batch = batch?;
                if let Some((times, keys)) = batch.columns().split_last() {
                    let added = slots.add(keys, times.as_primitive());
                    added.map_err(|TooMany| too_many())?;
                }
            }
        }
        lengths.push(slots.rows() - before);
    }
    let (slots, slot_of_row) = slots.finish();
    let admission = Admission {
        // They were counted before.
        until: None,
        ..join.admission()
    };
    let mut winners = Winners::none(slots.len());
    let mut prober = Prober::default();
    for file in &history.0[part] {
        for batch in file.read()? {
            goes_on()?;
            carried::enter(
                &join.view,
                &slots,
                &admission,
                &batch?,
                &mut prober,
                &mut winners,
            )?;
        }
    }
    counts.winners.add(winners.count());
    winners.run_maximum(slots.by_key());
    counts.holds(join.threads * (winners.bytes() + slots.bytes()));

    let mut rest = slot_of_row.as_slice();
    let mut found = Vec::with_capacity(lengths.len());
    for (index, length) in lengths.into_iter().enumerate() {
        let (of_set, after) = rest.split_at(length);
        rest = after;
        let schema = join.set_schema(index);
        let mut writers = Writers::new(disk, Arc::clone(&schema), 1);
        for slots in of_set.chunks(CHUNK_ROWS) {
            goes_on()?;
            let mut columns = Vec::new();
            join.of_carried(&join.sets[index], slots, &winners, &mut columns)?;
            writers.push(0, RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        }
        found.extend(writers.finish()?);
    }
    counts
        .spilled
        .add(found.iter().flatten().map(Spill::bytes).sum());
    Ok(found)
}

fn too_many() -> DataFusionError {
    DataFusionError::ResourcesExhausted(
        "a part of the entity rows has more of them than can be counted".to_owned(),
    )
}

/// Puts what was found for the parts into the order of all entity rows.
struct Merge {
    join: Arc<Join>,
    rows: Arc<SpilledRows>,
    /// For each set a reader for each part.
    readers: Vec<Vec<PartReader>>,
}

struct PartReader {
    batches: Option<SpillReader>,
    /// Rows that were read and not yet taken.
    batch: Option<RecordBatch>,
}

impl Merge {
    fn new(
        join: &Arc<Join>,
        rows: &Arc<SpilledRows>,
        found: &[Vec<Option<Spill>>],
    ) -> Result<Self, OfflineError> {
        let mut readers = Vec::with_capacity(join.sets.len());
        for set in 0..join.sets.len() {
            let of_parts = found.iter().map(|of_sets| {
                let file = of_sets.get(set).and_then(Option::as_ref);
                Ok(PartReader {
                    batches: file.map(Spill::read).transpose()?,
                    batch: None,
                })
            });
            readers.push(of_parts.collect::<Result<Vec<_>, OfflineError>>()?);
        }
        Ok(Self {
            join: Arc::clone(join),
            rows: Arc::clone(rows),
            readers,
        })
    }

    /// Sends chunk `i` to output partition `i` modulo their number; `_files` are those that are
    /// read. Blocks.
    fn run(
        mut self,
        senders: &[mpsc::Sender<DataFusionResult<RecordBatch>>],
        _files: Vec<Vec<Option<Spill>>>,
    ) {
        let chunks = self.rows.rows().div_ceil(CHUNK_ROWS);
        for chunk in 0..chunks {
            let batch = self.chunk(chunk).map_err(DataFusionError::from);
            let failed = batch.is_err();
            let sent = senders[chunk % senders.len()].blocking_send(batch);
            if failed || sent.is_err() {
                return;
            }
        }
    }

    fn chunk(&mut self, index: usize) -> Result<RecordBatch, OfflineError> {
        let mut columns = Vec::new();
        for (set, readers) in self.readers.iter_mut().enumerate() {
            let all = &self.rows.sets[set].part_of_row;
            let start = index * CHUNK_ROWS;
            let parts = &all[start..all.len().min(start + CHUNK_ROWS)];
            let schema = self.join.set_schema(set);
            // Before the parts comes the row of those that have none.
            let mut sources = vec![nothing(&schema)?];
            for (part, reader) in readers.iter_mut().enumerate() {
                let count = parts.iter().filter(|&&of| usize::from(of) == part).count();
                sources.push(reader.take(count, &schema)?);
            }
            let mut next = vec![0; sources.len()];
            let places: Vec<(usize, usize)> = parts
                .iter()
                .map(|&part| match part {
                    NO_PART => (0, 0),
                    part => {
                        let source = usize::from(part) + 1;
                        let row = next[source];
                        next[source] += 1;
                        (source, row)
                    }
                })
                .collect();
            for column in 0..schema.fields().len() {
                let arrays: Vec<&dyn Array> = sources
                    .iter()
                    .map(|source| source.column(column).as_ref())
                    .collect();
                columns.push(interleave(&arrays, &places)?);
            }
        }
        Ok(RecordBatch::try_new(self.join.schema(), columns)?)
    }
}

impl PartReader {
    /// The next `count` rows.
    fn take(&mut self, count: usize, schema: &SchemaRef) -> Result<RecordBatch, OfflineError> {
        let mut taken = Vec::new();
        let mut missing = count;
        while missing > 0 {
            let batch = match (self.batch.take(), &mut self.batches) {
                (Some(batch), _) => Some(batch),
                (None, Some(batches)) => batches.next().transpose()?,
                (None, None) => None,
            };
            let batch = batch.ok_or_else(|| {
                DataFusionError::Internal("a part has fewer rows than were dealt to it".to_owned())
            })?;
            let here = missing.min(batch.num_rows());
            taken.push(batch.slice(0, here));
            missing -= here;
            if here < batch.num_rows() {
                self.batch = Some(batch.slice(here, batch.num_rows() - here));
            }
        }
        Ok(concat_batches(schema, &taken)?)
    }
}

/// One row: nothing was found.
fn nothing(schema: &SchemaRef) -> Result<RecordBatch, OfflineError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field: &Arc<Field>| -> ArrayRef {
            if field.is_nullable() {
                new_null_array(field.data_type(), 1)
            } else {
                Arc::new(UInt8Array::from(vec![found::NOTHING]))
            }
        });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
}
