//! What a run measured, as it is printed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::timeline::Timeline;

/// The longest time that is told apart, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;
const DIGITS: u8 = 3;

/// Times, in nanoseconds.
pub struct Times(Histogram<u64>);

impl Times {
    /// None yet.
    pub fn new() -> anyhow::Result<Self> {
        Histogram::new_with_bounds(1, LONGEST, DIGITS)
            .map(Self)
            .context("no histogram of these bounds")
    }

    /// One more.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(LONGEST);
        self.0.saturating_record(nanos.max(1));
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// What of them is printed.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.0.len(),
            mean: self.0.mean() / 1e3,
            p50: self.micros(0.5),
            p90: self.micros(0.9),
            p99: self.micros(0.99),
            p999: self.micros(0.999),
            max: self.0.max() as f64 / 1e3,
        }
    }

    /// Points of the distribution, for a picture: the share of requests, and within how many
    /// microseconds they were answered.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let shares = (0..=40).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 10.0));
        shares.map(|share| (share, self.micros(share))).collect()
    }
}

/// Microseconds.
#[derive(Serialize)]
pub struct Quantiles {
    /// How many there were.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// That of 9 in 10.
    pub p90: f64,
    /// That of 99 in 100.
    pub p99: f64,
    /// That of 999 in 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// What a run measured.
#[derive(Serialize)]
pub struct Outcome {
    /// Requests that were answered right, as far as was checked.
    pub right: u64,
    /// Seconds from the first request to the end.
    pub seconds: f64,
    /// Right answers per second.
    pub per_second: f64,
    /// Of right answers, from when the request was due; in a closed loop, from when it was sent.
    pub latency: Quantiles,
    /// The distribution of the same.
    pub points: Vec<(f64, f64)>,
    /// How late requests were sent although a connection was free: what the generator adds.
    pub late: Quantiles,
    /// Of answers that were errors.
    pub error_latency: Quantiles,
    /// Errors, by what they were.
    pub errors: BTreeMap<String, u64>,
    /// How many answers were compared with what they had to be.
    pub checked: u64,
    /// How many of these were wrong.
    pub wrong: u64,
    /// The first wrong answer.
    pub first_wrong: Option<String>,
    /// The length of the last right answer's body.
    pub body_bytes: usize,
    /// Right answers, errors and wrong answers over time, if asked for.
    pub timeline: Option<Timeline>,
}
