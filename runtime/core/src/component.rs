//! What a component says about itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::Field;

/// What a transformation turns into what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Exactly one output row for each joined row, computed on request.
    OnDemand,
    /// Any number of output rows for each source row, computed before the join.
    Batch,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnDemand => "on_demand",
            Self::Batch => "batch",
        })
    }
}

/// The answer of a component's `describe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The name of the component: its author's package.
    pub component: String,
    /// Its version.
    pub version: String,
    /// The function that it runs.
    pub function: String,
    /// What the function does, in its author's words; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub documentation: String,
    /// On-demand or batch.
    pub kind: Kind,
    /// The input columns, in order.
    pub inputs: Vec<Field>,
    /// The output columns, in order.
    pub outputs: Vec<Field>,
}

impl Description {
    /// `component version, function f`: how a failure names where it came from.
    pub fn provenance(&self) -> String {
        format!(
            "{} {}, function `{}`",
            self.component, self.version, self.function
        )
    }
}
