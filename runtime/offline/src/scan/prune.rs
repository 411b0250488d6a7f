//! Which row groups and pages may hold rows that somebody wants, by what the file says of them:
//! partitions, statistics, the page index, bloom filters.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType as ArrowType, Int32Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use tokio::runtime::Handle;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::coerce;

use super::bloom::Probe;
use super::bytes::FileBytes;
use super::{File, Piece, Place, Scan};
use crate::error::OfflineError;
use crate::footers::parquet_reason;

/// Up to how many different keys each is looked up in statistics and bloom filters; of more only
/// the least and the greatest are. A probe of a filter costs some tens of nanoseconds.
pub(crate) const DISTINCT_KEYS: usize = 1_024;

/// The least rows of a row group for which a thread of its own is worth it.
const SPLIT_ROWS: u64 = 1 << 16;

/// The rows that somebody wants; others may be left out. Columns are indices into the scan's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The column of event timestamps, and their bounds: both inclusive, in microseconds.
    pub(crate) events: Option<(usize, i64, i64)>,
    /// The column of created timestamps, and their upper bound, inclusive.
    pub(crate) created: Option<(usize, i64)>,
    /// Columns of join keys, with their types and the values that are wanted.
    pub(crate) keys: Vec<(usize, ScalarType, KeyValues)>,
}

/// The values of a join key that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyValues {
    /// Integers and timestamps.
    Integers(Values<i64>),
    /// Strings and bytes.
    Bytes(Values<Vec<u8>>),
    /// Whatever there is.
    Any,
}

/// Values, none null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values<T> {
    pub(crate) min: T,
    pub(crate) max: T,
    /// All of them, ascending, each once, if they are at most [`DISTINCT_KEYS`].
    pub(crate) distinct: Option<Vec<T>>,
}

impl<T: Ord> Values<T> {
    /// Whether one of them lies in a range; both bounds are inclusive.
    fn meet(&self, min: &T, max: &T) -> bool {
        match &self.distinct {
            Some(distinct) => {
                let first = distinct.partition_point(|value| value < min);
                distinct.get(first).is_some_and(|value| value <= max)
            }
            None => self.min <= *max && *min <= self.max,
        }
    }
}

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// Row groups of which no row is read.
    pub(crate) row_groups: usize,
    /// Pages of timestamps and keys in which nothing is wanted, in row groups of which the
    /// statistics alone did not tell.
    pub(crate) pages: usize,
    /// Rows that are not read.
    pub(crate) rows: u64,
}

impl Scan {
    /// The pieces that may hold wanted rows, in the order of files and rows, and what was left out;
    /// large row groups are cut such that `threads` have something to do. Blocks.
    ///
    /// # Errors
    /// A file's index or filters cannot be read, or a file is another than before.
    pub(crate) fn pieces(
        &self,
        wanted: &Wanted,
        threads: usize,
        handle: &Handle,
    ) -> Result<(Vec<Piece>, Pruned), OfflineError> {
        let mut pruned = Pruned::default();
        let mut pieces = Vec::new();
        let mut row_group = 0;
        for file in &self.files {
            let count = file.footer.metadata.metadata().num_row_groups();
            for (index, ranges) in self.wanted_rows(file, wanted, handle, &mut pruned)? {
                pieces.push(Piece {
                    row_group: row_group + index,
                    ranges,
                });
            }
            row_group += count;
        }
        let kept: u64 = pieces.iter().map(Piece::rows).sum();
        pruned.rows = self.rows.saturating_sub(kept);
        if pieces.len() < 4 * threads {
            // Not those of objects: to get to the middle of a column chunk, all before is fetched.
            let is_local = |piece: &Piece| {
                let file = self.row_groups[piece.row_group].file;
                self.files[file].footer.file.store.is_none()
            };
            pieces = pieces
                .into_iter()
                .flat_map(|piece| match is_local(&piece) {
                    true => cut(piece, threads),
                    false => vec![piece],
                })
                .collect();
        }
        Ok((pieces, pruned))
    }

