//! Random tables: every type of the contract, with the values that get lost first.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder,
    Int64Builder, ListArray, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field as ArrowField, Schema};
use fastrand::Rng;
use unskew_core::time;
use unskew_core::types::{DataType, ScalarType, UTC};

/// A history of random features of one entity.
pub struct RandomTable {
    /// The join keys `k0`, `k1`… with their types.
    pub keys: Vec<(String, ScalarType)>,
    /// The features `f0`, `f1`… with their types.
    pub features: Vec<(String, DataType)>,
    /// Those of the features that are lists of which no item is null.
    pub without_null_items: BTreeSet<String>,
    /// The history: keys, `event_timestamp`, `created_timestamp`, features.
    pub history: RecordBatch,
    /// The keys of entity rows, half of them in the history.
    pub entities: Vec<ArrayRef>,
}

/// A history of `rows` rows, and `entities` entity keys, of a random schema.
pub fn random_table(rng: &mut Rng, rows: usize, entities: usize) -> RandomTable {
    let types = [
        ScalarType::String,
        ScalarType::Int32,
        ScalarType::Int64,
        ScalarType::Bool,
        ScalarType::Bytes,
        ScalarType::Timestamp,
    ];
    let keys: Vec<(String, ScalarType)> = (0..rng.usize(1..3))
        .map(|i| (format!("k{i}"), types[rng.usize(..types.len())]))
        .collect();
    let features: Vec<(String, DataType)> = (0..rng.usize(1..7))
        .map(|i| {
            let scalar = ScalarType::ALL[rng.usize(..8)];
            let data_type = if rng.u8(..4) == 0 {
                DataType::List(scalar)
            } else {
                DataType::Scalar(scalar)
            };
            (format!("f{i}"), data_type)
        })
        .collect();
    // Keys come from few values, so that most of them meet.
    let pool = rows / 3 + 1;
    let pools: Vec<ArrayRef> = keys
        .iter()
        .map(|(_, scalar)| column(rng, DataType::Scalar(*scalar), pool))
        .collect();
    let pick = |rng: &mut Rng, count: usize| -> Vec<ArrayRef> {
        let picks: arrow::array::UInt64Array =
            (0..count).map(|_| Some(rng.u64(..pool as u64))).collect();
        pools
            .iter()
            .map(|p| arrow::compute::take(p, &picks, None).unwrap())
            .collect()
    };
    let mut columns = pick(rng, rows);
    let mut fields: Vec<ArrowField> = keys
        .iter()
        .map(|(name, scalar)| ArrowField::new(name, scalar.arrow(), true))
        .collect();
    for name in ["event_timestamp", "created_timestamp"] {
        let mut instants = TimestampMicrosecondBuilder::new().with_timezone(UTC);
        for _ in 0..rows {
            // Few instants, so that ties are common.
            instants.append_option((rng.u8(..30) != 0).then(|| rng.i64(0..200) * 3_600_000_000));
        }
        fields.push(ArrowField::new(name, ScalarType::Timestamp.arrow(), true));
        columns.push(Arc::new(instants.finish()));
    }
    let mut without_null_items = BTreeSet::new();
    for (name, data_type) in &features {
        fields.push(ArrowField::new(name, data_type.arrow(), true));
        columns.push(match data_type {
            DataType::List(scalar) if rng.bool() => {
                without_null_items.insert(name.clone());
                list_without_null_items(rng, *scalar, rows)
            }
            data_type => column(rng, *data_type, rows),
        });
    }
    let history = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let known = pick(rng, entities);
    let entities = known
        .iter()
        .zip(&keys)
        .map(|(known, (_, scalar))| {
            let unknown = column(rng, DataType::Scalar(*scalar), entities);
            let mask: arrow::array::BooleanArray =
                (0..entities).map(|_| Some(rng.bool())).collect();
            arrow::compute::kernels::zip::zip(&mask, known, &unknown).unwrap()
        })
        .collect();
    RandomTable {
        keys,
        features,
        without_null_items,
        history,
        entities,
    }
}

/// A column of random values, some of them null.
pub fn column(rng: &mut Rng, data_type: DataType, rows: usize) -> ArrayRef {
    match data_type {
        DataType::Scalar(scalar) => scalars(rng, scalar, rows, Some(12)),
        DataType::List(scalar) => lists(rng, scalar, rows, Some(6)),
    }
}

