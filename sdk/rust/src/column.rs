//! Columns: flat ones and lists, as they come in and go out.

use crate::bindings::exports::unskew::transform::transformation::{Column, DataType, Flat, Lists};
use crate::bitmap::{Validity, ValidityBuilder};
use crate::error::ColumnError;
use crate::field::Field;
use crate::scalar::Scalar;
use crate::variable::{Offsets, OffsetsBuilder};

/// What a column holds in a row, if it is not null: one value, or a list of values.
pub trait Value: Sized {
    /// A column that came in.
    type Reader;
    /// A column that goes out.
    type Writer;

    /// The type in the contract.
    fn data_type() -> DataType;
    /// Takes a column of `rows` rows.
    fn reader(column: Column, rows: usize) -> Result<Self::Reader, ColumnError>;
    /// Whether `row` is not null.
    fn is_valid(reader: &Self::Reader, row: usize) -> bool;
    /// What the column holds in `row`, which is not null.
    fn read(reader: &Self::Reader, row: usize) -> Self;
    /// A column with space for `rows` rows.
    fn writer(rows: usize) -> Self::Writer;
    /// Appends a row.
    fn write(value: Self, writer: &mut Self::Writer);
    /// Appends a null.
    fn write_null(writer: &mut Self::Writer);
    /// The column.
    fn finish(writer: Self::Writer) -> Result<Column, ColumnError>;
}

/// A column without lists that came in.
pub struct FlatReader<S: Scalar> {
    validity: Validity,
    values: S::Values,
}

impl<S: Scalar> FlatReader<S> {
    fn new(flat: Flat) -> Result<Self, ColumnError> {
        let length = flat.length as usize;
        let validity = Validity::new(flat.validity, length).ok_or(ColumnError::WrongLength)?;
        let values = S::values(flat.values, length, &validity)?;
        Ok(Self { validity, values })
    }
}

/// A column without lists that goes out.
pub struct FlatWriter<S: Scalar> {
    validity: ValidityBuilder,
    values: S::Buffer,
}

impl<S: Scalar> FlatWriter<S> {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            validity: ValidityBuilder::with_capacity(capacity),
            values: S::buffer(capacity),
        }
    }

    fn finish(self) -> Result<Flat, ColumnError> {
        Ok(Flat {
            length: length(&self.validity)?,
            validity: self.validity.finish(),
            values: S::into_values(self.values)?,
        })
    }
}

fn length(validity: &ValidityBuilder) -> Result<u32, ColumnError> {
    u32::try_from(validity.len()).map_err(|_| ColumnError::TooLong)
}

macro_rules! flat_value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            type Reader = FlatReader<Self>;
            type Writer = FlatWriter<Self>;

            fn data_type() -> DataType {
                DataType::Scalar(<Self as Scalar>::TYPE)
            }

            fn reader(column: Column, rows: usize) -> Result<Self::Reader, ColumnError> {
                match column {
                    Column::Flat(flat) if flat.length as usize == rows => FlatReader::new(flat),
                    Column::Flat(_) => Err(ColumnError::WrongLength),
                    Column::Lists(_) => Err(ColumnError::WrongType),
                }
            }

            #[inline]
            fn is_valid(reader: &Self::Reader, row: usize) -> bool {
                reader.validity.is_valid(row)
            }

            #[inline]
            fn read(reader: &Self::Reader, row: usize) -> Self {
                <Self as Scalar>::get(&reader.values, row)
            }

            fn writer(rows: usize) -> Self::Writer {
                FlatWriter::with_capacity(rows)
            }

            #[inline]
            fn write(value: Self, writer: &mut Self::Writer) {
                writer.validity.push(true);
                <Self as Scalar>::push(value, &mut writer.values);
            }

            #[inline]
            fn write_null(writer: &mut Self::Writer) {
                writer.validity.push(false);
                <Self as Scalar>::push_null(&mut writer.values);
            }

            fn finish(writer: Self::Writer) -> Result<Column, ColumnError> {
                writer.finish().map(Column::Flat)
            }
        }
    )*};
}

flat_value!(bool, i32, i64, f32, f64, String, Vec<u8>, crate::Timestamp);

/// A column of lists that came in.
pub struct ListReader<S: Scalar> {
    validity: Validity,
    offsets: Offsets,
    items: FlatReader<S>,
}

impl<S: Scalar> ListReader<S> {
    /// The first row with a null item.
    fn null_item(&self, rows: usize) -> Option<usize> {
        if matches!(self.items.validity, Validity::All) {
            return None;
        }
        (0..rows).find(|&row| {
            self.validity.is_valid(row)
                && self
                    .offsets
                    .range(row)
                    .any(|item| !self.items.validity.is_valid(item))
        })
    }
}

/// A column of lists that goes out.
pub struct ListWriter<S: Scalar> {
    validity: ValidityBuilder,
    offsets: OffsetsBuilder,
    items: FlatWriter<S>,
}

impl<F: Field<Value: Scalar>> Value for Vec<F> {
    type Reader = ListReader<F::Value>;
    type Writer = ListWriter<F::Value>;

    fn data_type() -> DataType {
        DataType::ListOf(<F::Value as Scalar>::TYPE)
    }

    fn reader(column: Column, rows: usize) -> Result<Self::Reader, ColumnError> {
        let lists = match column {
            Column::Lists(lists) if lists.length as usize == rows => lists,
            Column::Lists(_) => return Err(ColumnError::WrongLength),
            Column::Flat(_) => return Err(ColumnError::WrongType),
        };
        let reader = ListReader {
            validity: Validity::new(lists.validity, rows).ok_or(ColumnError::WrongLength)?,
            offsets: Offsets::new(lists.offsets, rows, lists.items.length as usize)?,
            items: FlatReader::new(lists.items)?,
        };
        match reader.null_item(rows) {
            Some(row) if !F::NULLABLE => Err(ColumnError::NullItem {
                row,
                rust_type: <F::Value as Scalar>::NAME,
            }),
            _ => Ok(reader),
        }
    }

    #[inline]
    fn is_valid(reader: &Self::Reader, row: usize) -> bool {
        reader.validity.is_valid(row)
    }

    #[inline]
    fn read(reader: &Self::Reader, row: usize) -> Self {
        let items = reader.offsets.range(row);
        items.map(|item| F::read(&reader.items, item)).collect()
    }

    fn writer(rows: usize) -> Self::Writer {
        ListWriter {
            validity: ValidityBuilder::with_capacity(rows),
            offsets: OffsetsBuilder::with_capacity(rows),
            items: FlatWriter::with_capacity(0),
        }
    }

    #[inline]
    fn write(value: Self, writer: &mut Self::Writer) {
        writer.validity.push(true);
        for item in value {
            item.write(&mut writer.items);
        }
        writer.offsets.push(writer.items.validity.len());
    }

    #[inline]
    fn write_null(writer: &mut Self::Writer) {
        writer.validity.push(false);
        writer.offsets.push_empty();
    }

    fn finish(writer: Self::Writer) -> Result<Column, ColumnError> {
        Ok(Column::Lists(Lists {
            length: length(&writer.validity)?,
            validity: writer.validity.finish(),
            offsets: writer.offsets.finish()?,
            items: writer.items.finish()?,
        }))
    }
}
