//! Threads that serve connections.
//!
//! A connection stays on one thread, and so does all that its requests wait for: to wake another
//! thread takes as long as most requests do. So each thread has a runtime of its own. What may take
//! its time goes elsewhere (`crate::work`), since nobody else can take over what waits here.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// As many threads as may run at once; they end when this is dropped.
pub(crate) struct Workers {
    all: Vec<Worker>,
    /// How many connections there have been.
    turn: AtomicUsize,
}

struct Worker {
    runtime: Handle,
    /// Ends the thread, with what runs on it, when it is dropped.
    _end: oneshot::Sender<()>,
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            all: (0..count)
                .map(|_| Worker::start())
                .collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
        })
    }

    /// Where the next connection is to be served: one thread after the other.
    pub(crate) fn next(&self) -> &Handle {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.all[turn % self.all.len()].runtime
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("unskew-worker".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(ended);
                // What blocks, such as a component that takes long, ends with the process.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            _end: end,
        })
    }
}
