//! What happened at an endpoint since somebody last asked: the part of health that can be added up over edges.

use super::cell::Context;
use super::histogram::{Histogram, Recorder};
use crate::AttemptEnd;
use crate::outcome::Outcome;

/// Classes of failures that count against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// Name resolution, TCP, TLS.
    Connect,
    /// No first byte in time.
    FirstTokenTimeout,
    /// A server error.
    Server,
    /// The provider says it is overloaded.
    Overloaded,
    /// Broken off or silent after the first byte.
    Cut,
    /// Empty, or not understood.
    Malformed,
}

impl FailureClass {
    /// Every class, in the order of [`Increment::failed`].
    pub const ALL: [FailureClass; 6] = [
        FailureClass::Connect,
        FailureClass::FirstTokenTimeout,
        FailureClass::Server,
        FailureClass::Overloaded,
        FailureClass::Cut,
        FailureClass::Malformed,
    ];

    /// How much of a failure one is: what may be the account's or the answer's trouble counts half, as in the local window.
    #[must_use]
    pub const fn weight(self) -> f64 {
        match self {
            FailureClass::Connect | FailureClass::FirstTokenTimeout | FailureClass::Server | FailureClass::Cut => 1.0,
            FailureClass::Overloaded | FailureClass::Malformed => 0.5,
        }
    }

    /// Whether it says as much about the observer's own network as about the provider.
    #[must_use]
    pub const fn points_at_us(self) -> bool {
        matches!(self, FailureClass::Connect)
    }

    /// The class of an ending; none for what does not count against an endpoint.
    #[must_use]
    pub const fn of(end: AttemptEnd) -> Option<FailureClass> {
        match end {
            AttemptEnd::Connect => Some(FailureClass::Connect),
            AttemptEnd::FirstTokenTimeout => Some(FailureClass::FirstTokenTimeout),
            AttemptEnd::Server(_) => Some(FailureClass::Server),
            AttemptEnd::Overloaded => Some(FailureClass::Overloaded),
            AttemptEnd::Cut | AttemptEnd::IdleTimeout => Some(FailureClass::Cut),
            AttemptEnd::Malformed | AttemptEnd::Empty => Some(FailureClass::Malformed),
            AttemptEnd::Success
            | AttemptEnd::RateLimited
            | AttemptEnd::CreditExhausted
            | AttemptEnd::Unauthorized
            | AttemptEnd::Forbidden
            | AttemptEnd::ModelNotFound
            | AttemptEnd::Rejected(_)
            | AttemptEnd::OverLimit
            | AttemptEnd::Cancelled => None,
        }
    }
}

/// Counts and distributions over some time. Merging is addition, so it does not matter who adds what first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Increment {
    /// Attempts that worked.
    pub ok: u32,
    /// Failures by class, in the order of [`FailureClass::ALL`].
    pub failed: [u32; FailureClass::ALL.len()],
    /// 429s: no failure, but worth knowing.
    pub rate_limited: u32,
    /// Probes under the region's token that worked; in `ok` as well.
    pub probe_ok: u32,
    /// Probes under the region's token that failed; in `failed` as well.
    pub probe_failed: u32,
    /// Milliseconds to the first token.
    pub first_token: Histogram,
    /// Output tokens per second, from the start of the attempt to the last token.
    pub speed: Histogram,
}

impl Increment {
    /// Adds another.
    pub fn merge(&mut self, other: &Increment) {
        let add = |own: &mut u32, more: u32| *own = own.saturating_add(more);
        add(&mut self.ok, other.ok);
        self.failed.iter_mut().zip(other.failed).for_each(|(own, more)| add(own, more));
        add(&mut self.rate_limited, other.rate_limited);
        add(&mut self.probe_ok, other.probe_ok);
        add(&mut self.probe_failed, other.probe_failed);
        self.first_token.merge(&other.first_token);
        self.speed.merge(&other.speed);
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples() == 0 && self.rate_limited == 0 && self.first_token.is_empty()
    }

    /// Attempts that say something about the endpoint.
    #[must_use]
    pub fn samples(&self) -> u64 {
        u64::from(self.ok) + self.failures()
    }

