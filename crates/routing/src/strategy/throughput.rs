//! The fastest over a long answer: the better of two as a mode, the highest median speed as a sort.

use fastrand::Rng;

use super::{Pool, Table};
use crate::Settings;
use crate::explain::Considered;
use crate::weight::{self, median_of};

pub(super) fn weigh(settings: &Settings, considered: &mut [Considered]) {
    weight::weigh_by_capacity(settings, settings.throughput_output_tokens, considered);
}

pub(super) fn pick(table: &Table<'_>, pool: &Pool, rng: &mut Rng, strict: bool) -> usize {
    if !strict {
        return table.better_of_two(pool, rng);
    }
    let median = median_of(pool.iter().map(|at| table.considered[*at].speed));
    let unknown = median.map_or(0.0, |median| median * OPTIMISM);
    table.lowest(pool, |one| -one.speed.map_or(unknown, f64::from))
}

/// See the same constant of the latency order.
const OPTIMISM: f64 = 1.25;
