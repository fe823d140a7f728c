//! Slowing guessers down: failed key checks per address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;

/// Counts failed checks per address, in windows of a minute. Memory is bounded by the cache's capacity.
pub(crate) struct FailureLimiter {
    failures: Cache<IpAddr, Arc<AtomicU32>>,
    most: u32,
    /// Microseconds of the latest failure: while nobody fails, nobody pays for the look-up.
    latest: AtomicU64,
}

impl FailureLimiter {
    pub(crate) fn new(most: u32) -> Self {
        let failures = Cache::builder().max_capacity(ADDRESSES).time_to_live(WINDOW).build();
        Self { failures, most, latest: AtomicU64::new(0) }
    }

    /// True when this address has failed too often within the last minute.
    pub(crate) fn is_blocked(&self, address: IpAddr, now_micros: u64) -> bool {
        let latest = self.latest.load(Ordering::Relaxed);
        if self.most == 0 || latest == 0 || now_micros.saturating_sub(latest) > WINDOW.as_micros() as u64 {
            return false;
        }
        self.failures.get(&address).is_some_and(|count| count.load(Ordering::Relaxed) >= self.most)
    }

    /// Notes a failed check.
    pub(crate) fn failed(&self, address: IpAddr, now_micros: u64) {
        if self.most == 0 {
            return;
        }
        self.latest.store(now_micros.max(1), Ordering::Relaxed);
        self.failures.get_with(address, Arc::default).fetch_add(1, Ordering::Relaxed);
    }
}

/// Failures are counted over this, and forgotten after it.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered at once.
const ADDRESSES: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guesser_is_blocked_and_others_are_not() {
        let limiter = FailureLimiter::new(2);
        let (guesser, other) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        assert!(!limiter.is_blocked(guesser, 5));
        limiter.failed(guesser, 5);
        limiter.failed(guesser, 6);
        assert!(limiter.is_blocked(guesser, 7));
        assert!(!limiter.is_blocked(other, 7));
        assert!(!limiter.is_blocked(guesser, 7 + 61_000_000), "nobody failed for a minute");
    }
}
