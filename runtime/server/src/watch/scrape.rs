//! `GET /metrics`: what was counted, and what is looked up when somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use unskew_online::{Circuit, StoreHealth};

use super::Watch;
use super::metrics::PREFIX;
use super::plan::NO_SERVICE;
use super::process::Process;
use crate::clock;
use crate::guard::Counts;
use crate::served::{Served, Service};
use crate::state::State;

/// The form of the answer: OpenMetrics, which Prometheus asks for.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long the online store may take to say how far its views are materialized. Prometheus gives
/// up after ten seconds by default, and what else there is to say must not be lost with it.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The watermarks that were seen last, in microseconds since 1970: a store that is down keeps no
/// view from growing old.
#[derive(Default)]
pub(super) struct Kept {
    watermarks: Mutex<BTreeMap<String, i64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ViewLabel {
    view: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlanLabels {
    service: String,
    plan: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

type Floats<L> = Family<L, Gauge<f64, AtomicU64>>;
type Numbers<L> = Family<L, Gauge<i64, AtomicI64>>;

/// All metrics of a server as text.
///
/// # Errors
/// The text cannot be written.
pub(crate) async fn scrape(state: &State) -> Result<String, fmt::Error> {
    let served = state.served().clone();
    let watch = state.watch();
    let watermarks = watch.scraped.watermarks(&served).await;
    let mut registry = Registry::default();
    process(&mut registry, watch.started);
    let ours = registry.sub_registry_with_prefix(PREFIX);
    build(ours);
    served_plans(ours, &served);
    freshness(ours, &watermarks);
    store(ours, served.online().health());
    gate(ours, state.gate().counts());
    let failing = state
        .reloader()
        .is_some_and(|reloader| reloader.failure().is_some());
    ours.register(
        "reload_failing",
        "1 while the newest state of the registry cannot be served, and the one before goes on",
        ConstGauge::new(i64::from(failing)),
    );
    let mut out = String::new();
    text::encode_registry(&mut out, watch.metrics.registry())?;
    text::encode_registry(&mut out, &registry)?;
    text::encode_eof(&mut out)?;
    Ok(out)
}

impl Kept {
    /// How far each view of `served` is materialized, by its name; of two states of one view, the
    /// one that is less far.
    async fn watermarks(&self, served: &Served) -> BTreeMap<String, i64> {
        let asked = tokio::time::timeout(STORE_TIMEOUT, served.view_states()).await;
        let mut kept = self
            .watermarks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(states)) = asked {
            kept.clear();
            for (view, state) in states {
                if let Some(watermark) = state.and_then(|state| state.watermark) {
                    let least = kept.entry(view).or_insert(watermark);
                    *least = watermark.min(*least);
                }
            }
        }
        kept.clone()
    }
}

fn build(registry: &mut Registry) {
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("semantics", unskew_core::plan::SEMANTICS.to_string()),
    ];
    registry.register("build", "The program", Info::new(labels));
}

fn served_plans(registry: &mut Registry, served: &Served) {
    registry.register(
        "registry_state",
        "The number of the state of the registry that is served",
        ConstGauge::new(i64::try_from(served.number()).unwrap_or(i64::MAX)),
    );
    let plans = Numbers::<PlanLabels>::default();
    for (name, service) in served.services() {
        if let Service::Ready(answers) = service {
            let labels = PlanLabels {
                service: name.clone(),
                plan: answers.digest().to_string(),
            };
            plans.get_or_create(&labels).set(1);
        }
    }
    registry.register(
        "plan_info",
        "1 for the plan by which a feature service answers",
        plans,
    );
    let waiting = Numbers::<ServiceLabel>::default();
    let wait = |service: &str, views: usize| {
        let label = ServiceLabel {
            service: service.to_owned(),
        };
        let views = i64::try_from(views).unwrap_or(i64::MAX);
        waiting.get_or_create(&label).set(views);
    };
    let mut of_all = served.waiting();
    for name in served.services().keys() {
        wait(name, of_all.remove(name).map_or(0, |views| views.len()));
    }
    // What is left are lists of features, which have no names.
    let of_lists: BTreeSet<&String> = of_all.values().flatten().collect();
    wait(NO_SERVICE, of_lists.len());
    registry.register(
        "waiting_views",
        "Views that are to be materialized before a feature service, or lists of features, move to \
         their newest plan",
        waiting,
    );
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are floats; 2^53 µs are three hundred years"
)]
fn freshness(registry: &mut Registry, watermarks: &BTreeMap<String, i64>) {
    let now = clock::now();
    let (ends, ages) = (Floats::default(), Floats::default());
    for (view, &watermark) in watermarks {
        let label = ViewLabel { view: view.clone() };
        ends.get_or_create(&label).set(watermark as f64 / 1e6);
        ages.get_or_create(&label)
            .set((now - watermark) as f64 / 1e6);
    }
    registry.register_with_unit(
        "view_watermark_timestamp",
        "Up to when a view is materialized, in seconds since 1970",
        Unit::Seconds,
        ends,
    );
    registry.register_with_unit(
        "view_age",
        "How long ago that was up to which a view is materialized",
        Unit::Seconds,
        ages,
    );
}

