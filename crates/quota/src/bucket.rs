//! A limit made ready to count: its storage key and its arithmetic.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::gcra::Rate;
use crate::limit::{Dimension, Limit, StoreDown, Window};
use crate::period::Period;
use crate::share::Share;
use crate::usage::Usage;

/// What a request takes from a bucket, in the unit the stores count: microseconds of a rate, micro-dollars or requests of a budget, slots.
pub type Cost = u64;

/// One limit of one subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bucket {
    /// Where its state is kept. Carries the slot tag of the organisation; a calendar period is appended.
    pub key: Arc<str>,
    /// What was declared.
    pub limit: Limit,
    /// What this region may use of a global limit.
    #[serde(skip)]
    pub(crate) share: Option<Arc<Share>>,
}

/// The three kinds of counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// A rate per minute: GCRA.
    Rate,
    /// Leased slots.
    Slots,
    /// A counter per calendar period.
    Budget(Window),
}

/// A bucket's numbers at one moment: what the stores compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Rate(Rate),
    Slots { limit: u64 },
    Budget { limit: u64, period: Period },
}

impl Bucket {
    /// How much may be used here at `now` by a key with this policy: the declared amount, or this region's share of it.
    pub(crate) fn amount(&self, now: Micros, policy: StoreDown) -> u64 {
        self.share.as_ref().map_or(self.limit.amount, |share| share.usable(&self.limit, self.period_start(now), policy))
    }

    /// What is left of a shared budget outside of this region; 0 of everything else.
    pub(crate) fn beyond(&self) -> u64 {
        self.share.as_ref().map_or(0, |share| share.beyond())
    }

    /// Start of the budget's period that contains `now`; 0 of everything else.
    pub(crate) fn period_start(&self, now: Micros) -> Micros {
        match self.meter() {
            Meter::Budget(window) => Period::containing(now, window, self.limit.utc_offset_minutes).start,
            Meter::Rate | Meter::Slots => 0,
        }
    }

    /// How it is counted.
    pub const fn meter(&self) -> Meter {
        match self.limit.dimension {
            Dimension::RequestsPerMinute | Dimension::TokensPerMinute(_) => Meter::Rate,
            Dimension::Concurrent => Meter::Slots,
            Dimension::Spend(window) => Meter::Budget(window),
            Dimension::FreeRequestsPerDay => Meter::Budget(Window::Day),
        }
    }

    /// The numbers at `now` for one of `parts` counters that share the limit (1: the whole limit).
    ///
    /// A part of a rate is exact; a part of anything countable is rounded down but never below one, so that a small limit on many edges is
    /// a small limit and not an outage.
    pub(crate) fn rule(&self, amount: u64, now: Micros, parts: u64) -> Rule {
        let parts = parts.max(1);
        let part = |whole: u64| if whole == 0 { 0 } else { (whole / parts).max(1) };
        match self.meter() {
            Meter::Rate => Rule::Rate(self.rate(amount, parts)),
            Meter::Slots => Rule::Slots { limit: part(amount) },
            Meter::Budget(window) => {
                Rule::Budget { limit: part(amount), period: Period::containing(now, window, self.limit.utc_offset_minutes) }
            }
        }
    }

    /// Ten seconds' worth of requests, a minute's worth of tokens; a declared burst shrinks with the amount.
    fn rate(&self, amount: u64, parts: u64) -> Rate {
        let declared = |default: u64| match self.limit.burst {
            Some(burst) if amount == self.limit.amount => burst,
            Some(burst) => u64::try_from(u128::from(burst) * u128::from(amount) / u128::from(self.limit.amount.max(1))).unwrap_or(burst),
            None => default,
        };
        if amount == 0 {
            return Rate::BLOCKED;
        }
        match self.limit.dimension {
            Dimension::RequestsPerMinute => Rate::of_requests(amount, (declared(amount / 6) / parts).max(1), parts),
            _ => Rate::of_tokens(amount, (declared(amount) / parts).max(1), parts),
        }
    }
}

impl Rule {
    /// What `usage` costs, uncapped.
    pub(crate) fn cost(&self, dimension: Dimension, usage: &Usage) -> Cost {
        let amount = usage.amount(dimension);
        match self {
            Self::Rate(rate) => rate.time(amount),
            // Doubles are exact up to 2^53; nobody spends nine billion dollars in a request.
            Self::Slots { .. } | Self::Budget { .. } => amount.min(Period::NEVER),
        }
    }

    /// What can be had at most from an untouched bucket.
    pub(crate) fn capacity(&self) -> Cost {
        match self {
            Self::Rate(rate) => rate.tolerance,
            Self::Slots { limit } | Self::Budget { limit, .. } => *limit,
        }
    }

    /// A cost as an amount of the dimension, rounded down.
    pub(crate) fn amount(&self, cost: Cost) -> u64 {
        match self {
            Self::Rate(rate) => rate.units(cost),
            Self::Slots { .. } | Self::Budget { .. } => cost,
        }
    }

    pub(crate) fn period(&self) -> Option<Period> {
        match self {
            Self::Budget { period, .. } => Some(*period),
            Self::Rate(_) | Self::Slots { .. } => None,
        }
    }
}
