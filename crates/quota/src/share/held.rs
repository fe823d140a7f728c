//! What this region may use of a shared limit: a number with a lease, read by decisions and written by the [`super::Desk`].
//!
//! A share lives as long as its limit is used, over changes of the configuration. What can be read while home is away is decided here
//! too: a rate falls to its floor, which is reserved for this region for ever, and of a budget the key's policy says what may be spent
//! beyond the grant.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bucket::Bucket;
use crate::clock::{Micros, monotonic};
use crate::limit::{Funding, Limit, StoreDown};
use crate::local::POSTPAID_PART;
use crate::set::{LARGEST_AMOUNT, LimitSet};
use crate::share::Shared;
use crate::share::name::LimitName;
use crate::usage::Usage;

/// The share of one limit in this region.
#[derive(Debug)]
pub struct Share {
    name: LimitName,
    kind: Shared,
    home: Arc<Home>,
    amount: AtomicU64,
    until: AtomicU64,
    floor: AtomicU64,
    /// Start of the period that the grant is for.
    period: AtomicU64,
    /// Of a budget: what home could still lend to somebody.
    left: AtomicU64,
    /// Sequence of the newest assignment, and when it came.
    sequence: AtomicU64,
    taken: AtomicU64,
    /// Regions among which the floors are divided.
    regions: AtomicU64,
    /// Units asked for, refused ones included; only ever grows.
    asked: AtomicU64,
    /// The desk knows that it is used.
    awake: AtomicBool,
    /// Units that waiting requests need.
    wanted: AtomicU64,
    /// The limit by itself, for asking the store what was used of it.
    alone: Mutex<Arc<LimitSet>>,
}

/// What all shares of an edge know of home.
#[derive(Debug, Default)]
pub struct Home {
    /// When home last answered, by [`monotonic`]; 0 before it ever did.
    heard: AtomicU64,
    /// There is a way to home.
    linked: AtomicBool,
    /// An assignment was taken over.
    pub(crate) changed: Notify,
    /// A request waits for a larger one.
    urgent: Notify,
    /// Shares that are used and were not.
    woken: Mutex<Vec<Arc<Share>>>,
}

/// The shares of this region, by the storage key of the limit. Survives configuration changes.
#[derive(Debug, Default)]
pub struct Shares {
    home: Arc<Home>,
    by_key: Mutex<HashMap<Arc<str>, Arc<Share>>>,
}

/// A share as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareView {
    /// The limit; of a budget with the period of its grant.
    pub name: LimitName,
    /// What may be used now: units per minute, slots, or the total since the period began.
    pub amount: u64,
    /// What may be used when the lease is over.
    pub floor: u64,
    /// Microseconds until the lease is over; 0 when it is.
    pub lease_left: Micros,
    /// Microseconds since home last said something about it; `None` when it never did.
    pub age: Option<Micros>,
    /// Of a budget: what home could still lend.
    pub left: u64,
    /// Home has not answered for a while.
    pub away: bool,
}

/// Home is away when it has not answered for this long: as long as a share of a rate stands without it.
const AWAY: Micros = super::allocator::SHARE_LEASE;

impl Home {
    /// There is a way to home, or none any more.
    pub fn link(&self, linked: bool) {
        self.linked.store(linked, Ordering::Relaxed);
        if linked {
            self.urgent.notify_one();
        }
    }

    /// Home has answered.
    pub fn heard(&self, now: Micros) {
        self.heard.fetch_max(now.max(1), Ordering::Relaxed);
    }

    /// Microseconds since home answered; `None` when it never did.
    pub fn age(&self, now: Micros) -> Option<Micros> {
        let heard = self.heard.load(Ordering::Relaxed);
        (heard > 0).then(|| now.saturating_sub(heard))
    }

    /// Whether home has not answered for 15 s.
    pub fn is_away(&self, now: Micros) -> bool {
        now >= self.heard.load(Ordering::Relaxed).saturating_add(AWAY)
    }

    /// Waits until a request needs more than its region has. For one waiter; a need while nobody waits is kept.
    pub async fn needed(&self) {
        self.urgent.notified().await;
    }

    /// An answer is here to be taken over.
    pub fn arrived(&self) {
        self.urgent.notify_one();
    }

    /// Somebody waits for more: report now.
    pub(crate) fn need(&self) {
        self.urgent.notify_one();
    }

    pub(crate) fn take_woken(&self) -> Vec<Arc<Share>> {
        std::mem::take(&mut *self.woken.lock())
    }
}

