//! The handles of a plan, made when it is loaded, and what a request does with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use arrow::array::{Array, ArrayRef};
use prometheus_client::metrics::counter::Counter;
use unskew_core::digest::Digest;
use unskew_core::plan::FeaturePlan;
use unskew_engine::{Observer, Status};
use unskew_store::AnswerObserver;

use super::features::Logged;
use super::histogram::Histogram;
use super::lap;
use super::metrics::{Metrics, ServiceLabel, Stage, StageLabels, TransformLabels, ValueLabels};

/// What stands for the name of a service where features are asked for one by one. No definition
/// can have it.
pub(super) const NO_SERVICE: &str = "@features";

/// What is counted of the answers of one plan.
pub(crate) struct PlanWatch {
    /// The feature service, or [`NO_SERVICE`].
    pub(super) service: String,
    stages: [Histogram; Stage::ALL.len()],
    /// One for each step.
    steps: Vec<Histogram>,
    rows: Histogram,
    /// One for each lookup: its values by status, in the order of [`Status::ALL`].
    lookups: Vec<[Counter; Status::ALL.len()]>,
    /// Whether a moment is enough for its components.
    pub(crate) moments: Moments,
    /// What the log of features has to know of the plan, if there is one.
    pub(super) logged: Option<Arc<Logged>>,
}

impl PlanWatch {
    pub(super) fn new(
        metrics: &Metrics,
        plan: &FeaturePlan,
        digest: Digest,
        is_logged: bool,
    ) -> Self {
        let service = plan.service.as_deref().unwrap_or(NO_SERVICE).to_owned();
        let stages = Stage::ALL.map(|stage| {
            let labels = StageLabels {
                service: service.clone(),
                stage: stage.name(),
            };
            metrics.stages.get_or_create(&labels).clone()
        });
        let steps = plan.steps.iter().map(|step| {
            let labels = TransformLabels {
                transformation: step.name.clone(),
                component: step.description.component.clone(),
                version: step.description.version.clone(),
            };
            metrics.transforms.get_or_create(&labels).clone()
        });
        let lookups = plan.lookups.iter().map(|lookup| {
            Status::ALL.map(|status| {
                let labels = ValueLabels {
                    view: lookup.view.name.clone(),
                    status: label(status),
                };
                metrics.values.get_or_create(&labels).clone()
            })
        });
        let of_service = ServiceLabel {
            service: service.clone(),
        };
        Self {
            stages,
            steps: steps.collect(),
            rows: metrics.rows.get_or_create(&of_service).clone(),
            lookups: lookups.collect(),
            moments: Moments::default(),
            logged: is_logged.then(|| Arc::new(Logged::new(&service, plan, digest))),
            service,
        }
    }

    /// Counts what a stage took.
    pub(crate) fn took(&self, stage: Stage, span: std::time::Duration) {
        self.stages[stage as usize].observe(span);
    }

    /// Counts the rows of a request.
    pub(crate) fn asked(&self, rows: usize) {
        self.rows.observe_number(rows as u64);
    }
}

/// Whether the components of a plan are to be tried on the thread that has the request.
///
/// A moment that was not enough is lost, and nobody else was answered by that thread meanwhile. Once
/// it was lost [`Moments::IN_A_ROW`] times, only some requests try: one of 8, and each time it is
/// lost again one of twice as many, up to one of 1,024. The first for which it is enough ends that.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    /// How many were lost since one was enough.
    lost: AtomicU32,
    /// How many requests asked since they began to be told not to try.
    asked: AtomicU32,
}

impl Moments {
    /// A thread that loses its processor loses the moment of a quick component as well.
    const IN_A_ROW: u32 = 3;

    /// Whether the next request is to try. Those of components that are quick are told so by one
    /// load.
    pub(crate) fn may_try(&self) -> bool {
        let lost = self.lost.load(Relaxed);
        if lost < Self::IN_A_ROW {
            return true;
        }
        let one_of = 1_u32 << lost.min(10);
        self.asked.fetch_add(1, Relaxed) % one_of == one_of - 1
    }

