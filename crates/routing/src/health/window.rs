//! Successes and failures of the last 30 seconds.

use std::time::Duration;

use crate::Timestamp;

/// A sliding count in ten buckets of three seconds: fine enough to expire smoothly, cheap enough to sum on every decision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    buckets: [Bucket; BUCKETS as usize],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Number of the three seconds this bucket counts; older numbers are leftovers.
    epoch: u64,
    counts: Counts,
}

/// Weighted samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Attempts that worked.
    pub(crate) ok: f64,
    /// Attempts that failed by the endpoint's fault; a soft failure is half of one.
    pub(crate) failed: f64,
    /// Attempts that failed in a way that says nothing about outages (unknown model): they lower the weight only.
    pub(crate) missing: f64,
}

impl Counts {
    /// One success.
    pub(crate) const OK: Counts = Counts { ok: 1.0, failed: 0.0, missing: 0.0 };
    /// One hard failure.
    pub(crate) const HARD: Counts = Counts { ok: 0.0, failed: 1.0, missing: 0.0 };
    /// One soft failure: half a failure and half a success, so that it still is one sample.
    pub(crate) const SOFT: Counts = Counts { ok: 0.5, failed: 0.5, missing: 0.0 };
    /// One answer that the model is unknown.
    pub(crate) const MISSING: Counts = Counts { ok: 0.0, failed: 0.0, missing: 1.0 };

    /// Samples that speak about health.
    pub(crate) fn total(&self) -> f64 {
        self.ok + self.failed
    }

    /// Share of failures; 0 without samples.
    pub(crate) fn failure_ratio(&self) -> f64 {
        if self.total() > 0.0 { self.failed / self.total() } else { 0.0 }
    }

    fn add(&mut self, other: Counts) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.missing += other.missing;
    }
}

impl Window {
    /// How far it looks back.
    pub(crate) const LENGTH: Duration = Duration::from_micros(BUCKETS * BUCKET_MICROS);

    /// Adds a sample.
    pub(crate) fn record(&mut self, counts: Counts, now: Timestamp) {
        let epoch = epoch(now);
        let bucket = &mut self.buckets[(epoch % BUCKETS) as usize];
        if bucket.epoch != epoch {
            *bucket = Bucket { epoch, counts: Counts::default() };
        }
        bucket.counts.add(counts);
    }

    /// Everything of the last 30 seconds.
    pub(crate) fn counts(&self, now: Timestamp) -> Counts {
        let epoch = epoch(now);
        let mut sum = Counts::default();
        for bucket in &self.buckets {
            if bucket.epoch + BUCKETS > epoch && bucket.epoch <= epoch {
                sum.add(bucket.counts);
            }
        }
        sum
    }
}

/// Epochs start at 1, so that an unused bucket never looks current.
fn epoch(now: Timestamp) -> u64 {
    now.micros() / BUCKET_MICROS + 1
}

const BUCKETS: u64 = 10;
const BUCKET_MICROS: u64 = 3_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_expire_bucket_by_bucket() {
        let mut window = Window::default();
        let second = |second: u64| Timestamp(second * 1_000_000);
        window.record(Counts::HARD, second(0));
        window.record(Counts::OK, second(10));
        assert_eq!(window.counts(second(29)).total(), 2.0);
        assert_eq!(window.counts(second(30)), Counts::OK);
        assert_eq!(window.counts(second(60)), Counts::default());
        window.record(Counts::SOFT, second(61));
        assert_eq!(window.counts(second(61)).failure_ratio(), 0.5);
    }
}
