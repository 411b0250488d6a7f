//! A sample of keys that depends on nothing but the keys and a seed.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

/// Keeps those keys whose hashes are least: the same whatever the order in which they are offered
/// and however often, and so the same of every store that holds the same keys.
pub(crate) struct Sample {
    limit: usize,
    seed: u64,
    least: BTreeSet<(u64, Vec<u8>)>,
}

impl Sample {
    pub(crate) fn new(limit: usize, seed: u64) -> Self {
        Self {
            limit,
            seed,
            least: BTreeSet::new(),
        }
    }

    pub(crate) fn offer(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        let full = self.least.len() >= self.limit;
        if full
            && self
                .least
                .last()
                .is_none_or(|(greatest, _)| hash > *greatest)
        {
            return;
        }
        self.least.insert((hash, key.to_vec()));
        if self.least.len() > self.limit {
            self.least.pop_last();
        }
    }

    pub(crate) fn into_keys(self) -> Vec<Vec<u8>> {
        self.least.into_iter().map(|(_, key)| key).collect()
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let digest = Sha256::new()
            .chain_update(self.seed.to_le_bytes())
            .chain_update(key)
            .finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |hash, &byte| (hash << 8) | u64::from(byte))
    }
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
    fn a_limit_above_the_number_of_keys_gives_all_and_zero_gives_none() {
        assert_eq!(sample(0..5, 10, 0).len(), 5);
        assert!(sample(0..5, 0, 0).is_empty());
    }
}
