//! Builders of columns of the contract's types, value by value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, ListArray, NullBufferBuilder,
    PrimitiveArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};

use crate::types::{DataType, ScalarType, UTC, list_item};

/// Builds one column.
pub(crate) enum Builder {
    Scalar(Scalars),
    List {
        items: Scalars,
        offsets: Vec<i32>,
        validity: Vec<bool>,
    },
}

impl Builder {
    /// With room for so many rows.
    pub(crate) fn new(data_type: DataType, rows: usize) -> Self {
        match data_type {
            DataType::Scalar(scalar) => Self::Scalar(Scalars::new(scalar, rows)),
            DataType::List(scalar) => Self::List {
                items: Scalars::new(scalar, rows),
                offsets: vec![0],
                validity: Vec::with_capacity(rows),
            },
        }
    }

    pub(crate) fn null(&mut self) {
        match self {
            Self::Scalar(builder) => builder.null(),
            Self::List {
                offsets, validity, ..
            } => {
                offsets.extend(offsets.last().copied());
                validity.push(false);
            }
        }
    }

    /// Begins a list of `length` items, which the caller appends; `None` if this is no column of
    /// lists, or it would hold 2^31 items.
    pub(crate) fn list(&mut self, length: usize) -> Option<&mut Scalars> {
        match self {
            Self::Scalar(_) => None,
            Self::List {
                items,
                offsets,
                validity,
            } => {
                offsets.push(offsets.last()?.checked_add(i32::try_from(length).ok()?)?);
                validity.push(true);
                Some(items)
            }
        }
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self {
            Self::Scalar(builder) => builder.finish().1,
            Self::List {
                items,
                offsets,
                validity,
            } => {
                let (scalar, items) = items.finish();
                Arc::new(ListArray::new(
                    Arc::new(list_item(scalar)),
                    OffsetBuffer::new(offsets.into()),
                    items,
                    validity
                        .contains(&false)
                        .then(|| NullBuffer::from(validity)),
                ))
            }
        }
    }
}

/// Builds a column of values of a fixed width. Arrow's own builders take ten times as long to make
/// and to finish, which counts where a request has a row or two.
pub(crate) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    /// With room for so many rows.
    pub(crate) fn new(rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows),
            nulls: NullBufferBuilder::new(rows),
        }
    }

    pub(crate) fn append_value(&mut self, value: T::Native) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    pub(crate) fn append_null(&mut self) {
        self.values.push(T::Native::default());
        self.nulls.append_null();
    }

    pub(crate) fn append_option(&mut self, value: Option<T::Native>) {
        match value {
            Some(value) => self.append_value(value),
            None => self.append_null(),
        }
    }

    pub(crate) fn finish(mut self) -> PrimitiveArray<T> {
        PrimitiveArray::new(self.values.into(), self.nulls.finish())
    }
}

impl Numbers<TimestampMicrosecondType> {
    /// In UTC.
    pub(crate) fn finish_instants(self) -> TimestampMicrosecondArray {
        self.finish().with_timezone(UTC)
    }
}

/// Builds a column without lists, or the items of one with lists.
pub(crate) enum Scalars {
    Bool(BooleanBuilder),
    Int32(Numbers<Int32Type>),
    Int64(Numbers<Int64Type>),
    Float32(Numbers<Float32Type>),
    Float64(Numbers<Float64Type>),
    String(StringBuilder),
    Bytes(BinaryBuilder),
    Timestamp(Numbers<TimestampMicrosecondType>),
}

impl Scalars {
    /// With room for so many rows; texts and bytes take what they need.
    pub(crate) fn new(scalar: ScalarType, rows: usize) -> Self {
        match scalar {
            ScalarType::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            ScalarType::Int32 => Self::Int32(Numbers::new(rows)),
            ScalarType::Int64 => Self::Int64(Numbers::new(rows)),
            ScalarType::Float32 => Self::Float32(Numbers::new(rows)),
            ScalarType::Float64 => Self::Float64(Numbers::new(rows)),
            ScalarType::String => Self::String(StringBuilder::with_capacity(rows, 0)),
            ScalarType::Bytes => Self::Bytes(BinaryBuilder::with_capacity(rows, 0)),
            ScalarType::Timestamp => Self::Timestamp(Numbers::new(rows)),
        }
    }

    pub(crate) fn null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::String(builder) => builder.append_null(),
            Self::Bytes(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
        }
    }

    /// Appends a text; `None` if this is no column of strings, or it would hold 2^31 bytes.
    pub(crate) fn text(&mut self, value: &str) -> Option<()> {
        match self {
            Self::String(builder) => {
                fits(builder.values_slice().len(), value.len())?;
                builder.append_value(value);
                Some(())
            }
            _ => None,
        }
    }

    /// Appends bytes; `None` if this is no column of bytes, or it would hold 2^31 of them.
    pub(crate) fn bytes(&mut self, value: &[u8]) -> Option<()> {
        match self {
            Self::Bytes(builder) => {
                fits(builder.values_slice().len(), value.len())?;
                builder.append_value(value);
                Some(())
            }
            _ => None,
        }
    }

    pub(crate) fn finish(self) -> (ScalarType, ArrayRef) {
        match self {
            Self::Bool(mut builder) => (ScalarType::Bool, Arc::new(builder.finish())),
            Self::Int32(values) => (ScalarType::Int32, Arc::new(values.finish())),
            Self::Int64(values) => (ScalarType::Int64, Arc::new(values.finish())),
            Self::Float32(values) => (ScalarType::Float32, Arc::new(values.finish())),
            Self::Float64(values) => (ScalarType::Float64, Arc::new(values.finish())),
            Self::String(mut builder) => (ScalarType::String, Arc::new(builder.finish())),
            Self::Bytes(mut builder) => (ScalarType::Bytes, Arc::new(builder.finish())),
            Self::Timestamp(values) => (ScalarType::Timestamp, Arc::new(values.finish_instants())),
        }
    }
}

/// `None` where Arrow's offsets, which have 32 bits, would overflow.
fn fits(held: usize, added: usize) -> Option<()> {
    i32::try_from(held.checked_add(added)?).ok().map(drop)
}
