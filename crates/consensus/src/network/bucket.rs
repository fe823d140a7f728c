//! A token bucket for bytes. Pure: the caller brings the time and sleeps.

use std::time::Duration;

/// Lets so many bytes through in each second, and one burst.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    bytes_per_second: u64,
    burst: u64,
    /// Bytes taken beyond what has flowed in; what is owed is waited for.
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket at the time `now`.
    pub(super) fn new(bytes_per_second: u64, burst: u64, now: Duration) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), burst, level: burst as f64, at: now }
    }

    /// Takes bytes and says how long to wait before sending them.
    pub(super) fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let flowed = now.saturating_sub(self.at).as_secs_f64() * self.bytes_per_second as f64;
        self.level = (self.level + flowed).min(self.burst as f64) - bytes as f64;
        self.at = now;
        if self.level >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.level / self.bytes_per_second as f64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_transfer_takes_its_time_and_no_more() {
        let mut bucket = Bucket::new(1_000, 500, Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            now += bucket.take(100, now);
        }
        // 10,000 bytes, 500 of them at once.
        assert!((now.as_secs_f64() - 9.5).abs() < 0.01, "{now:?}");
        now += Duration::from_secs(60);
        assert_eq!(bucket.take(500, now), Duration::ZERO, "a pause refills one burst");
        assert!(bucket.take(100, now) > Duration::ZERO, "and not more");
    }
}
