//! Write a feature transformation once, in Rust.
//!
//! A transformation is a plain function over typed rows. Built with `unskew transform build`, it
//! is a WebAssembly component that Unskew runs when it builds a training set and when it answers
//! a request, so that the two cannot disagree.
//!
//! ```
//! use unskew_sdk::prelude::*;
//!
//! #[derive(Row)]
//! struct Activity {
//!     /// Null for a customer who has never bought anything.
//!     days_since_last_purchase: Option<i64>,
//!     purchases_last_7d: i64,
//! }
//!
//! #[derive(Row, Debug, PartialEq)]
//! struct Scores {
//!     recency_score: Option<f64>,
//!     activity_score: f64,
//! }
//!
//! /// How recent and how busy a customer is.
//! #[transform(on_demand)]
//! fn customer_scores(row: Activity) -> Scores {
//!     Scores {
//!         recency_score: row.days_since_last_purchase.map(|days| 1.0 / (1.0 + days as f64 / 30.0)),
//!         activity_score: row.purchases_last_7d as f64 * 0.4,
//!     }
//! }
//!
//! // It remains an ordinary function, for ordinary tests.
//! let scores = customer_scores(Activity { days_since_last_purchase: None, purchases_last_7d: 5 });
//! assert_eq!(scores, Scores { recency_score: None, activity_score: 2.0 });
//! ```
//!
//! The package needs no more than
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib", "rlib"]
//!
//! [dependencies]
//! unskew-sdk = { path = "../../.unskew/sdk/sdk/rust" }
//! ```
//!
//! # Types
//!
//! | Rust | Unskew |
//! | --- | --- |
//! | `bool` | bool |
//! | `i32`, `i64` | int32, int64 |
//! | `f32`, `f64` | float32, float64 |
//! | `String` | string |
//! | `Vec<u8>` | bytes |
//! | [`Timestamp`] | timestamp |
//! | `Vec<T>`, `T` one of those above | list of it; a row with a null item fails |
//! | `Vec<Option<T>>` | the same list, items may be null |
//! | `Option<T>`, `T` one of all those above | the same, may be null |
//!
//! # Failures
//!
//! A function that may fail returns a `Result`, whose error says why in its `Display`. A panic, an
//! arithmetic overflow too, is a failure of the row as well, with the panic's message.
//!
//! # What a transformation may not do
//!
//! A component imports nothing: there is no clock, no random number, no file, no network, and
//! `println!` prints nowhere. Time comes in as a [`Timestamp`]. A row's result depends on that row
//! alone; Unskew checks this, and that is also why the order of a `HashMap` must not reach a
//! result: use a `BTreeMap`.

#![cfg_attr(
    test,
    allow(
        clippy::expect_used,
        clippy::unwrap_used,
        reason = "a test fails by panicking"
    )
)]

// The macros write paths that begin with `::unskew_sdk`, in the tests of this crate too.
extern crate self as unskew_sdk;

#[cfg(target_arch = "wasm32")]
mod allocator;
mod bindings;
mod bitmap;
mod column;
mod error;
mod field;
mod panic_slot;
mod row;
mod scalar;
mod time_delta;
mod timestamp;
mod transformation;
mod variable;

pub use row::Row;
pub use time_delta::TimeDelta;
pub use timestamp::Timestamp;
pub use unskew_sdk_macros::{Row, transform};

/// What a transformation needs: `use unskew_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::{Row, TimeDelta, Timestamp, transform};
}

/// What the macros write calls of. Not for anybody else, and free to change.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::export;
    pub use crate::bindings::exports;
    pub use crate::bindings::exports::unskew::transform::transformation as contract;
    pub use crate::column::Value;
    pub use crate::error::{ColumnError, FieldError};
    pub use crate::field::{Columns, Field, FieldReader, FieldWriter, describe};
    pub use crate::row::Rows;
    pub use crate::transformation::{
        About, Transformation, describe_batch, describe_on_demand, run_batch, run_on_demand,
    };
}
