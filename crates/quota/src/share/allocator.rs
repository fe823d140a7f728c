//! Who may use how much of a global limit: the home region's side.
//!
//! Pure: messages and times in, assignments out; the transport is somebody else's. The invariant is that at no moment the shares that
//! regions may be using, whatever was lost or late on the way, add up to more than the limit:
//!
//! - An assignment is an answer to a report, and its lease runs from when the *report was sent*, by the reporter's own clock. Home counts
//!   from when it received the report, which is later. So a region has always stopped before home believes that it has; only the
//!   clocks' rates must agree (to 1 %), never their times.
//! - A share grows only by what is free after counting, for every other region, the largest share that any of its edges may still hold:
//!   every assignment that was sent and neither replaced by an acknowledged newer one nor expired (*shrink before grow*).
//! - After its lease a region falls back to its floor, a tenth of an equal part, which is never given to anybody else.
//! - A new home that knows nothing assigns floors only until every lease of the old one is over.
//!
//! Money is the same with one difference: what was spent does not come back, so a grant is held until its region reports less.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::clock::Micros;

/// How long a share of a rate is valid without a newer report.
pub const SHARE_LEASE: Micros = 15_000_000;
/// How long a grant of money is valid without a newer report.
pub const GRANT_LEASE: Micros = 600_000_000;
/// Clocks may run at rates that differ by this part.
const RATE_ERROR: u64 = 100;
/// Demand is smoothed over this time.
const SMOOTHING: Micros = 10_000_000;
/// The part of a limit that is split evenly and always reserved.
const FLOOR_PART: u64 = 10;
/// A grant is this part of what is left ...
const GRANT_PART: u64 = 100;
/// ... but at least a dollar.
const LEAST_GRANT: u64 = 1_000_000;

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// A rate or a number of slots: an expired share is free again.
    Rate,
    /// A budget of one period, in micro-dollars: amounts are totals since the period began.
    Spend,
}

/// What an edge tells about one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareReport {
    /// Echoed by the answer: proves when the report was sent.
    pub id: u64,
    /// The assignment in use.
    pub holding: u64,
    /// Units asked for per minute lately, refused ones included.
    pub demand: u64,
    /// Spent in this region since the period began, read after `holding` was taken over (budgets).
    pub spent: u64,
}

/// What home answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assign {
    /// The report it answers.
    pub report: u64,
    /// Larger is newer.
    pub sequence: u64,
    /// What the region may use while the lease lasts.
    pub amount: u64,
    /// What it may use afterwards.
    pub floor: u64,
    /// How long, from when the report was sent.
    pub lease: Micros,
}

/// The shares of one limit.
#[derive(Debug)]
pub struct Allocator {
    amount: u64,
    kind: Shared,
    regions: BTreeMap<Arc<str>, Region>,
    sequence: u64,
    quiet_until: Micros,
}

#[derive(Debug, Default)]
struct Region {
    edges: BTreeMap<Arc<str>, Edge>,
    /// Oldest first; the last is the one that is sent.
    sent: VecDeque<Sent>,
    spent: u64,
}

#[derive(Debug, Default)]
struct Edge {
    holding: u64,
    demand: u64,
    heard: Micros,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    sequence: u64,
    amount: u64,
    floor: u64,
    /// When the last edge that has it must have stopped using it, unless it was told something newer. 0 before it was sent to any.
    until: Micros,
}

impl Allocator {
    /// The shares of a limit of `amount` over `regions`, all that may ever ask. `epoch` must be larger than that of any earlier home of
    /// the same limit: the control plane's term.
    pub fn new(amount: u64, kind: Shared, regions: impl IntoIterator<Item = Arc<str>>, epoch: u32, now: Micros) -> Self {
        let regions = regions.into_iter().map(|name| (name, Region::default())).collect();
        // Sequences of an epoch: four billion.
        let mut allocator =
            Self { amount, kind, regions, sequence: u64::from(epoch) << 32, quiet_until: now.saturating_add(counted(lease_of(kind))) };
        allocator.allot(now);
        allocator
    }

