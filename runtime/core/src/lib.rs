//! Definitions, types, validation, plans and digests. No I/O, no clock, no WebAssembly.
//!
//! ```text
//! YAML ─ definitions ─ resolve ─ project::Project ─ planner ─ plan::FeaturePlan
//!        shape, lines  references,  what the registry          what both sides follow
//!                      types        holds
//! ```
//!
//! What both sides mean by a value is here too, each rule once: [`types`] and [`values`] (coercion),
//! [`json`] (values as text), [`time`] (what counts at an instant), [`row`] (the bytes of a stored
//! row and of an entity key), [`sample`] (which keys stand for many), and in [`view`] and [`plan`] what their digests name.
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
pub mod sample;
pub mod text;
pub mod time;
pub mod types;
pub mod values;
pub mod view;

mod builder;
