//! From join keys to the numbers of their groups.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType as ArrowType, Int32Type, Int64Type, TimestampMicrosecondType};
use hashbrown::{DefaultHashBuilder, HashTable};
use unskew_core::row::encode_key;

use crate::scan::{DISTINCT_KEYS, KeyValues, Values};

/// In place of a group, for a key that no entity row has.
pub(crate) const NO_GROUP: u32 = u32::MAX;

/// For so many integers for each key a table of all integers between the least and the greatest
/// key is smaller, and many times faster, than a hash table.
const SPARSEST: u64 = 16;

/// A set of keys, numbered in the order in which they came.
#[derive(Debug)]
pub(crate) enum Keys {
    /// One column of integers that lie close together: the group of each, from `least` on.
    Dense { least: i64, groups: Vec<u32> },
    /// One column of integers.
    Integers {
        numbers: HashTable<(i64, u32)>,
        hasher: DefaultHashBuilder,
    },
    /// Anything else, as bytes: those of a string, or the encoded key.
    Bytes(ByteKeys),
}

/// Keys of bytes.
#[derive(Debug, Default)]
pub(crate) struct ByteKeys {
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    bytes: Vec<u8>,
    /// Where each key ends in `bytes`.
    ends: Vec<usize>,
}

impl Keys {
    /// No keys yet, of columns such as `columns`.
    pub(crate) fn of(columns: &[ArrayRef]) -> Self {
        match columns {
            [column] if Integers::of(column).is_some() => Self::Integers {
                numbers: HashTable::new(),
                hasher: DefaultHashBuilder::default(),
            },
            _ => Self::Bytes(ByteKeys::default()),
        }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Dense { groups, .. } => groups.iter().filter(|&&group| group != NO_GROUP).count(),
            Self::Integers { numbers, .. } => numbers.len(),
            Self::Bytes(keys) => keys.ends.len(),
        }
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Dense { groups, .. } => groups.capacity() * size_of::<u32>(),
            Self::Integers { numbers, .. } => numbers.capacity() * size_of::<(i64, u32)>(),
            Self::Bytes(keys) => {
                let each = size_of::<u32>() + size_of::<usize>();
                keys.bytes.capacity() + keys.ends.capacity() * each
            }
        }
    }

    /// Appends the group of each of `rows` keys to `groups`; a key that is new gets the next, and
    /// one with a null none.
    pub(crate) fn insert(&mut self, columns: &[ArrayRef], rows: usize, groups: &mut Vec<u32>) {
        groups.reserve(rows);
        match self {
            Self::Integers { numbers, hasher } => {
                let Some(integers) = columns.first().and_then(Integers::of) else {
                    return;
                };
                for row in 0..rows {
                    groups.push(match integers.get(row) {
                        None => NO_GROUP,
                        Some(key) => {
                            let next = numbers.len() as u32;
                            numbers
                                .entry(
                                    hasher.hash_one(key),
                                    |known| known.0 == key,
                                    |known| hasher.hash_one(known.0),
                                )
                                .or_insert((key, next))
                                .get()
                                .1
                        }
                    });
                }
            }
            Self::Bytes(keys) => {
                each_key(columns, rows, |key| {
                    groups.push(key.map_or(NO_GROUP, |key| keys.find_or_insert(key)));
                });
            }
            // A table is made when all keys are known.
            Self::Dense { .. } => {}
        }
    }

    /// The same keys, in the form in which they are found fastest.
    pub(crate) fn finish(self) -> Self {
        let Self::Integers { numbers, hasher } = self else {
            return self;
        };
        let least = numbers.iter().map(|&(key, _)| key).min();
        let greatest = numbers.iter().map(|&(key, _)| key).max();
        let dense = least.zip(greatest).and_then(|(least, greatest)| {
            let range = greatest.abs_diff(least).checked_add(1)?;
            let most = (numbers.len() as u64).saturating_mul(SPARSEST);
            (range <= most).then_some((least, range))
        });
        let Some((least, range)) = dense else {
            return Self::Integers { numbers, hasher };
        };
        let mut groups = vec![NO_GROUP; range as usize];
        for (key, group) in numbers {
            groups[key.abs_diff(least) as usize] = group;
        }
        Self::Dense { least, groups }
    }

    /// Writes the group of each of `rows` keys to `groups`.
    pub(crate) fn find(&self, columns: &[ArrayRef], rows: usize, groups: &mut Vec<u32>) {
        groups.clear();
        match (self, columns.first().and_then(Integers::of)) {
            (Self::Dense { least, groups: all }, Some(integers)) => {
                let find = |key: i64| {
                    // Below the least it wraps around to far beyond the end.
                    let index = key.wrapping_sub(*least).cast_unsigned();
                    let index = usize::try_from(index).unwrap_or(usize::MAX);
                    all.get(index).copied().unwrap_or(NO_GROUP)
                };
                integers.each(rows, |key| groups.push(key.map_or(NO_GROUP, find)));
            }
            (Self::Integers { numbers, hasher }, Some(integers)) => {
                let find = |key: i64| {
                    let found = numbers.find(hasher.hash_one(key), |known| known.0 == key);
                    found.map_or(NO_GROUP, |found| found.1)
                };
                integers.each(rows, |key| groups.push(key.map_or(NO_GROUP, find)));
            }
            (Self::Bytes(keys), _) => each_key(columns, rows, |key| {
                let found = key.and_then(|key| keys.find(key));
                groups.push(found.unwrap_or(NO_GROUP));
            }),
            (Self::Dense { .. } | Self::Integers { .. }, None) => groups.resize(rows, NO_GROUP),
        }
    }
}

