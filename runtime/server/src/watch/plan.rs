//! The handles of a plan, made when it is loaded, and what a request does with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

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
    shared: Histogram,
    /// One for each lookup: its values by status, in the order of [`Status::ALL`].
    lookups: Vec<[Counter; Status::ALL.len()]>,
    /// How long it takes.
    pub(crate) pace: Pace,
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
            shared: metrics.shared.get_or_create(&of_service).clone(),
            lookups: lookups.collect(),
            pace: Pace::default(),
            logged: is_logged.then(|| Arc::new(Logged::new(&service, plan, digest))),
            service,
        }
    }

    /// Counts what a stage took.
    pub(crate) fn took(&self, stage: Stage, span: Duration) {
        self.stages[stage as usize].observe(span);
    }

    /// Counts the rows of a request.
    pub(crate) fn asked(&self, rows: usize) {
        self.rows.observe_number(rows as u64);
    }

    /// Counts the requests that were evaluated together.
    pub(crate) fn shared(&self, requests: usize) {
        self.shared.observe_number(requests as u64);
    }
}

/// Where a request of few rows is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// On the thread that has the request.
    Here,
    /// Elsewhere, with the rows of other requests.
    Together,
    /// Elsewhere, alone.
    Alone,
}

/// How long the evaluations of a plan take, of few rows each: a running mean, in which the last
/// counts for an eighth.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    microseconds: AtomicU32,
}

impl Pace {
    /// What takes longer holds up the thread that has the request for longer than it takes to hand
    /// the request to another.
    const QUICK: u32 = 500;
    /// From here on a call is long for its rows, and not for being a call.
    const SLOW: u32 = 10_000;
    /// Nothing counts for more. So a thread that lost its processor once makes no plan slow.
    const MOST: u32 = 20_000;

    /// Where the next request is evaluated.
    pub(crate) fn place(&self) -> Where {
        match self.microseconds.load(Relaxed) {
            ..Self::QUICK => Where::Here,
            Self::QUICK..Self::SLOW => Where::Together,
            Self::SLOW.. => Where::Alone,
        }
    }

    /// An evaluation took this long.
    pub(crate) fn took(&self, span: Duration) {
        let span = u32::try_from(span.as_micros()).map_or(Self::MOST, |span| span.min(Self::MOST));
        let mean = self.microseconds.load(Relaxed);
        // Nearly all plans, whose requests then only read what they share.
        if span.max(mean) < Self::QUICK / 2 {
            return;
        }
        // Of two at once one may be forgotten.
        self.microseconds.store((7 * mean + span) / 8, Relaxed);
    }

    /// A moment was not enough.
    pub(crate) fn took_too_long(&self) {
        self.took(Duration::MAX);
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

    /// What was begun is evaluated once more, since components had too little time.
    pub(crate) fn again(plan: &'a PlanWatch) -> Self {
        Self {
            counted: true,
            ..Self::begin(plan)
        }
    }

    /// All stages are over; gives how long the last one took.
    pub(crate) fn end(mut self) -> Duration {
        let span = lap(&mut self.stage);
        self.plan.took(Stage::Evaluate, span);
        span
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
    fn a_plan_is_evaluated_where_its_pace_allows_it() {
        let pace = Pace::default();
        let after = |evaluations: usize, microseconds: u64| {
            for _ in 0..evaluations {
                pace.took(Duration::from_micros(microseconds));
            }
            pace.place()
        };
        assert_eq!(after(1_000, 30), Where::Here);
        assert_eq!(after(1_000, 450), Where::Here);
        // In between some take longer, as on a machine that is busy.
        assert_eq!(after(1, 800), Where::Here);
        assert_eq!(after(100, 30), Where::Here);
        assert_eq!(after(10, 1_200), Where::Together);
        assert_eq!(after(1_000, 1_200), Where::Together);
        pace.took_too_long();
        assert_eq!(pace.place(), Where::Together);
        assert_eq!(after(10, 1_200), Where::Together);
        for _ in 0..10 {
            pace.took_too_long();
        }
        assert_eq!(pace.place(), Where::Alone);
        // Whatever it was, it is forgotten after some that are quick.
        assert_eq!(after(50, 30), Where::Here);
        pace.took_too_long();
        assert_eq!(pace.place(), Where::Together);
        assert_eq!(after(20, 30), Where::Here);
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
