//! The one thing an edge asks: store, slices, remembered refusals and the rules for a store that is away, behind two calls.
//!
//! [`Gate::reserve_now`] never waits and answers most requests of hot keys; [`Gate::reserve`] makes at most one round trip and always
//! answers. [`Gate::settle`] never waits: a [`GateWorker`] tells the store.

mod leases;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use self::leases::Leases;
pub use self::worker::GateWorker;
use self::worker::Work;
use crate::ask::{Ask, micros};
use crate::clock::{Clock, Micros};
use crate::decision::{Decision, Mode, Refusal, RefusalKind, Reservation};
use crate::denials::Denials;
use crate::local::Local;
use crate::metrics::Metrics;
use crate::set::{LimitSet, Selection};
use crate::settlement::Settlement;
use crate::share::{Share, Waiting};
use crate::store::{QuotaStore, ReserveRequest, SliceRequest, Snapshot, StoreError};
use crate::usage::Usage;
use crate::wallet::{Owner, SPENDABLE, Taken, Wallets, slice_id};

/// The quotas of an edge.
pub struct Gate {
    store: Arc<dyn QuotaStore>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    wallets: Wallets,
    denials: Denials,
    local: Local,
    leases: Leases,
    /// Live edges of the region that share the store, this one included.
    edges: AtomicU32,
    slices: bool,
    work: mpsc::Sender<Work>,
    /// The last call to the store failed.
    down: AtomicBool,
    /// The store is being looked after.
    tending: AtomicBool,
    /// The store may not know what was spent.
    doubt: Notify,
    /// Settlements that the store has not heard of yet.
    untold: AtomicUsize,
    /// The last of them was told.
    told: Notify,
    /// The store answers again: settlements that wait for another try need not.
    back: Notify,
}

/// How a gate is set up.
#[derive(Debug, Clone, Copy)]
pub struct GateOptions {
    /// Buy slices for hot keys. Pointless for a store in the same process, whose answers cost less than a slice.
    pub slices: bool,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self { slices: true }
    }
}

/// Why a gate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Its metrics are already registered.
    #[error("register the quota metrics: make one gate per process")]
    Metrics(#[from] prometheus::Error),
}

/// Waiting settlements: at 10,000 per second a store may be away for six seconds before the journal has to reconcile.
const QUEUE: usize = 65_536;
/// How long a request waits for a larger share: a report to home, an agreement over three regions and the way back take half of it.
const SHARE_PATIENCE: Duration = Duration::from_millis(1_500);
/// What a caller is told to wait for home.
const HOME_WAIT: Duration = Duration::from_secs(2);
/// After a failed call a key is decided locally for this long.
const LOCAL_FOR: Micros = 1_000_000;

