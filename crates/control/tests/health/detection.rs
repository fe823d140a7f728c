//! How long a provider fault goes unnoticed: by an edge alone, by its region, and in another region.

use super::world::{Fault, STEP_MS, Shape, World};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Requests per second of each edge to the endpoint.
    pub(crate) rate: f64,
    /// Share of them that fail.
    pub(crate) failing: f64,
}

pub(crate) const ROWS: [Row; 5] = [
    Row { rate: 0.1, failing: 1.0 },
    Row { rate: 0.5, failing: 1.0 },
    Row { rate: 2.0, failing: 1.0 },
    Row { rate: 0.5, failing: 0.6 },
    Row { rate: 2.0, failing: 0.6 },
];

/// What came out over all seeds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Seconds until the median edge's own breaker opened.
    pub(crate) local: f64,
    /// Seconds until an edge of the region heard that the endpoint is out: median and largest.
    pub(crate) region: f64,
    pub(crate) region_most: f64,
    /// Seconds until an edge of another region, which does not use the endpoint, heard that it fails: median and 99th percentile.
    pub(crate) other: f64,
    pub(crate) other_p99: f64,
    /// Failed requests of the region until everybody reacted: alone, and shared.
    pub(crate) bad_local: f64,
    pub(crate) bad_shared: f64,
    /// Every edge's time, per way of knowing, seconds, sorted.
    pub(crate) times: [Vec<f64>; 3],
}

const FAULT_MS: u64 = 20_000;
const LONGEST_MS: u64 = 260_000;

/// 40 edges in one region send to the endpoint, another region only listens.
pub(crate) fn measure(row: Row, seeds: u64) -> Found {
    let mut found = Found::default();
    let (mut bad_local, mut bad_shared) = (0_u64, 0_u64);
    let (mut firsts, mut others) = (Vec::new(), Vec::new());
    for seed in 0..seeds {
        let (times, bad) = alone(row, seed);
        found.times[0].extend(times);
        bad_local += bad;
        let (near, far, bad) = shared(row, seed);
        firsts.extend(near.first().copied());
        others.extend(far.iter().copied());
        found.times[1].extend(near);
        found.times[2].extend(far);
        bad_shared += bad;
    }
    for times in &mut found.times {
        times.sort_by(f64::total_cmp);
    }
    others.sort_by(f64::total_cmp);
    found.local = at(&found.times[0], 0.5);
    found.region = at(&found.times[1], 0.5);
    found.region_most = at(&found.times[1], 1.0);
    found.other = at(&others, 0.5);
    found.other_p99 = at(&others, 0.99);
    found.bad_local = bad_local as f64 / seeds as f64;
    found.bad_shared = bad_shared as f64 / seeds as f64;
    found
}

pub(crate) fn at(sorted: &[f64], quantile: f64) -> f64 {
    let rank = ((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// No views: each edge goes by its own breaker, and stops sending when it opens.
fn alone(row: Row, seed: u64) -> (Vec<f64>, u64) {
    let shape = Shape { rate: row.rate, only_first: true, shared: false, ..Shape::default() };
    let mut world = World::new(shape, seed);
    world.faults.push(Fault::of(0, FAULT_MS, row.failing));
    let mut seen: Vec<Option<f64>> = vec![None; world.shape.edges];
    let mut bad = 0;
    world.run_until(LONGEST_MS, |world| {
        for (edge, seen) in seen.iter_mut().enumerate().filter(|(_, seen)| seen.is_none()) {
            if world.now_ms > FAULT_MS && world.moved(0, edge) && world.is_open(0, edge, 0) {
                *seen = Some((world.now_ms - FAULT_MS) as f64 / 1_000.0);
                bad += u64::from(world.regions[0].edges[edge].bad);
            }
        }
        seen.iter().all(Option::is_some)
    });
    (seen.into_iter().map(|seen| seen.unwrap_or(f64::INFINITY)).collect(), bad)
}

/// With views. The second region's edges have other traffic than the failing endpoint, so all they know is what they are told.
fn shared(row: Row, seed: u64) -> (Vec<f64>, Vec<f64>, u64) {
    let shape = Shape { regions: 2, rate: row.rate, only_first: true, ..Shape::default() };
    let mut world = World::new(shape, seed);
    world.silence(1);
    world.faults.push(Fault::of(0, FAULT_MS, row.failing));
    let edges = world.shape.edges;
    let (mut near, mut far) = (vec![None; edges], vec![None; edges]);
    let mut bad = 0;
    world.run_until(LONGEST_MS, |world| {
        let after = world.now_ms.saturating_sub(FAULT_MS) as f64 / 1_000.0;
        if world.now_ms <= FAULT_MS {
            return false;
        }
        for (edge, seen) in near.iter_mut().enumerate().filter(|(_, seen)| seen.is_none()) {
            if world.moved(0, edge) && (world.is_ejected(0, edge, 0) || world.is_open(0, edge, 0)) {
                *seen = Some(after);
                bad += u64::from(world.regions[0].edges[edge].bad);
            }
        }
        for (edge, seen) in far.iter_mut().enumerate().filter(|(_, seen)| seen.is_none()) {
            if world.moved(1, edge) && world.told(1, edge, 0).is_some_and(|(_, success)| success < NOTICEABLE) {
                *seen = Some(after);
            }
        }
        near.iter().chain(&far).all(Option::is_some)
    });
    let sorted = |seen: Vec<Option<f64>>| {
        let mut seen: Vec<f64> = seen.into_iter().map(|seen| seen.unwrap_or(f64::INFINITY)).collect();
        seen.sort_by(f64::total_cmp);
        seen
    };
    const { assert!(STEP_MS < 100) };
    (sorted(near), sorted(far), bad)
}

/// With this share of successes an unused endpoint's weight is less than half of a healthy one's.
const NOTICEABLE: f64 = 0.75;
