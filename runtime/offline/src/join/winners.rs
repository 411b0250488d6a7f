//! The best history row of each slot, and how partial results merge.

use std::ops::Range;

use arrow::array::ArrayRef;
use unskew_core::row::encode;

/// For each slot the greatest row that entered it, by (event, created, encoded row).
///
/// Rows lie encoded in one buffer. Taking the greatest is associative and commutative, so partial
/// results of several threads merge to the same whole in any order.
#[derive(Debug)]
pub(crate) struct Winners {
    places: Vec<Option<Place>>,
    arena: Vec<u8>,
    /// How many bytes of `arena` no place names any more.
    garbage: usize,
    scratch: Vec<u8>,
}

/// A row in the arena. Its timestamps are repeated here, so that most rows lose without being
/// encoded and without a look into the arena.
#[derive(Clone, Copy, Debug)]
struct Place {
    event: i64,
    created: Option<i64>,
    start: usize,
    length: usize,
}

impl Place {
    fn range(self) -> Range<usize> {
        self.start..self.start + self.length
    }

    /// What is compared first; `None`, no created timestamp, is the least as it is when encoded.
    fn time(self) -> (i64, Option<i64>) {
        (self.event, self.created)
    }
}

impl Winners {
    /// No winners for `slots` slots.
    pub(crate) fn none(slots: usize) -> Self {
        Self {
            places: vec![None; slots],
            arena: Vec::new(),
            garbage: 0,
            scratch: Vec::new(),
        }
    }

    /// The encoded row that won `slot`.
    pub(crate) fn row(&self, slot: usize) -> Option<&[u8]> {
        let place = (*self.places.get(slot)?)?;
        Some(&self.arena[place.range()])
    }

