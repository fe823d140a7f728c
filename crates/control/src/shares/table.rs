//! The books of a leader: one allocator per limit that is in use. Pure but for reading declarations.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_proto::v1::{Assign, Grant, GrantBatch, ShareReport, ShareReports};
use tidegate_proto::{Kind, limit_name};
use tidegate_quota::{Allocator, BudgetAllocator, Limit, LimitName, Member, Micros, Period, Quiet, Scope, Shared};

use crate::state::State;

/// What a resource declares about limits.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// Limits of a key, a workspace or an organisation.
    pub limits: Vec<Limit>,
    /// Of the mesh's defaults: the regions that share limits.
    pub regions: Vec<String>,
}

/// Understands what a resource says about limits; a body that cannot be read declares none.
pub type ReadLimits = Arc<dyn Fn(Kind, &[u8]) -> Declared + Send + Sync>;

/// Who reports, as the connection has proven it.
#[derive(Debug, Clone)]
pub struct Reporter {
    region: Arc<str>,
    cell: Arc<str>,
    edge: Arc<str>,
}

/// The books of one term.
pub struct ShareTable {
    read: ReadLimits,
    sequence: u64,
    quiet: Quiet,
    rates: HashMap<String, Allocator>,
    budgets: HashMap<String, Budget>,
    /// By kind and name, at a revision.
    declared: HashMap<(Kind, String), (u64, Arc<Declared>)>,
    swept: Micros,
}

struct Budget {
    allocator: BudgetAllocator,
    amount: u64,
    period_end_ms: u64,
}

impl Reporter {
    /// The edge that these reports are of.
    pub fn of(reports: &ShareReports) -> Self {
        let region: Arc<str> = reports.region.as_str().into();
        let cell = if reports.shared_store { Arc::clone(&region) } else { format!("{region}/{}", reports.edge).into() };
        Self { cell, edge: format!("{}#{}", reports.edge, reports.instance).into(), region }
    }
}

impl ShareTable {
    /// Empty books for a term that this node began to lead at `now`; the leader before may have gone on for `overlap`.
    pub fn new(read: ReadLimits, term: u64, overlap: Micros, now: Micros) -> Self {
        Self {
            read,
            // Four billion assignments a term.
            sequence: term << 32,
            // Nobody led before the first term.
            quiet: if term <= 1 { Quiet::NONE } else { Quiet::after(now, overlap) },
            rates: HashMap::new(),
            budgets: HashMap::new(),
            declared: HashMap::new(),
            swept: now,
        }
    }

    /// Takes reports in and answers them.
    pub fn report(&mut self, state: &State, who: &Reporter, reports: &[ShareReport], now: Micros, unix_us: u64) -> Assign {
        self.sweep(now);
        let regions = self.regions(state);
        let mut answer = Assign::default();
        for wire in reports.iter().take(MOST_REPORTS) {
            match self.answer(state, &regions, who, wire, now, unix_us) {
                Some(assign) => answer.shares.push(assign.into()),
                None => answer.unknown.push(wire.id),
            }
        }
        answer
    }

    fn answer(
        &mut self,
        state: &State,
        regions: &[Arc<str>],
        who: &Reporter,
        wire: &ShareReport,
        now: Micros,
        unix_us: u64,
    ) -> Option<tidegate_quota::Assign> {
        let name = limit_name(wire.limit.as_ref()?).ok()?;
        let limit = self.limit(state, &name)?;
        let member = Member { region: &who.region, cell: &who.cell, edge: &who.edge };
        let key = name.to_string();
        match name.shared() {
            Shared::Rate => {
                if self.rates.len() >= MOST_LIMITS && !self.rates.contains_key(&key) {
                    return None;
                }
                let new = || Allocator::new(limit.amount, regions.iter().cloned(), self.sequence, self.quiet);
                let allocator = self.rates.entry(key).or_insert_with(new);
                allocator.declare(limit.amount, regions, now);
                Some(allocator.report(&member, &wire.report(), now))
            }
            Shared::Budget => {
                let period = name.period.filter(|period| is_current(period, &limit, unix_us))?;
                if self.budgets.len() >= MOST_LIMITS && !self.budgets.contains_key(&key) {
                    return None;
                }
                let granted = state.grants().of(&key).map(|(cell, total)| (cell.into(), total)).collect::<Vec<_>>();
                let new = || Budget {
                    allocator: BudgetAllocator::new(limit.amount, limit.dimension.is_spend(), granted, self.sequence),
                    amount: limit.amount,
                    period_end_ms: period.end / 1_000,
                };
                let budget = self.budgets.entry(key).or_insert_with(new);
                budget.amount = limit.amount;
                budget.allocator.declare(limit.amount);
                Some(budget.allocator.report(&member, &wire.report(), now))
            }
        }
    }