impl Gate {
    /// A gate and the worker that has to run beside it.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn new(
        store: Arc<dyn QuotaStore>,
        clock: Arc<dyn Clock>,
        options: GateOptions,
        registry: &Registry,
    ) -> Result<(Arc<Self>, GateWorker), GateError> {
        let (work, queue) = mpsc::channel(QUEUE);
        let gate = Arc::new(Self {
            store,
            clock,
            metrics: Metrics::register(registry)?,
            wallets: Wallets::new(),
            denials: Denials::new(),
            local: Local::new(),
            leases: Leases::new(),
            edges: AtomicU32::new(1),
            slices: options.slices,
            work,
            down: AtomicBool::new(false),
            tending: AtomicBool::new(false),
            doubt: Notify::new(),
            untold: AtomicUsize::new(0),
            told: Notify::new(),
            back: Notify::new(),
        });
        Ok((gate.clone(), GateWorker::new(gate, queue)))
    }

    /// Waits until the store may not know what was spent: it said so, it answers again after it was away, or another server answers. Then
    /// its spend counters are to be restored from the ledger. For one waiter; doubts while nobody waits are kept as one.
    pub async fn spend_in_doubt(&self) {
        self.doubt.notified().await;
    }

    /// Waits until the store has heard of every settlement, for so long at most. What a ledger knows includes them: a counter that is raised
    /// to it before they arrive would count them twice.
    pub async fn all_told(&self, patience: Duration) {
        let told = async {
            loop {
                let told = self.told.notified();
                if self.untold.load(Ordering::SeqCst) == 0 {
                    return;
                }
                told.await;
            }
        };
        if tokio::time::timeout(patience, told).await.is_err() {
            tracing::debug!(settlements = self.untold.load(Ordering::SeqCst), "the store has not heard of all settlements yet");
        }
    }

    /// How many edges share the store, this one included. From the last view of the control plane; counts for local mode and for the size
    /// of slices.
    pub fn set_live_edges(&self, edges: u32) {
        self.edges.store(edges.max(1), Ordering::Relaxed);
    }

    /// The decision, if it can be made without waiting. Counts the request towards its region's demand for shared limits: ask once, and
    /// [`Gate::reserve`] when there is none.
    pub fn reserve_now(&self, request: &ReserveRequest<'_>) -> Option<Decision> {
        if request.limits.is_shared {
            request.limits.note_demand(request.selection, &request.estimate);
            // A refusal may be mended by what the other regions do not use.
            let decision = self.without_waiting(request).filter(|decision| shortage(decision, &request.estimate, self.now()).is_none())?;
            return Some(self.decided(unknown_budget(decision, &request.estimate, self.now()), self.now()));
        }
        let decision = self.without_waiting(request)?;
        Some(self.decided(decision, self.now()))
    }

    fn without_waiting(&self, request: &ReserveRequest<'_>) -> Option<Decision> {
        let now = self.now();
        if request.selection.is_empty() {
            // Nothing is limited: nothing is counted.
            return Some(Decision::Allowed(Ask::reserve(request, now, 1).blank(now)));
        }
        if let Some(decision) = self.store.reserve_now(request) {
            return Some(decision);
        }
        let ask = Ask::reserve(request, now, 1);
        let owner = Owner::of(request);
        let decision = match self.wallets.peek(&owner, &ask, &request.estimate, now) {
            Some(Taken::Paid { reservation, refill }) => {
                if refill && self.work.try_send(Work::refill(owner.clone(), request)).is_err() {
                    self.wallets.bought(&owner, None, 0, now);
                }
                Decision::Allowed(reservation)
            }
            Some(Taken::Local) => self.local.reserve(request, now, self.edges.load(Ordering::Relaxed)),
            None => Decision::Refused(self.denials.find(&ask, now)?),
        };
        Some(decision)
    }

    /// The decision, after at most one round trip to the store; where a share of a limit that spans regions is too small, after a moment in
    /// which home may enlarge it. Dropping the future before it is ready gives back what it may have taken.
    pub async fn reserve(&self, request: &ReserveRequest<'_>) -> Decision {
        let mut decision = self.once(request).await;
        if request.limits.is_shared {
            if let Some(share) = shortage(&decision, &request.estimate, self.now()) {
                // Boxed: few requests ever wait, and all would carry the size of what they might.
                decision = Box::pin(self.wait_for_share(request, decision, share)).await;
            }
            decision = unknown_budget(decision, &request.estimate, self.now());
        }
        self.decided(decision, self.now())
    }

    /// Asks again whenever a share has changed, for a second and a half.
    async fn wait_for_share(&self, request: &ReserveRequest<'_>, refused: Decision, share: Arc<Share>) -> Decision {
        let mut decision = refused;
        let deadline = Instant::now() + SHARE_PATIENCE;
        let home = share.home().clone();
        // Counted while this request waits, so that home knows how much is needed.
        let _waiting = Waiting::new(share, &request.estimate);
        self.metrics.waited.inc();
        while shortage(&decision, &request.estimate, self.now()).is_some() {
            let changed = home.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            home.need();
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                break;
            }
            decision = self.once(request).await;
        }
        decision
    }

    async fn once(&self, request: &ReserveRequest<'_>) -> Decision {
        if let Some(decision) = self.without_waiting(request) {
            return decision;
        }
        let now = self.now();
        let owner = Owner::of(request);
        self.wallets.note(&owner, &request.estimate, now);
        if self.slices && self.wallets.may_buy(&owner, now) {
            self.buy_and_take(&owner, request, now).await
        } else {
            self.ask_store(&owner, request, now).await
        }
    }

    /// Tells what a reservation was really used for. Never waits.
    pub fn settle(&self, reservation: Reservation, actual: &Usage) {
        if reservation.entries.is_empty() {
            return;
        }
        let now = self.now();
        let settlement = Settlement::new(reservation, actual);
        if settlement.reservation.mode != Mode::Slice {
            self.leases.forget(&settlement.reservation);
        }
        let work = match settlement.reservation.mode {
            Mode::Slice => match self.wallets.settle(&Owner::holding(&settlement.reservation), &settlement) {
                Ok(None) => return,
                Ok(Some(duty)) => Work::Duty(duty),
                Err(()) => Work::Settle(settlement),
            },
            Mode::Local | Mode::Open => {
                self.local.settle(&settlement, now);
                Work::Settle(settlement.whole(actual))
            }
            Mode::Exact => match self.store.settle_now(&settlement) {
                Some(settled) => return self.metrics.settled(settled),
                None => Work::Settle(settlement),
            },
        };
        self.send(work);
    }

    /// Gives a reservation back whole: the request was never sent.
    pub fn cancel(&self, reservation: Reservation) {
        self.settle(reservation, &Usage::default());
    }

    /// Settles what a journal of an earlier process knows: settlements of the same reservation merged first.
    ///
    /// # Errors
    /// When the store does not answer; it may be sent again.
    pub async fn settle_journalled(&self, settlement: &Settlement) -> Result<crate::Settled, StoreError> {
        self.timed("settle", self.store.settle(settlement)).await
    }

    /// What is used and left, as the store counts. What lies in slices counts as used.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn snapshot(&self, limits: &LimitSet, selection: Selection) -> Result<Snapshot, StoreError> {
        self.timed("snapshot", self.store.snapshot(limits, selection)).await
    }

    /// Whether the last call to the store was answered.
    pub fn is_store_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    /// The store's time: periods, leases and slices are counted by it.
    fn now(&self) -> Micros {
        self.clock.now().saturating_add_signed(self.store.ahead())
    }

    /// The store, for restoring what a ledger knows.
    pub fn store(&self) -> &Arc<dyn QuotaStore> {
        &self.store
    }

    fn decided(&self, decision: Decision, now: Micros) -> Decision {
        self.metrics.decided(&decision);
        if let Decision::Allowed(reservation) = &decision
            && reservation.mode != Mode::Slice
        {
            self.leases.watch(reservation, now);
        }
        decision
    }

    async fn ask_store(&self, owner: &Owner, request: &ReserveRequest<'_>, now: Micros) -> Decision {
        let guard = Abandoned { gate: self, blank: || Ask::reserve(request, now, 1).blank(now), armed: true };
        let answer = self.timed("reserve", self.store.reserve(request)).await;
        guard.disarm();
        match answer {
            Ok(decision) => {
                match &decision {
                    Decision::Allowed(reservation) => self.wallets.observe(owner, reservation, now),
                    Decision::Refused(_) => self.denials.remember(&Ask::reserve(request, now, 1), &decision, now),
                }
                decision
            }
            Err(error) => self.decide_alone(owner, request, &error),
        }
    }

    async fn buy_and_take(&self, owner: &Owner, request: &ReserveRequest<'_>, now: Micros) -> Decision {
        let buying = Buying { gate: self, owner, done: false };
        let answer = self.buy(owner, request.limits, request.selection, &request.estimate, request.lifetime).await;
        match answer {
            Ok(Decision::Allowed(slice)) => {
                buying.finish(Some(slice), request.lifetime);
                let now = self.now();
                match self.wallets.take(owner, &Ask::reserve(request, now, 1), now) {
                    Some(reservation) => Decision::Allowed(reservation),
                    // Others were faster, or midnight came in between.
                    None => self.ask_store(owner, request, now).await,
                }
            }
            Ok(decision) => {
                buying.finish(None, request.lifetime);
                self.denials.remember(&Ask::reserve(request, now, 1), &decision, now);
                decision
            }
            Err(error) => {
                buying.finish(None, request.lifetime);
                self.decide_alone(owner, request, &error)
            }
        }
    }

    async fn buy(
        &self,
        owner: &Owner,
        limits: &Arc<LimitSet>,
        selection: Selection,
        least: &Usage,
        lifetime: Duration,
    ) -> Result<Decision, StoreError> {
        let demand = self.wallets.demand(owner);
        let now = self.now();
        let request = SliceRequest {
            id: slice_id(now),
            limits,
            selection,
            least: *least,
            want: demand.want,
            slots: demand.slots,
            divisor: self.edges.load(Ordering::Relaxed).saturating_mul(2),
            lifetime: lifetime.saturating_add(Duration::from_micros(SPENDABLE)),
        };
        let guard = Abandoned { gate: self, blank: || Ask::slice(&request, now).blank(now), armed: true };
        let answer = self.timed("buy_slice", self.store.buy_slice(&request)).await;
        // Bought or not, nobody will spend it.
        if answer.is_ok() {
            guard.disarm();
        }
        answer
    }

    /// The store gave no answer: this edge decides, and does not ask for this key again for a second.
    fn decide_alone(&self, owner: &Owner, request: &ReserveRequest<'_>, error: &StoreError) -> Decision {
        let now = self.now();
        self.wallets.failed(owner, now + LOCAL_FOR);
        tracing::debug!(%error, "decided by this edge alone");
        let decision = self.local.reserve(request, now, self.edges.load(Ordering::Relaxed));
        if matches!(decision, Decision::Refused(_)) {
            // The store may have done what it did not answer.
            self.send(Work::Settle(Settlement::nothing(Ask::reserve(request, now, 1).blank(now))));
        }
        decision
    }

    fn send(&self, work: Work) {
        let settles = work.settles();
        if settles {
            self.untold.fetch_add(1, Ordering::SeqCst);
        }
        if self.work.try_send(work).is_err() {
            self.metrics.lost.inc();
            if settles {
                self.one_told();
            }
        }
    }

    /// The store has heard of a settlement, or never will.
    fn one_told(&self) {
        if self.untold.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.told.notify_waiters();
        }
    }

    async fn timed<T>(&self, operation: &'static str, call: crate::Pending<'_, T>) -> Result<T, StoreError> {
        let began = Instant::now();
        let answer = call.await;
        self.metrics.called(operation, began.elapsed());
        match &answer {
            Ok(_) => {
                if self.down.swap(false, Ordering::Relaxed) {
                    self.metrics.up.set(1);
                    self.back.notify_waiters();
                    self.doubt.notify_one();
                    tracing::info!("the quota store answers again");
                }
            }
            // It answered; only this organisation's spend is unknown.
            Err(StoreError::SpendUnknown { organisation }) => {
                self.doubt.notify_one();
                tracing::debug!(%organisation, "credits stay shut until the spend is restored from the ledger");
            }
            Err(error) => {
                if !self.down.swap(true, Ordering::Relaxed) {
                    self.metrics.up.set(0);
                    tracing::warn!(%error, "the quota store gives no answer: limits are kept by each edge alone");
                }
            }
        }
        answer
    }
}

