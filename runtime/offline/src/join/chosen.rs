//! The winners of the slots by their timestamps and places, and how partial results merge.

use std::cmp::Ordering;

use super::slots::Slots;

/// In place of an event timestamp, for a slot that no row has entered: it lies outside of time.
const NEVER: i64 = i64::MIN;

/// Where a row lies: the number of its row group, and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address(u64);

impl Address {
    pub(crate) const fn new(row_group: usize, row: u32) -> Self {
        Self((row_group as u64) << 32 | row as u64)
    }

    pub(crate) fn row_group(self) -> usize {
        (self.0 >> 32) as usize
    }

    pub(crate) fn row(self) -> u32 {
        self.0 as u32
    }
}

/// For each slot the row that is the greatest so far by (event, created), where only its address
/// is known.
///
/// Rows that are equal in both are kept aside as ties: which of them is the greater can be told
/// only with the rest of their columns.
#[derive(Debug)]
pub(crate) struct Chosen {
    best: Vec<Best>,
    /// The created timestamps, where they are known: under `point_in_time: known`.
    created: Option<Vec<i64>>,
    ties: Vec<Tie>,
    /// How many ties may be kept.
    most_ties: usize,
}

#[derive(Clone, Copy, Debug)]
struct Best {
    event: i64,
    address: Address,
}

/// A row that is equal to a slot's winner in all that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tie {
    pub(crate) slot: u32,
    event: i64,
    created: i64,
    pub(crate) address: Address,
}

/// More ties than may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyTies;

impl Chosen {
    /// No winners for `slots` slots; `with_created`: rows differ by created timestamps.
    pub(crate) fn none(slots: usize, with_created: bool) -> Self {
        let none = Best {
            event: NEVER,
            address: Address(0),
        };
        Self {
            best: vec![none; slots],
            created: with_created.then(|| vec![NEVER; slots]),
            ties: Vec::new(),
            most_ties: slots.max(1 << 16),
        }
    }

    /// Brings the slot near, so that [`Self::offer`] need not wait for it.
    pub(crate) fn touch(&self, slot: u32) -> i64 {
        self.best[slot as usize].event
    }

    /// Lets a row enter a slot, once. `created` counts only if created timestamps are known.
    ///
    /// # Errors
    /// There are more ties than may be kept.
    pub(crate) fn offer(
        &mut self,
        slot: u32,
        event: i64,
        created: i64,
        address: Address,
    ) -> Result<(), TooManyTies> {
        let best = &mut self.best[slot as usize];
        let order = match &mut self.created {
            None => event.cmp(&best.event),
            Some(all) => (event, created).cmp(&(best.event, all[slot as usize])),
        };
        match order {
            Ordering::Less => Ok(()),
            Ordering::Greater => {
                *best = Best { event, address };
                if let Some(all) = &mut self.created {
                    all[slot as usize] = created;
                }
                Ok(())
            }
            Ordering::Equal => {
                self.ties.push(Tie {
                    slot,
                    event,
                    created,
                    address,
                });
                // At twice as many, so that each look through all of them makes room.
                if self.ties.len() < 2 * self.most_ties {
                    return Ok(());
                }
                self.drop_old_ties()
            }
        }
    }

