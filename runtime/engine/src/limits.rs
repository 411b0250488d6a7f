//! What an instance may use.

use std::fmt;

use wasmtime::ResourceLimiter;

use crate::config::limits::TABLE_ELEMENTS;

/// Counts the memory of an instance.
///
/// A `memory.grow` beyond the limit ends the call. It could return −1 instead, but then a component
/// could give another result for want of memory, and the size of a chunk would decide it.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Bytes that all memories together may have.
    limit: usize,
    /// Bytes that they have.
    used: usize,
}

/// The instance asked for more memory than it may have.
#[derive(Debug)]
pub(crate) struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl std::error::Error for OutOfMemory {}

impl Limits {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, used: 0 }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.limit || maximum.is_some_and(|maximum| desired > maximum) {
            return Err(wasmtime::Error::new(OutOfMemory));
        }
        self.used = used;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(OutOfMemory))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            return Err(wasmtime::Error::new(OutOfMemory));
        }
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(OutOfMemory))
    }
}
