//! Generates the data of the example `customers`: what a small shop would know of its customers
//! from January to March 2025. Two runs write the same bytes.
//!
//! ```text
//! cargo run -p customers-data -- FOLDER
//! ```
//!
//! | file                        | rows                                                         |
//! | --------------------------- | ------------------------------------------------------------ |
//! | `customer_activity.parquet` | what a nightly job knows of each customer, at each midnight  |
//! | `orders/2025-0N.parquet`    | each order and, as a row of its own and later, its refund    |
//! | `carts.parquet`             | entity rows: carts, and whether they were bought (the label) |
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod history;
mod random;
mod tables;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::history::History;

/// Writes the data below `folder`: each file, and how many rows it has.
///
/// # Errors
/// A file cannot be written.
pub fn write(folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    tables::write(&History::generate(), folder)
}
