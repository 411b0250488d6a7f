//! The log of features: what was served, as Parquet files, never in the way of a request.
//!
//! ```text
//! request ── sampled? ── try_send ──▶ queue ──▶ a thread of its own ──▶ .NAME.tmp ── complete ──▶ NAME
//!                           │ full                     │ cannot be written
//!                           ▼                          ▼
//!                        dropped, counted           lost, counted, said in the log
//! ```
//!
//! There is a folder for each plan, `DIR/SERVICE/PLAN/`, since the columns are those of the plan. A
//! row of a request is a row of a file:
//!
//! | column | what |
//! | --- | --- |
//! | `event_timestamp` | the instant for which features were asked (`as_of`) |
//! | the join keys and request fields | as they were asked with, under their names and of their types |
//! | `served:OUTPUT` | the value that was served |
//! | `status:OUTPUT` | its status |
//! | `@request_id`, `@served_at`, `@plan` | the request, when it was answered, the plan digest |
//!
//! So a folder of the log is a file of entity rows: a training set of it has what was served beside
//! what history says.

mod record;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use unskew_engine::Evaluated;
use unskew_store::RequestRows;

use super::metrics::LogCounters;
use super::plan::PlanWatch;
use super::request::Context;
pub(crate) use record::Logged;
use record::Record;
use writer::Writer;

/// How many requests wait to be written at most.
const QUEUE: usize = 8_192;

/// How long the end of a server waits for the log to be written out.
const CLOSING: Duration = Duration::from_secs(10);

/// A share of requests, from none to all.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Sample(f64);

impl Sample {
    /// All requests.
    pub const ALL: Self = Self(1.0);

    /// So many of one; `None` if that is not between 0 and 1.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// Whether the next request is one of them.
    fn takes_next(self) -> bool {
        self.0 >= 1.0 || fastrand::f64() < self.0
    }
}

/// Where and how much of what is served is logged.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureLogSettings {
    /// The folder; it is made if there is none.
    pub dir: PathBuf,
    /// Which share of requests is logged. Default: all.
    pub sample: Sample,
    /// A file is complete after so many rows. Default: 1,000,000.
    pub rows_per_file: usize,
    /// A file is complete after so many bytes. Default: 128 MiB.
    pub bytes_per_file: usize,
    /// A file is complete after so long, with what it has. A process that is killed takes what is
    /// not complete with it. Default: 5 min.
    pub time_per_file: Duration,
    /// How many bytes may wait to be written; what does not fit is dropped. Default: 64 MiB.
    pub queue_bytes: usize,
}

impl FeatureLogSettings {
    /// Everything that is served, in files of the usual size.
    pub fn all(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            sample: Sample::ALL,
            rows_per_file: 1_000_000,
            bytes_per_file: 128 << 20,
            time_per_file: Duration::from_secs(300),
            queue_bytes: 64 << 20,
        }
    }

    /// Whether files can be written into the folder: whoever starts a server is to hear of it then.
    ///
    /// # Errors
    /// They cannot.
    pub(crate) fn check(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        tempfile::tempfile_in(&self.dir).map(drop)
    }
}

/// What requests see of the log.
pub(super) struct FeatureLog {
    sample: Sample,
    queue: SyncSender<Record>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    counters: LogCounters,
    ending: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl FeatureLog {
    /// Starts the thread that writes.
    pub(super) fn start(settings: FeatureLogSettings, counters: LogCounters) -> Self {
        let (queue, records) = mpsc::sync_channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let ending = Arc::new(AtomicBool::new(false));
        let (sample, most_waiting) = (settings.sample, settings.queue_bytes);
        let writer = Writer::new(
            settings,
            counters.clone(),
            Arc::clone(&waiting),
            Arc::clone(&ending),
        );
        let thread = std::thread::Builder::new()
            .name("feature-log".to_owned())
            .spawn(move || writer.run(&records));
        let thread = thread
            .inspect_err(|error| {
                tracing::error!(%error, "the log of features has no thread; nothing is logged");
            })
            .ok();
        Self {
            sample,
            queue,
            waiting,
            most_waiting,
            counters,
            ending,
            thread: Mutex::new(thread),
        }
    }

    /// Whether the next request is one that is logged.
    pub(super) fn takes_next(&self) -> bool {
        self.sample.takes_next()
    }

    /// Logs what was served at `now`, or drops it if too much waits already.
    pub(super) fn offer(
        &self,
        plan: &PlanWatch,
        context: Option<&Context>,
        rows: RequestRows,
        evaluated: Evaluated,
        now: i64,
    ) {
        let Some(logged) = &plan.logged else {
            return;
        };
        let count = rows.as_of.len() as u64;
        let record = Record::new(logged, context, rows, evaluated, now);
        let bytes = record.bytes;
        if self.waiting.fetch_add(bytes, Relaxed) + bytes > self.most_waiting
            || self.queue.try_send(record).is_err()
        {
            self.waiting.fetch_sub(bytes, Relaxed);
            self.counters.dropped.inc_by(count);
        }
    }

    /// Writes out what waits, and ends the thread.
    pub(super) async fn close(&self) {
        self.ending.store(true, Relaxed);
        let thread = {
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            thread.take()
        };
        let Some(thread) = thread else {
            return;
        };
        thread.thread().unpark();
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(CLOSING, joined).await.is_err() {
            tracing::warn!(
                "the log of features could not be written out within {} s",
                CLOSING.as_secs()
            );
        }
    }
}
