//! What goes wrong, at random.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::type_config::TypeConfigExt as _;

use super::Sim;
use super::world::{World, instance, now};

/// Makes trouble until the virtual time is over.
pub(super) async fn trouble(world: Arc<World>, until: u64, membership: Membership) {
    let mut random = world.draw(fastrand::Rng::fork);
    while now() < until {
        Sim::sleep(Duration::from_millis(random.u64(200..3_000))).await;
        let nodes = world.nodes();
        let pick = |random: &mut fastrand::Rng| nodes[random.usize(0..nodes.len())];
        match random.u8(0..16) {
            0 => {
                let side: BTreeSet<u64> = nodes.iter().copied().filter(|_| random.bool()).collect();
                world.trace(format!("partition {side:?}"));
                world.cut(pairs(&nodes).filter(|(a, b)| side.contains(a) != side.contains(b)));
            }
            1 => {
                let node = pick(&mut random);
                world.trace(format!("isolate {node}"));
                world.cut(pairs(&nodes).filter(|(a, b)| *a == node || *b == node));
            }
            2 => {
                let node = pick(&mut random);
                world.trace(format!("one way only: {node} hears nobody"));
                world.cut(pairs(&nodes).filter(|(_, to)| *to == node));
            }
            3 => {
                let ways: Vec<(u64, u64)> = pairs(&nodes).filter(|_| random.u8(0..4) == 0).collect();
                world.trace(format!("cut {ways:?}"));
                world.cut(ways);
            }
            4..7 => {
                world.trace("heal".to_owned());
                world.heal();
            }
            7 => {
                let (delay, loss) = ([2, 20, 80, 400][random.usize(0..4)], random.u32(0..100));
                world.trace(format!("delay up to {delay} ms, loss {loss} in a thousand"));
                world.weather(delay, loss);
            }
            8 => world.weather(20, 0),
            9 => world.crash(pick(&mut random)),
            10 => {
                // All at once: what is not on disk is nowhere.
                if random.u8(0..4) == 0 {
                    nodes.iter().for_each(|node| world.crash(*node));
                }
            }
            11 | 12 => {
                for node in world.down() {
                    world.start(node).await;
                }
            }
            13 => {
                if let Some(raft) = world.raft(pick(&mut random)) {
                    let _ = raft.trigger().snapshot().await;
                }
            }
            14 => {
                if let Some(raft) = world.leader().and_then(|leader| world.raft(leader)) {
                    let to = pick(&mut random);
                    world.trace(format!("transfer to {to}"));
                    let _ = raft.trigger().transfer_leader(to).await;
                }
            }
            _ => {
                if membership == Membership::Churns {
                    churn(&world, &mut random).await;
                }
            }
        }
    }
}

/// Whether nodes come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    Stays,
    Churns,
}

/// A voter more or a voter less, as the reconciler does it.
async fn churn(world: &Arc<World>, random: &mut fastrand::Rng) {
    let Some(metrics) = world.leader().and_then(|leader| world.metrics(leader)) else {
        return;
    };
    let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
    let learners: Vec<u64> = metrics.membership_config.membership().learner_ids().collect();
    let change = if let Some(learner) = learners.first().filter(|_| random.bool()) {
        ChangeMembers::AddVoterIds(BTreeSet::from([*learner]))
    } else if voters.len() > 3 && random.bool() {
        let gone = voters[random.usize(0..voters.len())];
        ChangeMembers::RemoveVoters(BTreeSet::from([gone]))
    } else {
        // Numbers are never given twice.
        let next = world.nodes().last().map_or(1, |last| last + 1);
        if next > MOST {
            return;
        }
        world.start(next).await;
        ChangeMembers::AddNodes(BTreeMap::from([(next, instance(next))]))
    };
    world.trace(format!("change {change:?}").replace('\n', " "));
    let retain = matches!(change, ChangeMembers::AddNodes(_) | ChangeMembers::AddVoterIds(_));
    if let Some(raft) = world.raft(metrics.id) {
        // Given up after a while: it goes on in openraft, or is lost with the leader.
        drop(Sim::spawn(async move {
            let _ = Sim::timeout(Duration::from_secs(10), raft.change_membership(change, retain)).await;
        }));
    }
}

fn pairs(nodes: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    nodes.iter().flat_map(move |a| nodes.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b)
}

const MOST: u64 = 12;
