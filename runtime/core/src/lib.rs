//! Definitions, types, validation, plans and digests. No I/O, no clock, no WebAssembly.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

pub mod component;
pub mod definitions;
pub mod digest;
pub mod json;
pub mod plan;
pub mod planner;
pub mod project;
pub mod resolve;
pub mod row;
pub mod text;
pub mod time;
pub mod types;
pub mod values;
pub mod view;

mod builder;
