//! Who may spend how much of a budget that several regions share: home's side.
//!
//! Pure, as [`super::Allocator`]. A grant is a total since the period began: a cell admits a request only if what it has spent and holds,
//! with the request, stays within it. So the sum of the grants bounds what can be spent, whatever is lost or late, and two things differ
//! from a rate:
//!
//! - What was spent does not come back. A grant is counted until every edge of its cell has confirmed a smaller one, and then at least
//!   what was spent is; an edge that is not heard any more has only its lease (10 min) to spend what it was told.
//! - A home that takes over must know what the one before has granted. So a grant is agreed on before anybody is told
//!   ([`BudgetAllocator::pending`], then [`BudgetAllocator::agreed`]), and a new home begins with what was agreed: there is no time of
//!   silence.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Micros;
use crate::share::allocator::{Assign, Member, ShareReport, counted};

/// How long a grant may be spent from without a newer report.
pub const GRANT_LEASE: Micros = 600_000_000;
/// A grant is this part of what is left ...
const GRANT_PART: u64 = 100;
/// ... but at least a dollar, or so many requests.
const LEAST_MONEY: u64 = 1_000_000;
const LEAST_REQUESTS: u64 = 10;

/// What one cell may spend in all: to be agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    /// The cell.
    pub cell: Arc<str>,
    /// The total since the period began.
    pub total: u64,
}

/// The grants of one budget in one period.
#[derive(Debug)]
pub struct BudgetAllocator {
    amount: u64,
    least: u64,
    cells: BTreeMap<Arc<str>, Cell>,
    sequence: u64,
}

#[derive(Debug, Default)]
struct Cell {
    edges: BTreeMap<Arc<str>, Edge>,
    /// Agreed: the most that any of its edges was told and has not replaced.
    granted: u64,
    /// What it should be granted; more than `granted` while it is being agreed on.
    asked: u64,
    /// What its edges may be told: `granted`, or less while a smaller grant is being agreed on.
    usable: u64,
    /// What its edges are told now, at most `usable`.
    told: u64,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    holding: u64,
    spent: u64,
    wanted: u64,
    demand: u64,
    heard: Micros,
}

impl BudgetAllocator {
    /// The grants of a budget of `amount`: micro-dollars, or requests. `granted` is what is agreed; `sequence` must be larger than that of
    /// any earlier home.
    pub fn new(amount: u64, is_money: bool, granted: impl IntoIterator<Item = (Arc<str>, u64)>, sequence: u64) -> Self {
        let mut allocator = Self { amount, least: if is_money { LEAST_MONEY } else { LEAST_REQUESTS }, cells: BTreeMap::new(), sequence };
        for (name, granted) in granted {
            allocator.sequence += 1;
            // Nobody knows which of the totals up to this one its edges were told.
            let cell = Cell { granted, asked: granted, usable: granted, told: granted, sequence: allocator.sequence, ..Cell::default() };
            allocator.cells.insert(name, cell);
        }
        allocator
    }

    /// The declaration has changed.
    pub fn declare(&mut self, amount: u64) {
        self.amount = amount;
    }

    /// Takes in a report and answers it.
    pub fn report(&mut self, member: &Member<'_>, report: &ShareReport, now: Micros) -> Assign {
        self.sequence = self.sequence.max(report.holding);
        let cell = self.cells.entry(member.cell.clone()).or_default();
        let heard = Edge { holding: report.holding, spent: report.spent, wanted: report.wanted, demand: report.demand, heard: now };
        let edge = cell.edges.entry(member.edge.clone()).or_insert(heard);
        *edge = Edge { holding: edge.holding.max(report.holding), ..heard };
        cell.forget_lost(now);
        self.decide(member.cell);
        if self.cells.get(member.cell).is_some_and(|cell| cell.sequence < report.holding) {
            // Another home has told something since; what this one tells must be newer.
            self.sequence += 1;
            let sequence = self.sequence;
            if let Some(cell) = self.cells.get_mut(member.cell) {
                cell.sequence = sequence;
            }
        }
        let left = self.left_for(member.cell);
        let (sequence, amount) = self.cells.get(member.cell).map_or((0, 0), |cell| (cell.sequence, cell.told));
        Assign { report: report.id, sequence, amount, floor: 0, lease: GRANT_LEASE, left }
    }

    /// Grants that are to be agreed on: larger ones that regions wait for, and unless `only_larger` smaller ones that every edge has
    /// confirmed, which bind from now on. A home that has just taken over lowers none: the one before may still tell the old ones.
    pub fn pending(&mut self, only_larger: bool) -> Vec<GrantRow> {
        let due = self.cells.iter_mut().filter_map(|(name, cell)| {
            let total = if cell.asked > cell.granted { cell.asked } else { cell.confirmed().filter(|_| !only_larger)? };
            cell.usable = cell.usable.min(total);
            Some(GrantRow { cell: name.clone(), total })
        });
        due.collect()
    }

