//! Configurations that harm: one edge meets them, refuses them aloud, and nobody else ever does.

use std::time::Duration;

use tidegate_control::leader::{EdgeView, Step, step};
use tidegate_edge::simulation::Decision;
use tidegate_proto::Kind;
use tidegate_proto::v1::{Change, EdgeStatus, Resource, RolloutStage, command};
use tidegate_testkit::KEY;
use tidegate_testkit::control::{Body, id, resource};
use tidegate_testkit::poison::POISONS;

use crate::seeds;
use crate::world::World;

const EDGES: usize = 4;
/// How long a stage bakes; the leader looks once a second.
const BAKE: Duration = Duration::from_secs(3);
/// A refusal is there at once, and the way back takes two of the leader's looks.
const PATIENCE: u64 = 20;

/// The edges as the leader sees them, over all nodes.
fn statuses(world: &World) -> Vec<EdgeStatus> {
    let now_ms = world.clock.unix_millis();
    world.nodes.iter().flat_map(|node| node.followers().statuses(now_ms)).collect()
}

/// One look of the leader.
fn lead(world: &mut World) {
    let Some(rollout) = world.newest.rollouts().running().cloned() else { return };
    let edges: Vec<EdgeView> = statuses(world).iter().map(EdgeView::from).collect();
    if let Step::Do(body, _) = step(&rollout, &edges, world.clock.unix_millis(), BAKE) {
        world.agree(body);
    }
    world.apply_all();
}

async fn begun() -> World {
    let mut world = World::new(1, 2, EDGES);
    for edge in 0..EDGES {
        world.start(edge);
        world.until(edge, Duration::from_secs(60), "is not ready", |edge| edge.is_ready()).await;
    }
    world
}

/// Declares something in stages and lets the leader work until the rollout has ended. The edges that refused on the way, and why.
async fn roll_out(world: &mut World, upserts: Vec<Resource>) -> (RolloutStage, Vec<(String, String, String)>) {
    let revision = world.agree(command::Body::Change(Change { upserts, ..Change::default() }));
    world.apply_all();
    let mut refused = Vec::new();
    for _ in 0..PATIENCE {
        lead(world);
        world.pass(Duration::from_secs(1)).await;
        for status in statuses(world) {
            if let Some(nack) = status.refused
                && !refused.iter().any(|(edge, _, _)| *edge == status.edge)
            {
                refused.push((status.edge, nack.stage, nack.reason));
            }
        }
        for edge in 0..EDGES {
            assert_eq!(world.decide(edge, KEY).await, Decision::Served, "e{edge} with what was good");
        }
        let ended = world.newest.rollouts().iter().find(|rollout| rollout.revision == revision).map(|rollout| rollout.stage());
        if let Some(stage @ (RolloutStage::Reverted | RolloutStage::Done)) = ended {
            return (stage, refused);
        }
    }
    panic!("the rollout of {revision} does not end: {:?}", world.newest.rollouts().running());
}

async fn everyone_is_well(world: &mut World, what: &str) {
    world.pass(Duration::from_secs(5)).await;
    let newest = world.log.len() as u64;
    for status in statuses(world) {
        assert!(status.refused.is_none(), "{what}: {status:?}");
        assert_eq!(status.applied, newest, "{what}: {} routes by what is agreed", status.edge);
    }
}

fn endpoint(body: &Body) -> Vec<Resource> {
    vec![resource(Kind::Endpoint, "a/m", body)]
}

async fn every_poison() {
    let mut world = begun().await;
    let mut taken = Vec::new();
    for (name, _) in POISONS {
        let poison = Body { poison: Some((*name).to_owned()), ..Body::default() };
        let (stage, refused) = roll_out(&mut world, endpoint(&poison)).await;
        if stage != RolloutStage::Reverted {
            taken.push(*name);
            roll_out(&mut world, endpoint(&Body::default())).await;
            continue;
        }
        assert_eq!(refused.len(), 1, "{name}: only the first edge met it: {refused:?}");
        assert!(!refused[0].2.is_empty(), "{name}: a refusal says why");
        everyone_is_well(&mut world, name).await;
    }
    assert!(taken.is_empty(), "these were taken: {taken:#?}");
    // And after all of that a harmless one reaches everybody.
    let drained = Body { drained: true, ..Body::default() };
    let (stage, refused) = roll_out(&mut world, endpoint(&drained)).await;
    assert_eq!((stage, refused), (RolloutStage::Done, Vec::new()));
    everyone_is_well(&mut world, "the last").await;
}

/// What is wrong by its size alone.
async fn too_much() {
    let mut world = begun().await;
    let many: Vec<Resource> =
        (0..20_000).map(|number| Resource { id: Some(id(Kind::Model, &format!("m{number}"))), body: "{}".into(), revision: 0 }).collect();
    let (stage, refused) = roll_out(&mut world, many).await;
    assert_eq!((stage, refused.len()), (RolloutStage::Reverted, 1), "{refused:?}");
    assert_eq!(refused[0].1, "limits", "{refused:?}");
    everyone_is_well(&mut world, "a list that doubled").await;
}

#[test]
fn a_configuration_that_harms_is_met_by_one_edge_and_taken_back() {
    seeds::once(1, |_| every_poison());
}

/// A process that is killed before anything has proven itself leaves the same traces as one that its first configuration killed.
async fn killed_early() {
    let mut world = World::new(1, 1, 1);
    for _ in 0..3 {
        world.start(0);
        world.until(0, Duration::from_secs(60), "is not ready", |edge| edge.is_ready()).await;
        assert_eq!(world.decide(0, KEY).await, Decision::Served);
        world.end(0, false).await;
    }
}

#[test]
fn a_new_edge_that_was_killed_at_its_start_tries_again() {
    seeds::once(1, |_| killed_early());
}

#[test]
fn so_is_one_that_is_only_too_much() {
    seeds::once(1, |_| too_much());
}
