//! How many edges, and how many new ones per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tidegate_runtime::Clock;

/// Bounds of the sync service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncLimits {
    /// Edges at once.
    pub streams: usize,
    /// New streams per second; as many may come at once after a quiet second.
    pub new_per_second: u32,
    /// Snapshots at once; further ones wait for their turn.
    pub snapshots: usize,
    /// Youngest age at which a stream is renewed, so that edges spread over nodes again. The oldest is twice that.
    pub max_age: Duration,
}

impl Default for SyncLimits {
    fn default() -> Self {
        Self { streams: 5_000, new_per_second: 50, snapshots: 8, max_age: Duration::from_secs(30 * 60) }
    }
}

impl SyncLimits {
    /// Age of one stream; `random` is uniform in 0 to 1.
    pub(super) fn age(&self, random: f64) -> Duration {
        self.max_age.mul_f64(1.0 + random.clamp(0.0, 1.0))
    }
}

/// Why a stream is not taken now. The edge comes again after a while, or goes elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Full {
    #[error("this control node serves as many edges as it may")]
    Streams,
    #[error("too many edges connect at once; come again shortly")]
    Rate,
}

/// Counts streams.
pub(super) struct Admission {
    limits: SyncLimits,
    clock: Clock,
    open: Arc<AtomicUsize>,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    tokens: f64,
    filled_micros: u64,
}

/// A counted stream; dropping it counts it out.
#[derive(Debug)]
pub(super) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub(super) fn new(limits: SyncLimits, clock: Clock) -> Self {
        let bucket = Bucket { tokens: f64::from(limits.new_per_second), filled_micros: clock.micros() };
        Self { limits, clock, open: Arc::default(), bucket: Mutex::new(bucket) }
    }

    pub(super) fn admit(&self) -> Result<Seat, Full> {
        if !self.bucket.lock().take(f64::from(self.limits.new_per_second), self.clock.micros()) {
            return Err(Full::Rate);
        }
        let seat = Seat(Arc::clone(&self.open));
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.limits.streams {
            return Err(Full::Streams);
        }
        Ok(seat)
    }
}

impl Bucket {
    fn take(&mut self, per_second: f64, now_micros: u64) -> bool {
        let elapsed = now_micros.saturating_sub(self.filled_micros) as f64 / 1e6;
        self.filled_micros = now_micros;
        self.tokens = (self.tokens + elapsed * per_second).min(per_second);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_their_rate_are_bounded() {
        let limits = SyncLimits { streams: 2, new_per_second: 3, ..SyncLimits::default() };
        let admission = Admission::new(limits, Clock::start());
        let one = admission.admit().unwrap();
        let _two = admission.admit().unwrap();
        assert_eq!(admission.admit().unwrap_err(), Full::Streams);
        assert_eq!(admission.admit().unwrap_err(), Full::Rate, "refused ones count too: they cost a handshake");
        drop(one);
        assert_eq!(admission.open.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_bucket_fills_with_time() {
        let mut bucket = Bucket { tokens: 0.0, filled_micros: 0 };
        assert!(!bucket.take(50.0, 10_000));
        assert!(bucket.take(50.0, 20_000));
        assert!(!bucket.take(50.0, 20_000));
        let taken = (0..100).filter(|_| bucket.take(50.0, 60_000_000)).count();
        assert_eq!(taken, 50, "a quiet minute saves up no more than a second's worth");
    }

    #[test]
    fn ages_are_spread() {
        let limits = SyncLimits::default();
        assert_eq!(limits.age(0.0), Duration::from_secs(1_800));
        assert_eq!(limits.age(1.0), Duration::from_secs(3_600));
    }
}
