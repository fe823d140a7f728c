//! How many requests at once an endpoint takes well, learned from its time to first token.
//!
//! The gradient form: the limit is multiplied by tolerated over current slowness and grows by its square root, so it hovers
//! just above what the endpoint can do. Total time depends on how much is written, so only the first token counts. It moves
//! only when concurrency can be the cause: it grows when the limit was half used, and shrinks by slowness only above the
//! least limit. A 429, 503 or 529 shrinks it directly.

use super::ewma::Ewma;
use crate::{Settings, Timestamp};

#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    limit: f64,
    /// Time to first token relative to what is usual for its prompt class.
    short: Ewma,
    long: Ewma,
    samples: u32,
    /// Most requests in flight since the last step.
    busiest: u32,
    stepped: Timestamp,
    backed_off: Option<Timestamp>,
}

impl Limiter {
    pub(crate) fn new(settings: &Settings) -> Limiter {
        Limiter {
            limit: settings.limit_initial,
            short: Ewma::default(),
            long: Ewma::default(),
            samples: 0,
            busiest: 0,
            stepped: Timestamp(0),
            backed_off: None,
        }
    }

    /// Most requests at once.
    pub(crate) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Hears of a first token after `seconds`, seen with `in_flight` requests at once.
    pub(crate) fn observe(&mut self, seconds: f64, in_flight: u32, settings: &Settings, now: Timestamp) {
        self.short.observe(seconds, settings.limit_short, now);
        self.long.observe(seconds, settings.limit_long, now);
        self.samples += 1;
        self.busiest = self.busiest.max(in_flight);
        if self.samples < settings.limit_samples || now.since(self.stepped) < settings.limit_step {
            return;
        }
        self.step(settings);
        self.samples = 0;
        self.busiest = 0;
        self.stepped = now;
    }

    /// Hears that the provider refused for load.
    pub(crate) fn back_off(&mut self, settings: &Settings, now: Timestamp) {
        if self.backed_off.is_some_and(|last| now.since(last) < settings.limit_step) {
            return;
        }
        self.backed_off = Some(now);
        self.limit = (self.limit * settings.limit_backoff).clamp(settings.limit_least, settings.limit_most);
    }

    fn step(&mut self, settings: &Settings) {
        let (Some(short), Some(long)) = (self.short.get(), self.long.get()) else {
            return;
        };
        let gradient = (settings.limit_tolerance * long / short.max(LEAST_SECONDS)).clamp(0.5, 1.0);
        let busiest = f64::from(self.busiest);
        let slower = gradient < 1.0;
        if !slower && busiest < self.limit / 2.0 {
            return;
        }
        if slower && busiest <= settings.limit_least {
            return;
        }
        let target = self.limit * gradient + self.limit.sqrt();
        let smoothed = self.limit + (target - self.limit) * settings.limit_smoothing;
        self.limit = smoothed.clamp(settings.limit_least, settings.limit_most);
    }
}

/// Keeps the ratio finite.
const LEAST_SECONDS: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(limiter: &mut Limiter, from: u64, seconds: u64, first_token: f64, in_flight: u32) {
        let settings = Settings::default();
        for tick in 0..seconds * 20 {
            let now = Timestamp(from * 1_000_000 + tick * 50_000);
            limiter.observe(first_token, in_flight, &settings, now);
        }
    }

    #[test]
    fn grows_while_it_is_used_and_stays_while_it_is_not() {
        let settings = Settings { limit_initial: 20.0, ..Settings::default() };
        let mut limiter = Limiter::new(&settings);
        run(&mut limiter, 0, 10, 0.5, 2);
        assert_eq!(limiter.limit(), 20);
        run(&mut limiter, 10, 10, 0.5, 20);
        assert!(limiter.limit() > 25, "{}", limiter.limit());
    }

    #[test]
    fn shrinks_when_first_tokens_slow_down_under_load() {
        let settings = Settings { limit_initial: 100.0, ..Settings::default() };
        let mut limiter = Limiter::new(&settings);
        run(&mut limiter, 0, 5, 0.5, 10);
        run(&mut limiter, 5, 5, 5.0, 80);
        assert!(limiter.limit() < 90, "{}", limiter.limit());
    }

    #[test]
    fn a_refusal_backs_off_at_most_once_per_second_and_not_below_the_least() {
        let settings = Settings { limit_initial: 100.0, ..Settings::default() };
        let mut limiter = Limiter::new(&settings);
        for _ in 0..10 {
            limiter.back_off(&settings, Timestamp(1_000_000));
        }
        assert_eq!(limiter.limit(), 80);
        for second in 2..100 {
            limiter.back_off(&settings, Timestamp(second * 1_000_000));
        }
        assert_eq!(limiter.limit(), 4);
    }
}