    /// What has to be agreed on now, at most `MOST_ROWS` grants. The same again until [`ShareTable::agreed`] says what became of it.
    pub fn pending(&mut self, now: Micros) -> Option<GrantBatch> {
        let only_larger = now < self.quiet.until.saturating_sub(tidegate_quota::SHARE_LEASE);
        let mut grants = Vec::new();
        for (name, budget) in &mut self.budgets {
            let rows = budget.allocator.pending(only_larger);
            grants.extend(rows.into_iter().map(|row| Grant {
                budget: name.clone(),
                cell: row.cell.to_string(),
                total: row.total,
                amount: budget.amount,
                period_end_ms: budget.period_end_ms,
            }));
            if grants.len() >= MOST_ROWS {
                break;
            }
        }
        (!grants.is_empty()).then_some(GrantBatch { grants })
    }

    /// The state after a batch was agreed on says what became of each grant.
    pub fn agreed(&mut self, batch: &GrantBatch, state: &State) {
        for grant in &batch.grants {
            let Some(budget) = self.budgets.get_mut(&grant.budget) else { continue };
            let total = state.grants().total(&grant.budget, &grant.cell);
            budget.allocator.agreed(&grant.cell, total);
            if total < grant.total {
                // The budget was lowered, or there is no room for another cell.
                budget.allocator.refused(&grant.cell);
            }
        }
    }

    /// How many rates and budgets are in use.
    pub fn len(&self) -> (usize, usize) {
        (self.rates.len(), self.budgets.len())
    }

    /// The shares of each rate and the grants of each budget, for people: name, whole, cell, part.
    pub fn shown(&self, now: Micros) -> Vec<(String, u64, String, u64)> {
        let rates = self.rates.iter().flat_map(|(name, allocator)| {
            allocator.shares(now).map(|(cell, amount)| (name.clone(), allocator.amount(), cell.to_string(), amount))
        });
        let budgets = self.budgets.iter().flat_map(|(name, budget)| {
            budget.allocator.grants().map(|(cell, total)| (name.clone(), budget.amount, cell.to_string(), total))
        });
        let mut shown: Vec<_> = rates.chain(budgets).collect();
        shown.sort();
        shown
    }

    /// The declaration that a name means.
    fn limit(&mut self, state: &State, name: &LimitName) -> Option<Limit> {
        let kind = match name.scope {
            Scope::Key => Kind::Key,
            Scope::Workspace => Kind::Workspace,
            Scope::Organisation => Kind::Organisation,
        };
        let declared = self.declared(state, kind, &name.owner)?;
        declared.limits.iter().find(|limit| limit.global && name.is_of(limit)).cloned()
    }

    fn regions(&mut self, state: &State) -> Vec<Arc<str>> {
        let declared = self.declared(state, Kind::Defaults, "mesh");
        declared.map_or_else(Vec::new, |declared| declared.regions.iter().map(|region| region.as_str().into()).collect())
    }

    fn declared(&mut self, state: &State, kind: Kind, name: &str) -> Option<Arc<Declared>> {
        let resource = state.get(kind, name)?;
        let key = (kind, name.to_owned());
        if let Some((revision, declared)) = self.declared.get(&key)
            && *revision == resource.revision
        {
            return Some(Arc::clone(declared));
        }
        let declared = Arc::new((self.read)(kind, &resource.body));
        self.declared.insert(key, (resource.revision, Arc::clone(&declared)));
        Some(declared)
    }

    /// Once a minute: limits that nobody uses, and what was read of declarations.
    fn sweep(&mut self, now: Micros) {
        if now < self.swept.saturating_add(SWEEP_EVERY) {
            return;
        }
        self.swept = now;
        self.declared.clear();
        self.rates.retain(|_, allocator| !allocator.is_idle(now));
        self.budgets.retain(|_, budget| !budget.allocator.is_idle(now));
    }
}

/// Whether it is a period of this limit, and not long over or yet to come: clocks differ by less than an hour.
fn is_current(period: &Period, limit: &Limit, unix_us: u64) -> bool {
    let true_one = Period::containing(period.start, period.window, limit.utc_offset_minutes);
    let near = period.start < unix_us.saturating_add(CLOCKS_DIFFER) && unix_us < period.end.saturating_add(CLOCKS_DIFFER);
    *period == true_one && near
}

/// As many limits in use at once as a leader keeps books for; about 1 KiB each.
const MOST_LIMITS: usize = 200_000;
/// Of one edge at once.
const MOST_REPORTS: usize = tidegate_quota::MOST_REPORTS;
/// Grants of one entry: about 64 KiB.
const MOST_ROWS: usize = 500;
const SWEEP_EVERY: Micros = 60_000_000;
const CLOCKS_DIFFER: u64 = 3_600_000_000;

#[cfg(test)]
mod tests;
