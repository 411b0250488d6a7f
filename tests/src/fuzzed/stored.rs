//! Bytes that a store could hold: rows, entity keys, and the states of views.

use arrow::array::{Array, ArrayRef};
use unskew_core::row::{self, DamagedRow, DecodedRows, Decoder, Kind};
use unskew_core::types::{DataType, ScalarType};
use unskew_online::ViewState;

use DataType::{List, Scalar};
use ScalarType::{Bool, Bytes, Float32, Float64, Int32, Int64, String, Timestamp};

/// The features of a view and its join keys.
type Schema = (&'static [DataType], &'static [ScalarType]);

/// Each type as a feature, as the items of a list, and as a key if it may be one.
const SCHEMAS: [Schema; 8] = [
    (&[], &[]),
    (
        &[
            Scalar(Bool),
            Scalar(Int32),
            Scalar(Int64),
            Scalar(Float32),
            Scalar(Float64),
            Scalar(String),
            Scalar(Bytes),
            Scalar(Timestamp),
            List(Bool),
            List(Int32),
            List(Int64),
            List(Float32),
            List(Float64),
            List(String),
            List(Bytes),
            List(Timestamp),
        ],
        &ScalarType::JOIN_KEYS,
    ),
    (&[Scalar(String)], &[String]),
    (&[List(String), Scalar(Int64)], &[String, Int64]),
    (&[Scalar(Bool); 9], &[Bool, Bool]),
    (&[List(Bool), List(Bytes)], &[Bytes, Bytes]),
    (&[Scalar(Float32), List(Float32), Scalar(Float64)], &[Int32]),
    (&[Scalar(Timestamp), List(Timestamp)], &[Timestamp, String]),
];

/// Takes all but the first byte for a row, for an entity key, and for the state of a view.
///
/// The first byte says by which schema (bits 0 to 2), which of its features are wanted (bits 3 to 6,
/// again and again), and whether the row gets the checksum that it should have (bit 7): without it
/// hardly any bytes would be looked at beyond their checksum.
///
/// # Panics
/// Something does not hold that must hold for all bytes.
pub fn check(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    let (features, keys) = SCHEMAS[usize::from(choice & 7)];
    let mut row = bytes.to_vec();
    if choice & 0x80 != 0 {
        row.extend(crc32fast::hash(bytes).to_le_bytes());
    }
    let is_wanted = |feature: &usize| choice & (8 << (feature % 4)) != 0;
    let wanted: Vec<usize> = (0..features.len()).filter(is_wanted).collect();
    check_row(features, &wanted, &row);
    check_key(keys, bytes);
    check_state(bytes);
}

fn check_row(schema: &[DataType], wanted: &[usize], bytes: &[u8]) {
    // Without a checksum they are bytes all the same.
    let header = (row::timestamps(bytes), row::kind(bytes));
    let all: Vec<usize> = (0..schema.len()).collect();
    let Ok((is_row, decoded)) = decode(schema, &all, bytes) else {
        // What is not wanted is passed over, and may be no value; but it is no panic.
        let _ = decode(schema, wanted, bytes);
        return;
    };
    let (some_is_row, some) = decode(schema, wanted, bytes).unwrap();
    assert_eq!(some_is_row, is_row);
    for (feature, &index) in some.features.iter().zip(wanted) {
        assert_eq!(feature, &decoded.features[index]);
    }

    check_batch(schema, &decoded.features, bytes);

    let (Ok((event, created)), Ok(kind)) = header else {
        panic!("a row without a header: {header:?}");
    };
    assert_eq!(is_row, kind != Kind::Deleted);
    let deleted = row::deleted(event);
    let again = match kind {
        Kind::Deleted => {
            assert!(decoded.events.is_null(0) && decoded.created.is_null(0));
            assert!(decoded.features.iter().all(|feature| feature.is_null(0)));
            deleted
        }
        Kind::Source | Kind::OnlineOnly => {
            assert_eq!(decoded.events.value(0), event);
            let of_row = decoded.created.is_valid(0);
            assert_eq!(of_row.then(|| decoded.created.value(0)), created);
            assert!(deleted.as_slice() > bytes, "a deletion is kept out");
            encoded(kind, &decoded.features, event, created)
        }
    };
    assert_eq!(again, bytes, "a row has one form");

    // Whichever byte changes, and however: the row itself says which one is tried.
    let mut damaged = bytes.to_vec();
    let chosen = crc32fast::hash(bytes) as usize;
    let length = damaged.len();
    damaged[chosen % length] ^= (chosen / length % 255) as u8 + 1;
    assert!(decode(schema, &all, &damaged).is_err());
    assert!(decode(schema, &[], &damaged).is_err());
}

/// A row means the same wherever it stands among others.
fn check_batch(schema: &[DataType], features: &[ArrayRef], bytes: &[u8]) {
    let all: Vec<usize> = (0..schema.len()).collect();
    let mut decoder = Decoder::new(schema, &all, 2);
    for row in [Some(bytes), None, Some(bytes)] {
        decoder.push(row).unwrap();
    }
    let batch = decoder.finish();
    assert_eq!(batch.events.len(), 3);
    for (of_batch, feature) in batch.features.iter().zip(features) {
        assert_eq!(&of_batch.slice(0, 1), feature);
        assert!(of_batch.is_null(1));
        assert_eq!(&of_batch.slice(2, 1), feature);
    }
}

fn decode(
    schema: &[DataType],
    wanted: &[usize],
    bytes: &[u8],
) -> Result<(bool, DecodedRows), DamagedRow> {
    let mut decoder = Decoder::new(schema, wanted, 1);
    let is_row = decoder.push(Some(bytes))?;
    Ok((is_row, decoder.finish()))
}

fn encoded(kind: Kind, features: &[ArrayRef], event: i64, created: Option<i64>) -> Vec<u8> {
    let encode = match kind {
        Kind::OnlineOnly => row::encode_online_only,
        Kind::Source | Kind::Deleted => row::encode,
    };
    let mut out = Vec::new();
    encode(features, 0, event, created, &mut out);
    out
}

fn check_key(types: &[ScalarType], bytes: &[u8]) {
    let Ok(columns) = row::decode_keys([bytes], types) else {
        return;
    };
    assert_eq!(columns.len(), types.len());
    let mut again = Vec::new();
    assert!(row::encode_key(&columns, 0, &mut again));
    assert_eq!(again, bytes, "a key has one form");
}

fn check_state(bytes: &[u8]) {
    let Ok(state) = serde_json::from_slice::<ViewState>(bytes) else {
        return;
    };
    let json = serde_json::to_vec(&state).unwrap();
    let again: ViewState = serde_json::from_slice(&json).unwrap();
    assert_eq!(again, state);
    assert_eq!(again.is_materialized(), state.is_materialized());
}
