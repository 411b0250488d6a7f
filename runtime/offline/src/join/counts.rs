//! What a join counts while it runs.

use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder};

/// The metrics of a join, as `EXPLAIN ANALYZE` shows them.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// Rows of the history that were looked at.
    pub(crate) read: Count,
    /// Rows that became available after the bound.
    pub(crate) lag: Count,
    /// Rows that count for at least one entity row.
    pub(crate) winners: Count,
    /// Bytes that were spilled.
    pub(crate) spilled: Count,
    peak: Gauge,
}

impl Counts {
    pub(crate) const LAG: &str = "lag";

    pub(crate) fn new(metrics: &ExecutionPlanMetricsSet) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).global_counter(name);
        Self {
            read: count("rows_read"),
            lag: count(Self::LAG),
            winners: count("winners"),
            spilled: count("bytes_spilled"),
            peak: MetricBuilder::new(metrics).global_gauge("peak_memory_bytes"),
        }
    }

    /// So many bytes are held now.
    pub(crate) fn holds(&self, bytes: usize) {
        self.peak.set_max(bytes);
    }
}
