//! Who may use how much of a rate that several regions share: home's side.
//!
//! Pure: messages and times in, assignments out; the transport is somebody else's. The invariant is that at no moment the shares that
//! regions may be using, whatever was lost or late on the way, add up to more than the limit:
//!
//! - An assignment is an answer to a report, and its lease runs from when the *report was sent*, by the reporter's own clock. Home counts
//!   from when it received the report, which is later. So a region has always stopped before home believes that it has; only the
//!   clocks' rates must agree (to 1 %), never their times. An answer that was held up on its way is worth nothing.
//! - A share grows only by what is free after counting, for every other cell, the largest share that any of its edges may still hold:
//!   every assignment that was sent and neither replaced by an acknowledged newer one nor expired (*shrink before grow*).
//! - After its lease a region falls back to its floor, a tenth of an equal part, which is never given to anybody else. Floors belong to
//!   the regions that are declared; a region that is not has shares only while it is heard.
//! - A new home that knows nothing makes nobody larger until every lease of the old one is over ([`Quiet`]). Meanwhile it prolongs what an
//!   edge proves to hold: that was within the sum.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::clock::Micros;

/// How long a share of a rate is valid without a newer report.
pub const SHARE_LEASE: Micros = 15_000_000;
/// Clocks may run at rates that differ by this part.
const RATE_ERROR: u64 = 100;
/// Demand is smoothed over this time.
const SMOOTHING: Micros = 8_000_000;
/// The part of a limit that is split evenly and always reserved.
const FLOOR_PART: u64 = 10;
/// Shares are computed anew so often at most.
const ALLOT_EVERY: Micros = 2_000_000;
/// Unless one of them would move by more than this part, all stay: what was bought under them stays spendable.
const STEADY_PART: u64 = 20;

/// What an edge tells about one limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShareReport {
    /// Echoed by the answer: proves when the report was sent.
    pub id: u64,
    /// The assignment in use: no older one decides anything any more.
    pub holding: u64,
    /// What it allows, as long as its lease lasts; 0 when it is over.
    pub amount: u64,
    /// Microseconds that its lease lasts.
    pub left: Micros,
    /// Units asked for per minute lately, refused ones included.
    pub demand: u64,
    /// Spent in this cell since the period began and held by what runs, read after `holding` was taken over (budgets).
    pub spent: u64,
    /// Units that waiting requests need beyond that (budgets).
    pub wanted: u64,
}

/// What home answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assign {
    /// The report it answers.
    pub report: u64,
    /// Larger is newer.
    pub sequence: u64,
    /// What the cell may use while the lease lasts.
    pub amount: u64,
    /// What it may use afterwards.
    pub floor: u64,
    /// How long, from when the report was sent.
    pub lease: Micros,
    /// What could still be lent to somebody (budgets).
    pub left: u64,
}

/// Who reports.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its region.
    pub region: &'a Arc<str>,
    /// Where it counts: the region, or the edge itself when it counts in its own memory.
    pub cell: &'a Arc<str>,
    /// The edge, unique for each process.
    pub edge: &'a Arc<str>,
}

/// A new home's time of silence.
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    /// Nobody's share grows before.
    pub until: Micros,
    /// A held share is prolonged when its lease lasts at least so long: then the home before this one cannot have lent it elsewhere.
    pub guard: Micros,
}

impl Quiet {
    /// Of a home that took over at `now` from one that may have gone on acting for `overlap` without knowing.
    pub fn after(now: Micros, overlap: Micros) -> Self {
        Self { until: now.saturating_add(counted(SHARE_LEASE)).saturating_add(counted(overlap)), guard: counted(overlap) }
    }

    /// Of a home that was always the only one.
    pub const NONE: Self = Self { until: 0, guard: 0 };
}

/// The shares of one limit.
#[derive(Debug)]
pub struct Allocator {
    amount: u64,
    /// Declared regions: each has a floor.
    regions: Vec<Arc<str>>,
    cells: BTreeMap<Arc<str>, Cell>,
    sequence: u64,
    quiet: Quiet,
    allotted: Micros,
}

#[derive(Debug)]
struct Cell {
    region: Arc<str>,
    edges: BTreeMap<Arc<str>, Edge>,
    /// Oldest first; the last is the one that is sent.
    sent: VecDeque<Sent>,
    /// What it should have besides its floor.
    target: u64,
}

#[derive(Debug, Default)]
struct Edge {
    holding: u64,
    demand: u64,
    heard: Option<Micros>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    sequence: u64,
    amount: u64,
    floor: u64,
    /// When the last edge that has it must have stopped using it, unless it was told something newer.
    until: Micros,
}

impl Allocator {
    /// The shares of a limit of `amount` over these declared regions. `sequence` must be larger than that of any earlier home of the
    /// same limit.
    pub fn new(amount: u64, regions: impl IntoIterator<Item = Arc<str>>, sequence: u64, quiet: Quiet) -> Self {
        Self { amount, regions: regions.into_iter().collect(), cells: BTreeMap::new(), sequence, quiet, allotted: 0 }
    }

