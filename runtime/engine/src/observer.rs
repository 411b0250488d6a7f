//! Who watches an evaluation.

use arrow::array::ArrayRef;

use crate::status::Status;

/// Is told of the steps of an evaluation, on the thread that evaluates.
///
/// Nothing here reads a clock: who wants to know how long a step takes brings one. All functions do
/// nothing by default, and `()` is an observer that the compiler removes.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// use unskew_engine::Observer;
///
/// /// How long each step took.
/// struct Durations {
///     begun: Instant,
///     taken: Vec<(usize, Duration)>,
/// }
///
/// impl Observer for Durations {
///     fn began(&mut self, _step: usize) {
///         self.begun = Instant::now();
///     }
///
///     fn ended(&mut self, step: usize) {
///         self.taken.push((step, self.begun.elapsed()));
///     }
/// }
/// ```
pub trait Observer {
    /// What a lookup of the plan found: one status for each row, and the features that the plan
    /// uses, null where the status is not [`Status::Present`]. All lookups come before the first
    /// step.
    fn looked_up(&mut self, lookup: usize, statuses: &[Status], features: &[ArrayRef]) {
        let _ = (lookup, statuses, features);
    }

    /// A step of the plan begins: the one at that index of `FeaturePlan::steps`, which names its
    /// transformation and its component.
    fn began(&mut self, step: usize) {
        let _ = step;
    }

    /// The step that began last has ended, well or not. A step that fails is the last one. One that
    /// is done again, since it was to take a moment and takes longer, or was one of several requests
    /// together, has not ended.
    fn ended(&mut self, step: usize) {
        let _ = step;
    }
}

impl Observer for () {}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn looked_up(&mut self, lookup: usize, statuses: &[Status], features: &[ArrayRef]) {
        (**self).looked_up(lookup, statuses, features);
    }

    fn began(&mut self, step: usize) {
        (**self).began(step);
    }

    fn ended(&mut self, step: usize) {
        (**self).ended(step);
    }
}
