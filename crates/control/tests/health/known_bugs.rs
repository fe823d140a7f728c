//! Bugs put back on purpose: each is caught by what the real code passes, so those checks are worth something.

use tidegate_control::fleet::KnownBug;

use super::seeds::each_seed;
use super::world::{Fault, Lie, Shape, World};

/// What `faulty_reporters_of_less_than_a_third_never_eject_a_healthy_endpoint` checks, once.
fn one_liar_ejects(bug: Option<KnownBug>, seed: u64) -> bool {
    let mut world = World::new(Shape { edges: 7, endpoints: 3, ..Shape::default() }, seed);
    bug.into_iter().for_each(|bug| world.regions[0].fleet.reintroduce(bug));
    world.regions[0].edges[0].lie = Some(Lie::Flood);
    world.run_until(20_000, |world| (0..3).any(|endpoint| world.is_ejected(0, 6, endpoint)))
}

/// What `detection_times_are_those_of_the_design` checks, roughly: a dead endpoint is out soon.
fn a_dead_endpoint_is_out(bug: Option<KnownBug>, seed: u64) -> bool {
    let mut world = World::new(Shape { edges: 12, rate: 2.0, only_first: true, ..Shape::default() }, seed);
    bug.into_iter().for_each(|bug| world.regions[0].fleet.reintroduce(bug));
    world.faults.push(Fault::of(0, 5_000, 1.0));
    world.run_until(15_000, |world| world.is_ejected(0, 11, 0))
}

#[test]
fn verdict_by_a_single_edge_is_caught() {
    each_seed("verdict_by_a_single_edge_is_caught", 5, |seed| {
        assert!(!one_liar_ejects(None, seed));
        assert!(one_liar_ejects(Some(KnownBug::VerdictBySingleEdge), seed), "the bug went unnoticed");
    });
}

#[test]
fn health_by_last_writer_is_caught() {
    each_seed("health_by_last_writer_is_caught", 5, |seed| {
        assert!(a_dead_endpoint_is_out(None, seed));
        assert!(!a_dead_endpoint_is_out(Some(KnownBug::HealthByLastWriter), seed), "the bug went unnoticed");
    });
}
