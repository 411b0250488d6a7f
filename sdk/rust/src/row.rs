//! Rows: what a transformation takes and gives.

use crate::bindings::exports::unskew::transform::transformation::{Column, Field};
use crate::error::FieldError;
use crate::field::Columns;

/// A row: a struct with named fields, each a column of a batch.
///
/// It is implemented by [`#[derive(Row)]`](derive@crate::Row) and in no other way.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a row",
    label = "not a row",
    note = "a row is a struct with named fields and `#[derive(Row)]`"
)]
pub trait Row: Sized {
    /// The columns of the fields, as they come in.
    #[doc(hidden)]
    type Readers;
    /// The columns of the fields, as they go out.
    #[doc(hidden)]
    type Writers;

    /// The fields as `describe` says them.
    #[doc(hidden)]
    fn fields() -> Vec<Field>;
    /// Takes the columns of the fields.
    #[doc(hidden)]
    fn readers(columns: Columns) -> Result<Self::Readers, FieldError>;
    /// Row `row`.
    #[doc(hidden)]
    fn read(readers: &Self::Readers, row: usize) -> Self;
    /// Columns with space for `rows` rows.
    #[doc(hidden)]
    fn writers(rows: usize) -> Self::Writers;
    /// Appends the row.
    #[doc(hidden)]
    fn write(self, writers: &mut Self::Writers);
    /// The columns.
    #[doc(hidden)]
    fn finish(writers: Self::Writers) -> Result<Vec<Column>, FieldError>;
}

/// What a batch transformation gives for a row: any number of rows.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not rows",
    label = "not rows",
    note = "a batch transformation gives any number of rows for each row: \
            `Vec<Out>`, `Option<Out>` or `impl IntoIterator<Item = Out>`, \
            or a `Result` of one of these, where `Out` has `#[derive(Row)]`",
    note = "a transformation that gives exactly one row for each row is `#[transform(on_demand)]`"
)]
pub trait Rows: IntoIterator<Item = Self::Row> {
    /// Each of the rows.
    type Row: Row;
}

#[diagnostic::do_not_recommend]
impl<I: IntoIterator<Item: Row>> Rows for I {
    type Row = I::Item;
}
