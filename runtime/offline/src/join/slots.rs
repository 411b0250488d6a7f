//! Slots: the instants at which entity rows ask for a key's row, grouped by key, sorted in time.

use std::ops::Range;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};

use super::keys::{Keys, NO_GROUP};

/// In place of a slot, for an entity row with a null join key: it has none.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// The slots of all keys: one for each entity row without a null in its key.
///
/// Slot numbers run key by key and, within a key, in time, so that those of a key are a range.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) keys: Keys,
    /// For each group where its slots begin, and at the end the number of slots.
    pub(crate) starts: Vec<u32>,
    /// The instant of each slot.
    pub(crate) times: Vec<i64>,
}

impl Slots {
    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// About how much memory they take, the slots of the entity rows included.
    pub(crate) fn bytes(&self) -> usize {
        self.times.capacity() * (size_of::<i64>() + size_of::<u32>())
            + self.starts.capacity() * size_of::<u32>()
            + self.keys.bytes()
    }

    /// The slots of each key, as ranges of slot numbers.
    pub(crate) fn by_key(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts
            .windows(2)
            .map(|pair| pair[0] as usize..pair[1] as usize)
    }
}

/// More entity rows than there are slot numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// Collects entity rows into [`Slots`].
#[derive(Debug, Default)]
pub(crate) struct SlotsBuilder {
    keys: Option<Keys>,
    /// The group of each entity row.
    groups: Vec<u32>,
    times: Vec<i64>,
}

impl SlotsBuilder {
    /// Adds entity rows: their join keys in the view's types, and their instants, none null.
    pub(crate) fn add(
        &mut self,
        keys: &[ArrayRef],
        times: &TimestampMicrosecondArray,
    ) -> Result<(), TooMany> {
        // The greatest number stands for no slot.
        if self.groups.len() + times.len() >= NO_SLOT as usize {
            return Err(TooMany);
        }
        self.keys
            .get_or_insert_with(|| Keys::of(keys))
            .insert(keys, times.len(), &mut self.groups);
        self.times.extend_from_slice(times.values());
        Ok(())
    }

    /// How many entity rows were added.
    pub(crate) fn rows(&self) -> usize {
        self.groups.len()
    }

    /// The slots, and the slot of each entity row in the order in which they were added.
    pub(crate) fn finish(self) -> (Slots, Vec<u32>) {
        let Self {
            keys,
            groups,
            times,
        } = self;
        let keys = keys.unwrap_or_else(|| Keys::of(&[]));
        // A counting sort by group, then a sort of the few instants of each.
        let mut starts = vec![0_u32; keys.len() + 1];
        for &group in groups.iter().filter(|&&group| group != NO_GROUP) {
            starts[group as usize + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let count = starts.last().map_or(0, |&count| count as usize);
        let mut next = starts.clone();
        let mut sorted = vec![(0_i64, 0_u32); count];
        for (row, (&group, &time)) in groups.iter().zip(&times).enumerate() {
            if group != NO_GROUP {
                let position = &mut next[group as usize];
                sorted[*position as usize] = (time, row as u32);
                *position += 1;
            }
        }
        drop((next, times));
        // The groups are known by `starts` now, and their memory serves for the slots of the rows.
        let mut slot_of_row = groups;
        slot_of_row.fill(NO_SLOT);
        for pair in starts.windows(2) {
            sorted[pair[0] as usize..pair[1] as usize].sort_unstable();
        }
        let mut slot_times = Vec::with_capacity(count);
        for (slot, &(time, row)) in sorted.iter().enumerate() {
            slot_times.push(time);
            slot_of_row[row as usize] = slot as u32;
        }
        let slots = Slots {
            keys: keys.finish(),
            starts,
            times: slot_times,
        };
        (slots, slot_of_row)
    }
}
