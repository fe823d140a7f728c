//! How long to wait before trying again: exponential growth with jitter. Pure; the caller sleeps.
//!
//! Jitter is what keeps a thousand clients that lost the same server from returning in step. The two schemes are "full" and
//! "decorrelated" of Marc Brooker's *Exponential Backoff And Jitter* (AWS Architecture Blog, 2015). There is no limit on the number
//! of tries here: whether to go on is decided by who retries.

use std::time::Duration;

/// Bounds of the waiting times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffBounds {
    /// Shortest wait, and the base of the growth.
    pub base: Duration,
    /// Longest wait.
    pub cap: Duration,
}

impl BackoffBounds {
    /// Anything between zero and `base * 2^attempt`, at most the cap. `attempt` counts from 0.
    pub fn full_jitter(&self, attempt: u32, random: &mut fastrand::Rng) -> Duration {
        self.exponential(attempt).mul_f64(random.f64())
    }

    /// `base * 2^attempt`, at most the cap, without jitter. `attempt` counts from 0.
    pub fn exponential(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

/// A growing wait that remembers the last one.
#[derive(Debug, Clone)]
pub struct Backoff {
    bounds: BackoffBounds,
    previous: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// Starts at the base. Equal seeds give equal waits.
    pub fn new(bounds: BackoffBounds, seed: u64) -> Self {
        Self { bounds, previous: bounds.base, random: fastrand::Rng::with_seed(seed) }
    }

    /// The next wait: between the base and three times the previous one, at most the cap.
    pub fn next_wait(&mut self) -> Duration {
        let BackoffBounds { base, cap } = self.bounds;
        let highest = self.previous.saturating_mul(3).min(cap);
        let span = highest.saturating_sub(base);
        self.previous = base.saturating_add(span.mul_f64(self.random.f64())).min(cap);
        self.previous
    }

    /// Forgets the failures, to be called after a success.
    pub fn reset(&mut self) {
        self.previous = self.bounds.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: BackoffBounds = BackoffBounds { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

    #[test]
    fn waits_stay_within_the_bounds_and_reach_high_values() {
        let mut backoff = Backoff::new(BOUNDS, 7);
        let waits: Vec<Duration> = (0..200).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().all(|w| (BOUNDS.base..=BOUNDS.cap).contains(w)));
        assert!(waits.iter().any(|w| *w > Duration::from_secs(5)));
    }

    #[test]
    fn the_first_wait_is_at_most_three_times_the_base() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(BOUNDS, seed);
            for _ in 0..10 {
                backoff.next_wait();
            }
            backoff.reset();
            assert!(backoff.next_wait() <= BOUNDS.base * 3);
        }
    }

    #[test]
    fn exponential_growth_saturates_at_the_cap() {
        assert_eq!(BOUNDS.exponential(0), BOUNDS.base);
        assert_eq!(BOUNDS.exponential(3), BOUNDS.base * 8);
        assert_eq!(BOUNDS.exponential(1_000), BOUNDS.cap);
        let mut random = fastrand::Rng::with_seed(1);
        assert!(BOUNDS.full_jitter(1_000, &mut random) <= BOUNDS.cap);
    }

    #[test]
    fn a_cap_below_the_base_wins() {
        let bounds = BackoffBounds { base: Duration::from_secs(2), cap: Duration::from_secs(1) };
        assert_eq!(Backoff::new(bounds, 1).next_wait(), bounds.cap);
    }
}
