//! The stored row: what goes in comes out, memcmp is the order that counts, damage is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int32Array, ListArray, StringArray};
use arrow::datatypes::Int64Type;
use proptest::collection::vec;
use proptest::prelude::*;
use unskew_core::row::{
    DamagedRow, DecodedRows, Decoder, Kind, deleted, encode, encode_key, encode_online_only, kind,
    timestamps,
};
use unskew_core::text::hex;
use unskew_core::types::{DataType, ScalarType};

use crate::random::{column, data_type};

fn encoded(features: &[ArrayRef], row: usize, event: i64, created: Option<i64>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(features, row, event, created, &mut out);
    out
}

fn decoded(
    schema: &[DataType],
    wanted: &[usize],
    rows: &[Option<Vec<u8>>],
) -> Result<DecodedRows, DamagedRow> {
    let mut decoder = Decoder::new(schema, wanted, 1);
    for row in rows {
        decoder.push(row.as_deref())?;
    }
    Ok(decoder.finish())
}

/// Event and created.
type Times = (i64, Option<i64>);

/// A schema, columns of it, and the times of each row.
fn table() -> impl Strategy<Value = (Vec<DataType>, Vec<ArrayRef>, Vec<Times>)> {
    // More features than a byte of the validity bitmap has bits.
    (vec(data_type(), 0..11), 1..5_usize).prop_flat_map(|(schema, rows)| {
        let columns: Vec<_> = schema.iter().map(|&t| column(t, rows)).collect();
        let times = vec((any::<i64>(), proptest::option::of((i64::MIN + 1)..)), rows);
        (Just(schema), columns, times)
    })
}

