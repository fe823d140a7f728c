//! An hour without any control node, and edges that restart meanwhile.

use std::time::Duration;

use tidegate_edge::simulation::Decision;
use tidegate_proto::v1::{CreateKey, RevokeKeys, command};
use tidegate_testkit::KEY;
use tidegate_testkit::control::key_of;

use crate::seeds;
use crate::world::World;

const NODES: usize = 3;
const EDGES: usize = 2;
const KEYS: usize = 50;
const MINUTES: u64 = 60;

fn text(key: usize) -> String {
    format!("text-of-key-{key}")
}

async fn hour(seed: u64) {
    let mut world = World::new(seed, NODES, EDGES);
    for key in 0..KEYS {
        let key = key_of(&format!("k{key}"), &text(key), "");
        world.agree(command::Body::CreateKey(CreateKey { key: Some(key), ..CreateKey::default() }));
    }
    world.agree(command::Body::RevokeKeys(RevokeKeys { public_ids: vec!["k0".to_owned()], kill_streams: false }));
    world.apply_all();
    for edge in 0..EDGES {
        world.start(edge);
        world.until(edge, Duration::from_secs(60), "is not ready", |edge| edge.is_ready()).await;
    }
    // What is proven is kept within ten seconds of the last time something was.
    world.pass(Duration::from_secs(30)).await;
    for node in 0..NODES {
        world.nodes[node].kill().await;
    }
    for minute in 0..MINUTES {
        for edge in 0..EDGES {
            if world.rng.u32(..8) == 0 {
                let in_order = world.rng.bool();
                world.end(edge, in_order).await;
                world.start(edge);
                // Nothing is waited for: it serves from its first moment.
                assert!(world.look(edge, |edge| edge.is_ready()).await, "e{edge} in minute {minute}");
            }
            all_is_as_before(&mut world, edge, &format!("minute {minute}")).await;
            let unknown = world.decide(edge, "a-key-that-nobody-made").await;
            let sure = minute == 0 && unknown == Decision::Unknown;
            assert!(sure || unknown == Decision::Undecided, "e{edge} in minute {minute}: {unknown:?}");
        }
        world.pass(Duration::from_secs(60)).await;
    }
    for node in 0..NODES {
        world.nodes[node].revive();
    }
    world.agree(command::Body::RevokeKeys(RevokeKeys { public_ids: vec!["k1".to_owned()], kill_streams: false }));
    world.settle().await;
    for edge in 0..EDGES {
        assert_eq!(world.decide(edge, "a-key-that-nobody-made").await, Decision::Unknown, "e{edge}");
        assert_eq!(world.decide(edge, &text(1)).await, Decision::Unknown, "e{edge}");
    }
}

/// Every key that was valid is served, and the one that was revoked is not.
async fn all_is_as_before(world: &mut World, edge: usize, when: &str) {
    let told = world
        .look(edge, |edge| {
            let known: Vec<Decision> = (1..KEYS).map(|key| edge.decide(&text(key), "m")).collect();
            (known, edge.decide(KEY, "m"), edge.decide(&text(0), "m"))
        })
        .await;
    assert!(told.0.iter().all(|decision| *decision == Decision::Served), "e{edge} in {when}: {:?}", told.0);
    assert_eq!(told.1, Decision::Served, "e{edge} in {when}");
    assert_ne!(told.2, Decision::Served, "e{edge} in {when}");
}

#[test]
fn an_hour_without_control_nodes_costs_no_request() {
    seeds::run("an_hour_without", 20, hour);
}
