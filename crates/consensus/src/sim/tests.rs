//! The runs, and how many of them.

use std::time::Instant;

use openraft::async_runtime::WatchReceiver as _;

use super::*;
use crate::seeds;

/// 60 virtual seconds take about three of a core without optimisation and 0.4 with a little of it (`opt-level = 1` for this crate), which
/// however takes two more minutes to compile. So a usual run has few, and the nightly one is for many.
const TROUBLE: u64 = 20;
const HISTORIES: u64 = 8;
const SAME: u64 = 20;
const REJOINS: u64 = 5;
const PARTIAL: u64 = 8;

/// Three, five or seven voters, by the seed.
fn voters(seed: u64) -> u64 {
    [3, 5, 3, 7][(seed % 4) as usize]
}

fn plan(seed: u64) -> Plan {
    Plan { voters: voters(seed), seconds: 60, clients: 2, pause: 800, membership: Membership::Churns }
}

#[test]
fn any_trouble_leaves_the_log_and_the_state_right() {
    let started = Instant::now();
    let runs = seeds::run("TIDEGATE_SIM_SEEDS", TROUBLE, "any_trouble_leaves_the_log_and_the_state_right", |seed| {
        let outcome = run(seed, plan(seed))?;
        println!("seed {seed}: {} writes, a commit {:?} after the trouble", outcome.acknowledged, outcome.recovered_after);
        if outcome.acknowledged == 0 { Err("nothing was ever committed: the run shows nothing".to_owned()) } else { Ok(()) }
    });
    println!("{runs} runs of 60 virtual seconds in {:?}", started.elapsed());
}

#[test]
fn histories_of_clients_are_linearizable_under_any_trouble() {
    seeds::run("TIDEGATE_HISTORY_SEEDS", HISTORIES, "histories_of_clients_are_linearizable_under_any_trouble", |seed| {
        run(seed, Plan { seconds: 30, clients: 8, pause: 300, membership: Membership::Stays, ..plan(seed) }).map(drop)
    });
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    seeds::run("TIDEGATE_SAME_SEEDS", SAME, "a_seed_gives_the_same_run_every_time", |seed| {
        let plan = Plan { seconds: 5, ..plan(seed) };
        let (first, second) = (run(seed, plan)?.trace, run(seed, plan)?.trace);
        match first.iter().zip(&second).find(|(a, b)| a != b) {
            _ if first == second && !first.is_empty() => Ok(()),
            Some((a, b)) => Err(format!("`{a}` became `{b}`")),
            None => Err(format!("{} events became {}", first.len(), second.len())),
        }
    });
}

/// Commits at the leader, one after the other, as long as it lasts. Gives the longest time between two.
async fn longest_gap(world: &Arc<World>, until: u64) -> Duration {
    let (mut last, mut longest) = (now(), 0);
    while now() < until {
        for node in world.up() {
            let Some(raft) = world.raft(node).filter(|raft| raft.is_leader()) else {
                continue;
            };
            let command = Command::Application(Operation::Get.command(0));
            if let Ok(Ok(_)) = Sim::timeout(Duration::from_millis(500), raft.client_write(command)).await {
                longest = longest.max(now() - last);
                last = now();
            }
        }
        Sim::sleep(Duration::from_millis(100)).await;
    }
    Duration::from_micros(longest.max(now() - last))
}

/// A voter that was cut off has campaigned all the while. When it is back it must not unseat a leader that all others hear.
fn rejoin(seed: u64) -> Result<(), String> {
    SimRuntime::with_seed(seed).block_on(async {
        let world = founded(seed, 5).await;
        world.weather(40, 0);
        let leader = world.leader().unwrap();
        let lonely = world.nodes().into_iter().find(|node| *node != leader).unwrap();
        world.cut(world.nodes().into_iter().flat_map(|node| [(node, lonely), (lonely, node)]));
        longest_gap(&world, now() + 12_000_000).await;
        world.heal();
        let gap = longest_gap(&world, now() + 8_000_000).await;
        if gap < Duration::from_secs(1) { Ok(()) } else { Err(format!("no commit for {gap:?} after a voter has come back")) }
    })
}

