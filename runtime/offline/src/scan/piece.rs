//! Reading rows of one row group.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType as ArrowType, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy,
};
use tokio::runtime::Handle;
use unskew_core::time;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::{ValueError, coerce};

use super::bytes::{FileBytes, check_unchanged};
use super::{Place, Scan};
use crate::error::{OfflineError, SourceProblem};
use crate::footers::parquet_reason;

/// Rows of one row group: ranges of row numbers, ascending, none empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The row group's number among those of all files.
    pub(crate) row_group: usize,
    pub(crate) ranges: Vec<Range<u32>>,
}

impl Piece {
    /// How many rows it has.
    pub(crate) fn rows(&self) -> u64 {
        self.ranges.iter().map(|range| range.len() as u64).sum()
    }
}

/// Gives the rows of a piece, batch by batch; blocks.
pub(crate) struct PieceReader<'a> {
    scan: &'a Scan,
    handle: &'a Handle,
    row_group: usize,
    /// The columns that are read, as indices into the scan's.
    columns: Vec<usize>,
    schema: SchemaRef,
    /// For each column its place in what the reader gives; `None` for one that the file lacks.
    positions: Vec<Option<usize>>,
    reader: ParquetRecordBatchReader,
    /// What was read and not yet given.
    pending: Option<RecordBatch>,
    /// The rows that are still to be given.
    ranges: VecDeque<Range<u32>>,
}

impl Scan {
    /// Reads the columns `columns`, as indices into the scan's, of a piece, `batch_rows` at a time;
    /// blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is another than before.
    pub(crate) fn read<'a>(
        &'a self,
        piece: &Piece,
        columns: &[usize],
        batch_rows: usize,
        handle: &'a Handle,
    ) -> Result<PieceReader<'a>, OfflineError> {
        let group = self.row_groups[piece.row_group];
        let file = &self.files[group.file];
        let metadata = &file.footer.metadata;
        let mut roots: Vec<usize> = columns
            .iter()
            .filter_map(|&column| match file.columns[column] {
                Place::Column(root) => Some(root),
                Place::Folder(_) | Place::Nowhere => None,
            })
            .collect();
        roots.sort_unstable();
        roots.dedup();
        let positions = columns
            .iter()
            .map(|&column| match file.columns[column] {
                // Two names of definitions may stand for one column of the file.
                Place::Column(root) => roots.binary_search(&root).ok(),
                Place::Folder(_) | Place::Nowhere => None,
            })
            .collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        let leaves = metadata.parquet_schema().num_columns();
        let bytes = FileBytes::open(&file.footer.file, handle, Arc::clone(&self.bytes_read))?;
        let bytes = bytes.of_row_group(
            metadata.metadata().row_group(group.index),
            (0..leaves).filter(|&leaf| mask.leaf_included(leaf)),
        )?;
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata.clone())
                .with_row_groups(vec![group.index])
                .with_projection(mask)
                .with_batch_size(batch_rows.min(piece.rows() as usize));
        if piece.rows() < u64::from(group.rows) {
            let ranges = piece.ranges.iter();
            let ranges = ranges.map(|range| range.start as usize..range.end as usize);
            let selection = RowSelection::from_consecutive_ranges(ranges, group.rows as usize);
            builder = builder
                .with_row_selection(selection)
                .with_row_selection_policy(RowSelectionPolicy::Selectors);
        }
        let unreadable = |reason: String| OfflineError::UnreadableFile {
            file: file.footer.file.path.clone(),
            reason,
        };
        let reader = builder
            .build()
            .map_err(|error| unreadable(parquet_reason(&error.to_string())))?;
        let schema = self.schema.project(columns)?;
        Ok(PieceReader {
            scan: self,
            handle,
            row_group: piece.row_group,
            columns: columns.to_vec(),
            schema: Arc::new(schema),
            positions,
            reader,
            pending: None,
            ranges: piece.ranges.iter().cloned().collect(),
        })
    }
}

