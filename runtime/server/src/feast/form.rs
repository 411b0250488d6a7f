//! The values of Feast's types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray};
use arrow::datatypes::{
    DataType as ArrowType, Field, Float32Type, Float64Type, Int64Type, TimestampMicrosecondType,
};

/// Microseconds in a second.
const SECOND: i64 = 1_000_000;

/// A column with instants in whole seconds since 1970, rounded down: Feast's instants have no
/// fraction. Other columns stay as they are.
pub(crate) fn seconds(column: &ArrayRef) -> ArrayRef {
    replaced(column, &|column| match column.data_type() {
        ArrowType::Timestamp(..) => {
            let instants = column.as_primitive::<TimestampMicrosecondType>();
            let seconds: Int64Array =
                instants.unary::<_, Int64Type>(|micros| micros.div_euclid(SECOND));
            Some(Arc::new(seconds))
        }
        _ => None,
    })
}

/// A column as its JSON form has it: instants in seconds, and floats of 32 bits as the numbers of 64
/// bits that they are, since a client of Feast reads every number as one of those.
pub(super) fn of_json(column: &ArrayRef) -> ArrayRef {
    replaced(&seconds(column), &|column| match column.data_type() {
        ArrowType::Float32 => {
            let floats = column.as_primitive::<Float32Type>();
            let widened: Float64Array = floats.unary::<_, Float64Type>(f64::from);
            Some(Arc::new(widened))
        }
        _ => None,
    })
}

/// The column, or the items of its lists, as `replace` has it.
fn replaced(column: &ArrayRef, replace: &dyn Fn(&ArrayRef) -> Option<ArrayRef>) -> ArrayRef {
    let Some(lists) = column.as_list_opt::<i32>() else {
        return replace(column).unwrap_or_else(|| Arc::clone(column));
    };
    let Some(items) = replace(lists.values()) else {
        return Arc::clone(column);
    };
    Arc::new(ListArray::new(
        Arc::new(Field::new("item", items.data_type().clone(), true)),
        lists.offsets().clone(),
        items,
        lists.nulls().cloned(),
    ))
}
