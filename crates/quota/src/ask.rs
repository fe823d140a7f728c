//! What every store is asked, and how its bare numbers become a decision.
//!
//! Everything that needs division or a calendar happens here, once; a store only compares and adds integers. That is what makes the
//! memory store and the Lua scripts decide alike.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use ulid::Ulid;

use crate::bucket::{Bucket, Cost, Rule};
use crate::clock::Micros;
use crate::decision::{Decision, Entry, Mode, Refusal, RefusalKind, Reservation};
use crate::limit::{Dimension, StoreDown};
use crate::period::Period;
use crate::set::{LimitSet, Selection};
use crate::store::{Remaining, ReserveRequest, SliceRequest};
use crate::usage::Usage;

/// How long a slot is held without being renewed.
pub(crate) const LEASE: Micros = 60_000_000;
/// What a caller is told to wait for a slot: nobody knows when a running request ends.
pub(crate) const SLOT_WAIT: Micros = 1_000_000;
/// How much longer than the reservation its `done` marker stands, for clocks that differ.
pub(crate) const DONE_SLACK: Micros = 60_000_000;

/// One limit's part of a question.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) bucket: &'a Arc<Bucket>,
    pub(crate) rule: Rule,
    pub(crate) amount: u64,
    /// Less is a refusal.
    pub(crate) least: Cost,
    /// Never more is given.
    pub(crate) want: Cost,
}

/// A question to a store.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) id: Ulid,
    pub(crate) limits: &'a LimitSet,
    pub(crate) selection: Selection,
    pub(crate) rows: SmallVec<[Row<'a>; 4]>,
    pub(crate) divisor: u64,
    pub(crate) lifetime: Micros,
    pub(crate) parts: u32,
}

/// A store's bare answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Per row: given, left after it, microseconds until full.
    Granted(SmallVec<[Given; 4]>),
    /// The row that refuses, how long it will, and what is left of it.
    Refused { row: usize, wait: Micros, left: i64 },
}

/// A store's numbers of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) held: Cost,
    pub(crate) left: i64,
    pub(crate) full_in: Micros,
}

impl<'a> Ask<'a> {
    /// One request, counted against one of `parts` counters.
    pub(crate) fn reserve(request: &ReserveRequest<'a>, now: Micros, parts: u32) -> Self {
        let limits: &'a LimitSet = request.limits;
        let rows = limits.buckets(request.selection).map(|bucket| {
            let (amount, rule) = rule_under(limits.on_store_down, bucket, now, parts);
            let cost = capped(rule, bucket.limit.dimension, &request.estimate);
            Row { bucket, rule, amount, least: cost, want: cost }
        });
        Self {
            id: request.id,
            limits,
            selection: request.selection,
            rows: rows.collect(),
            divisor: 1,
            lifetime: micros(request.lifetime),
            parts,
        }
    }

    /// A slice: at least one request, at most a twentieth of each limit.
    pub(crate) fn slice(request: &SliceRequest<'a>, now: Micros) -> Self {
        let limits: &'a LimitSet = request.limits;
        let rows = limits.buckets(request.selection).map(|bucket| {
            let (amount, rule) = rule_under(limits.on_store_down, bucket, now, 1);
            let least = capped(rule, bucket.limit.dimension, &request.least);
            let hoped = match rule {
                Rule::Slots { .. } => u64::from(request.slots),
                Rule::Rate(_) | Rule::Budget { .. } => rule.cost(bucket.limit.dimension, &request.want),
            };
            Row { bucket, rule, amount, least, want: hoped.min(rule.capacity() / LARGEST_PART).max(least) }
        });
        let divisor = u64::from(request.divisor.max(1));
        Self {
            id: request.id,
            limits,
            selection: request.selection,
            rows: rows.collect(),
            divisor,
            lifetime: micros(request.lifetime),
            parts: 1,
        }
    }

    /// A reservation that holds nothing: for a request whose answer was lost.
    pub(crate) fn blank(&self, now: Micros) -> Reservation {
        let entries = self.rows.iter().map(|row| Entry {
            bucket: row.bucket.clone(),
            period: row.rule.period(),
            amount: row.amount,
            held: 0,
            remaining: 0,
            reset_after: None,
        });
        Reservation {
            id: self.id,
            expires_at: now.saturating_add(self.lifetime),
            mode: Mode::Exact,
            parts: 1,
            slot: self.limits.slot.clone(),
            key: self.limits.subject.key.clone(),
            selection: self.selection,
            entries: entries.collect(),
            shadowed: 0,
        }
    }

