//! The cheapest: steeply as a mode, strictly as a sort.

use fastrand::Rng;

use super::{Pool, Table};
use crate::explain::Considered;
use crate::{Settings, weight};

pub(super) fn weigh(settings: &Settings, output: u32, considered: &mut [Considered]) {
    weight::weigh(settings, settings.steep_price_exponent, output, considered);
}

pub(super) fn pick(table: &Table<'_>, pool: &Pool, rng: &mut Rng, strict: bool) -> usize {
    if strict { table.lowest(pool, |one| one.price) } else { table.draw(pool, rng) }
}
