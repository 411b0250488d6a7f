//! The fields of a row.

use crate::bindings::exports::unskew::transform::transformation::{self as contract, Column};
use crate::column::Value;
use crate::error::{ColumnError, FieldError};

/// A type of a field of a row: a [`Value`], or an `Option` of one, which may be null.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type of a row's field",
    label = "not a type of a row's field",
    note = "the types: bool, i32, i64, f32, f64, String, Vec<u8> (bytes), Timestamp",
    note = "a list of values is a `Vec` of one of these, one with null items a `Vec<Option<_>>`",
    note = "a field that may be null is an `Option` of one of all these"
)]
pub trait Field: Sized {
    /// What the field is when it is not null.
    type Value: Value;
    /// Whether the field may be null.
    const NULLABLE: bool;

    /// The field in `row`, which is null only if the field may be.
    fn read(reader: &<Self::Value as Value>::Reader, row: usize) -> Self;
    /// Appends the field.
    fn write(self, writer: &mut <Self::Value as Value>::Writer);
}

#[diagnostic::do_not_recommend]
impl<V: Value> Field for V {
    type Value = V;
    const NULLABLE: bool = false;

    #[inline]
    fn read(reader: &V::Reader, row: usize) -> Self {
        V::read(reader, row)
    }

    #[inline]
    fn write(self, writer: &mut V::Writer) {
        V::write(self, writer);
    }
}

#[diagnostic::do_not_recommend]
impl<V: Value> Field for Option<V> {
    type Value = V;
    const NULLABLE: bool = true;

    #[inline]
    fn read(reader: &V::Reader, row: usize) -> Self {
        V::is_valid(reader, row).then(|| V::read(reader, row))
    }

    #[inline]
    fn write(self, writer: &mut V::Writer) {
        match self {
            Some(value) => V::write(value, writer),
            None => V::write_null(writer),
        }
    }
}

/// A field as `describe` says it.
pub fn describe<F: Field>(name: &str, description: &str) -> contract::Field {
    contract::Field {
        name: name.to_owned(),
        data_type: F::Value::data_type(),
        nullable: F::NULLABLE,
        description: description.to_owned(),
    }
}

/// The columns of a batch, taken one after the other.
pub struct Columns {
    rows: usize,
    columns: std::vec::IntoIter<Column>,
}

impl Columns {
    /// The columns of a batch of `rows` rows.
    pub fn new(columns: Vec<Column>, rows: usize) -> Self {
        Self {
            rows,
            columns: columns.into_iter(),
        }
    }

    /// Takes the next column as that of the field `name`.
    pub fn take<F: Field>(&mut self, name: &'static str) -> Result<FieldReader<F>, FieldError> {
        self.reader::<F>()
            .map(FieldReader)
            .map_err(|error| FieldError {
                side: "input",
                name,
                error,
            })
    }

    fn reader<F: Field>(&mut self) -> Result<<F::Value as Value>::Reader, ColumnError> {
        let column = self.columns.next().ok_or(ColumnError::WrongLength)?;
        let reader = F::Value::reader(column, self.rows)?;
        if !F::NULLABLE {
            let null = (0..self.rows).find(|&row| !F::Value::is_valid(&reader, row));
            null.map_or(Ok(()), |row| Err(ColumnError::Null { row }))?;
        }
        Ok(reader)
    }
}

/// An input column of a field.
pub struct FieldReader<F: Field>(<F::Value as Value>::Reader);

impl<F: Field> FieldReader<F> {
    /// The field in `row`.
    #[inline]
    pub fn read(&self, row: usize) -> F {
        F::read(&self.0, row)
    }
}

/// An output column of a field.
pub struct FieldWriter<F: Field> {
    name: &'static str,
    column: <F::Value as Value>::Writer,
}

impl<F: Field> FieldWriter<F> {
    /// A column with space for `rows` rows.
    pub fn new(name: &'static str, rows: usize) -> Self {
        Self {
            name,
            column: F::Value::writer(rows),
        }
    }

    /// Appends a row.
    #[inline]
    pub fn write(&mut self, field: F) {
        field.write(&mut self.column);
    }

    /// The column.
    pub fn finish(self) -> Result<Column, FieldError> {
        F::Value::finish(self.column).map_err(|error| FieldError {
            side: "output",
            name: self.name,
            error,
        })
    }
}
