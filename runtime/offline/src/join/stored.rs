//! The join over rows as they lie in files, in two phases.
//!
//! ```text
//! 1. timestamps and keys of all rows that may count ─▶ for each slot the address of its winner
//! 2. the features of the winners                    ─▶ in the order of the addresses
//! ```
//!
//! Each column chunk is decoded at most once, and what is held is in proportion to the slots. In
//! the second phase gaps of at least [`SKIP_ROWS`] rows between two winners are skipped, with all
//! pages that lie in them; shorter ones are decoded and thrown away, which is cheaper than to stop
//! and start (a selection of single rows made the phase three times as slow).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{DataType as ArrowType, TimestampMicrosecondType};
use arrow::error::ArrowError;
use tokio::runtime::Handle;
use unskew_core::time::Mode;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::coerce;
use unskew_core::view::View;
use unskew_engine::ViewRowsError;

use super::chosen::{Address, Chosen, Settled, TooManyTies};
use super::counts::Counts;
use super::cursors::Cursors;
use super::parallel::{Cancelled, map, workers};
use super::probe::{Admission, Prober};
use super::slots::Slots;
use crate::error::OfflineError;
use crate::offline::CHUNK_ROWS;
use crate::progress::Progress;
use crate::scan::{Piece, Scan, ScanExec};

/// Gaps of so many rows between two winners are skipped.
///
/// On 50 million rows with 1,000 winners the whole takes 2.0 s of processor time so, 2.3 s with
/// 65,536, and 3.1 s where nothing is skipped; less than 8,192 gains nothing. With 100,000 winners it
/// makes no difference.
const SKIP_ROWS: u32 = CHUNK_ROWS as u32;

/// How many columns are read at once in the second phase: a page of each is held.
const COLUMNS_AT_ONCE: usize = 32;

/// Kept columns are put together up to this size; beyond it they are held in several blocks, since
/// strings and lists count by 31 bits.
const BLOCK_BYTES: usize = 1 << 30;

/// What is needed for the work.
pub(crate) struct Task<'a> {
    pub(crate) view: &'a View,
    pub(crate) scan: &'a Scan,
    pub(crate) scan_exec: &'a ScanExec,
    pub(crate) slots: &'a Slots,
    pub(crate) admission: Admission,
    /// The features that are wanted, as indices into the view's; ascending.
    pub(crate) features: &'a [usize],
    pub(crate) threads: usize,
    pub(crate) handle: &'a Handle,
    pub(crate) cancelled: &'a Cancelled,
    pub(crate) counts: &'a Counts,
    pub(crate) progress: &'a dyn Progress,
}

/// The winners of the slots, with their features.
#[derive(Debug)]
pub(crate) struct Stored {
    settled: Settled,
    /// The wanted features of the rows that were kept, in blocks.
    columns: Vec<Vec<ArrayRef>>,
    /// The number of the first row of each block.
    starts: Vec<u32>,
    /// The types of the wanted features.
    types: Vec<ArrowType>,
}

/// Why there are no winners.
pub(crate) enum Failed {
    /// More rows are equal in all but their features than can be kept: they have to be compared as
    /// they come.
    TooManyTies,
    Error(OfflineError),
}

impl From<OfflineError> for Failed {
    fn from(error: OfflineError) -> Self {
        Self::Error(error)
    }
}

impl From<TooManyTies> for Failed {
    fn from(_: TooManyTies) -> Self {
        Self::TooManyTies
    }
}

/// Finds the winners; blocks.
///
/// Under `point_in_time: event` created timestamps only break ties, so they are not read at first.
/// Where corrections are many, they are.
pub(crate) fn join(task: &Task<'_>) -> Result<Stored, Failed> {
    let source = &task.view.source;
    let is_known = source.point_in_time == Mode::Known;
    let has_created = source.created_timestamp_column.is_some();
    let first = choose_all(task, is_known);
    let chosen = match first {
        Err(Failed::TooManyTies) if has_created && !is_known => choose_all(task, true)?,
        chosen => chosen?,
    };
    Ok(keep(task, chosen)?)
}

