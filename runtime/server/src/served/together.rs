//! Requests that are evaluated together.
//!
//! A call of a component costs something whatever its rows: a few microseconds in Rust, a
//! millisecond in Python. Where it is that much, requests that come while calls are running wait for
//! the next one, and share it. Nothing waits to be joined by others: a request that comes while
//! nothing runs is evaluated at once.
//!
//! ```text
//! request ─┐                        ┌─ thread 1: takes all that wait, evaluates them by one call
//! request ─┼─▶ waiting (one queue ──┤            of each component, answers each; and again
//! request ─┘    for each plan)      └─ thread n: one for two cores
//! ```
//!
//! Where they cannot be evaluated together, since one of them fails or takes too long, the halves of
//! them are, until it is known which of them has to be evaluated alone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use tokio::sync::oneshot;
use unskew_engine::Evaluated;
use unskew_store::{BriefAnswer, Responder};

use crate::settings::cores;
use crate::watch::{PlanWatch, Stages};
use crate::work::INLINE_ROWS;

/// Up to this many rows of a request are evaluated with those of others. More have less to gain from
/// it than the others have to lose.
pub(crate) const FEW_ROWS: usize = INLINE_ROWS / 8;

/// The most rows that are evaluated together.
const MOST_ROWS: usize = INLINE_ROWS;

/// The most requests of a plan that wait. Each has a turn at the server meanwhile, of which there are
/// 256 by default; further ones wait in the lane of their service, without a turn.
const MOST_WAITING: usize = 64;

/// The requests of one plan that are evaluated together.
pub(super) struct Together {
    responder: Responder,
    queue: Mutex<Queue>,
}

struct Queue {
    waiting: VecDeque<Waiting>,
    /// How many threads evaluate.
    threads: usize,
    /// How many may: as many as the engine has instances for such calls.
    most_threads: usize,
    /// The most rows that are taken at once. Fewer after some that could not be together.
    most_rows: usize,
}

struct Waiting {
    joined: RecordBatch,
    done: oneshot::Sender<Evaluated>,
}

/// The rows of requests, and those who wait for them.
type Taken = (Vec<RecordBatch>, Vec<oneshot::Sender<Evaluated>>);

/// What becomes of a request that is to wait.
enum Added {
    Waits,
    /// And one more thread is to evaluate.
    Begins,
    /// Too many wait.
    Refused,
}

impl Together {
    pub(super) fn new(responder: Responder) -> Arc<Self> {
        Arc::new(Self {
            responder,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                threads: 0,
                most_threads: (cores() / 2).max(1),
                most_rows: MOST_ROWS,
            }),
        })
    }

    /// Evaluates rows that are joined, with those of others.
    pub(super) async fn evaluate(
        self: &Arc<Self>,
        plan: &Arc<PlanWatch>,
        joined: RecordBatch,
    ) -> BriefAnswer {
        let (done, told) = oneshot::channel();
        let waiting = Waiting {
            joined: joined.clone(),
            done,
        };
        match self.queue().add(waiting) {
            Added::Waits => {}
            Added::Begins => {
                let thread = Thread {
                    together: Arc::clone(self),
                    plan: Arc::clone(plan),
                    ended: false,
                };
                tokio::task::spawn_blocking(move || thread.run());
            }
            Added::Refused => return BriefAnswer::Unfinished(joined),
        }
        // Told nothing: it is to be evaluated alone.
        told.await
            .map_or(BriefAnswer::Unfinished(joined), BriefAnswer::Done)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn add(&mut self, waiting: Waiting) -> Added {
        if self.waiting.len() >= MOST_WAITING {
            // Clients may have gone away.
            self.waiting.retain(|waiting| !waiting.done.is_closed());
            if self.waiting.len() >= MOST_WAITING {
                return Added::Refused;
            }
        }
        self.waiting.push_back(waiting);
        if self.threads >= self.most_threads {
            return Added::Waits;
        }
        self.threads += 1;
        Added::Begins
    }

    /// The requests that are evaluated next, whose rows are no more than those that may be together,
    /// or one that has more; `None` ends the thread.
    fn take(&mut self) -> Option<Taken> {
        let (mut joined, mut done) = (Vec::new(), Vec::new());
        let mut rows = 0;
        while let Some(next) = self.waiting.pop_front() {
            if next.done.is_closed() {
                continue;
            }
            rows += next.joined.num_rows();
            if rows > self.most_rows && !joined.is_empty() {
                self.waiting.push_front(next);
                break;
            }
            joined.push(next.joined);
            done.push(next.done);
        }
        if joined.is_empty() {
            // In the same breath, or a request that comes now would wait for this thread.
            self.threads -= 1;
            return None;
        }
        Some((joined, done))
    }

    /// The rows of several requests were together, and that was well or not.
    fn learn(&mut self, rows: usize, well: bool) {
        if !well {
            self.most_rows = self.most_rows.min(rows / 2).max(1);
        } else if rows >= self.most_rows {
            self.most_rows = (self.most_rows + 1).min(MOST_ROWS);
        }
    }
}

