//! Bitmaps: bit i mod 8, least significant first, of byte i div 8.

/// A bitmap that came in.
#[derive(Debug)]
pub struct Bitmap(Vec<u8>);

impl Bitmap {
    /// The bitmap in `bytes`, or `None` if they hold fewer than `length` bits.
    pub fn new(bytes: Vec<u8>, length: usize) -> Option<Self> {
        (bytes.len() >= length.div_ceil(8)).then_some(Self(bytes))
    }

    /// Bit `index`.
    #[inline]
    pub fn get(&self, index: usize) -> bool {
        self.0[index / 8] & (1 << (index % 8)) != 0
    }
}

/// A bitmap that goes out, bit by bit. The bits after the last are 0.
#[derive(Debug, Default)]
pub struct BitmapBuilder {
    bytes: Vec<u8>,
    length: usize,
}

impl BitmapBuilder {
    /// An empty bitmap with space for `bits`.
    pub fn with_capacity(bits: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bits.div_ceil(8)),
            length: 0,
        }
    }

    /// Appends a bit.
    #[inline]
    pub fn push(&mut self, bit: bool) {
        if self.length.is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.bytes[self.length / 8] |= u8::from(bit) << (self.length % 8);
        self.length += 1;
    }

    /// The bytes of the bitmap.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Which values of a column that came in are not null.
#[derive(Debug)]
pub enum Validity {
    /// All.
    All,
    /// Those whose bit is set.
    Some(Bitmap),
}

impl Validity {
    /// The validity in `bytes`, none meaning that nothing is null; `None` if they are too few.
    pub fn new(bytes: Vec<u8>, length: usize) -> Option<Self> {
        if bytes.is_empty() {
            Some(Self::All)
        } else {
            Bitmap::new(bytes, length).map(Self::Some)
        }
    }

    /// Whether value `index` is not null.
    #[inline]
    pub fn is_valid(&self, index: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(bitmap) => bitmap.get(index),
        }
    }
}

/// Which values of a column that goes out are not null.
///
/// There is no bitmap until the first null, so that a column without nulls has none.
#[derive(Debug)]
pub(crate) struct ValidityBuilder {
    capacity: usize,
    length: usize,
    bitmap: Option<BitmapBuilder>,
}

impl ValidityBuilder {
    /// An empty validity with space for `capacity` values.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            capacity,
            length: 0,
            bitmap: None,
        }
    }

    /// Appends whether the next value is not null.
    #[inline]
    pub(crate) fn push(&mut self, valid: bool) {
        if let Some(bitmap) = &mut self.bitmap {
            bitmap.push(valid);
        } else if !valid {
            self.push_first_null();
        }
        self.length += 1;
    }

    #[cold]
    fn push_first_null(&mut self) {
        let mut bitmap = BitmapBuilder::with_capacity(self.capacity);
        for _ in 0..self.length {
            bitmap.push(true);
        }
        bitmap.push(false);
        self.bitmap = Some(bitmap);
    }

    /// How many values have been appended.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The bytes of the bitmap, none if nothing is null.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bitmap.map(BitmapBuilder::finish).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_reads_back_as_it_was_written() {
        for length in [0, 1, 7, 8, 9, 16, 17, 100] {
            let bits: Vec<bool> = (0..length).map(|i| i % 3 == 0).collect();
            let mut builder = BitmapBuilder::with_capacity(length);
            bits.iter().for_each(|&bit| builder.push(bit));
            let bytes = builder.finish();
            assert_eq!(bytes.len(), length.div_ceil(8));
            let bitmap = Bitmap::new(bytes, length).expect("enough bits");
            let read: Vec<bool> = (0..length).map(|i| bitmap.get(i)).collect();
            assert_eq!(read, bits);
        }
    }

    #[test]
    fn the_least_significant_bit_comes_first_and_the_rest_is_zero() {
        let mut builder = BitmapBuilder::default();
        for bit in [true, false, false, true] {
            builder.push(bit);
        }
        assert_eq!(builder.finish(), [0b0000_1001]);
    }

    #[test]
    fn validity_has_no_bitmap_without_a_null() {
        let mut builder = ValidityBuilder::with_capacity(9);
        (0..9).for_each(|_| builder.push(true));
        assert!(builder.finish().is_empty());
    }

    #[test]
    fn validity_counts_the_values_before_the_first_null() {
        let mut builder = ValidityBuilder::with_capacity(10);
        (0..10).for_each(|i| builder.push(i != 8));
        assert_eq!(builder.finish(), [0xff, 0b10]);
    }

    #[test]
    fn too_few_bits_are_refused() {
        assert!(Bitmap::new(vec![0], 9).is_none());
        assert!(Validity::new(vec![0], 9).is_none());
        assert!(Validity::new(vec![], 9).is_some());
    }
}
