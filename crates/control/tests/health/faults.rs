//! Provider faults under real plans: what callers notice, what is left out, and how gently an endpoint comes back.

use tidegate_routing::AttemptEnd;

use super::seeds::each_seed;
use super::world::{Fault, Shape, World};

const EDGES: usize = 6;

fn world(endpoints: usize, seed: u64) -> World {
    World::new(Shape { edges: EDGES, endpoints, rate: 4.0, ..Shape::default() }, seed)
}

/// Callers' errors over requests from one second to another.
fn failed(world: &World, from: u64, until: u64) -> f64 {
    let sum = world.callers.range(from..until).fold((0, 0), |sum, (_, tally)| (sum.0 + tally.0, sum.1 + tally.1));
    f64::from(sum.1) / f64::from(sum.0)
}

/// The first endpoint's share of first attempts.
fn share(world: &World, from: u64, until: u64) -> f64 {
    let (first, all) =
        world.firsts.range(from..until).fold((0, 0), |sum, (_, picks)| (sum.0 + picks[0], sum.1 + picks.iter().sum::<u32>()));
    f64::from(first) / f64::from(all)
}

fn everybody_is_back(world: &World) -> bool {
    (0..EDGES).all(|edge| !world.is_ejected(0, edge, 0) && !world.is_open(0, edge, 0))
}

#[test]
fn callers_hardly_notice_a_provider_fault() {
    each_seed("callers_hardly_notice_a_provider_fault", 2, |seed| {
        let kinds =
            [(1.0, AttemptEnd::Server(500)), (0.6, AttemptEnd::Server(502)), (1.0, AttemptEnd::Connect), (0.7, AttemptEnd::Overloaded)];
        for (probability, end) in kinds {
            let mut world = world(3, seed);
            world.faults.push(Fault { until_ms: 60_000, end, ..Fault::of(0, 10_000, probability) });
            world.run_until(60_000, |_| false);
            let ratio = failed(&world, 12, 60);
            assert!(ratio < 0.01, "{end:?}: {ratio} of requests failed after the first two seconds");
            let (retries, requests) = (
                world.retries.range(12..60).map(|(_, count)| count).sum::<u32>(),
                world.callers.range(12..60).map(|(_, of)| of.0).sum::<u32>(),
            );
            assert!(f64::from(retries) <= 0.2 * f64::from(requests), "{end:?}: {retries} retries of {requests} requests");
            assert!(world.left_out <= 0.5, "{end:?}: {} of the weight left out", world.left_out);
            // Probes by token, a wait, and a ramp.
            assert!(world.run_until(500_000, everybody_is_back), "{end:?}: still out at {} ms", world.now_ms);
        }
    });
}

/// Never more than half of a model's weight: with three of four dead, ejections are ignored rather than the last one overrun.
#[test]
fn never_more_than_half_of_the_weight_is_left_out() {
    each_seed("never_more_than_half_of_the_weight_is_left_out", 2, |seed| {
        for (dead, panics) in [(1, false), (2, false), (3, true)] {
            // So many edges that the region ejects before each of them has learned to go elsewhere.
            let mut world = World::new(Shape { edges: 20, endpoints: 4, rate: 4.0, ..Shape::default() }, seed);
            (0..dead).for_each(|endpoint| world.faults.push(Fault::of(endpoint, 5_000, 1.0)));
            world.run_until(20_000, |_| false);
            assert!(world.left_out <= 0.5, "{dead} dead: {} of the weight left out", world.left_out);
            assert_eq!(world.panics > 0, panics, "{dead} dead: {} choices ignored ejections", world.panics);
            assert!(world.left_out > 0.0, "{dead} dead: nothing was ever left out");
        }
    });
}

#[test]
fn a_slow_endpoint_loses_its_callers_without_being_ejected() {
    each_seed("a_slow_endpoint_loses_its_callers_without_being_ejected", 4, |seed| {
        let mut world = world(3, seed);
        world.faults.push(Fault { slower: 10, ..Fault::of(0, 40_000, 0.0) });
        let out = world.run_until(80_000, |world| (0..EDGES).any(|edge| world.is_ejected(0, edge, 0)));
        assert!(!out, "slow is not broken");
        let (before, after) = (share(&world, 20, 40), share(&world, 55, 80));
        // 6 edges of 4 requests/s for 25 s: one seed's share is a count of some eighty among six hundred.
        let noise = 3.0 * f64::sqrt(after / (EDGES as f64 * 4.0 * 25.0));
        assert!(before > 0.2 && after - noise < before / 2.0, "its share went from {before} to {after}");
        assert!(failed(&world, 0, 80) == 0.0);
    });
}

