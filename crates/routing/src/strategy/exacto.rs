//! Tiers by measured quality, balanced within the best tier.
//!
//! The real signal would be how many tool calls are well-formed, and benchmark scores per endpoint; an edge on its own knows
//! neither. What it does know is speed and success, compared with the median of the model's endpoints in units of their usual
//! spread. With few endpoints there is nothing to compare and all are in one tier.

use fastrand::Rng;
use smallvec::SmallVec;

use super::{Pool, Table, balanced};
use crate::Settings;
use crate::explain::Considered;
use crate::health::median;

pub(super) fn pick(table: &Table<'_>, pool: &Pool, rng: &mut Rng) -> usize {
    if table.considered.len() < table.settings.exacto_endpoints {
        return balanced::pick(table, pool, rng);
    }
    let bars = Bars::of(table.settings, table.considered);
    let tier = |at: usize| bars.tier(table.settings, &table.considered[at]);
    let best = pool.iter().map(|at| tier(*at)).min();
    let pool: Pool = pool.iter().copied().filter(|at| Some(tier(*at)) == best).collect();
    balanced::pick(table, &pool, rng)
}

/// Quality of an endpoint; the lower the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Good,
    Unknown,
    Poor,
}

/// What an endpoint must reach.
struct Bars {
    speed: f64,
    success: f64,
}

impl Bars {
    fn of(settings: &Settings, considered: &[Considered]) -> Bars {
        let known = || considered.iter().filter(|one| one.requests >= settings.exacto_requests);
        Bars {
            speed: bar(known().filter_map(|one| one.speed).map(f64::from), SPEED_DEVIATIONS),
            success: bar(known().map(|one| f64::from(one.success)), SUCCESS_DEVIATIONS),
        }
    }

    fn tier(&self, settings: &Settings, one: &Considered) -> Tier {
        if one.requests < settings.exacto_requests {
            return Tier::Unknown;
        }
        let slow = one.speed.is_some_and(|speed| f64::from(speed) < self.speed);
        if slow || f64::from(one.success) < self.success { Tier::Poor } else { Tier::Good }
    }
}

/// Median minus so many deviations, the deviation estimated from the median distance to the median, which a single outlier
/// cannot move.
fn bar(values: impl Iterator<Item = f64>, deviations: f64) -> f64 {
    let mut values: SmallVec<[f64; 8]> = values.collect();
    let Some(middle) = median(&mut values) else {
        return f64::NEG_INFINITY;
    };
    let mut distances: SmallVec<[f64; 8]> = values.iter().map(|value| (value - middle).abs()).collect();
    let deviation = median(&mut distances).unwrap_or(0.0) * NORMAL_CONSISTENCY;
    // Endpoints that are nearly equal are all good: a hair below the median is not an outlier.
    middle - (deviations * deviation).max(middle.abs() * LEAST_MARGIN)
}

const SPEED_DEVIATIONS: f64 = 1.5;
const SUCCESS_DEVIATIONS: f64 = 2.0;
/// Makes the median distance an estimate of the standard deviation of a normal distribution.
const NORMAL_CONSISTENCY: f64 = 1.4826;
const LEAST_MARGIN: f64 = 0.05;
