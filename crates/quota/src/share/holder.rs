//! A cell's share as one edge holds it: which assignment counts, until when.
//!
//! Pure. Only answers to own reports count, because only of those the sending time is known; an assignment of an earlier life of this
//! process answers none of them.

use std::collections::VecDeque;

use super::allocator::{Assign, ShareReport};
use crate::clock::Micros;
use crate::share::Share;

/// The state of one limit on one edge.
#[derive(Debug, Default)]
pub struct Holder {
    /// Reports that may still be answered, with their sending times.
    sent: VecDeque<(u64, Micros)>,
    sequence: u64,
    /// The newest assignment that no decision is older than.
    confirmed: u64,
    /// When `sequence` becomes that.
    confirms_at: Micros,
    amount: u64,
    floor: u64,
    until: Micros,
}

/// What an assignment changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nothing, or only the time.
    Nothing,
    /// It is larger now, or the first.
    More,
    /// It is smaller: home should hear of it as soon as it is confirmed.
    Less,
}

/// Answers to older reports are worth nothing: their leases are over.
const REPORTS: usize = 64;
/// Decisions that began under a larger share have reached the store by then: ten times what a call may take.
pub(super) const CONFIRM_AFTER: Micros = 500_000;

impl Holder {
    /// Holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A report to send now. Its id must differ from those of all other reports of this process and of earlier ones: count from a random
    /// number. What was spent is to be read after this call.
    pub fn report(&mut self, id: u64, now: Micros) -> ShareReport {
        if now >= self.confirms_at {
            self.confirmed = self.sequence;
        }
        if self.sent.len() == REPORTS {
            self.sent.pop_front();
        }
        self.sent.push_back((id, now));
        let left = self.until.saturating_sub(now);
        ShareReport { id, holding: self.confirmed, amount: if left > 0 { self.amount } else { 0 }, left, ..ShareReport::default() }
    }

    /// Takes over an assignment.
    pub fn take(&mut self, assign: &Assign, now: Micros) -> Taken {
        let Some(&(_, sent_at)) = self.sent.iter().find(|(id, _)| *id == assign.report) else { return Taken::Nothing };
        let until = sent_at.saturating_add(assign.lease);
        if assign.sequence < self.sequence {
            return Taken::Nothing;
        }
        if assign.sequence == self.sequence {
            self.until = self.until.max(until);
            return Taken::Nothing;
        }
        let less = assign.amount < self.value(now);
        if !less && now >= self.confirms_at {
            self.confirmed = assign.sequence;
        } else {
            // Also a larger one that comes while a smaller one is not confirmed yet waits for it.
            self.confirms_at = now.saturating_add(CONFIRM_AFTER);
        }
        (self.sequence, self.amount, self.floor, self.until) = (assign.sequence, assign.amount, assign.floor, until);
        if less { Taken::Less } else { Taken::More }
    }

    /// What may be used at `now`.
    pub fn value(&self, now: Micros) -> u64 {
        if now < self.until { self.amount } else { self.floor }
    }

    /// What may be used at `now` within a lease, besides the floor.
    pub fn leased(&self, now: Micros) -> u64 {
        if now < self.until { self.amount.saturating_sub(self.floor) } else { 0 }
    }

    /// The newest assignment's number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When a smaller share counts as confirmed; in the past when there is none to confirm.
    pub fn confirms_at(&self) -> Micros {
        self.confirms_at
    }

    /// Shows it to the decisions; a grant only for what is left of the budget's period, because its amount is counted from the period's
    /// start. All times given to this holder must be those of [`crate::monotonic`].
    pub fn publish(&self, share: &Share, now: Micros, period_left: Option<Micros>) {
        let period_end = period_left.map_or(Micros::MAX, |left| now.saturating_add(left));
        share.set(self.amount, self.until.min(period_end), self.floor);
    }
}
