//! What is held for a request, as a guard: whatever becomes of the request, what it holds is given back or settled.

use std::sync::Arc;

use tidegate_quota::{Reservation, Settlement, Usage};

use super::{Owed, Quotas};

/// The guard. Dropping it gives everything back, the request itself included: nothing was sent.
pub(crate) struct Held {
    quotas: Arc<Quotas>,
    reservation: Option<Reservation>,
}

impl Held {
    /// Of a caller without limits.
    pub(super) fn nothing(quotas: &Arc<Quotas>) -> Self {
        Self { quotas: Arc::clone(quotas), reservation: None }
    }

    pub(super) fn of(quotas: &Arc<Quotas>, reservation: Reservation) -> Self {
        Self { quotas: Arc::clone(quotas), reservation: Some(reservation) }
    }

    /// What is held.
    pub(crate) fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    /// What a later start or a renewal has to know of it: nothing, for a store that ends with this process and a request without a slot.
    pub(crate) fn to_remember(&self) -> Option<Reservation> {
        self.reservation.as_ref().filter(|reservation| self.quotas.is_remote() || reservation.is_leased()).cloned()
    }

    /// Less than a tenth of a spend budget is left.
    pub(super) fn runs_low(&self) -> bool {
        let entries = self.reservation.iter().flat_map(|reservation| &reservation.entries);
        entries
            .filter(|entry| entry.bucket.limit.dimension.is_spend() && !entry.bucket.limit.shadow)
            .any(|entry| i128::from(entry.remaining) * LOW < i128::from(entry.bucket.limit.amount))
    }

    /// Nothing came of it.
    pub(super) fn give_back(&mut self) {
        if let Some(reservation) = self.reservation.take()
            && let Some(settlement) = self.quotas.settle(reservation, &Usage::default())
        {
            // Nothing was sent, so that there is no record which the journal could miss.
            self.quotas.settle_later(Owed { id: "".into(), settlement });
        }
    }

    /// Settles with what was used. What a remote store has to be told is given back, for the journal to pass on after the record is
    /// written.
    pub(crate) fn settle(&mut self, used: &Usage) -> Option<Settlement> {
        let reservation = self.reservation.take()?;
        self.quotas.settle(reservation, used)
    }

    /// Passes a settlement on that the journal did not take.
    pub(crate) fn settle_later(&self, owed: Owed) {
        self.quotas.settle_later(owed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// One in so many parts of a budget is "near its end".
const LOW: i128 = 10;
