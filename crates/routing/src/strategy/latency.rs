//! The fastest to answer: the better of two as a mode, the lowest median time to first token as a sort.

use fastrand::Rng;

use super::{Pool, Table};
use crate::Settings;
use crate::explain::Considered;
use crate::weight::{self, median_of};

pub(super) fn weigh(settings: &Settings, output: u32, considered: &mut [Considered]) {
    weight::weigh_by_capacity(settings, output, considered);
}

pub(super) fn pick(table: &Table<'_>, pool: &Pool, rng: &mut Rng, strict: bool) -> usize {
    if !strict {
        return table.better_of_two(pool, rng);
    }
    let median = median_of(pool.iter().map(|at| table.considered[*at].first_token));
    let unknown = median.map_or(f64::INFINITY, |median| median * OPTIMISM);
    table.lowest(pool, |one| one.first_token.map_or(unknown, f64::from))
}

/// An endpoint that was never measured is taken for a little faster than the middle of its peers: it is then tried sooner or
/// later, which a strict order would otherwise never do.
const OPTIMISM: f64 = 0.8;
