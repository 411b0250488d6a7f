//! The offline side against real Parquet files, and against a slow and obvious oracle.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod append;
mod compact;
mod conformance;
mod entity_rows;
mod files;
mod latest_rows;
mod many_views;
mod object_store;
mod oracle;
mod outputs;
mod properties;
mod pruning;
mod repository;
mod sources;
mod training_set;
