//! The greatest row of each key that a materialization has met so far.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use unskew_core::row::timestamps;

/// An encoded key and its encoded row (`unskew_core::row`).
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// How many bytes are allocated at once. Keys and rows lie one after the other: an allocation for
/// each would take as much memory again, and most of the time.
const BLOCK: usize = 1 << 20;

/// The greatest row of each key.
#[derive(Default)]
pub(crate) struct Held {
    places: Vec<Place>,
    /// Indices into the places, by key.
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    blocks: Vec<Vec<u8>>,
    /// How many bytes the blocks hold, rows that lost included.
    bytes: usize,
    scratch: Vec<u8>,
}

/// Where a key and its row lie.
#[derive(Clone, Copy)]
struct Place {
    /// The first eight bytes of the key: most keys differ in them, and are then compared without a
    /// look at the blocks.
    prefix: [u8; 8],
    hash: u64,
    block: u32,
    start: u32,
    key: u32,
    row: u32,
}

impl Held {
    /// About how much memory is taken.
    pub(crate) fn bytes(&self) -> usize {
        const ENTRY: usize = size_of::<Place>() + 2 * size_of::<u32>();
        self.bytes + self.places.len() * ENTRY
    }

    /// Takes a row of `key` into account, which `encode` appends to what it is given.
    pub(crate) fn offer(
        &mut self,
        key: &[u8],
        event: i64,
        created: Option<i64>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let hash = self.hasher.hash_one(key);
        let is = |&index: &u32| {
            let place = &self.places[index as usize];
            place.hash == hash && place.key_in(&self.blocks) == key
        };
        let of = |&index: &u32| self.places[index as usize].hash;
        let known = match self.table.entry(hash, is, of) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(free) => {
                // 2^32 keys take more memory than any budget allows.
                free.insert(self.places.len() as u32);
                None
            }
        };
        if let Some(known) = known {
            // Most rows lose by their timestamps alone, and need not be encoded.
            let row = self.places[known as usize].row_in(&self.blocks);
            if timestamps(row).is_ok_and(|known| (event, created) < known) {
                return;
            }
        }
        self.scratch.clear();
        self.scratch.extend(key);
        encode(&mut self.scratch);
        match known {
            None => {
                let place = self.store(hash, key.len());
                self.places.push(place);
            }
            Some(known) => {
                let place = self.places[known as usize];
                let row = &self.scratch[key.len()..];
                if row <= place.row_in(&self.blocks) {
                    return;
                }
                if row.len() == place.row as usize {
                    place.row_mut(&mut self.blocks).copy_from_slice(row);
                } else {
                    self.places[known as usize] = self.store(hash, key.len());
                }
            }
        }
    }

    /// Puts the key and the row in `scratch` into a block.
    fn store(&mut self, hash: u64, key: usize) -> Place {
        let length = self.scratch.len();
        let has_room = |block: &Vec<u8>| block.len() + length <= block.capacity();
        if !self.blocks.last().is_some_and(has_room) {
            self.blocks.push(Vec::with_capacity(length.max(BLOCK)));
        }
        let index = self.blocks.len() - 1;
        let block = &mut self.blocks[index];
        let start = block.len();
        block.extend(&self.scratch);
        self.bytes += length;
        let mut prefix = [0; 8];
        for (byte, of_key) in prefix.iter_mut().zip(&self.scratch[..key]) {
            *byte = *of_key;
        }
        // A row is at most some MiB long, and so is a block.
        Place {
            prefix,
            hash,
            block: index as u32,
            start: start as u32,
            key: key as u32,
            row: (length - key) as u32,
        }
    }

    /// All that is held, ascending by key; nothing is held then.
    pub(crate) fn take(&mut self) -> Run {
        let Self {
            mut places, blocks, ..
        } = std::mem::take(self);
        places.sort_unstable_by(|one, other| {
            let prefixes = one.prefix.cmp(&other.prefix);
            prefixes.then_with(|| one.key_in(&blocks).cmp(other.key_in(&blocks)))
        });
        Run { places, blocks }
    }
}

impl Place {
    fn key_in<'a>(&self, blocks: &'a [Vec<u8>]) -> &'a [u8] {
        let start = self.start as usize;
        &blocks[self.block as usize][start..start + self.key as usize]
    }

    fn row_in<'a>(&self, blocks: &'a [Vec<u8>]) -> &'a [u8] {
        let start = (self.start + self.key) as usize;
        &blocks[self.block as usize][start..start + self.row as usize]
    }

    fn row_mut<'a>(&self, blocks: &'a mut [Vec<u8>]) -> &'a mut [u8] {
        let start = (self.start + self.key) as usize;
        &mut blocks[self.block as usize][start..start + self.row as usize]
    }
}

/// Keys and rows, each key once, ascending by key.
pub(crate) struct Run {
    places: Vec<Place>,
    blocks: Vec<Vec<u8>>,
}

impl Run {
    /// Each key with its row, copied when it is its turn.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = Row> + Send {
        let Self { places, blocks } = self;
        let copied = move |place: Place| {
            let (key, row) = (place.key_in(&blocks), place.row_in(&blocks));
            (key.to_vec(), row.to_vec())
        };
        places.into_iter().map(copied)
    }
}