/// The first phase.
fn choose_all(task: &Task<'_>, with_created: bool) -> Result<Chosen, Failed> {
    let source = &task.view.source;
    let column = |name: &str| Ok::<_, OfflineError>(task.scan.schema().index_of(name)?);
    let pieces = task.scan_exec.pieces(task.handle)?;
    let total = pieces.iter().map(Piece::rows).sum();
    let stage = format!("reading the history of `{}`", task.view.name);
    task.progress.begin(&stage, total);

    let created = source.created_timestamp_column.as_deref();
    let timestamps = Columns {
        event: column(&source.timestamp_field)?,
        created: created.filter(|_| with_created).map(column).transpose()?,
        keys: task
            .view
            .keys
            .iter()
            .map(|key| column(&key.name))
            .collect::<Result<_, _>>()?,
    };
    let partial = workers(task.threads, &pieces, task.cancelled, |pieces| {
        let mut chooser = Chooser::new(task, with_created);
        for (_, piece) in pieces {
            choose(task, &timestamps, piece, &mut chooser)?;
        }
        Ok::<_, Failed>(chooser.finish()?)
    })?;
    if task.cancelled.is_set() {
        return Err(OfflineError::Cancelled.into());
    }
    let bytes = partial.iter().map(|(chosen, ..)| chosen.bytes());
    task.counts.holds(task.slots.bytes() + bytes.sum::<usize>());
    let (mut read, mut lag) = (0, 0);
    let mut chosen = Chosen::none(0, with_created);
    for (index, (partial, read_by, lag_of)) in partial.into_iter().enumerate() {
        if index == 0 {
            chosen = partial;
        } else {
            chosen.merge(partial)?;
        }
        read += read_by;
        lag += lag_of;
    }
    if pieces.is_empty() {
        chosen = Chosen::none(task.slots.len(), with_created);
    }
    chosen.forget_overtaken(task.slots)?;
    // Only what came to an end is counted: with too many ties all is read again.
    task.counts.read.add(read);
    task.counts.lag.add(lag);
    Ok(chosen)
}

/// Where the scan has the columns of the first phase.
struct Columns {
    event: usize,
    created: Option<usize>,
    keys: Vec<usize>,
}

/// Lets the rows of a piece enter their slots.
fn choose(
    task: &Task<'_>,
    columns: &Columns,
    piece: &Piece,
    chooser: &mut Chooser,
) -> Result<(), Failed> {
    let source = &task.view.source;
    let mut read = vec![columns.event];
    read.extend(columns.created);
    read.extend(&columns.keys);
    let keys_from = read.len() - columns.keys.len();
    let timestamp = DataType::Scalar(ScalarType::Timestamp);
    let mut reader = task.scan.read(piece, &read, CHUNK_ROWS, task.handle)?;
    while let Some((first, batch)) = reader.next()? {
        if task.cancelled.is_set() {
            break;
        }
        let typed = |index: usize, name: &str, data_type: DataType| {
            coerce(batch.column(index), data_type).map_err(|error| {
                value_error(task, piece.row_group, &|row| first + row, name, error)
            })
        };
        let event = typed(0, &source.timestamp_field, timestamp)?;
        let created = match (columns.created, &source.created_timestamp_column) {
            (Some(_), Some(name)) => Some(typed(1, name, timestamp)?),
            _ => None,
        };
        let keys = (task.view.keys.iter().zip(keys_from..))
            .map(|(key, index)| typed(index, &key.name, DataType::Scalar(key.data_type)))
            .collect::<Result<Vec<_>, _>>()?;
        let event = event.as_primitive::<TimestampMicrosecondType>();
        let created = created
            .as_ref()
            .map(|created| created.as_primitive::<TimestampMicrosecondType>());
        chooser.enter(task, &keys, event, created, |row| {
            Address::new(piece.row_group, first + row)
        })?;
        chooser.read += batch.num_rows();
        task.progress.advance(batch.num_rows() as u64);
    }
    Ok(())
}

/// How many slots are brought near at once; see [`Prober`].
const STAGE: usize = 256;

/// Lets the rows that a thread reads enter their slots.
struct Chooser {
    chosen: Chosen,
    prober: Prober,
    /// While rows come about in time.
    cursors: Option<Cursors>,
    groups: Vec<u32>,
    read: usize,
}

