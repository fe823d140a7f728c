//! Keys that are revoked while some edges are cut off.

use std::time::Duration;

use tidegate_edge::simulation::Decision;
use tidegate_proto::v1::{CreateKey, RevokeKeys, command};
use tidegate_testkit::control::key_of;

use crate::seeds;
use crate::world::{World, node_name};

const NODES: usize = 3;
const EDGES: usize = 4;
/// The last edge is cut off.
const CUT_OFF: usize = EDGES - 1;
const KEYS: usize = 12;
/// Short, so that its end can be seen.
const GRACE: Duration = Duration::from_secs(300);

fn text(key: usize) -> String {
    format!("text-of-key-{key}")
}

/// Milliseconds from each revocation to each connected edge's refusal, in virtual time.
async fn partitioned(seed: u64) -> Vec<u64> {
    let mut world = World::new(seed, NODES, EDGES);
    world.edges[CUT_OFF].key_grace = Some(GRACE);
    for key in 0..KEYS {
        let key = key_of(&format!("k{key}"), &text(key), "");
        world.agree(command::Body::CreateKey(CreateKey { key: Some(key), ..CreateKey::default() }));
    }
    world.apply_all();
    for edge in 0..EDGES {
        world.start(edge);
        world.until(edge, Duration::from_secs(60), "is not ready", |edge| edge.is_ready()).await;
    }
    let cut_off = world.edges[CUT_OFF].name.clone();
    for node in 0..NODES {
        world.network.cut(&node_name(node), &cut_off);
    }
    let (mut lags, began) = (Vec::new(), world.clock.micros());
    for key in 0..KEYS {
        let pause = world.rng.u64(..4_000);
        world.pass(Duration::from_millis(pause)).await;
        world.agree(command::Body::RevokeKeys(RevokeKeys { public_ids: vec![format!("k{key}")], kill_streams: false }));
        // The entry reaches the nodes one after the other, as it does across continents.
        let agreed = world.clock.micros();
        let mut missing: Vec<usize> = (0..CUT_OFF).collect();
        for node in 0..NODES {
            let way = world.rng.u64(5..150);
            world.pass(Duration::from_millis(way)).await;
            world.apply(node, 0);
        }
        while !missing.is_empty() {
            let mut still = Vec::new();
            for edge in missing {
                if world.decide(edge, &text(key)).await == Decision::Served {
                    still.push(edge);
                } else {
                    lags.push((world.clock.micros() - agreed) / 1_000);
                }
            }
            missing = still;
            assert!(world.clock.micros() - agreed < 15_000_000, "{missing:?} still serve it");
            world.pass(Duration::from_millis(5)).await;
        }
        // It cannot know, and every key it knows was valid when it was last told.
        assert_eq!(world.decide(CUT_OFF, &text(key)).await, Decision::Served);
    }
    let spent = Duration::from_micros(world.clock.micros() - began);
    world.pass((GRACE + Duration::from_secs(5)).saturating_sub(spent)).await;
    for key in 0..KEYS {
        assert_eq!(world.decide(CUT_OFF, &text(key)).await, Decision::Undecided, "its grace is over");
    }
    for node in 0..NODES {
        world.network.heal(&node_name(node), &cut_off);
    }
    world.settle().await;
    for key in 0..KEYS {
        assert_ne!(world.decide(CUT_OFF, &text(key)).await, Decision::Served);
    }
    lags
}

#[test]
fn a_revoked_key_is_refused_within_a_second_where_anybody_can_say_so_and_within_its_grace_elsewhere() {
    let lags = parking_lot::Mutex::new(Vec::new());
    let all = &lags;
    seeds::run("a_revoked_key", 50, |seed| async move {
        let mut found = partitioned(seed).await;
        all.lock().append(&mut found);
    });
    let mut lags = lags.into_inner();
    lags.sort_unstable();
    let p99 = lags[lags.len() * 99 / 100];
    assert!(p99 <= 1_000, "p99 is {p99} ms of {} revocations, the longest {:?}", lags.len(), lags.last());
}