fn store(registry: &mut Registry, health: StoreHealth) {
    let circuit = Numbers::<StateLabel>::default();
    for (state, circuit_state) in [
        ("closed", Circuit::Closed),
        ("half_open", Circuit::HalfOpen),
        ("open", Circuit::Open),
    ] {
        let is = i64::from(health.circuit == circuit_state);
        circuit.get_or_create(&StateLabel { state }).set(is);
    }
    registry.register(
        "online_store_circuit",
        "1 for the state of the circuit to the online store: closed, calls are sent; open, they \
         fail at once; half open, a probe is on its way",
        circuit,
    );
    registry.register(
        "online_store_connections",
        "Open connections to the online store",
        ConstGauge::new(i64::try_from(health.connections).unwrap_or(i64::MAX)),
    );
    registry.register(
        "online_store_reconnects",
        "Connections to the online store that were made in place of a lost one",
        ConstCounter::new(health.reconnects),
    );
    registry.register(
        "online_store_failures",
        "Attempts to connect to the online store, and calls of it, that got no answer",
        ConstCounter::new(health.failures),
    );
}

fn gate(registry: &mut Registry, counts: &Counts) {
    let open = counts.connections.load(Relaxed);
    registry.register(
        "connections",
        "Connections that are open",
        ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX)),
    );
    let mut counter = |name: &str, help: &str, count: &AtomicU64| {
        registry.register(name, help, ConstCounter::new(count.load(Relaxed)));
    };
    counter(
        "slow_connections",
        "Connections that were closed since their client was too slow",
        &counts.slow,
    );
    counter(
        "tls_handshakes_failed",
        "TLS handshakes that failed",
        &counts.handshakes,
    );
    counter(
        "guard_files_refused",
        "Times that tokens or certificates could not be read again, and the ones before went on",
        &counts.refused_files,
    );
}

/// The names are those by which Prometheus' own clients call these.
fn process(registry: &mut Registry, started: i64) {
    let process = Process::now();
    let mut gauge = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value.and_then(|value| i64::try_from(value).ok()) {
            registry.register(name, help, ConstGauge::new(value));
        }
    };
    gauge(
        "process_resident_memory_bytes",
        "Resident memory in bytes",
        process.resident,
    );
    gauge(
        "process_virtual_memory_bytes",
        "Address space in bytes",
        process.virtual_memory,
    );
    gauge("process_threads", "Threads", process.threads);
    gauge(
        "process_open_fds",
        "Open files and sockets",
        process.open_files,
    );
    gauge(
        "process_start_time_seconds",
        "When the server started, in seconds since 1970",
        u64::try_from(started).ok(),
    );
    registry.register_with_unit(
        "process_cpu",
        "Time on a CPU",
        Unit::Seconds,
        ConstCounter::new(process.cpu.as_secs_f64()),
    );
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
