//! What the features of each entity are, so that any answer can be checked without a table.
//!
//! `bench/serving_table.py` writes the same values by the same operations, which IEEE 754 makes the
//! same bits in every language.

const PRIME: u64 = 1_000_003;

/// The value of a feature of an entity, as JSON numbers have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A float64.
    Float(f64),
    /// An int64.
    Integer(i64),
}

/// The value that a column of the table has for an entity; `None` if there is no such column.
pub fn value(column: &str, entity: u64) -> Option<Value> {
    let index = || column[1..].parse::<u64>().ok();
    match column.as_bytes().first()? {
        b'f' => float(index()?, entity).map(Value::Float),
        b'i' => integer(index()?, entity).map(Value::Integer),
        b't' => Some(Value::Float(
            ((entity * 17 + index()? * 104_729) % PRIME) as f64 / 7.0,
        )),
        _ => output(column, entity).map(Value::Float),
    }
}

/// Every other float has as many digits as a float64 can have, and the others have few.
fn float(index: u64, entity: u64) -> Option<f64> {
    let base = ((entity * 31 + index * 7_919) % PRIME) as f64;
    (index < 8).then(|| base / if index.is_multiple_of(2) { 7.0 } else { 8.0 })
}

fn integer(index: u64, entity: u64) -> Option<i64> {
    (index < 2).then_some(((entity * 13 + index * 101) % 100_000) as i64)
}

/// The request field that goes with an entity.
pub fn amount(entity: u64) -> f64 {
    (entity % 1_000) as f64 / 4.0
}

/// What the component makes of `f0`, `i0` and the request field.
fn output(name: &str, entity: u64) -> Option<f64> {
    let amount = amount(entity);
    match name {
        "ratio" => Some(amount / (float(0, entity)? + 1.0)),
        "score" => Some(integer(0, entity)? as f64 * 0.5 + amount * 0.25),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_table() {
        assert_eq!(value("f0", 7), Some(Value::Float(31.0)));
        assert_eq!(value("f1", 1), Some(Value::Float(7_950.0 / 8.0)));
        assert_eq!(value("i1", 2), Some(Value::Integer(127)));
        assert_eq!(value("t1", 1), Some(Value::Float(104_746.0 / 7.0)));
        assert_eq!(
            value("ratio", 4),
            Some(Value::Float(1.0 / (124.0 / 7.0 + 1.0)))
        );
        assert_eq!(value("score", 4), Some(Value::Float(26.25)));
        assert_eq!(value("f8", 1), None);
        assert_eq!(value("other", 1), None);
    }
}
