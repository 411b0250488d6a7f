//! Numbers that look random and are the same on every machine.

/// The generator SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
/// 2014).
pub(crate) struct Random(u64);

impl Random {
    /// A generator whose numbers depend on `seed` alone.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` - 1; `end` is positive.
    pub(crate) const fn below(&mut self, end: i64) -> i64 {
        // Of 31 bits, so that it is never negative.
        (self.next() >> 33) as i64 % end
    }

    /// True in `percent` of 100 cases.
    pub(crate) const fn chance(&mut self, percent: i64) -> bool {
        self.below(100) < percent
    }
}
