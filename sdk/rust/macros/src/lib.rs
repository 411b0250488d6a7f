//! The macros of `unskew-sdk`, which re-exports and documents them.

mod documentation;
mod function;
mod hint;
mod row;
mod transform;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct a row: each of its named fields is a column.
///
/// A field's name is the column's, an `Option` is a column that may be null, and a doc comment is
/// the description that `unskew transform inspect` shows.
///
/// ```
/// use unskew_sdk::prelude::*;
///
/// #[derive(Row)]
/// struct Order {
///     /// In dollars.
///     amount: f64,
///     coupon: Option<String>,
///     placed: Timestamp,
///     items: Vec<i64>,
/// }
/// ```
#[proc_macro_derive(Row)]
pub fn derive_row(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as DeriveInput);
    row::derive(&item).into()
}

/// Makes a function the transformation of its component.
///
/// `#[transform(on_demand)]` is for a function that gives exactly one row for each row:
/// `fn(In) -> Out` or `fn(In) -> Result<Out, E>`. It is computed on request.
///
/// `#[transform(batch)]` is for one that gives any number of rows for each row:
/// `fn(In) -> Vec<Out>`, `Option<Out>`, `impl IntoIterator<Item = Out>`, or a `Result` of one of
/// these. It is computed on the rows of a source.
///
/// `In` and `Out` have [`#[derive(Row)]`](derive@Row), `E` is [`Display`](std::fmt::Display): an
/// error is a failure of that row. The function's name, its doc comment, and the package's name and
/// version are what the component says about itself. A component has one transformation.
///
/// ```
/// use unskew_sdk::prelude::*;
///
/// #[derive(Row)]
/// struct Order {
///     amount: f64,
///     refunded: bool,
/// }
///
/// #[derive(Row)]
/// struct Features {
///     log_amount: f64,
/// }
///
/// /// Drops what was refunded.
/// #[transform(batch)]
/// fn order_features(order: Order) -> Result<Option<Features>, String> {
///     if order.amount < 0.0 {
///         return Err(format!("the amount is {}, less than 0", order.amount));
///     }
///     Ok((!order.refunded).then(|| Features { log_amount: order.amount.ln_1p() }))
/// }
///
/// assert!(order_features(Order { amount: -1.0, refunded: false }).is_err());
/// ```
#[proc_macro_attribute]
pub fn transform(arguments: TokenStream, item: TokenStream) -> TokenStream {
    transform::expand(arguments.into(), item.into()).into()
}
