//! What can go wrong with a registry.

use unskew_objects::StoreProblem;

/// Why the registry could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Its folder cannot be used.
    #[error("the registry `{place}` cannot be used: {source}")]
    Folder {
        /// The folder.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its URL leads nowhere.
    #[error("the registry `{place}` cannot be used: {problem}")]
    Place {
        /// The URL.
        place: String,
        /// Why.
        problem: Box<StoreProblem>,
    },
    /// What lies in its folder cannot be read or written.
    #[error("cannot {action} the registry's `{file}`: {source}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file or folder.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// What lies in its object store cannot be read or written.
    #[error("cannot {action} the registry's `{url}`: {problem}")]
    Object {
        /// `read`, `list` or `write`.
        action: &'static str,
        /// The object, or what keys begin with.
        url: String,
        /// Why.
        problem: Box<StoreProblem>,
    },
    /// Its object store cannot see to it that of two applies at once one is refused.
    #[error(
        "a registry cannot be written to `{place}`: {found}, so of two applies at once one could be \
         lost; it takes a store that refuses to create an object that is there (`If-None-Match: *` \
         of S3, as Amazon's own and newer servers have it), Google Cloud Storage, Azure, or a folder"
    )]
    NoConditionalPut {
        /// The registry's URL.
        place: String,
        /// What the store does, or says.
        found: String,
    },
    /// A file of it is not what it should be.
    #[error("the registry's file `{file}` is damaged: {message}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A state is too large, or of values that its form cannot hold.
    #[error("state {number} cannot be written to the registry: {source}")]
    State {
        /// Its number.
        number: u64,
        /// Why.
        source: serde_json::Error,
    },
    /// Somebody else has applied in the meantime.
    #[error("state {number} of the registry was applied by somebody else in the meantime")]
    Conflict {
        /// The number that was to be written.
        number: u64,
    },
}
