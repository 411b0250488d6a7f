//! What unskew-core promises, through its public interface.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod batch;
mod definitions;
mod digests;
mod json;
mod planner;
mod problems;
mod random;
mod repository;
mod resolve;
mod row;
mod schema;
mod values;
