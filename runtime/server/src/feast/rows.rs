//! The rows of a request of Feast, whatever form its values have.

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use unskew_core::plan::FeaturePlan;
use unskew_core::types::{Field, UTC};
use unskew_store::RequestRows;

use crate::error::Problem;
use crate::request::Length;

/// The columns that a request gives: join keys and request data.
pub(crate) trait Given {
    /// How many rows it gives where the plan takes none of its columns.
    fn rows(&self) -> Option<usize>;

    /// The column of this name as one of the field's type; `None` if there is none.
    ///
    /// # Errors
    /// It is no list, or a value is none of the type.
    fn column(&self, field: &Field) -> Result<Option<ArrayRef>, Problem>;
}

/// The rows for `plan` at `now`, at most `limit`. Columns that it does not take are passed over, as
/// Feast does.
///
/// # Errors
/// A column is missing or of another length than the others, a value is none of its type, or there
/// are too many rows.
pub(crate) fn rows(
    given: &impl Given,
    plan: &FeaturePlan,
    now: i64,
    limit: usize,
) -> Result<RequestRows, Problem> {
    let mut length = Length::new(limit);
    let mut columns = |fields: &[Field], what: &str| {
        let column = |field: &Field| {
            let column = given.column(field)?.ok_or_else(|| Problem::Missing {
                field: format!("entities.{}", field.name),
                what: format!("{what} of type {} that the features need", field.data_type),
            })?;
            length.take(format_args!("entities.{}", field.name), column.len())?;
            Ok(column)
        };
        fields
            .iter()
            .map(column)
            .collect::<Result<Vec<_>, Problem>>()
    };
    let keys = columns(&plan.join_keys, "a join key")?;
    let request = columns(&plan.request_fields, "a request field")?;
    if keys.is_empty()
        && request.is_empty()
        && let Some(rows) = given.rows()
    {
        length.take("entities", rows)?;
    }
    let as_of = TimestampMicrosecondArray::from_value(now, length.rows()).with_timezone(UTC);
    Ok(RequestRows {
        as_of,
        keys,
        request,
    })
}
