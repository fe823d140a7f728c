//! Telling a remote store what was used, and keeping the slots of long streams.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate_quota::{QuotaStore, Reservation, Settlement, StoreError};
use tidegate_runtime::Shutdown;
use tokio::sync::{Mutex, mpsc};

use super::{Owed, Quotas};
use crate::ledger::{Ledger, Note};

/// Settles with a store in this process, which answers at the first poll. One that does not answer is left to its reservation's expiry.
pub(super) fn settle_now(store: &dyn QuotaStore, settlement: &Settlement) {
    let mut answer = store.settle(settlement);
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(_)) => {}
        Poll::Ready(Err(error)) => tracing::warn!(%error, "a settlement was not taken"),
        Poll::Pending => tracing::warn!("a settlement was not taken at once"),
    }
}

/// What the tasks share. Several run side by side, so that one round trip does not hold the next.
pub(crate) struct Settler {
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) queue: Mutex<mpsc::Receiver<Owed>>,
    pub(crate) ledger: Arc<Ledger>,
}

impl Settler {
    /// Until a stop is asked for and the queue is empty.
    pub(crate) async fn run(self: Arc<Self>, stop: Shutdown) {
        loop {
            let batch = {
                let mut queue = self.queue.lock().await;
                // Dropping a losing branch is safe: queue and stop keep what they have.
                let first = tokio::select! {
                    biased;
                    first = queue.recv() => first,
                    () = stop.requested() => queue.try_recv().ok(),
                };
                let Some(first) = first else { return };
                let mut batch = vec![first];
                while batch.len() < MOST_AT_ONCE
                    && let Ok(next) = queue.try_recv()
                {
                    batch.push(next);
                }
                batch
            };
            self.settle(&batch).await;
        }
    }

    /// Keeps the slots of long streams.
    pub(crate) async fn renew_all(self: Arc<Self>, mut renewals: mpsc::Receiver<Vec<Reservation>>, stop: Shutdown) {
        loop {
            // Dropping a losing branch is safe, as above.
            let reservations = tokio::select! {
                biased;
                () = stop.requested() => return,
                reservations = renewals.recv() => match reservations {
                    Some(reservations) => reservations,
                    None => return,
                },
            };
            self.renew(&reservations).await;
        }
    }

    /// Settles, and notes in the journal what is done.
    async fn settle(&self, batch: &[Owed]) {
        let mut done = Vec::with_capacity(batch.len());
        for owed in batch {
            match self.settle_one(&owed.settlement).await {
                Ok(()) if owed.id.is_empty() => {}
                Ok(()) => done.push(owed.id.to_string()),
                Err(error) => {
                    // The journal keeps it as unsettled: the next start tries again, and the store expires the reservation as consumed.
                    self.quotas.metrics.settled("failed", 1);
                    tracing::debug!(%error, id = %owed.id, "a settlement was given up");
                }
            }
        }
        if !done.is_empty() {
            // Lost when the journal has no room, which it counts: a settlement that is repeated changes nothing.
            let _ = self.ledger.note(Note::Settled(done));
        }
    }

    async fn settle_one(&self, settlement: &Settlement) -> Result<(), StoreError> {
        let mut wait = RETRY_FIRST;
        let mut tries = 0;
        loop {
            match self.quotas.store().settle(settlement).await {
                Ok(settled) => {
                    self.quotas.metrics.settled(settled.as_str(), 1);
                    return Ok(());
                }
                Err(error) if tries >= TRIES => return Err(error),
                Err(_) => {
                    self.quotas.metrics.store_failed();
                    tries += 1;
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LAST);
                }
            }
        }
    }

    async fn renew(&self, reservations: &[Reservation]) {
        for reservation in reservations {
            if let Err(error) = self.quotas.store().renew(reservation).await {
                // Three renewals fit into a lease.
                tracing::debug!(%error, id = %reservation.id, "a slot was not renewed");
                self.quotas.metrics.store_failed();
            }
        }
    }
}

/// Settlements that one task takes at once.
const MOST_AT_ONCE: usize = 32;
/// Tasks that settle side by side: a store half a millisecond away is told of 16 000 requests a second.
pub(crate) const SETTLERS: usize = 8;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// Beyond it the store is down for longer than waiting helps; other settlements wait behind this one.
const TRIES: u32 = 3;
