//! The real log, state machine, messages and openraft in a world of one thread, virtual time and seeded chance.
//!
//! What is not real: the sockets (see [`transport`]), and the writer of the log, which is a task here instead of a thread. A seed gives the
//! same run every time.

mod clients;
mod failover;
mod faults;
mod invariants;
mod linearizable;
mod registers;
#[cfg(test)]
mod tests;
mod transport;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime as _;
use openraft::type_config::TypeConfigExt as _;
use openraft_rt_sim::SimRuntime;

use self::clients::History;
use self::faults::Membership;
use self::invariants::Invariants;
use self::registers::Operation;
use self::world::{World, instance, now};
use crate::timing::Timing;
use crate::types::{Applied, Command};

openraft::declare_raft_types!(
    /// The types of the simulator: those that are shipped, on another runtime.
    pub(crate) Sim:
        D = Command,
        R = Applied,
        Node = crate::member::Instance,
        AsyncRuntime = SimRuntime,
);

/// What is to happen in one run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    voters: u64,
    /// Virtual seconds of trouble.
    seconds: u64,
    clients: u64,
    /// Longest pause of a client between two operations, milliseconds.
    pause: u64,
    membership: Membership,
}

/// What a run has shown.
#[derive(Debug)]
struct Outcome {
    trace: Vec<String>,
    acknowledged: usize,
    /// Virtual time from the end of the trouble to the next commit.
    recovered_after: Duration,
}

/// A cluster that has a leader.
async fn founded(seed: u64, voters: u64) -> Arc<World> {
    founded_with(seed, voters, TIMING).await
}

/// The same, with other intervals.
async fn founded_with(seed: u64, voters: u64, timing: Timing) -> Arc<World> {
    let world = World::new(seed, timing);
    for node in 1..=voters {
        world.start(node).await;
    }
    let members: BTreeMap<u64, _> = (1..=voters).map(|node| (node, instance(node))).collect();
    world.raft(1).unwrap().initialize(members).await.unwrap();
    // A founder that is cut off before it has told the others is alone for ever.
    let everyone_knows = || world.nodes().into_iter().all(|node| world.metrics(node).is_some_and(|metrics| metrics.last_applied.is_some()));
    while world.leader().is_none() || !everyone_knows() {
        Sim::sleep(Duration::from_millis(50)).await;
    }
    world
}

/// Runs a plan with a seed, and says what did not hold.
fn run(seed: u64, plan: Plan) -> Result<Outcome, String> {
    SimRuntime::with_seed(seed).block_on(async {
        let world = founded(seed, plan.voters).await;
        let history = Arc::new(History::default());
        let until = now() + plan.seconds * 1_000_000;
        for number in 1..=plan.clients {
            drop(Sim::spawn(clients::client(Arc::clone(&world), Arc::clone(&history), number, until, plan.pause)));
        }
        drop(Sim::spawn(faults::trouble(Arc::clone(&world), until, plan.membership)));
        let mut invariants = Invariants::default();
        while now() < until {
            Sim::sleep(LOOK).await;
            invariants.check(&world)?;
        }
        let recovered_after = recover(&world, &mut invariants).await?;
        converge(&world, &mut invariants).await?;
        let acknowledged = history.acknowledged.lock().clone();
        if let Some((_, lost)) = acknowledged.iter().find(|(_, index)| !world.ledger.lock().has(*index)) {
            return Err(format!("index {lost} was acknowledged and never applied"));
        }
        for (key, events) in history.events.lock().iter() {
            if !linearizable::is_linearizable(events) {
                return Err(format!("the history of register {key} is not linearizable: {events:?}"));
            }
        }
        Ok(Outcome { trace: world.take_trace(), acknowledged: acknowledged.len(), recovered_after })
    })
}

/// Ends all trouble and waits for a leader and a commit, which must come soon.
async fn recover(world: &Arc<World>, invariants: &mut Invariants) -> Result<Duration, String> {
    world.heal();
    world.weather(20, 0);
    for node in world.down() {
        world.start(node).await;
    }
    let since = now();
    let limit = TIMING.election_max * 3 + Duration::from_secs(2);
    loop {
        let waited = Duration::from_micros(now() - since);
        if waited > limit {
            return Err(format!("no commit within {limit:?} after the trouble has ended; leader {:?}", world.leader()));
        }
        if let Some(raft) = world.leader().and_then(|leader| world.raft(leader)) {
            let command = Command::Application(Operation::Get.command(0));
            if let Ok(Ok(_)) = Sim::timeout(Duration::from_secs(1), raft.client_write(command)).await {
                return Ok(waited);
            }
        }
        Sim::sleep(Duration::from_millis(20)).await;
        invariants.check(world)?;
    }
}

/// Waits until all members are where the leader is, and compares their states.
async fn converge(world: &Arc<World>, invariants: &mut Invariants) -> Result<(), String> {
    let deadline = now() + 20_000_000;
    loop {
        Sim::sleep(LOOK).await;
        invariants.check(world)?;
        let Some(leader) = world.leader().and_then(|leader| world.metrics(leader)) else {
            continue;
        };
        let members: Vec<u64> = leader.membership_config.membership().nodes().map(|(id, _)| *id).collect();
        let applied = |id: u64| world.metrics(id).and_then(|metrics| metrics.last_applied);
        if leader.last_applied.is_some() && members.iter().all(|id| applied(*id) == leader.last_applied) {
            let mut states = Vec::new();
            world.each(|id, host| {
                if members.contains(&id) {
                    let registers = host.registers.lock();
                    states.push((registers.chain, registers.values.clone()));
                }
            });
            return if states.windows(2).all(|pair| pair[0] == pair[1]) {
                Ok(())
            } else {
                Err("members have applied the same log and have different states".to_owned())
            };
        }
        if now() > deadline {
            let mut text = "members have not caught up with the leader within 20 s".to_owned();
            world.each(|id, host| {
                let peek = host.log.peek();
                let index = |id: Option<crate::types::LogId>| id.map_or(0, |id| id.index);
                let (last, flushed) = (index(peek.entries.last().copied()), index(peek.flushed));
                text.push_str(&format!("; node {id}: last {last}, flushed {flushed}, applied {}", host.registers.lock().last));
            });
            let matched = leader.replication.unwrap_or_default();
            let matched: Vec<(u64, u64)> =
                matched.into_iter().map(|(id, matched)| (id, matched.map_or(0, |matched| matched.index))).collect();
            return Err(format!("{text}; leader {} has matched {matched:?}", leader.id));
        }
    }
}

/// As for regions of one continent.
const TIMING: Timing = Timing::CONTINENTAL;
/// Between two looks at the invariants.
const LOOK: Duration = Duration::from_millis(100);
