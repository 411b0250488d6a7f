//! Turns at the pool of instances.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A counted number of turns; who finds none waits for one.
#[derive(Debug)]
pub(crate) struct Permits {
    free: Mutex<u32>,
    freed: Condvar,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        }
    }

    /// Takes a turn, when there is one.
    pub(crate) fn acquire(&self) -> Permit<'_> {
        let mut free = self
            .freed
            .wait_while(self.lock(), |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }

    /// A number that a thread held while it panicked is still a right number.
    fn lock(&self) -> MutexGuard<'_, u32> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.freed.notify_one();
    }
}
