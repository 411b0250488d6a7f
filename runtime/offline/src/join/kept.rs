//! The second phase of the join over rows as they lie in files: the features of the winners.
//!
//! Gaps of at least [`SKIP_ROWS`] rows between two winners are skipped, with all pages that lie in
//! them; shorter ones are decoded and thrown away, which is cheaper than to stop and start. (In a
//! trial of the algorithm, a selection of single rows was three times as slow.)

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::DataType as ArrowType;
use arrow::error::ArrowError;
use unskew_core::types::DataType;
use unskew_core::values::coerce;

use super::chosen::{Address, Chosen, Settled};
use super::parallel::map;
use super::stored::{Task, value_error};
use crate::error::OfflineError;
use crate::offline::CHUNK_ROWS;
use crate::scan::Piece;

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

/// A row that is kept: its number in its row group, and its slot.
pub(crate) type Entry = (u32, u32);

/// Rows by row group: entries ascend within a bucket. No row may be given twice.
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
pub(crate) fn keep(task: &Task<'_>, chosen: Chosen) -> Result<Stored, OfflineError> {
    let entries = Entries::of(task.scan.scan().row_groups(), chosen.winners());
    task.counts.winners.add(entries.all.len());
    let columns = read_columns(task, &entries)?;
    // What was read in the two phases belongs together.
    task.scan.check_unchanged(task.handle)?;

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
    let by_column: Vec<Mutex<Vec<ArrayRef>>> = by_column.into_iter().map(Mutex::new).collect();
    let arrays = map(task.threads, &by_column, task.cancelled, |arrays| {
        let arrays = std::mem::take(&mut *arrays.lock().unwrap_or_else(PoisonError::into_inner));
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

/// Reads columns of rows of a row group: `entries` ascend, each row once.
pub(crate) fn read_rows(
    task: &Task<'_>,
    wanted: &[(&str, DataType)],
    row_group: usize,
    entries: &[Entry],
) -> Result<Vec<ArrayRef>, OfflineError> {
    let columns = wanted
        .iter()
        .map(|(name, _)| Ok(task.scan.scan().schema().index_of(name)?))
        .collect::<Result<Vec<_>, OfflineError>>()?;
    let piece = Piece {
        row_group,
        ranges: ranges(entries),
    };
    let mut taken: Vec<Vec<ArrayRef>> = vec![Vec::new(); wanted.len()];
    let mut reader = task
        .scan
        .scan()
        .read(&piece, &columns, CHUNK_ROWS, task.handle)?;
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