    /// Lets row `row` of `features`, the view's features, enter `slot`.
    pub(crate) fn enter(
        &mut self,
        slot: usize,
        event: i64,
        created: Option<i64>,
        features: &[ArrayRef],
        row: usize,
    ) {
        if self.places[slot].is_some_and(|known| (event, created) < known.time()) {
            return;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        encode(features, row, event, created, &mut bytes);
        self.offer(slot, event, created, &bytes);
        self.scratch = bytes;
    }

    /// Lets the winners of `other`, which has the same slots, enter.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (slot, place) in other.places.iter().enumerate() {
            if let Some(place) = place {
                let bytes = &other.arena[place.range()];
                self.offer(slot, place.event, place.created, bytes);
            }
        }
    }

    /// Gives each slot the greatest row of it and the slots before it of the same key: what is
    /// available at an instant is available at every later one.
    pub(crate) fn run_maximum(&mut self, by_key: impl Iterator<Item = Range<usize>>) {
        for slots in by_key {
            let mut greatest: Option<Place> = None;
            for slot in slots {
                match (greatest, self.places[slot]) {
                    (Some(before), Some(here)) if self.is_greater(here, before) => {
                        greatest = Some(here);
                    }
                    (None, here) => greatest = here,
                    (Some(_), _) => {}
                }
                self.places[slot] = greatest;
            }
        }
    }

    /// How many slots have a winner.
    pub(crate) fn count(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// How much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Option<Place>>() + self.arena.capacity()
    }

    fn is_greater(&self, one: Place, other: Place) -> bool {
        one.time() > other.time()
            || one.time() == other.time() && self.arena[one.range()] > self.arena[other.range()]
    }

    fn offer(&mut self, slot: usize, event: i64, created: Option<i64>, bytes: &[u8]) {
        let known = self.places[slot];
        if known.is_some_and(|known| {
            (event, created) < known.time()
                || (event, created) == known.time() && bytes <= &self.arena[known.range()]
        }) {
            return;
        }
        let mut place = Place {
            event,
            created,
            start: self.arena.len(),
            length: bytes.len(),
        };
        match known {
            Some(known) if known.length == place.length => {
                place.start = known.start;
                self.arena[known.range()].copy_from_slice(bytes);
            }
            _ => {
                self.garbage += known.map_or(0, |known| known.length);
                self.arena.extend_from_slice(bytes);
            }
        }
        self.places[slot] = Some(place);
        if self.garbage > (1 << 20) && self.garbage > self.arena.len() / 2 {
            self.compact();
        }
    }

    /// Copies the rows that are named into a buffer without garbage.
    fn compact(&mut self) {
        let mut arena = Vec::with_capacity(self.arena.len() - self.garbage);
        for place in self.places.iter_mut().flatten() {
            let start = arena.len();
            arena.extend_from_slice(&self.arena[place.range()]);
            place.start = start;
        }
        self.arena = arena;
        self.garbage = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    fn enter(winners: &mut Winners, slot: usize, event: i64, created: Option<i64>, text: &str) {
        let features: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![text]))];
        winners.enter(slot, event, created, &features, 0);
    }

    fn text(winners: &Winners, slot: usize) -> Option<String> {
        let row = winners.row(slot)?;
        // Header, validity, length; the text; checksum.
        Some(String::from_utf8(row[22..row.len() - 4].to_vec()).unwrap())
    }

    #[test]
    fn the_greatest_by_event_then_created_then_encoded_row_wins_in_any_order() {
        let rows = [
            (1, Some(9), "old"),
            (2, None, "none"),
            (2, Some(3), "b"),
            (2, Some(3), "a"),
            (2, Some(2), "z"),
        ];
        for rotation in 0..rows.len() {
            let mut winners = Winners::none(1);
            for index in 0..rows.len() {
                let (event, created, text) = rows[(index + rotation) % rows.len()];
                enter(&mut winners, 0, event, created, text);
            }
            assert_eq!(text(&winners, 0).unwrap(), "b");
        }
    }

    #[test]
    fn a_running_maximum_hands_winners_to_later_slots_of_their_key_only() {
        let mut winners = Winners::none(6);
        enter(&mut winners, 1, 5, None, "five");
        enter(&mut winners, 2, 4, None, "a correction of older news");
        enter(&mut winners, 5, 1, None, "one");
        winners.run_maximum([0..4, 4..6].into_iter());
        let texts: Vec<_> = (0..6).map(|slot| text(&winners, slot)).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            texts,
            [
                None,
                some("five"),
                some("five"),
                some("five"),
                None,
                some("one")
            ]
        );
        assert_eq!(winners.count(), 4);
    }

    #[test]
    fn rows_of_changing_length_do_not_pile_up() {
        let mut winners = Winners::none(2);
        enter(&mut winners, 1, 0, None, "stays");
        for event in 0..100 {
            let long = "x".repeat(100_000 + event as usize);
            enter(&mut winners, 0, event, None, &long);
        }
        assert!(winners.arena.len() < 3_000_000, "{}", winners.arena.len());
        assert_eq!(text(&winners, 0).unwrap().len(), 100_099);
        assert_eq!(text(&winners, 1).unwrap(), "stays");
    }

    #[test]
    fn merging_partial_winners_is_the_same_in_either_order() {
        let partial = |texts: [&str; 2]| {
            let mut winners = Winners::none(3);
            enter(&mut winners, 0, 1, None, texts[0]);
            enter(&mut winners, 1, texts[1].len() as i64, None, texts[1]);
            winners
        };
        let (one, other) = (partial(["a", "bb"]), partial(["c", "b"]));
        let merge = |into: [&str; 2], from: &Winners| {
            let mut merged = partial(into);
            merged.merge(from);
            [text(&merged, 0), text(&merged, 1), text(&merged, 2)]
        };
        let merged = merge(["a", "bb"], &other);
        assert_eq!(merged, merge(["c", "b"], &one));
        assert_eq!(merged, [Some("c".to_owned()), Some("bb".to_owned()), None]);
    }
}
