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
//! Not one for each core: who receives requests and answers them needs some, and calls at once get
//! into each other's way, since each takes page faults that interrupt the other cores. On two cores
//! a component in Python answered 3,400 requests/s with one thread and 1,700 with two.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use tokio::sync::oneshot;
use unskew_engine::Evaluated;
use unskew_store::{BriefAnswer, Responder};

use crate::settings::cores;
use crate::watch::{PlanWatch, Stages};

/// The most rows that are evaluated together. More share the cost of a call no better.
const MOST_ROWS: usize = 256;

/// The requests of one plan that are evaluated together.
pub(super) struct Together {
    responder: Responder,
    queue: Mutex<Queue>,
}

struct Queue {
    waiting: VecDeque<Waiting>,
    /// How many threads evaluate.
    threads: usize,
    /// How many may.
    most_threads: usize,
    /// The most rows that are taken at once. Fewer after they took too long, or one of them failed.
    most: usize,
}

struct Waiting {
    joined: RecordBatch,
    done: oneshot::Sender<Evaluated>,
}

/// The rows of requests, and those who wait for them.
type Taken = (Vec<RecordBatch>, Vec<oneshot::Sender<Evaluated>>);

impl Together {
    pub(super) fn new(responder: Responder) -> Arc<Self> {
        Arc::new(Self {
            responder,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                threads: 0,
                most_threads: (cores() / 2).max(1),
                most: MOST_ROWS,
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
        if self.queue().add(waiting) {
            let (this, plan) = (Arc::clone(self), Arc::clone(plan));
            tokio::task::spawn_blocking(move || this.run(&plan));
        }
        // Told nothing: it is to be evaluated alone.
        told.await
            .map_or(BriefAnswer::Unfinished(joined), BriefAnswer::Done)
    }

    /// Evaluates what waits, until nothing does.
    fn run(&self, plan: &PlanWatch) {
        let _running = Running(self);
        while let Some((joined, done)) = self.next() {
            let began = Instant::now();
            let stages = &mut Stages::begin(plan);
            let evaluated = self.responder.finish_together(&joined, stages);
            match &evaluated {
                Some(_) => plan.pace.took(began.elapsed()),
                None => plan.pace.took_too_long(),
            }
            plan.shared(joined.len());
            let rows = joined.iter().map(RecordBatch::num_rows).sum();
            self.queue().learn(rows, evaluated.is_some());
            for (done, evaluated) in done.into_iter().zip(evaluated.into_iter().flatten()) {
                // A client that has gone away is told nothing.
                let _ = done.send(evaluated);
            }
        }
    }

    fn next(&self) -> Option<Taken> {
        self.queue().take()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Adds a request; says whether one more thread is to evaluate.
    fn add(&mut self, waiting: Waiting) -> bool {
        self.waiting.push_back(waiting);
        let begins = self.threads < self.most_threads;
        self.threads += usize::from(begins);
        begins
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
            if rows > self.most && !joined.is_empty() {
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

    /// So many rows were together, and that was well or not.
    fn learn(&mut self, rows: usize, well: bool) {
        if well && rows >= self.most {
            self.most = (self.most + 1).min(MOST_ROWS);
        } else if !well && rows > 1 {
            self.most = self.most.min(rows / 2);
        }
    }
}

/// A thread that evaluates, for the case that it panics.
struct Running<'a>(&'a Together);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.0.queue();
            queue.threads -= 1;
            // They are evaluated alone, where a panic is answered.
            queue.waiting.clear();
        }
    }
}
