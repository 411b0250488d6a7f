//! Values of varying length: text and bytes, and the offsets that lists have as well.

use std::ops::Range;

use crate::bindings::exports::unskew::transform::transformation::VariableLength;
use crate::bitmap::Validity;
use crate::error::ColumnError;

/// Where each of several values lies in a buffer.
#[derive(Debug)]
pub(crate) struct Offsets(Vec<u32>);

impl Offsets {
    /// The offsets of `length` values in a buffer of `end` entries.
    pub(crate) fn new(offsets: Vec<u32>, length: usize, end: usize) -> Result<Self, ColumnError> {
        let first_and_last = offsets.first().zip(offsets.last());
        let ends_match = first_and_last.is_some_and(|(&first, &last)| {
            first == 0 && usize::try_from(last).is_ok_and(|last| last == end)
        });
        if offsets.len() == length + 1 && ends_match && offsets.is_sorted() {
            Ok(Self(offsets))
        } else {
            Err(ColumnError::WrongLength)
        }
    }

    /// Where value `index` lies.
    #[inline]
    pub(crate) fn range(&self, index: usize) -> Range<usize> {
        self.0[index] as usize..self.0[index + 1] as usize
    }
}

/// The offsets of values that go out.
#[derive(Debug)]
pub(crate) struct OffsetsBuilder {
    offsets: Vec<u32>,
    end: usize,
}

impl OffsetsBuilder {
    /// The offsets of no values, with space for `capacity`.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut offsets = Vec::with_capacity(capacity + 1);
        offsets.push(0);
        Self { offsets, end: 0 }
    }

    /// Appends a value that ends at `end`.
    #[inline]
    pub(crate) fn push(&mut self, end: usize) {
        // What does not fit is refused by `finish`.
        self.offsets.push(end as u32);
        self.end = end;
    }

    /// Appends a value without content.
    #[inline]
    pub(crate) fn push_empty(&mut self) {
        self.push(self.end);
    }

    /// The offsets.
    pub(crate) fn finish(self) -> Result<Vec<u32>, ColumnError> {
        match u32::try_from(self.end) {
            Ok(_) => Ok(self.offsets),
            Err(_) => Err(ColumnError::TooLong),
        }
    }
}

/// Bytes that came in.
#[derive(Debug)]
pub struct BytesReader {
    offsets: Offsets,
    data: Vec<u8>,
}

impl BytesReader {
    /// The `length` values.
    pub fn new(values: VariableLength, length: usize) -> Result<Self, ColumnError> {
        Ok(Self {
            offsets: Offsets::new(values.offsets, length, values.data.len())?,
            data: values.data,
        })
    }

    /// Value `index`.
    #[inline]
    pub fn get(&self, index: usize) -> &[u8] {
        &self.data[self.offsets.range(index)]
    }
}

/// Text that came in.
#[derive(Debug)]
pub struct TextReader {
    offsets: Offsets,
    data: String,
}

impl TextReader {
    /// The `length` values. Those that are not null are UTF-8.
    pub fn new(
        values: VariableLength,
        length: usize,
        validity: &Validity,
    ) -> Result<Self, ColumnError> {
        let bytes = BytesReader::new(values, length)?;
        let data = match String::from_utf8(bytes.data) {
            Ok(data) => data,
            Err(error) => {
                let data = error.into_bytes();
                return Self::without_nulls(&BytesReader { data, ..bytes }, length, validity);
            }
        };
        let offsets = bytes.offsets;
        let whole = |index| !validity.is_valid(index) || data.get(offsets.range(index)).is_some();
        if (0..length).all(whole) {
            Ok(Self { offsets, data })
        } else {
            Err(ColumnError::NotUtf8)
        }
    }

    /// The values anew, without what stands in the place of nulls: that need not be UTF-8.
    fn without_nulls(
        bytes: &BytesReader,
        length: usize,
        validity: &Validity,
    ) -> Result<Self, ColumnError> {
        let mut data = String::new();
        let mut offsets = OffsetsBuilder::with_capacity(length);
        for index in 0..length {
            if validity.is_valid(index) {
                let text = std::str::from_utf8(bytes.get(index));
                data.push_str(text.map_err(|_| ColumnError::NotUtf8)?);
            }
            offsets.push(data.len());
        }
        let offsets = Offsets(offsets.finish()?);
        Ok(Self { offsets, data })
    }

    /// Value `index`.
    #[inline]
    pub fn get(&self, index: usize) -> &str {
        &self.data[self.offsets.range(index)]
    }
}

/// Text or bytes that go out.
#[derive(Debug)]
pub struct VariableWriter {
    offsets: OffsetsBuilder,
    data: Vec<u8>,
}

impl VariableWriter {
    /// No values, with space for the offsets of `capacity`.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            offsets: OffsetsBuilder::with_capacity(capacity),
            data: Vec::new(),
        }
    }

    /// Appends a value.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.offsets.push(self.data.len());
    }

    /// Appends a value without content.
    #[inline]
    pub fn push_empty(&mut self) {
        self.offsets.push_empty();
    }

    /// The values.
    pub fn finish(self) -> Result<VariableLength, ColumnError> {
        Ok(VariableLength {
            offsets: self.offsets.finish()?,
            data: self.data,
        })
    }
}
