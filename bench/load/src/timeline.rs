//! What happened when: for faults, whose effects are in time.

use serde::Serialize;

/// How many requests ended in a stretch of time, and how.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Bin {
    /// Answered, and right as far as was checked.
    pub right: u32,
    /// Answered with an error, or not at all.
    pub errors: u32,
    /// Answered as if right, with a value that is not.
    pub wrong: u32,
}

/// Stretches of equal length, counted by the clock that Python calls `time.monotonic`.
#[derive(Debug, Serialize)]
pub struct Timeline {
    /// Where the first bin begins, in nanoseconds.
    pub start_ns: u64,
    /// How long a bin is.
    pub bin_ns: u64,
    /// The bins.
    pub bins: Vec<Bin>,
}

impl Timeline {
    /// Begins now.
    pub fn new(bin_ns: u64) -> Self {
        Self {
            start_ns: monotonic(),
            bin_ns,
            bins: Vec::new(),
        }
    }

    /// The bin of this instant.
    pub fn now(&mut self) -> &mut Bin {
        let index = (monotonic() - self.start_ns) / self.bin_ns.max(1);
        let index = usize::try_from(index).unwrap_or(0);
        if index >= self.bins.len() {
            self.bins.resize(index + 1, Bin::default());
        }
        &mut self.bins[index]
    }
}

/// The monotonic clock, in nanoseconds.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