impl PieceReader<'_> {
    /// The next rows, neighbours all, and the number of the first in the row group; `None` at the
    /// end.
    ///
    /// # Errors
    /// The file cannot be read, is another than before, or has a row outside of its partition.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, RecordBatch)>, OfflineError> {
        let Some(range) = self.ranges.front_mut() else {
            return Ok(None);
        };
        let batch = match self.pending.take() {
            Some(batch) => batch,
            None => match self.reader.next() {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => {
                    return Err(self.unreadable(parquet_reason(&error.to_string())));
                }
                None => return Err(self.unreadable("it has fewer rows than it says".to_owned())),
            },
        };
        let first = range.start;
        let count = batch.num_rows().min(range.len());
        range.start += count as u32;
        if range.start == range.end {
            self.ranges.pop_front();
        }
        if count < batch.num_rows() {
            self.pending = Some(batch.slice(count, batch.num_rows() - count));
        }
        let batch = self.adapt(&batch.slice(0, count), first)?;
        Ok(Some((first, batch)))
    }

    /// The columns under their names and in their types.
    fn adapt(&self, batch: &RecordBatch, first: u32) -> Result<RecordBatch, OfflineError> {
        let file = &self.scan.files[self.scan.row_groups[self.row_group].file];
        let rows = batch.num_rows();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (&column, position) in self.columns.iter().zip(&self.positions) {
            let described = &self.scan.columns[column];
            let array = match (position, &file.columns[column]) {
                (Some(position), _) => as_type(batch.column(*position), &described.data_type)
                    .map_err(|error| self.wrong_value(&described.file_column, first, error))?,
                (None, Place::Folder(value)) => {
                    let all = arrow::array::UInt32Array::from(vec![0; rows]);
                    take(value, &all, None)?
                }
                (None, _) => new_null_array(&described.data_type, rows),
            };
            if described.is_event {
                self.check_partition(&array, first)?;
            }
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }

    /// Refuses a row whose event timestamp lies outside of what the file's partition says: pruning
    /// would have lost it.
    fn check_partition(&self, events: &ArrayRef, first: u32) -> Result<(), OfflineError> {
        let file = &self.scan.files[self.scan.row_groups[self.row_group].file]
            .footer
            .file;
        let Some((start, end)) = file.events else {
            return Ok(());
        };
        // What is no instant is refused by who reads it, with a better message.
        let Ok(events) = coerce(events, DataType::Scalar(ScalarType::Timestamp)) else {
            return Ok(());
        };
        let events = events.as_primitive::<TimestampMicrosecondType>();
        for row in 0..events.len() {
            if events.is_valid(row) && !(start..=end).contains(&events.value(row)) {
                let place = self.scan.row_place(self.row_group, first + row as u32);
                return Err(OfflineError::source(
                    &self.scan.source,
                    SourceProblem::OutsidePartition {
                        file: place.file,
                        row: place.row,
                        event: time::format(events.value(row)),
                        start: time::format(start),
                        end: time::format(end),
                    },
                ));
            }
        }
        Ok(())
    }

    /// An error of values: a row is that of the file, `first` being the number of the batch's first in
    /// the row group.
    fn wrong_value(&self, column: &str, first: u32, error: WrongType) -> OfflineError {
        let reason = match error {
            WrongType::All(error) => error.to_string(),
            WrongType::Value(mut error) => {
                let place = self.scan.row_place(self.row_group, first);
                let before = usize::try_from(place.row).unwrap_or(usize::MAX);
                error.row = error.row.saturating_add(before);
                error.to_string()
            }
        };
        self.unreadable(format!("column `{column}`: {reason}"))
    }

    /// An error of the reader: with its file, and if that was written meanwhile, this instead.
    fn unreadable(&self, reason: String) -> OfflineError {
        let file = &self.scan.files[self.scan.row_groups[self.row_group].file]
            .footer
            .file;
        match check_unchanged(std::iter::once(file), self.handle) {
            Err(changed) => changed,
            Ok(()) => OfflineError::UnreadableFile {
                file: file.path.clone(),
                reason,
            },
        }
    }
}

/// The values in the type that holds those of every file.
fn as_type(array: &ArrayRef, wanted: &ArrowType) -> Result<ArrayRef, WrongType> {
    if array.data_type() == wanted {
        return Ok(Arc::clone(array));
    }
    match DataType::of_arrow(wanted) {
        // Types that differ were joined, so the joint one is of the contract, or the other is null.
        Some(joint) if joint.arrow() == *wanted => coerce(array, joint).map_err(WrongType::Value),
        _ => cast(array, wanted).map_err(WrongType::All),
    }
}

/// Why values are none of a type.
enum WrongType {
    /// One of them is not.
    Value(ValueError),
    All(ArrowError),
}
