//! Rows made up from the types of a component's inputs, the same for the same types: edge cases
//! first, then a mixture of edge cases and random values.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::DataType as ArrowType;
use arrow::error::ArrowError;
use unskew_core::time;
use unskew_core::types::{DataType, Field, ScalarType, UTC};

/// How many random values of a type there are to choose from.
const RANDOM: usize = 64;

/// Columns of `rows` rows for `inputs`.
///
/// # Errors
/// Arrow's, if a column cannot be put together.
pub(crate) fn columns(inputs: &[Field], rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
    inputs
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let mut random = Random::new(index as u64);
            match field.data_type {
                DataType::Scalar(scalar) => {
                    let pool = Pool::new(scalar, &mut random);
                    pool.column(rows, index, field.nullable, &mut random)
                }
                DataType::List(scalar) => {
                    let pool = Pool::new(scalar, &mut random);
                    lists(&pool, field, index, rows, &mut random)
                }
            }
        })
        .collect()
}

/// SplitMix64 (Steele, Lea, Flood 2014): a few lines, so the rows never change with a library.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x756e_736b_6577_0001)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A number as data usually hold them: of a few digits, seldom of all bits.
    fn number(&mut self) -> i64 {
        match self.below(4) {
            0 => self.below(21) as i64 - 10,
            1 => self.below(2_001) as i64 - 1_000,
            2 => self.below(2_000_001) as i64 - 1_000_000,
            _ => self.next().cast_signed(),
        }
    }

    fn float(&mut self) -> f64 {
        match self.below(4) {
            0 => f64::from_bits(self.next()),
            1 => (self.next() >> 11) as f64 / (1_u64 << 53) as f64,
            _ => (self.below(2_000_001) as f64 - 1_000_000.0) / 1_000.0,
        }
    }

    fn text(&mut self) -> String {
        const LETTERS: [char; 16] = [
            'a', 'b', 'Z', '0', '9', ' ', '-', '.', ',', 'é', 'ß', '語', '\u{0}', '\n', '😀', '𝄞',
        ];
        let length = self.below(24);
        (0..length)
            .map(|_| LETTERS[self.below(LETTERS.len())])
            .collect()
    }
}

/// Values of one type.
struct Pool {
    /// The edge cases, then random values; none is null.
    values: ArrayRef,
    edges: usize,
}

impl Pool {
    fn new(scalar: ScalarType, random: &mut Random) -> Self {
        fn with<T>(edges: Vec<T>, random: impl FnMut() -> T) -> (Vec<T>, usize) {
            let count = edges.len();
            let rest = std::iter::repeat_with(random).take(RANDOM);
            (edges.into_iter().chain(rest).collect(), count)
        }
        let (values, edges): (ArrayRef, usize) = match scalar {
            ScalarType::Bool => {
                let (values, edges) = with(vec![false, true], || random.below(2) == 1);
                (Arc::new(BooleanArray::from(values)), edges)
            }
            ScalarType::Int32 => {
                let edges = vec![0, 1, -1, i32::MAX, i32::MIN, i32::MAX - 1, i32::MIN + 1];
                let (values, edges) = with(edges, || random.number() as i32);
                (Arc::new(Int32Array::from(values)), edges)
            }
            ScalarType::Int64 => {
                let edges = vec![
                    0,
                    1,
                    -1,
                    i64::MAX,
                    i64::MIN,
                    i64::from(i32::MAX) + 1,
                    (1 << 53) + 1,
                ];
                let (values, edges) = with(edges, || random.number());
                (Arc::new(Int64Array::from(values)), edges)
            }
            ScalarType::Float32 => {
                let edges = vec![
                    0.0,
                    -0.0,
                    f32::NAN,
                    f32::INFINITY,
                    f32::NEG_INFINITY,
                    1.0,
                    -1.0,
                    f32::MAX,
                    f32::MIN,
                    f32::MIN_POSITIVE,
                    f32::from_bits(1),
                    -f32::from_bits(1),
                    f32::EPSILON,
                ];
                let (values, edges) = with(edges, || random.float() as f32);
                (Arc::new(Float32Array::from(values)), edges)
            }
            ScalarType::Float64 => {
                let edges = vec![
                    0.0,
                    -0.0,
                    f64::NAN,
                    f64::INFINITY,
                    f64::NEG_INFINITY,
                    1.0,
                    -1.0,
                    f64::MAX,
                    f64::MIN,
                    f64::MIN_POSITIVE,
                    f64::from_bits(1),
                    -f64::from_bits(1),
                    f64::EPSILON,
                ];
                let (values, edges) = with(edges, || random.float());
                (Arc::new(Float64Array::from(values)), edges)
            }
            ScalarType::String => {
                let edges = [
                    "",
                    " ",
                    "a",
                    "A",
                    "0",
                    "null",
                    "\u{0}",
                    "e\u{301}",
                    "😀",
                    "𝄞𝄞",
                    "\u{10ffff}",
                    "2001-03-01T12:00:00Z",
                ];
                let edges = edges
                    .map(str::to_owned)
                    .into_iter()
                    .chain(["x".repeat(5_000), "語".repeat(500)])
                    .collect();
                let (values, edges) = with(edges, || random.text());
                (Arc::new(StringArray::from(values)), edges)
            }
            ScalarType::Bytes => {
                let edges = vec![
                    vec![],
                    vec![0],
                    vec![0xff],
                    b"a".to_vec(),
                    vec![0xc3, 0x28],
                    (0..=255).collect(),
                    vec![7; 5_000],
                ];
                let (values, edges) = with(edges, || {
                    let length = random.below(24);
                    (0..length).map(|_| random.next() as u8).collect()
                });
                let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
                (Arc::new(BinaryArray::from(values)), edges)
            }
            ScalarType::Timestamp => {
                let edges = vec![0, -1, 1, time::MIN, time::MAX, 983_448_000_000_000];
                // Of 1990 to 2030.
                let (first, years) = (7_305 * time::DAY, 14_610 * time::DAY);
                let (values, edges) = with(edges, || first + random.below(years as usize) as i64);
                let array = TimestampMicrosecondArray::from(values).with_timezone(UTC);
                (Arc::new(array), edges)
            }
        };
        Self { values, edges }
    }

