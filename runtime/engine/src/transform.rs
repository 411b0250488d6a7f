//! The null rule, the failure rule, and chunks: what lies between a component and the rows of a
//! transformation.
//!
//! A component sees the rows without a null in an input that is not nullable, in chunks. A chunk
//! that fails, for whatever reason, is run again in parts, until the rows that fail alone are
//! known: only those have failed, so the size of a chunk never decides a result.
//!
//! ```text
//! chunk fails ─┬─ it names a row, which fails alone ──► the rows before it, that row, then the
//!              │                                        two halves of the rows after it
//!              └─ else ───────────────────────────────► its two halves
//! ```
//!
//! Halving what comes after a failed row keeps the cost within n·log n rows if all fail. Time is
//! the exception to patience: after [`MAX_TIMEOUTS`] calls that ran out of it, the whole
//! transformation has failed, even under `on_error: null`, with a message that says so; a component
//! that hangs on every row would otherwise take days for a training set.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat, filter, take};
use arrow::datatypes::DataType as ArrowType;
use unskew_core::component::Kind;
use unskew_core::view::OnError;

use crate::component::{Component, Patience, Returned, longer_than_a_moment};
use crate::error::{CallError, CallErrorKind, Failure};

/// How many calls of one transformation may run out of time before all of it has failed. Finding
/// one row among 8,192 by halving takes 14.
pub(crate) const MAX_TIMEOUTS: usize = 32;

/// How many calls one transformation may make that has not all its time. Finding one row among 256
/// by halving takes 17.
pub(crate) const CALLS_IN_A_MOMENT: usize = 17;

/// The rows that a batch transformation gave.
#[derive(Clone, Debug)]
pub struct BatchRows {
    /// The columns of the component's outputs.
    pub columns: Vec<ArrayRef>,
    /// The row given from which each row comes; never falling.
    pub source_row: Vec<u32>,
    /// Set where the component gave the row, and not where it stands for one that the component
    /// did not see or for which it failed; `None`: it gave all.
    pub given: Option<NullBuffer>,
}

/// Runs an on-demand component: one row out for each row in, at the same place.
///
/// `inputs` are the component's, of their Arrow types. Where an input that is not nullable is null,
/// the component does not see the row, and its outputs are null.
///
/// # Errors
/// Under [`OnError::Fail`], the first row that fails. Under [`OnError::Null`] such rows' outputs
/// are null; then only a component that keeps running out of time fails, or columns that are none
/// that it takes.
pub fn transform_on_demand(
    component: &Component,
    inputs: &[ArrayRef],
    rows: usize,
    on_error: OnError,
) -> Result<Vec<ArrayRef>, Box<Failure>> {
    on_demand_within(component, inputs, rows, on_error, Patience::Whole)
}

/// As [`transform_on_demand`], each call within that time.
///
/// # Errors
/// As [`transform_on_demand`]; [`CallErrorKind::Moment`] if a call was to take less than its whole
/// time and takes longer.
pub(crate) fn on_demand_within(
    component: &Component,
    inputs: &[ArrayRef],
    rows: usize,
    on_error: OnError,
    patience: Patience,
) -> Result<Vec<ArrayRef>, Box<Failure>> {
    let rules = (on_error, patience);
    Ok(transform(component, Kind::OnDemand, inputs, rows, rules)?.columns)
}

/// Runs a batch component: any number of rows out for each row in, in the order of their rows.
///
/// A row that the component does not see, for a null in an input that is not nullable, and under
/// [`OnError::Null`] a row for which it fails, gives one row, whose outputs are null.
///
/// # Errors
/// As [`transform_on_demand`].
pub fn transform_batch(
    component: &Component,
    inputs: &[ArrayRef],
    rows: usize,
    on_error: OnError,
) -> Result<BatchRows, Box<Failure>> {
    let rules = (on_error, Patience::Whole);
    transform(component, Kind::Batch, inputs, rows, rules)
}