#[test]
fn a_voter_that_comes_back_does_not_stall_the_others() {
    seeds::run("TIDEGATE_REJOIN_SEEDS", REJOINS, "a_voter_that_comes_back_does_not_stall_the_others", rejoin);
}

/// Networks that are broken in part: as long as some majority hears one another there must be commits.
fn partial(seed: u64) -> Result<(), String> {
    SimRuntime::with_seed(seed).block_on(async {
        let world = founded(seed, 5).await;
        world.weather(40, 0);
        let leader = world.leader().unwrap();
        let others: Vec<u64> = world.nodes().into_iter().filter(|node| *node != leader).collect();
        let (bridge, rest) = others.split_first().unwrap();
        let both = |a: u64, b: u64| [(a, b), (b, a)];
        match seed % 4 {
            // The leader hears one voter only, which hears the others but one.
            0 => {
                world.cut(rest.iter().flat_map(|node| both(leader, *node)));
                let last = rest[rest.len() - 1];
                world.cut(world.nodes().into_iter().flat_map(|node| both(node, last)));
            }
            // The leader is heard by nobody, and hears all.
            1 => world.cut(others.iter().map(|node| (leader, *node))),
            // A chain through the middle, in which some three hear one another.
            2 => {
                world.cut(both(leader, rest[0]));
                world.cut(both(leader, rest[1]));
                world.cut(both(*bridge, rest[1]));
            }
            // Two at the edge hear only the leader.
            _ => {
                world.cut([bridge, &rest[0]].into_iter().flat_map(|node| others.iter().flat_map(move |other| both(*node, *other))));
                world.cut(both(*bridge, rest[0]));
            }
        }
        let limit = TIMING.election_max * 4 + TIMING.quorum_loss_probe;
        let gap = longest_gap(&world, now() + 25_000_000).await;
        if gap < limit {
            return Ok(());
        }
        let nodes: Vec<String> =
            world.nodes().into_iter().filter_map(|node| world.metrics(node)).map(|metrics| metrics.to_string()).collect();
        Err(format!("no commit for {gap:?}, {limit:?} are allowed: {}", nodes.join("\n")))
    })
}

#[test]
fn a_network_broken_in_part_does_not_stop_a_majority_that_is_whole() {
    seeds::run("TIDEGATE_PARTIAL_SEEDS", PARTIAL, "a_network_broken_in_part_does_not_stop_a_majority_that_is_whole", partial);
}

/// A planned change of the leader.
#[test]
fn a_planned_change_of_the_leader_costs_less_than_an_election() {
    SimRuntime::with_seed(5).block_on(async {
        let world = founded(5, 3).await;
        world.weather(40, 0);
        let leader = world.leader().unwrap();
        let raft = world.raft(leader).unwrap();
        let to = world.nodes().into_iter().find(|node| *node != leader).unwrap();
        raft.trigger().transfer_leader(to).await.unwrap();
        let gap = longest_gap(&world, now() + 5_000_000).await;
        assert!(gap < Duration::from_secs(1), "{gap:?}");
        assert_eq!(raft.metrics().borrow_watched().current_leader, Some(to));
    });
}

#[cfg(feature = "known-bugs")]
mod known_bugs {
    use super::*;
    use crate::known_bugs::{Bug, make};

    fn is_noticed(bug: Bug, seeds: std::ops::Range<u64>) -> bool {
        let _made = make(bug);
        seeds.into_iter().any(|seed| {
            let outcome = run(seed, Plan { voters: 5, membership: Membership::Stays, ..plan(seed) });
            // A violation that is named, not any panic.
            outcome.inspect_err(|violation| println!("{bug:?}, seed {seed}: {violation}")).is_err()
        })
    }

    #[test]
    fn a_wrong_quorum_is_noticed() {
        assert!(is_noticed(Bug::WrongQuorum, 0..10));
    }

    #[test]
    fn applying_twice_is_noticed() {
        assert!(is_noticed(Bug::DoubleApply, 0..3));
    }
}
