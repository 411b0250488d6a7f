//! What can be wrong with a column.

use std::fmt;

/// What is wrong with a column, without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnError {
    /// The column is not of the type that `describe` says.
    WrongType,
    /// The column's buffers do not hold as many values as the batch has rows.
    WrongLength,
    /// Null where the type is not an `Option`.
    Null {
        /// The row.
        row: usize,
    },
    /// A null in a list whose items are not `Option`s.
    NullItem {
        /// The row.
        row: usize,
        /// The type of the item in Rust.
        rust_type: &'static str,
    },
    /// Text that is not UTF-8.
    NotUtf8,
    /// More than 4 GiB of text, bytes or list items in a column.
    TooLong,
}

impl ColumnError {
    fn row(&self) -> Option<u32> {
        match self {
            Self::Null { row } | Self::NullItem { row, .. } => u32::try_from(*row).ok(),
            _ => None,
        }
    }
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongType => f.write_str("is not of the type that was described"),
            Self::WrongLength => f.write_str("does not hold a value for each row"),
            Self::Null { .. } => {
                f.write_str("is null; a field that may be null is an `Option` in the row's struct")
            }
            Self::NullItem { rust_type, .. } => write!(
                f,
                "has a null item, but its type is `Vec<{rust_type}>`; \
                 a list with null items is a `Vec<Option<{rust_type}>>`"
            ),
            Self::NotUtf8 => f.write_str("is not UTF-8"),
            Self::TooLong => f.write_str("is longer than 4 GiB over all rows of the batch"),
        }
    }
}

/// A [`ColumnError`] with the column that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `input` or `output`.
    pub side: &'static str,
    /// The name of the column.
    pub name: &'static str,
    /// What is wrong.
    pub error: ColumnError,
}

impl FieldError {
    /// The row at fault, if one is.
    pub fn row(&self) -> Option<u32> {
        self.error.row()
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` {}", self.side, self.name, self.error)
    }
}