    /// The row groups of a file that may hold wanted rows, with the ranges of these.
    fn wanted_rows(
        &self,
        file: &File,
        wanted: &Wanted,
        handle: &Handle,
        pruned: &mut Pruned,
    ) -> Result<Vec<WantedRows>, OfflineError> {
        let metadata = file.footer.metadata.metadata();
        let count = metadata.num_row_groups();
        let tests = self.tests(file, wanted);
        let partition_misses = match (file.footer.file.events, wanted.events) {
            (Some((start, end)), Some((_, from, to))) => end < from || to < start,
            _ => false,
        };
        if partition_misses {
            pruned.row_groups += count;
            return Ok(Vec::new());
        }
        let groups: Vec<&RowGroupMetaData> = metadata.row_groups().iter().collect();
        let mut verdicts = vec![Verdict::All; count];
        for test in &tests {
            let statistics = test.of_row_groups(file, &groups);
            for (verdict, of_test) in verdicts.iter_mut().zip(statistics) {
                *verdict = (*verdict).min(of_test);
            }
        }
        self.ask_bloom_filters(file, wanted, handle, &mut verdicts)?;
        let pages = self.page_index(file, &tests, &verdicts, handle)?;
        let mut kept = Vec::new();
        for (index, verdict) in verdicts.into_iter().enumerate() {
            // Negative row counts were refused with the footer.
            let rows = u32::try_from(groups[index].num_rows()).unwrap_or(u32::MAX);
            let mut ranges: Vec<Range<u32>> = Vec::new();
            if rows > 0 && verdict != Verdict::None {
                ranges.push(0..rows);
            }
            if let (Verdict::Some, Some(pages)) = (verdict, &pages) {
                for test in &tests {
                    if let Some(wanted) = test.of_pages(file, pages, index) {
                        pruned.pages += wanted.left_out;
                        ranges = intersection(&ranges, &wanted.rows);
                    }
                }
            }
            if ranges.is_empty() {
                pruned.row_groups += 1;
            } else {
                kept.push((index, ranges));
            }
        }
        Ok(kept)
    }

    /// What is asked of the statistics of a file.
    fn tests<'a>(&self, file: &File, wanted: &'a Wanted) -> Vec<Test<'a>> {
        let timestamp = DataType::Scalar(ScalarType::Timestamp);
        let events = wanted.events.map(|(column, from, to)| Test {
            column,
            data_type: timestamp,
            range: Within::Instants(from, to),
        });
        let created = wanted.created.map(|(column, to)| Test {
            column,
            data_type: timestamp,
            range: Within::Instants(i64::MIN, to),
        });
        let keys = wanted.keys.iter().map(|(column, data_type, values)| Test {
            column: *column,
            data_type: DataType::Scalar(*data_type),
            range: Within::Keys(values),
        });
        events
            .into_iter()
            .chain(created)
            .chain(keys)
            .filter(|test| test.is_ordered_alike(file))
            .collect()
    }

    /// The footer with its page index, if it has one and a row group may have pages that nobody
    /// wants.
    fn page_index(
        &self,
        file: &File,
        tests: &[Test<'_>],
        verdicts: &[Verdict],
        handle: &Handle,
    ) -> Result<Option<ParquetMetaData>, OfflineError> {
        let metadata = file.footer.metadata.metadata();
        let has_index = |group: &RowGroupMetaData| {
            tests.iter().any(|test| {
                let leaf = test.leaf(file).map(|leaf| group.column(leaf));
                leaf.is_some_and(|chunk| {
                    chunk.column_index_offset().is_some() && chunk.offset_index_offset().is_some()
                })
            })
        };
        let groups = metadata.row_groups().iter().zip(verdicts);
        let is_wanted = groups
            .into_iter()
            .any(|(group, verdict)| *verdict == Verdict::Some && has_index(group));
        if !is_wanted {
            return Ok(None);
        }
        let bytes = FileBytes::open(&file.footer.file, handle, Arc::clone(&self.bytes_read))?;
        let mut reader = ParquetMetaDataReader::new_with_metadata(metadata.as_ref().clone())
            .with_page_index_policy(PageIndexPolicy::Optional);
        let with_index = reader
            .read_page_indexes(&bytes)
            .and_then(|()| reader.finish());
        with_index
            .map(Some)
            .map_err(|error| OfflineError::UnreadableFile {
                file: file.footer.file.path.clone(),
                reason: parquet_reason(&error.to_string()),
            })
    }

    /// Leaves out row groups whose bloom filter has none of the few keys that are wanted.
    fn ask_bloom_filters(
        &self,
        file: &File,
        wanted: &Wanted,
        handle: &Handle,
        verdicts: &mut [Verdict],
    ) -> Result<(), OfflineError> {
        let metadata = file.footer.metadata.metadata();
        let mut opened = None;
        for (column, data_type, values) in &wanted.keys {
            let test = Test {
                column: *column,
                data_type: DataType::Scalar(*data_type),
                range: Within::Keys(values),
            };
            let Some(leaf) = test.leaf(file) else {
                continue;
            };
            let Some(probe) = Probe::of(file, test.column, metadata, leaf, values) else {
                continue;
            };
            for (group, verdict) in metadata.row_groups().iter().zip(verdicts.iter_mut()) {
                let chunk = group.column(leaf);
                if *verdict == Verdict::None || chunk.bloom_filter_offset().is_none() {
                    continue;
                }
                let bytes = match &opened {
                    Some(bytes) => bytes,
                    None => opened.insert(FileBytes::open(
                        &file.footer.file,
                        handle,
                        Arc::clone(&self.bytes_read),
                    )?),
                };
                let filter = Sbbf::read_from_column_chunk(chunk, bytes).map_err(|error| {
                    OfflineError::UnreadableFile {
                        file: bytes.path().to_owned(),
                        reason: parquet_reason(&error.to_string()),
                    }
                })?;
                // An empty filter is a damaged one.
                let filter = filter.filter(|filter| filter.num_blocks() > 0);
                if filter.is_some_and(|filter| !probe.meets(&filter)) {
                    *verdict = Verdict::None;
                }
            }
        }
        Ok(())
    }
}

