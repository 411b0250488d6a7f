//! The byte layout of a stored row and of an entity key; no other module knows it.
//!
//! A stored row is
//!
//! ```text
//! event    8 bytes   microseconds, biased by 2^63, big-endian
//! created  8 bytes   likewise; all zero where there is none
//! kind     1 byte    0: pushed, and in no source; 1: of the source; 2: deleted, nothing follows
//! validity ⌈n/8⌉     bit i (least significant first) is set where feature i is not null
//! values   …         of each feature that is not null, in the view's order:
//!                    bool 1 byte; numbers and timestamps little-endian;
//!                    string, bytes: length as u32 LE, then the bytes;
//!                    list: length as u32 LE, its validity bitmap, then the items that are not null
//! checksum 4 bytes   CRC-32 (IEEE 802.3) of all before it, little-endian
//! ```
//!
//! so that comparing two rows of one view as unsigned bytes compares (event, created, encoded row).
//! The kinds are ordered such that, of rows of one event and created timestamp, that of the source
//! replaces one that was only pushed, and a deletion replaces both.
//!
//! The view digest, which is in a stored row's key, names the schema.

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};

use crate::builder::{Builder, Numbers, Scalars};
use crate::types::{DataType, ScalarType};

/// The version of the layout. It grows with every change that gives the bytes of a source's row
/// another meaning, and is part of every view digest.
pub const FORMAT: u32 = 2;

/// The length of a row's header: event, created, kind.
const HEADER: usize = 17;

/// The length of a row's checksum.
const CHECKSUM: usize = 4;

/// Where a stored row comes from: its 17th byte. A greater one wins at equal timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It was pushed online only: no source has it, and no training set will.
    OnlineOnly = 0,
    /// It is in the view's source.
    Source = 1,
    /// It stands for a deletion: whatever was before it is gone.
    Deleted = 2,
}

impl Kind {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::OnlineOnly),
            1 => Some(Self::Source),
            2 => Some(Self::Deleted),
            _ => None,
        }
    }
}

/// Bytes that are no row of the schema with which they were read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored row of {length} bytes is damaged: {what}")]
pub struct DamagedRow {
    length: usize,
    what: &'static str,
}

/// Bytes that are no entity key of the types with which they were read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entity key of {length} bytes is damaged: it is none of type ({types})")]
pub struct DamagedKey {
    length: usize,
    types: String,
}

