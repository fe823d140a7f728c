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

    /// Everything of the last so many seconds, at most ten.
    pub(super) fn sum(&self, seconds: u64, now: Timestamp) -> Counts {
        let second = second_of(now);
        let mut sum = Counts::default();
        self.buckets.iter().filter(|(of, _)| of + seconds > second).for_each(|(_, counts)| sum.add(counts));
        sum
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

    /// The last 30 seconds.
    pub(super) fn recent(&self) -> Sketches {
        sum(&self.seconds)
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
