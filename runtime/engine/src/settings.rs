//! What an engine can be told.

use std::path::PathBuf;
use std::time::Duration;

/// The knobs of an [`Engine`](crate::Engine); the same on both sides of a feature store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A folder for compiled code; `None`: every load compiles.
    ///
    /// The folder is made with mode 0700, or brought to it: whoever can write to it can run native
    /// code in this process. Default: none.
    pub cache: Option<PathBuf>,
    /// The most memory that one call of a component may use, in bytes. Part of what makes two sides
    /// agree: whether a row fits into it decides whether it fails. Default: 64 MiB.
    pub memory_limit: usize,
    /// How long one call of a component may take, of one row or of many. A call of many rows that
    /// takes longer is split, so a row fails only if it takes longer alone. A call ends at the latest
    /// a tenth of it later, or 2 ms later where that is more, if the machine is not busy. At least
    /// 1 ms. Default: 10 s.
    pub timeout: Duration,
    /// How many calls run at once; more wait for one to end. Each reserves address space, not
    /// memory. Default: 32.
    pub instances: u32,
    /// How many rows a call has at most; it decides speed, never a result. Default: 8,192.
    pub chunk_rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache: None,
            memory_limit: 64 << 20,
            timeout: Duration::from_secs(10),
            instances: 32,
            chunk_rows: 8_192,
        }
    }
}
