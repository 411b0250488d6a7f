//! Where each key's rows go, as long as they come about in time.
//!
//! Histories are mostly written as things happen. Then the rows of a key enter one slot after the
//! other, many rows each, and it pays to remember for each key the slot of its last row, the
//! instants between which a row enters it, and the best row so far: one look into memory for a row
//! instead of four. A training set of 1 million entity rows takes 4.1 s of processor time so on 50
//! million rows of history, and 4.8 s without; on 10 million it makes no difference.

use super::chosen::{Address, Chosen, TooManyTies};
use super::keys::NO_GROUP;
use super::slots::{NO_SLOT, Slots};

/// After so many rows it is decided whether rows come in time.
const TRIAL_ROWS: u64 = 1 << 16;

/// The cursors of all keys, for rows that are available from their event timestamp on.
#[derive(Debug)]
pub(crate) struct Cursors {
    all: Vec<Cursor>,
    /// How many rows found the cursor of their key in place, and how many had to move it.
    stayed: u64,
    moved: u64,
}

/// The slot of a key's last row.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// Rows after this instant …
    after: i64,
    /// … and up to this one enter the slot.
    up_to: i64,
    /// The best row that has entered; [`NONE`] if none has.
    event: i64,
    address: Address,
    slot: u32,
}

/// In place of an event timestamp; it lies outside of time.
const NONE: i64 = i64::MIN;

impl Cursor {
    const NOWHERE: Self = Self {
        after: i64::MAX,
        up_to: i64::MIN,
        event: NONE,
        address: Address::new(0, 0),
        slot: NO_SLOT,
    };

    /// Lets the best row enter its slot.
    fn flush(&mut self, chosen: &mut Chosen) -> Result<(), TooManyTies> {
        if self.event != NONE && self.slot != NO_SLOT {
            chosen.offer(self.slot, self.event, 0, self.address)?;
        }
        self.event = NONE;
        Ok(())
    }

    /// Moves to the slot that a row of `group` available from `event` on enters.
    fn seek(&mut self, slots: &Slots, group: u32, event: i64) {
        let group = group as usize;
        let range = slots.starts[group] as usize..slots.starts[group + 1] as usize;
        let times = &slots.times[range.clone()];
        let position = times.partition_point(|&time| time < event);
        self.after = position
            .checked_sub(1)
            .map_or(i64::MIN, |before| times[before]);
        (self.up_to, self.slot) = match times.get(position) {
            // Slot numbers have 32 bits.
            Some(&time) => (time, (range.start + position) as u32),
            None => (i64::MAX, NO_SLOT),
        };
    }
}

impl Cursors {
    /// Cursors for the keys of `slots`, if they promise to pay: several slots a key.
    pub(crate) fn of(slots: &Slots) -> Option<Self> {
        let groups = slots.starts.len().saturating_sub(1);
        (groups > 0 && slots.len() / groups >= 2).then(|| Self {
            all: vec![Cursor::NOWHERE; groups],
            stayed: 0,
            moved: 0,
        })
    }

    /// Lets rows enter their slots: their groups, and their event timestamps and addresses by
    /// number; `None` for a row that does not count.
    ///
    /// # Errors
    /// There are more ties than may be kept.
    pub(crate) fn enter(
        &mut self,
        slots: &Slots,
        chosen: &mut Chosen,
        groups: &[u32],
        event_of: impl Fn(usize) -> Option<i64>,
        address_of: impl Fn(usize) -> Address,
    ) -> Result<(), TooManyTies> {
        for (row, &group) in groups.iter().enumerate() {
            if group == NO_GROUP {
                continue;
            }
            let Some(event) = event_of(row) else {
                continue;
            };
            let cursor = &mut self.all[group as usize];
            if event <= cursor.after || cursor.up_to < event {
                // The first row of a key tells nothing.
                self.moved += u64::from(cursor.up_to != i64::MIN);
                cursor.flush(chosen)?;
                cursor.seek(slots, group, event);
            } else {
                self.stayed += 1;
            }
            if event > cursor.event {
                cursor.event = event;
                cursor.address = address_of(row);
            } else if event == cursor.event && cursor.slot != NO_SLOT {
                // A tie, which is kept with the winners. The row of the cursor follows when that is
                // flushed: no row may be there twice.
                chosen.offer(cursor.slot, event, 0, address_of(row))?;
            }
        }
        Ok(())
    }

    /// Whether rows come in any order, so that it does not pay.
    pub(crate) fn is_idle(&self) -> bool {
        self.moved + self.stayed >= TRIAL_ROWS && self.moved > self.stayed
    }

    /// Lets all best rows enter their slots.
    ///
    /// # Errors
    /// There are more ties than may be kept.
    pub(crate) fn finish(mut self, chosen: &mut Chosen) -> Result<(), TooManyTies> {
        self.all
            .iter_mut()
            .try_for_each(|cursor| cursor.flush(chosen))
    }
}
