//! How one of several possible endpoints is chosen: one file per strategy.
//!
//! A strategy sees only what it weighs: candidates that are already filtered, gated and grouped. It may draw, from the
//! generator it is given, or rank strictly. To add one: a file here, a variant of [`Mode`], an arm below.

mod balanced;
mod exacto;
mod latency;
mod order;
mod price;
mod simple;
mod sticky;
mod throughput;

use std::fmt;

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub(crate) use sticky::{affinity, is_worth_staying};

use crate::explain::Considered;
use crate::preferences::SortBy;
use crate::{Mode, Settings};

/// What to choose by, and whether strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    /// What to choose by.
    pub mode: Mode,
    /// The best one always, as an explicit sort demands, instead of a share for each.
    pub strict: bool,
}

impl Strategy {
    /// The strategy an explicit sort asks for.
    pub(crate) fn of_sort(by: SortBy) -> Strategy {
        let mode = match by {
            SortBy::Price => Mode::Price,
            SortBy::Throughput => Mode::Throughput,
            SortBy::Latency => Mode::Latency,
            // Quality comes in tiers; within one the load is balanced.
            SortBy::Exacto => {
                return Strategy { mode: Mode::Exacto, strict: false };
            }
        };
        Strategy { mode, strict: true }
    }

    /// Whether the order is part of the promise, so that neither exploration nor probes may change it.
    pub(crate) fn is_strict(self) -> bool {
        self.strict || self.mode == Mode::Order
    }

    /// Whether a small share may go to endpoints nobody knows well. Not where the rule is meant to be exactly what it says,
    /// nor where conversations stay put.
    pub(crate) fn explores(self) -> bool {
        match self.mode {
            Mode::Balanced | Mode::Price | Mode::Latency | Mode::Throughput | Mode::Exacto => !self.strict,
            Mode::Simple | Mode::Order | Mode::Sticky => false,
        }
    }

    /// Whether it wants the recent percentiles rather than the quick estimates: a strict order must not flicker.
    pub(crate) fn wants_percentiles(self) -> bool {
        (self.strict && matches!(self.mode, Mode::Latency | Mode::Throughput)) || self.mode == Mode::Exacto
    }

    /// Fills in weights and costs.
    pub(crate) fn weigh(self, settings: &Settings, output: u32, considered: &mut [Considered]) {
        match self.mode {
            Mode::Balanced | Mode::Sticky | Mode::Exacto | Mode::Order => {
                balanced::weigh(settings, output, considered);
            }
            Mode::Simple => simple::weigh(settings, output, considered),
            Mode::Price => price::weigh(settings, output, considered),
            Mode::Latency => latency::weigh(settings, output, considered),
            Mode::Throughput => throughput::weigh(settings, considered),
        }
    }

    /// Chooses one of the pool, which is not empty and holds positions in the table.
    pub(crate) fn pick(self, table: &Table<'_>, pool: &Pool, rng: &mut Rng) -> usize {
        match self.mode {
            Mode::Balanced => balanced::pick(table, pool, rng),
            Mode::Simple => simple::pick(table, pool, rng),
            Mode::Price => price::pick(table, pool, rng, self.strict),
            Mode::Latency => latency::pick(table, pool, rng, self.strict),
            Mode::Throughput => throughput::pick(table, pool, rng, self.strict),
            Mode::Order => order::pick(pool),
            Mode::Sticky => sticky::pick(table, pool),
            Mode::Exacto => exacto::pick(table, pool, rng),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.mode.as_str())?;
        if self.strict { out.write_str(", strictly") } else { Ok(()) }
    }
}

/// Candidates with their weights and costs, and the constants.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) considered: &'a [Considered],
}

/// Positions of the candidates that may be chosen.
pub(crate) type Pool = SmallVec<[usize; 8]>;

impl Table<'_> {
    /// One of the pool at random, each with the probability of its weight.
    pub(crate) fn draw(&self, pool: &Pool, rng: &mut Rng) -> usize {
        let total: f64 = pool.iter().map(|at| self.considered[*at].weight).sum();
        let mut mark = rng.f64() * total;
        for at in pool {
            mark -= self.considered[*at].weight;
            if mark < 0.0 {
                return *at;
            }
        }
        // Rounding can leave the mark a hair above zero.
        pool[pool.len() - 1]
    }

    /// The cheaper by cost of two *different* ones drawn by weight.
    pub(crate) fn better_of_two(&self, pool: &Pool, rng: &mut Rng) -> usize {
        let first = self.draw(pool, rng);
        let others: Pool = pool.iter().copied().filter(|at| *at != first).collect();
        if others.is_empty() {
            return first;
        }
        self.faster(first, self.draw(&others, rng))
    }

    /// The one with the lower cost; the first if they are equal.
    pub(crate) fn faster(&self, one: usize, other: usize) -> usize {
        if self.considered[other].cost < self.considered[one].cost { other } else { one }
    }

    /// The one with the lowest key; the earlier one if keys are equal, so the order of configuration breaks ties.
    pub(crate) fn lowest(&self, pool: &Pool, key: impl Fn(&Considered) -> f64) -> usize {
        let mut best = pool[0];
        for at in &pool[1..] {
            if key(&self.considered[*at]) < key(&self.considered[best]) {
                best = *at;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests;
