//! Who takes part: every change goes through here, one at a time, and only on the leader.
//!
//! A change names the membership that it was made for; openraft refuses it when there is another by then, so that two leaders, or two
//! operators, cannot undo each other's work. Changes of voters are joint: the old and the new majority agree to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardReason, RaftError};
use openraft::{ChangeMembers, Instant as _, Precondition, RaftMetrics};
use tokio::time::{Instant, timeout_at};

use crate::error::ChangeError;
use crate::member::{Instance, Member};
use crate::node::{Running, error_text, leader_of};
use crate::types::{Applied, Command, StoredMembership, Tokio};

impl Running {
    /// Gives the instance a number and a place as learner.
    pub(crate) async fn join(&self, instance: Instance) -> Result<u64, ChangeError> {
        if instance.address.is_empty() || instance.name.is_empty() {
            return Err(ChangeError::Refused("a node must tell its name and its address".to_owned()));
        }
        let _one = self.changes.lock().await;
        let allocate = self.raft.client_write(Command::AllocateNodeId(instance.clone())).await;
        let id = match allocate.map_err(|error| self.change_error(error))?.data {
            Applied::NodeId(id) => id,
            other => return Err(ChangeError::Refused(format!("expected a node id, got {other:?}"))),
        };
        let membership = self.membership();
        match membership.membership().get_node(&id) {
            Some(known) if *known == instance => return Ok(id),
            // The same volume under another address or with another wish. It is the same log, so nobody is counted twice.
            Some(_) => {
                self.change(&membership, ChangeMembers::SetNodes(BTreeMap::from([(id, instance)])), Retain::Learners).await?;
            }
            None => self.change(&membership, ChangeMembers::AddNodes(BTreeMap::from([(id, instance)])), Retain::Learners).await?,
        }
        Ok(id)
    }

