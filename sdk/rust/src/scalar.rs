//! The types of one value.

use crate::Timestamp;
use crate::bindings::exports::unskew::transform::transformation::{ScalarType, Values};
use crate::bitmap::{Bitmap, BitmapBuilder, Validity};
use crate::column::{FlatReader, FlatWriter, Value};
use crate::error::ColumnError;
use crate::variable::{BytesReader, TextReader, VariableWriter};

/// A type of one value: how a buffer of such values is read and written.
pub trait Scalar: Value<Reader = FlatReader<Self>, Writer = FlatWriter<Self>> {
    /// The type in the contract.
    const TYPE: ScalarType;
    /// The type in Rust, for messages.
    const NAME: &'static str;
    /// Values that came in.
    type Values;
    /// Values that go out.
    type Buffer;

    /// Takes the buffers of `length` values.
    fn values(
        values: Values,
        length: usize,
        validity: &Validity,
    ) -> Result<Self::Values, ColumnError>;
    /// Value `index`, which is not null.
    fn get(values: &Self::Values, index: usize) -> Self;
    /// A buffer with space for `capacity` values.
    fn buffer(capacity: usize) -> Self::Buffer;
    /// Appends a value.
    fn push(value: Self, buffer: &mut Self::Buffer);
    /// Appends what stands in the place of a null.
    fn push_null(buffer: &mut Self::Buffer);
    /// The buffers.
    fn into_values(buffer: Self::Buffer) -> Result<Values, ColumnError>;
}

macro_rules! number {
    ($type:ident as $number:ident, $scalar:ident, $values:ident, $from:expr, $into:expr) => {
        impl Scalar for $type {
            const TYPE: ScalarType = ScalarType::$scalar;
            const NAME: &'static str = stringify!($type);
            type Values = Vec<$number>;
            type Buffer = Vec<$number>;

            fn values(
                values: Values,
                length: usize,
                _validity: &Validity,
            ) -> Result<Self::Values, ColumnError> {
                match values {
                    Values::$values(numbers) if numbers.len() == length => Ok(numbers),
                    Values::$values(_) => Err(ColumnError::WrongLength),
                    _ => Err(ColumnError::WrongType),
                }
            }

            #[inline]
            fn get(values: &Self::Values, index: usize) -> Self {
                $from(values[index])
            }

            fn buffer(capacity: usize) -> Self::Buffer {
                Vec::with_capacity(capacity)
            }

            #[inline]
            fn push(value: Self, buffer: &mut Self::Buffer) {
                buffer.push($into(value));
            }

            #[inline]
            fn push_null(buffer: &mut Self::Buffer) {
                buffer.push($number::default());
            }

            fn into_values(buffer: Self::Buffer) -> Result<Values, ColumnError> {
                Ok(Values::$values(buffer))
            }
        }
    };
    ($type:ident, $scalar:ident, $values:ident) => {
        number!(
            $type as $type,
            $scalar,
            $values,
            std::convert::identity,
            std::convert::identity
        );
    };
}

number!(i32, Int32, Int32s);
number!(i64, Int64, Int64s);
number!(f32, Float32, Float32s);
number!(f64, Float64, Float64s);
number!(
    Timestamp as i64,
    Timestamp,
    Timestamps,
    Timestamp::from_micros,
    Timestamp::as_micros
);

impl Scalar for bool {
    const TYPE: ScalarType = ScalarType::Bool;
    const NAME: &'static str = "bool";
    type Values = Bitmap;
    type Buffer = BitmapBuilder;

    fn values(
        values: Values,
        length: usize,
        _validity: &Validity,
    ) -> Result<Self::Values, ColumnError> {
        match values {
            Values::Bools(bytes) => Bitmap::new(bytes, length).ok_or(ColumnError::WrongLength),
            _ => Err(ColumnError::WrongType),
        }
    }

    #[inline]
    fn get(values: &Self::Values, index: usize) -> Self {
        values.get(index)
    }

    fn buffer(capacity: usize) -> Self::Buffer {
        BitmapBuilder::with_capacity(capacity)
    }

    #[inline]
    fn push(value: Self, buffer: &mut Self::Buffer) {
        buffer.push(value);
    }

    #[inline]
    fn push_null(buffer: &mut Self::Buffer) {
        buffer.push(false);
    }

    fn into_values(buffer: Self::Buffer) -> Result<Values, ColumnError> {
        Ok(Values::Bools(buffer.finish()))
    }
}

impl Scalar for String {
    const TYPE: ScalarType = ScalarType::String;
    const NAME: &'static str = "String";
    type Values = TextReader;
    type Buffer = VariableWriter;

    fn values(
        values: Values,
        length: usize,
        validity: &Validity,
    ) -> Result<Self::Values, ColumnError> {
        match values {
            Values::Strings(values) => TextReader::new(values, length, validity),
            _ => Err(ColumnError::WrongType),
        }
    }

    #[inline]
    fn get(values: &Self::Values, index: usize) -> Self {
        values.get(index).to_owned()
    }

    fn buffer(capacity: usize) -> Self::Buffer {
        VariableWriter::with_capacity(capacity)
    }

    #[inline]
    fn push(value: Self, buffer: &mut Self::Buffer) {
        buffer.push(value.as_bytes());
    }

    #[inline]
    fn push_null(buffer: &mut Self::Buffer) {
        buffer.push_empty();
    }

    fn into_values(buffer: Self::Buffer) -> Result<Values, ColumnError> {
        buffer.finish().map(Values::Strings)
    }
}

impl Scalar for Vec<u8> {
    const TYPE: ScalarType = ScalarType::Bytes;
    const NAME: &'static str = "Vec<u8>";
    type Values = BytesReader;
    type Buffer = VariableWriter;

    fn values(
        values: Values,
        length: usize,
        _validity: &Validity,
    ) -> Result<Self::Values, ColumnError> {
        match values {
            Values::Bytes(values) => BytesReader::new(values, length),
            _ => Err(ColumnError::WrongType),
        }
    }

    #[inline]
    fn get(values: &Self::Values, index: usize) -> Self {
        values.get(index).to_vec()
    }

    fn buffer(capacity: usize) -> Self::Buffer {
        VariableWriter::with_capacity(capacity)
    }

    #[inline]
    fn push(value: Self, buffer: &mut Self::Buffer) {
        buffer.push(&value);
    }

    #[inline]
    fn push_null(buffer: &mut Self::Buffer) {
        buffer.push_empty();
    }

    fn into_values(buffer: Self::Buffer) -> Result<Values, ColumnError> {
        buffer.finish().map(Values::Bytes)
    }
}