    /// Failures of every class, each counted once.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.iter().map(|count| u64::from(*count)).sum()
    }

    /// Failures, the soft ones half.
    #[must_use]
    pub fn weighted_failures(&self) -> f64 {
        FailureClass::ALL.iter().zip(self.failed).map(|(class, count)| class.weight() * f64::from(count)).sum()
    }

    /// Failures of classes that point at the observer itself.
    #[must_use]
    pub fn pointing_at_us(&self) -> f64 {
        let own = FailureClass::ALL.iter().zip(self.failed).filter(|(class, _)| class.points_at_us());
        own.map(|(_, count)| f64::from(count)).sum()
    }
}

/// The increment that is being collected. Allocated with the first observation; recording allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    counts: Increment,
    first_token: Recorder,
    speed: Recorder,
}

impl Pending {
    pub(crate) fn first_token(&mut self, seconds: f64) {
        self.first_token.record(seconds * 1_000.0);
    }

    pub(crate) fn speed(&mut self, tokens_per_second: f64) {
        self.speed.record(tokens_per_second);
    }

    /// Counts a finished attempt. `by_token` says that it was a probe the region had given a token for.
    pub(crate) fn count(&mut self, outcome: &Outcome, context: &Context, by_token: bool) {
        let probe = context.probe && by_token;
        let add = |count: &mut u32| *count = count.saturating_add(1);
        match (outcome.end, FailureClass::of(outcome.end)) {
            (AttemptEnd::Success, _) => {
                add(&mut self.counts.ok);
                if probe {
                    add(&mut self.counts.probe_ok);
                }
            }
            (_, Some(class)) => {
                add(&mut self.counts.failed[class as usize]);
                if probe {
                    add(&mut self.counts.probe_failed);
                }
            }
            (AttemptEnd::RateLimited, None) => add(&mut self.counts.rate_limited),
            (_, None) => {}
        }
    }

    /// What came together; nothing if nothing happened.
    pub(crate) fn take(&mut self) -> Option<Increment> {
        let mut taken = std::mem::take(&mut self.counts);
        taken.first_token = self.first_token.take();
        taken.speed = self.speed.take();
        (!taken.is_empty()).then_some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, endpoint};

    #[test]
    fn what_is_taken_is_what_happened_since() {
        let world = World::new(vec![endpoint("a", 1)]);
        let index = world.index("a");
        assert_eq!(world.health.take_increment(index), None);
        world.observe("a", AttemptEnd::Success, 3);
        world.observe("a", AttemptEnd::Connect, 1);
        world.observe("a", AttemptEnd::Overloaded, 2);
        world.observe("a", AttemptEnd::RateLimited, 1);
        let taken = world.health.take_increment(index).unwrap();
        assert_eq!((taken.ok, taken.samples(), taken.weighted_failures(), taken.pointing_at_us(), taken.rate_limited), (3, 6, 2.0, 1.0, 1));
        assert_eq!(taken.first_token.len(), 3);
        let median = taken.first_token.quantile(0.5).unwrap();
        assert!((median / 300.0 - 1.0).abs() < 0.02, "milliseconds: {median}");
        assert_eq!(world.health.take_increment(index), None);
    }

    #[test]
    fn classes_agree_with_the_verdicts_of_endings() {
        use crate::outcome::Verdict;
        for end in [
            AttemptEnd::Connect,
            AttemptEnd::FirstTokenTimeout,
            AttemptEnd::Server(500),
            AttemptEnd::Overloaded,
            AttemptEnd::Cut,
            AttemptEnd::IdleTimeout,
            AttemptEnd::Malformed,
            AttemptEnd::Empty,
        ] {
            let weight = FailureClass::of(end).unwrap().weight();
            assert_eq!(weight == 1.0, end.verdict() == Verdict::Hard, "{end:?}");
        }
        for end in [AttemptEnd::Rejected(400), AttemptEnd::Cancelled, AttemptEnd::RateLimited, AttemptEnd::ModelNotFound] {
            assert_eq!(FailureClass::of(end), None, "{end:?}");
        }
    }
}