    /// A grant was agreed on. Not to be called for one that was not: it goes on counting as if it had been until it is.
    pub fn agreed(&mut self, cell: &str, total: u64) {
        let Some(cell) = self.cells.get_mut(cell) else { return };
        let grows = total > cell.granted;
        (cell.granted, cell.usable) = (total, total);
        if grows {
            self.sequence += 1;
            (cell.told, cell.sequence) = (total, self.sequence);
        }
    }

    /// Nothing of it was agreed on, and it will not be: the budget does not allow it.
    pub fn refused(&mut self, cell: &str) {
        if let Some(cell) = self.cells.get_mut(cell) {
            cell.asked = cell.granted;
        }
    }

    /// The most that can be spent with everything that was granted, or is being.
    pub fn may_be_spent(&self) -> u64 {
        self.cells.values().map(Cell::holds).sum()
    }

    /// What each cell may spend in all.
    pub fn grants(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.cells.iter().map(|(name, cell)| (name, cell.granted))
    }

    /// Nobody was heard for longer than a lease, and nothing waits to be agreed on: what is agreed says everything.
    pub fn is_idle(&self, now: Micros) -> bool {
        self.cells.values().all(|cell| cell.asked <= cell.granted && cell.edges.values().all(|edge| edge.is_lost(now)))
    }

    /// The newest sequence that was given out.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    fn decide(&mut self, name: &str) {
        let spent: u64 = self.cells.values().map(|cell| cell.spent()).sum();
        let slack = (self.amount.saturating_sub(spent) / GRANT_PART).max(self.least);
        let free = self.free();
        let starving = free == 0 && self.cells.iter().any(|(other, cell)| **other != *name && cell.lacks());
        let Some(cell) = self.cells.get_mut(name) else { return };
        let (used, wanted, active) = (cell.spent(), cell.wanted(), cell.is_active());
        let need = used.saturating_add(wanted);
        let ahead = if active && !starving { slack } else { 0 };
        let desired = need.saturating_add(ahead);
        if cell.told < need.saturating_add(ahead / 2) {
            // Half of what was granted ahead is used.
            if desired <= cell.usable {
                self.sequence += 1;
                (cell.told, cell.sequence) = (desired, self.sequence);
            } else {
                // Of what it was asking for already, nothing is taken back before it is known what became of it.
                cell.asked = cell.asked.max(desired.min(cell.holds().saturating_add(free)));
                if cell.told < cell.usable {
                    self.sequence += 1;
                    (cell.told, cell.sequence) = (cell.usable, self.sequence);
                }
            }
        } else if cell.told > need.saturating_add(ahead.saturating_mul(2)) && cell.asked <= cell.granted {
            self.sequence += 1;
            (cell.told, cell.asked, cell.sequence) = (desired, desired, self.sequence);
        }
    }

    /// What is granted to nobody.
    fn free(&self) -> u64 {
        self.amount.saturating_sub(self.may_be_spent())
    }

    /// What this cell could come to have besides its grant: what nobody has spent or needs. 0 says that waiting is no use.
    fn left_for(&self, name: &str) -> u64 {
        let others: u64 = self.cells.iter().filter(|(other, _)| ***other != *name).map(|(_, cell)| cell.spent()).sum();
        let own = self.cells.get(name).map_or(0, |cell| cell.told.max(cell.spent()));
        self.amount.saturating_sub(others).saturating_sub(own)
    }
}

impl Cell {
    /// The most that it can come to have spent.
    fn holds(&self) -> u64 {
        self.granted.max(self.asked).max(self.spent())
    }

    /// Spent and held, as the edge says that knows of most: each reads the same counter, at another time.
    fn spent(&self) -> u64 {
        self.edges.values().map(|edge| edge.spent).max().unwrap_or(0)
    }

    fn wanted(&self) -> u64 {
        self.edges.values().map(|edge| edge.wanted).fold(0, u64::saturating_add)
    }

    fn is_active(&self) -> bool {
        self.edges.values().any(|edge| edge.demand > 0 || edge.wanted > 0)
    }

    fn lacks(&self) -> bool {
        self.told.max(self.asked) < self.spent().saturating_add(self.wanted())
    }

    /// The smaller total that every edge has confirmed, if the agreed one is larger.
    fn confirmed(&self) -> Option<u64> {
        let confirmed = !self.edges.is_empty() && self.edges.values().all(|edge| edge.holding >= self.sequence);
        let total = self.told.max(self.spent());
        (confirmed && total < self.granted && self.asked <= self.granted).then_some(total)
    }

    /// Drops edges that were not heard for longer than the lease: they spend no more. What they spent stays in the counter that the others
    /// read, or, where nobody reads it any more, in what is agreed.
    fn forget_lost(&mut self, now: Micros) {
        self.edges.retain(|_, edge| !edge.is_lost(now));
    }
}

impl Edge {
    fn is_lost(&self, now: Micros) -> bool {
        now >= self.heard.saturating_add(counted(GRANT_LEASE))
    }
}