    /// Lets the winners of `other`, which has the same slots, enter.
    ///
    /// # Errors
    /// There are more ties than may be kept.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), TooManyTies> {
        for (slot, best) in other.best.iter().enumerate() {
            if best.event != NEVER {
                let created = other.created.as_ref().map_or(0, |all| all[slot]);
                self.offer(slot as u32, best.event, created, best.address)?;
            }
        }
        for tie in other.ties {
            self.offer(tie.slot, tie.event, tie.created, tie.address)?;
        }
        Ok(())
    }

    /// Forgets winners and ties that are not greater than those of an earlier slot of their key:
    /// what is available at an instant is available at every later one.
    ///
    /// # Errors
    /// There are more ties than may be kept.
    pub(crate) fn forget_overtaken(&mut self, slots: &Slots) -> Result<(), TooManyTies> {
        for range in slots.by_key() {
            let mut greatest = (NEVER, NEVER);
            for slot in range {
                let created = self.created.as_ref().map_or(NEVER, |all| all[slot]);
                let here = (self.best[slot].event, created);
                if here > greatest {
                    greatest = here;
                } else {
                    self.best[slot].event = NEVER;
                }
            }
        }
        self.drop_old_ties()
    }

    /// The winners that are left: slot and address.
    pub(crate) fn winners(&self) -> impl Iterator<Item = (u32, Address)> + Clone + '_ {
        let winners = self.best.iter().zip(0..);
        winners
            .filter(|(best, _)| best.event != NEVER)
            .map(|(best, slot)| (slot, best.address))
    }

    /// The rows that are equal to a slot's winner.
    pub(crate) fn ties(&self) -> &[Tie] {
        &self.ties
    }

    /// The winners of slots with ties, and the ties: slot and address.
    pub(crate) fn tied_winners(&self) -> Vec<(u32, Address)> {
        let mut tied: Vec<u32> = self.ties.iter().map(|tie| tie.slot).collect();
        tied.sort_unstable();
        tied.dedup();
        let winners = tied
            .into_iter()
            .map(|slot| (slot, self.best[slot as usize].address));
        let ties = self.ties.iter().map(|tie| (tie.slot, tie.address));
        winners.chain(ties).collect()
    }

    /// Makes rows the winners of their slots, and forgets all ties.
    pub(crate) fn settle_ties(&mut self, winners: impl Iterator<Item = (u32, Address)>) {
        for (slot, address) in winners {
            self.best[slot as usize].address = address;
        }
        self.ties = Vec::new();
    }

    /// How much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        let created = self.created.as_ref().map_or(0, Vec::capacity);
        self.best.capacity() * size_of::<Best>()
            + created * size_of::<i64>()
            + self.ties.capacity() * size_of::<Tie>()
    }

    /// The event timestamp of the winner of a slot that has one.
    pub(crate) fn event(&self, slot: u32) -> i64 {
        self.best[slot as usize].event
    }

    /// Gives each slot the winner that counts there, its own or that of the last slot of its key
    /// before it that has one; `kept` are the numbers of the rows that were kept, by slot.
    pub(crate) fn settle(mut self, slots: &Slots, kept: &[u32]) -> Settled {
        for range in slots.by_key() {
            let mut last = None;
            for slot in range {
                if self.best[slot].event == NEVER {
                    if let Some(last) = last {
                        self.best[slot] = self.best[last];
                        if let Some(created) = &mut self.created {
                            created[slot] = created[last];
                        }
                    }
                } else {
                    self.best[slot].address = Address(u64::from(kept[slot]));
                    last = Some(slot);
                }
            }
        }
        Settled {
            found: self.best,
            created: self.created,
        }
    }

    /// Forgets ties with winners that have been beaten.
    fn drop_old_ties(&mut self) -> Result<(), TooManyTies> {
        let (best, created) = (&self.best, &self.created);
        self.ties.retain(|tie| {
            let slot = tie.slot as usize;
            let created = created.as_ref().is_none_or(|all| all[slot] == tie.created);
            best[slot].event == tie.event && created
        });
        if self.ties.len() > self.most_ties {
            return Err(TooManyTies);
        }
        Ok(())
    }
}

/// What was found for each slot.
#[derive(Debug)]
pub(crate) struct Settled {
    found: Vec<Best>,
    created: Option<Vec<i64>>,
}

/// What was found for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) event: i64,
    pub(crate) created: Option<i64>,
    /// The number of the row among those that were kept.
    pub(crate) row: u32,
}

impl Settled {
    /// What was found for `slot`.
    pub(crate) fn found(&self, slot: u32) -> Option<Found> {
        let best = self.found.get(slot as usize)?;
        (best.event != NEVER).then(|| Found {
            event: best.event,
            created: self.created.as_ref().map(|all| all[slot as usize]),
            // It was made of 32 bits.
            row: best.address.0 as u32,
        })
    }
}
