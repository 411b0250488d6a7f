//! Columns are read and written as the contract has them, against a slow, obvious encoder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;

use proptest::prelude::*;
use unskew_sdk::__private::contract::{Column, Flat, Lists, Values, VariableLength};
use unskew_sdk::__private::{Columns, Field, FieldWriter};
use unskew_sdk::Timestamp;

/// A scalar type, with its encoding.
trait Scalar: Clone + Debug + Arbitrary + 'static {
    /// The values, with rubbish in the place of nulls.
    fn values(values: &[Option<Self>]) -> Values;
    /// The bits, since NaN is not equal to itself.
    fn bits(&self) -> Vec<u8>;
}

macro_rules! number {
    ($type:ty, $values:ident, $rubbish:expr) => {
        impl Scalar for $type {
            fn values(values: &[Option<Self>]) -> Values {
                Values::$values(values.iter().map(|v| v.unwrap_or($rubbish)).collect())
            }

            fn bits(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        }
    };
}

number!(i32, Int32s, -7);
number!(i64, Int64s, -7);
number!(f32, Float32s, f32::NAN);
number!(f64, Float64s, f64::NAN);

impl Scalar for bool {
    fn values(values: &[Option<Self>]) -> Values {
        let bits: Vec<bool> = values.iter().map(|v| v.unwrap_or(true)).collect();
        Values::Bools(bitmap(&bits))
    }

    fn bits(&self) -> Vec<u8> {
        vec![u8::from(*self)]
    }
}

impl Scalar for String {
    fn values(values: &[Option<Self>]) -> Values {
        let bytes = values.iter().map(|v| v.clone().map(String::into_bytes));
        Values::Strings(variable_length(bytes))
    }

    fn bits(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }
}

impl Scalar for Vec<u8> {
    fn values(values: &[Option<Self>]) -> Values {
        Values::Bytes(variable_length(values.iter().cloned()))
    }

    fn bits(&self) -> Vec<u8> {
        self.clone()
    }
}

fn bitmap(bits: &[bool]) -> Vec<u8> {
    let byte = |eight: &[bool]| {
        let bits = eight.iter().enumerate();
        bits.map(|(i, &bit)| u8::from(bit) << i).sum()
    };
    bits.chunks(8).map(byte).collect()
}

/// What stands in the place of a null is not UTF-8.
fn variable_length(values: impl Iterator<Item = Option<Vec<u8>>>) -> VariableLength {
    let (mut offsets, mut data) = (vec![0], Vec::new());
    for value in values {
        data.extend(value.unwrap_or_else(|| vec![0xff, b'x']));
        offsets.push(data.len() as u32);
    }
    VariableLength { offsets, data }
}

/// A bitmap, or none: without a null both are right.
fn validity(valid: &[bool], explicit: bool) -> Vec<u8> {
    if explicit || valid.contains(&false) {
        bitmap(valid)
    } else {
        Vec::new()
    }
}

fn flat<S: Scalar>(values: &[Option<S>], explicit: bool) -> Flat {
    let valid: Vec<bool> = values.iter().map(Option::is_some).collect();
    Flat {
        length: values.len() as u32,
        validity: validity(&valid, explicit),
        values: S::values(values),
    }
}

/// A null list has two null items, which do not count.
fn lists<S: Scalar>(rows: &[Option<Vec<Option<S>>>], explicit: bool) -> Lists {
    let valid: Vec<bool> = rows.iter().map(Option::is_some).collect();
    let (mut offsets, mut items) = (vec![0], Vec::new());
    for row in rows {
        items.extend(row.clone().unwrap_or_else(|| vec![None, None]));
        offsets.push(items.len() as u32);
    }
    Lists {
        length: rows.len() as u32,
        validity: validity(&valid, explicit),
        offsets,
        items: flat(&items, explicit),
    }
}

fn read<F: Field>(column: Column, rows: usize) -> Result<Vec<F>, String> {
    let reader = Columns::new(vec![column], rows).take::<F>("x");
    let reader = reader.map_err(|error| error.to_string())?;
    Ok((0..rows).map(|row| reader.read(row)).collect())
}

/// Reads a column, writes what was read, and reads that; `key` is what is to be the same.
fn round_trip<F: Field, K: PartialEq + Debug>(column: Column, expected: &[K], key: fn(&F) -> K) {
    let keys = |fields: &[F]| fields.iter().map(key).collect::<Vec<_>>();
    let fields = read::<F>(column, expected.len()).unwrap();
    assert_eq!(keys(&fields), expected);

    let mut writer = FieldWriter::<F>::new("x", expected.len());
    fields.into_iter().for_each(|field| writer.write(field));
    let column = writer.finish().unwrap();
    assert_no_useless_validity(&column);
    assert_eq!(keys(&read::<F>(column, expected.len()).unwrap()), expected);
}

/// There is a bitmap only where there is a null.
fn assert_no_useless_validity(column: &Column) {
    let useful = |validity: &[u8], length: u32| {
        validity.is_empty() || validity != bitmap(&vec![true; length as usize])
    };
    match column {
        Column::Flat(flat) => assert!(useful(&flat.validity, flat.length)),
        Column::Lists(lists) => {
            assert!(useful(&lists.validity, lists.length));
            assert!(useful(&lists.items.validity, lists.items.length));
        }
    }
}

type Bits = Vec<u8>;

fn check<S>(rows: &[Option<Vec<Option<S>>>], explicit: bool)
where
    S: Scalar + Field,
    Option<S>: Field,
    Vec<S>: Field,
    Vec<Option<S>>: Field,
    Option<Vec<Option<S>>>: Field,
{
    let bits = |value: &Option<S>| value.as_ref().map(S::bits);

    let nullable: Vec<Option<S>> = rows.iter().flatten().flatten().cloned().collect();
    let expected: Vec<Option<Bits>> = nullable.iter().map(bits).collect();
    let column = Column::Flat(flat(&nullable, explicit));
    round_trip::<Option<S>, _>(column, &expected, |f| f.as_ref().map(S::bits));

    let plain: Vec<Option<S>> = nullable.iter().filter(|v| v.is_some()).cloned().collect();
    let expected: Vec<Bits> = plain.iter().flatten().map(S::bits).collect();
    let column = Column::Flat(flat(&plain, explicit));
    round_trip::<S, _>(column, &expected, S::bits);

    let expected: Vec<Option<Vec<Option<Bits>>>> = rows
        .iter()
        .map(|row| row.as_ref().map(|items| items.iter().map(bits).collect()))
        .collect();
    let column = Column::Lists(lists(rows, explicit));
    round_trip::<Option<Vec<Option<S>>>, _>(column, &expected, |f| {
        let items = f.as_ref()?.iter();
        Some(items.map(|v| v.as_ref().map(S::bits)).collect())
    });

    let rows: Vec<_> = rows.iter().filter(|row| row.is_some()).cloned().collect();
    let expected: Vec<Vec<Option<Bits>>> = expected.into_iter().flatten().collect();
    let column = Column::Lists(lists(&rows, explicit));
    round_trip::<Vec<Option<S>>, _>(column, &expected, |f| {
        f.iter().map(|v| v.as_ref().map(S::bits)).collect()
    });

    let rows: Vec<Option<Vec<Option<S>>>> = rows
        .into_iter()
        .map(|row| Some(row?.into_iter().filter(Option::is_some).collect()))
        .collect();
    let expected: Vec<Vec<Bits>> = expected
        .into_iter()
        .map(|items| items.into_iter().flatten().collect())
        .collect();
    let column = Column::Lists(lists(&rows, explicit));
    round_trip::<Vec<S>, _>(column, &expected, |f| f.iter().map(S::bits).collect());
}

fn rows<S: Scalar>() -> impl Strategy<Value = Vec<Option<Vec<Option<S>>>>> {
    use proptest::{collection::vec, option::of};
    vec(of(vec(of(any::<S>()), 0..6)), 0..20)
}

proptest! {
    #[test]
    fn bool_round_trips(rows in rows::<bool>(), explicit: bool) {
        check(&rows, explicit);
    }

    #[test]
    fn i32_round_trips(rows in rows::<i32>(), explicit: bool) {
        check(&rows, explicit);
    }

    #[test]
    fn i64_round_trips(rows in rows::<i64>(), explicit: bool) {
        check(&rows, explicit);
    }

    #[test]
    fn f32_round_trips(rows in rows::<f32>(), explicit: bool) {
        check(&rows, explicit);
    }

    #[test]
    fn f64_round_trips(rows in rows::<f64>(), explicit: bool) {
        check(&rows, explicit);
    }

    #[test]
    fn string_round_trips(rows in rows::<String>(), explicit: bool) {
        check(&rows, explicit);
    }

    #[test]
    fn bytes_round_trips(rows in rows::<Vec<u8>>(), explicit: bool) {
        check(&rows, explicit);
    }

    #[test]
    fn timestamps_are_microseconds(micros: Vec<i64>) {
        let column = |values| Column::Flat(Flat {
            length: micros.len() as u32,
            validity: Vec::new(),
            values,
        });
        let timestamps = column(Values::Timestamps(micros.clone()));
        round_trip::<Timestamp, _>(timestamps, &micros, |f| f.as_micros());
        let integers = read::<Timestamp>(column(Values::Int64s(micros.clone())), micros.len());
        prop_assert_eq!(
            integers.unwrap_err(),
            "input `x` is not of the type that was described"
        );
    }
}

fn int64s(values: &[Option<i64>]) -> Column {
    Column::Flat(flat(values, false))
}

#[test]
fn a_null_that_is_not_expected_is_an_error_with_the_row() {
    let reader = Columns::new(vec![int64s(&[Some(1), None])], 2).take::<i64>("x");
    let error = reader.err().unwrap();
    assert_eq!(error.row(), Some(1));
    assert_eq!(
        error.to_string(),
        "input `x` is null; a field that may be null is an `Option` in the row's struct"
    );
}

#[test]
fn a_null_item_that_is_not_expected_is_an_error_with_the_row() {
    let rows = [None, Some(vec![Some(1_i64)]), Some(vec![Some(2), None])];
    let column = || Column::Lists(lists(&rows, false));
    let reader = Columns::new(vec![column()], 3).take::<Option<Vec<i64>>>("x");
    let error = reader.err().unwrap();
    assert_eq!(error.row(), Some(2));
    assert_eq!(
        error.to_string(),
        "input `x` has a null item, but its type is `Vec<i64>`; \
         a list with null items is a `Vec<Option<i64>>`"
    );
    // The null items of the null list alone do not count.
    let column = Column::Lists(lists(&rows[..2], false));
    let read = read::<Option<Vec<i64>>>(column, 2);
    assert_eq!(read, Ok(vec![None, Some(vec![1])]));
}

#[test]
fn buffers_of_another_length_are_an_error() {
    let wrong = Err("input `x` does not hold a value for each row".to_owned());
    assert_eq!(read::<i64>(int64s(&[Some(1)]), 2), wrong);
    let short = Flat {
        length: 2,
        validity: Vec::new(),
        values: Values::Int64s(vec![1]),
    };
    assert_eq!(read::<i64>(Column::Flat(short), 2), wrong);
    assert!(Columns::new(Vec::new(), 2).take::<i64>("x").is_err());

    for offsets in [
        vec![],
        vec![0],
        vec![0, 1, 1],
        vec![0, 2, 1],
        vec![1, 1, 2],
        vec![0, 1, 3],
    ] {
        let data = b"ab".to_vec();
        let text = Flat {
            length: 2,
            validity: Vec::new(),
            values: Values::Strings(VariableLength { offsets, data }),
        };
        let wrong = Err("input `x` does not hold a value for each row".to_owned());
        assert_eq!(read::<String>(Column::Flat(text), 2), wrong);
    }
}

#[test]
fn text_is_utf_8_value_by_value() {
    let text = |offsets: &[u32], data: &[u8]| {
        let values = Values::Strings(VariableLength {
            offsets: offsets.to_vec(),
            data: data.to_vec(),
        });
        let validity = Vec::new();
        read::<String>(
            Column::Flat(Flat {
                length: 2,
                validity,
                values,
            }),
            2,
        )
    };
    let both = vec!["é".to_owned(), "x".to_owned()];
    assert_eq!(text(&[0, 2, 3], "éx".as_bytes()), Ok(both));
    let wrong = Err("input `x` is not UTF-8".to_owned());
    assert_eq!(text(&[0, 1, 3], "éx".as_bytes()), wrong);
    assert_eq!(text(&[0, 1, 2], b"x\xff"), wrong);
}

#[test]
fn a_type_of_another_shape_is_an_error() {
    let wrong = "input `x` is not of the type that was described".to_owned();
    assert_eq!(read::<i32>(int64s(&[Some(1)]), 1), Err(wrong.clone()));
    assert_eq!(read::<Vec<i64>>(int64s(&[Some(1)]), 1), Err(wrong.clone()));
    let list = Column::Lists(lists(&[Some(vec![Some(1_i64)])], false));
    assert_eq!(read::<i64>(list, 1), Err(wrong));
}
