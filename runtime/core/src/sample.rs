//! A sample of keys that depends on nothing but the keys and a seed.

use std::collections::BTreeSet;

/// Keeps those keys whose hashes are least: the same ones in whatever order they are offered and
/// however often, so the same of every store, and of every split of a history, with the same keys.
#[derive(Clone, Debug)]
pub struct Sample {
    limit: usize,
    /// Where hashes begin.
    basis: u64,
    least: BTreeSet<(u64, Vec<u8>)>,
}

impl Sample {
    /// A sample of at most `limit` keys; another seed gives other ones.
    pub fn new(limit: usize, seed: u64) -> Self {
        const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        Self {
            limit,
            // Mixed, or seeds of a few bits would only exchange the hashes of like keys.
            basis: FNV_OFFSET ^ mixed(seed),
            least: BTreeSet::new(),
        }
    }

    /// Takes a key into account.
    pub fn offer(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        let greatest = self.least.last();
        if self.least.len() >= self.limit && greatest.is_none_or(|greatest| hash > greatest.0) {
            return;
        }
        self.least.insert((hash, key.to_vec()));
        if self.least.len() > self.limit {
            self.least.pop_last();
        }
    }

    /// The keys that were chosen, each once.
    pub fn into_keys(self) -> Vec<Vec<u8>> {
        self.least.into_iter().map(|(_, key)| key).collect()
    }

    /// FNV-1a, mixed: each row of a history is hashed, so it is to be quick.
    fn hash(&self, key: &[u8]) -> u64 {
        mixed(key.iter().fold(self.basis, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }
}

/// The finalizer of MurmurHash3: numbers that differ little fall far apart.
fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(keys: impl Iterator<Item = u32>, limit: usize, seed: u64) -> Vec<Vec<u8>> {
        let mut sample = Sample::new(limit, seed);
        for key in keys {
            sample.offer(&key.to_be_bytes());
        }
        sample.into_keys()
    }

    #[test]
    fn the_order_and_repetitions_do_not_matter() {
        let expected = sample(0..1000, 10, 7);
        assert_eq!(expected.len(), 10);
        assert_eq!(sample((0..1000).rev().chain(300..500), 10, 7), expected);
        assert_ne!(sample(0..1000, 10, 8), expected);
    }

    #[test]
    fn samples_of_parts_make_the_sample_of_the_whole() {
        let parts = [sample(0..600, 10, 7), sample(400..1000, 10, 7)];
        let mut whole = Sample::new(10, 7);
        for key in parts.iter().flatten() {
            whole.offer(key);
        }
        assert_eq!(whole.into_keys(), sample(0..1000, 10, 7));
    }

    #[test]
    fn a_limit_above_the_number_of_keys_gives_all_and_zero_gives_none() {
        assert_eq!(sample(0..5, 10, 0).len(), 5);
        assert!(sample(0..5, 0, 0).is_empty());
    }

    #[test]
    fn seeds_share_no_more_keys_than_chance_has_it() {
        let samples: Vec<BTreeSet<_>> = (0..8)
            .map(|seed| sample(0..10_000, 100, seed).into_iter().collect())
            .collect();
        for (at, one) in samples.iter().enumerate() {
            for other in &samples[..at] {
                assert!(one.intersection(other).count() < 10);
            }
        }
    }
}
