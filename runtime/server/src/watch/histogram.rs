//! How long things take, counted without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The upper bounds of spans of time, in nanoseconds: 1, 2 and 5 of each power of ten, from what
/// decoding a row takes to what a request may take. Each is closed: it holds what is as large.
const SPANS: [u64; 24] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// The upper bounds of numbers of rows.
const ROWS: [u64; 14] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000,
];

/// A histogram whose observations are two additions of atomics; the one of `prometheus_client` takes
/// a lock for each.
///
/// All clones share one state.
#[derive(Clone)]
pub(crate) struct Histogram {
    inner: Arc<Inner>,
}

struct Inner {
    bounds: &'static [u64],
    /// What a bound and the sum are divided by when they are shown.
    unit: f64,
    /// One for each bound, and one for what is beyond the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Of spans of time; shown in seconds.
    pub(crate) fn of_spans() -> Self {
        Self::new(&SPANS, 1e9)
    }

    /// Of numbers of rows.
    pub(crate) fn of_rows() -> Self {
        Self::new(&ROWS, 1.0)
    }

    fn new(bounds: &'static [u64], unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self {
            inner: Arc::new(Inner {
                bounds,
                unit,
                counts,
                sum: AtomicU64::new(0),
            }),
        }
    }

    /// Counts `span`.
    pub(crate) fn observe(&self, span: Duration) {
        self.observe_number(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts `number`.
    pub(crate) fn observe_number(&self, number: u64) {
        let inner = &*self.inner;
        let bucket = inner.bounds.partition_point(|&bound| bound < number);
        if let Some(count) = inner.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        inner.sum.fetch_add(number, Relaxed);
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").finish_non_exhaustive()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floats; a sum beyond 2^53 ns is one of a hundred days"
    )]
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let inner = &*self.inner;
        // The count is that of the buckets, so that the two agree while others go on counting.
        let mut total = 0;
        let bounds = inner.bounds.iter().map(|&bound| bound as f64 / inner.unit);
        let buckets: Vec<(f64, u64)> = bounds
            .chain([f64::INFINITY])
            .zip(&inner.counts)
            .map(|(bound, count)| {
                let count = count.load(Relaxed);
                total += count;
                (bound, count)
            })
            .collect();
        let sum = inner.sum.load(Relaxed) as f64 / inner.unit;
        encoder.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_bucket_holds_what_is_as_large_as_its_bound_and_the_last_holds_the_rest() {
        let histogram = Histogram::of_rows();
        for number in [0, 1, 2, 3, 100_000, 100_001, u64::from(u32::MAX)] {
            histogram.observe_number(number);
        }
        let spans = Histogram::of_spans();
        spans.observe(Duration::from_micros(1500));
        let mut registry = Registry::default();
        registry.register("rows", "Rows", histogram);
        registry.register("spans", "Spans", spans);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"rows_bucket{le="1.0"} 2"#,
            r#"rows_bucket{le="2.0"} 3"#,
            r#"rows_bucket{le="5.0"} 4"#,
            r#"rows_bucket{le="10000.0"} 4"#,
            r#"rows_bucket{le="100000.0"} 5"#,
            r#"rows_bucket{le="+Inf"} 7"#,
            "rows_count 7",
            r#"spans_bucket{le="0.001"} 0"#,
            r#"spans_bucket{le="0.002"} 1"#,
            "spans_sum 0.0015",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