/// A column of random lists, some of them null, without a null in any.
pub fn list_without_null_items(rng: &mut Rng, scalar: ScalarType, rows: usize) -> ArrayRef {
    lists(rng, scalar, rows, None)
}

/// One item in `null_share` is null.
fn lists(rng: &mut Rng, scalar: ScalarType, rows: usize, null_share: Option<u8>) -> ArrayRef {
    let lengths: Vec<usize> = (0..rows).map(|_| rng.usize(..4)).collect();
    let items = scalars(rng, scalar, lengths.iter().sum(), null_share);
    let validity: Vec<bool> = (0..rows).map(|_| rng.u8(..12) != 0).collect();
    Arc::new(ListArray::new(
        Arc::new(ArrowField::new("item", scalar.arrow(), true)),
        OffsetBuffer::from_lengths(lengths),
        items,
        Some(NullBuffer::from(validity)),
    ))
}

/// One in `null_share` is null.
fn scalars(rng: &mut Rng, scalar: ScalarType, rows: usize, null_share: Option<u8>) -> ArrayRef {
    macro_rules! build {
        ($builder:expr, $value:expr) => {{
            let mut builder = $builder;
            for _ in 0..rows {
                if null_share.is_some_and(|share| rng.u8(..share) == 0) {
                    builder.append_null();
                } else {
                    builder.append_value($value(&mut *rng));
                }
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    match scalar {
        ScalarType::Bool => build!(BooleanBuilder::new(), |rng: &mut Rng| rng.bool()),
        ScalarType::Int32 => build!(Int32Builder::new(), |rng: &mut Rng| match rng.u8(..5) {
            0 => i32::MIN,
            1 => i32::MAX,
            2 => rng.i32(..),
            _ => rng.i32(-9..9),
        }),
        ScalarType::Int64 => build!(Int64Builder::new(), |rng: &mut Rng| match rng.u8(..5) {
            0 => i64::MIN,
            1 => i64::MAX,
            2 => rng.i64(..),
            // Beyond what a float64 holds exactly.
            3 => (1 << 53) + rng.i64(0..9),
            _ => rng.i64(-9..9),
        }),
        ScalarType::Float32 => build!(Float32Builder::new(), |rng: &mut Rng| match rng.u8(..8) {
            0 => f32::from_bits(0x7fc0_0000 | (rng.u32(..) & 0x803f_ffff)),
            1 => -0.0,
            2 => f32::from_bits(rng.u32(1..0x0080_0000)),
            3 => f32::INFINITY,
            4 => f32::MAX,
            5 => f32::from_bits(rng.u32(..)),
            _ => rng.f32() * 100.0,
        }),
        ScalarType::Float64 => build!(Float64Builder::new(), |rng: &mut Rng| match rng.u8(..8) {
            0 => f64::from_bits(0x7ff8_0000_0000_0000 | (rng.u64(..) & 0x8007_ffff_ffff_ffff)),
            1 => -0.0,
            2 => f64::from_bits(rng.u64(1..0x0010_0000_0000_0000)),
            3 => f64::NEG_INFINITY,
            4 => f64::MIN_POSITIVE,
            5 => f64::from_bits(rng.u64(..)),
            _ => rng.f64() * 100.0,
        }),
        ScalarType::String => build!(StringBuilder::new(), text),
        ScalarType::Bytes => build!(BinaryBuilder::new(), |rng: &mut Rng| {
            (0..rng.usize(..9)).map(|_| rng.u8(..)).collect::<Vec<u8>>()
        }),
        ScalarType::Timestamp => build!(
            TimestampMicrosecondBuilder::new().with_timezone(UTC),
            |rng: &mut Rng| match rng.u8(..5) {
                0 => time::MIN,
                1 => time::MAX,
                2 => -1,
                _ => rng.i64(time::MIN..=time::MAX),
            }
        ),
    }
}

fn text(rng: &mut Rng) -> String {
    const PARTS: [&str; 8] = ["", "a", "\0", "\"", "é", "日本", "𝒳🛫", "\u{10ffff}"];
    (0..rng.usize(..4)).map(|_| PARTS[rng.usize(..8)]).collect()
}