impl ByteKeys {
    fn find(&self, key: &[u8]) -> Option<u32> {
        self.numbers
            .find(self.hasher.hash_one(key), |&number| {
                of(&self.bytes, &self.ends, number) == key
            })
            .copied()
    }

    fn find_or_insert(&mut self, key: &[u8]) -> u32 {
        if let Some(number) = self.find(key) {
            return number;
        }
        // There are no more keys than entity rows, which were counted.
        let number = self.ends.len() as u32;
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        self.numbers
            .insert_unique(hasher.hash_one(key), number, |&known| {
                hasher.hash_one(of(bytes, ends, known))
            });
        number
    }
}

/// The bytes of key `number`.
fn of<'a>(bytes: &'a [u8], ends: &[usize], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    &bytes[start..ends[number]]
}

/// Hands on the bytes of each key; `None` for one with a null.
fn each_key(columns: &[ArrayRef], rows: usize, mut take: impl FnMut(Option<&[u8]>)) {
    if let [column] = columns {
        if let Some(strings) = column.as_string_opt::<i32>() {
            return strings.iter().for_each(|key| take(key.map(str::as_bytes)));
        }
        if let Some(bytes) = column.as_binary_opt::<i32>() {
            return bytes.iter().for_each(take);
        }
    }
    let mut key = Vec::new();
    for row in 0..rows {
        key.clear();
        let whole = encode_key(columns, row, &mut key);
        take(whole.then_some(&key));
    }
}

/// Hands on a hash of each key; `None` for one with a null.
pub(crate) fn each_hash(
    columns: &[ArrayRef],
    rows: usize,
    hasher: &DefaultHashBuilder,
    mut take: impl FnMut(Option<u64>),
) {
    if let [column] = columns
        && let Some(integers) = Integers::of(column)
    {
        return integers.each(rows, |key| take(key.map(|key| hasher.hash_one(key))));
    }
    each_key(columns, rows, |key| {
        take(key.map(|key| hasher.hash_one(key)))
    });
}

/// A column of a join key whose values are integers.
enum Integers<'a> {
    Int32(&'a arrow::array::Int32Array),
    Int64(&'a [i64], Option<&'a arrow::buffer::NullBuffer>),
}

impl<'a> Integers<'a> {
    fn of(column: &'a ArrayRef) -> Option<Self> {
        match column.data_type() {
            ArrowType::Int32 => Some(Self::Int32(column.as_primitive::<Int32Type>())),
            ArrowType::Int64 => {
                let array = column.as_primitive::<Int64Type>();
                Some(Self::Int64(array.values(), array.nulls()))
            }
            ArrowType::Timestamp(..) => {
                let array = column.as_primitive_opt::<TimestampMicrosecondType>()?;
                Some(Self::Int64(array.values(), array.nulls()))
            }
            _ => None,
        }
    }

    fn get(&self, row: usize) -> Option<i64> {
        match self {
            Self::Int32(array) => array.is_valid(row).then(|| i64::from(array.value(row))),
            Self::Int64(values, nulls) => {
                let is_valid = nulls.is_none_or(|nulls| nulls.is_valid(row));
                is_valid.then(|| values[row])
            }
        }
    }

    fn each(&self, rows: usize, mut take: impl FnMut(Option<i64>)) {
        match self {
            Self::Int64(values, nulls) if nulls.is_none_or(|nulls| nulls.null_count() == 0) => {
                values.iter().for_each(|&key| take(Some(key)));
            }
            _ => (0..rows).for_each(|row| take(self.get(row))),
        }
    }
}

/// Collects the values of one column of the join keys, so that files can be asked for them.
#[derive(Debug, Default)]
pub(crate) struct KeyValuesBuilder {
    integers: Option<(i64, i64)>,
    few_integers: BTreeSet<i64>,
    bytes: Option<(Vec<u8>, Vec<u8>)>,
    few_bytes: BTreeSet<Vec<u8>>,
    /// A column of another type came.
    is_other: bool,
}

