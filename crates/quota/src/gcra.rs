//! The generic cell rate algorithm over integer microseconds.
//!
//! State is one number, the theoretical arrival time (TAT): when the bucket will be full again. A request that costs `c` microseconds is
//! allowed iff `max(TAT, now) + c − τ <= now`, and moves TAT there. (ITU-T I.371; chosen over fixed windows, which admit twice the limit at
//! their edge, and sliding logs, which need memory per request.)

use crate::clock::Micros;

/// A rate: `period` for `amount` units, with `burst` units at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Microseconds for `denominator` units.
    numerator: u64,
    denominator: u64,
    /// How far TAT may be ahead of now, in microseconds.
    pub(crate) tolerance: Micros,
}

/// Rates are per minute.
pub(crate) const MINUTE: Micros = 60_000_000;

impl Rate {
    /// A limit of nothing: no burst, so that no cost fits.
    pub(crate) const BLOCKED: Self = Self { numerator: FURTHEST, denominator: 1, tolerance: 0 };

    /// One of `parts` parts of a rate of whole requests: the time of one is rounded up to a microsecond, so that a burst passes at once.
    pub(crate) fn of_requests(per_minute: u64, burst: u64, parts: u64) -> Self {
        let each = MINUTE.saturating_mul(parts).div_ceil(per_minute.max(1)).max(1);
        Self { numerator: each, denominator: 1, tolerance: each.saturating_mul(burst).min(FURTHEST) }
    }

    /// One of `parts` parts of a rate of tokens: the time of a request's tokens is rounded up once per request.
    pub(crate) fn of_tokens(per_minute: u64, burst: u64, parts: u64) -> Self {
        let mut rate = Self { numerator: MINUTE.saturating_mul(parts), denominator: per_minute.max(1), tolerance: 0 };
        rate.tolerance = rate.time(burst).min(FURTHEST);
        rate
    }

    /// The time that `units` take, rounded up. Never over-admits; errs by less than a microsecond per request.
    pub(crate) fn time(&self, units: u64) -> Micros {
        let time = (u128::from(units) * u128::from(self.numerator)).div_ceil(u128::from(self.denominator));
        u64::try_from(time).unwrap_or(u64::MAX).min(FURTHEST)
    }

    /// The units that fit into a time, rounded down.
    pub(crate) fn units(&self, time: Micros) -> u64 {
        u64::try_from(u128::from(time) * u128::from(self.denominator) / u128::from(self.numerator)).unwrap_or(u64::MAX)
    }

    /// How far TAT may ever be ahead of now: more is a clock that jumped, or a debt that is forgiven.
    pub(crate) fn furthest(&self) -> Micros {
        self.tolerance + MINUTE
    }
}

/// A thousand days: keeps every sum with today's time below 2^53.
const FURTHEST: Micros = 1_000 * 86_400 * 1_000_000;