fn biased(micros: i64) -> [u8; 8] {
    (micros.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// Appends the stored form of row `row` of `features`, a row of the source, to `out`.
///
/// `features` are of the view's feature types, in their order.
pub fn encode(
    features: &[ArrayRef],
    row: usize,
    event: i64,
    created: Option<i64>,
    out: &mut Vec<u8>,
) {
    encode_of_kind(Kind::Source, features, row, event, created, out);
}

/// As [`encode`], of a row that is in no source.
pub fn encode_online_only(
    features: &[ArrayRef],
    row: usize,
    event: i64,
    created: Option<i64>,
    out: &mut Vec<u8>,
) {
    encode_of_kind(Kind::OnlineOnly, features, row, event, created, out);
}

fn encode_of_kind(
    kind: Kind,
    features: &[ArrayRef],
    row: usize,
    event: i64,
    created: Option<i64>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend(biased(event));
    // The least value stands for none: i64::MIN lies outside of time, so it is no timestamp.
    out.extend(biased(created.unwrap_or(i64::MIN)));
    out.push(kind as u8);
    encode_validity(out, features.len(), |feature| {
        features[feature].is_valid(row)
    });
    for feature in features.iter().filter(|feature| feature.is_valid(row)) {
        encode_value(feature, row, out);
    }
    let checksum = crc32fast::hash(&out[start..]);
    out.extend(checksum.to_le_bytes());
}

/// The stored form of a deletion at the instant `event`: greater than every row of that instant or
/// before, and less than every row after it.
pub fn deleted(event: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + CHECKSUM);
    out.extend(biased(event));
    out.extend(biased(i64::MAX));
    out.push(Kind::Deleted as u8);
    let checksum = crc32fast::hash(&out);
    out.extend(checksum.to_le_bytes());
    out
}

/// A stored row without its checksum.
fn checked(bytes: &[u8]) -> Result<&[u8], DamagedRow> {
    let damaged = |what| DamagedRow {
        length: bytes.len(),
        what,
    };
    let (content, checksum) = bytes
        .split_last_chunk::<CHECKSUM>()
        .ok_or(damaged("it ends within its header"))?;
    if crc32fast::hash(content) == u32::from_le_bytes(*checksum) {
        Ok(content)
    } else {
        Err(damaged("its checksum is that of other bytes"))
    }
}

fn encode_validity(out: &mut Vec<u8>, length: usize, is_valid: impl Fn(usize) -> bool) {
    let start = out.len();
    out.resize(start + length.div_ceil(8), 0);
    for index in (0..length).filter(|&index| is_valid(index)) {
        out[start + index / 8] |= 1 << (index % 8);
    }
}

fn encode_value(array: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    use arrow::datatypes::DataType as A;
    match array.data_type() {
        A::Boolean => out.push(u8::from(array.as_boolean().value(row))),
        A::Int32 => out.extend(array.as_primitive::<Int32Type>().value(row).to_le_bytes()),
        A::Int64 => out.extend(array.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        A::Float32 => out.extend(array.as_primitive::<Float32Type>().value(row).to_le_bytes()),
        A::Float64 => out.extend(array.as_primitive::<Float64Type>().value(row).to_le_bytes()),
        A::Timestamp(..) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            out.extend(micros.to_le_bytes());
        }
        A::Utf8 => encode_bytes(array.as_string::<i32>().value(row).as_bytes(), out),
        A::Binary => encode_bytes(array.as_binary::<i32>().value(row), out),
        A::List(_) => {
            let items = array.as_list::<i32>().value(row);
            // An Arrow list with i32 offsets holds fewer than 2^31 items.
            out.extend((items.len() as u32).to_le_bytes());
            encode_validity(out, items.len(), |item| items.is_valid(item));
            for item in (0..items.len()).filter(|&item| items.is_valid(item)) {
                encode_value(&items, item, out);
            }
        }
        other => unreachable!("{other} is no type of the contract"),
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // An Arrow array with i32 offsets holds values of less than 2^31 bytes.
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// Whether a stored row is as it was written, as far as its checksum tells.
///
/// # Errors
/// It is not.
pub fn check(bytes: &[u8]) -> Result<(), DamagedRow> {
    checked(bytes).map(drop)
}

/// The event and created timestamps of a stored row, in microseconds.
///
/// # Errors
/// The row is shorter than a header, or of another format.
pub fn timestamps(bytes: &[u8]) -> Result<(i64, Option<i64>), DamagedRow> {
    header(bytes).map(|(event, created, _)| (event, created))
}

/// Where a stored row comes from.
///
/// # Errors
/// The row is shorter than a header, or of another format.
pub fn kind(bytes: &[u8]) -> Result<Kind, DamagedRow> {
    header(bytes).map(|(_, _, kind)| kind)
}

fn header(bytes: &[u8]) -> Result<(i64, Option<i64>, Kind), DamagedRow> {
    let damaged = |what| DamagedRow {
        length: bytes.len(),
        what,
    };
    let mut reader = Reader(bytes);
    let mut unbiased = || {
        let raw = reader
            .fixed::<8>()
            .ok_or(damaged("it ends within its header"))?;
        Ok((u64::from_be_bytes(raw) ^ (1 << 63)).cast_signed())
    };
    let (event, created) = (unbiased()?, unbiased()?);
    let [kind] = reader
        .fixed::<1>()
        .ok_or(damaged("it ends within its header"))?;
    let kind = Kind::of(kind).ok_or(damaged("it is of another format"))?;
    Ok((event, (created != i64::MIN).then_some(created), kind))
}

/// Turns stored rows back into columns.
pub struct Decoder {
    columns: Vec<Column>,
    events: Numbers<TimestampMicrosecondType>,
    created: Numbers<TimestampMicrosecondType>,
}

/// What a [`Decoder`] makes of the rows that were pushed: columns of equal length.
pub struct DecodedRows {
    /// Event timestamps, null where no row was pushed.
    pub events: TimestampMicrosecondArray,
    /// Created timestamps, null where no row was pushed or it has none.
    pub created: TimestampMicrosecondArray,
    /// The wanted features, in the order in which they were asked for.
    pub features: Vec<ArrayRef>,
}

/// A feature of the stored schema: read, and kept if it is wanted.
struct Column {
    data_type: DataType,
    wanted: Option<Builder>,
}

impl Decoder {
    /// A decoder of `rows` rows, or more, whose features have types `schema`, of which it keeps
    /// those at the indices `wanted` (ascending).
    pub fn new(schema: &[DataType], wanted: &[usize], rows: usize) -> Self {
        let columns = schema
            .iter()
            .enumerate()
            .map(|(index, &data_type)| Column {
                data_type,
                wanted: wanted
                    .contains(&index)
                    .then(|| Builder::new(data_type, rows)),
            })
            .collect();
        Self {
            columns,
            events: Numbers::new(rows),
            created: Numbers::new(rows),
        }
    }

    /// Adds a row, or a row of nulls; says whether there is a row: a deletion is none.
    ///
    /// # Errors
    /// The bytes are no row of the schema. The decoder is not to be used after that.
    pub fn push(&mut self, row: Option<&[u8]>) -> Result<bool, DamagedRow> {
        let Some(bytes) = row else {
            self.push_nulls();
            return Ok(false);
        };
        let damaged = |what| DamagedRow {
            length: bytes.len(),
            what,
        };
        let content = checked(bytes)?;
        let (event, created, kind) = header(content)?;
        if kind == Kind::Deleted {
            if content.len() > HEADER || created != Some(i64::MAX) {
                return Err(damaged("it is not what a deletion is"));
            }
            self.push_nulls();
            return Ok(false);
        }
        self.events.append_value(event);
        self.created.append_option(created);
        let mut reader = Reader(&content[HEADER..]);
        let validity = reader.validity(self.columns.len()).ok_or(damaged(
            "it ends within its validity bitmap, or has more in it than features",
        ))?;
        for (index, column) in self.columns.iter_mut().enumerate() {
            if validity[index / 8] & (1 << (index % 8)) != 0 {
                reader
                    .value(column.data_type, column.wanted.as_mut())
                    .ok_or(damaged(
                        "it ends within a value, or a value is none of its type",
                    ))?;
            } else if let Some(builder) = &mut column.wanted {
                builder.null();
            }
        }
        if reader.0.is_empty() {
            Ok(true)
        } else {
            Err(damaged("it goes on after its last value"))
        }
    }

    fn push_nulls(&mut self) {
        self.events.append_null();
        self.created.append_null();
        for builder in self
            .columns
            .iter_mut()
            .filter_map(|column| column.wanted.as_mut())
        {
            builder.null();
        }
    }

    /// The columns of the rows that were pushed.
    pub fn finish(self) -> DecodedRows {
        DecodedRows {
            events: self.events.finish_instants(),
            created: self.created.finish_instants(),
            features: self
                .columns
                .into_iter()
                .filter_map(|c| c.wanted)
                .map(Builder::finish)
                .collect(),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// The validity bitmap of `length` values, in which nothing is set beyond them.
    fn validity(&mut self, length: usize) -> Option<&'a [u8]> {
        let bitmap = self.take(length.div_ceil(8))?;
        let is_last_full = length.is_multiple_of(8);
        let beyond = bitmap.last().filter(|_| !is_last_full);
        beyond
            .is_none_or(|last| last >> (length % 8) == 0)
            .then_some(bitmap)
    }

    fn length(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.fixed()?) as usize)
    }

    /// Reads a value, into `builder` if there is one.
    fn value(&mut self, data_type: DataType, builder: Option<&mut Builder>) -> Option<()> {
        match (data_type, builder) {
            (DataType::Scalar(scalar), Some(Builder::Scalar(builder))) => {
                self.scalar(scalar, Some(builder))
            }
            (DataType::Scalar(scalar), _) => self.scalar(scalar, None),
            (DataType::List(scalar), builder) => {
                let length = self.length()?;
                let validity = self.validity(length)?;
                let mut items = match builder {
                    Some(builder) => Some(builder.list(length)?),
                    None => None,
                };
                for item in 0..length {
                    if validity[item / 8] & (1 << (item % 8)) != 0 {
                        self.scalar(scalar, items.as_deref_mut())?;
                    } else if let Some(items) = &mut items {
                        items.null();
                    }
                }
                Some(())
            }
        }
    }

    fn scalar(&mut self, scalar: ScalarType, builder: Option<&mut Scalars>) -> Option<()> {
        let bytes = match scalar {
            // One row has one form, so that rows are equal where their bytes are.
            ScalarType::Bool => self.take(1).filter(|byte| matches!(byte, [0 | 1]))?,
            ScalarType::Int32 | ScalarType::Float32 => self.take(4)?,
            ScalarType::Int64 | ScalarType::Float64 | ScalarType::Timestamp => self.take(8)?,
            ScalarType::String | ScalarType::Bytes => {
                let length = self.length()?;
                self.take(length)?
            }
        };
        match builder {
            Some(builder) => append(builder, bytes),
            None => Some(()),
        }
    }
}

/// Appends the value that `bytes` hold.
fn append(builder: &mut Scalars, bytes: &[u8]) -> Option<()> {
    match builder {
        Scalars::Bool(builder) => builder.append_value(*bytes.first()? != 0),
        Scalars::Int32(b) => b.append_value(i32::from_le_bytes(bytes.try_into().ok()?)),
        Scalars::Int64(b) => b.append_value(i64::from_le_bytes(bytes.try_into().ok()?)),
        Scalars::Float32(b) => b.append_value(f32::from_le_bytes(bytes.try_into().ok()?)),
        Scalars::Float64(b) => b.append_value(f64::from_le_bytes(bytes.try_into().ok()?)),
        Scalars::Timestamp(b) => b.append_value(i64::from_le_bytes(bytes.try_into().ok()?)),
        Scalars::String(_) => return builder.text(std::str::from_utf8(bytes).ok()?),
        Scalars::Bytes(_) => return builder.bytes(bytes),
    }
    Some(())
}

/// Appends the stored form of the entity key in row `row` of `columns` to `out`; `false`, with
/// `out` as it was, if a join key is null: such a row has no key.
///
/// `columns` are of the view's join key types, in their order. The form depends on types and values
/// alone, so that views of one entity share it.
pub fn encode_key(columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> bool {
    if columns.iter().any(|column| column.is_null(row)) {
        return false;
    }
    for column in columns {
        encode_value(column, row, out);
    }
    true
}

/// The join key columns, of types `types`, of entity keys that [`encode_key`] made; one row for
/// each.
///
/// # Errors
/// One of them is no key of those types.
pub fn decode_keys<'a>(
    keys: impl IntoIterator<Item = &'a [u8]>,
    types: &[ScalarType],
) -> Result<Vec<ArrayRef>, DamagedKey> {
    let mut columns: Vec<Scalars> = types
        .iter()
        .map(|&scalar| Scalars::new(scalar, 0))
        .collect();
    for key in keys {
        let mut reader = Reader(key);
        let mut read = || {
            for (&scalar, column) in types.iter().zip(&mut columns) {
                reader.scalar(scalar, Some(column))?;
            }
            reader.0.is_empty().then_some(())
        };
        read().ok_or_else(|| DamagedKey {
            length: key.len(),
            types: crate::text::list(types),
        })?;
    }
    Ok(columns.into_iter().map(|c| c.finish().1).collect())
}

#[cfg(test)]
mod key_tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };

    use super::*;
    use crate::types::UTC;

    fn encoded(columns: &[ArrayRef]) -> Vec<Vec<u8>> {
        let rows = columns.first().map_or(1, |column| column.len());
        let encode = |row| {
            let mut key = Vec::new();
            assert!(encode_key(columns, row, &mut key));
            key
        };
        (0..rows).map(encode).collect()
    }

    fn decoded(keys: &[Vec<u8>], types: &[ScalarType]) -> Result<Vec<ArrayRef>, DamagedKey> {
        decode_keys(keys.iter().map(Vec::as_slice), types)
    }

    #[test]
    fn keys_of_every_type_come_back() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["", "\u{1f600}"])),
            Arc::new(Int32Array::from(vec![i32::MIN, i32::MAX])),
            Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])),
            Arc::new(BooleanArray::from(vec![false, true])),
            Arc::new(BinaryArray::from(vec![&b""[..], b"\0\xff"])),
            Arc::new(TimestampMicrosecondArray::from(vec![-1, 1]).with_timezone(UTC)),
        ];
        let keys = encoded(&columns);
        assert_eq!(decoded(&keys, &ScalarType::JOIN_KEYS), Ok(columns));
    }

    #[test]
    fn composite_keys_are_told_apart() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["a", "ab", "", "abc"])),
            Arc::new(StringArray::from(vec!["bc", "c", "abc", ""])),
        ];
        let keys = encoded(&columns);
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), 4);
        let types = [ScalarType::String; 2];
        assert_eq!(decoded(&keys, &types), Ok(columns));
    }

    #[test]
    fn the_key_of_a_view_without_join_keys_is_empty() {
        assert_eq!(encoded(&[]), [Vec::<u8>::new()]);
        assert_eq!(decoded(&[vec![]], &[]), Ok(vec![]));
    }

    #[test]
    fn a_null_makes_no_key() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("a")])),
            Arc::new(Int64Array::from(vec![None])),
        ];
        let mut key = vec![7];
        assert!(!encode_key(&columns, 0, &mut key));
        assert_eq!(key, [7]);
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        let whole = encoded(&[Arc::new(StringArray::from(vec!["abc"]))]).remove(0);
        let types = [ScalarType::String];
        for length in 0..whole.len() {
            assert!(decoded(&[whole[..length].to_vec()], &types).is_err());
        }
        assert!(decoded(&[[whole.as_slice(), b"d"].concat()], &types).is_err());
        assert!(decoded(&[b"\x01\0\0\0\xff".to_vec()], &types).is_err());
        let error = decoded(&[vec![1]], &[ScalarType::Int64]).unwrap_err();
        assert!(error.to_string().contains("int64"), "{error}");
    }
}
