//! What happens beside the requests: settlements, purchases, returns and renewals.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Gate;
use crate::ask::micros;
use crate::decision::Decision;
use crate::set::{LimitSet, Selection};
use crate::settlement::Settlement;
use crate::store::{ReserveRequest, StoreError};
use crate::usage::Usage;
use crate::wallet::{Duty, Owner};

/// One thing to tell the store.
#[derive(Debug)]
pub(super) enum Work {
    Settle(Settlement),
    Duty(Duty),
    Refill(Box<Refill>),
    /// Look after the store's connections.
    Tend,
}

/// A slice to be bought.
#[derive(Debug)]
pub(super) struct Refill {
    owner: Owner,
    limits: Arc<LimitSet>,
    selection: Selection,
    least: Usage,
    lifetime: Duration,
}

impl Work {
    /// It tells the store what was used.
    pub(super) fn settles(&self) -> bool {
        matches!(self, Self::Settle(_) | Self::Duty(Duty::Settle(_)))
    }

    pub(super) fn refill(owner: Owner, request: &ReserveRequest<'_>) -> Self {
        Self::Refill(Box::new(Refill {
            owner,
            limits: request.limits.clone(),
            selection: request.selection,
            least: request.estimate,
            lifetime: request.lifetime,
        }))
    }
}

/// Runs beside a gate: `tasks.spawn("quota", worker.run(shutdown))`.
pub struct GateWorker {
    gate: Arc<Gate>,
    queue: mpsc::Receiver<Work>,
}

/// Calls under way at once: enough to fill the store's connections, few enough not to flood a store that comes back.
const AT_ONCE: usize = 128;
/// How often slices and leases are looked at.
const TICK: Duration = Duration::from_millis(500);
/// First and longest pause before a settlement is sent again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A settlement that nobody took for so long is left to the journal.
const GIVE_UP: Duration = Duration::from_secs(600);
/// What the end of the process may take.
const LAST_CALLS: Duration = Duration::from_secs(5);

impl GateWorker {
    pub(super) fn new(gate: Arc<Gate>, queue: mpsc::Receiver<Work>) -> Self {
        Self { gate, queue }
    }

    /// Works until `stop` completes; then gives every slice back and sends what is still queued, for at most five seconds.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let gate = self.gate.clone();
        let mut running = FuturesUnordered::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut duties = Vec::new();
        loop {
            // Every branch loses nothing when it is dropped unready: a message stays in the channel, a call in the set.
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(()) = running.next(), if !running.is_empty() => {}
                _ = tick.tick() => {
                    gate.tend(&mut duties);
                    running.extend(duties.drain(..).map(|duty| gate.perform(Work::Duty(duty))));
                    if !gate.tending.swap(true, Ordering::Relaxed) {
                        running.push(gate.perform(Work::Tend));
                    }
                }
                work = self.queue.recv(), if running.len() < AT_ONCE => match work {
                    Some(work) => running.push(gate.perform(work)),
                    None => break,
                },
            }
        }
        gate.wallets.drain(&mut duties);
        gate.untold.fetch_add(duties.iter().filter(|duty| matches!(duty, Duty::Settle(_))).count(), Ordering::SeqCst);
        running.extend(duties.drain(..).map(|duty| gate.perform(Work::Duty(duty))));
        self.queue.close();
        let rest = async {
            loop {
                // As above.
                tokio::select! {
                    Some(()) = running.next(), if !running.is_empty() => {}
                    work = self.queue.recv(), if running.len() < AT_ONCE => match work {
                        Some(work) => running.push(gate.perform(work)),
                        None => break,
                    },
                }
            }
            while running.next().await.is_some() {}
        };
        if tokio::time::timeout(LAST_CALLS, rest).await.is_err() {
            tracing::warn!("the quota store did not take all settlements before the process ended: the usage journal has them");
        }
        if let Err(error) = gate.store.close().await {
            tracing::warn!(%error, "the quota store was not closed well");
        }
    }
}

impl Gate {
    fn tend(&self, duties: &mut Vec<Duty>) {
        let now = self.now();
        self.wallets.tend(now, duties);
        self.untold.fetch_add(duties.iter().filter(|duty| matches!(duty, Duty::Settle(_))).count(), Ordering::SeqCst);
        self.leases.due(now, |reservation| match reservation.mode {
            crate::Mode::Local | crate::Mode::Open => self.local.renew(reservation, now),
            crate::Mode::Exact | crate::Mode::Slice => duties.push(Duty::Renew(reservation.clone())),
        });
    }

    async fn perform(&self, work: Work) {
        match work {
            Work::Settle(settlement) | Work::Duty(Duty::Settle(settlement)) => {
                self.settle_until_known(&settlement).await;
                self.one_told();
            }
            Work::Duty(Duty::Return(slice, keep)) => {
                // Not repeated: the next return, or the slice's settlement, gives back what this did not.
                if let Err(error) = self.timed("return_slice", self.store.return_slice(&slice, &keep)).await {
                    tracing::debug!(%error, "a slice was not given back yet");
                }
            }
            Work::Duty(Duty::Renew(reservation)) => {
                if let Err(error) = self.timed("renew", self.store.renew(&reservation)).await {
                    tracing::debug!(%error, "slots were not renewed yet");
                }
            }
            Work::Tend => {
                match self.timed("tend", self.store.tend()).await {
                    Ok(false) => {}
                    Ok(true) => {
                        // What was bought from the server before may be lost: what was spent of it is told now, and not once the counters
                        // were raised to a ledger that includes it.
                        let mut duties = Vec::new();
                        self.wallets.drain(&mut duties);
                        duties.into_iter().for_each(|duty| self.send(Work::Duty(duty)));
                        self.doubt.notify_one();
                    }
                    Err(error) => tracing::debug!(%error, "the quota store is away"),
                }
                self.tending.store(false, Ordering::Relaxed);
            }
            Work::Refill(refill) => {
                let Refill { owner, limits, selection, least, lifetime } = *refill;
                let slice = match self.buy(&owner, &limits, selection, &least, lifetime).await {
                    Ok(Decision::Allowed(slice)) => Some(slice),
                    Ok(Decision::Refused(_)) => None,
                    Err(error) => {
                        tracing::debug!(%error, "no slice was bought");
                        None
                    }
                };
                self.wallets.bought(&owner, slice, micros(lifetime), self.now());
            }
        }
    }

    /// Sends it again until the store has it, for ten minutes.
    async fn settle_until_known(&self, settlement: &Settlement) {
        let attempts = async {
            let mut pause = PAUSES.0;
            loop {
                match self.timed("settle", self.store.settle(settlement)).await {
                    Ok(settled) => return self.metrics.settled(settled),
                    Err(StoreError::Protocol { detail, .. }) => {
                        tracing::warn!(detail, "a settlement was not understood by the store: the usage journal has it");
                        return self.metrics.lost.inc();
                    }
                    // Either only ends the pause.
                    Err(_) => tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.back.notified() => {}
                    },
                }
                pause = (pause * 2).min(PAUSES.1);
            }
        };
        if tokio::time::timeout(GIVE_UP, attempts).await.is_err() {
            self.metrics.lost.inc();
        }
    }
}