/// The share whose size alone a refusal is due to, if it may grow within a moment.
fn shortage(decision: &Decision, usage: &Usage, now: Micros) -> Option<Arc<Share>> {
    let Decision::Refused(refusal @ Refusal { bucket: Some(bucket), too_big: false, .. }) = decision else { return None };
    // A refusal of this edge alone has told the store that the request holds nothing: asked again under its id, it would run for nothing.
    if refusal.kind == RefusalKind::Unavailable || refusal.mode == Mode::Local {
        return None;
    }
    let share = bucket.share.as_ref()?;
    share.may_grow(bucket.period_start(now), missing(refusal, share, usage)).then(|| Arc::clone(share))
}

/// A refusal by a budget of which home has not said what is left, or that has enough left elsewhere, is no verdict about the caller.
fn unknown_budget(mut decision: Decision, usage: &Usage, now: Micros) -> Decision {
    if let Decision::Refused(refusal) = &mut decision
        && let Some(bucket) = &refusal.bucket
        && let Some(share) = &bucket.share
        && !refusal.too_big
        && share.is_unknown(bucket.period_start(now), missing(refusal, share, usage))
    {
        (refusal.kind, refusal.retry_after) = (RefusalKind::Unavailable, Some(HOME_WAIT));
    }
    decision
}

