//! What entity rows ask of a view: for which keys at which instants.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::execution::DiskManager;
use unskew_core::plan::Lookup;
use unskew_core::types::{DataType, ScalarType};
use unskew_core::values::coerce;
use unskew_core::view::{JoinKey, View};

use super::keys::KeyValuesBuilder;
use super::parallel::Cancelled;
use super::slots::{NO_SLOT, SlotsBuilder, TooMany};
use super::spilled::{MOST_FILES, MOST_PARTS, SpilledBuilder};
use super::{HeldRows, Rows};
use crate::entity_rows::EntityRows;
use crate::error::{EntityRowsProblem, OfflineError};
use crate::scan::KeyValues;

/// What entity rows ask for, in short: enough to tell which files need not be read.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The first and the last instant; `None` if there are no entity rows.
    pub(crate) span: Option<(i64, i64)>,
    /// The values of each column of the join keys.
    pub(crate) key_values: Vec<KeyValues>,
}

/// Collects what entity rows ask for.
#[derive(Debug, Default)]
struct AskedBuilder {
    span: Option<(i64, i64)>,
    key_values: Vec<KeyValuesBuilder>,
}

impl AskedBuilder {
    /// Adds entity rows: their join keys in the view's types, and their instants, none null.
    fn add(&mut self, keys: &[ArrayRef], times: &TimestampMicrosecondArray) {
        self.key_values.resize_with(keys.len(), Default::default);
        for (values, column) in self.key_values.iter_mut().zip(keys) {
            values.add(column);
        }
        let values = times.values().iter().copied();
        if let Some((first, last)) = values.clone().min().zip(values.max()) {
            self.span = Some(
                self.span
                    .map_or((first, last), |(known_first, known_last)| {
                        (first.min(known_first), last.max(known_last))
                    }),
            );
        }
    }

    fn finish(self) -> Asked {
        let key_values = self.key_values.into_iter();
        Asked {
            span: self.span,
            key_values: key_values.map(KeyValuesBuilder::finish).collect(),
        }
    }
}

/// How much of the memory is for one view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) bytes: usize,
    /// How many views there are.
    pub(crate) views: usize,
    pub(crate) threads: usize,
}

/// What is asked of a view, for all lookups that use it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Question {
    /// The join keys of the view.
    keys: Vec<JoinKey>,
    /// For each lookup the join keys of the plan under which it asks, by their positions.
    lookups: Vec<Vec<usize>>,
    /// Into how many parts the work is divided, so that it fits into memory; 1: into none.
    parts: usize,
}