proptest! {
    #[test]
    fn rows_come_back_by_bits((schema, columns, times) in table(), skip in any::<usize>()) {
        let mut rows: Vec<Option<Vec<u8>>> = Vec::new();
        for (row, &(event, created)) in times.iter().enumerate() {
            let bytes = encoded(&columns, row, event, created);
            prop_assert_eq!(timestamps(&bytes), Ok((event, created)));
            rows.push(Some(bytes));
        }
        let all: Vec<usize> = (0..schema.len()).collect();
        let back = decoded(&schema, &all, &rows).unwrap();
        prop_assert_eq!(&back.features, &columns);
        for (row, &(event, created)) in times.iter().enumerate() {
            prop_assert_eq!(back.events.value(row), event);
            let found = back.created.is_valid(row).then(|| back.created.value(row));
            prop_assert_eq!(found, created);
        }

        // Some of the features, and a row that was not found.
        rows.push(None);
        let some: Vec<usize> = all.into_iter().filter(|i| skip & (1 << i) == 0).collect();
        let back = decoded(&schema, &some, &rows).unwrap();
        prop_assert!(back.events.is_null(times.len()) && back.created.is_null(times.len()));
        prop_assert_eq!(back.features.len(), some.len());
        for (feature, &index) in back.features.iter().zip(&some) {
            prop_assert!(feature.is_null(times.len()));
            prop_assert_eq!(&feature.slice(0, times.len()), &columns[index]);
        }
    }

    #[test]
    fn a_sliced_column_has_the_same_rows((_, columns, times) in table()) {
        let last = times.len() - 1;
        let sliced: Vec<ArrayRef> = columns.iter().map(|c| c.slice(last, 1)).collect();
        prop_assert_eq!(encoded(&columns, last, 1, None), encoded(&sliced, 0, 1, None));
    }

    #[test]
    fn unsigned_bytes_are_ordered_by_event_then_created(
        (_, columns, _) in table(),
        one in (any::<i64>(), proptest::option::of((i64::MIN + 1)..)),
        other in (any::<i64>(), proptest::option::of((i64::MIN + 1)..)),
        same_event in any::<bool>(),
    ) {
        let other = if same_event { (one.0, other.1) } else { other };
        let a = encoded(&columns, 0, one.0, one.1);
        let b = encoded(&columns, 0, other.0, other.1);
        prop_assert_eq!(a.cmp(&b), one.cmp(&other));
    }

    /// Of one event and created timestamp: only pushed < of the source < deleted; and a deletion
    /// wins against all that is not later.
    #[test]
    fn kinds_are_ordered_after_the_timestamps(
        (_, columns, _) in table(),
        (event, created) in (any::<i64>(), proptest::option::of((i64::MIN + 1)..)),
        other in any::<i64>(),
    ) {
        let last = columns.first().map_or(0, |column| column.len() - 1);
        let source = encoded(&columns, 0, event, created);
        let mut pushed = Vec::new();
        encode_online_only(&columns, last, event, created, &mut pushed);
        prop_assert!(pushed < source);
        prop_assert_eq!(kind(&source), Ok(Kind::Source));
        prop_assert_eq!(kind(&pushed), Ok(Kind::OnlineOnly));
        prop_assert_eq!(timestamps(&pushed), Ok((event, created)));
        let deleted = deleted(other);
        prop_assert_eq!(kind(&deleted), Ok(Kind::Deleted));
        for row in [source, pushed] {
            prop_assert_eq!(row < deleted, event <= other);
        }
    }

    #[test]
    fn a_row_that_was_only_pushed_is_a_row_and_a_deletion_is_none((schema, columns, times) in table()) {
        let all: Vec<usize> = (0..schema.len()).collect();
        let (event, created) = times[0];
        let mut pushed = Vec::new();
        encode_online_only(&columns, 0, event, created, &mut pushed);
        let mut decoder = Decoder::new(&schema, &all, 1);
        prop_assert_eq!(decoder.push(Some(&pushed)), Ok(true));
        prop_assert_eq!(decoder.push(Some(&deleted(event))), Ok(false));
        prop_assert_eq!(decoder.push(None), Ok(false));
        let back = decoder.finish();
        prop_assert!(back.events.is_valid(0) && back.events.is_null(1) && back.events.is_null(2));
        for (feature, column) in back.features.iter().zip(&columns) {
            prop_assert_eq!(&feature.slice(0, 1), &column.slice(0, 1));
            prop_assert!(feature.is_null(1) && feature.is_null(2));
        }
        let longer = changed(&deleted(event), |content| content.push(0));
        prop_assert!(Decoder::new(&schema, &all, 1).push(Some(&longer)).is_err());
    }

    #[test]
    fn a_row_that_was_cut_or_lengthened_is_damaged((schema, columns, times) in table()) {
        let all: Vec<usize> = (0..schema.len()).collect();
        let whole = encoded(&columns, 0, times[0].0, times[0].1);
        for length in 0..whole.len() {
            prop_assert!(decoded(&schema, &all, &[Some(whole[..length].to_vec())]).is_err());
            prop_assert!(decoded(&schema, &[], &[Some(whole[..length].to_vec())]).is_err());
        }
        // Even where whoever did it made a checksum of what is left.
        for length in 0..whole.len() - 4 {
            let shorter = changed(&whole, |content| content.truncate(length));
            prop_assert!(decoded(&schema, &all, &[Some(shorter)]).is_err());
        }
        let longer = changed(&whole, |content| content.push(0));
        prop_assert!(decoded(&schema, &all, &[Some(longer)]).is_err());
    }

    /// What a store or a wire changes is never taken for a value.
    #[test]
    fn a_row_of_which_a_bit_changed_is_damaged(
        (schema, columns, times) in table(),
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let mut bytes = encoded(&columns, 0, times[0].0, times[0].1);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(decoded(&schema, &[], &[Some(bytes)]).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(
        (schema, columns, _) in table(),
        noise in vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let all: Vec<usize> = (0..schema.len()).collect();
        let _ = decoded(&schema, &all, &[Some(noise.clone())]);
        // With a checksum that is right, or nothing but the checksum would be tried.
        let headed = changed(&encoded(&[], 0, 0, None), |content| content.extend(&noise));
        let _ = decoded(&schema, &all, &[Some(headed)]);
        let other = changed(&encoded(&columns, 0, 0, None), |content| {
            let at = at.index(content.len());
            content[at] = byte;
        });
        let _ = decoded(&schema, &all, &[Some(other)]);
    }

    #[test]
    fn keys_are_equal_where_their_values_are(
        columns in vec(proptest::sample::select(ScalarType::JOIN_KEYS.to_vec()), 1..4)
            .prop_flat_map(|types| {
                types.into_iter().map(|t| column(DataType::Scalar(t), 2)).collect::<Vec<_>>()
            }),
    ) {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        if encode_key(&columns, 0, &mut one) && encode_key(&columns, 1, &mut other) {
            let same = columns.iter().all(|c| c.slice(0, 1) == c.slice(1, 1));
            prop_assert_eq!(one == other, same);
        }
    }
}

/// The layout is a promise to stores that are already filled.
#[test]
fn the_layout_stays() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(5), None])]);
    let features: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![-2])),
        Arc::new(Float64Array::from(vec![None])),
        Arc::new(StringArray::from(vec!["é"])),
        Arc::new(lists),
    ];
    let expected = [
        "8000000000000001", // event 1
        "0000000000000000", // no created timestamp
        "01",               // of the source
        "0d",               // features 0, 2 and 3 are not null
        "feffffff",
        "02000000c3a9",
        "02000000010500000000000000", // two items, the first not null
        "605daf47",
    ]
    .concat();
    assert_eq!(hex(&encoded(&features, 0, 1, None)), expected);
    assert_eq!(
        hex(&encoded(&[], 0, -1, Some(0))),
        ["7fffffffffffffff800000000000000001", "b3bdaaa4"].concat()
    );
    let mut pushed = Vec::new();
    encode_online_only(&[], 0, -1, Some(0), &mut pushed);
    let expected = ["7fffffffffffffff800000000000000000", "258dadd3"].concat();
    assert_eq!(hex(&pushed), expected);
    let expected = ["8000000000000001ffffffffffffffff02", "f4d38452"].concat();
    assert_eq!(hex(&deleted(1)), expected);
}