    /// Waits until the learner has caught up and makes it a voter; `instead` leaves in the same change.
    pub(crate) async fn promote(&self, id: u64, instead: Option<u64>, patience: Duration) -> Result<(), ChangeError> {
        let deadline = Instant::now() + patience;
        loop {
            if timeout_at(deadline, self.caught_up(id)).await.is_err() {
                return Err(ChangeError::Unfinished(format!("node {id} has not caught up within {} s", patience.as_secs())));
            }
            let _one = self.changes.lock().await;
            let membership = self.membership();
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            if voters.contains(&id) && instead.is_none_or(|old| !voters.contains(&old)) {
                return Ok(());
            }
            if membership.membership().get_node(&id).is_none() {
                return Err(ChangeError::Refused(format!("node {id} is no member; it must join first")));
            }
            if let Some(old) = instead.filter(|old| !voters.contains(old)) {
                return Err(ChangeError::Refused(format!("node {old} is no voter, so nobody can take its place")));
            }
            if instead == Some(*self.raft.node_id()) {
                drop(_one);
                let successor = self.transfer_leader(None).await?;
                return Err(ChangeError::NotLeader { leader: self.member(successor) });
            }
            let mut changes = vec![ChangeMembers::AddVoterIds(BTreeSet::from([id]))];
            changes.extend(instead.map(|old| ChangeMembers::RemoveVoters(BTreeSet::from([old]))));
            match self.change(&membership, ChangeMembers::Batch(changes), Retain::Nobody).await {
                // Another change was faster; this one still makes sense.
                Err(ChangeError::Unfinished(_)) if Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }

    /// Takes a member out.
    pub(crate) async fn remove(&self, id: u64) -> Result<(), ChangeError> {
        if id == *self.raft.node_id() {
            self.must_lead()?;
            if self.membership().voter_ids().count() < 2 {
                return Err(ChangeError::Refused("the only voter cannot leave".to_owned()));
            }
            // A leader that is no member any more would go on to lead those who are; a successor takes it out.
            let successor = self.transfer_leader(None).await?;
            return Err(ChangeError::NotLeader { leader: self.member(successor) });
        }
        let _one = self.changes.lock().await;
        self.must_lead()?;
        let membership = self.membership();
        if membership.membership().get_node(&id).is_none() {
            return Ok(());
        }
        let change = if membership.voter_ids().any(|voter| voter == id) {
            ChangeMembers::RemoveVoters(BTreeSet::from([id]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([id]))
        };
        self.change(&membership, change, Retain::Nobody).await
    }

    /// Hands leadership to `to`, or to whoever has most of the log, in a preferred region when there is a choice. Returns who leads then.
    pub(crate) async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, ChangeError> {
        self.must_lead()?;
        let metrics = self.raft.metrics().borrow_watched().clone();
        let own = *self.raft.node_id();
        let targets = match to {
            Some(to) if to == own => return Ok(own),
            Some(to) if metrics.membership_config.voter_ids().any(|voter| voter == to) => vec![to],
            Some(to) => return Err(ChangeError::Refused(format!("node {to} is no voter"))),
            None => self.successors(&metrics),
        };
        if targets.is_empty() {
            return Err(ChangeError::Refused("there is no other voter to lead".to_owned()));
        }
        let deadline = Instant::now() + TRANSFER;
        // The word to take over is said once and may be lost, as may the votes: a connection that broke with the other end's last restart is
        // found out only by using it. So it is said again, to the next in turn when there is a choice, until somebody leads.
        for target in targets.iter().cycle() {
            let turn = deadline.min(Instant::now() + self.links.timing().heartbeat * TURN);
            match timeout_at(turn, self.hand_over(*target, metrics.current_term)).await {
                Ok(outcome) => return outcome,
                Err(_) if Instant::now() < deadline => tracing::debug!(node = target, "has not taken over yet"),
                Err(_) => break,
            }
        }
        Err(ChangeError::Unfinished(format!("nobody of {targets:?} has taken over within {} s", TRANSFER.as_secs())))
    }

    /// Tells a voter to take over, and waits until somebody leads in a later term than this one.
    async fn hand_over(&self, target: u64, term: u64) -> Result<u64, ChangeError> {
        let own = *self.raft.node_id();
        let mut watch = self.raft.metrics();
        self.raft.trigger().transfer_leader(target).await.map_err(|error| ChangeError::Stopped(error.to_string()))?;
        {
            loop {
                let leader = {
                    let metrics = watch.borrow_watched();
                    metrics.current_leader.filter(|leader| metrics.current_term > term && *leader != own)
                };
                if let Some(leader) = leader {
                    return Ok(leader);
                }
                // Dropped by the deadline: a watch keeps its newest value.
                if watch.changed().await.is_err() {
                    return Err(ChangeError::Stopped("the node stops".to_owned()));
                }
            }
        }
    }

    /// The voters to lead next, the best first: those that have answered lately, of these those with most of the log, and of these those in
    /// the first preferred region.
    fn successors(&self, metrics: &RaftMetrics<Tokio>) -> Vec<u64> {
        let membership = metrics.membership_config.membership();
        let matched = |id: &u64| metrics.replication.as_ref().and_then(|replication| replication.get(id)).copied().flatten();
        let answered = |id: &u64| metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(id)).copied().flatten();
        let last = metrics.last_log_index.unwrap_or(0);
        let lately = self.links.timing().heartbeat * LATELY;
        let mut voters: Vec<u64> = membership.voter_ids().filter(|id| *id != metrics.id).collect();
        voters.sort_by_key(|id| {
            let index = matched(id).map_or(0, |matched| matched.index);
            let alive = answered(id).is_some_and(|at| at.elapsed() < lately);
            let rank = self.rank(membership.get_node(id).map_or("", |node| node.region.as_str()));
            // Whoever lacks only a few entries gets them before the election.
            std::cmp::Reverse((alive, index + CLOSE >= last, std::cmp::Reverse(rank), index, std::cmp::Reverse(*id)))
        });
        voters
    }

    /// Place of a region among those that leadership goes to first; less is better.
    pub(crate) fn rank(&self, region: &str) -> usize {
        self.preferred_regions.iter().position(|name| name == region).unwrap_or(self.preferred_regions.len())
    }

    /// One look at what the members wish for: a learner that wants to vote and has caught up becomes a voter, in the place of the voter of its
    /// name when there is one. On any node but the leader there is nothing to do.
    pub(crate) async fn reconcile(&self) {
        let wish = {
            let metrics = self.raft.metrics().borrow_watched().clone();
            if !metrics.state.is_leader() {
                return;
            }
            next_promotion(&metrics)
        };
        let Some((id, instead)) = wish else {
            return;
        };
        match self.promote(id, instead, PROMOTION).await {
            Ok(()) => tracing::info!(node = id, instead, "the node votes now"),
            Err(ChangeError::NotLeader { .. }) => {}
            Err(error) => tracing::warn!(%error, node = id, "make a node a voter"),
        }
    }

    /// Completes when the node has nearly all of the leader's log.
    async fn caught_up(&self, id: u64) {
        let mut watch = self.raft.metrics();
        loop {
            let ready = {
                let metrics = watch.borrow_watched();
                !metrics.state.is_leader() || metrics.membership_config.membership().get_node(&id).is_none() || has_caught_up(&metrics, id)
            };
            if ready || watch.changed().await.is_err() {
                return;
            }
        }
    }

    async fn change(&self, seen: &StoredMembership, change: ChangeMembers<u64, Instance>, retain: Retain) -> Result<(), ChangeError> {
        let precondition = Precondition::LastMembershipLogId { last_membership_log_id: *seen.log_id() };
        let changing = async {
            loop {
                let outcome = self.raft.change_membership_if(change.clone(), retain == Retain::Learners, [precondition.clone()]).await;
                match outcome {
                    // As with proposals: a leader of this moment waits for its quorum.
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) if to.reason == ForwardReason::LeaseExpired => {}
                    // It knows the last change but not yet that a quorum does: nothing that anybody has to be told.
                    Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                    ))) => {}
                    outcome => return outcome,
                }
                tokio::time::sleep(self.links.timing().heartbeat / 2).await;
            }
        };
        match tokio::time::timeout(CHANGE, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.change_error(error)),
            Err(_) => Err(ChangeError::Unfinished(format!("no quorum has agreed within {} s", CHANGE.as_secs()))),
        }
    }

    fn must_lead(&self) -> Result<(), ChangeError> {
        if self.raft.is_leader() { Ok(()) } else { Err(ChangeError::NotLeader { leader: self.leader() }) }
    }

    pub(crate) fn membership(&self) -> StoredMembership {
        self.raft.metrics().borrow_watched().membership_config.as_ref().clone()
    }

    /// A member by its id.
    pub(crate) fn member(&self, id: u64) -> Option<Member> {
        Some(Member { id, instance: self.membership().membership().get_node(&id)?.clone() })
    }

    fn change_error(&self, error: RaftError<Tokio, ClientWriteError<Tokio>>) -> ChangeError {
        match error {
            RaftError::Fatal(fatal) => ChangeError::Stopped(fatal.to_string()),
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => ChangeError::NotLeader { leader: leader_of(to) },
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                ChangeError::Unfinished("leadership was lost before the outcome was known".to_owned())
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => ChangeError::Refused(error_text(&error)),
            RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => {
                ChangeError::Unfinished(format!("another change was faster: {error}"))
            }
        }
    }
}

