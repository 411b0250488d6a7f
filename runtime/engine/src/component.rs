//! A loaded component.

use std::fmt;
use std::sync::{Arc, Once};

use arrow::array::{ArrayRef, new_empty_array};
use unskew_core::component::Description;
use unskew_core::digest::Digest;
use wasmtime::Store;

use crate::bindings::Transform;
use crate::bindings::exports::unskew::transform::transformation as wit;
use crate::config::{MOMENT, TOGETHER, limits};
use crate::description;
use crate::engine::Shared;
use crate::error::{CallError, CallErrorKind, LoadError};
use crate::lanes::{Lane, Lanes};
use crate::lift;
use crate::limits::Limits;
use crate::lower;
use crate::samples;
use crate::trap::{self, SlotOffset};

/// A component that was checked and can be called, by many threads at once.
pub struct Component {
    shared: Arc<Shared>,
    lanes: Lanes,
    digest: Digest,
    size: usize,
    description: Description,
    slot: SlotOffset,
    warmed: Once,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as [`Settings::timeout`](crate::Settings::timeout) says.
    Whole,
    /// A few milliseconds, and it does not wait for its turn either.
    Moment,
    /// [`TOGETHER`] epochs, for rows of several requests, of which each can still be called alone.
    Together,
}

/// The rows that a call returned, checked.
#[derive(Clone, Debug)]
pub struct Returned {
    /// The columns of `description().outputs`, of their Arrow types.
    pub columns: Vec<ArrayRef>,
    /// How many rows each has.
    pub rows: usize,
    /// Of the batch kind: the row given from which each row comes; never falling. On demand: empty.
    pub source_row: Vec<u32>,
}

impl Component {
    /// Instantiates the component and asks what it is.
    pub(crate) fn describe(
        shared: Arc<Shared>,
        lanes: Lanes,
        digest: Digest,
        size: usize,
    ) -> Result<Self, LoadError> {
        let slot = SlotOffset::new();
        let description = {
            // Dropped last: the instance goes back to the pool before its turn does.
            let _permit = shared.permits.acquire();
            let mut store = store(&shared, Patience::Whole);
            let failed = |error: wasmtime::Error, store: &Store<Limits>| LoadError::Describe {
                digest,
                error: trap::call_error(&error, store, &shared.settings, &slot),
            };
            let raw = lanes
                .first()
                .instance
                .instantiate(&mut store)
                .map_err(|error| failed(error, &store))?;
            let transform =
                Transform::new(&mut store, &raw).map_err(|error| LoadError::Contract {
                    digest,
                    message: format!("{error:#}"),
                })?;
            let description = transform
                .unskew_transform_transformation()
                .call_describe(&mut store)
                .map_err(|error| failed(error, &store))?;
            description::convert(description)
                .map_err(|message| LoadError::Description { digest, message })?
        };
        Ok(Self {
            shared,
            lanes,
            digest,
            size,
            description,
            slot,
            warmed: Once::new(),
        })
    }

    /// The sha256 of its file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The size of its file in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What it says about itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// How many rows it is given in one call at most.
    pub(crate) fn chunk_rows(&self) -> usize {
        self.shared.settings.chunk_rows
    }

    /// Calls it on a made-up row for a moment in each copy of its code, so that the first request
    /// on no CPU waits for memory to be mapped and code to be read. What becomes of the row is of no
    /// interest. Once, however often this is asked for.
    pub fn warm(&self) {
        self.warmed.call_once(|| {
            let inputs = &self.description.inputs;
            let Ok(columns) = samples::columns(inputs, 1) else {
                return;
            };
            let Ok(lowered) = lower::batch(inputs, &columns, 1) else {
                return;
            };
            let params = lowered.params();
            for lane in self.lanes.all() {
                // Dropped last: the instance goes back to the pool before its turn does.
                let _permit = self.shared.permits.acquire();
                let mut store = store(&self.shared, Patience::Moment);
                let _ = run(lane, &mut store, lowered.batch(&params));
            }
        });
    }

