//! The answer to a request for quota.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use ulid::Ulid;

use crate::bucket::{Bucket, Cost};
use crate::clock::Micros;
use crate::limit::Scope;
use crate::period::Period;
use crate::set::Selection;

/// May it run?
#[derive(Debug)]
pub enum Decision {
    /// Yes; settle the reservation when it has ended.
    Allowed(Reservation),
    /// No.
    Refused(Refusal),
}

/// How a decision was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By the store.
    Exact,
    /// From a slice that was bought before.
    Slice,
    /// By this edge alone, while the store is away.
    Local,
    /// Not at all, while the store is away and the key is declared `open`.
    Open,
}

impl Mode {
    /// The word in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Slice => "slice",
            Self::Local => "local",
            Self::Open => "open",
        }
    }
}

/// What is held for a request until it is settled. It can be written to a journal (serde) and settled after a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reservation {
    /// The request's id, or the slice's that it was taken from.
    pub id: Ulid,
    /// When it counts as consumed if nobody has settled it.
    pub expires_at: Micros,
    /// How the decision was made.
    pub mode: Mode,
    /// How many counters shared each limit: 1, or the known edges in local mode.
    pub(crate) parts: u32,
    /// The key prefix of the organisation.
    pub(crate) slot: Arc<str>,
    /// The key's public id, and which of its limits applied: finds the slice it was taken from.
    pub(crate) key: Arc<str>,
    pub(crate) selection: Selection,
    /// One per limit that applies.
    pub entries: SmallVec<[Entry; 4]>,
    /// A bit per entry: a shadow limit that would have refused.
    pub(crate) shadowed: u64,
}

/// What is held of one limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The limit.
    pub bucket: Arc<Bucket>,
    /// The period it is counted in.
    pub period: Option<Period>,
    /// The amount it was counted against: the declared one, or this region's share.
    pub amount: u64,
    /// What is held, in the store's unit.
    pub held: Cost,
    /// What is left of the limit after this, in the limit's unit. Negative only for a shadow limit or one lowered below its use.
    pub remaining: i64,
    /// Microseconds until the whole limit is there again; `None` for a total, or a concurrency limit.
    pub reset_after: Option<Micros>,
}

impl Entry {
    /// Whether use has reached the soft threshold.
    pub fn warns(&self) -> bool {
        self.bucket.limit.warn_at.is_some_and(|percent| {
            let used = i128::from(self.bucket.limit.amount) - i128::from(self.remaining);
            used * 100 >= i128::from(self.bucket.limit.amount) * i128::from(percent)
        })
    }
}

impl Reservation {
    /// The shadow limits that would have refused.
    pub fn shadowed(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        self.entries.iter().enumerate().filter(|(index, _)| self.shadowed >> index & 1 == 1).map(|(_, entry)| &entry.bucket)
    }

    /// The limits whose soft threshold is reached.
    pub fn warnings(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.warns())
    }

    /// Whether it holds slots of a concurrency limit, which have to be renewed.
    pub fn is_leased(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.bucket.meter(), crate::bucket::Meter::Slots) && entry.held > 0)
    }
}

/// Why not, and when again.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What kind of answer it is.
    pub kind: RefusalKind,
    /// The limit that refused: the one that takes longest to recover when several did. Absent when the store is away and the key is `closed`.
    pub bucket: Option<Arc<Bucket>>,
    /// When to try again; `None` when waiting does not help.
    pub retry_after: Option<Duration>,
    /// What is left of the limit, in its unit.
    pub remaining: i64,
    /// The request alone is more than the whole limit: it will never pass.
    pub too_big: bool,
    /// How the decision was made.
    pub mode: Mode,
}

impl Refusal {
    /// The scope of the limit that refused.
    pub fn scope(&self) -> Option<Scope> {
        self.bucket.as_ref().map(|bucket| bucket.limit.scope)
    }
}

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Too many requests, tokens or slots: 429.
    Rate,
    /// Not enough money: 402.
    Funds,
    /// It cannot be counted and the key's policy forbids to go on: 503. Never a verdict about the caller.
    Unavailable,
}

impl RefusalKind {
    /// The HTTP status that tells it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Rate => 429,
            Self::Funds => 402,
            Self::Unavailable => 503,
        }
    }

    /// The word in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Funds => "funds",
            Self::Unavailable => "unavailable",
        }
    }
}