impl Chooser {
    fn new(task: &Task<'_>, with_created: bool) -> Self {
        Self {
            chosen: Chosen::none(task.slots.len(), with_created),
            prober: Prober::default(),
            cursors: Cursors::of(task.slots)
                .filter(|_| !with_created && task.admission.until.is_none()),
            groups: Vec::new(),
            read: 0,
        }
    }

    fn enter(
        &mut self,
        task: &Task<'_>,
        keys: &[ArrayRef],
        event: &TimestampMicrosecondArray,
        created: Option<&TimestampMicrosecondArray>,
        address: impl Fn(u32) -> Address,
    ) -> Result<(), TooManyTies> {
        if let Some(cursors) = &mut self.cursors {
            task.slots.keys.find(keys, event.len(), &mut self.groups);
            let from = task.admission.from;
            let times = event.values();
            let has_nulls = event.null_count() > 0;
            cursors.enter(
                task.slots,
                &mut self.chosen,
                &self.groups,
                |row| {
                    let counts = times[row] >= from && !(has_nulls && event.is_null(row));
                    counts.then(|| times[row])
                },
                |row| address(row as u32),
            )?;
            if cursors.is_idle()
                && let Some(cursors) = self.cursors.take()
            {
                cursors.finish(&mut self.chosen)?;
            }
            return Ok(());
        }
        let hits = self
            .prober
            .probe(task.slots, &task.admission, keys, event, created);
        for stage in hits.chunks(STAGE) {
            let touched = stage
                .iter()
                .fold(0, |sum, hit| sum ^ self.chosen.touch(hit.slot));
            std::hint::black_box(touched);
            for hit in stage {
                let row = hit.row as usize;
                let created = created.filter(|created| created.is_valid(row));
                // The least stands for none: it lies outside of time.
                let created = created.map_or(i64::MIN, |created| created.value(row));
                self.chosen
                    .offer(hit.slot, event.value(row), created, address(hit.row))?;
            }
        }
        Ok(())
    }

    /// The winners, how many rows were read, and how many of them were lag.
    fn finish(mut self) -> Result<(Chosen, usize, usize), TooManyTies> {
        if let Some(cursors) = self.cursors {
            cursors.finish(&mut self.chosen)?;
        }
        Ok((self.chosen, self.read, self.prober.lag as usize))
    }
}

/// A row that is kept: its number in its row group, and its slot.
pub(crate) type Entry = (u32, u32);

/// Rows by row group: entries ascend within a bucket.
pub(crate) struct Entries {
    pub(crate) all: Vec<Entry>,
    /// Row groups with entries, and which these are.
    pub(crate) buckets: Vec<(usize, Range<usize>)>,
}