/// What a refused request needs beyond what is left of its region's share.
fn missing(refusal: &Refusal, share: &Share, usage: &Usage) -> u64 {
    usage.amount(share.name().dimension).saturating_sub(u64::try_from(refusal.remaining).unwrap_or(0))
}

/// Settles to nothing what the store may have given to a caller who left before it answered.
struct Abandoned<'a, F: Fn() -> Reservation> {
    gate: &'a Gate,
    /// What the store would know: the entries, holding nothing.
    blank: F,
    armed: bool,
}

impl<F: Fn() -> Reservation> Abandoned<'_, F> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl<F: Fn() -> Reservation> Drop for Abandoned<'_, F> {
    fn drop(&mut self) {
        if self.armed {
            self.gate.send(Work::Settle(Settlement::nothing((self.blank)())));
        }
    }
}

/// Lets somebody else buy when the buyer leaves.
struct Buying<'a> {
    gate: &'a Gate,
    owner: &'a Owner,
    done: bool,
}

impl Buying<'_> {
    fn finish(mut self, slice: Option<Reservation>, lifetime: Duration) {
        self.done = true;
        self.gate.wallets.bought(self.owner, slice, micros(lifetime), self.gate.now());
    }
}

impl Drop for Buying<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.gate.wallets.bought(self.owner, None, 0, self.gate.now());
        }
    }
}