impl Question {
    /// The question of `lookups`, all of one view, for `entities`; `share` is how much memory it may
    /// take, `None` being no limit.
    pub(crate) fn of<'a>(
        view: &View,
        lookups: impl Iterator<Item = &'a Lookup> + Clone,
        entities: &EntityRows,
        share: Option<Share>,
    ) -> Self {
        let rows = entities.num_rows().saturating_mul(lookups.clone().count());
        let features = lookups.clone().flat_map(|lookup| &lookup.features);
        let features: BTreeSet<usize> = features.copied().collect();
        Self {
            keys: view.keys.clone(),
            lookups: lookups.map(|lookup| lookup.keys.clone()).collect(),
            parts: share.map_or(1, |share| parts(view, &features, rows, share)),
        }
    }

    /// Asks it for all entity rows; blocks.
    ///
    /// # Errors
    /// A key is none of the view's type, there are too many entity rows, or a temporary file cannot
    /// be written.
    pub(crate) fn ask(
        &self,
        entities: &EntityRows,
        disk: &Arc<DiskManager>,
        cancelled: &Cancelled,
    ) -> Result<(Asked, Rows), OfflineError> {
        let mut held = SlotsBuilder::default();
        let mut spilled = (self.parts > 1).then(|| SpilledBuilder::new(disk, self.parts));
        let mut asked = AskedBuilder::default();
        for lookup in &self.lookups {
            if let Some(spilled) = &mut spilled {
                spilled.begin()?;
            }
            let mut before = 0;
            for index in 0..entities.chunk_count() {
                if cancelled.is_set() {
                    return Err(OfflineError::Cancelled);
                }
                let chunk = entities.chunk(index)?;
                // Inputs begin with the event timestamp.
                let (instants, inputs) = (&chunk.inputs[0], &chunk.inputs[1..]);
                let keys = self.keys_of(lookup, inputs, before)?;
                let times = instants.as_primitive::<TimestampMicrosecondType>();
                asked.add(&keys, times);
                match &mut spilled {
                    Some(spilled) => spilled.add(&keys, instants)?,
                    None => held.add(&keys, times).map_err(|TooMany| {
                        OfflineError::entity_rows(None, EntityRowsProblem::TooMany(NO_SLOT - 1))
                    })?,
                }
                before += chunk.own.num_rows();
            }
        }
        let rows = match spilled {
            Some(spilled) => Rows::Spilled(Arc::new(spilled.finish()?)),
            None => {
                let (slots, of_rows) = held.finish();
                let of_sets = of_rows.chunks(entities.num_rows().max(1));
                let mut of_sets: Vec<_> = of_sets.map(<[u32]>::to_vec).collect();
                of_sets.resize(self.lookups.len(), Vec::new());
                Rows::Held(Arc::new(HeldRows { slots, of_sets }))
            }
        };
        Ok((asked.finish(), rows))
    }

    /// The join keys of a chunk of entity rows, of its `inputs`; `before` rows come before it.
    fn keys_of(
        &self,
        lookup: &[usize],
        inputs: &[ArrayRef],
        before: usize,
    ) -> Result<Vec<ArrayRef>, OfflineError> {
        let keys = lookup.iter().zip(&self.keys).map(|(&key, wanted)| {
            coerce(&inputs[key], DataType::Scalar(wanted.data_type)).map_err(|mut error| {
                error.row += before;
                OfflineError::entity_rows(
                    None,
                    EntityRowsProblem::Value {
                        column: wanted.name.clone(),
                        error,
                    },
                )
            })
        });
        keys.collect()
    }
}

/// Into how many parts the join of `rows` entity rows is divided so that it fits into its share; 1: into
/// none.
fn parts(
    view: &View,
    features: &BTreeSet<usize>,
    rows: usize,
    Share {
        bytes: share,
        views,
        threads,
    }: Share,
) -> usize {
    /// Instant and slot, what sorting them takes for a while, the place among the rows that are
    /// kept, and a key with its place in a hash table.
    const ROW: usize = 12 + 16 + 4 + 24;
    /// What each thread holds for a row: event and created timestamp and address.
    const THREAD: usize = 24;
    /// The same for rows that carry their features: place and header.
    const CARRIED: usize = 40 + 18;
    let used = features.iter().map(|&feature| width(view, feature));
    let used: usize = used.sum();
    let all: usize = (0..view.features.len())
        .map(|feature| width(view, feature))
        .sum();
    let keys = view.keys.iter().map(|key| scalar_width(key.data_type));
    let row = ROW + keys.sum::<usize>();
    let in_memory = match view.batch {
        None => row + THREAD * threads + used,
        Some(_) => row + (CARRIED + all) * threads,
    };
    if rows.saturating_mul(in_memory) <= share {
        return 1;
    }
    // As many parts as there are threads are joined at once, each by one of them.
    let spilled = rows
        .saturating_mul(row + CARRIED + all)
        .saturating_mul(threads);
    let most = MOST_FILES / threads.max(1) / views.max(1);
    spilled
        .div_ceil(share.max(1))
        .clamp(2, most.clamp(2, MOST_PARTS))
}

/// About how many bytes a value of a feature takes.
fn width(view: &View, feature: usize) -> usize {
    match view.features[feature].data_type {
        DataType::Scalar(scalar) => scalar_width(scalar),
        DataType::List(_) => 64,
    }
}

fn scalar_width(scalar: ScalarType) -> usize {
    match scalar {
        ScalarType::Bool => 1,
        ScalarType::Int32 | ScalarType::Float32 => 4,
        ScalarType::Int64 | ScalarType::Float64 | ScalarType::Timestamp => 8,
        ScalarType::String | ScalarType::Bytes => 32,
    }
}