impl Entries {
    /// The entries of slots and addresses: a counting sort by row group, then a sort of the rows of
    /// each.
    pub(crate) fn of(groups: usize, rows: impl Iterator<Item = (u32, Address)> + Clone) -> Self {
        let mut starts = vec![0_usize; groups + 1];
        for (_, address) in rows.clone() {
            starts[address.row_group() + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let count = starts.last().copied().unwrap_or_default();
        let mut all: Vec<Entry> = vec![(0, 0); count];
        let mut next = starts.clone();
        for (slot, address) in rows {
            let position = &mut next[address.row_group()];
            all[*position] = (address.row(), slot);
            *position += 1;
        }
        let buckets: Vec<(usize, Range<usize>)> = (0..groups)
            .map(|group| (group, starts[group]..starts[group + 1]))
            .filter(|(_, range)| !range.is_empty())
            .collect();
        for (_, range) in &buckets {
            all[range.clone()].sort_unstable();
        }
        Self { all, buckets }
    }
}

/// The second phase: reads the features of the winners.
fn keep(task: &Task<'_>, mut chosen: Chosen) -> Result<Stored, OfflineError> {
    super::ties::settle(task, &mut chosen)?;
    let entries = Entries::of(task.scan.row_groups(), chosen.winners());
    task.counts.winners.add(entries.all.len());
    let columns = read_columns(task, &entries)?;
    // What was read in the two phases belongs together.
    task.scan_exec.check_unchanged(task.handle)?;

    let mut kept = vec![u32::MAX; task.slots.len()];
    for (index, &(_, slot)) in entries.all.iter().enumerate() {
        kept[slot as usize] = index as u32;
    }
    drop(entries);
    let bytes = columns.arrays.iter().flatten();
    let bytes: usize = bytes.map(|array| array.get_array_memory_size()).sum();
    let kept_bytes = kept.len() * size_of::<u32>();
    task.counts
        .holds(task.slots.bytes() + chosen.bytes() + kept_bytes + bytes);
    let features = task.features.iter();
    Ok(Stored {
        settled: chosen.settle(task.slots, &kept),
        columns: columns.arrays,
        starts: columns.starts,
        types: features
            .map(|&feature| task.view.features[feature].data_type.arrow())
            .collect(),
    })
}

/// Columns of the rows that were kept.
struct Kept {
    /// The features, each in blocks.
    arrays: Vec<Vec<ArrayRef>>,
    /// The number of the first row of each block.
    starts: Vec<u32>,
}

/// The block that has row `row`, and its number there.
fn in_block(starts: &[u32], row: u32) -> (usize, usize) {
    let block = starts.partition_point(|&start| start <= row) - 1;
    (block, (row - starts[block]) as usize)
}

/// Reads the wanted features of all entries.
fn read_columns(task: &Task<'_>, entries: &Entries) -> Result<Kept, OfflineError> {
    let buckets = &entries.buckets;
    let features = task.features.iter();
    let wanted: Vec<(&str, DataType)> = features
        .map(|&feature| {
            let feature = &task.view.features[feature];
            (feature.name.as_str(), feature.data_type)
        })
        .collect();
    // Few row groups are shared out by columns.
    let together = wanted
        .len()
        .div_ceil(task.threads)
        .clamp(1, COLUMNS_AT_ONCE);
    let reads: Vec<(usize, usize)> = (0..buckets.len())
        .flat_map(|bucket| {
            (0..wanted.len())
                .step_by(together)
                .map(move |first| (bucket, first))
        })
        .collect();
    let stage = format!("reading the features of `{}`", task.view.name);
    task.progress.begin(&stage, entries.all.len() as u64);
    let read = map(task.threads, &reads, task.cancelled, |&(bucket, first)| {
        let wanted = &wanted[first..wanted.len().min(first + together)];
        let (group, range) = &buckets[bucket];
        let arrays = read_rows(task, wanted, *group, &entries.all[range.clone()]);
        if first == 0 {
            task.progress.advance(range.len() as u64);
        }
        arrays
    })?;
    if task.cancelled.is_set() {
        return Err(OfflineError::Cancelled);
    }
    let mut by_column: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(buckets.len()); wanted.len()];
    for ((_, first), arrays) in reads.into_iter().zip(read) {
        for (column, array) in (first..).zip(arrays) {
            by_column[column].push(array);
        }
    }
    let blocks = blocks(&by_column, buckets);
    let starts = blocks
        .iter()
        .map(|block| buckets[block.start].1.start as u32)
        .collect();
    let by_column: Vec<std::sync::Mutex<Vec<ArrayRef>>> =
        by_column.into_iter().map(std::sync::Mutex::new).collect();
    let arrays = map(task.threads, &by_column, task.cancelled, |arrays| {
        let arrays = std::mem::take(
            &mut *arrays
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let join = |block: &Range<usize>| match &arrays[block.clone()] {
            [array] => Ok(Arc::clone(array)),
            arrays => {
                let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
                concat(&arrays)
            }
        };
        Ok::<_, OfflineError>(blocks.iter().map(join).collect::<Result<Vec<_>, _>>()?)
    })?;
    Ok(Kept { arrays, starts })
}

/// Neighbouring buckets whose columns fit into one block.
fn blocks(by_column: &[Vec<ArrayRef>], buckets: &[(usize, Range<usize>)]) -> Vec<Range<usize>> {
    let mut blocks: Vec<Range<usize>> = Vec::new();
    let mut sizes = vec![0; by_column.len()];
    for bucket in 0..buckets.len() {
        for (size, arrays) in sizes.iter_mut().zip(by_column) {
            *size += arrays[bucket].get_array_memory_size();
        }
        match blocks.last_mut() {
            Some(block) if sizes.iter().all(|&size| size <= BLOCK_BYTES) => block.end = bucket + 1,
            _ => {
                blocks.push(bucket..bucket + 1);
                for (size, arrays) in sizes.iter_mut().zip(by_column) {
                    *size = arrays[bucket].get_array_memory_size();
                }
            }
        }
    }
    blocks
}

/// Reads columns of rows of a row group: `entries` ascend.
pub(crate) fn read_rows(
    task: &Task<'_>,
    wanted: &[(&str, DataType)],
    row_group: usize,
    entries: &[Entry],
) -> Result<Vec<ArrayRef>, OfflineError> {
    let columns = wanted
        .iter()
        .map(|(name, _)| Ok(task.scan.schema().index_of(name)?))
        .collect::<Result<Vec<_>, OfflineError>>()?;
    let piece = Piece {
        row_group,
        ranges: ranges(entries),
    };
    let mut taken: Vec<Vec<ArrayRef>> = vec![Vec::new(); wanted.len()];
    let mut reader = task.scan.read(&piece, &columns, CHUNK_ROWS, task.handle)?;
    let mut rest = entries;
    while let Some((first, batch)) = reader.next()? {
        if task.cancelled.is_set() {
            return Err(OfflineError::Cancelled);
        }
        let end = u64::from(first) + batch.num_rows() as u64;
        let count = rest.partition_point(|&(row, _)| u64::from(row) < end);
        let (here, after) = rest.split_at(count);
        rest = after;
        if here.is_empty() {
            continue;
        }
        let rows: UInt32Array = here.iter().map(|&(row, _)| row - first).collect();
        let columns = wanted.iter().zip(batch.columns());
        for (taken, ((name, data_type), column)) in taken.iter_mut().zip(columns) {
            let rows = if here.len() == batch.num_rows() {
                Arc::clone(column)
            } else {
                take(column, &rows, None)?
            };
            // At once: views and dictionaries would hold on to all that was decoded.
            let typed = coerce(&rows, *data_type).map_err(|error| {
                let row = |row: u32| here[row as usize].0;
                value_error(task, row_group, &row, name, error)
            })?;
            taken.push(typed);
        }
    }
    let columns = taken.into_iter().map(|arrays| {
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        Ok(concat(&arrays)?)
    });
    columns.collect()
}

/// The rows of `entries`, and those between two that are not worth skipping.
fn ranges(entries: &[Entry]) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for &(row, _) in entries {
        match ranges.last_mut() {
            Some(last) if row < last.end.saturating_add(SKIP_ROWS) => last.end = row + 1,
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

/// An error of a value, with the file and the row in it; `row` gives the number in the row group.
fn value_error(
    task: &Task<'_>,
    row_group: usize,
    row: &dyn Fn(u32) -> u32,
    column: &str,
    mut error: unskew_core::values::ValueError,
) -> OfflineError {
    // A batch has fewer rows than 32 bits count.
    let place = task.scan.row_place(row_group, row(error.row as u32));
    error.row = usize::try_from(place.row).unwrap_or(usize::MAX);
    OfflineError::view_rows(
        Some(place.file),
        ViewRowsError::Value {
            view: task.view.name.clone(),
            column: column.to_owned(),
            error: Box::new(error),
        },
    )
}

impl Stored {
    /// What was found for a slot.
    pub(crate) fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Some of the wanted features, of rows that were kept; `None` gives null.
    pub(crate) fn features(
        &self,
        features: &[usize],
        rows: &[Option<u32>],
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let indices: UInt32Array = rows.iter().copied().collect();
        features
            .iter()
            .map(|&feature| match self.columns[feature].as_slice() {
                [] => Ok(new_null_array(&self.types[feature], rows.len())),
                [block] => take(block, &indices, None),
                blocks => self.in_blocks(blocks, rows),
            })
            .collect()
    }

    fn in_blocks(&self, blocks: &[ArrayRef], rows: &[Option<u32>]) -> Result<ArrayRef, ArrowError> {
        let null = new_null_array(blocks[0].data_type(), 1);
        let mut arrays: Vec<&dyn Array> = vec![null.as_ref()];
        arrays.extend(blocks.iter().map(AsRef::as_ref));
        let places: Vec<(usize, usize)> = rows
            .iter()
            .map(|row| match row {
                None => (0, 0),
                Some(row) => {
                    let (block, row) = in_block(&self.starts, *row);
                    (block + 1, row)
                }
            })
            .collect();
        interleave(&arrays, &places)
    }
}
