//! Why features cannot be had together.

use crate::types::DataType;

/// Why the features cannot be had together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No such feature service.
    #[error("no feature service `{name}`; there are: {valid}")]
    UnknownService {
        /// What was asked for.
        name: String,
        /// What there is.
        valid: String,
    },
    /// A reference to nothing.
    #[error("no view, alias or on-demand transformation `{name}`; there are: {valid}")]
    UnknownView {
        /// What was asked for.
        name: String,
        /// What there is.
        valid: String,
    },
    /// A reference to a feature that the view does not have.
    #[error("`{view}` has no `{feature}`; it has: {valid}")]
    UnknownFeature {
        /// The view, alias or transformation.
        view: String,
        /// What was asked for.
        feature: String,
        /// What there is.
        valid: String,
    },
    /// Two outputs of one name.
    #[error(
        "two outputs are called `{name}` ({first} and {second}); with `full_feature_names: true` \
         they are called VIEW__FEATURE"
    )]
    DuplicateOutput {
        /// The name.
        name: String,
        /// Where the first comes from.
        first: String,
        /// Where the second comes from.
        second: String,
    },
    /// Two outputs of one name, although each bears that of its view.
    #[error("two outputs are called `{name}` ({first} and {second}); rename one of the views")]
    DuplicateFullName {
        /// The name.
        name: String,
        /// Where the first comes from.
        first: String,
        /// Where the second comes from.
        second: String,
    },
    /// One feature, named twice.
    #[error("`{0}` is named twice; once is enough")]
    Repeated(String),
    /// An output that is called like an input.
    #[error(
        "output `{name}` ({from}) is called like {other}; rename one of them, or set \
         `full_feature_names: true`"
    )]
    OutputIsInput {
        /// The name.
        name: String,
        /// Where the output comes from.
        from: String,
        /// What else is called so.
        other: &'static str,
    },
    /// A name that stands for a join key and a request field, or has two types.
    #[error("`{name}` is {first} and {second}; one name stands for one thing within a service")]
    Ambiguous {
        /// The name.
        name: String,
        /// One meaning.
        first: String,
        /// Another.
        second: String,
    },
    /// A join key whose type, in these features, is not that of an input that is bound to it.
    #[error(
        "input `{input}` of `{transformation}` is {wanted}, and join key `{key}`, to which it is \
         bound, is {found} here"
    )]
    KeyType {
        /// The transformation.
        transformation: String,
        /// Its input.
        input: String,
        /// The input's type.
        wanted: DataType,
        /// The join key.
        key: String,
        /// The join key's type.
        found: DataType,
    },
    /// A transformation that needs itself.
    #[error("a cycle of transformations: {0}")]
    Cycle(String),
    /// Nothing was asked for.
    #[error("no features are named; write VIEW:FEATURE, or VIEW for all of a view's")]
    Empty,
}
