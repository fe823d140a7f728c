//! What the region's word does to choices on one edge.

use std::time::Duration;

use super::*;
use crate::testing::{World, endpoint};
use crate::{Next, Settings};

fn says(world: &World, name: &str, verdict: RegionVerdict) {
    let region = RegionEvidence { verdict, success: if verdict.is_out() { 0.0 } else { 1.0 }, confidence: 1.0 };
    world.health.set_remote(world.index(name), combine(region, None, world.now));
}

fn pair() -> World {
    let settings = Settings { exploration_share: 0.0, ..Settings::default() };
    World::with_settings(vec![endpoint("a", 1_000_000), endpoint("b", 1_000_000)], settings)
}

#[test]
fn an_ejected_endpoint_is_tried_only_with_the_regions_token() {
    let world = pair();
    says(&world, "a", RegionVerdict::Ejected);
    assert_eq!(world.share("a", 200, |_| ()), 0.0);
    world.health.grant_probe(world.index("a"), world.now + Duration::from_secs(10));
    let mut plan = world.plan(world.intent(1));
    let probe = world.attempt(&mut plan);
    assert!(probe.probe && world.name(probe.endpoint) == "a");
    assert_eq!(world.share("a", 200, |_| ()), 0.0, "one request at a time");
    world.end(&mut plan, &probe, AttemptEnd::Success);
    let told = world.health.take_increment(probe.endpoint).unwrap();
    assert_eq!((told.ok, told.probe_ok, told.probe_failed), (1, 1, 0));
    assert_eq!(world.health.endpoint_view(probe.endpoint, world.now).breaker, BreakerState::Closed);
}

#[test]
fn a_token_that_ran_out_or_was_lost_blocks_nobody() {
    let mut world = pair();
    says(&world, "a", RegionVerdict::Ejected);
    world.health.grant_probe(world.index("a"), world.now + Duration::from_secs(10));
    let mut plan = world.plan(world.intent(1));
    assert!(world.attempt(&mut plan).probe);
    drop(plan);
    let mut plan = world.plan(world.intent(2));
    assert!(world.attempt(&mut plan).probe, "a request that vanished gave it back");
    drop(plan);
    world.pass(Duration::from_secs(11));
    says(&world, "a", RegionVerdict::Ejected);
    assert_eq!(world.share("a", 200, |_| ()), 0.0);
}

#[test]
fn a_degraded_endpoint_weighs_a_quarter() {
    let mut world = pair();
    for name in ["a", "b"] {
        world.observe(name, AttemptEnd::Success, 30);
    }
    world.pass(Duration::from_secs(31));
    says(&world, "a", RegionVerdict::Degraded);
    says(&world, "b", RegionVerdict::Healthy);
    let mut plan = world.plan(world.intent(1));
    let Next::Attempt(attempt) = world.next(&mut plan) else { panic!("two endpoints are there") };
    world.end(&mut plan, &attempt, AttemptEnd::Success);
    let considered = &plan.decision().considered;
    let weight = |name| considered.iter().find(|one| one.endpoint == world.index(name)).unwrap().weight;
    let ratio = weight("a") / weight("b");
    assert!((ratio - 0.25).abs() < 0.02, "{ratio}");
    assert!(plan.decision().render(&world.snapshot).contains("degraded by others"));
}

#[test]
fn a_pinned_endpoint_stays_whatever_health_says() {
    let mut pinned = endpoint("a", 1_000_000);
    pinned.pinned = true;
    let world = World::new(vec![pinned, endpoint("b", 1_000_000)]);
    says(&world, "a", RegionVerdict::Ejected);
    world.observe("a", AttemptEnd::Server(500), 6);
    let mut plan = world.plan(world.intent(1));
    world.attempt(&mut plan);
    let entry = plan.decision().considered.iter().find(|one| one.endpoint == world.index("a")).unwrap();
    assert_eq!((entry.gate, entry.degraded), (crate::explain::Gate::Open, false));
}

#[test]
fn what_the_region_takes_back_ramps_up_from_its_own_moment() {
    let mut world = pair();
    world.observe("a", AttemptEnd::Server(500), 5);
    says(&world, "a", RegionVerdict::Ejected);
    world.pass(Duration::from_secs(12));
    says(&world, "a", RegionVerdict::Healthy);
    world.health.taken_back(world.index("a"), world.now + Duration::from_secs(4), world.now);
    let view = |world: &World| world.health.endpoint_view(world.index("a"), world.now);
    assert_eq!(view(&world).breaker, BreakerState::Closed);
    world.pass(Duration::from_secs(4));
    assert!((view(&world).ramp - 0.1).abs() < 1e-9, "the ramp has only begun");
    world.pass(Duration::from_secs(15));
    assert!((view(&world).ramp - 0.5).abs() < 1e-9);
}

#[test]
fn other_regions_never_eject_and_count_only_without_an_own_view() {
    let others = Elsewhere { degraded: true, success: 0.1, confidence: 0.8, regions: 2, against: 2 };
    let own = RegionEvidence { verdict: RegionVerdict::Healthy, success: 1.0, confidence: 1.0 };
    let both = combine(own, Some(others), Timestamp(5));
    assert_eq!((both.verdict, both.success, both.confidence), (RemoteVerdict::Degraded, 1.0, 1.0));
    let alone = combine(RegionEvidence::default(), Some(others), Timestamp(5));
    assert_eq!((alone.verdict, alone.success, alone.confidence), (RemoteVerdict::Degraded, 0.1, 0.8));
    let out = combine(RegionEvidence { verdict: RegionVerdict::Probing, success: 0.0, confidence: 0.0 }, None, Timestamp(5));
    assert!(out.is_ejected(&Settings::default(), Timestamp(5)), "without samples the verdict still holds");
}

#[test]
fn disagreement_is_the_distance_of_the_ratios() {
    let world = pair();
    world.observe("a", AttemptEnd::Success, 10);
    let view = |world: &World| world.health.endpoint_view(world.index("a"), world.now).disagreement;
    assert_eq!(view(&world), None);
    says(&world, "a", RegionVerdict::Ejected);
    assert_eq!(view(&world), Some(1.0));
}