/// A row whose content is changed, with the checksum of what it is then.
fn changed(row: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut content = row[..row.len() - 4].to_vec();
    change(&mut content);
    let checksum = crc32fast::hash(&content);
    content.extend(checksum.to_le_bytes());
    content
}

#[test]
fn another_format_and_another_schema_are_told() {
    let mut bytes = encoded(&[], 0, 0, None);
    bytes[16] = 3;
    let error = timestamps(&bytes).unwrap_err().to_string();
    assert!(error.contains("another format"), "{error}");
    assert!(timestamps(&bytes[..16]).is_err());

    let text: ArrayRef = Arc::new(StringArray::from(vec!["four"]));
    let bytes = encoded(&[text], 0, 0, None);
    let schema = [DataType::Scalar(ScalarType::Int32)];
    let error = decoded(&schema, &[0], &[Some(bytes)])
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("goes on"), "{error}");
}

/// A length of 2^32 − 1 must not be believed before the bytes are there.
#[test]
fn a_monstrous_length_is_damage() {
    for data_type in [
        DataType::Scalar(ScalarType::String),
        DataType::List(ScalarType::Bool),
        DataType::List(ScalarType::Bytes),
    ] {
        let bytes = changed(&encoded(&[], 0, 0, None), |content| {
            content.extend([1, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        });
        assert!(
            decoded(&[data_type], &[0], &[Some(bytes)]).is_err(),
            "{data_type}"
        );
    }
}

#[test]
fn a_decoder_without_rows_gives_empty_columns() {
    let back = decoded(&[DataType::List(ScalarType::String)], &[0], &[]).unwrap();
    assert_eq!((back.events.len(), back.features[0].len()), (0, 0));
}

/// What the comparisons of this crate's tests stand on.
#[test]
fn arrow_compares_floats_by_their_bits() {
    let arrays = [0.0, -0.0, f64::NAN, f64::from_bits(0x7ff8_0000_0000_0001)]
        .map(|value| Float64Array::from(vec![value]));
    for (i, one) in arrays.iter().enumerate() {
        for (j, other) in arrays.iter().enumerate() {
            assert_eq!(one == other, i == j);
        }
    }
}
