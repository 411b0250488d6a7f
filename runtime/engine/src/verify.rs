//! The check at `apply`: a row's result may depend on that row alone.
//!
//! Training computes features in chunks of thousands of rows, a request for one or a few. A
//! component for which that makes a difference would give other features in serving than in
//! training; so it is refused before it is ever registered.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use unskew_core::component::Kind;
use unskew_core::types::Field;
use unskew_core::{json, row};

use crate::component::{Component, Returned};
use crate::error::{CallError, CallErrorKind, Dependence, VerifyError};
use crate::samples::{self, Random};

/// How many rows are tried.
const ROWS: usize = 256;
/// How many different ones may take too long; each is waited for. A component that hangs on more
/// would hang a server.
const MAX_TIMEOUTS: usize = 3;

/// How a component did that may be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many rows it was tried on.
    pub rows: usize,
    /// On how many of them it failed, or took too long. A component that fails on all of them may
    /// be right, where none of them makes sense to it, and hardly is.
    pub failed: usize,
    /// The message of the first failure.
    pub first: Option<String>,
}

/// Tries a component on 256 rows made up from its input types, edge cases first, the same on every
/// machine: splitting, reordering and repeating rows may change no row's result by a bit.
///
/// A failure is a result too: a row that fails alone must fail among others, and with the same
/// message. That many rows together run out of memory, time or result space is not held against a
/// component, since `transform_*` splits such chunks.
///
/// # Errors
/// Names the property, the row's inputs and both results.
pub fn verify(component: &Component) -> Result<Verified, VerifyError> {
    let inputs = samples::columns(&component.description().inputs, ROWS)
        .map_err(|error| impossible(component, &error))?;
    let mut check = Check {
        component,
        inputs,
        alone: Vec::with_capacity(ROWS),
    };
    check.run_alone()?;
    for trial in check.trials() {
        check.compare(&trial)?;
    }
    Ok(check.verified())
}

fn impossible(component: &Component, error: &dyn fmt::Display) -> VerifyError {
    VerifyError::Impossible {
        provenance: component.description().provenance(),
        message: error.to_string(),
    }
}

/// What a row gives.
#[derive(Clone, Debug)]
enum RowResult {
    /// Its output rows; one row on demand.
    Rows {
        /// Bit by bit.
        encoded: Vec<Vec<u8>>,
        /// For a person.
        text: String,
    },
    /// The message with which it fails.
    Failed(String),
    /// It takes too long alone, which this message says, and is left out of what follows.
    TooSlow(String),
}

impl fmt::Display for RowResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows { text, .. } => f.write_str(text),
            Self::Failed(message) => write!(f, "the failure `{message}`"),
            Self::TooSlow(_) => f.write_str("none in time"),
        }
    }
}

/// Rows to run together, to see whether each gives what it gives alone.
struct Trial {
    property: &'static str,
    how: &'static str,
    rows: Vec<usize>,
}

struct Check<'a> {
    component: &'a Component,
    inputs: Vec<ArrayRef>,
    /// The result of each row when it is the only one.
    alone: Vec<RowResult>,
}