    /// Takes over what a new home has from the ledger: spent per region. Without it a budget's new home would grant what is gone.
    pub fn set_spent(&mut self, region: &str, spent: u64) {
        if let Some(region) = self.regions.get_mut(region) {
            region.spent = region.spent.max(spent);
        }
    }

    /// The floor of each region: a tenth, split evenly. Money has none: nobody may spend what is not granted.
    pub fn floor(&self) -> u64 {
        match self.kind {
            Shared::Rate => self.amount / FLOOR_PART / (self.regions.len() as u64).max(1),
            Shared::Spend => 0,
        }
    }

    /// Takes in a report and answers it. `None` for a region that is not one of this limit's.
    pub fn report(&mut self, region: &str, edge: &Arc<str>, report: &ShareReport, now: Micros) -> Option<Assign> {
        let lease = lease_of(self.kind);
        let (floor, others) = (self.floor(), self.others(region, now));
        let state = self.regions.get_mut(region)?;
        let edge = state.edges.entry(edge.clone()).or_default();
        let passed = now.saturating_sub(edge.heard).min(SMOOTHING);
        edge.demand = blend(edge.demand, report.demand, passed);
        edge.heard = now;
        edge.holding = edge.holding.max(report.holding);
        state.spent = state.spent.max(report.spent);
        state.forget_replaced();
        let newest = *state.sent.back()?;
        let counted_for = newest.until > 0 && (self.kind == Shared::Spend || now < newest.until);
        let free = self.amount.saturating_sub(others);
        if !counted_for && newest.amount > free {
            // Nobody knows it, or its lease is over: others may have grown since it was computed.
            self.sequence += 1;
            state.send(Sent { sequence: self.sequence, amount: free, floor, until: 0 });
        }
        let newest = state.sent.back_mut()?;
        newest.until = newest.until.max(now.saturating_add(counted(lease)));
        Some(Assign { report: report.id, sequence: newest.sequence, amount: newest.amount, floor: newest.floor, lease })
    }

    /// An edge is gone for good: the membership says so, and its lease is over or its process is dead.
    pub fn forget(&mut self, region: &str, edge: &str) {
        if let Some(region) = self.regions.get_mut(region) {
            region.edges.remove(edge);
            region.forget_replaced();
        }
    }

    /// Computes new shares. Call it every ten seconds, and every second for a budget that runs low.
    pub fn allot(&mut self, now: Micros) {
        let targets = if now < self.quiet_until && self.kind == Shared::Rate { self.floors() } else { self.targets(now) };
        let floor = self.floor();
        for (name, target) in targets {
            let others: u64 =
                self.regions.iter().filter(|(other, _)| **other != name).map(|(_, other)| other.may_hold(self.kind, floor, now)).sum();
            let amount = target.min(self.amount.saturating_sub(others));
            let Some(region) = self.regions.get_mut(&name) else { continue };
            if region.sent.back().is_some_and(|newest| newest.amount == amount && newest.floor == floor) {
                continue;
            }
            self.sequence += 1;
            region.send(Sent { sequence: self.sequence, amount, floor, until: 0 });
        }
    }

    /// The most that all other regions may hold.
    fn others(&self, region: &str, now: Micros) -> u64 {
        let floor = self.floor();
        let others = self.regions.iter().filter(|(name, _)| &***name != region);
        others.map(|(_, other)| other.may_hold(self.kind, floor, now)).sum()
    }

    fn floors(&self) -> Vec<(Arc<str>, u64)> {
        let floor = self.floor();
        self.regions.keys().map(|name| (name.clone(), floor)).collect()
    }

    fn targets(&self, now: Micros) -> Vec<(Arc<str>, u64)> {
        match self.kind {
            Shared::Rate => self.rate_targets(now),
            Shared::Spend => self.spend_targets(now),
        }
    }

