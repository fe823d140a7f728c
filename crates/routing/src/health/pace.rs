//! Tokens per minute that an account turns out to be allowed, learned from its 429s.
//!
//! Providers rarely say what they allow, and what they allow changes. So the cap is found as TCP finds bandwidth: each burst of 429s
//! takes a fifth off what was just being used, every quiet ten seconds add two percent, and a steady trickle of 429s is left alone.
//! The cap refuses nothing; it shows in the share of the rate limit that is left, which moves weight away before the 429s come.

use crate::{Settings, Timestamp};

/// One account's use at one endpoint, and the cap if there ever was a burst of 429s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Tokens by slot of ten seconds.
    used: [Slot; SLOTS],
    /// Answers and refusals of the present five seconds.
    burst: Burst,
    /// Tokens per minute, and when it last changed.
    cap: Option<(f64, Timestamp)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    epoch: u64,
    tokens: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    epoch: u64,
    requests: u32,
    refusals: u32,
    punished: bool,
}

impl Pace {
    /// Hears of an answer and the tokens it took, prompt and completion.
    pub(crate) fn used(&mut self, tokens: u64, now: Timestamp) {
        let epoch = slot_of(now);
        let slot = &mut self.used[(epoch % SLOTS as u64) as usize];
        if slot.epoch != epoch {
            *slot = Slot { epoch, tokens: 0 };
        }
        slot.tokens = slot.tokens.saturating_add(tokens);
        self.burst_at(now).requests += 1;
    }

    /// Hears of a 429.
    pub(crate) fn refused(&mut self, settings: &Settings, now: Timestamp) {
        let burst = self.burst_at(now);
        burst.requests += 1;
        burst.refusals += 1;
        let trickle = f64::from(burst.refusals) <= settings.cap_burst_share * f64::from(burst.requests);
        let rate = self.rate(now);
        // Who is refused without having used anything learns nothing about tokens.
        if trickle || self.burst.punished || rate <= 0.0 {
            return;
        }
        // Once per five seconds: the requests on their way when the cap fell would only say the same again.
        self.burst.punished = true;
        let before = self.cap(settings, now).map_or(rate, |cap| cap.min(rate.max(cap * settings.cap_backoff)));
        self.cap = Some(((before * settings.cap_backoff).max(LEAST_CAP), now));
    }

    /// Tokens per minute that are believed to be allowed; nothing before the first burst, and when it has grown out of sight.
    pub(crate) fn cap(&self, settings: &Settings, now: Timestamp) -> Option<f64> {
        let (cap, since) = self.cap?;
        let steps = now.seconds_since(since) / settings.cap_step.as_secs_f64();
        (steps < LONGEST_STEPS).then(|| cap * (1.0 + settings.cap_growth).powf(steps.floor()))
    }

    /// Share of the cap that is left, 0 to 1; 1 without a cap.
    pub(crate) fn remaining(&self, settings: &Settings, now: Timestamp) -> f32 {
        match self.cap(settings, now) {
            Some(cap) => (1.0 - self.rate(now) / cap).clamp(0.0, 1.0) as f32,
            None => 1.0,
        }
    }

    /// Whether forgetting it would lose nothing.
    pub(crate) fn is_stale(&self, settings: &Settings, now: Timestamp) -> bool {
        self.cap(settings, now).is_none() && self.rate(now) == 0.0
    }

    /// Tokens of the last minute.
    fn rate(&self, now: Timestamp) -> f64 {
        let epoch = slot_of(now);
        let live = self.used.iter().filter(|slot| slot.epoch <= epoch && slot.epoch + SLOTS as u64 > epoch);
        live.map(|slot| slot.tokens as f64).sum()
    }

    fn burst_at(&mut self, now: Timestamp) -> &mut Burst {
        let epoch = now.micros() / BURST_MICROS + 1;
        if self.burst.epoch != epoch {
            self.burst = Burst { epoch, ..Burst::default() };
        }
        &mut self.burst
    }
}

/// Numbers start at the count of slots, so that an unused slot never looks live.
fn slot_of(now: Timestamp) -> u64 {
    now.micros() / SLOT_MICROS + SLOTS as u64
}

/// A minute in ten-second slots: limits are counted per minute.
const SLOTS: usize = 6;
const SLOT_MICROS: u64 = 10_000_000;
/// A burst of 429s is looked for in five seconds.
const BURST_MICROS: u64 = 5_000_000;
/// Tokens per minute; below it no limit of a provider lies, and a cap must be able to grow again.
const LEAST_CAP: f64 = 1_000.0;
/// After so many quiet steps (an hour at the defaults) the cap says nothing any more.
const LONGEST_STEPS: f64 = 360.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    #[test]
    fn a_burst_takes_a_fifth_of_what_was_used_and_quiet_gives_it_back() {
        let settings = Settings::default();
        let mut pace = Pace::default();
        for at in 0..60 {
            pace.used(1_000, second(at));
        }
        assert_eq!(pace.cap(&settings, second(59)), None, "no 429, no cap");
        assert_eq!(pace.remaining(&settings, second(59)), 1.0);
        pace.refused(&settings, second(59));
        pace.refused(&settings, second(59));
        assert_eq!(pace.cap(&settings, second(59)), Some(48_000.0), "once per five seconds");
        assert_eq!(pace.remaining(&settings, second(59)), 0.0, "more is used than the cap allows");
        let later = pace.cap(&settings, second(79)).unwrap();
        assert!((later - 48_000.0 * 1.02 * 1.02).abs() < 1.0, "{later}");
        assert!(pace.remaining(&settings, second(119)) > 0.9);
        assert_eq!(pace.cap(&settings, second(59 + 3_601)), None, "forgotten after an hour");
        assert!(pace.is_stale(&settings, second(59 + 3_601)));
    }

    #[test]
    fn a_trickle_of_refusals_is_the_set_point() {
        let settings = Settings::default();
        let mut pace = Pace::default();
        for at in 0..1_000 {
            pace.used(100, Timestamp(at * 4_000));
        }
        for _ in 0..5 {
            pace.refused(&settings, Timestamp(4_000_000));
        }
        assert_eq!(pace.cap(&settings, second(4)), None, "half a percent");
    }

    #[test]
    fn bursts_in_a_row_lower_the_cap_step_by_step_and_never_to_nothing() {
        let settings = Settings::default();
        let mut pace = Pace::default();
        pace.refused(&settings, second(0));
        assert_eq!(pace.cap(&settings, second(0)), None, "nothing was used");
        let mut last = f64::INFINITY;
        for burst in 0..40 {
            pace.used(100_000, second(5 * burst));
            pace.refused(&settings, second(5 * burst));
            let cap = pace.cap(&settings, second(5 * burst)).unwrap();
            assert!(cap < last || cap == LEAST_CAP, "{cap} after {last}");
            last = cap;
        }
        assert_eq!(last, LEAST_CAP);
    }
}
