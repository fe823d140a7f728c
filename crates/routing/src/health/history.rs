//! What the last five minutes, half hour and day looked like: for the public lists and for the caller's percentile bounds.
//!
//! Bounded and allocated only when an endpoint sees its first request: about 5 KiB then. Windows move in whole slots, so
//! "five minutes" means the last four to five.

use super::sketch::{Percentiles, Sketch, Sum};
use crate::Timestamp;

#[derive(Debug, Default)]
pub(crate) struct History {
    short: Ring<Measured, 5>,
    long: Ring<Measured, 6>,
    day: Ring<Tally, 24>,
}

/// Successes and the endpoint's own failures.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    ok: u32,
    failed: u32,
}

#[derive(Debug, Default)]
struct Measured {
    tally: Tally,
    first_token: Sketch,
    speed: Sketch,
}

/// Which window is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    FiveMinutes,
    HalfHour,
    Day,
}

impl History {
    /// Counts an attempt that says something about the endpoint.
    pub(crate) fn count(&mut self, ok: bool, now: Timestamp) {
        let add = |tally: &mut Tally| {
            let count = if ok { &mut tally.ok } else { &mut tally.failed };
            *count = count.saturating_add(1);
        };
        add(&mut self.short.at(SHORT_SLOT, now).tally);
        add(&mut self.long.at(LONG_SLOT, now).tally);
        add(self.day.at(DAY_SLOT, now));
    }

    /// Adds a time to first token, in seconds.
    pub(crate) fn first_token(&mut self, seconds: f64, now: Timestamp) {
        self.short.at(SHORT_SLOT, now).first_token.record(seconds);
        self.long.at(LONG_SLOT, now).first_token.record(seconds);
    }

    /// Adds a speed, in output tokens per second from the start of the attempt to its last token.
    pub(crate) fn speed(&mut self, tokens_per_second: f64, now: Timestamp) {
        self.short.at(SHORT_SLOT, now).speed.record(tokens_per_second);
        self.long.at(LONG_SLOT, now).speed.record(tokens_per_second);
    }

    /// Attempts that succeeded and that failed by the endpoint's fault.
    pub(crate) fn tally(&self, span: Span, now: Timestamp) -> (u32, u32) {
        let sum = |(ok, failed): (u32, u32), tally: &Tally| (ok.saturating_add(tally.ok), failed.saturating_add(tally.failed));
        match span {
            Span::FiveMinutes => self.short.live(SHORT_SLOT, now).map(|slot| &slot.tally).fold((0, 0), sum),
            Span::HalfHour => self.long.live(LONG_SLOT, now).map(|slot| &slot.tally).fold((0, 0), sum),
            Span::Day => self.day.live(DAY_SLOT, now).fold((0, 0), sum),
        }
    }

    /// Percent of attempts that succeeded; `None` below `least` attempts.
    pub(crate) fn uptime(&self, span: Span, least: u32, now: Timestamp) -> Option<f64> {
        let (ok, failed) = self.tally(span, now);
        let total = u64::from(ok) + u64::from(failed);
        (total >= u64::from(least.max(1))).then(|| f64::from(ok) / total as f64 * 100.0)
    }

    /// Times to first token of the last five minutes, seconds.
    pub(crate) fn recent_first_token(&self, now: Timestamp) -> Option<Percentiles> {
        sum(self.short.live(SHORT_SLOT, now).map(|slot| &slot.first_token)).percentiles()
    }

    /// Speeds of the last five minutes, tokens per second.
    pub(crate) fn recent_speed(&self, now: Timestamp) -> Option<Percentiles> {
        sum(self.short.live(SHORT_SLOT, now).map(|slot| &slot.speed)).percentiles()
    }

    /// Times to first token of the last half hour, seconds.
    pub(crate) fn long_first_token(&self, now: Timestamp) -> Option<Percentiles> {
        sum(self.long.live(LONG_SLOT, now).map(|slot| &slot.first_token)).percentiles()
    }

