//! What is held for a request, as a guard: whatever becomes of the request, what it holds is given back or settled.

use std::sync::Arc;

use tidegate_quota::{Reservation, Usage};

use super::{ByProvider, Owed, Quotas};

/// The guard. Dropping it gives everything back, the request itself included: nothing was sent.
pub(crate) struct Held {
    quotas: Arc<Quotas>,
    reservation: Option<Reservation>,
    /// What its attempts are still to be asked about.
    by_provider: Option<Box<ByProvider>>,
}

impl Held {
    /// Of a caller without limits.
    pub(super) fn nothing(quotas: &Arc<Quotas>) -> Self {
        Self { quotas: Arc::clone(quotas), reservation: None, by_provider: None }
    }

    pub(super) fn of(quotas: &Arc<Quotas>, reservation: Reservation) -> Self {
        Self { quotas: Arc::clone(quotas), reservation: Some(reservation), by_provider: None }
    }

    pub(super) fn with(mut self, by_provider: Option<Box<ByProvider>>) -> Self {
        self.by_provider = by_provider;
        self
    }

    /// The limits that each attempt has to be asked about; `None` when no limit names a provider.
    pub(crate) fn by_provider(&self) -> Option<&ByProvider> {
        self.by_provider.as_deref()
    }

    /// What is held.
    pub(crate) fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    /// What a later start has to know of it.
    pub(crate) fn to_remember(&self) -> Option<Reservation> {
        self.reservation.as_ref().filter(|reservation| self.quotas.is_journalled(reservation)).cloned()
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
        if let Some(reservation) = self.reservation.take() {
            // Nothing was sent, so that there is no record to wait for.
            self.quotas.gate.cancel(reservation);
        }
    }

    /// Settles with what was used. What has to wait for the record to be written is given back.
    pub(crate) fn settle(&mut self, used: Usage) -> Option<Owed> {
        self.quotas.settle(self.reservation.take()?, used)
    }

    /// Settles what the journal had no room for.
    pub(crate) fn settle_anyway(&self, owed: Owed) {
        owed.pay(&self.quotas.gate);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// One in so many parts of a budget is "near its end".
const LOW: i128 = 10;
