//! Stops sending to an endpoint that does not work, and lets it prove that it works again.
//!
//! Three ways open it: hard failures in a row, a failure ratio, or a failure ratio far above the peers'. It reopens for
//! twice as long each time it fails again soon, and one probe at a time closes it. Whether an ejection is *honoured* is not
//! decided here: the plan ignores ejections when too much of a model would be gone.

use serde::{Deserialize, Serialize};

use super::window::Counts;
use crate::{Settings, Timestamp};

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Everything.
    Closed,
    /// One probe at a time.
    HalfOpen,
    /// Nothing before `until`.
    Open {
        /// When the first probe may go.
        until: Timestamp,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Breaker {
    phase: Phase,
    /// Hard failures since the last success.
    consecutive: u32,
    /// Openings remembered; each doubles the next open time.
    openings: u32,
    /// Since when nothing has opened it, or one opening was last forgotten.
    healthy_since: Timestamp,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    /// Open until the moment, half-open after it.
    Tripped {
        until: Timestamp,
        successes: u32,
        probing: bool,
    },
}

/// Failure counts a breaker judges by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    /// The endpoint's own window, this failure included.
    pub(crate) counts: Counts,
    /// Median failure ratio of the model's other endpoints; `None` if there is none to compare with.
    pub(crate) peers: Option<f64>,
    /// Whether others report it as degraded: the bar is lower then.
    pub(crate) degraded: bool,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker { phase: Phase::Closed, consecutive: 0, openings: 0, healthy_since: Timestamp(0) }
    }
}

impl Breaker {
    /// What it lets through now.
    pub(crate) fn state(&self, now: Timestamp) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Tripped { until, .. } if now < until => BreakerState::Open { until },
            Phase::Tripped { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether a probe is on its way.
    pub(crate) fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Tripped { probing: true, .. })
    }

    /// Takes the probe token. False when someone else has it, or there is nothing to probe.
    pub(crate) fn begin_probe(&mut self, now: Timestamp) -> bool {
        match &mut self.phase {
            Phase::Tripped { until, probing, .. } if now >= *until && !*probing => {
                *probing = true;
                true
            }
            Phase::Closed | Phase::Tripped { .. } => false,
        }
    }

    /// Gives the probe token back without a verdict: a 429, a caller's fault, a caller who left.
    pub(crate) fn abandon_probe(&mut self) {
        if let Phase::Tripped { probing, .. } = &mut self.phase {
            *probing = false;
        }
    }

    /// Hears of a success. True when that closed the breaker.
    pub(crate) fn succeeded(&mut self, probe: bool, settings: &Settings, now: Timestamp) -> bool {
        self.consecutive = 0;
        match &mut self.phase {
            Phase::Closed => {
                self.forget(settings, now);
                false
            }
            // An old request that was under way when it opened proves nothing about now.
            Phase::Tripped { .. } if !probe => false,
            Phase::Tripped { successes, probing, .. } => {
                *probing = false;
                *successes += 1;
                if *successes < settings.breaker_close_successes {
                    return false;
                }
                self.phase = Phase::Closed;
                self.healthy_since = now;
                true
            }
        }
    }

    /// Hears of a failure. `jitter` is a draw from −1 to 1. True when that opened the breaker.
    pub(crate) fn failed(
        &mut self,
        hard: bool,
        probe: bool,
        evidence: &Evidence,
        jitter: f64,
        settings: &Settings,
        now: Timestamp,
    ) -> bool {
        if hard {
            self.consecutive = self.consecutive.saturating_add(1);
        }
        let trips = match self.phase {
            Phase::Closed => {
                self.forget(settings, now);
                self.is_over_the_bar(evidence, settings)
            }
            Phase::Tripped { .. } => probe,
        };
        if trips {
            self.open(jitter, settings, now);
        }
        trips
    }

    /// Closes because the region proved the endpoint well.
    pub(crate) fn close(&mut self, now: Timestamp) {
        self.phase = Phase::Closed;
        self.consecutive = 0;
        self.healthy_since = now;
    }

    fn is_over_the_bar(&self, evidence: &Evidence, settings: &Settings) -> bool {
        let in_a_row = if evidence.degraded { settings.breaker_consecutive_degraded } else { settings.breaker_consecutive };
        let counts = evidence.counts;
        let ratio = counts.failure_ratio();
        self.consecutive >= in_a_row
            || (counts.total() >= settings.breaker_ratio_samples && ratio >= settings.breaker_ratio)
            || (counts.total() >= settings.breaker_peer_samples
                && evidence.peers.is_some_and(|median| ratio >= settings.breaker_peer_factor * median + settings.breaker_peer_margin))
    }

    fn open(&mut self, jitter: f64, settings: &Settings, now: Timestamp) {
        let doublings = self.openings.min(MOST_DOUBLINGS);
        let length = settings.breaker_open.saturating_mul(1 << doublings).min(settings.breaker_open_cap);
        let until = now + length.mul_f64((1.0 + settings.jitter * jitter).max(0.0));
        self.openings = (doublings + 1).min(MOST_DOUBLINGS);
        self.consecutive = 0;
        self.healthy_since = now;
        self.phase = Phase::Tripped { until, successes: 0, probing: false };
    }

    /// Forgets one opening per healthy minute.
    fn forget(&mut self, settings: &Settings, now: Timestamp) {
        while self.openings > 0 && now.since(self.healthy_since) >= settings.breaker_forget {
            self.openings -= 1;
            self.healthy_since = self.healthy_since + settings.breaker_forget.max(std::time::Duration::from_micros(1));
        }
    }
}

