//! The transparent rule: inverse-square price among the endpoints without a recent outage, the others last.

use fastrand::Rng;

use super::{Pool, Table};
use crate::explain::Considered;
use crate::{Settings, weight};

pub(super) fn weigh(settings: &Settings, output: u32, considered: &mut [Considered]) {
    weight::weigh(settings, settings.price_exponent, output, considered);
    // Nothing but the price has a say among the stable; costs stay, for the record.
    let cheapest = considered.iter().map(|one| one.price).filter(|price| *price > 0.0).fold(f64::INFINITY, f64::min);
    let scale = if cheapest.is_finite() { cheapest } else { 1.0 };
    for one in considered {
        one.weight = (one.price.max(scale * FREE_SHARE) / scale).powi(-settings.price_exponent);
    }
}

pub(super) fn pick(table: &Table<'_>, pool: &Pool, rng: &mut Rng) -> usize {
    let stable: Pool = pool.iter().copied().filter(|at| !had_outage(table.settings, &table.considered[*at])).collect();
    table.draw(if stable.is_empty() { pool } else { &stable }, rng)
}

/// At least one whole failure in the window, and more than a few percent of the samples.
fn had_outage(settings: &Settings, one: &Considered) -> bool {
    one.gate.is_ejected() || (one.failures >= 1.0 && f64::from(one.failures) > settings.outage_ratio * f64::from(one.samples))
}

/// A free endpoint counts as a hundredth of the cheapest price.
const FREE_SHARE: f64 = 0.01;
