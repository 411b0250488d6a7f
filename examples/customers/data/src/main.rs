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
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to its user"
)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod history;
mod random;
mod tables;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use crate::history::History;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("usage: customers-data FOLDER\n\nwrites the data of the example `customers`");
        return ExitCode::from(2);
    };
    match write(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<()> {
    for (file, rows) in tables::write(&History::generate(), folder)? {
        println!("{rows:>7} rows in {}", file.display());
    }
    Ok(())
}
