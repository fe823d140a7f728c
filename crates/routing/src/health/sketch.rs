//! Percentiles in constant memory.
//!
//! Counts in buckets whose bounds grow by a fixed factor: 2^(1/4), so an answer is off by at most 9 %. That is enough for
//! timeouts, for the caller's percentile bounds and for what the public lists show.

use serde::{Deserialize, Serialize};

/// Percentiles of one measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 75th percentile.
    pub p75: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// A histogram of positive values. 160 bytes.
#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    counts: [u16; BUCKETS],
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch { counts: [0; BUCKETS] }
    }
}

impl Sketch {
    /// Adds a value.
    pub(crate) fn record(&mut self, value: f64) {
        let bucket = &mut self.counts[bucket_of(value)];
        *bucket += 1;
        if *bucket == u16::MAX {
            self.halve();
        }
    }

    /// Halves every count: the shape stays, the past weighs less.
    pub(crate) fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.counts = [0; BUCKETS];
    }

    /// Number of values.
    pub(crate) fn len(&self) -> u32 {
        self.counts.iter().map(|count| u32::from(*count)).sum()
    }

    /// The value below which the share `quantile` lies.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let mut sum = Sum::default();
        sum.add(self);
        sum.quantile(quantile)
    }
}

/// Several sketches taken together.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum { counts: [0; BUCKETS], total: 0 }
    }
}

impl Sum {
    /// Takes one more in.
    pub(crate) fn add(&mut self, sketch: &Sketch) {
        for (sum, count) in self.counts.iter_mut().zip(sketch.counts) {
            *sum += u32::from(count);
            self.total += u32::from(count);
        }
    }

    /// The value below which the share `quantile` lies.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        if self.total == 0 {
            return None;
        }
        let rank = (quantile * f64::from(self.total)).ceil().max(1.0) as u32;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(middle_of(at));
            }
        }
        None
    }

    /// The four percentiles people look at.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        Some(Percentiles { p50: self.quantile(0.5)?, p75: self.quantile(0.75)?, p90: self.quantile(0.9)?, p99: self.quantile(0.99)? })
    }
}

fn bucket_of(value: f64) -> usize {
    // Whatever is not a sensible number lands at an end: `max` drops a NaN, and `as` saturates.
    let steps = (value / LOWEST).max(1.0).log2() * STEPS_PER_DOUBLING;
    (steps as usize).min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> f64 {
    LOWEST * ((bucket as f64 + 0.5) / STEPS_PER_DOUBLING).exp2()
}

const BUCKETS: usize = 80;
const STEPS_PER_DOUBLING: f64 = 4.0;
/// Lower bound of the first bucket. With 80 buckets the last begins at about 8,800: seconds to a first token and tokens per
/// second both fit in between.
const LOWEST: f64 = 0.01;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halving_keeps_the_shape_when_a_count_would_overflow() {
        let mut sketch = Sketch::default();
        for _ in 0..70_000 {
            sketch.record(1.0);
        }
        for _ in 0..70_000 {
            sketch.record(10.0);
        }
        let median = sketch.quantile(0.25).unwrap();
        assert!((0.9..1.1).contains(&median), "{median}");
        assert!(sketch.len() > 30_000);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_a_tenth(values in prop::collection::vec(0.02_f64..5_000.0, 1..300), quantile in 0.01_f64..1.0) {
            let mut sketch = Sketch::default();
            values.iter().for_each(|value| sketch.record(*value));
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            let rank = ((quantile * sorted.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1];
            let answer = sketch.quantile(quantile).unwrap();
            prop_assert!((answer / exact - 1.0).abs() < 0.1, "{} for {}", answer, exact);
        }
    }
}