impl Share {
    fn new(bucket: &Bucket, name: LimitName, home: Arc<Home>, alone: Arc<LimitSet>) -> Self {
        let kind = name.shared();
        let new = || AtomicU64::new(0);
        Self {
            name,
            kind,
            home,
            amount: new(),
            until: new(),
            floor: new(),
            period: new(),
            left: AtomicU64::new(bucket.limit.amount),
            sequence: new(),
            taken: new(),
            regions: AtomicU64::new(1),
            asked: new(),
            awake: AtomicBool::new(false),
            wanted: new(),
            alone: Mutex::new(alone),
        }
    }

    /// The limit.
    pub fn name(&self) -> &LimitName {
        &self.name
    }

    /// How it is shared.
    pub fn kind(&self) -> Shared {
        self.kind
    }

    /// The limit by itself, for [`crate::QuotaStore::snapshot`].
    pub fn alone(&self) -> Arc<LimitSet> {
        self.alone.lock().clone()
    }

    /// What may be used at `now`, by [`monotonic`].
    pub fn at(&self, now: Micros) -> u64 {
        // A reader between two writes sees the floor or an amount that was valid: `set` ends the old lease first.
        let until = self.until.load(Ordering::Acquire);
        let amount = self.amount.load(Ordering::Acquire);
        let floor = self.floor.load(Ordering::Acquire);
        if now < until && until == self.until.load(Ordering::Acquire) { amount } else { floor }
    }

    /// Takes over an assignment: `amount` until `until` by [`monotonic`], then `floor`.
    pub fn set(&self, amount: u64, until: Micros, floor: u64) {
        self.until.store(0, Ordering::Release);
        self.amount.store(amount, Ordering::Release);
        self.floor.store(floor, Ordering::Release);
        self.until.store(until, Ordering::Release);
    }

    /// The period, the number and the remainder at home that belong to the next [`Share::set`]. A grant of another period ends first.
    pub(crate) fn describe(&self, period_start: Micros, sequence: u64, left: u64, now: Micros) {
        if self.period.load(Ordering::Acquire) != period_start {
            self.until.store(0, Ordering::Release);
            self.period.store(period_start, Ordering::Release);
        }
        self.sequence.store(sequence, Ordering::Relaxed);
        self.left.store(left, Ordering::Relaxed);
        self.taken.store(now.max(1), Ordering::Relaxed);
    }

    /// What may be used of `limit` now by a key with this policy.
    pub(crate) fn usable(&self, limit: &Limit, period_start: Micros, policy: StoreDown) -> u64 {
        let now = monotonic();
        let granted = match self.kind {
            Shared::Rate => return self.at(now).min(limit.amount),
            Shared::Budget => self.is_of_period(period_start),
        };
        let amount = if granted { self.at(now) } else { 0 };
        if !self.home.is_away(now) {
            return amount.min(limit.amount);
        }
        match (policy, limit.funding) {
            (StoreDown::Open, _) => LARGEST_AMOUNT,
            (StoreDown::Closed, _) | (StoreDown::Local, Funding::Prepaid) => amount.min(limit.amount),
            (StoreDown::Local, Funding::Postpaid) => {
                // What was granted, and this region's part of the twentieth by which a postpaid budget may be outrun. The lease says who
                // may lend it to others, which is nobody while home is away.
                let last = if granted { self.amount.load(Ordering::Acquire) } else { 0 };
                let more = limit.amount / POSTPAID_PART / self.regions.load(Ordering::Relaxed).max(1);
                last.saturating_add(more).min(limit.amount.saturating_add(more))
            }
        }
    }

    /// What is left of a budget outside of this region's grant.
    pub(crate) fn beyond(&self) -> u64 {
        match self.kind {
            Shared::Rate => 0,
            Shared::Budget => self.left.load(Ordering::Relaxed),
        }
    }

    /// Whether a refusal for want of `missing` units may be mended by waiting a moment for home's answer.
    pub(crate) fn may_grow(&self, period_start: Micros, missing: u64) -> bool {
        let now = monotonic();
        if !self.home.linked.load(Ordering::Relaxed) || self.home.is_away(now) {
            return false;
        }
        match self.kind {
            Shared::Rate => now >= self.until.load(Ordering::Acquire),
            Shared::Budget => !self.is_of_period(period_start) || self.left.load(Ordering::Relaxed) >= missing,
        }
    }

    /// Whether a refusal for want of `missing` units says nothing of the budget: home is away, has not answered about this period, or knows
    /// of enough that is not lent.
    pub(crate) fn is_unknown(&self, period_start: Micros, missing: u64) -> bool {
        let lacks = || self.is_of_period(period_start) && self.left.load(Ordering::Relaxed) < missing;
        self.kind == Shared::Budget && (self.home.is_away(monotonic()) || !lacks())
    }