fn transform(
    component: &Component,
    kind: Kind,
    inputs: &[ArrayRef],
    rows: usize,
    rules: (OnError, Patience),
) -> Result<BatchRows, Box<Failure>> {
    let description = component.description();
    let refused = |message: String| {
        let error = CallError::new(CallErrorKind::Input, None, message);
        Box::new(Failure::new(description, None, &error))
    };
    if description.kind != kind {
        return Err(refused(format!(
            "it is of kind {}, and was run as {kind}",
            description.kind
        )));
    }
    if inputs.len() != description.inputs.len() {
        return Err(refused(format!(
            "{} columns were given; it takes {}",
            inputs.len(),
            description.inputs.len()
        )));
    }
    if let Some((field, column)) = description
        .inputs
        .iter()
        .zip(inputs)
        .find(|(_, column)| column.len() != rows)
    {
        return Err(refused(format!(
            "column `{}` has {} rows of {rows}",
            field.name,
            column.len()
        )));
    }
    if u32::try_from(rows).is_err() {
        return Err(refused(format!("{rows} rows; at most {}", u32::MAX)));
    }
    let required = description
        .inputs
        .iter()
        .zip(inputs)
        .filter(|(field, _)| !field.nullable)
        .fold(None, |nulls, (_, column)| {
            NullBuffer::union(nulls.as_ref(), column.nulls())
        })
        .filter(|nulls| nulls.null_count() > 0);
    let mut run = match &required {
        None => Run::new(component, rules, Cow::Borrowed(inputs), None, rows),
        Some(seen) => {
            let mask = BooleanArray::new(seen.inner().clone(), None);
            let inputs = inputs
                .iter()
                .map(|column| filter(column, &mask))
                .collect::<Result<_, _>>()
                .map_err(|error| refused(error.to_string()))?;
            let rows: Vec<u32> = (0..)
                .zip(seen.iter())
                .filter_map(|(row, seen)| seen.then_some(row))
                .collect();
            let count = rows.len();
            Run::new(component, rules, Cow::Owned(inputs), Some(rows), count)
        }
    };
    run.all()?;
    let unseen = match &required {
        None => Vec::new(),
        Some(seen) => (0..)
            .zip(seen.iter())
            .filter_map(|(row, seen)| (!seen).then_some(row))
            .collect(),
    };
    run.assembled(&unseen).map_err(refused)
}

/// Some of the rows that were run, in order.
enum Piece {
    /// Rows that the component gave for the rows from `start`.
    Rows { start: usize, returned: Returned },
    /// A row for which it failed.
    Failed(usize),
}

/// What is still to be done, of rows in order.
enum Todo {
    /// Run these rows.
    Run(Range<usize>),
    /// This row was run alone, and failed.
    Failed(usize, CallError),
}

struct Run<'a> {
    component: &'a Component,
    on_error: OnError,
    patience: Patience,
    inputs: Cow<'a, [ArrayRef]>,
    /// The rows given that the component sees; `None`: all.
    seen: Option<Vec<u32>>,
    rows: usize,
    /// How many rows the next call gets. It shrinks where the component runs out of something
    /// without any row being at fault.
    chunk: usize,
    timeouts: usize,
    /// How many calls were made.
    calls: usize,
    pieces: Vec<Piece>,
}

impl<'a> Run<'a> {
    fn new(
        component: &'a Component,
        (on_error, patience): (OnError, Patience),
        inputs: Cow<'a, [ArrayRef]>,
        seen: Option<Vec<u32>>,
        rows: usize,
    ) -> Self {
        Self {
            component,
            on_error,
            patience,
            inputs,
            seen,
            rows,
            chunk: component.chunk_rows(),
            timeouts: 0,
            calls: 0,
            pieces: Vec::new(),
        }
    }

    fn all(&mut self) -> Result<(), Box<Failure>> {
        let mut at = 0;
        while at < self.rows {
            let end = self.rows.min(at.saturating_add(self.chunk));
            self.chunk(at..end)?;
            at = end;
        }
        Ok(())
    }