    /// The declaration has changed.
    pub fn declare(&mut self, amount: u64, regions: &[Arc<str>], now: Micros) {
        if self.amount != amount || self.regions != regions {
            (self.amount, self.regions) = (amount, regions.to_vec());
            self.allot(now);
        }
    }

    /// What is reserved for a region of a limit, if it is declared.
    pub fn floor_of(amount: u64, regions: &[Arc<str>], region: &str) -> u64 {
        if regions.iter().any(|one| **one == *region) { amount / FLOOR_PART / regions.len() as u64 } else { 0 }
    }

    /// Takes in a report and answers it.
    pub fn report(&mut self, member: &Member<'_>, report: &ShareReport, now: Micros) -> Assign {
        self.sequence = self.sequence.max(report.holding);
        let is_new = !self.cells.contains_key(member.cell);
        let new = || Cell { region: member.region.clone(), edges: BTreeMap::new(), sent: VecDeque::new(), target: 0 };
        let cell = self.cells.entry(member.cell.clone()).or_insert_with(new);
        cell.forget_lost(now);
        let edge = cell.edges.entry(member.edge.clone()).or_default();
        edge.demand = match edge.heard {
            Some(heard) => blend(edge.demand, report.demand, now.saturating_sub(heard)),
            // Nothing to smooth it with.
            None => report.demand,
        };
        edge.heard = Some(now);
        edge.holding = edge.holding.max(report.holding);
        cell.forget_replaced();
        if now < self.quiet.until {
            // What an edge by itself holds has at most the whole floor in it.
            let floor = Self::floor_of(self.amount, &self.regions, member.region);
            let held = if report.left >= self.quiet.guard { report.amount.saturating_sub(floor) } else { 0 };
            let Some(cell) = self.cells.get_mut(member.cell) else { return Assign::default() };
            cell.target = cell.target.max(held).min(self.amount);
        } else if is_new || now >= self.allotted.saturating_add(ALLOT_EVERY) {
            self.allot(now);
        }
        let floor = self.cell_floor(member.cell);
        // An edge by itself has its part of the region's floor besides what is free.
        let free = self.free_for(member.cell, now) + if member.cell == member.region { 0 } else { floor };
        let quiet = now < self.quiet.until;
        let (amount, lease) = (self.amount, counted(SHARE_LEASE));
        // Never larger than this entry, which was just made.
        let Some(cell) = self.cells.get_mut(member.cell) else { return Assign::default() };
        // What a held share proves was within the sum; what others hold is not known yet.
        let due = floor.saturating_add(cell.target).min(if quiet { amount } else { free });
        let newest = cell.sent.back().copied();
        let same = newest.is_some_and(|newest| newest.amount == due && newest.floor == floor && newest.sequence >= report.holding);
        if !same {
            self.sequence += 1;
            cell.sent.push_back(Sent { sequence: self.sequence, amount: due, floor, until: 0 });
        }
        cell.forget_expired(now);
        let Some(newest) = cell.sent.back_mut() else { return Assign::default() };
        newest.until = newest.until.max(now.saturating_add(lease));
        Assign { report: report.id, sequence: newest.sequence, amount: newest.amount, floor: newest.floor, lease: SHARE_LEASE, left: 0 }
    }

    /// Computes the shares that are wanted; a report is answered with at most what is free at that moment.
    fn allot(&mut self, now: Micros) {
        for cell in self.cells.values_mut() {
            cell.forget_lost(now);
        }
        // Cells of declared regions stay: their floor is theirs. An edge's own cell that is silent is nobody's.
        self.cells.retain(|name, cell| !cell.edges.is_empty() || cell.may_hold(now) > 0 && **name == *cell.region);
        if now < self.quiet.until {
            return;
        }
        self.allotted = now;
        let reserved: u64 = self.regions.iter().map(|region| Self::floor_of(self.amount, &self.regions, region)).sum();
        let rest = u128::from(self.amount.saturating_sub(reserved));
        let live: Vec<(Arc<str>, u128)> = self
            .cells
            .iter()
            .filter(|(_, cell)| !cell.edges.is_empty())
            .map(|(name, cell)| (name.clone(), cell.edges.values().map(|edge| u128::from(edge.demand)).sum()))
            .collect();
        let sum: u128 = live.iter().map(|(_, demand)| demand).sum();
        let equal = rest / (live.len() as u128).max(1);
        let share = |demand: u128| u64::try_from((rest * demand).checked_div(sum).unwrap_or(equal)).unwrap_or(0);
        let wanted: Vec<(Arc<str>, u64)> = live.into_iter().map(|(name, demand)| (name, share(demand))).collect();
        let target = |name: &str| self.cells.get(name).map_or(0, |cell| cell.target);
        let targets: u64 = wanted.iter().map(|(name, _)| target(name)).sum();
        let moves = |(name, wanted): &(Arc<str>, u64)| wanted.abs_diff(target(name)) * STEADY_PART > (*wanted).max(target(name));
        if u128::from(targets) <= rest && !wanted.iter().any(moves) {
            return;
        }
        for (name, wanted) in wanted {
            if let Some(cell) = self.cells.get_mut(&name) {
                cell.target = wanted;
            }
        }
    }

