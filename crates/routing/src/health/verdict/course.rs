//! A region's verdict over time: out at once, back only by proof.
//!
//! While an endpoint is out nobody sends to it, so the absence of failures proves nothing. After a while, doubled each time, one edge
//! at a time gets a token and sends single requests; three that work in a row bring the endpoint back, one that fails starts the wait
//! again. It is the local breaker's road, walked once per region instead of once per edge.

use std::time::Duration;

use super::{Finding, RegionVerdict, Rule};
use crate::{Settings, Timestamp};

/// One endpoint's verdict in one region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Course {
    phase: Phase,
    /// Ejections remembered; each doubles the next wait.
    openings: u32,
    /// Since when nothing has opened it, or one opening was last forgotten.
    healthy_since: Timestamp,
    closings: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    #[default]
    Healthy,
    Degraded {
        until: Timestamp,
    },
    Ejected {
        until: Timestamp,
    },
    Probing {
        successes: u32,
    },
}

/// Ends of probes under the region's token since the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Worked.
    pub ok: u32,
    /// Failed.
    pub failed: u32,
}

impl Course {
    /// What holds now.
    #[must_use]
    pub fn verdict(&self) -> RegionVerdict {
        match self.phase {
            Phase::Healthy => RegionVerdict::Healthy,
            Phase::Degraded { .. } => RegionVerdict::Degraded,
            Phase::Ejected { .. } => RegionVerdict::Ejected,
            Phase::Probing { .. } => RegionVerdict::Probing,
        }
    }

    /// How often it was taken back; an edge that sees it change starts a ramp.
    #[must_use]
    pub fn closings(&self) -> u32 {
        self.closings
    }

    /// Moves on. `jitter` is a draw from −1 to 1. Returns whether the verdict changed.
    pub fn step(&mut self, finding: &Finding, probes: Probes, jitter: f64, settings: &Settings, now: Timestamp) -> bool {
        let before = self.verdict();
        self.forget(settings, now);
        match self.phase {
            Phase::Healthy | Phase::Degraded { .. } if finding.verdict == RegionVerdict::Ejected => self.eject(jitter, settings, now),
            Phase::Healthy | Phase::Degraded { .. } if finding.verdict == RegionVerdict::Degraded => self.degrade(now),
            Phase::Degraded { until } if now >= until => self.close(now),
            // So many edges left that the rest may only degrade.
            Phase::Ejected { .. } | Phase::Probing { .. } if finding.rule == Rule::FewEdges => self.degrade(now),
            Phase::Ejected { until } if now >= until => self.phase = Phase::Probing { successes: 0 },
            Phase::Probing { .. } if probes.failed > 0 => self.eject(jitter, settings, now),
            Phase::Probing { successes } => {
                let successes = successes + probes.ok;
                self.phase = Phase::Probing { successes };
                if successes >= settings.breaker_close_successes {
                    self.close(now);
                }
            }
            Phase::Healthy | Phase::Degraded { .. } | Phase::Ejected { .. } => {}
        }
        self.verdict() != before
    }

    fn eject(&mut self, jitter: f64, settings: &Settings, now: Timestamp) {
        let doublings = self.openings.min(MOST_DOUBLINGS);
        let length = settings.breaker_open.saturating_mul(1 << doublings).min(settings.breaker_open_cap);
        self.openings = (doublings + 1).min(MOST_DOUBLINGS);
        self.healthy_since = now;
        self.phase = Phase::Ejected { until: now + length.mul_f64((1.0 + settings.jitter * jitter).max(0.0)) };
    }

    fn degrade(&mut self, now: Timestamp) {
        self.phase = Phase::Degraded { until: now + DEGRADED_LEAST };
    }

    fn close(&mut self, now: Timestamp) {
        if self.verdict().is_out() {
            self.closings = self.closings.wrapping_add(1);
        }
        self.healthy_since = now;
        self.phase = Phase::Healthy;
    }

