//! What of budgets that span regions is lent to whom. Pure.
//!
//! This is the one thing about shares that must be agreed: money that a region was told it may spend stays lent when the leader that told
//! it is gone. The state itself never lets more be lent than the budget has, whatever is proposed.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use tidegate_proto::v1::{Grant, GrantBatch, GrantsSection};

/// All grants of periods that are not over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grants {
    by_budget: OrdMap<Arc<str>, Arc<Budget>>,
    /// The newest leader's time that was applied, Unix milliseconds.
    leader_time_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Budget {
    period_end_ms: u64,
    cells: BTreeMap<String, u64>,
}

impl Grants {
    /// What each cell may spend of a budget in all, by its name with the period.
    pub fn of(&self, budget: &str) -> impl Iterator<Item = (&str, u64)> {
        self.by_budget.get(budget).into_iter().flat_map(|budget| budget.cells.iter().map(|(cell, total)| (cell.as_str(), *total)))
    }

    /// What one cell may.
    pub fn total(&self, budget: &str, cell: &str) -> u64 {
        self.by_budget.get(budget).and_then(|budget| budget.cells.get(cell).copied()).unwrap_or(0)
    }

    /// How many budgets have grants.
    pub fn len(&self) -> usize {
        self.by_budget.len()
    }

    /// Whether nothing is lent.
    pub fn is_empty(&self) -> bool {
        self.by_budget.is_empty()
    }

    /// Takes an agreed batch in. A larger grant gets at most what the budget still has.
    pub fn apply(&mut self, batch: &GrantBatch, leader_time_ms: u64) {
        for grant in &batch.grants {
            if grant.period_end_ms <= leader_time_ms || grant.budget.len() > NAME_BYTES || grant.cell.len() > NAME_BYTES {
                continue;
            }
            let known = self.by_budget.get(grant.budget.as_str());
            if known.is_none() && self.by_budget.len() >= MOST_BUDGETS {
                continue;
            }
            let mut budget = known.map(|budget| Budget::clone(budget)).unwrap_or_default();
            if budget.cells.len() >= MOST_CELLS && !budget.cells.contains_key(&grant.cell) {
                continue;
            }
            let present = budget.cells.get(&grant.cell).copied().unwrap_or(0);
            let others: u64 = budget.cells.iter().filter(|(cell, _)| **cell != grant.cell).map(|(_, total)| *total).sum();
            let most = grant.amount.saturating_sub(others).max(present);
            budget.cells.insert(grant.cell.clone(), grant.total.min(most));
            budget.period_end_ms = grant.period_end_ms;
            self.by_budget.insert(grant.budget.as_str().into(), Arc::new(budget));
        }
        let before = self.leader_time_ms;
        self.leader_time_ms = before.max(leader_time_ms);
        if before / FORGET_EVERY_MS != self.leader_time_ms / FORGET_EVERY_MS {
            let over = |budget: &Budget| budget.period_end_ms.saturating_add(PERIOD_SLACK_MS) <= leader_time_ms;
            let names: Vec<Arc<str>> = self.by_budget.iter().filter(|(_, budget)| over(budget)).map(|(name, _)| name.clone()).collect();
            for name in names {
                self.by_budget.remove(&name);
            }
        }
    }

    /// The section of a snapshot.
    pub fn to_section(&self) -> GrantsSection {
        let grants = self.by_budget.iter().flat_map(|(name, budget)| {
            budget.cells.iter().map(|(cell, total)| Grant {
                budget: name.to_string(),
                cell: cell.clone(),
                total: *total,
                amount: 0,
                period_end_ms: budget.period_end_ms,
            })
        });
        GrantsSection { format: FORMAT, grants: grants.collect(), leader_time_ms: self.leader_time_ms }
    }

    /// Reads the section back; nothing when a newer build wrote it.
    pub fn from_section(section: GrantsSection) -> Option<Grants> {
        if section.format > FORMAT {
            return None;
        }
        let mut grants = Grants { leader_time_ms: section.leader_time_ms, ..Grants::default() };
        let mut by_budget: BTreeMap<String, Budget> = BTreeMap::new();
        for grant in section.grants {
            let budget = by_budget.entry(grant.budget).or_default();
            budget.period_end_ms = grant.period_end_ms;
            budget.cells.insert(grant.cell, grant.total);
        }
        grants.by_budget = by_budget.into_iter().map(|(name, budget)| (Arc::from(name), Arc::new(budget))).collect();
        Some(grants)
    }
}

const FORMAT: u32 = 1;
/// Longest name of a budget and of a cell: names of a key, a model and a provider.
const NAME_BYTES: usize = 2_048;
/// A row takes about 200 bytes in memory: 200,000 budgets of eight regions are 320 MB, and more than anybody has.
const MOST_BUDGETS: usize = 200_000;
/// Edges that count by themselves are cells of their own; beyond this many they need a store.
const MOST_CELLS: usize = 256;
/// How long the grants of a period are kept after its end: longer than clocks differ.
const PERIOD_SLACK_MS: u64 = 3_600_000;
const FORGET_EVERY_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(cell: &str, total: u64) -> Grant {
        Grant { budget: "key:a:spend_day@d:2026-11-30".into(), cell: cell.into(), total, amount: 100, period_end_ms: 10_000_000 }
    }

    #[test]
    fn no_more_is_ever_lent_than_the_budget_has() {
        let mut grants = Grants::default();
        grants.apply(&GrantBatch { grants: vec![grant("eu", 60), grant("us", 60)] }, 1_000);
        let name = grant("", 0).budget;
        assert_eq!(grants.of(&name).collect::<Vec<_>>(), [("eu", 60), ("us", 40)]);
        grants.apply(&GrantBatch { grants: vec![grant("eu", 10), grant("us", 95)] }, 2_000);
        assert_eq!((grants.total(&name, "eu"), grants.total(&name, "us")), (10, 90));
        // A budget that was lowered below what is lent takes nothing back, and lends no more.
        grants.apply(&GrantBatch { grants: vec![Grant { amount: 50, ..grant("us", 99) }] }, 3_000);
        assert_eq!(grants.total(&name, "us"), 90);
    }

    #[test]
    fn a_period_that_is_over_is_forgotten_and_a_snapshot_holds_the_rest() {
        let mut grants = Grants::default();
        let month = Grant { budget: "key:a:spend_month@m:2026-11".into(), period_end_ms: 100_000_000, ..grant("eu", 5) };
        grants.apply(&GrantBatch { grants: vec![grant("eu", 60), month.clone()] }, 1_000);
        assert_eq!(Grants::from_section(grants.to_section()).unwrap().to_section(), grants.to_section());
        grants.apply(&GrantBatch { grants: vec![grant("eu", 70)] }, 14_000_000);
        assert_eq!((grants.len(), grants.total(&month.budget, "eu")), (1, 5));
    }
}
