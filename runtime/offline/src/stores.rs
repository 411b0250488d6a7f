//! Object stores, with the errors of this crate.

use object_store::Error;
pub(crate) use unskew_objects::{Place, StoreOptions};

use crate::error::OfflineError;

/// Where a source's `path` leads; `options` come before what the environment says.
///
/// # Errors
/// It is a URL of no object store; or what is needed to reach the store is missing or wrong. The
/// store itself is not asked.
pub(crate) fn place(path: &str, options: &StoreOptions) -> Result<Place, OfflineError> {
    unskew_objects::place(path, options).map_err(|problem| OfflineError::store(path, problem))
}

/// What an error that came up at `url` means.
pub(crate) fn failed(url: &str, error: &Error) -> OfflineError {
    OfflineError::store(url, unskew_objects::problem(url, error))
}