impl KeyValuesBuilder {
    pub(crate) fn add(&mut self, column: &ArrayRef) {
        if let Some(integers) = Integers::of(column) {
            for key in (0..column.len()).filter_map(|row| integers.get(row)) {
                let (least, greatest) = self.integers.get_or_insert((key, key));
                *least = key.min(*least);
                *greatest = key.max(*greatest);
                if self.few_integers.len() <= DISTINCT_KEYS {
                    self.few_integers.insert(key);
                }
            }
        } else if matches!(column.data_type(), ArrowType::Utf8 | ArrowType::Binary) {
            each_key(std::slice::from_ref(column), column.len(), |key| {
                let Some(key) = key else { return };
                let (least, greatest) = self.bytes.get_or_insert_with(|| (key.into(), key.into()));
                if key < least.as_slice() {
                    *least = key.into();
                }
                if key > greatest.as_slice() {
                    *greatest = key.into();
                }
                if self.few_bytes.len() <= DISTINCT_KEYS && !self.few_bytes.contains(key) {
                    self.few_bytes.insert(key.into());
                }
            });
        } else {
            self.is_other = true;
        }
    }

    pub(crate) fn finish(self) -> KeyValues {
        fn values<T>(min: T, max: T, few: BTreeSet<T>) -> Values<T> {
            let distinct = (few.len() <= DISTINCT_KEYS).then(|| few.into_iter().collect());
            Values { min, max, distinct }
        }
        match (self.integers, self.bytes) {
            (Some((min, max)), None) if !self.is_other => {
                KeyValues::Integers(values(min, max, self.few_integers))
            }
            (None, Some((min, max))) if !self.is_other => {
                KeyValues::Bytes(values(min, max, self.few_bytes))
            }
            _ => KeyValues::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Int32Array, Int64Array, StringArray};

    use super::*;

    fn round(known: &[ArrayRef], asked: &[ArrayRef]) -> (Vec<u32>, Vec<u32>, Keys) {
        let mut keys = Keys::of(known);
        let (mut inserted, mut found) = (Vec::new(), Vec::new());
        keys.insert(known, known[0].len(), &mut inserted);
        let keys = keys.finish();
        keys.find(asked, asked[0].len(), &mut found);
        (inserted, found, keys)
    }

    #[test]
    fn integers_that_lie_close_together_are_found_in_a_table() {
        let known: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![
            Some(-3),
            Some(5),
            None,
            Some(-3),
        ]))];
        let asked: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![
            Some(5),
            Some(i64::MIN),
            Some(i64::MAX),
            Some(-4),
            Some(0),
            None,
            Some(-3),
        ]))];
        let (inserted, found, keys) = round(&known, &asked);
        assert_eq!(inserted, [0, 1, NO_GROUP, 0]);
        let none = NO_GROUP;
        assert_eq!(found, [1, none, none, none, none, none, 0]);
        assert!(matches!(keys, Keys::Dense { .. }));
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn integers_far_apart_are_hashed() {
        let known: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX, 0]))];
        let (inserted, found, keys) = round(&known, &known);
        assert_eq!((inserted, found), (vec![0, 1, 2], vec![0, 1, 2]));
        assert!(matches!(keys, Keys::Integers { .. }));
    }

    #[test]
    fn other_keys_are_bytes() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            Some("a"),
            Some(""),
            None,
            Some("a"),
        ]));
        let (inserted, found, _) = round(&[Arc::clone(&texts)], &[Arc::clone(&texts)]);
        assert_eq!(inserted, [0, 1, NO_GROUP, 0]);
        assert_eq!(found, inserted);

        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, true, true, false]));
        let both = [texts, flags];
        let (inserted, found, keys) = round(&both, &both);
        assert_eq!(inserted, [0, 1, NO_GROUP, 2]);
        assert_eq!(found, inserted);
        assert_eq!(keys.len(), 3);
    }

    #[test]
    fn a_view_without_keys_has_one_key_for_everybody() {
        let mut keys = Keys::of(&[]);
        let mut groups = Vec::new();
        keys.insert(&[], 3, &mut groups);
        assert_eq!(groups, [0, 0, 0]);
        keys.find(&[], 2, &mut groups);
        assert_eq!(groups, [0, 0]);
    }

    #[test]
    fn values_of_keys_are_listed_while_they_are_few() {
        let collect = |columns: &[ArrayRef]| {
            let mut builder = KeyValuesBuilder::default();
            columns.iter().for_each(|column| builder.add(column));
            builder.finish()
        };
        let few: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None, Some(-1), Some(7)]));
        assert_eq!(
            collect(&[few]),
            KeyValues::Integers(Values {
                min: -1,
                max: 7,
                distinct: Some(vec![-1, 7])
            })
        );
        let many: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2_000));
        assert_eq!(
            collect(&[many]),
            KeyValues::Integers(Values {
                min: 0,
                max: 1_999,
                distinct: None
            })
        );
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("a")]));
        assert_eq!(
            collect(&[texts]),
            KeyValues::Bytes(Values {
                min: b"a".to_vec(),
                max: b"b".to_vec(),
                distinct: Some(vec![b"a".to_vec(), b"b".to_vec()])
            })
        );
        assert_eq!(collect(&[]), KeyValues::Any);
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        assert_eq!(collect(&[flags]), KeyValues::Any);
    }
}