#[test]
fn bursts_of_429_eject_nobody_and_reach_no_caller() {
    each_seed("bursts_of_429_eject_nobody_and_reach_no_caller", 4, |seed| {
        let mut world = world(3, seed);
        world.faults.push(Fault { end: AttemptEnd::RateLimited, period_ms: Some(3_000), ..Fault::of(0, 5_000, 0.9) });
        let out = world.run_until(60_000, |world| (0..EDGES).any(|edge| world.is_ejected(0, edge, 0) || world.is_open(0, edge, 0)));
        assert!(!out, "a 429 is no failure of the endpoint: out at {} ms", world.now_ms);
        assert!(failed(&world, 5, 60) < 0.01, "{}", failed(&world, 5, 60));
    });
}

/// What breaks off after the first byte cannot be sent elsewhere, so that every one of them is a caller's error: few there must be.
#[test]
fn an_endpoint_that_cuts_answers_off_is_avoided_soon() {
    let (mut sum, mut count) = (0.0, 0.0);
    each_seed("an_endpoint_that_cuts_answers_off_is_avoided_soon", 4, |seed| {
        let mut world = world(3, seed);
        world.faults.push(Fault { end: AttemptEnd::Cut, ..Fault::of(0, 10_000, 1.0) });
        world.run_until(70_000, |_| false);
        let ratio = failed(&world, 12, 70);
        // A dozen of 1,400: one seed has its luck.
        assert!(ratio < 0.02, "{ratio} of requests failed after the first two seconds");
        (sum, count) = (sum + ratio, count + 1.0);
    });
    assert!(sum / count < 0.01, "{} of requests failed after the first two seconds", sum / count);
}

#[test]
fn a_flapping_endpoint_is_kept_out_for_longer_each_time() {
    each_seed("a_flapping_endpoint_is_kept_out_for_longer_each_time", 3, |seed| {
        let mut world = world(3, seed);
        world.faults.push(Fault { period_ms: Some(5_000), ..Fault::of(0, 10_000, 1.0) });
        world.run_until(130_000, |_| false);
        assert!(failed(&world, 12, 130) < 0.01, "{}", failed(&world, 12, 130));
        // It works half of the time: its fair share would be a third, and it never gets through a ramp.
        let got = share(&world, 20, 130);
        assert!(got < 0.12, "it still got {got} of the first attempts");
        assert!(world.left_out <= 0.5);
    });
}

/// It comes back little by little, and is not taken for well at the first request that works.
#[test]
fn an_endpoint_that_recovers_slowly_costs_callers_nothing() {
    each_seed("an_endpoint_that_recovers_slowly_costs_callers_nothing", 4, |seed| {
        let mut world = world(3, seed);
        for (from, until, probability) in [(10, 30, 1.0), (30, 45, 0.7), (45, 60, 0.4), (60, 75, 0.15)] {
            world.faults.push(Fault { until_ms: until * 1_000, ..Fault::of(0, from * 1_000, probability) });
        }
        world.run_until(75_000, |_| false);
        assert!(failed(&world, 12, 75) < 0.01, "{}", failed(&world, 12, 75));
        assert!(share(&world, 12, 60) < 0.1, "{} of the first attempts while most fail", share(&world, 12, 60));
        assert!(world.left_out <= 0.5);
        assert!(world.run_until(500_000, everybody_is_back), "still out at {} ms", world.now_ms);
    });
}

/// No herd: while it comes back, an endpoint gets at most 1.2 times what its ramp allows.
#[test]
fn an_endpoint_that_comes_back_gets_no_more_than_its_ramp() {
    // Requests at the endpoint and in all, by second since it was taken back; over all seeds, as one has too few.
    let mut sums = [(0_u32, 0_u32); 30];
    each_seed("an_endpoint_that_comes_back_gets_no_more_than_its_ramp", 6, |seed| {
        let mut world = World::new(Shape { edges: 20, endpoints: 3, rate: 4.0, ..Shape::default() }, seed);
        world.faults.push(Fault { until_ms: 18_000, ..Fault::of(0, 10_000, 1.0) });
        assert!(world.run_until(18_000, |world| world.is_ejected(0, 0, 0)), "it was never out");
        assert!(world.run_until(100_000, |world| !world.is_ejected(0, 0, 0)), "it never came back");
        let back = world.now_ms / 1_000 + 1;
        world.run_until((back + 30) * 1_000, |_| false);
        for (second, sum) in sums.iter_mut().enumerate() {
            let picks = &world.firsts[&(back + second as u64)];
            *sum = (sum.0 + picks[0], sum.1 + picks.iter().sum::<u32>());
        }
    });
    for (number, five) in sums.chunks(5).enumerate() {
        let (at, all) = five.iter().fold((0.0, 0.0), |sum, one| (sum.0 + f64::from(one.0), sum.1 + f64::from(one.1)));
        // At the end of these five seconds, for an edge that began at once. Beside it the others weigh one each.
        let ramp = ((number as f64 + 1.0) * 5.0 / 30.0).clamp(0.1, 1.0);
        let allowed = 1.2 * all * ramp / (ramp + 2.0);
        let noise = 3.0 * f64::sqrt(allowed);
        println!("{} s: {at} of {all}, allowed {allowed:.0}", number * 5);
        assert!(at <= allowed + noise, "{at} of {all} requests in second {} since it is back", number * 5);
    }
}
