//! Slots: the instants at which entity rows ask for a key's row, grouped by key, sorted in time.

use std::hash::BuildHasher;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use hashbrown::{DefaultHashBuilder, HashTable};
use unskew_core::row::encode_key;

/// In place of a slot, for an entity row with a null join key: it has none.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// The slots of all keys.
///
/// Slot numbers run key by key and, within a key, in time, so that those of a key are a range.
#[derive(Debug)]
pub(crate) struct Slots {
    keys: Keys,
    /// For each key where its slots begin, and at the end the number of slots.
    starts: Vec<u32>,
    /// The instant of each slot.
    times: Vec<i64>,
}

impl Slots {
    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    /// The first slot of `key` (encoded) whose instant is not before `available`.
    pub(crate) fn first(&self, key: &[u8], available: i64) -> Option<u32> {
        let group = self.keys.find(key)? as usize;
        let (start, end) = (self.starts[group], self.starts[group + 1]);
        let times = &self.times[start as usize..end as usize];
        let position = times.partition_point(|&time| time < available);
        // A key's slots are fewer than u32::MAX.
        (position < times.len()).then(|| start + position as u32)
    }

    /// The slots of each key, as ranges of slot numbers.
    pub(crate) fn by_key(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
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
    keys: Keys,
    /// The key of each entity row, or [`NO_SLOT`].
    groups: Vec<u32>,
    times: Vec<i64>,
    /// How many rows each call of `add` brought.
    chunks: Vec<usize>,
    scratch: Vec<u8>,
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
        for row in 0..times.len() {
            self.scratch.clear();
            let group = if encode_key(keys, row, &mut self.scratch) {
                self.keys.find_or_insert(&self.scratch)
            } else {
                NO_SLOT
            };
            self.groups.push(group);
        }
        self.times.extend_from_slice(times.values());
        self.chunks.push(times.len());
        Ok(())
    }

    /// The slots, and for each call of `add` the slots of its rows.
    pub(crate) fn finish(self) -> (Slots, Vec<Vec<u32>>) {
        let Self {
            keys,
            groups,
            times,
            chunks,
            ..
        } = self;
        let mut order: Vec<u32> = (0..groups.len() as u32)
            .filter(|&row| groups[row as usize] != NO_SLOT)
            .collect();
        order.sort_unstable_by_key(|&row| (groups[row as usize], times[row as usize]));

        let mut slot_of_row = vec![NO_SLOT; groups.len()];
        let mut slot_times = Vec::new();
        let mut starts = Vec::with_capacity(keys.len() + 1);
        let mut last = None;
        for row in order {
            let (group, time) = (groups[row as usize], times[row as usize]);
            if last != Some((group, time)) {
                if last.is_none_or(|(known, _)| known != group) {
                    starts.push(slot_times.len() as u32);
                }
                slot_times.push(time);
                last = Some((group, time));
            }
            slot_of_row[row as usize] = slot_times.len() as u32 - 1;
        }
        starts.push(slot_times.len() as u32);
        let slots = Slots {
            keys,
            starts,
            times: slot_times,
        };
        let mut rest = slot_of_row.as_slice();
        let by_chunk = chunks
            .into_iter()
            .map(|length| {
                let (chunk, after) = rest.split_at(length);
                rest = after;
                chunk.to_vec()
            })
            .collect();
        (slots, by_chunk)
    }
}

/// A set of encoded keys, numbered in the order in which they came.
#[derive(Debug, Default)]
struct Keys {
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    bytes: Vec<u8>,
    /// Where each key ends in `bytes`.
    ends: Vec<usize>,
}

impl Keys {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        self.numbers
            .find(self.hasher.hash_one(key), |&number| {
                of(&self.bytes, &self.ends, number) == key
            })
            .copied()
    }

    fn find_or_insert(&mut self, key: &[u8]) -> u32 {
        if let Some(number) = self.find(key) {
            return number;
        }
        // There are no more keys than entity rows, which `add` has counted.
        let number = self.ends.len() as u32;
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        self.numbers
            .insert_unique(hasher.hash_one(key), number, |&known| {
                hasher.hash_one(of(bytes, ends, known))
            });
        number
    }
}

/// The bytes of key `number`.
fn of<'a>(bytes: &'a [u8], ends: &[usize], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    &bytes[start..ends[number]]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn encoded(columns: &[ArrayRef], row: usize) -> Vec<u8> {
        let mut key = Vec::new();
        assert!(encode_key(columns, row, &mut key));
        key
    }

    #[test]
    fn a_row_enters_the_first_slot_of_its_key_that_is_not_before_it() {
        let keys: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![
                Some("b"),
                Some("a"),
                Some("a"),
                None,
                Some("a"),
            ])),
            Arc::new(Int64Array::from(vec![1, 1, 1, 1, 1])),
        ];
        let times = TimestampMicrosecondArray::from(vec![5, 9, 3, 4, 9]);
        let mut builder = SlotsBuilder::default();
        builder.add(&keys, &times).unwrap();
        let none = TimestampMicrosecondArray::from(Vec::<i64>::new());
        let empty: Vec<ArrayRef> = keys.iter().map(|key| key.slice(0, 0)).collect();
        builder.add(&empty, &none).unwrap();
        builder.add(&keys[..], &times).unwrap();
        let (slots, of_rows) = builder.finish();

        assert_eq!(slots.len(), 3);
        assert_eq!(of_rows[0], [0, 2, 1, NO_SLOT, 2]);
        assert_eq!(of_rows[1], [0_u32; 0]);
        assert_eq!(of_rows[2], of_rows[0]);
        assert_eq!(slots.by_key().collect::<Vec<_>>(), [0..1, 1..3]);
        let (a, b) = (encoded(&keys, 1), encoded(&keys, 0));
        assert_eq!(slots.first(&a, i64::MIN), Some(1));
        assert_eq!(slots.first(&a, 3), Some(1));
        assert_eq!(slots.first(&a, 4), Some(2));
        assert_eq!(slots.first(&a, 9), Some(2));
        assert_eq!(slots.first(&a, 10), None);
        assert_eq!(slots.first(&b, 5), Some(0));
        assert_eq!(slots.first(b"c", 5), None);
    }

    #[test]
    fn a_view_without_keys_has_one_key_for_everybody() {
        let mut builder = SlotsBuilder::default();
        let times = TimestampMicrosecondArray::from(vec![5, 1]);
        builder.add(&[], &times).unwrap();
        let (slots, of_rows) = builder.finish();
        assert_eq!(of_rows, [[1, 0]]);
        assert_eq!(slots.first(&[], 2), Some(1));
    }

    #[test]
    fn no_entity_rows_have_no_slots() {
        let (slots, of_rows) = SlotsBuilder::default().finish();
        assert_eq!((slots.len(), of_rows.len()), (0, 0));
        assert_eq!(slots.by_key().count(), 0);
        assert_eq!(slots.first(&[], 0), None);
    }
}