impl Check<'_> {
    fn run_alone(&mut self) -> Result<(), VerifyError> {
        let mut too_slow = BTreeMap::new();
        for row in 0..ROWS {
            let mut inputs = Vec::new();
            row::encode(&self.inputs, row, 0, None, &mut inputs);
            if let Some(message) = too_slow.get(&inputs) {
                self.alone.push(RowResult::TooSlow(String::clone(message)));
                continue;
            }
            let result = match self.call(&[row])? {
                Ok(returned) => self.result(&returned, 0..returned.rows),
                Err(error) if error.kind == CallErrorKind::Time => {
                    too_slow.insert(inputs, error.message.clone());
                    if too_slow.len() > MAX_TIMEOUTS {
                        return Err(VerifyError::TooSlow {
                            provenance: self.component.description().provenance(),
                            limit: MAX_TIMEOUTS,
                            inputs: self.inputs_of(row),
                            message: error.message,
                        });
                    }
                    RowResult::TooSlow(error.message)
                }
                Err(error) => RowResult::Failed(error.message),
            };
            self.alone.push(result);
        }
        Ok(())
    }

    fn verified(&self) -> Verified {
        let failures = || {
            self.alone.iter().filter_map(|result| match result {
                RowResult::Rows { .. } => None,
                RowResult::Failed(message) | RowResult::TooSlow(message) => Some(message),
            })
        };
        Verified {
            rows: self.alone.len(),
            failed: failures().count(),
            first: failures().next().cloned(),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        let of = |wanted: fn(&RowResult) -> bool| -> Vec<usize> {
            (0..ROWS).filter(|&row| wanted(&self.alone[row])).collect()
        };
        let good = of(|result| matches!(result, RowResult::Rows { .. }));
        let bad = of(|result| matches!(result, RowResult::Failed(_)));
        let mut trials = Vec::new();
        let mut add = |property, how, rows: Vec<usize>| {
            if !rows.is_empty() {
                trials.push(Trial {
                    property,
                    how,
                    rows,
                });
            }
        };
        for (length, how) in [
            (ROWS, "of all rows"),
            (100, "of up to 100 rows"),
            (7, "of up to 7 rows"),
        ] {
            for rows in good.chunks(length) {
                add("splitting", how, rows.to_vec());
            }
        }
        // A failure ends a call, so each failing row is tried with its neighbours.
        for &row in &bad {
            let near = good.partition_point(|&other| other < row);
            let before = near.checked_sub(1).map(|at| good[at]);
            let rows = [before, Some(row), good.get(near).copied()];
            let rows: Vec<usize> = rows.into_iter().flatten().collect();
            add("splitting", "with its neighbours", rows.clone());
            add(
                "reordering",
                "with its neighbours, in reverse",
                rows.into_iter().rev().collect(),
            );
        }
        add(
            "reordering",
            "of all rows in reverse",
            good.iter().rev().copied().collect(),
        );
        for seed in 0..2 {
            add(
                "reordering",
                "of all rows in a random order",
                shuffled(&good, seed),
            );
        }
        add(
            "repeating",
            "of each row twice in succession",
            good.iter().flat_map(|&row| [row, row]).collect(),
        );
        add(
            "repeating",
            "of all rows, twice",
            [good.as_slice(), &good].concat(),
        );
        for &row in good.iter().take(8) {
            add("repeating", "of the same row 100 times", vec![row; 100]);
        }
        trials
    }

    fn compare(&self, trial: &Trial) -> Result<(), VerifyError> {
        let mut todo = vec![trial.rows.as_slice()];
        while let Some(rows) = todo.pop() {
            match self.call(rows)? {
                Ok(returned) => self.compare_rows(trial, rows, &returned)?,
                Err(error) if error.kind.is_exhaustion() => {
                    // One row had enough of it alone, and is in its place again.
                    if rows.len() > 1 {
                        let (left, right) = rows.split_at(rows.len() / 2);
                        todo.extend([right, left]);
                    }
                }
                Err(error) => self.compare_failure(trial, rows, &error)?,
            }
        }
        Ok(())
    }

    fn compare_rows(
        &self,
        trial: &Trial,
        rows: &[usize],
        returned: &Returned,
    ) -> Result<(), VerifyError> {
        let mut at = 0;
        for (position, &row) in rows.iter().enumerate() {
            let count = match self.component.description().kind {
                Kind::OnDemand => 1,
                Kind::Batch => {
                    let rest = &returned.source_row[at..];
                    rest.partition_point(|&source| source as usize <= position)
                }
            };
            let range = at..at + count;
            at += count;
            let same = match &self.alone[row] {
                RowResult::Rows { encoded: alone, .. } => {
                    *alone == encoded(returned, range.clone())
                }
                _ => false,
            };
            if !same {
                // Its text takes far longer than its bits, so only what differs has one.
                let together = self.result(returned, range);
                return Err(self.dependent(trial, rows.len(), row, &together));
            }
        }
        Ok(())
    }

    /// A call may fail only if one of its rows fails alone, and as that row does.
    fn compare_failure(
        &self,
        trial: &Trial,
        rows: &[usize],
        error: &CallError,
    ) -> Result<(), VerifyError> {
        let together = RowResult::Failed(error.message.clone());
        let failing = |&&row: &&usize| matches!(self.alone[row], RowResult::Failed(_));
        let at_fault = match error.row.and_then(|at| rows.get(at)) {
            Some(row) => row,
            None => match rows.iter().find(failing).or(rows.first()) {
                Some(row) => row,
                None => return Ok(()),
            },
        };
        match &self.alone[*at_fault] {
            RowResult::Failed(message) if *message == error.message => Ok(()),
            _ => Err(self.dependent(trial, rows.len(), *at_fault, &together)),
        }
    }

    /// Runs the component on rows, each given by its index.
    ///
    /// # Errors
    /// The outer one is no finding about the component.
    fn call(&self, rows: &[usize]) -> Result<Result<Returned, CallError>, VerifyError> {
        let indices: UInt32Array = rows.iter().map(|&row| row as u32).collect();
        let columns = self
            .inputs
            .iter()
            .map(|column| take(column, &indices, None))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| impossible(self.component, &error))?;
        match self.component.call(&columns, rows.len()) {
            Err(error) if error.kind == CallErrorKind::Input => {
                Err(impossible(self.component, &error))
            }
            result => Ok(result),
        }
    }

    /// What `returned` holds in `range`, as the result of one row.
    fn result(&self, returned: &Returned, range: Range<usize>) -> RowResult {
        let outputs = &self.component.description().outputs;
        let text = match self.component.description().kind {
            Kind::OnDemand => shown(outputs, &returned.columns, range.start),
            Kind::Batch if range.is_empty() => "no row".to_owned(),
            Kind::Batch => {
                let rows = range.clone().take(3);
                let rows: Vec<_> = rows
                    .map(|row| format!("({})", shown(outputs, &returned.columns, row)))
                    .collect();
                format!("{} rows: {}", range.len(), rows.join(", "))
            }
        };
        RowResult::Rows {
            encoded: encoded(returned, range),
            text,
        }
    }

    fn dependent(
        &self,
        trial: &Trial,
        length: usize,
        row: usize,
        together: &RowResult,
    ) -> VerifyError {
        VerifyError::Dependent(Box::new(Dependence {
            provenance: self.component.description().provenance(),
            property: trial.property,
            inputs: self.inputs_of(row),
            alone: self.alone[row].to_string(),
            circumstance: format!("in a batch {} ({length} rows)", trial.how),
            together: together.to_string(),
        }))
    }

    fn inputs_of(&self, row: usize) -> String {
        match self.component.description().inputs.as_slice() {
            [] => "no inputs".to_owned(),
            inputs => shown(inputs, &self.inputs, row),
        }
    }
}

/// The bits of each row that `returned` holds in `range`.
fn encoded(returned: &Returned, range: Range<usize>) -> Vec<Vec<u8>> {
    range
        .map(|row| {
            let mut bits = Vec::new();
            row::encode(&returned.columns, row, 0, None, &mut bits);
            bits
        })
        .collect()
}

/// `name = value, …`, each value cut if it is long.
fn shown(fields: &[Field], columns: &[ArrayRef], row: usize) -> String {
    const LONGEST: usize = 120;
    let values = fields.iter().zip(columns).map(|(field, column)| {
        let mut value = json::display(column, row);
        if value.chars().count() > LONGEST {
            value = value.chars().take(LONGEST).chain(['…']).collect();
        }
        format!("{} = {value}", field.name)
    });
    values.collect::<Vec<_>>().join(", ")
}

/// Fisher and Yates.
fn shuffled(rows: &[usize], seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut rows = rows.to_vec();
    for at in (1..rows.len()).rev() {
        rows.swap(at, random.below(at + 1));
    }
    rows
}

#[cfg(test)]
mod tests;