    /// G·(0.1/R + 0.9·d/Σd), rounded down.
    fn rate_targets(&self, now: Micros) -> Vec<(Arc<str>, u64)> {
        let demands: Vec<u128> = self.regions.values().map(|region| u128::from(region.demand(now))).collect();
        let sum: u128 = demands.iter().sum();
        let count = (self.regions.len() as u128).max(1);
        let floor = self.floor();
        let rest = u128::from(self.amount) - u128::from(floor) * count;
        let shares = demands.iter().map(|demand| if sum == 0 { rest / count } else { rest * demand / sum });
        let shares = shares.map(|share| floor + u64::try_from(share).unwrap_or(0));
        self.regions.keys().cloned().zip(shares).collect()
    }

    /// A grant on top of what is spent; topped up when half of it is used, taken back when others need it.
    fn spend_targets(&self, now: Micros) -> Vec<(Arc<str>, u64)> {
        let spent: u64 = self.regions.values().map(|region| region.spent).sum();
        let grant = (self.amount.saturating_sub(spent) / GRANT_PART).max(LEAST_GRANT);
        let targets = self.regions.iter().map(|(name, region)| {
            let granted = region.sent.back().map_or(0, |newest| newest.amount);
            let left = granted.saturating_sub(region.spent);
            let target = if now < self.quiet_until && region.edges.is_empty() {
                granted
            } else if !region.is_heard(now) {
                // Nobody there: what it has not spent is wanted back; it gives it back with its next report.
                region.spent
            } else if left < grant / 2 {
                region.spent.saturating_add(grant)
            } else {
                granted.min(region.spent.saturating_add(grant))
            };
            (name.clone(), target)
        });
        targets.collect()
    }

    /// The largest sum of shares that may be in use.
    pub fn may_be_in_use(&self, now: Micros) -> u64 {
        let floor = self.floor();
        self.regions.values().map(|region| region.may_hold(self.kind, floor, now)).sum()
    }
}

impl Region {
    /// The most that any of its edges may use now.
    fn may_hold(&self, kind: Shared, floor: u64, now: Micros) -> u64 {
        let told = self.sent.iter().filter(|sent| sent.until > 0);
        match kind {
            Shared::Rate => {
                told.map(|sent| if now < sent.until { sent.amount.max(sent.floor) } else { sent.floor }).max().unwrap_or(0).max(floor)
            }
            Shared::Spend => told.map(|sent| sent.amount).max().unwrap_or(0).max(self.spent),
        }
    }

    fn send(&mut self, newest: Sent) {
        // One that no edge was told is nobody's.
        while self.sent.back().is_some_and(|sent| sent.until == 0) {
            self.sent.pop_back();
        }
        self.sent.push_back(newest);
    }

    /// Drops what every edge has replaced by something newer.
    fn forget_replaced(&mut self) {
        let Some(oldest) = self.edges.values().map(|edge| edge.holding).min() else { return };
        while self.sent.len() > 1 && self.sent.front().is_some_and(|sent| sent.sequence < oldest) {
            self.sent.pop_front();
        }
    }

    fn demand(&self, now: Micros) -> u64 {
        self.edges.values().filter(|edge| now < edge.heard.saturating_add(SHARE_LEASE)).map(|edge| edge.demand).sum()
    }

    fn is_heard(&self, now: Micros) -> bool {
        self.edges.values().any(|edge| now < edge.heard.saturating_add(GRANT_LEASE))
    }
}

/// The lease at the regions.
const fn lease_of(kind: Shared) -> Micros {
    match kind {
        Shared::Rate => SHARE_LEASE,
        Shared::Spend => GRANT_LEASE,
    }
}

/// The same lease as home counts it: a little longer, for clocks that run slower there.
const fn counted(lease: Micros) -> Micros {
    lease + lease / RATE_ERROR
}

/// A moving average: after `SMOOTHING` the new value counts whole.
fn blend(old: u64, new: u64, passed: Micros) -> u64 {
    let (old, new, passed) = (u128::from(old), u128::from(new), u128::from(passed));
    let whole = u128::from(SMOOTHING);
    u64::try_from((old * (whole - passed) + new * passed).div_ceil(whole)).unwrap_or(u64::MAX)
}
