//! What can go wrong between the runtime and the online store.

use unskew_core::row::DamagedRow;

/// An online store that could not do what it was asked for.
///
/// A store is named by its folder or its address, never by a URL: a URL may hold a password.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OnlineError {
    /// The store cannot be reached now; the same call may succeed later.
    #[error("the online store {store} is unavailable: {reason}")]
    Unavailable {
        /// The folder or the address.
        store: String,
        /// What happened.
        reason: String,
    },
    /// The store has no room for another row.
    #[error("the online store {store} is full: {reason}")]
    Full {
        /// The folder or the address.
        store: String,
        /// What is full.
        reason: String,
    },
    /// The store was reached and refused, or what lies there is no store.
    #[error("the online store {store} refused: {reason}")]
    Refused {
        /// The folder or the address.
        store: String,
        /// What it said.
        reason: String,
    },
    /// The settings name no store.
    #[error("the settings of the online store are not valid: {0}")]
    Settings(String),
    /// A stored row is no row of its view.
    #[error("view `{view}`, key {key}: {source}")]
    DamagedRow {
        /// The view.
        view: String,
        /// The entity key, for a person.
        key: String,
        /// What is wrong with the row.
        source: DamagedRow,
    },
    /// The record of what was materialized cannot be read.
    #[error(
        "view `{view}`: the online store {store} holds a state that cannot be read ({reason}); \
         a newer version may have written it"
    )]
    DamagedState {
        /// The view.
        view: String,
        /// The folder or the address.
        store: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A row, or a batch of rows, that is larger than can be held.
    #[error("view `{view}`: {what} of {bytes} bytes is too large; at most {limit} are possible")]
    TooLarge {
        /// The view.
        view: String,
        /// A row, or the rows of a request.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The greatest size.
        limit: usize,
    },
    /// The columns that were given do not fit the plan.
    #[error("the columns of a lookup do not fit its plan: {0}")]
    Columns(String),
}

impl OnlineError {
    /// Whether the same call may succeed later without anything else being changed.
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