    /// Forgets one ejection per healthy minute.
    fn forget(&mut self, settings: &Settings, now: Timestamp) {
        let minute = settings.breaker_forget.max(Duration::from_micros(1));
        while self.phase == Phase::Healthy && self.openings > 0 && now.since(self.healthy_since) >= minute {
            self.openings -= 1;
            self.healthy_since = self.healthy_since + minute;
        }
    }
}

/// A degraded endpoint keeps its verdict at least this long after the last finding against it, so that weights do not swing with
/// every batch of samples.
const DEGRADED_LEAST: Duration = Duration::from_secs(5);
/// Far beyond the cap with any sensible first wait, and far from overflowing the shift.
const MOST_DOUBLINGS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn finding(verdict: RegionVerdict, rule: Rule) -> Finding {
        Finding { verdict, rule, ..Finding::default() }
    }

    fn step(course: &mut Course, found: &Finding, probes: Probes, at: u64) -> RegionVerdict {
        course.step(found, probes, 0.0, &Settings::default(), second(at));
        course.verdict()
    }

    const SILENCE: Probes = Probes { ok: 0, failed: 0 };
    const WORKED: Probes = Probes { ok: 1, failed: 0 };
    const FAILED: Probes = Probes { ok: 0, failed: 1 };

    #[test]
    fn silence_does_not_bring_an_ejected_endpoint_back_and_three_probes_do() {
        let (mut course, bad, quiet) = (Course::default(), finding(RegionVerdict::Ejected, Rule::Quorum), Finding::default());
        assert_eq!(step(&mut course, &bad, SILENCE, 0), RegionVerdict::Ejected);
        assert_eq!(step(&mut course, &quiet, SILENCE, 9), RegionVerdict::Ejected);
        for at in 10..40 {
            assert_eq!(step(&mut course, &quiet, SILENCE, at), RegionVerdict::Probing);
        }
        assert_eq!(step(&mut course, &quiet, WORKED, 41), RegionVerdict::Probing);
        assert_eq!(step(&mut course, &quiet, WORKED, 42), RegionVerdict::Probing);
        assert_eq!(course.closings(), 0);
        assert_eq!(step(&mut course, &quiet, WORKED, 43), RegionVerdict::Healthy);
        assert_eq!(course.closings(), 1);
    }

    #[test]
    fn a_failed_probe_doubles_the_wait_and_healthy_minutes_forget() {
        let (mut course, bad, quiet) = (Course::default(), finding(RegionVerdict::Ejected, Rule::Quorum), Finding::default());
        step(&mut course, &bad, SILENCE, 0);
        step(&mut course, &quiet, SILENCE, 10);
        assert_eq!(step(&mut course, &quiet, FAILED, 11), RegionVerdict::Ejected);
        assert_eq!(step(&mut course, &quiet, SILENCE, 30), RegionVerdict::Ejected, "20 s now");
        assert_eq!(step(&mut course, &quiet, SILENCE, 31), RegionVerdict::Probing);
        assert_eq!(step(&mut course, &quiet, Probes { ok: 3, failed: 0 }, 32), RegionVerdict::Healthy);
        step(&mut course, &quiet, SILENCE, 200);
        step(&mut course, &bad, SILENCE, 201);
        assert_eq!(step(&mut course, &quiet, SILENCE, 211), RegionVerdict::Probing, "10 s again");
    }

    #[test]
    fn few_edges_turn_an_ejection_into_a_degradation() {
        let mut course = Course::default();
        step(&mut course, &finding(RegionVerdict::Ejected, Rule::Quorum), SILENCE, 0);
        let few = finding(RegionVerdict::Degraded, Rule::FewEdges);
        assert_eq!(step(&mut course, &few, SILENCE, 1), RegionVerdict::Degraded);
        let fine = finding(RegionVerdict::Healthy, Rule::FewEdges);
        assert_eq!(step(&mut course, &fine, SILENCE, 5), RegionVerdict::Degraded, "held for five seconds");
        assert_eq!(step(&mut course, &fine, SILENCE, 6), RegionVerdict::Healthy);
    }
}
