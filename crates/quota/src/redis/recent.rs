//! The settlements of the last half minute, for a server that lost them.

use std::collections::VecDeque;

use super::scripts::Call;
use crate::clock::Micros;

/// A queue by time.
#[derive(Debug, Default)]
pub(super) struct Recent {
    calls: VecDeque<(Micros, Call)>,
}

/// Longer than any loss by asynchronous replication with bounded lag.
const KEEP: Micros = 30_000_000;
/// A few hundred bytes each: at most some tens of megabytes; older ones go first.
const MOST: usize = 65_536;

impl Recent {
    pub(super) fn keep(&mut self, call: Call, now: Micros) {
        if self.calls.len() >= MOST {
            self.calls.pop_front();
        }
        self.calls.push_back((now, call));
    }

    pub(super) fn forget_old(&mut self, now: Micros) {
        while self.calls.front().is_some_and(|(at, _)| at.saturating_add(KEEP) < now) {
            self.calls.pop_front();
        }
    }

    pub(super) fn all(&self) -> Vec<Call> {
        self.calls.iter().map(|(_, call)| call.clone()).collect()
    }
}