    /// Runs it on `rows` rows, in a fresh instance.
    ///
    /// `columns` are those of `description().inputs`, of their Arrow types, sliced or not; where an
    /// input is not nullable, without nulls. Everything that comes back is checked. No rows are
    /// answered without a call.
    ///
    /// # Errors
    /// The component failed, trapped, used up memory, time or result space, or returned what the
    /// contract does not allow; [`CallErrorKind::Input`] if the rows are none that it takes.
    pub fn call(&self, columns: &[ArrayRef], rows: usize) -> Result<Returned, CallError> {
        self.call_within(columns, rows, Patience::Whole)
    }

    /// As [`Component::call`], within that time.
    ///
    /// # Errors
    /// As [`Component::call`]; [`CallErrorKind::Moment`] if it was to take less than its whole time
    /// and takes longer.
    pub(crate) fn call_within(
        &self,
        columns: &[ArrayRef],
        rows: usize,
        patience: Patience,
    ) -> Result<Returned, CallError> {
        let lowered = lower::batch(&self.description.inputs, columns, rows)?;
        if rows == 0 {
            let outputs = self.description.outputs.iter();
            return Ok(Returned {
                columns: outputs
                    .map(|field| new_empty_array(&field.data_type.arrow()))
                    .collect(),
                rows: 0,
                source_row: Vec::new(),
            });
        }
        let returned = {
            // Dropped last: the instance goes back to the pool before its turn does.
            let _permit = match patience {
                Patience::Whole => self.shared.permits.acquire(),
                // Nobody has one for long.
                Patience::Together => self.shared.shared_permits.acquire(),
                Patience::Moment => self
                    .shared
                    .brief_permits
                    .try_acquire()
                    .ok_or_else(longer_than_a_moment)?,
            };
            let mut store = store(&self.shared, patience);
            let params = lowered.params();
            run(self.lanes.here(), &mut store, lowered.batch(&params)).map_err(|error| {
                // Before the memory is looked into, which may be large.
                if patience != Patience::Whole && trap::is_interrupt(&error) {
                    return longer_than_a_moment();
                }
                let mut error = trap::call_error(&error, &store, &self.shared.settings, &self.slot);
                error.row = error.row.filter(|&row| row < rows);
                error
            })?
        };
        match returned {
            Ok(output) => lift::output(&self.description, output, rows),
            Err(failure) => Err(CallError::new(
                CallErrorKind::Failed,
                failure
                    .row
                    .map(|row| row as usize)
                    .filter(|&row| row < rows),
                match failure.message.trim() {
                    "" => "it gave no reason".to_owned(),
                    message => message.to_owned(),
                },
            )),
        }
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("digest", &self.digest)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// Calls `run` in a new instance of that store.
///
/// The generated `TransformPre::instantiate` would look up `describe` as well, and compare the types
/// of both with the contract, field name by field name: a twentieth of a call of one row.
fn run(
    Lane { instance, run }: &Lane,
    store: &mut Store<Limits>,
    batch: wit::Batch<'_>,
) -> wasmtime::Result<Result<wit::Output, wit::Failure>> {
    let instance = instance.instantiate(&mut *store)?;
    let run = instance.get_typed_func::<(wit::Batch<'_>,), _>(&mut *store, run)?;
    let (returned,) = run.call(store, (batch,))?;
    Ok(returned)
}

pub(crate) fn longer_than_a_moment() -> CallError {
    CallError::new(CallErrorKind::Moment, None, "took longer than a moment")
}

/// A store for one instance, with all its limits.
fn store(shared: &Shared, patience: Patience) -> Store<Limits> {
    let limits = Limits::new(shared.settings.memory_limit);
    let mut store = Store::new(&shared.wasmtime, limits);
    store.limiter(|limits| limits);
    store.set_epoch_deadline(match patience {
        Patience::Whole => shared.ticks,
        Patience::Moment => shared.ticks.min(MOMENT),
        Patience::Together => shared.ticks.min(TOGETHER),
    });
    store.set_hostcall_fuel(limits::RESULT);
    store
}

#[cfg(test)]
mod tests;
