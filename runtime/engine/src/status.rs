//! What a value of a response or a training set is.

use std::fmt;

/// What became of one feature of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// A value.
    Present,
    /// The row counts, and holds a null; or a transformation gave null.
    NullValue,
    /// There is no row of that key, or a join key is null.
    NotFound,
    /// The row that counts is older than the view's ttl allows.
    OutsideMaxAge,
    /// The stored row is not available yet at that instant.
    InFuture,
    /// Nothing was materialized for the view as it is defined now.
    NotMaterialized,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Present,
        Self::NullValue,
        Self::NotFound,
        Self::OutsideMaxAge,
        Self::InFuture,
        Self::NotMaterialized,
    ];

    /// Its name in responses and summaries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Present => "PRESENT",
            Self::NullValue => "NULL_VALUE",
            Self::NotFound => "NOT_FOUND",
            Self::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            Self::InFuture => "IN_FUTURE",
            Self::NotMaterialized => "NOT_MATERIALIZED",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
