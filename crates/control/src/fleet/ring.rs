//! The last seconds: counts in buckets of a quarter of a second for three seconds and of one second for ten, distributions by second.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_routing::{Histogram, Timestamp};

/// What one edge counted at one endpoint.
///
/// Half the size of what sums of millions would need: there is one for each bucket, reporter and endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) ok: f32,
    /// The soft ones half.
    pub(super) failed: f32,
    /// What of a soft failure was none.
    pub(super) half: f32,
    pub(super) pointing_at_us: f32,
    pub(super) rate_limited: f32,
}

impl Counts {
    pub(super) fn samples(&self) -> f32 {
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

/// Counts of ten seconds. Only times with traffic take memory.
#[derive(Clone, Debug, Default)]
pub(super) struct CountRing {
    quarters: VecDeque<(u64, Counts)>,
    seconds: VecDeque<(u64, Counts)>,
}

impl CountRing {
    pub(super) fn add(&mut self, counts: &Counts, now: Timestamp) {
        add_to(&mut self.quarters, counts, quarter_of(now), QUARTERS);
        add_to(&mut self.seconds, counts, second_of(now), VERDICT_SECONDS);
    }

    /// Everything of the last ten seconds; nothing when that is nothing.
    pub(super) fn whole(&self, now: Timestamp) -> Option<Counts> {
        let second = second_of(now);
        let mut recent = self.seconds.iter().rev().take_while(|(of, _)| of + VERDICT_SECONDS > second).peekable();
        recent.peek()?;
        let mut sum = Counts::default();
        recent.for_each(|(_, counts)| sum.add(counts));
        Some(sum)
    }

    /// Everything of the [`SHORTER`] windows.
    pub(super) fn shorter(&self, now: Timestamp) -> [Counts; SHORTER.len()] {
        let (quarter, second) = (quarter_of(now), second_of(now));
        let mut sums = [Counts::default(); SHORTER.len()];
        for (sum, window) in sums.iter_mut().zip(SHORTER) {
            let (ring, number, length) = match window {
                Span::Quarters(length) => (&self.quarters, quarter, length),
                Span::Seconds(length) => (&self.seconds, second, length),
            };
            let recent = ring.iter().rev().take_while(|(of, _)| of + length > number);
            recent.for_each(|(_, counts)| sum.add(counts));
        }
        sums
    }

    pub(super) fn clear(&mut self) {
        self.quarters.clear();
        self.seconds.clear();
    }
}

/// How far a window looks back, the bucket that is still open included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Quarters(u64),
    Seconds(u64),
}

impl Span {
    pub(super) const fn length(self) -> Duration {
        match self {
            Span::Quarters(count) => Duration::from_millis(count * 250),
            Span::Seconds(count) => Duration::from_secs(count),
        }
    }
}

fn add_to(ring: &mut VecDeque<(u64, Counts)>, counts: &Counts, number: u64, most: u64) {
    while ring.front().is_some_and(|(of, _)| of + most <= number) {
        ring.pop_front();
    }
    match ring.back_mut() {
        Some((newest, sum)) if *newest == number => sum.add(counts),
        _ => ring.push_back((number, *counts)),
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

fn quarter_of(now: Timestamp) -> u64 {
    now.micros() / 250_000
}

/// The longest that a verdict looks at.
pub(super) const VERDICT_SECONDS: u64 = 10;
/// The windows below it, shortest first: the fault of a busy endpoint fills half a second, that of a quiet one takes longer.
pub(super) const SHORTER: [Span; 7] = [
    Span::Quarters(2),
    Span::Quarters(3),
    Span::Quarters(4),
    Span::Quarters(6),
    Span::Quarters(8),
    Span::Quarters(QUARTERS),
    Span::Seconds(5),
];
/// Three seconds.
const QUARTERS: u64 = 12;
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
        Counts { ok: count as f32, ..Counts::default() }
    }

    #[test]
    fn each_window_holds_its_own_time() {
        let mut ring = CountRing::default();
        let at = |millis: u64| Timestamp(millis * 1_000);
        for (millis, count) in [(90_100, 1), (95_100, 10), (97_600, 100), (98_100, 1_000), (99_100, 10_000), (99_900, 100_000)] {
            ring.add(&ok(count), at(millis));
        }
        let sums = |millis| ring.shorter(at(millis)).map(|counts| counts.ok);
        assert_eq!(ring.whole(at(99_999)).map(|counts| counts.ok), Some(111_111.0));
        // Half a second, then 0.75, 1, 1.5, 2, 3 and 5 seconds, each with the bucket that is not full yet.
        assert_eq!(sums(99_990), [100_000.0, 100_000.0, 110_000.0, 110_000.0, 111_000.0, 111_100.0, 111_110.0]);
        assert_eq!(sums(100_300), [0.0, 100_000.0, 100_000.0, 110_000.0, 110_000.0, 111_100.0, 111_100.0]);
        assert_eq!(ring.whole(at(110_000)), None, "idle");
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