/// Who stays after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retain {
    /// Voters that are taken out stay as learners.
    Learners,
    Nobody,
}

/// The learner to be promoted next, and the voter in whose place.
fn next_promotion(metrics: &RaftMetrics<Tokio>) -> Option<(u64, Option<u64>)> {
    let membership = metrics.membership_config.membership();
    if membership.get_joint_config().len() > 1 {
        return None;
    }
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    membership.nodes().filter(|(id, node)| node.wants_vote && !voters.contains(id)).find_map(|(id, node)| {
        // Of two instances of one name the later is the living one: ids grow.
        let instead = membership.nodes().find(|(other, known)| voters.contains(other) && known.name == node.name).map(|(other, _)| *other);
        let newer = instead.is_none_or(|old| old < *id);
        (newer && has_caught_up(metrics, *id)).then_some((*id, instead))
    })
}

/// Whether a member has nearly all of the leader's log.
fn has_caught_up(metrics: &RaftMetrics<Tokio>, id: u64) -> bool {
    let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&id)).copied().flatten();
    matched.is_some_and(|matched| matched.index + CLOSE >= metrics.last_log_index.unwrap_or(0))
}

/// Entries that a node may lack and still count as caught up: at the highest expected rate it has them within 2 s.
const CLOSE: u64 = 100;
/// Patience with one step of the reconciler; it looks again anyway.
const PROMOTION: Duration = Duration::from_secs(10);
/// Patience with a quorum.
const CHANGE: Duration = Duration::from_secs(15);
/// Heartbeats within which a successor takes over: the longest round trip that goes with the interval takes two thirds of one, and there are
/// three of them and two flushes.
const TURN: u32 = 4;
/// Heartbeats within which a living voter has answered.
const LATELY: u32 = 4;
/// Patience with all successors: after that the ordinary election has begun anyway.
const TRANSFER: Duration = Duration::from_secs(5);
