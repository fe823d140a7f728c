//! What a credential may do: blocks, and rate limits as the provider states them.
//!
//! Two scopes. Out of credit or not accepted concerns the account everywhere. A rate limit concerns the account *at one
//! endpoint*: providers count per model, and blocking an account for all models because one is busy would be an outage of our
//! own making.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pace::Pace;
use crate::{RateHint, Settings, Timestamp};

/// Why something must not be used for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockReason {
    /// The rate limit.
    RateLimited,
    /// No credit left.
    CreditExhausted,
    /// Not accepted by the provider.
    Unauthorized,
}

/// A block of a whole account: end and reason in one word, so that reading costs one load and a longer block wins by being
/// the larger number.
#[derive(Debug, Default)]
pub(crate) struct AccountCell(AtomicU64);

impl AccountCell {
    /// The block that holds now.
    pub(crate) fn blocked(&self, now: Timestamp) -> Option<(Timestamp, BlockReason)> {
        let word = self.0.load(Ordering::Relaxed);
        let until = Timestamp(word >> REASON_BITS);
        let reason = match word & ((1 << REASON_BITS) - 1) {
            0 => BlockReason::RateLimited,
            1 => BlockReason::CreditExhausted,
            _ => BlockReason::Unauthorized,
        };
        (until > now).then_some((until, reason))
    }

    /// Blocks until a moment; a shorter block never replaces a longer one.
    pub(crate) fn block(&self, until: Timestamp, reason: BlockReason) {
        let code = match reason {
            BlockReason::RateLimited => 0,
            BlockReason::CreditExhausted => 1,
            BlockReason::Unauthorized => 2,
        };
        let until = until.micros().min(u64::MAX >> REASON_BITS);
        self.0.fetch_max(until << REASON_BITS | code, Ordering::Relaxed);
    }
}

/// What one account may do at one endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Stable id of the credential.
    pub(crate) credential: u64,
    blocked_until: Timestamp,
    /// 429s in a row.
    refusals: u32,
    hint: Option<(f32, Timestamp)>,
    pub(super) pace: Pace,
}

impl Allowance {
    pub(crate) fn new(credential: u64) -> Allowance {
        Allowance { credential, blocked_until: Timestamp(0), refusals: 0, hint: None, pace: Pace::default() }
    }

    /// When the rate limit lets it through again, if that is later than now.
    pub(crate) fn blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        (self.blocked_until > now).then_some(self.blocked_until)
    }

    /// Share of its rate limit that is left, 0 to 1: as the provider said, or as its 429s taught, whichever is less; else 1.
    pub(crate) fn remaining(&self, settings: &Settings, now: Timestamp) -> f32 {
        let told = match self.hint {
            Some((remaining, until)) if now < until => remaining,
            Some(_) | None => 1.0,
        };
        told.min(self.pace.remaining(settings, now))
    }

    /// Hears of a 429. `jitter` is a draw from −1 to 1; a wait the provider named is only ever lengthened.
    pub(crate) fn refused(&mut self, retry_after: Option<Duration>, jitter: f64, settings: &Settings, now: Timestamp) {
        let wait = match retry_after {
            Some(named) => named.min(settings.retry_after_cap),
            None => {
                let doubled = settings.rate_limit_block.saturating_mul(1 << self.refusals.min(MOST_DOUBLINGS));
                doubled.min(settings.rate_limit_block_cap).mul_f64(1.0 + settings.jitter * jitter)
            }
        };
        self.refusals = self.refusals.saturating_add(1);
        self.pace.refused(settings, now);
        self.blocked_until = self.blocked_until.max(now + wait);
    }

    /// Hears that a request got through, and what it used.
    pub(crate) fn accepted(&mut self, tokens: u64, now: Timestamp) {
        self.refusals = 0;
        self.pace.used(tokens, now);
    }

    /// Hears what the provider said about the limits.
    pub(crate) fn hinted(&mut self, hint: RateHint, now: Timestamp) {
        let lifetime = hint.reset.unwrap_or(HINT_LIFETIME).min(LONGEST_HINT);
        let remaining = if hint.remaining_ratio.is_finite() { hint.remaining_ratio.clamp(0.0, 1.0) } else { 1.0 };
        self.hint = Some((remaining, now + lifetime));
    }

    /// Whether dropping it would lose nothing.
    pub(crate) fn is_stale(&self, settings: &Settings, now: Timestamp) -> bool {
        self.blocked_until <= now
            && self.refusals == 0
            && self.hint.is_none_or(|(_, until)| until <= now)
            && self.pace.is_stale(settings, now)
    }
}

/// Three reasons fit.
const REASON_BITS: u32 = 2;
/// 2^16 times the first block is beyond any cap.
const MOST_DOUBLINGS: u32 = 16;
/// How long a remaining share is believed when the provider does not say when it resets: the usual window is a minute.
const HINT_LIFETIME: Duration = Duration::from_secs(10);
/// Longest time a remaining share is believed. Daily limits reset hours later, and the next answer tells anew anyway.
const LONGEST_HINT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    #[test]
    fn a_shorter_block_never_replaces_a_longer_one() {
        let block = AccountCell::default();
        block.block(second(600), BlockReason::Unauthorized);
        block.block(second(300), BlockReason::CreditExhausted);
        assert_eq!(block.blocked(second(1)), Some((second(600), BlockReason::Unauthorized)));
        assert_eq!(block.blocked(second(600)), None);

        let settings = Settings::default();
        let mut allowance = Allowance::new(1);
        allowance.refused(Some(Duration::from_secs(40)), 0.0, &settings, second(0));
        allowance.refused(Some(Duration::from_secs(2)), 0.0, &settings, second(1));
        assert_eq!(allowance.blocked_until(second(1)), Some(second(40)));
    }

    #[test]
    fn refusals_without_a_named_wait_double_to_a_minute() {
        let settings = Settings::default();
        let mut allowance = Allowance::new(1);
        let mut now = second(0);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            allowance.refused(None, 0.0, &settings, now);
            let until = allowance.blocked_until(now).unwrap();
            assert_eq!(until - now, Duration::from_secs(expected));
            now = until;
        }
        allowance.accepted(1, now);
        allowance.refused(None, 0.0, &settings, now);
        assert_eq!(allowance.blocked_until(now).unwrap() - now, Duration::from_secs(1));
    }

    #[test]
    fn an_absurd_wait_is_not_believed() {
        let mut allowance = Allowance::new(1);
        allowance.refused(Some(Duration::from_secs(86_400)), 0.0, &Settings::default(), second(0));
        assert_eq!(allowance.blocked_until(second(0)), Some(second(300)));
    }

    #[test]
    fn a_hint_holds_until_the_reset() {
        let mut allowance = Allowance::new(1);
        allowance.hinted(RateHint { remaining_ratio: 0.05, reset: Some(Duration::from_secs(3)) }, second(0));
        let settings = Settings::default();
        assert_eq!(allowance.remaining(&settings, second(2)), 0.05);
        assert_eq!(allowance.remaining(&settings, second(3)), 1.0);
        assert!(allowance.is_stale(&settings, second(3)));
    }
}