    /// The decision behind a verdict given at `now`.
    pub(crate) fn decision(&self, verdict: Verdict, now: Micros, mode: Mode) -> Decision {
        match verdict {
            Verdict::Granted(given) => {
                let mut shadowed = 0;
                let entries = self.rows.iter().zip(given).enumerate().map(|(index, (row, given))| {
                    if row.bucket.limit.shadow && given.left < 0 {
                        shadowed |= 1 << index;
                    }
                    Entry {
                        bucket: row.bucket.clone(),
                        period: row.rule.period(),
                        amount: row.amount,
                        held: given.held,
                        remaining: amount_left(&row.rule, given.left).saturating_add_unsigned(row.bucket.beyond()),
                        reset_after: reset_after(&row.rule, given.full_in),
                    }
                });
                let entries = entries.collect();
                Decision::Allowed(Reservation {
                    id: self.id,
                    expires_at: now.saturating_add(self.lifetime),
                    mode,
                    parts: self.parts,
                    slot: self.limits.slot.clone(),
                    key: self.limits.subject.key.clone(),
                    selection: self.selection,
                    entries,
                    shadowed,
                })
            }
            Verdict::Refused { row, wait, left } => {
                let row = &self.rows[row];
                // Than the whole limit, not than this region's or this edge's part of it.
                let whole = row.bucket.rule(row.bucket.limit.amount, now, 1);
                let too_big = row.least > whole.capacity();
                let waits = wait < Period::NEVER && !too_big;
                Decision::Refused(Refusal {
                    kind: if row.bucket.limit.dimension.is_spend() { RefusalKind::Funds } else { RefusalKind::Rate },
                    bucket: Some(row.bucket.clone()),
                    retry_after: waits.then(|| Duration::from_micros(wait)),
                    remaining: amount_left(&row.rule, left),
                    too_big,
                    mode,
                })
            }
        }
    }
}

impl Row<'_> {
    /// How long until `least` is available, when only `available` is.
    pub(crate) fn wait(&self, available: i64, now: Micros) -> Micros {
        match &self.rule {
            Rule::Rate(_) => self.least.saturating_sub_signed(available),
            Rule::Slots { .. } => SLOT_WAIT,
            Rule::Budget { period, .. } if period.end == Period::NEVER => Period::NEVER,
            Rule::Budget { period, .. } => period.end.saturating_sub(now),
        }
    }
}

/// What is shown of one limit, from a store's numbers.
pub(crate) fn remaining(bucket: &Arc<Bucket>, rule: &Rule, left: i64, full_in: Micros) -> Remaining {
    let used = i64::try_from(rule.capacity()).unwrap_or(i64::MAX).saturating_sub(left);
    Remaining {
        bucket: bucket.clone(),
        used: rule.amount(u64::try_from(used).unwrap_or(0)),
        remaining: amount_left(rule, left).saturating_add_unsigned(bucket.beyond()),
        reset_after: reset_after(rule, full_in),
    }
}

/// A limit's numbers for showing them.
pub(crate) fn rule(bucket: &Bucket, now: Micros, parts: u32) -> (u64, Rule) {
    rule_under(StoreDown::Closed, bucket, now, parts)
}

/// A limit's numbers for a key with this policy, which counts where a shared budget's home is away.
fn rule_under(policy: StoreDown, bucket: &Bucket, now: Micros, parts: u32) -> (u64, Rule) {
    let amount = bucket.amount(now, policy);
    (amount, bucket.rule(amount, now, u64::from(parts)))
}

/// A request larger than a rate's burst is reserved as the burst; the rest becomes a debt when it is settled. Otherwise it could never pass.
fn capped(rule: Rule, dimension: Dimension, usage: &Usage) -> Cost {
    let cost = rule.cost(dimension, usage);
    match rule {
        Rule::Rate(rate) if rate.tolerance > 0 => cost.min(rate.tolerance),
        Rule::Rate(_) | Rule::Slots { .. } | Rule::Budget { .. } => cost,
    }
}

fn amount_left(rule: &Rule, left: i64) -> i64 {
    let amount = i64::try_from(rule.amount(left.unsigned_abs())).unwrap_or(i64::MAX);
    if left < 0 { -amount } else { amount }
}

fn reset_after(rule: &Rule, full_in: Micros) -> Option<Micros> {
    match rule {
        Rule::Rate(_) => Some(full_in),
        Rule::Slots { .. } => None,
        Rule::Budget { period, .. } => (period.end < Period::NEVER).then_some(full_in),
    }
}

pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A slice is at most a twentieth of the limit: what lies idle in slices stays small.
const LARGEST_PART: u64 = 20;
