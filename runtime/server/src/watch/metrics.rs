//! What is counted while requests are answered.
//!
//! A request finds its handles ready: those of its route in a short list, those of its plan with
//! the plan ([`PlanWatch`](super::PlanWatch)). What it does with them is an addition of an atomic,
//! without a lock, a look-up by label or a text being made.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::Histogram;
use super::routes::{Codes, Routes};

/// The beginning of each metric's name, but for those of the process.
pub(super) const PREFIX: &str = "unskew";

/// The parts of an answer that are timed one by one, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waiting for a turn to be answered.
    Turn,
    /// The online store.
    Store,
    /// From stored rows to columns.
    Decode,
    /// Time masks and transformations.
    Evaluate,
    /// From columns to the body.
    Encode,
}

impl Stage {
    pub(super) const ALL: [Self; 5] = [
        Self::Turn,
        Self::Store,
        Self::Decode,
        Self::Evaluate,
        Self::Encode,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Turn => "turn",
            Self::Store => "store",
            Self::Decode => "decode",
            Self::Evaluate => "evaluate",
            Self::Encode => "encode",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StageLabels {
    pub(super) service: String,
    pub(super) stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TransformLabels {
    pub(super) transformation: String,
    pub(super) component: String,
    pub(super) version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ServiceLabel {
    pub(super) service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ValueLabels {
    pub(super) view: String,
    pub(super) status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ViewLabel {
    view: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Requests by route.
    pub(super) routes: Routes,
    /// Requests that have begun and not ended.
    pub(super) in_flight: Gauge,
    /// Requests that were answered by a problem, by its code.
    pub(super) problems: Codes,
    pub(super) stages: Histograms<StageLabels>,
    pub(super) transforms: Histograms<TransformLabels>,
    pub(super) rows: Histograms<ServiceLabel>,
    pub(super) shared: Histograms<ServiceLabel>,
    pub(super) values: Family<ValueLabels, Counter>,
    pub(super) reloads: Reloads,
    pub(super) log: LogCounters,
    pushed: Family<SourceLabel, Counter>,
    online_only: Family<SourceLabel, Counter>,
    damaged: Family<ViewLabel, Counter>,
}

/// How often the registry was looked into for a newer state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reloads {
    pub(super) succeeded: Counter,
    pub(super) failed: Counter,
    pub(super) changed: Counter,
    pub(super) last_success: Gauge,
}

/// What became of the rows that were to be logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogCounters {
    /// They lie in a complete file.
    pub(super) written: Counter,
    /// The queue was full.
    pub(super) dropped: Counter,
    /// They could not be written.
    pub(super) failed: Counter,
    /// Complete files.
    pub(super) files: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix(PREFIX);
        let routes = Routes::default();
        ours.register_collector(Box::new(routes.clone()));
        let in_flight = Gauge::default();
        ours.register(
            "http_requests_in_flight",
            "Requests that have begun and not ended",
            in_flight.clone(),
        );
        let problems = Codes::default();
        ours.register_collector(Box::new(problems.clone()));
        let stages = Histograms::new_with_constructor(Histogram::of_spans as fn() -> Histogram);
        ours.register_with_unit(
            "stage_duration",
            "How long the parts of an answer took: waiting for a turn, the online store, decoding, \
             evaluation with all transformations, encoding",
            Unit::Seconds,
            stages.clone(),
        );
        let transforms = Histograms::new_with_constructor(Histogram::of_spans as fn() -> Histogram);
        ours.register_with_unit(
            "transform_duration",
            "How long a transformation took for all rows of a request, or of those that ran together",
            Unit::Seconds,
            transforms.clone(),
        );
        let rows = Histograms::new_with_constructor(Histogram::of_rows as fn() -> Histogram);
        ours.register("request_rows", "Entity rows of a request", rows.clone());
        let shared = Histograms::new_with_constructor(Histogram::of_rows as fn() -> Histogram);
        ours.register(
            "requests_together",
            "Requests whose transformations were to run together, where calls are shared",
            shared.clone(),
        );
        let values = Family::default();
        ours.register(
            "feature_values",
            "Feature values that were looked up, by what became of them",
            values.clone(),
        );
        let reloads = Reloads::default();
        reloads.register(ours);
        let log = LogCounters::default();
        log.register(ours);
        let (pushed, online_only) = (Family::default(), Family::default());
        ours.register("pushed_rows", "Rows that were pushed", pushed.clone());
        ours.register(
            "pushed_online_only_rows",
            "Rows that were pushed to the online store and nowhere else, so that no training set \
             has them",
            online_only.clone(),
        );
        let damaged = Family::default();
        ours.register(
            "damaged_values",
            "Requests that met a stored value of a view that is damaged",
            damaged.clone(),
        );
        Self {
            registry,
            routes,
            in_flight,
            problems,
            stages,
            transforms,
            rows,
            shared,
            values,
            reloads,
            log,
            pushed,
            online_only,
            damaged,
        }
    }

    /// Counts rows that were pushed to `source`, some of them online only.
    pub(super) fn pushed(&self, source: &str, rows: u64, online_only: u64) {
        let source = SourceLabel {
            source: source.to_owned(),
        };
        self.pushed.get_or_create(&source).inc_by(rows);
        self.online_only.get_or_create(&source).inc_by(online_only);
    }

    /// Counts a stored value of `view` that is damaged.
    pub(super) fn damaged(&self, view: &str) {
        let view = ViewLabel {
            view: view.to_owned(),
        };
        self.damaged.get_or_create(&view).inc();
    }

    pub(super) const fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// A family of two or more counters by the label `result`.
fn by_result<const N: usize>(results: [(&'static str, &Counter); N]) -> ByResult {
    let counters = results.map(|(result, counter)| (ResultLabel { result }, counter.clone()));
    ByResult(counters.to_vec())
}

#[derive(Debug)]
struct ByResult(Vec<(ResultLabel, Counter)>);

impl ByResult {
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder,
        name: &str,
        help: &str,
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (label, counter) in &self.0 {
            let mut one = family.encode_family(label)?;
            one.encode_counter::<NoLabelSet, _, u64>(&counter.get(), None)?;
        }
        Ok(())
    }
}

impl Reloads {
    fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
        registry.register(
            "reload_changes",
            "Reloads after which something else was served than before",
            self.changed.clone(),
        );
        registry.register_with_unit(
            "reload_last_success_timestamp",
            "When the registry was last looked into with success, in seconds since 1970",
            Unit::Seconds,
            self.last_success.clone(),
        );
    }
}

impl Collector for Reloads {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        by_result([("success", &self.succeeded), ("failure", &self.failed)]).encode(
            &mut encoder,
            "reloads",
            "Times that the registry was looked into for a newer state.",
        )
    }
}

impl LogCounters {
    fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
        registry.register(
            "feature_log_files",
            "Complete files of the log of features",
            self.files.clone(),
        );
    }
}

impl Collector for LogCounters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        by_result([
            ("written", &self.written),
            ("dropped", &self.dropped),
            ("failed", &self.failed),
        ])
        .encode(
            &mut encoder,
            "feature_log_rows",
            "Rows for the log of features: in a complete file, dropped since the queue was full, or \
             lost since a file could not be written.",
        )
    }
}
