//! Builders of columns of the contract's types, value by value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, ListArray, PrimitiveBuilder,
    StringBuilder,
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
    pub(crate) fn new(data_type: DataType) -> Self {
        match data_type {
            DataType::Scalar(scalar) => Self::Scalar(Scalars::new(scalar)),
            DataType::List(scalar) => Self::List {
                items: Scalars::new(scalar),
                offsets: vec![0],
                validity: Vec::new(),
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

/// Builds a column without lists, or the items of one with lists.
pub(crate) enum Scalars {
    Bool(BooleanBuilder),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    String(StringBuilder),
    Bytes(BinaryBuilder),
    Timestamp(PrimitiveBuilder<TimestampMicrosecondType>),
}

impl Scalars {
    pub(crate) fn new(scalar: ScalarType) -> Self {
        match scalar {
            ScalarType::Bool => Self::Bool(BooleanBuilder::new()),
            ScalarType::Int32 => Self::Int32(PrimitiveBuilder::new()),
            ScalarType::Int64 => Self::Int64(PrimitiveBuilder::new()),
            ScalarType::Float32 => Self::Float32(PrimitiveBuilder::new()),
            ScalarType::Float64 => Self::Float64(PrimitiveBuilder::new()),
            ScalarType::String => Self::String(StringBuilder::new()),
            ScalarType::Bytes => Self::Bytes(BinaryBuilder::new()),
            ScalarType::Timestamp => Self::Timestamp(PrimitiveBuilder::new().with_timezone(UTC)),
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
        fn primitive<T: ArrowPrimitiveType>(mut builder: PrimitiveBuilder<T>) -> ArrayRef {
            Arc::new(builder.finish())
        }
        match self {
            Self::Bool(mut builder) => (ScalarType::Bool, Arc::new(builder.finish())),
            Self::Int32(builder) => (ScalarType::Int32, primitive(builder)),
            Self::Int64(builder) => (ScalarType::Int64, primitive(builder)),
            Self::Float32(builder) => (ScalarType::Float32, primitive(builder)),
            Self::Float64(builder) => (ScalarType::Float64, primitive(builder)),
            Self::String(mut builder) => (ScalarType::String, Arc::new(builder.finish())),
            Self::Bytes(mut builder) => (ScalarType::Bytes, Arc::new(builder.finish())),
            Self::Timestamp(builder) => (ScalarType::Timestamp, primitive(builder)),
        }
    }
}

/// `None` where Arrow's offsets, which have 32 bits, would overflow.
fn fits(held: usize, added: usize) -> Option<()> {
    i32::try_from(held.checked_add(added)?).ok().map(drop)
}
