//! The offline side against real Parquet files, and against a slow and obvious oracle.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod conformance;
mod entity_rows;
mod files;
mod latest_rows;
mod oracle;
mod properties;
mod repository;
mod training_set;
