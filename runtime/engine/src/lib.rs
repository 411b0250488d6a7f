//! Loads and verifies components, runs them, and evaluates feature plans.
//!
//! Five types carry this crate:
//!
//! - [`Engine`]: wasmtime, configured once for both sides, with a pool of instances;
//! - [`Component`]: a loaded component; [`Component::call`] runs it in a fresh instance;
//! - [`Evaluator`]: a feature plan with its components; [`Evaluator::evaluate`] is the one function
//!   behind training sets and responses;
//! - [`ViewRunner`]: turns rows of a source into rows of a feature view, batch transformation
//!   included; offline's one function;
//! - [`Failure`]: what a component's failure looks like to a user, with its provenance.
//!
//! ```text
//!  .wasm bytes ── Engine::load ── Component ──┬─ verify             (apply)
//!                                             │
//!  joined batch ── Evaluator::evaluate ───────┤  mask by time → inputs → transform_on_demand
//!                                             │                       → statuses, outputs
//!  source rows ─── ViewRunner::run ───────────┘  inputs → transform_batch → keys, times, features
//!
//!  transform_*: null rule, chunks, failure rule ── Component::call: lower → run → lift and check
//! ```

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")
)]

mod bindings;
mod cache;
mod canonical;
mod component;
mod config;
mod description;
mod engine;
mod error;
mod evaluate;
mod inputs;
mod lanes;
mod lift;
mod limits;
mod lower;
mod mask;
mod observer;
mod permits;
mod samples;
mod settings;
mod status;
mod transform;
mod trap;
mod verify;
mod view_rows;

#[cfg(test)]
mod testing;

pub use component::{Component, Returned};
pub use engine::{Engine, Inspection};
pub use error::{
    CallError, CallErrorKind, Dependence, EngineError, EvaluateError, EvaluatorError, Failure,
    LoadError, VerifyError, ViewRowsError, ViewRunnerError,
};
pub use evaluate::{Evaluated, Evaluator};
pub use observer::Observer;
pub use settings::Settings;
pub use status::Status;
pub use transform::{BatchRows, transform_batch, transform_on_demand};
pub use verify::{Verified, verify};
pub use view_rows::{ViewRows, ViewRunner};
