//! Stops sending to an endpoint that does not work, and lets it prove that it works again.
//!
//! Three ways open it: hard failures in a row, a failure ratio, or a failure ratio far above the peers'. It reopens for
//! twice as long each time it fails again soon, and one probe at a time closes it. Whether an ejection is *honoured* is not
//! decided here: the plan ignores ejections when too much of a model would be gone.

use serde::{Deserialize, Serialize};

use super::window::{Counts, Window};
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
    /// Of the failures in a row, those that point at this edge as much as at the endpoint.
    pointing_at_us: u32,
    /// The first of the failures in a row.
    began: Timestamp,
    /// What opened it, and what was seen since; while it is not closed.
    opening: Option<Opening>,
}

/// What an open breaker knows: the failures that opened it, from the first one on, and whatever was sent there all the same.
///
/// It is the evidence that would drown otherwise: the breaker opens after a handful of failures, nothing is sent any more, and beside the
/// successes of the seconds before a handful is nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opening {
    /// When the first of these failures was.
    pub began: Timestamp,
    /// When it opened, or last failed a probe.
    pub at: Timestamp,
    /// Attempts.
    pub samples: f64,
    /// Failures among them, the soft ones half.
    pub failed: f64,
    /// Failures of classes that point at the observer itself.
    pub pointing_at_us: f64,
}

impl Opening {
    /// Adds what was seen although it is open. The distant past fades, so that it does not outweigh what is true by now.
    fn saw(&mut self, failed: f64, pointing_at_us: f64) {
        if self.samples >= OPENING_MEMORY {
            self.samples /= 2.0;
            self.failed /= 2.0;
            self.pointing_at_us /= 2.0;
        }
        self.samples += 1.0;
        self.failed += failed;
        self.pointing_at_us += pointing_at_us;
    }
}

/// What a failure did to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stir {
    /// Nothing new.
    None,
    /// The first failure after a success.
    Began,
    /// It opened.
    Opened,
}