/// A thread that evaluates what waits.
struct Thread {
    together: Arc<Together>,
    plan: Arc<PlanWatch>,
    /// Whether it has found nothing to do.
    ended: bool,
}

impl Thread {
    /// Evaluates what waits, until nothing does.
    fn run(mut self) {
        while let Some((joined, done)) = self.next() {
            let mut evaluated = Vec::with_capacity(joined.len());
            self.plan.shared(joined.len());
            let together = self.together(&joined, Stages::begin(&self.plan), &mut evaluated);
            if joined.len() > 1 {
                let rows = joined.iter().map(RecordBatch::num_rows).sum();
                self.together.queue().learn(rows, together);
            }
            for (done, evaluated) in done.into_iter().zip(evaluated) {
                if let Some(evaluated) = evaluated {
                    // A client that has gone away is told nothing.
                    let _ = done.send(evaluated);
                }
            }
        }
    }

    fn next(&mut self) -> Option<Taken> {
        let taken = self.together.queue().take();
        self.ended = taken.is_none();
        taken
    }

    /// Evaluates the requests together, or the halves of them; adds `None` for each that has to be
    /// evaluated alone. Says whether all were evaluated together.
    fn together(
        &self,
        joined: &[RecordBatch],
        mut stages: Stages<'_>,
        evaluated: &mut Vec<Option<Evaluated>>,
    ) -> bool {
        let began = Instant::now();
        let responder = &self.together.responder;
        match responder.finish_together(joined, &mut stages) {
            Some(all) => {
                // What the others take that fail says nothing of those that do not.
                self.plan.pace.took(began.elapsed());
                evaluated.extend(all.into_iter().map(Some));
            }
            None if joined.len() == 1 => evaluated.push(None),
            None => {
                let (first, second) = joined.split_at(joined.len() / 2);
                self.together(first, Stages::again(&self.plan), evaluated);
                self.together(second, Stages::again(&self.plan), evaluated);
                return false;
            }
        }
        true
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.ended {
            // It panicked or was never begun. Who waits is told nothing.
            let mut queue = self.together.queue();
            queue.threads -= 1;
            queue.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::RecordBatchOptions;
    use arrow::datatypes::Schema;

    use super::*;

    fn queue() -> Queue {
        Queue {
            waiting: VecDeque::new(),
            threads: 0,
            most_threads: 1,
            most_rows: MOST_ROWS,
        }
    }

    fn add(queue: &mut Queue, rows: usize) -> (Added, oneshot::Receiver<Evaluated>) {
        let (done, told) = oneshot::channel();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(Schema::empty());
        let joined = RecordBatch::try_new_with_options(schema, Vec::new(), &options).unwrap();
        (queue.add(Waiting { joined, done }), told)
    }

    fn taken(queue: &mut Queue) -> Vec<usize> {
        let (joined, done) = queue.take().unwrap();
        assert_eq!(joined.len(), done.len());
        joined.iter().map(RecordBatch::num_rows).collect()
    }

    #[test]
    fn those_that_wait_are_taken_in_order_up_to_so_many_rows() {
        let mut queue = queue();
        let rows = [1, 300, 200, 56, 1];
        let told: Vec<_> = rows.map(|rows| add(&mut queue, rows)).into();
        assert!(matches!(told[0].0, Added::Begins));
        assert!(told[1..].iter().all(|it| matches!(it.0, Added::Waits)));
        assert_eq!(taken(&mut queue), [1]);
        assert_eq!(taken(&mut queue), [300]);
        assert_eq!(taken(&mut queue), [200, 56]);
        assert_eq!(taken(&mut queue), [1]);
        assert!(queue.take().is_none());
        // The thread has ended, and another begins.
        assert!(matches!(add(&mut queue, 1).0, Added::Begins));
    }

    #[test]
    fn who_has_gone_away_is_not_evaluated_and_takes_no_place() {
        let mut queue = queue();
        drop(add(&mut queue, 1));
        let waits = add(&mut queue, 2);
        drop(add(&mut queue, 3));
        assert_eq!(taken(&mut queue), [2]);
        drop(waits);
        let gone: Vec<_> = (0..MOST_WAITING).map(|_| add(&mut queue, 1)).collect();
        assert!(matches!(add(&mut queue, 1).0, Added::Refused));
        drop(gone);
        assert!(matches!(add(&mut queue, 1).0, Added::Waits));
        assert!(queue.take().is_none());
    }

    #[test]
    fn fewer_rows_go_together_after_some_that_could_not_and_then_more_again() {
        let mut queue = queue();
        queue.learn(40, true);
        assert_eq!(queue.most_rows, MOST_ROWS);
        queue.learn(40, false);
        assert_eq!(queue.most_rows, 20);
        queue.learn(19, true);
        assert_eq!(queue.most_rows, 20);
        queue.learn(20, true);
        assert_eq!(queue.most_rows, 21);
        queue.learn(2, false);
        queue.learn(2, false);
        assert_eq!(queue.most_rows, 1);
    }
}
