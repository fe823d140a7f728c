//! Those who use the registers, and what they remember of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::TypeConfigExt as _;
use parking_lot::Mutex;

use super::Sim;
use super::linearizable::Event;
use super::registers::{Answer, Operation};
use super::world::{World, now};
use crate::types::{Applied, Command};

/// What all clients together have seen, by register.
#[derive(Default)]
pub(super) struct History {
    pub(super) events: Mutex<BTreeMap<u8, Vec<Event>>>,
    /// When something was acknowledged as committed, and where.
    pub(super) acknowledged: Mutex<Vec<(u64, u64)>>,
}

impl History {
    fn add(&self, key: u8, event: Event) {
        self.events.lock().entry(key).or_default().push(event);
    }
}

/// How a try went.
enum Tried {
    Done(Answer),
    /// It certainly had no effect.
    Nothing,
    /// Nobody knows.
    Unknown,
}

/// Works until the virtual time is over.
pub(super) async fn client(world: Arc<World>, history: Arc<History>, number: u64, until: u64, pause: u64) {
    let mut random = world.draw(fastrand::Rng::fork);
    let mut serial = 0;
    while now() < until {
        Sim::sleep(Duration::from_millis(random.u64(0..=pause))).await;
        serial += 1;
        let value = number * 1_000_000 + serial;
        let key = random.u8(0..KEYS);
        let operation = match random.u8(0..10) {
            0..3 => Operation::Get,
            3..6 => Operation::Put(value),
            6..9 => Operation::Swap(world.value(random.u64(1..4), key), value),
            _ => Operation::Delete,
        };
        let called = now();
        for _ in 0..6 {
            let up = world.up();
            if up.is_empty() {
                break;
            }
            // Mostly the leader, as a client that was told; at times anybody.
            let target = if random.u8(0..5) == 0 { None } else { world.leader() };
            let target = target.unwrap_or_else(|| up[random.usize(0..up.len())]);
            let tried = match operation {
                Operation::Get if random.bool() => read(&world, target, &up, key, &mut random).await,
                _ => write(&world, &history, target, operation, key).await,
            };
            match tried {
                Tried::Done(answer) => {
                    history.add(key, Event { operation, called, returned: Some((now(), answer)) });
                    break;
                }
                Tried::Unknown => {
                    // A read without an answer tells nothing and changes nothing.
                    if operation != Operation::Get {
                        history.add(key, Event { operation, called, returned: None });
                    }
                    break;
                }
                Tried::Nothing => Sim::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn write(world: &World, history: &History, target: u64, operation: Operation, key: u8) -> Tried {
    let Some(raft) = world.raft(target) else {
        return Tried::Nothing;
    };
    let writing = raft.client_write(Command::Application(operation.command(key)));
    match Sim::timeout(PATIENCE, writing).await {
        Ok(Ok(written)) => {
            let Applied::Application(bytes) = written.data else {
                return Tried::Unknown;
            };
            history.acknowledged.lock().push((now(), written.log_id.index));
            Tried::Done(Answer::read(&bytes))
        }
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Tried::Nothing,
        Ok(Err(_)) | Err(_) => Tried::Unknown,
    }
}

/// As `read_barrier` does: the index from the leader, the value from any node that has come so far.
async fn read(world: &World, leader: u64, up: &[u64], key: u8, random: &mut fastrand::Rng) -> Tried {
    let Some(raft) = world.raft(leader) else {
        return Tried::Nothing;
    };
    let barrier = match Sim::timeout(PATIENCE, raft.get_read_linearizer(ReadPolicy::ReadIndex)).await {
        Ok(Ok(linearizer)) => linearizer.read_log_id().log_id().index,
        Ok(Err(_)) | Err(_) => return Tried::Nothing,
    };
    let reader = up[random.usize(0..up.len())];
    let deadline = now() + PATIENCE.as_micros() as u64;
    loop {
        let applied = world.metrics(reader).and_then(|metrics| metrics.last_applied).map_or(0, |id| id.index);
        if applied >= barrier {
            return Tried::Done(Answer { before: world.value(reader, key), changed: false });
        }
        if now() > deadline || world.raft(reader).is_none() {
            return Tried::Nothing;
        }
        Sim::sleep(Duration::from_millis(5)).await;
    }
}

/// Few enough that clients meet.
const KEYS: u8 = 10;
const PATIENCE: Duration = Duration::from_secs(3);
