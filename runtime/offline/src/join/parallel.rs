//! Work on all cores, off the threads that drive tasks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::OfflineError;

/// Says to blocking work that nobody waits for it any more.
#[derive(Debug, Default)]
pub(crate) struct Cancelled(AtomicBool);

impl Cancelled {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs blocking work, and cancels it when the future is dropped.
///
/// # Errors
/// The runtime was shut down. A panic of the work goes on here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Cancelled) -> T + Send + 'static,
) -> Result<T, OfflineError> {
    struct Guard(Arc<Cancelled>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.set();
        }
    }
    let guard = Guard(Arc::default());
    let cancelled = Arc::clone(&guard.0);
    Ok(tokio::task::spawn_blocking(move || work(&cancelled)).await?)
}

/// Runs `work` on up to `threads` threads; each takes items until there are none, another has
/// failed, or the work is cancelled. What each gives, in no order.
///
/// # Errors
/// The first of the errors.
pub(crate) fn workers<I: Sync, T: Send, E: Send>(
    threads: usize,
    items: &[I],
    cancelled: &Cancelled,
    work: impl Fn(&mut dyn Iterator<Item = (usize, &I)>) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    let run = || {
        let mut items = std::iter::from_fn(|| {
            if cancelled.is_set() || failed.load(Ordering::Relaxed) {
                return None;
            }
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        });
        let result = work(&mut items);
        if result.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        results.push(result);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().collect()
}

/// Applies `work` to all items on up to `threads` threads, and gives the results in the order of
/// the items; fewer if the work is cancelled.
///
/// # Errors
/// The first of the errors.
pub(crate) fn map<I: Sync, T: Send, E: Send>(
    threads: usize,
    items: &[I],
    cancelled: &Cancelled,
    work: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let results = workers(threads, items, cancelled, |items| {
        items
            .map(|(index, item)| Ok((index, work(item)?)))
            .collect::<Result<Vec<_>, E>>()
    })?;
    let mut results: Vec<_> = results.into_iter().flatten().collect();
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_and_errors_end_the_work() {
        let items: Vec<usize> = (0..1_000).collect();
        let never = Cancelled::default();
        let doubled = map(4, &items, &never, |item| Ok::<_, ()>(item * 2)).unwrap();
        assert!(doubled.into_iter().eq((0..1_000).map(|item| item * 2)));
        let failed = map(4, &items, &never, |&item| {
            if item == 7 { Err(item) } else { Ok(()) }
        });
        assert_eq!(failed, Err(7));
        assert!(
            map(4, &[(); 0], &never, |()| Ok::<_, ()>(()))
                .unwrap()
                .is_empty()
        );
        never.set();
        assert!(
            map(4, &items, &never, |item| Ok::<_, ()>(*item))
                .unwrap()
                .is_empty()
        );
    }
}
