//! The join over rows as they lie in files, in two phases.
//!
//! ```text
//! 1. timestamps and keys of all rows that may count ─▶ for each slot the address of its winner
//! 2. the features of the winners                    ─▶ in the order of the addresses
//! ```
//!
//! But for ties, each column chunk is decoded at most once, and what is held is in proportion to the
//! slots.

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use tokio::runtime::Handle;
use unskew_core::time::Mode;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::{ValueError, coerce};
use unskew_core::view::View;
use unskew_engine::ViewRowsError;

use super::chosen::{Address, Chosen, TooManyTies};
use super::counts::Counts;
use super::cursors::Cursors;
use super::kept::{Stored, keep};
use super::parallel::{Cancelled, workers};
use super::probe::{Admission, Prober};
use super::slots::Slots;
use super::ties;
use crate::error::OfflineError;
use crate::offline::CHUNK_ROWS;
use crate::progress::Progress;
use crate::scan::{Piece, ScanExec};

/// What is needed for the work.
pub(crate) struct Task<'a> {
    pub(crate) view: &'a View,
    pub(crate) scan: &'a ScanExec,
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
    let mut chosen = match first {
        Err(Failed::TooManyTies) if has_created && !is_known => choose_all(task, true)?,
        chosen => chosen?,
    };
    ties::settle(task, &mut chosen)?;
    Ok(keep(task, chosen)?)
}

/// The first phase.
fn choose_all(task: &Task<'_>, with_created: bool) -> Result<Chosen, Failed> {
    let source = &task.view.source;
    let column = |name: &str| Ok::<_, OfflineError>(task.scan.scan().schema().index_of(name)?);
    let pieces = task.scan.pieces(task.handle)?;
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
    // One thread works even where there is nothing to read.
    let mut partial = partial.into_iter();
    let (mut chosen, mut read, mut lag) = partial
        .next()
        .unwrap_or_else(|| (Chosen::none(task.slots.len(), with_created), 0, 0));
    for (other, read_by_it, lag_of_it) in partial {
        chosen.merge(other)?;
        read += read_by_it;
        lag += lag_of_it;
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
    let mut reader = task
        .scan
        .scan()
        .read(piece, &read, CHUNK_ROWS, task.handle)?;
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

/// An error of a value, with the file and the row in it; `row` gives the number in the row group.
pub(crate) fn value_error(
    task: &Task<'_>,
    row_group: usize,
    row: &dyn Fn(u32) -> u32,
    column: &str,
    mut error: ValueError,
) -> OfflineError {
    // A batch has fewer rows than 32 bits count.
    let place = task.scan.scan().row_place(row_group, row(error.row as u32));
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
