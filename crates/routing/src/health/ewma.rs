//! Exponentially fading estimates over irregular samples.

use std::time::Duration;

use crate::{Settings, Timestamp};

/// A mean that forgets with a time constant, whatever the rate of samples.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ewma {
    estimate: Option<(f64, Timestamp)>,
}

impl Ewma {
    /// Adds a sample.
    pub(crate) fn observe(&mut self, sample: f64, fade: Duration, now: Timestamp) {
        self.estimate = Some(match self.estimate {
            None => (sample, now),
            Some((old, at)) => {
                // Samples of one burst share a moment; a floor lets each of them count a little.
                let age = now.seconds_since(at).max(LEAST_AGE);
                let keep = (-age / fade.as_secs_f64()).exp();
                (old * keep + sample * (1.0 - keep), now)
            }
        });
    }

    /// The estimate, if there was a sample.
    pub(crate) fn get(&self) -> Option<f64> {
        self.estimate.map(|(value, _)| value)
    }
}

/// Time to first token that rises fast, falls slowly, and drifts back to its long-run mean while nobody looks.
///
/// The classic peak-sensitive mean jumps straight to a high sample; first-token times are heavy-tailed, so the jump is damped.
/// Without the drift an endpoint that failed once would keep its penalty for as long as it is avoided, that is, for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeakEwma {
    peak: Option<(f64, Timestamp)>,
    /// Long-run mean of real samples, without penalties.
    base: Ewma,
}

impl PeakEwma {
    /// Adds a measured time, in seconds.
    pub(crate) fn observe(&mut self, seconds: f64, settings: &Settings, now: Timestamp) {
        self.base.observe(seconds, settings.limit_long, now);
        self.blend(seconds, settings, now);
    }

    /// Adds what a failure counts as, in seconds.
    pub(crate) fn penalise(&mut self, seconds: f64, settings: &Settings, now: Timestamp) {
        if self.get(settings, now).is_none_or(|current| current < seconds) {
            self.blend(seconds, settings, now);
        }
    }

    /// The estimate now, in seconds.
    pub(crate) fn get(&self, settings: &Settings, now: Timestamp) -> Option<f64> {
        let (peak, at) = self.peak?;
        let idle = now.seconds_since(at) / settings.first_token_fall.as_secs_f64();
        match self.base.get() {
            // Only failures so far: after a while nothing is known again.
            None => (idle < FORGOTTEN).then_some(peak),
            Some(base) if peak <= base || idle < FRESH => Some(peak),
            Some(base) => Some(base + (peak - base) * (-idle).exp()),
        }
    }

    /// Whether anything real was ever measured.
    pub(crate) fn is_measured(&self) -> bool {
        self.base.get().is_some()
    }

    fn blend(&mut self, seconds: f64, settings: &Settings, now: Timestamp) {
        let (Some((old, at)), Some(drifted)) = (self.peak, self.get(settings, now)) else {
            self.peak = Some((seconds, now));
            return;
        };
        let age = now.seconds_since(at);
        let value = if seconds > drifted {
            let age = age.max(settings.first_token_rise_least.as_secs_f64());
            drifted + (seconds - drifted) * (1.0 - (-age / settings.first_token_rise.as_secs_f64()).exp())
        } else {
            let keep = (-age.max(LEAST_AGE) / settings.first_token_fall.as_secs_f64()).exp();
            (old * keep + seconds * (1.0 - keep)).min(drifted)
        };
        self.peak = Some((value, now));
    }
}

/// Seconds that separate two samples at least.
const LEAST_AGE: f64 = 0.01;
/// Time constants after which failures alone are forgotten.
const FORGOTTEN: f64 = 3.0;
/// Share of the time constant below which the drift is not worth an exponential.
const FRESH: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(millis * 1_000)
    }

    #[test]
    fn rises_fast_and_falls_slowly() {
        let settings = Settings::default();
        let mut estimate = PeakEwma::default();
        estimate.observe(1.0, &settings, at(0));
        estimate.observe(5.0, &settings, at(1_000));
        let risen = estimate.get(&settings, at(1_000)).unwrap();
        assert!((3.4..3.6).contains(&risen), "{risen}");
        estimate.observe(1.0, &settings, at(2_000));
        let fallen = estimate.get(&settings, at(2_000)).unwrap();
        assert!((3.2..3.4).contains(&fallen), "{fallen}");
    }

    #[test]
    fn a_burst_of_slow_answers_still_counts() {
        let settings = Settings::default();
        let mut estimate = PeakEwma::default();
        estimate.observe(1.0, &settings, at(0));
        estimate.observe(5.0, &settings, at(0));
        assert!(estimate.get(&settings, at(0)).unwrap() > 1.8);
    }

    #[test]
    fn a_penalty_fades_while_the_endpoint_is_avoided() {
        let settings = Settings::default();
        let mut estimate = PeakEwma::default();
        estimate.observe(0.5, &settings, at(0));
        for second in 1..6 {
            estimate.penalise(5.0, &settings, at(second * 1_000));
        }
        assert!(estimate.get(&settings, at(5_000)).unwrap() > 4.0);
        let later = estimate.get(&settings, at(65_000)).unwrap();
        assert!(later < 0.55, "{later}");
    }

    #[test]
    fn failures_alone_are_forgotten() {
        let settings = Settings::default();
        let mut estimate = PeakEwma::default();
        estimate.penalise(5.0, &settings, at(0));
        assert_eq!(estimate.get(&settings, at(10_000)), Some(5.0));
        assert_eq!(estimate.get(&settings, at(30_000)), None);
    }

    #[test]
    fn the_mean_follows_its_time_constant() {
        let mut speed = Ewma::default();
        speed.observe(100.0, Duration::from_secs(30), at(0));
        speed.observe(0.0, Duration::from_secs(30), at(30_000));
        let value = speed.get().unwrap();
        assert!((36.0..38.0).contains(&value), "{value}");
    }
}