/// A row group's number in its file, and the rows of it that may be wanted.
type WantedRows = (usize, Vec<Range<u32>>);

/// How many rows of a row group may be wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// None of them.
    None,
    /// Perhaps not all: pages are worth a look.
    Some,
    /// As far as statistics tell, all.
    All,
}

/// A question to the statistics of a column.
struct Test<'a> {
    column: usize,
    data_type: DataType,
    range: Within<'a>,
}

enum Within<'a> {
    /// Both inclusive.
    Instants(i64, i64),
    Keys(&'a KeyValues),
}

/// The rows of pages that may be wanted.
struct WantedPages {
    rows: Vec<Range<u32>>,
    left_out: usize,
}

impl Test<'_> {
    /// The column's number among the file's leaves; `None` for one that the file lacks or that has
    /// parts.
    fn leaf(&self, file: &File) -> Option<usize> {
        let Place::Column(root) = file.columns[self.column] else {
            return None;
        };
        let schema = file.footer.metadata.parquet_schema();
        let mut leaves =
            (0..schema.num_columns()).filter(|&leaf| schema.get_column_root_idx(leaf) == root);
        leaves.next().filter(|_| leaves.next().is_none())
    }

    /// Whether the file orders the column's values as they are ordered here: instants that are
    /// written as texts are not.
    fn is_ordered_alike(&self, file: &File) -> bool {
        let Some(data_type) = file.plain_type(self.column) else {
            return false;
        };
        let is_text = matches!(
            data_type,
            ArrowType::Utf8
                | ArrowType::LargeUtf8
                | ArrowType::Utf8View
                | ArrowType::Binary
                | ArrowType::LargeBinary
                | ArrowType::BinaryView
                | ArrowType::FixedSizeBinary(_)
        );
        match &self.range {
            Within::Keys(KeyValues::Any) => false,
            Within::Keys(KeyValues::Bytes(_)) => is_text,
            Within::Keys(KeyValues::Integers(_)) | Within::Instants(..) => !is_text,
        }
    }

    fn converter<'f>(&self, file: &'f File) -> Option<StatisticsConverter<'f>> {
        let Place::Column(root) = file.columns[self.column] else {
            return None;
        };
        let name = file.footer.schema.field(root).name();
        let schema = file.footer.metadata.parquet_schema();
        StatisticsConverter::try_new(name, &file.footer.schema, schema).ok()
    }

    fn of_row_groups(&self, file: &File, groups: &[&RowGroupMetaData]) -> Vec<Verdict> {
        // Old writers ordered texts and unsigned integers by signed bytes.
        let is_old = self.leaf(file).is_some_and(|leaf| {
            groups.iter().any(|group| {
                let statistics = group.column(leaf).statistics();
                statistics.is_some_and(|statistics| statistics.is_min_max_deprecated())
            })
        });
        if is_old && matches!(self.range, Within::Keys(_)) {
            return vec![Verdict::All; groups.len()];
        }
        let converter = self.converter(file);
        let statistics = converter.and_then(|converter| {
            let mins = converter.row_group_mins(groups.iter().copied()).ok()?;
            let maxes = converter.row_group_maxes(groups.iter().copied()).ok()?;
            self.bounds(&mins, &maxes)
        });
        match statistics {
            Some(bounds) => (0..groups.len())
                .map(|index| self.verdict(&bounds, index))
                .collect(),
            None => vec![Verdict::All; groups.len()],
        }
    }

    fn of_pages(&self, file: &File, pages: &ParquetMetaData, group: usize) -> Option<WantedPages> {
        let (columns, offsets) = (pages.column_index()?, pages.offset_index()?);
        let leaf = self.leaf(file)?;
        let converter = self.converter(file)?;
        let mins = converter.data_page_mins(columns, offsets, [&group]).ok()?;
        let maxes = converter.data_page_maxes(columns, offsets, [&group]).ok()?;
        let bounds = self.bounds(&mins, &maxes)?;
        let locations = offsets.get(group)?.get(leaf)?.page_locations();
        if locations.len() != mins.len() {
            return None;
        }
        let end = u32::try_from(pages.row_group(group).num_rows()).ok()?;
        let starts = locations.iter().map(|page| page.first_row_index);
        let ascend = starts
            .clone()
            .zip(starts.clone().skip(1))
            .all(|(a, b)| a < b);
        let last = locations.last().map(|page| page.first_row_index);
        let last_is_within = last.is_none_or(|last| last < i64::from(end));
        if !ascend || !last_is_within || starts.clone().next().is_some_and(|first| first != 0) {
            // A damaged index is none.
            return None;
        }
        let mut wanted = WantedPages {
            rows: Vec::new(),
            left_out: 0,
        };
        for (index, page) in locations.iter().enumerate() {
            let start = u32::try_from(page.first_row_index).ok()?;
            let next = locations.get(index + 1);
            let end = match next {
                Some(next) => u32::try_from(next.first_row_index).ok()?,
                None => end,
            };
            if self.verdict(&bounds, index) == Verdict::None {
                wanted.left_out += 1;
            } else if let Some(last) = wanted.rows.last_mut().filter(|last| last.end == start) {
                last.end = end;
            } else if start < end {
                wanted.rows.push(start..end);
            }
        }
        Some(wanted)
    }

    /// Statistics in the type in which values are compared; `None` if they are not to be had.
    fn bounds(&self, mins: &ArrayRef, maxes: &ArrayRef) -> Option<(ArrayRef, ArrayRef)> {
        let mins = coerce(mins, self.data_type).ok()?;
        let maxes = coerce(maxes, self.data_type).ok()?;
        Some((mins, maxes))
    }

    fn verdict(&self, (mins, maxes): &(ArrayRef, ArrayRef), index: usize) -> Verdict {
        if mins.is_null(index) || maxes.is_null(index) {
            return Verdict::All;
        }
        match self.range {
            Within::Instants(from, to) => {
                let (Some(min), Some(max)) = (integer(mins, index), integer(maxes, index)) else {
                    return Verdict::All;
                };
                match (max < from || to < min, min < from || to < max) {
                    (true, _) => Verdict::None,
                    (false, true) => Verdict::Some,
                    (false, false) => Verdict::All,
                }
            }
            Within::Keys(KeyValues::Integers(values)) => {
                let bounds = integer(mins, index).zip(integer(maxes, index));
                bounds.map_or(Verdict::All, |(min, max)| found(values.meet(&min, &max)))
            }
            Within::Keys(KeyValues::Bytes(values)) => {
                let bounds = text(mins, index).zip(text(maxes, index));
                bounds.map_or(Verdict::All, |(min, max)| {
                    found(values.meet(&min.to_vec(), &max.to_vec()))
                })
            }
            Within::Keys(KeyValues::Any) => Verdict::All,
        }
    }
}