    /// Speeds of the last half hour, tokens per second.
    pub(crate) fn long_speed(&self, now: Timestamp) -> Option<Percentiles> {
        sum(self.long.live(LONG_SLOT, now).map(|slot| &slot.speed)).percentiles()
    }
}

/// Slots of equal length, reused in turn.
#[derive(Debug)]
struct Ring<T, const N: usize> {
    slots: [(u64, T); N],
}

impl<T: Default, const N: usize> Default for Ring<T, N> {
    fn default() -> Self {
        Ring { slots: std::array::from_fn(|_| (0, T::default())) }
    }
}

impl<T: Reset, const N: usize> Ring<T, N> {
    /// The slot of this moment, emptied if it was of another turn.
    fn at(&mut self, slot_micros: u64, now: Timestamp) -> &mut T {
        let epoch = epoch(slot_micros, now);
        let (of, slot) = &mut self.slots[(epoch % N as u64) as usize];
        if *of != epoch {
            *of = epoch;
            slot.reset();
        }
        slot
    }

    /// The slots that are inside the window.
    fn live(&self, slot_micros: u64, now: Timestamp) -> impl Iterator<Item = &T> {
        let epoch = epoch(slot_micros, now);
        self.slots.iter().filter(move |(of, _)| *of <= epoch && *of + N as u64 > epoch).map(|(_, slot)| slot)
    }
}

/// Empties in place: a slot is large enough not to be built anew on the stack.
trait Reset {
    fn reset(&mut self);
}

impl Reset for Tally {
    fn reset(&mut self) {
        *self = Tally::default();
    }
}

impl Reset for Measured {
    fn reset(&mut self) {
        self.tally.reset();
        self.first_token.clear();
        self.speed.clear();
    }
}

fn sum<'a>(sketches: impl Iterator<Item = &'a Sketch>) -> Sum {
    let mut sum = Sum::default();
    sketches.for_each(|sketch| sum.add(sketch));
    sum
}

/// Epochs start above every ring's length, so that an unused slot never looks current.
fn epoch(slot_micros: u64, now: Timestamp) -> u64 {
    now.micros() / slot_micros + LONGEST_RING
}

const LONGEST_RING: u64 = 24;
const MINUTE: u64 = 60_000_000;
const SHORT_SLOT: u64 = MINUTE;
const LONG_SLOT: u64 = 5 * MINUTE;
const DAY_SLOT: u64 = 60 * MINUTE;

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minute: u64) -> Timestamp {
        Timestamp(minute * MINUTE)
    }

    #[test]
    fn uptime_is_unknown_below_the_least_count() {
        let mut history = History::default();
        for _ in 0..98 {
            history.count(true, minute(0));
        }
        history.count(false, minute(0));
        assert_eq!(history.uptime(Span::FiveMinutes, 100, minute(0)), None);
        history.count(false, minute(0));
        assert_eq!(history.uptime(Span::FiveMinutes, 100, minute(0)), Some(98.0));
    }

    #[test]
    fn each_window_forgets_at_its_own_pace() {
        let mut history = History::default();
        history.count(true, minute(0));
        for (now, five, half, day) in [(4, 1, 1, 1), (5, 0, 1, 1), (29, 0, 1, 1), (30, 0, 0, 1), (24 * 60, 0, 0, 0)] {
            let seen = |span| history.tally(span, minute(now)).0;
            assert_eq!((seen(Span::FiveMinutes), seen(Span::HalfHour), seen(Span::Day)), (five, half, day), "minute {now}");
        }
    }

    #[test]
    fn percentiles_cover_the_whole_window() {
        let mut history = History::default();
        for at in 0..4 {
            history.first_token(0.5, minute(at));
        }
        history.first_token(8.0, minute(4));
        let recent = history.recent_first_token(minute(4)).unwrap();
        assert!((0.45..0.55).contains(&recent.p50) && recent.p99 > 7.0, "{recent:?}");
        assert_eq!(history.recent_first_token(minute(60)), None);
        assert_eq!(history.recent_speed(minute(4)), None);
    }
}