    /// The index of the value for `row`, `None` for null: first null and each edge case in turn,
    /// the same in each column; then each edge case beside others; then at random.
    fn pick(
        &self,
        row: usize,
        column: usize,
        nullable: bool,
        random: &mut Random,
    ) -> Option<usize> {
        let cases = self.edges + usize::from(nullable);
        let case = if row < cases {
            row
        } else if row < 3 * cases {
            (row * (column + 2) + column) % cases
        } else if random.below(4) == 0 {
            random.below(cases)
        } else {
            return Some(self.edges + random.below(self.values.len() - self.edges));
        };
        match nullable {
            true => case.checked_sub(1),
            false => Some(case),
        }
    }

    fn column(
        &self,
        rows: usize,
        column: usize,
        nullable: bool,
        random: &mut Random,
    ) -> Result<ArrayRef, ArrowError> {
        let picks: UInt32Array = (0..rows)
            .map(|row| {
                self.pick(row, column, nullable, random)
                    .map(|index| index as u32)
            })
            .collect();
        take(&self.values, &picks, None)
    }
}

fn lists(
    pool: &Pool,
    field: &Field,
    column: usize,
    rows: usize,
    random: &mut Random,
) -> Result<ArrayRef, ArrowError> {
    let mut lengths = Vec::with_capacity(rows);
    let mut valid = Vec::with_capacity(rows);
    let mut picks: Vec<Option<u32>> = Vec::new();
    for row in 0..rows {
        let before = picks.len();
        let is_null = match row {
            0 => field.nullable,
            1..=4 => false,
            _ => field.nullable && random.below(8) == 0,
        };
        match row {
            _ if is_null => {}
            // Empty, one null, every edge case, long.
            0 | 1 => {}
            2 => picks.push(None),
            3 => picks.extend((0..pool.edges as u32).map(Some)),
            4 => picks.extend((0..1_000).map(|item| {
                pool.pick(item, column, true, random)
                    .map(|index| index as u32)
            })),
            _ => {
                let length = random.below(9);
                picks.extend((0..length).map(|item| {
                    pool.pick(row + 17 * item, column, true, random)
                        .map(|index| index as u32)
                }));
            }
        }
        lengths.push(picks.len() - before);
        valid.push(!is_null);
    }
    let items = take(&pool.values, &UInt32Array::from(picks), None)?;
    let ArrowType::List(item) = field.data_type.arrow() else {
        return Err(ArrowError::SchemaError("no list".to_owned()));
    };
    let nulls = Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
    let array = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), items, nulls)?;
    Ok(Arc::new(array))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_types() -> Vec<Field> {
        let scalars = ScalarType::ALL.map(DataType::Scalar);
        let lists = ScalarType::ALL.map(DataType::List);
        scalars
            .into_iter()
            .chain(lists)
            .flat_map(|data_type| {
                [true, false].map(|nullable| Field {
                    nullable,
                    ..Field::new("x", data_type)
                })
            })
            .collect()
    }

    #[test]
    fn the_same_types_give_the_same_rows() {
        let fields = all_types();
        assert_eq!(
            columns(&fields, 256).unwrap(),
            columns(&fields, 256).unwrap()
        );
    }

    #[test]
    fn rows_are_of_their_types_and_hold_nulls_only_where_they_may() {
        for (field, column) in all_types().iter().zip(columns(&all_types(), 256).unwrap()) {
            assert_eq!(column.len(), 256);
            assert_eq!(column.data_type(), &field.data_type.arrow());
            assert_eq!(column.null_count() > 0, field.nullable, "{field:?}");
        }
    }

    #[test]
    fn edge_cases_come_first() {
        let field = Field::new("x", DataType::Scalar(ScalarType::Float64));
        let columns = columns(&[field], 14).unwrap();
        let text: Vec<_> = (0..14)
            .map(|row| unskew_core::json::display(&columns[0], row))
            .collect();
        assert_eq!(
            text[..6],
            [
                "null",
                "0.0",
                "-0.0",
                "\"NaN\"",
                "\"Infinity\"",
                "\"-Infinity\""
            ]
        );
    }
}
