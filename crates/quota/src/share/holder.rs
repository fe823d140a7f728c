//! A region's share as one edge holds it: which assignment counts, until when.
//!
//! Pure. Only answers to own reports count, because only of those the sending time is known; an assignment of an earlier life of this
//! process answers none of them.

use std::collections::VecDeque;

use super::allocator::{Assign, ShareReport};
use crate::clock::Micros;
use crate::share::Share;

/// The state of one limit on one edge.
#[derive(Debug)]
pub struct Holder {
    next_report: u64,
    /// Reports that may still be answered, with their sending times.
    sent: VecDeque<(u64, Micros)>,
    sequence: u64,
    amount: u64,
    floor: u64,
    until: Micros,
}

/// Answers to older reports are worth nothing: their leases are over.
const REPORTS: usize = 64;

impl Holder {
    /// Holds nothing. `first_report` must differ between lives of a process: a random number.
    pub fn new(first_report: u64) -> Self {
        Self { next_report: first_report, sent: VecDeque::new(), sequence: 0, amount: 0, floor: 0, until: 0 }
    }

    /// A report to send now; about every three seconds, at once after [`Holder::take`] returned true for a smaller share.
    pub fn report(&mut self, demand: u64, spent: u64, now: Micros) -> ShareReport {
        let id = self.next_report;
        self.next_report = self.next_report.wrapping_add(1);
        if self.sent.len() == REPORTS {
            self.sent.pop_front();
        }
        self.sent.push_back((id, now));
        ShareReport { id, holding: self.sequence, demand, spent }
    }

    /// Takes over an assignment. True when it is another one than before.
    pub fn take(&mut self, assign: &Assign) -> bool {
        let Some(&(_, sent_at)) = self.sent.iter().find(|(id, _)| *id == assign.report) else { return false };
        let until = sent_at.saturating_add(assign.lease);
        if assign.sequence < self.sequence {
            return false;
        }
        if assign.sequence == self.sequence {
            self.until = self.until.max(until);
            return false;
        }
        (self.sequence, self.amount, self.floor, self.until) = (assign.sequence, assign.amount, assign.floor, until);
        true
    }

    /// What may be used at `now`.
    pub fn value(&self, now: Micros) -> u64 {
        if now < self.until { self.amount } else { self.floor }
    }

    /// Shows it to the decisions, as of `now` on the decisions' clock; for a budget at most until its period ends.
    pub fn publish(&self, share: &Share, period_end: Option<Micros>) {
        share.set(self.amount, self.until.min(period_end.unwrap_or(Micros::MAX)), self.floor);
    }
}
