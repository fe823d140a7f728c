//! The last seconds, in buckets of one second.

use std::collections::VecDeque;

use tidegate_routing::{Histogram, Timestamp};

/// What one edge counted at one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) ok: f64,
    /// The soft ones half.
    pub(super) failed: f64,
    /// What of a soft failure was none.
    pub(super) half: f64,
    pub(super) pointing_at_us: f64,
    pub(super) rate_limited: f64,
}

impl Counts {
    pub(super) fn samples(&self) -> f64 {
        self.ok + self.failed + self.half
    }

    pub(super) fn add(&mut self, other: &Counts) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.half += other.half;
        self.pointing_at_us += other.pointing_at_us;
        self.rate_limited += other.rate_limited;
    }
}

/// Counts of ten seconds. Only seconds with traffic take memory.
#[derive(Clone, Debug, Default)]
pub(super) struct CountRing {
    buckets: VecDeque<(u64, Counts)>,
}

impl CountRing {
    pub(super) fn add(&mut self, counts: &Counts, now: Timestamp) {
        let second = second_of(now);
        self.expire(second);
        match self.buckets.back_mut() {
            Some((newest, sum)) if *newest == second => sum.add(counts),
            _ => self.buckets.push_back((second, *counts)),
        }
    }

    /// Everything of the last so many seconds, at most ten, for several lengths at once, shortest first. Nothing without traffic in the
    /// longest: most reporters of most endpoints are idle, and there are a thousand of them.
    pub(super) fn sums<const N: usize>(&self, seconds: [u64; N], now: Timestamp) -> Option<[Counts; N]> {
        let second = second_of(now);
        let longest = *seconds.last()?;
        let mut sums = [Counts::default(); N];
        let mut any = false;
        let mut sum = Counts::default();
        let mut windows = seconds.iter().zip(&mut sums).peekable();
        // Newest first, so that a longer window is what a shorter one came to, and more.
        for (of, counts) in self.buckets.iter().rev() {
            while let Some((_, ended)) = windows.next_if(|(length, _)| of + **length <= second) {
                *ended = sum;
            }
            if of + longest <= second {
                break;
            }
            sum.add(counts);
            any = true;
        }
        windows.for_each(|(_, rest)| *rest = sum);
        any.then_some(sums)
    }

    fn expire(&mut self, second: u64) {
        while self.buckets.front().is_some_and(|(of, _)| of + VERDICT_SECONDS <= second) {
            self.buckets.pop_front();
        }
    }
}

/// Distributions: a ring of 30 s for the digest, one of 30 min for the lists.
#[derive(Clone, Debug, Default)]
pub(super) struct SketchRing {
    seconds: VecDeque<(u64, Sketches)>,
    slots: VecDeque<(u64, Sketches)>,
    /// What the last half minute came to when it was last asked for.
    recent: Option<(u64, Recent)>,
}

/// What the log hears of the last 30 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Recent {
    pub(super) first_token_p50: Option<f64>,
    pub(super) first_token_p95: Option<f64>,
    pub(super) speed_p50: Option<f64>,
}

/// Milliseconds to the first token, and output tokens per second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sketches {
    pub(super) first_token: Histogram,
    pub(super) speed: Histogram,
}

impl Sketches {
    fn merge(&mut self, other: &Sketches) {
        self.first_token.merge(&other.first_token);
        self.speed.merge(&other.speed);
    }
}

impl SketchRing {
    pub(super) fn add(&mut self, sketches: &Sketches, now: Timestamp) {
        let second = second_of(now);
        put(&mut self.seconds, second, sketches);
        put(&mut self.slots, second / SLOT_SECONDS, sketches);
        self.expire(now);
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        let second = second_of(now);
        while self.seconds.front().is_some_and(|(of, _)| of + RING_SECONDS <= second) {
            self.seconds.pop_front();
        }
        while self.slots.front().is_some_and(|(of, _)| of + SLOTS <= second / SLOT_SECONDS) {
            self.slots.pop_front();
        }
    }

    /// The last 30 seconds, added up once a second: digests are looked at four times as often, and thirty merges per endpoint are most
    /// of what one costs.
    pub(super) fn recent(&mut self, now: Timestamp) -> Recent {
        let second = second_of(now);
        if let Some((_, known)) = self.recent.filter(|(of, _)| *of == second) {
            return known;
        }
        self.expire(now);
        let all = sum(&self.seconds);
        let recent = Recent {
            first_token_p50: all.first_token.quantile(0.5),
            first_token_p95: all.first_token.quantile(0.95),
            speed_p50: all.speed.quantile(0.5),
        };
        self.recent = Some((second, recent));
        recent
    }

    /// The last 25 to 30 minutes.
    pub(super) fn half_hour(&self) -> Sketches {
        sum(&self.slots)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

fn put(ring: &mut VecDeque<(u64, Sketches)>, of: u64, sketches: &Sketches) {
    match ring.back_mut() {
        Some((newest, sum)) if *newest == of => sum.merge(sketches),
        _ => ring.push_back((of, sketches.clone())),
    }
}

fn sum(ring: &VecDeque<(u64, Sketches)>) -> Sketches {
    let mut all = Sketches::default();
    ring.iter().for_each(|(_, sketches)| all.merge(sketches));
    all
}

fn second_of(now: Timestamp) -> u64 {
    now.micros() / 1_000_000
}

/// The longest that a verdict looks at.
pub(super) const VERDICT_SECONDS: u64 = 10;
/// What the digest's percentiles look at.
const RING_SECONDS: u64 = 30;
const SLOT_SECONDS: u64 = 300;
const SLOTS: u64 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn ok(count: u32) -> Counts {
        Counts { ok: f64::from(count), ..Counts::default() }
    }

    #[test]
    fn each_window_holds_its_own_seconds() {
        let mut ring = CountRing::default();
        for at in [90, 95, 98, 100] {
            ring.add(&ok(at), second(at.into()));
        }
        let sums = |at| ring.sums([2, 5, 10], second(at)).map(|sums| sums.map(|counts| counts.ok));
        assert_eq!(sums(100), Some([100.0, 198.0, 293.0]));
        assert_eq!(sums(101), Some([100.0, 198.0, 293.0]));
        assert_eq!(sums(102), Some([0.0, 198.0, 293.0]), "95 is seven seconds ago, 98 four");
        assert_eq!(sums(109), Some([0.0, 0.0, 100.0]));
        assert_eq!(sums(110), None, "idle");
    }

    #[test]
    fn recent_follows_within_a_second_and_forgets_after_thirty() {
        let mut ring = SketchRing::default();
        let of = |value| {
            let mut sketches = Sketches::default();
            sketches.first_token.record(value);
            sketches
        };
        let median = |ring: &mut SketchRing, at| ring.recent(second(at)).first_token_p50.map(|value| (value / 100.0).round());
        assert_eq!(median(&mut ring, 10), None);
        ring.add(&of(500.0), second(10));
        assert_eq!(median(&mut ring, 10), None, "asked in this second already");
        assert_eq!(median(&mut ring, 11), Some(5.0));
        ring.add(&of(5_000.0), second(20));
        ring.add(&of(5_000.0), second(21));
        assert!(median(&mut ring, 22).is_some_and(|value| value > 40.0));
        assert_eq!(median(&mut ring, 51), None);
    }
}