/// Far beyond the cap with any sensible first open time, and far from overflowing the shift.
const MOST_DOUBLINGS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY_PEERS: Evidence = Evidence { counts: Counts { ok: 0.0, failed: 0.0, missing: 0.0 }, peers: Some(0.0), degraded: false };

    fn second(second: u64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn counts(ok: f64, failed: f64) -> Evidence {
        Evidence { counts: Counts { ok, failed, missing: 0.0 }, ..HEALTHY_PEERS }
    }

    fn opened(settings: &Settings, now: Timestamp) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert!(!breaker.failed(true, false, &HEALTHY_PEERS, 0.0, settings, now));
        }
        assert!(breaker.failed(true, false, &HEALTHY_PEERS, 0.0, settings, now));
        breaker
    }

    #[test]
    fn five_hard_failures_in_a_row_open_it_for_ten_seconds() {
        let breaker = opened(&Settings::default(), second(100));
        assert_eq!(breaker.state(second(109)), BreakerState::Open { until: second(110) });
        assert_eq!(breaker.state(second(110)), BreakerState::HalfOpen);
    }

    #[test]
    fn a_success_in_between_starts_the_count_again() {
        let settings = Settings::default();
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            for _ in 0..4 {
                assert!(!breaker.failed(true, false, &HEALTHY_PEERS, 0.0, &settings, second(1)));
            }
            breaker.succeeded(false, &settings, second(1));
        }
        assert_eq!(breaker.state(second(1)), BreakerState::Closed);
    }

    #[test]
    fn two_suffice_when_others_say_degraded() {
        let settings = Settings::default();
        let mut breaker = Breaker::default();
        let degraded = Evidence { degraded: true, ..HEALTHY_PEERS };
        assert!(!breaker.failed(true, false, &degraded, 0.0, &settings, second(1)));
        assert!(breaker.failed(true, false, &degraded, 0.0, &settings, second(1)));
    }

    #[test]
    fn ratios_open_it_only_with_enough_samples() {
        let settings = Settings::default();
        let trips = |evidence: Evidence| Breaker::default().failed(true, false, &evidence, 0.0, &settings, second(1));
        assert!(!trips(counts(9.0, 10.0)));
        assert!(trips(counts(10.0, 10.0)));
        assert!(!trips(counts(43.0, 6.0)), "49 samples are not compared with peers");
        assert!(trips(counts(44.0, 6.0)), "12 % against peers without failures");
        assert!(!trips(Evidence { peers: Some(0.05), ..counts(40.0, 10.0) }), "20 % against 3 x 5 % + 10");
        assert!(!trips(Evidence { peers: None, ..counts(40.0, 10.0) }), "nobody to compare with");
    }

    #[test]
    fn open_time_doubles_to_the_cap_and_jitter_stays_in_its_band() {
        let settings = Settings::default();
        let mut breaker = opened(&settings, second(0));
        let mut now = second(10);
        for expected in [20, 40, 80, 160, 300, 300] {
            assert!(breaker.begin_probe(now));
            assert!(breaker.failed(true, true, &HEALTHY_PEERS, 0.0, &settings, now));
            let until = now + std::time::Duration::from_secs(expected);
            assert_eq!(breaker.state(now), BreakerState::Open { until });
            now = until;
        }
        assert!(breaker.begin_probe(now));
        breaker.failed(true, true, &HEALTHY_PEERS, 1.0, &settings, now);
        assert_eq!(breaker.state(now), BreakerState::Open { until: now + std::time::Duration::from_secs(360) });
    }

    #[test]
    fn one_probe_at_a_time_and_three_successes_close_it() {
        let settings = Settings::default();
        let mut breaker = opened(&settings, second(0));
        assert!(!breaker.begin_probe(second(9)), "still open");
        for round in 0..3 {
            assert!(breaker.begin_probe(second(10)));
            assert!(!breaker.begin_probe(second(10)), "the token is taken");
            assert_eq!(breaker.succeeded(true, &settings, second(10)), round == 2);
        }
        assert_eq!(breaker.state(second(10)), BreakerState::Closed);
    }

    #[test]
    fn an_abandoned_probe_is_neutral_and_late_answers_do_not_close_it() {
        let settings = Settings::default();
        let mut breaker = opened(&settings, second(0));
        assert!(breaker.begin_probe(second(10)));
        breaker.abandon_probe();
        assert_eq!(breaker.state(second(10)), BreakerState::HalfOpen);
        for _ in 0..5 {
            assert!(!breaker.succeeded(false, &settings, second(10)));
        }
        assert!(breaker.begin_probe(second(10)));
    }

    #[test]
    fn a_healthy_minute_forgets_one_opening() {
        let settings = Settings::default();
        let mut breaker = opened(&settings, second(0));
        assert!(breaker.begin_probe(second(10)));
        breaker.failed(true, true, &HEALTHY_PEERS, 0.0, &settings, second(10));
        for _ in 0..3 {
            assert!(breaker.begin_probe(second(30)));
            breaker.succeeded(true, &settings, second(30));
        }
        breaker.succeeded(false, &settings, second(90));
        for _ in 0..5 {
            breaker.failed(true, false, &HEALTHY_PEERS, 0.0, &settings, second(91));
        }
        assert_eq!(breaker.state(second(91)), BreakerState::Open { until: second(91 + 20) });
    }
}
