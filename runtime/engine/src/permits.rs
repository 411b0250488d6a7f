//! Turns at the pool of instances.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A counted number of turns; who finds none waits for one.
///
/// Each call takes one, so to take a free one and to give it back is one exchange of a number, and
/// neither a lock nor a system call: a condition variable that is notified each time cost 1 µs of a
/// call of 8, and its lock is taken by all cores.
#[derive(Debug)]
pub(crate) struct Permits {
    free: AtomicU32,
    /// How many wait, or are about to.
    waiting: AtomicU32,
    /// Held from the moment at which who waits has found none free until it sleeps, so that no turn
    /// ends unheard in between.
    lock: Mutex<()>,
    freed: Condvar,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            free: AtomicU32::new(count),
            waiting: AtomicU32::new(0),
            lock: Mutex::new(()),
            freed: Condvar::new(),
        }
    }

    /// Takes a turn, if there is one.
    pub(crate) fn try_acquire(&self) -> Option<Permit<'_>> {
        self.take().then_some(Permit(self))
    }

    /// Takes a turn, when there is one.
    pub(crate) fn acquire(&self) -> Permit<'_> {
        if !self.take() {
            self.wait();
        }
        Permit(self)
    }

    fn take(&self) -> bool {
        self.free
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |free| {
                free.checked_sub(1)
            })
            .is_ok()
    }

    #[cold]
    fn wait(&self) {
        let mut guard = self.lock();
        // Sequentially consistent, here and in `drop`: either this thread sees the turn that was
        // given back, or who gave it back sees that this thread waits.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while !self.take() {
            guard = self
                .freed
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// It guards nothing that a panic could leave half done.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            drop(self.0.lock());
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_turns_than_counted_and_everybody_gets_one() {
        const TURNS: u32 = 3;
        let permits = Permits::new(TURNS);
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 * TURNS {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let _permit = permits.acquire();
                        let now = taken.fetch_add(1, Ordering::SeqCst) + 1;
                        assert!(now <= TURNS, "{now} turns at once");
                        // Others run while this one has its turn, on a machine with one core too.
                        std::thread::yield_now();
                        taken.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(permits.free.load(Ordering::SeqCst), TURNS);
        assert_eq!(permits.waiting.load(Ordering::SeqCst), 0);
    }
}