    fn chunk(&mut self, rows: Range<usize>) -> Result<(), Box<Failure>> {
        let mut todo = vec![Todo::Run(rows)];
        // The longest range that ran, if the chunk was split, and whether a row failed.
        let (mut split, mut longest, mut failed) = (false, 0, false);
        while let Some(next) = todo.pop() {
            let rows = match next {
                Todo::Run(rows) if rows.is_empty() => continue,
                Todo::Run(rows) => rows,
                Todo::Failed(row, error) => {
                    failed = true;
                    self.failed(row, &error)?;
                    continue;
                }
            };
            let error = match self.call(&rows)? {
                Ok(returned) => {
                    longest = longest.max(rows.len());
                    self.pieces.push(Piece::Rows {
                        start: rows.start,
                        returned,
                    });
                    continue;
                }
                Err(error) if rows.len() == 1 => {
                    todo.push(Todo::Failed(rows.start, error));
                    continue;
                }
                Err(error) => error,
            };
            split = true;
            // What is pushed last is done first.
            match self.suspect(&rows, &error)? {
                Some((row, error)) => {
                    let middle = row + 1 + (rows.end - row - 1) / 2;
                    todo.push(Todo::Run(middle..rows.end));
                    todo.push(Todo::Run(row + 1..middle));
                    todo.push(Todo::Failed(row, error));
                    todo.push(Todo::Run(rows.start..row));
                }
                None => {
                    let middle = rows.start + rows.len() / 2;
                    todo.push(Todo::Run(middle..rows.end));
                    todo.push(Todo::Run(rows.start..middle));
                }
            }
        }
        if split && !failed {
            self.chunk = longest.max(1);
        }
        Ok(())
    }

    /// The row that a failed call named, if it fails alone.
    fn suspect(
        &mut self,
        rows: &Range<usize>,
        error: &CallError,
    ) -> Result<Option<(usize, CallError)>, Box<Failure>> {
        let Some(row) = error.row.map(|row| rows.start + row) else {
            return Ok(None);
        };
        if !rows.contains(&row) {
            return Ok(None);
        }
        let alone = self.call(&(row..row + 1))?;
        Ok(alone.err().map(|error| (row, error)))
    }

    /// Runs the component on rows that it sees.
    ///
    /// # Errors
    /// The outer one ends the transformation.
    fn call(&mut self, rows: &Range<usize>) -> Result<Result<Returned, CallError>, Box<Failure>> {
        self.calls += 1;
        if self.patience != Patience::Whole && self.calls > CALLS_IN_A_MOMENT {
            return Err(self.failure(None, &longer_than_a_moment()));
        }
        let result = if *rows == (0..self.rows) {
            // Most requests: nothing to cut off, and a slice is an allocation for each column.
            self.component
                .call_within(&self.inputs, rows.len(), self.patience)
        } else {
            let columns = self.inputs.iter();
            let columns: Vec<ArrayRef> = columns
                .map(|column| column.slice(rows.start, rows.len()))
                .collect();
            self.component
                .call_within(&columns, rows.len(), self.patience)
        };
        if let Err(error) = &result {
            match error.kind {
                CallErrorKind::Input | CallErrorKind::Moment => {
                    return Err(self.failure(None, error));
                }
                CallErrorKind::Time => {
                    self.timeouts += 1;
                    if self.timeouts > MAX_TIMEOUTS {
                        let row = rows.start + error.row.unwrap_or_default();
                        let error = CallError {
                            message: format!(
                                "{}, like {MAX_TIMEOUTS} calls before it; the remaining rows were \
                                 not tried",
                                error.message
                            ),
                            ..error.clone()
                        };
                        return Err(self.failure(Some(row), &error));
                    }
                }
                _ => {}
            }
        }
        Ok(result)
    }

    fn failed(&mut self, row: usize, error: &CallError) -> Result<(), Box<Failure>> {
        match self.on_error {
            OnError::Fail => Err(self.failure(Some(row), error)),
            OnError::Null => {
                self.pieces.push(Piece::Failed(row));
                Ok(())
            }
        }
    }

    fn failure(&self, row: Option<usize>, error: &CallError) -> Box<Failure> {
        let row = row.map(|row| self.given(row));
        Box::new(Failure::new(self.component.description(), row, error))
    }

    /// The row given that the component sees as `row`.
    fn given(&self, row: usize) -> usize {
        match &self.seen {
            None => row,
            Some(seen) => seen.get(row).map_or(row, |&row| row as usize),
        }
    }