/// How a failure counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// Certain; else it counts half.
    pub(crate) hard: bool,
    /// Of a class that points at this edge as much as at the endpoint.
    pub(crate) points_at_us: bool,
    /// Of a probe.
    pub(crate) probe: bool,
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
        Breaker {
            phase: Phase::Closed,
            consecutive: 0,
            openings: 0,
            healthy_since: Timestamp(0),
            pointing_at_us: 0,
            began: Timestamp(0),
            opening: None,
        }
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

    /// What it knows while it is not closed.
    pub(crate) fn opening(&self) -> Option<Opening> {
        self.opening
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
        self.pointing_at_us = 0;
        match &mut self.phase {
            Phase::Closed => {
                self.forget(settings, now);
                false
            }
            // An old request that was under way when it opened proves nothing about now.
            Phase::Tripped { .. } if !probe => {
                self.opening.iter_mut().for_each(|opening| opening.saw(0.0, 0.0));
                false
            }
            Phase::Tripped { successes, probing, .. } => {
                *probing = false;
                *successes += 1;
                if *successes < settings.breaker_close_successes {
                    return false;
                }
                self.phase = Phase::Closed;
                self.opening = None;
                self.healthy_since = now;
                true
            }
        }
    }

    /// Hears of a failure. `jitter` is a draw from −1 to 1.
    pub(crate) fn failed(&mut self, failure: Failure, evidence: &Evidence, jitter: f64, settings: &Settings, now: Timestamp) -> Stir {
        let began = failure.hard && self.consecutive == 0;
        if began {
            self.began = now;
        }
        if failure.hard {
            self.consecutive = self.consecutive.saturating_add(1);
            self.pointing_at_us += u32::from(failure.points_at_us);
        }
        let trips = match self.phase {
            Phase::Closed => {
                self.forget(settings, now);
                let opening = self.over_the_bar(evidence, settings, now);
                self.opening = opening;
                opening.is_some()
            }
            Phase::Tripped { .. } => {
                let at_us = if failure.points_at_us { 1.0 } else { 0.0 };
                self.opening.iter_mut().for_each(|opening| opening.saw(if failure.hard { 1.0 } else { 0.5 }, at_us));
                failure.probe
            }
        };
        if trips {
            self.open(jitter, settings, now);
        }
        match (trips, began && matches!(self.phase, Phase::Closed)) {
            (true, _) => Stir::Opened,
            (false, true) => Stir::Began,
            (false, false) => Stir::None,
        }
    }

    /// Closes because the region proved the endpoint well.
    pub(crate) fn close(&mut self, now: Timestamp) {
        self.phase = Phase::Closed;
        self.opening = None;
        self.consecutive = 0;
        self.pointing_at_us = 0;
        self.healthy_since = now;
    }

    /// What speaks for opening it, if that is enough.
    fn over_the_bar(&self, evidence: &Evidence, settings: &Settings, now: Timestamp) -> Option<Opening> {
        let in_a_row = if evidence.degraded { settings.breaker_consecutive_degraded } else { settings.breaker_consecutive };
        let run = f64::from(self.consecutive);
        let pointing_at_us = f64::from(self.pointing_at_us);
        if self.consecutive >= in_a_row {
            return Some(Opening { began: self.began, at: now, samples: run, failed: run, pointing_at_us });
        }
        let counts = evidence.counts;
        let ratio = counts.failure_ratio();
        let over = (counts.total() >= settings.breaker_ratio_samples && ratio >= settings.breaker_ratio)
            || (counts.total() >= settings.breaker_peer_samples
                && evidence.peers.is_some_and(|median| ratio >= settings.breaker_peer_factor * median + settings.breaker_peer_margin));
        // The window does not know of what class its failures were: as those of the last run.
        let share = if run > 0.0 { pointing_at_us / run } else { 0.0 };
        over.then(|| Opening {
            began: Timestamp(now.micros().saturating_sub(Window::LENGTH.as_micros() as u64)),
            at: now,
            samples: counts.total(),
            failed: counts.failed,
            pointing_at_us: counts.failed * share,
        })
    }

    fn open(&mut self, jitter: f64, settings: &Settings, now: Timestamp) {
        let doublings = self.openings.min(MOST_DOUBLINGS);
        let length = settings.breaker_open.saturating_mul(1 << doublings).min(settings.breaker_open_cap);
        let until = now + length.mul_f64((1.0 + settings.jitter * jitter).max(0.0));
        self.openings = (doublings + 1).min(MOST_DOUBLINGS);
        self.consecutive = 0;
        self.pointing_at_us = 0;
        self.opening.iter_mut().for_each(|opening| opening.at = now);
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
/// Attempts after which an opening halves what it knows: a minute or so of what goes there when ejections are ignored.
const OPENING_MEMORY: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY_PEERS: Evidence = Evidence { counts: Counts { ok: 0.0, failed: 0.0, missing: 0.0 }, peers: Some(0.0), degraded: false };

    const HARD: Failure = Failure { hard: true, points_at_us: false, probe: false };
    const PROBE: Failure = Failure { probe: true, ..HARD };

    fn second(second: u64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn counts(ok: f64, failed: f64) -> Evidence {
        Evidence { counts: Counts { ok, failed, missing: 0.0 }, ..HEALTHY_PEERS }
    }

    fn opened(settings: &Settings, now: Timestamp) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert_ne!(breaker.failed(HARD, &HEALTHY_PEERS, 0.0, settings, now), Stir::Opened);
        }
        assert_eq!(breaker.failed(HARD, &HEALTHY_PEERS, 0.0, settings, now), Stir::Opened);
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
                assert_ne!(breaker.failed(HARD, &HEALTHY_PEERS, 0.0, &settings, second(1)), Stir::Opened);
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
        assert_ne!(breaker.failed(HARD, &degraded, 0.0, &settings, second(1)), Stir::Opened);
        assert_eq!(breaker.failed(HARD, &degraded, 0.0, &settings, second(1)), Stir::Opened);
    }

    #[test]
    fn ratios_open_it_only_with_enough_samples() {
        let settings = Settings::default();
        let trips = |evidence: Evidence| Breaker::default().failed(HARD, &evidence, 0.0, &settings, second(1)) == Stir::Opened;
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
            assert_eq!(breaker.failed(PROBE, &HEALTHY_PEERS, 0.0, &settings, now), Stir::Opened);
            let until = now + std::time::Duration::from_secs(expected);
            assert_eq!(breaker.state(now), BreakerState::Open { until });
            now = until;
        }
        assert!(breaker.begin_probe(now));
        breaker.failed(PROBE, &HEALTHY_PEERS, 1.0, &settings, now);
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
    fn an_open_breaker_knows_what_opened_it_and_what_was_seen_since() {
        let settings = Settings::default();
        let mut breaker = Breaker::default();
        let connect = Failure { points_at_us: true, ..HARD };
        assert_eq!(breaker.failed(connect, &HEALTHY_PEERS, 0.0, &settings, second(1)), Stir::Began);
        assert_eq!((breaker.failed(HARD, &HEALTHY_PEERS, 0.0, &settings, second(1)), breaker.opening()), (Stir::None, None));
        let ends: Vec<Stir> = (0..3).map(|_| breaker.failed(HARD, &HEALTHY_PEERS, 0.0, &settings, second(2))).collect();
        assert_eq!(ends, [Stir::None, Stir::None, Stir::Opened]);
        let opening = Opening { began: second(1), at: second(2), samples: 5.0, failed: 5.0, pointing_at_us: 1.0 };
        assert_eq!(breaker.opening(), Some(opening));
        // Ejections are ignored, and it works again: that is seen long before a probe may go.
        assert!((0..7).all(|_| !breaker.succeeded(false, &settings, second(3))));
        assert_eq!(breaker.opening(), Some(Opening { samples: 12.0, ..opening }));
        assert!(breaker.begin_probe(second(12)));
        assert_eq!(breaker.failed(PROBE, &HEALTHY_PEERS, 0.0, &settings, second(12)), Stir::Opened);
        assert_eq!(breaker.opening(), Some(Opening { at: second(12), samples: 13.0, failed: 6.0, ..opening }));
        breaker.close(second(13));
        assert_eq!(breaker.opening(), None);
        breaker.failed(HARD, &counts(10.0, 10.0), 0.0, &settings, second(14));
        assert_eq!(breaker.opening().map(|opening| (opening.samples, opening.failed)), Some((20.0, 10.0)), "by the ratio");
    }

    #[test]
    fn a_healthy_minute_forgets_one_opening() {
        let settings = Settings::default();
        let mut breaker = opened(&settings, second(0));
        assert!(breaker.begin_probe(second(10)));
        breaker.failed(PROBE, &HEALTHY_PEERS, 0.0, &settings, second(10));
        for _ in 0..3 {
            assert!(breaker.begin_probe(second(30)));
            breaker.succeeded(true, &settings, second(30));
        }
        breaker.succeeded(false, &settings, second(90));
        for _ in 0..5 {
            breaker.failed(HARD, &HEALTHY_PEERS, 0.0, &settings, second(91));
        }
        assert_eq!(breaker.state(second(91)), BreakerState::Open { until: second(91 + 20) });
    }
}