    fn is_of_period(&self, start: Micros) -> bool {
        self.taken.load(Ordering::Relaxed) > 0 && self.period.load(Ordering::Acquire) == start
    }

    /// Counts what a request asks for.
    pub(crate) fn ask(self: &Arc<Self>, units: u64) {
        self.asked.fetch_add(units, Ordering::SeqCst);
        if !self.awake.load(Ordering::SeqCst) && !self.awake.swap(true, Ordering::SeqCst) {
            self.home.woken.lock().push(Arc::clone(self));
            self.home.need();
        }
    }

    /// Lets the share rest unless somebody asked since `asked`; whether it rests.
    pub(crate) fn sleep(&self, asked: u64) -> bool {
        self.awake.store(false, Ordering::SeqCst);
        // Whoever asks now sees that it sleeps; whoever asked just before is seen here.
        if self.asked.load(Ordering::SeqCst) == asked {
            return true;
        }
        // Somebody did: the desk keeps it, unless the one who asked has woken it already, which only opens it again.
        self.awake.store(true, Ordering::SeqCst);
        false
    }

    /// Everything that was ever asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// What waiting requests need.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    fn view(&self, now: Micros) -> ShareView {
        let taken = self.taken.load(Ordering::Relaxed);
        let period = self.period.load(Ordering::Acquire);
        let name = match self.kind {
            Shared::Rate => self.name.clone(),
            Shared::Budget => self.name.in_period(self.period_at(period)),
        };
        ShareView {
            name,
            amount: self.at(now),
            floor: self.floor.load(Ordering::Acquire),
            lease_left: self.until.load(Ordering::Acquire).saturating_sub(now),
            age: (taken > 0).then(|| now.saturating_sub(taken)),
            left: self.left.load(Ordering::Relaxed),
            away: self.home.is_away(now),
        }
    }

    /// The period of this budget that contains a moment of the store's time.
    pub(crate) fn period_at(&self, moment: Micros) -> Option<crate::period::Period> {
        let alone = self.alone.lock();
        let bucket = alone.buckets.first()?;
        bucket.rule(0, moment, 1).period()
    }
}

impl Shares {
    /// The share of a limit; a new one is worth its floor until it is assigned. `floor` is what is reserved for this region of the limit as
    /// it is declared now, among `regions` that share it.
    pub fn of(&self, bucket: &Bucket, name: LimitName, floor: u64, regions: u64, alone: impl FnOnce() -> LimitSet) -> Arc<Share> {
        let mut by_key = self.by_key.lock();
        let share = match by_key.get(&bucket.key) {
            Some(share) => {
                *share.alone.lock() = Arc::new(alone());
                Arc::clone(share)
            }
            None => {
                let share = Arc::new(Share::new(bucket, name, Arc::clone(&self.home), Arc::new(alone())));
                by_key.insert(bucket.key.clone(), Arc::clone(&share));
                share
            }
        };
        share.regions.store(regions, Ordering::Relaxed);
        if share.kind == Shared::Rate && share.taken.load(Ordering::Relaxed) == 0 {
            share.floor.store(floor, Ordering::Release);
        }
        share
    }

    /// Forgets shares of limits that no key has any more.
    pub(crate) fn sweep(&self) {
        self.by_key.lock().retain(|_, share| Arc::strong_count(share) > 1);
    }

    /// What is known of home.
    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// Every share.
    pub fn all(&self) -> Vec<Arc<Share>> {
        self.by_key.lock().values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.lock().len()
    }

    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The share of a bucket as people are shown it, if it has one.
    pub fn view(&self, bucket: &Bucket) -> Option<ShareView> {
        let share = self.by_key.lock().get(&bucket.key).cloned()?;
        Some(share.view(monotonic()))
    }

    /// Every share as people are shown it.
    pub fn views(&self) -> Vec<ShareView> {
        let now = monotonic();
        self.all().iter().map(|share| share.view(now)).collect()
    }
}

/// A request that waits for a larger share: counted as long as it does.
pub(crate) struct Waiting {
    share: Arc<Share>,
    units: u64,
}

impl Waiting {
    /// Counts what `usage` needs of a shared limit.
    pub(crate) fn new(share: Arc<Share>, usage: &Usage) -> Self {
        let units = usage.amount(share.name.dimension);
        share.wanted.fetch_add(units, Ordering::Relaxed);
        Self { share, units }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.share.wanted.fetch_sub(self.units, Ordering::Relaxed);
    }
}