    /// The output rows: those of the pieces, and one of nulls for each row that was not seen.
    ///
    /// # Errors
    /// There are more values than a column holds.
    fn assembled(mut self, unseen: &[u32]) -> Result<BatchRows, String> {
        if unseen.is_empty()
            && let [Piece::Rows { returned, .. }] = self.pieces.as_mut_slice()
        {
            let columns = std::mem::take(&mut returned.columns);
            // On demand it is empty, and nobody asks for it.
            let source_row = std::mem::take(&mut returned.source_row);
            return Ok(BatchRows {
                columns,
                source_row,
                given: None,
            });
        }
        let (source_row, places) = self.places(unseen)?;
        let outputs = &self.component.description().outputs;
        let columns = outputs
            .iter()
            .enumerate()
            .map(|(index, field)| {
                let parts: Vec<&dyn Array> = self
                    .pieces
                    .iter()
                    .filter_map(|piece| match piece {
                        Piece::Rows { returned, .. } => Some(returned.columns[index].as_ref()),
                        Piece::Failed(_) => None,
                    })
                    .collect();
                let data_type = field.data_type.arrow();
                let whole = match parts.as_slice() {
                    [] => new_null_array(&data_type, 0),
                    parts => {
                        check_size(parts)
                            .map_err(|message| format!("column `{}` {message}", field.name))?;
                        concat(parts).map_err(|error| error.to_string())?
                    }
                };
                match &places {
                    None => Ok(whole),
                    Some(places) => take(&whole, places, None).map_err(|error| error.to_string()),
                }
            })
            .collect::<Result<_, String>>()?;
        Ok(BatchRows {
            columns,
            source_row,
            given: places.and_then(|places| places.nulls().cloned()),
        })
    }

    /// The row given of each output row, and its place among the rows of all pieces, null for a row
    /// of nulls; `None` where all are in their places.
    fn places(&self, unseen: &[u32]) -> Result<(Vec<u32>, Option<UInt32Array>), String> {
        let mut unseen = unseen.iter().copied().peekable();
        let (mut source_row, mut places) = (Vec::new(), Vec::new());
        let mut count = 0_u32;
        let mut put = |row: usize, returned: bool| {
            let row = self.given(row) as u32;
            while let Some(null) = unseen.next_if(|&null| null < row) {
                source_row.push(null);
                places.push(None);
            }
            source_row.push(row);
            places.push(returned.then_some(count));
            if returned {
                count = count
                    .checked_add(1)
                    .ok_or_else(|| format!("more than {} rows were returned", u32::MAX))?;
            }
            Ok::<_, String>(())
        };
        for piece in &self.pieces {
            match piece {
                Piece::Failed(row) => put(*row, false)?,
                Piece::Rows { start, returned } => match self.component.description().kind {
                    Kind::OnDemand => {
                        for row in 0..returned.rows {
                            put(start + row, true)?;
                        }
                    }
                    Kind::Batch => {
                        for &row in &returned.source_row {
                            put(start + row as usize, true)?;
                        }
                    }
                },
            }
        }
        for null in unseen {
            source_row.push(null);
            places.push(None);
        }
        let in_place = places.iter().all(Option::is_some);
        Ok((source_row, (!in_place).then(|| places.into())))
    }
}

/// Refuses what one array cannot hold; arrow may panic for it.
pub(crate) fn check_size(parts: &[&dyn Array]) -> Result<(), String> {
    let kinds: BTreeSet<bool> = parts
        .iter()
        .map(|part| is_nested(part.data_type()))
        .collect();
    if !kinds.contains(&true) {
        return Ok(());
    }
    let total = parts.iter().map(|part| extent(*part)).sum::<usize>();
    if i32::try_from(total).is_ok() {
        return Ok(());
    }
    Err(format!(
        "has {total} bytes or items in one batch; at most {}",
        i32::MAX
    ))
}

fn is_nested(data_type: &ArrowType) -> bool {
    matches!(
        data_type,
        ArrowType::Utf8 | ArrowType::Binary | ArrowType::List(_)
    )
}

/// The bytes of all values, or the items of all lists or the bytes in them, whichever is more.
pub(crate) fn extent(array: &dyn Array) -> usize {
    let between = |offsets: &[i32]| match offsets {
        [first, .., last] => (last - first) as usize,
        _ => 0,
    };
    match array.data_type() {
        ArrowType::Utf8 => between(array.as_string::<i32>().value_offsets()),
        ArrowType::Binary => between(array.as_binary::<i32>().value_offsets()),
        ArrowType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            let items = between(offsets);
            let first = offsets.first().map_or(0, |&first| first as usize);
            items.max(extent(&list.values().slice(first, items)))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