/// Statistics of keys never say that all are wanted.
fn found(found: bool) -> Verdict {
    if found { Verdict::Some } else { Verdict::None }
}

fn integer(array: &ArrayRef, index: usize) -> Option<i64> {
    if let Some(array) = array.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(array.value(index))
    } else if let Some(array) = array.as_primitive_opt::<Int64Type>() {
        Some(array.value(index))
    } else {
        let array = array.as_primitive_opt::<Int32Type>()?;
        Some(i64::from(array.value(index)))
    }
}

fn text(array: &ArrayRef, index: usize) -> Option<&[u8]> {
    if let Some(array) = array.as_string_opt::<i32>() {
        Some(array.value(index).as_bytes())
    } else {
        Some(array.as_binary_opt::<i32>()?.value(index))
    }
}

/// What lies in both; ranges ascend.
fn intersection(one: &[Range<u32>], other: &[Range<u32>]) -> Vec<Range<u32>> {
    let mut both = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        let range = a.start.max(b.start)..a.end.min(b.end);
        if !range.is_empty() {
            both.push(range);
        }
        if a.end < b.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

/// A piece in up to `parts` pieces of about the same size.
fn cut(piece: Piece, parts: usize) -> Vec<Piece> {
    let rows = piece.rows();
    let parts = (rows / SPLIT_ROWS).clamp(1, parts.max(1) as u64);
    let part_rows = rows.div_ceil(parts);
    let mut pieces = Vec::new();
    let mut ranges = Vec::new();
    let mut left = part_rows;
    for mut range in piece.ranges {
        while u64::from(range.end - range.start) >= left {
            // `left` fits, since it is no more than the range's length.
            let middle = range.start + left as u32;
            ranges.push(range.start..middle);
            range.start = middle;
            pieces.push(Piece {
                row_group: piece.row_group,
                ranges: std::mem::take(&mut ranges),
            });
            left = part_rows;
            if range.is_empty() {
                break;
            }
        }
        if !range.is_empty() {
            left -= u64::from(range.end - range.start);
            ranges.push(range);
        }
    }
    if !ranges.is_empty() {
        pieces.push(Piece {
            row_group: piece.row_group,
            ranges,
        });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_cut_into_parts_of_about_the_same_size_that_are_the_whole() {
        let piece = Piece {
            row_group: 3,
            ranges: vec![0..100_000, 200_000..500_000, 600_000..600_001],
        };
        let parts = cut(piece.clone(), 4);
        let rows: Vec<u64> = parts.iter().map(Piece::rows).collect();
        assert_eq!(rows, [100_001, 100_001, 100_001, 99_998]);
        let all = parts.iter().flat_map(|part| part.ranges.clone()).flatten();
        assert!(all.eq(piece.ranges.iter().cloned().flatten()));
        assert_eq!(cut(piece, 1).len(), 1);
        let small = Piece {
            row_group: 0,
            ranges: std::iter::once(0..10).collect(),
        };
        assert_eq!(cut(small.clone(), 8), [small]);
    }

    #[test]
    fn an_intersection_has_what_lies_in_both() {
        let (one, other) = ([0..10, 20..30, 40..50], [5..25, 29..41, 50..60]);
        assert_eq!(intersection(&one, &other), [5..10, 20..25, 29..30, 40..41]);
        assert!(intersection(&one, &[]).is_empty());
    }

    #[test]
    fn values_meet_a_range_that_has_one_of_them() {
        let few = Values {
            min: 1,
            max: 9,
            distinct: Some(vec![1, 9]),
        };
        assert!(few.meet(&0, &1) && few.meet(&9, &20) && few.meet(&0, &20));
        assert!(!few.meet(&2, &8) && !few.meet(&10, &20));
        let many = Values {
            distinct: None,
            ..few
        };
        assert!(many.meet(&2, &8) && !many.meet(&10, &20));
    }
}