    /// The largest sum of shares that may be in use, floors of absent regions included.
    pub fn may_be_in_use(&self, now: Micros) -> u64 {
        self.held_by_all_but(None, now)
    }

    /// Whether nobody holds anything but floors: then it can be forgotten, and made anew without a time of silence.
    pub fn is_idle(&self, now: Micros) -> bool {
        self.cells.values().all(|cell| cell.edges.values().all(|edge| edge.is_lost(now)) && cell.sent.iter().all(|sent| sent.until <= now))
    }

    /// The newest share of each cell, for people and metrics: amount, and whether its lease lasts.
    pub fn shares(&self, now: Micros) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.cells.iter().map(move |(name, cell)| {
            (name, cell.sent.back().map_or(0, |newest| if now < newest.until { newest.amount } else { newest.floor }))
        })
    }

    /// The whole limit.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// The newest sequence that was given out.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What all cells but one, and the floors of regions, may hold.
    fn held_by_all_but(&self, own: Option<&str>, now: Micros) -> u64 {
        // Per region: what its cells hold in all, and whether its floor is reserved besides or is part of that.
        let mut by_region: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for region in &self.regions {
            by_region.entry(region).or_default().1 = Self::floor_of(self.amount, &self.regions, region);
        }
        for (name, cell) in &self.cells {
            let (held, floor) = by_region.entry(&cell.region).or_default();
            if **name != *cell.region {
                // Edges by themselves fall back to parts of the floor, each when its own lease is over.
                *held += if Some(&**name) == own { 0 } else { cell.leased(now) };
            } else if Some(&**name) == own {
                *floor = 0;
            } else {
                *held += cell.may_hold(now).max(*floor);
                *floor = 0;
            }
        }
        by_region.values().map(|(held, floor)| held + floor).sum()
    }

    fn free_for(&self, own: &str, now: Micros) -> u64 {
        self.amount.saturating_sub(self.held_by_all_but(Some(own), now))
    }

    /// A region's floor, split over its cells.
    fn cell_floor(&self, name: &str) -> u64 {
        let Some(cell) = self.cells.get(name) else { return 0 };
        let cells = self.cells.values().filter(|other| other.region == cell.region).count() as u64;
        Self::floor_of(self.amount, &self.regions, &cell.region) / cells.max(1)
    }
}

impl Edge {
    /// Not heard for so long that it holds no more than its floor.
    fn is_lost(&self, now: Micros) -> bool {
        self.heard.is_none_or(|heard| now >= heard.saturating_add(counted(SHARE_LEASE)))
    }
}

impl Cell {
    /// The most that any of its edges may use now.
    fn may_hold(&self, now: Micros) -> u64 {
        self.sent.iter().map(|sent| if now < sent.until { sent.amount.max(sent.floor) } else { sent.floor }).max().unwrap_or(0)
    }

    /// The most that any of its edges may use within a lease, besides its part of the floor.
    fn leased(&self, now: Micros) -> u64 {
        self.sent.iter().filter(|sent| now < sent.until).map(|sent| sent.amount.saturating_sub(sent.floor)).max().unwrap_or(0)
    }

    /// Drops edges that were not heard for longer than any lease.
    fn forget_lost(&mut self, now: Micros) {
        self.edges.retain(|_, edge| !edge.is_lost(now));
    }

    /// Drops what is over and leaves nobody a larger floor than the newest does.
    fn forget_expired(&mut self, now: Micros) {
        let Some(newest) = self.sent.back().copied() else { return };
        self.sent.retain(|sent| sent.sequence == newest.sequence || now < sent.until || sent.floor > newest.floor);
    }

    /// Drops what every edge has replaced by something newer.
    fn forget_replaced(&mut self) {
        let Some(oldest) = self.edges.values().map(|edge| edge.holding).min() else { return };
        while self.sent.len() > 1 && self.sent.front().is_some_and(|sent| sent.sequence < oldest) {
            self.sent.pop_front();
        }
    }
}

/// A lease as home counts it: a little longer, for clocks that run slower there.
pub(super) const fn counted(lease: Micros) -> Micros {
    lease + lease / RATE_ERROR
}

/// A moving average: after `SMOOTHING` the new value counts whole.
fn blend(old: u64, new: u64, passed: Micros) -> u64 {
    let passed = passed.min(SMOOTHING);
    let (old, new, passed) = (u128::from(old), u128::from(new), u128::from(passed));
    let whole = u128::from(SMOOTHING);
    u64::try_from((old * (whole - passed) + new * passed).div_ceil(whole)).unwrap_or(u64::MAX)
}
