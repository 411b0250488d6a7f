//! What can go wrong with a registry.

/// Why the registry could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Its folder cannot be used.
    #[error("the registry `{place}` cannot be used: {source}")]
    Folder {
        /// The folder.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// What lies in it cannot be read or written.
    #[error("cannot {action} the registry's `{file}`: {source}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file or folder.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file of it is not what it should be.
    #[error("the registry's file `{file}` is damaged: {message}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// Somebody else has applied in the meantime.
    #[error("state {number} of the registry was applied by somebody else in the meantime")]
    Conflict {
        /// The number that was to be written.
        number: u64,
    },
}
