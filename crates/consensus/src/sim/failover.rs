//! What it costs writes to lose a leader, and to change it on purpose, with each timing profile at the distance it is made for.
//!
//! `TIDEGATE_SEEDS=4 cargo test -p tidegate-consensus costs_writes -- --nocapture` prints the table of `docs/control-plane.md`.

use super::*;
use crate::seeds;

/// A profile, and the round trip between any two nodes, milliseconds.
const PROFILES: [(&str, u64); 4] = [("local", 2), ("continental", 80), ("continental", 120), ("global", 200)];
const SEEDS: u64 = 3;

/// Three voters at this distance, with a leader that a quorum has followed for a while and that has committed something.
async fn settled(seed: u64, timing: Timing, round_trip: u64) -> Arc<World> {
    let world = founded_with(seed, 3, timing).await;
    world.distance(Duration::from_micros(round_trip * 500));
    // Somewhere between two heartbeats.
    let until = timing.election_max + world.draw(|random| timing.heartbeat.mul_f64(random.f64()));
    Sim::sleep(until).await;
    next_commit(&world).await;
    world
}

/// Tries at whoever leads until something is committed. Gives how long that took.
async fn next_commit(world: &Arc<World>) -> Duration {
    let since = now();
    // 2 ms with the quickest profile.
    let look = Duration::from_millis(world.config.heartbeat_interval) / 25;
    loop {
        if let Some(raft) = world.leader().and_then(|leader| world.raft(leader)) {
            let writing = raft.client_write(Command::Application(Operation::Get.command(0)));
            if let Ok(Ok(_)) = Sim::timeout(Duration::from_secs(1), writing).await {
                return Duration::from_micros(now() - since);
            }
        }
        Sim::sleep(look).await;
    }
}

fn lost(seed: u64, timing: Timing, round_trip: u64) -> Duration {
    SimRuntime::with_seed(seed).block_on(async {
        let world = settled(seed, timing, round_trip).await;
        world.crash(world.leader().unwrap());
        next_commit(&world).await
    })
}

fn handed_over(seed: u64, timing: Timing, round_trip: u64) -> Duration {
    SimRuntime::with_seed(seed).block_on(async {
        let world = settled(seed, timing, round_trip).await;
        let leader = world.leader().unwrap();
        let others: Vec<u64> = world.nodes().into_iter().filter(|node| *node != leader).collect();
        let to = others[world.draw(|random| random.usize(0..others.len()))];
        world.raft(leader).unwrap().trigger().transfer_leader(to).await.unwrap();
        let gap = next_commit(&world).await;
        assert_eq!(world.leader(), Some(to));
        gap
    })
}

/// The shortest, the median and the longest over all seeds.
fn spread(one: impl Fn(u64) -> Duration) -> [Duration; 3] {
    let first = seeds::number("TIDEGATE_FIRST_SEED").unwrap_or(0);
    let seeds = SEEDS * seeds::number("TIDEGATE_SEEDS").unwrap_or(1).max(1);
    let mut gaps: Vec<Duration> = (first..first + seeds).map(one).collect();
    gaps.sort_unstable();
    [gaps[0], gaps[gaps.len() / 2], gaps[gaps.len() - 1]]
}

#[test]
fn a_lost_leader_costs_writes_at_most_two_and_a_half_election_timeouts_and_a_planned_change_three_round_trips() {
    println!("| profile | round trip | leader lost: shortest, median, longest | planned: shortest, median, longest |");
    println!("|---|---|---|---|");
    for (name, round_trip) in PROFILES {
        let timing = Timing::named(name).unwrap();
        let lost = spread(|seed| lost(seed, timing, round_trip));
        let planned = spread(|seed| handed_over(seed, timing, round_trip));
        let seconds = |gaps: [Duration; 3]| gaps.map(|gap| format!("{:.2} s", gap.as_secs_f64())).join(", ");
        println!("| {name} | {round_trip} ms | {} | {} |", seconds(lost), seconds(planned));
        assert!(lost[2] < timing.election_max.mul_f64(2.5), "{name}: {lost:?}");
        // Flushes take up to 120 ms in this world, and there are four of them.
        let limit = Duration::from_millis(round_trip) * 3 + Duration::from_millis(480);
        assert!(planned[2] < limit, "{name}: {planned:?}");
    }
}
