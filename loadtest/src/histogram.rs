//! Latency histograms: nanoseconds inside, microseconds outside.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Largest latency that is told apart, ten minutes; beyond it values count as ten minutes.
const LARGEST_NS: u64 = 600_000_000_000;
/// Three significant digits: 0.1 % of the value, 0.4 MB of memory.
const DIGITS: u8 = 3;

/// A distribution of durations.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LARGEST_NS, DIGITS).expect("constant bounds are in order");
        Self { histogram }
    }
}

impl Latencies {
    /// Adds one value.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LARGEST_NS).clamp(1, LARGEST_NS));
    }

    /// Adds another distribution.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
    }

    /// Number of values above a limit, to the histogram's resolution.
    pub(crate) fn above(&self, limit: Duration) -> u64 {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(LARGEST_NS).clamp(1, LARGEST_NS);
        self.histogram.len() - self.histogram.count_between(0, limit)
    }

    /// The figures that reports use; `None` without values.
    pub(crate) fn summary(&self) -> Option<Summary> {
        if self.histogram.is_empty() {
            return None;
        }
        let micros = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Summary {
            count: self.histogram.len(),
            mean_us: self.histogram.mean() / 1e3,
            p50_us: micros(0.5),
            p90_us: micros(0.9),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: self.histogram.max() as f64 / 1e3,
        })
    }
}

/// A distribution in a few numbers, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Number of values.
    pub(crate) count: u64,
    /// Arithmetic mean.
    pub(crate) mean_us: f64,
    /// Median.
    pub(crate) p50_us: f64,
    /// 90th percentile.
    pub(crate) p90_us: f64,
    /// 99th percentile.
    pub(crate) p99_us: f64,
    /// 99.9th percentile.
    pub(crate) p999_us: f64,
    /// Largest value.
    pub(crate) max_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut latencies = Latencies::default();
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let summary = latencies.summary().unwrap();
        assert!((summary.p50_us - 500.0).abs() < 1.0, "{summary:?}");
        assert!((summary.p99_us - 990.0).abs() < 1.5, "{summary:?}");
        assert!((summary.max_us - 1000.0).abs() < 1.5, "{summary:?}");
        assert!((summary.mean_us - 500.5).abs() < 1.0, "{summary:?}");
        assert_eq!(latencies.above(Duration::from_micros(900)), 100);
    }

    #[test]
    fn merging_adds_the_values() {
        let (mut one, mut two) = (Latencies::default(), Latencies::default());
        one.record(Duration::from_millis(1));
        two.record(Duration::from_millis(3));
        one.merge(&two);
        assert_eq!(one.summary().unwrap().count, 2);
        assert!((one.summary().unwrap().max_us - 3000.0).abs() < 4.0);
    }

    #[test]
    fn values_out_of_range_are_kept_at_the_bound() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(100_000));
        assert_eq!(latencies.summary().unwrap().count, 2);
        assert!(Latencies::default().summary().is_none());
    }
}
