//! Price, success, headroom and speed together: the default.
//!
//! Two endpoints are drawn by weight, independently, and the one that would answer sooner is taken. Independently, so that
//! drawing the same one twice is possible: with two *different* draws a model of two endpoints would always compare both and
//! its prices would not matter at all.

use fastrand::Rng;

use super::{Pool, Table};
use crate::explain::Considered;
use crate::{Settings, weight};

pub(super) fn weigh(settings: &Settings, output: u32, considered: &mut [Considered]) {
    weight::weigh(settings, settings.price_exponent, output, considered);
}

pub(super) fn pick(table: &Table<'_>, pool: &Pool, rng: &mut Rng) -> usize {
    if pool.len() == 1 {
        return pool[0];
    }
    let one = table.draw(pool, rng);
    let other = table.draw(pool, rng);
    table.faster(one, other)
}
