//! The inputs of a component: constants, defaults, widening.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Scalar, UInt32Array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::take;
use unskew_core::json::Literal;
use unskew_core::types::{DataType, Field};
use unskew_core::values::{ValueError, coerce};

use crate::transform::extent;

/// An input with what does not come from rows.
#[derive(Clone, Debug)]
pub(crate) struct BoundInput {
    /// Its name.
    pub(crate) name: String,
    data_type: DataType,
    /// One row: the value for every row.
    constant: Option<ArrayRef>,
    /// One row: the value that stands for null.
    default: Option<ArrayRef>,
}

/// Why an input could not be made.
#[derive(Debug)]
pub(crate) enum InputError {
    /// A value does not fit.
    Value(Box<ValueError>),
    /// There are more values than a column holds.
    TooLarge(String),
}

impl BoundInput {
    /// The input `field` with its constant, if it is bound to one, and its default.
    ///
    /// # Errors
    /// Which of the two is no value of the input's type.
    pub(crate) fn new(
        field: &Field,
        constant: Option<&Literal>,
        default: Option<&Literal>,
    ) -> Result<Self, (&'static str, Box<ValueError>)> {
        let column = |what: &'static str, literal: Option<&Literal>| {
            literal
                .map(|literal| literal.column(field.data_type))
                .transpose()
                .map_err(|error| (what, Box::new(error)))
        };
        Ok(Self {
            name: field.name.clone(),
            data_type: field.data_type,
            constant: column("value", constant)?,
            // A default of null changes nothing.
            default: column("default", default)?.filter(|value| value.null_count() == 0),
        })
    }

    /// The column of `rows` rows, from the one to which the input is bound, or from its constant.
    ///
    /// # Errors
    /// The first row whose value does not fit the input's type.
    pub(crate) fn column(
        &self,
        bound: Option<&ArrayRef>,
        rows: usize,
    ) -> Result<ArrayRef, InputError> {
        let column = match (&self.constant, bound) {
            (Some(constant), _) => self.repeated(constant, rows)?,
            (None, Some(bound)) => {
                coerce(bound, self.data_type).map_err(|error| InputError::Value(Box::new(error)))?
            }
            (None, None) => arrow::array::new_null_array(&self.data_type.arrow(), rows),
        };
        match &self.default {
            Some(default) if column.null_count() > 0 => self.filled(&column, default),
            _ => Ok(column),
        }
    }

    fn repeated(&self, constant: &ArrayRef, rows: usize) -> Result<ArrayRef, InputError> {
        self.check(extent(constant).saturating_mul(rows))?;
        take(constant, &UInt32Array::from(vec![0; rows]), None)
            .map_err(|error| InputError::TooLarge(error.to_string()))
    }

    fn filled(&self, column: &ArrayRef, default: &ArrayRef) -> Result<ArrayRef, InputError> {
        self.check(extent(column) + extent(default).saturating_mul(column.null_count()))?;
        let Some(nulls) = column.nulls() else {
            return Ok(Arc::clone(column));
        };
        let valid = BooleanArray::new(nulls.inner().clone(), None);
        zip(&valid, column, &Scalar::new(Arc::clone(default)))
            .map_err(|error| InputError::TooLarge(error.to_string()))
    }

    /// Refuses what one array cannot hold.
    fn check(&self, total: usize) -> Result<(), InputError> {
        if i32::try_from(total).is_ok() {
            return Ok(());
        }
        Err(InputError::TooLarge(format!(
            "input `{}` has {total} bytes or items; at most {}",
            self.name,
            i32::MAX
        )))
    }
}
