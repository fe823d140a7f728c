//! The end of a reservation: what was really used.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::bucket::Cost;
use crate::decision::Reservation;
use crate::usage::Usage;

/// A reservation and what was used of it. May be sent any number of times: it counts once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settlement {
    /// What was held.
    pub reservation: Reservation,
    /// What was used, per entry of the reservation, in the store's unit.
    pub(crate) used: SmallVec<[Cost; 4]>,
}

impl Settlement {
    /// The settlement of a request that used `actual`.
    pub fn new(reservation: Reservation, actual: &Usage) -> Self {
        let used = reservation
            .entries
            .iter()
            .map(|entry| {
                let limit = &entry.bucket.limit;
                entry.bucket.rule(entry.amount, 0, reservation.parts.into()).cost(limit.dimension, actual)
            })
            .collect();
        Self { reservation, used }
    }

    /// A settlement that gives everything back: for a request that was never sent.
    pub fn nothing(reservation: Reservation) -> Self {
        Self { used: reservation.entries.iter().map(|_| 0).collect(), reservation }
    }

    /// Adds another request that was taken from the same slice. After a crash a journal merges all requests with the same reservation id
    /// and settles the sum; a slice is settled as a whole. Does nothing and returns false when the ids differ.
    pub fn merge(&mut self, other: &Self) -> bool {
        if other.reservation.id != self.reservation.id || other.used.len() != self.used.len() {
            return false;
        }
        for (mine, theirs) in self.used.iter_mut().zip(&other.used) {
            *mine = mine.saturating_add(*theirs);
        }
        true
    }

    /// The same use counted against the whole limits: what the store is told of a request that an edge had to count alone.
    pub(crate) fn whole(&self, actual: &Usage) -> Self {
        let mut reservation = self.reservation.clone();
        reservation.parts = 1;
        for entry in &mut reservation.entries {
            entry.held = 0;
        }
        Self::new(reservation, actual)
    }

    /// The largest spend in it, in micro-dollars: large settlements are worth waiting for a replica.
    pub fn micro_dollars(&self) -> u64 {
        let spent = self.reservation.entries.iter().zip(&self.used).filter(|(entry, _)| entry.bucket.limit.dimension.is_spend());
        spent.map(|(_, used)| *used).max().unwrap_or(0)
    }
}

/// What a settlement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The reservation was replaced by what was used.
    Applied,
    /// It was settled before: nothing changed.
    Repeated,
    /// The store had lost the reservation: what was used was added.
    Restored,
    /// The reservation had expired as consumed: nothing changed, the journal reconciles.
    Expired,
}

impl Settled {
    /// The word in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Repeated => "repeated",
            Self::Restored => "restored",
            Self::Expired => "expired",
        }
    }
}