    /// Whether the moment of a request that tried was enough.
    pub(crate) fn tried(&self, enough: bool) {
        if !enough {
            self.lost.fetch_add(1, Relaxed);
        } else if self.lost.load(Relaxed) > 0 {
            self.lost.store(0, Relaxed);
        }
    }
}

/// A status as a value of a label.
const fn label(status: Status) -> &'static str {
    match status {
        Status::Present => "present",
        Status::NullValue => "null_value",
        Status::NotFound => "not_found",
        Status::OutsideMaxAge => "outside_max_age",
        Status::InFuture => "in_future",
        Status::NotMaterialized => "not_materialized",
    }
}

/// Times the stages of one answer.
pub(crate) struct Stages<'a> {
    plan: &'a PlanWatch,
    /// When the stage began that is going on.
    stage: Instant,
    /// When the step began that is going on.
    step: Instant,
    /// Whether what was found is counted already.
    counted: bool,
}

impl<'a> Stages<'a> {
    /// The online store is asked now.
    pub(crate) fn begin(plan: &'a PlanWatch) -> Self {
        let now = Instant::now();
        Self {
            plan,
            stage: now,
            step: now,
            counted: false,
        }
    }

    /// What was begun is evaluated once more, since a moment was not enough.
    pub(crate) fn again(plan: &'a PlanWatch) -> Self {
        Self {
            counted: true,
            ..Self::begin(plan)
        }
    }

    /// All stages are over.
    pub(crate) fn end(mut self) {
        let span = lap(&mut self.stage);
        self.plan.took(Stage::Evaluate, span);
    }
}

impl AnswerObserver for Stages<'_> {
    fn fetched(&mut self) {
        self.plan.took(Stage::Store, lap(&mut self.stage));
    }

    fn joined(&mut self) {
        self.plan.took(Stage::Decode, lap(&mut self.stage));
    }
}

impl Observer for Stages<'_> {
    fn looked_up(&mut self, lookup: usize, statuses: &[Status], features: &[ArrayRef]) {
        let counters = self.plan.lookups.get(lookup);
        let Some(counters) = counters.filter(|_| !self.counted) else {
            return;
        };
        let mut counts = [0_u64; Status::ALL.len()];
        for &status in statuses {
            counts[status as usize] += 1;
        }
        let present = &mut counts[Status::Present as usize];
        let missing = statuses.len() as u64 - *present;
        // Each row has a value of each feature. One that is not there is null, so what is null
        // beyond that is null in the row.
        let nulls: u64 = features
            .iter()
            .map(|feature| (feature.null_count() as u64).saturating_sub(missing))
            .sum();
        let width = features.len() as u64;
        for count in &mut counts {
            *count *= width;
        }
        counts[Status::Present as usize] -= nulls;
        counts[Status::NullValue as usize] += nulls;
        for (counter, count) in counters.iter().zip(counts) {
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }

    fn began(&mut self, _step: usize) {
        self.step = Instant::now();
    }

    fn ended(&mut self, step: usize) {
        if let Some(histogram) = self.plan.steps.get(step) {
            histogram.observe(self.step.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_tried_ever_less_often_until_it_is_quick() {
        let moments = Moments::default();
        let tried = |requests: usize, enough: bool| {
            let all = 0..requests;
            all.filter(|_| {
                let tries = moments.may_try();
                if tries {
                    moments.tried(enough);
                }
                tries
            })
            .count()
        };
        assert_eq!(tried(1_000, true), 1_000);
        assert_eq!(tried(2, false), 2);
        assert_eq!(tried(1, true), 1);
        assert_eq!(tried(3, false), 3);
        assert_eq!(tried(8, false), 1);
        let rarely = tried(100_000, false);
        assert!((90..120).contains(&rarely), "{rarely}");
        // One of these is enough for the rest.
        assert!(tried(2_048, true) > 1_000);
        assert_eq!(tried(1_000, true), 1_000);
    }

    #[test]
    fn the_order_of_counters_is_that_of_the_statuses() {
        for (index, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, index);
        }
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
        }
    }
}
