//! What must hold at every moment, whatever happens to machines and network.

use std::collections::BTreeMap;

use openraft::{RaftMetrics, ServerState};

use super::Sim;
use super::world::World;
use crate::log_store::Peek;
use crate::types::{LeaderId, LogId, Vote};

/// What was seen so far.
#[derive(Default)]
pub(super) struct Invariants {
    /// The entry that was committed at each index, and in whose term at the latest.
    committed: BTreeMap<u64, (LogId, LeaderId)>,
    /// By node: the highest vote that was on its disk.
    votes: BTreeMap<u64, Vote>,
    /// By node and incarnation: term, commit index and applied index.
    progress: BTreeMap<(u64, u64), (u64, u64, u64)>,
    checked: BTreeMap<u64, u64>,
}

/// One node at one moment.
struct Look {
    id: u64,
    incarnation: u64,
    peek: Peek,
    metrics: Option<RaftMetrics<Sim>>,
}

impl Invariants {
    /// Looks at the whole world.
    pub(super) fn check(&mut self, world: &World) -> Result<(), String> {
        self.look(world).map_err(|violation| format!("{violation}{}", describe(world)))
    }

    fn look(&mut self, world: &World) -> Result<(), String> {
        if let Some(violation) = world.ledger.lock().violations.first() {
            return Err(violation.clone());
        }
        let mut looks = Vec::new();
        world.each(|id, host| {
            use openraft::async_runtime::WatchReceiver as _;
            let metrics = host.raft.as_ref().map(|raft| raft.metrics().borrow_watched().clone());
            looks.push(Look { id, incarnation: host.incarnation, peek: host.log.peek(), metrics });
        });
        for look in &looks {
            self.node(look)?;
        }
        for (place, one) in looks.iter().enumerate() {
            for other in &looks[place + 1..] {
                log_matching(one, other)?;
            }
        }
        self.leaders(&looks)
    }

    /// What one node must keep to: votes, terms and indices do not go back, and committed entries do not change.
    fn node(&mut self, look: &Look) -> Result<(), String> {
        let id = look.id;
        if let Some(vote) = look.peek.vote {
            let highest = self.votes.entry(id).or_insert(vote);
            if vote.partial_cmp(highest).is_some_and(std::cmp::Ordering::is_lt) {
                return Err(format!("node {id} had the vote {highest} and now has {vote}"));
            }
            *highest = vote;
        }
        let Some(metrics) = &look.metrics else {
            return Ok(());
        };
        if let Err(fatal) = &metrics.running_state {
            return Err(format!("node {id} has stopped: {fatal}"));
        }
        let committed = metrics.local_committed;
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let now = (metrics.current_term, index(committed), index(metrics.last_applied));
        let before = self.progress.insert((id, look.incarnation), now).unwrap_or_default();
        if now.0 < before.0 || now.1 < before.1 || now.2 < before.2 {
            return Err(format!("node {id} went back from (term, committed, applied) {before:?} to {now:?}"));
        }
        if now.2 > now.1 {
            return Err(format!("node {id} has applied index {} and knows only {} to be committed", now.2, now.1));
        }
        let from = self.checked.get(&id).copied().unwrap_or(0).min(now.1);
        for entry in look.peek.entries.iter().filter(|entry| entry.index >= from && Some(**entry) <= committed) {
            let (first, _) = self.committed.entry(entry.index).or_insert((*entry, metrics.vote.leader_id));
            if first != entry {
                return Err(format!("node {id} has {entry} where {first} was committed"));
            }
        }
        self.checked.insert(id, now.1);
        Ok(())
    }

    /// What a leader must have: its own vote, all that was committed before it, and a majority for all that it calls committed.
    fn leaders(&self, looks: &[Look]) -> Result<(), String> {
        for look in looks {
            let Some(metrics) = look.metrics.as_ref().filter(|metrics| metrics.state == ServerState::Leader) else {
                continue;
            };
            let own = metrics.vote.leader_id;
            if own.node_id != look.id {
                return Err(format!("node {} leads with the vote of {own}", look.id));
            }
            let purged = look.peek.purged.map_or(0, |purged| purged.index);
            let has = |wanted: &LogId| match look.peek.entries.first() {
                _ if wanted.index <= purged => true,
                Some(first) => {
                    let place = wanted.index.checked_sub(first.index).map(|place| place as usize);
                    place.and_then(|place| look.peek.entries.get(place)) == Some(wanted)
                }
                None => false,
            };
            // An entry of an old term may be committed by a later leader only. One that leads a term between the two need not have it: it is
            // over, and does not know yet.
            for (committed, _) in self.committed.values().rev().take(400).filter(|(_, by)| *by < own) {
                if !has(committed) {
                    return Err(format!("node {} leads as {own} without the committed {committed}", look.id));
                }
            }
            let Some(committed) = metrics.cluster_committed else {
                continue;
            };
            let holds = |id: u64| {
                looks.iter().find(|other| other.id == id).is_some_and(|other| {
                    let flushed = other.peek.flushed;
                    // A node that has the entry on disk, or what came of it.
                    let there = other.peek.entries.contains(&committed) && flushed >= Some(committed);
                    there || other.peek.purged >= Some(committed)
                })
            };
            let majority = |membership: &openraft::Membership<u64, crate::member::Instance>| {
                let configs = membership.get_joint_config();
                configs.iter().all(|voters| voters.iter().filter(|id| holds(**id)).count() * 2 > voters.len())
            };
            // The entry may have been committed by the voters of before or of after a change that goes on.
            let now = metrics.membership_config.membership();
            let before = metrics.committed_membership_config.membership();
            if !majority(now) && !majority(before) {
                let held: Vec<u64> = looks.iter().map(|look| look.id).filter(|id| holds(*id)).collect();
                return Err(format!("node {} calls {committed} committed, and only {held:?} have it on disk; voters {now}", look.id));
            }
        }
        Ok(())
    }
}

/// Every node as it is, for the message of a violation.
fn describe(world: &World) -> String {
    use openraft::async_runtime::WatchReceiver as _;
    use std::fmt::Write as _;
    let mut text = String::new();
    world.each(|id, host| {
        let peek = host.log.peek();
        let (first, last) = (peek.entries.first(), peek.entries.last());
        let _ = write!(
            text,
            "\n  node {id}: vote {:?}, purged {:?}, log {first:?} to {last:?}, flushed {:?}",
            peek.vote, peek.purged, peek.flushed
        );
        if let Some(raft) = &host.raft {
            let _ = write!(text, "; {}", raft.metrics().borrow_watched().clone());
        }
    });
    text
}

/// Two logs that have the same entry have the same entries before it.
fn log_matching(one: &Look, other: &Look) -> Result<(), String> {
    let (a, b) = (&one.peek.entries, &other.peek.entries);
    let (Some(first_a), Some(first_b)) = (a.first(), b.first()) else {
        return Ok(());
    };
    let start = first_a.index.max(first_b.index);
    let skip = |first: &LogId| (start - first.index) as usize;
    let pairs: Vec<(&LogId, &LogId)> = a.iter().skip(skip(first_a)).zip(b.iter().skip(skip(first_b))).collect();
    let Some(same) = pairs.iter().rposition(|(a, b)| a == b) else {
        return Ok(());
    };
    match pairs[..same].iter().find(|(a, b)| a != b) {
        Some((a, b)) => Err(format!("nodes {} and {} agree at {} and differ before: {a} and {b}", one.id, other.id, pairs[same].0)),
        None => Ok(()),
    }
}
