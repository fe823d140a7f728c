//! Tasks of the leader. They run on every node and act only where leadership is valid: a quorum has acknowledged this node lately. Each
//! effect is a proposal that names the term it was decided in, so a leader that has been replaced cannot act.

mod expiry;
mod rollout;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tidegate_consensus::{Role, Status};
use tidegate_proto::v1::{Command, PutMember, command};
use tidegate_runtime::{Clock, Tasks};

pub use rollout::{BAKE, EdgeView, Outcomes, Step, step};

use crate::edges::Edges;
use crate::proposer::Proposer;
use crate::published::Published;
use crate::state::State;

/// Time between two looks at what is to be done.
const TICK: Duration = Duration::from_secs(1);

/// What the tasks work with.
#[derive(Clone)]
pub struct LeaderParts {
    /// How effects get agreed on.
    pub proposer: Proposer,
    /// The agreed state.
    pub published: Published,
    /// Edges of all nodes.
    pub edges: Edges,
    /// Longest age of a quorum's acknowledgement with which a leader may act: the longest election timeout.
    pub lease: Duration,
    /// This node's clock; stages and expiries are measured by the leader's.
    pub clock: Clock,
    /// How long a stage of a rollout lasts.
    pub bake: Duration,
}

/// Starts the tasks; they end with the stop of `tasks`.
pub fn start(parts: LeaderParts, tasks: &Tasks) {
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("leader", async move {
        loop {
            // Dropping the sleep is safe: there is nothing in it.
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            let status = parts.proposer.agreement().status();
            if !leads(&status, parts.lease) {
                continue;
            }
            let state = parts.published.load();
            let now_ms = parts.clock.unix_millis();
            if let Some(body) = expiry::due(&state, now_ms) {
                parts.act(&status, "expiry", "its time has passed", body).await;
            }
            parts.roll_out(&status, &state, now_ms).await;
        }
    });
}

/// Whether this node may act as the leader.
pub(crate) fn leads(status: &Status, lease: Duration) -> bool {
    let fresh = status.millis_since_quorum_ack.is_some_and(|age| u128::from(age) < lease.as_millis());
    status.role == Role::Leader && fresh && status.refusing.is_none()
}

impl LeaderParts {
    async fn roll_out(&self, status: &Status, state: &State, now_ms: u64) {
        let Some(rollout) = state.rollouts().running() else { return };
        let gathered = self.edges.everywhere().await;
        let edges: Vec<EdgeView> = gathered.edges.iter().map(EdgeView::from).collect();
        if let Step::Do(body, reason) = step(rollout, &edges, now_ms, self.bake) {
            tracing::info!(rollout = rollout.revision, stage = rollout.stage().as_str_name(), %reason, "staged rollout");
            self.act(status, "rollout", &reason, body).await;
        }
    }

    async fn act(&self, status: &Status, task: &str, reason: &str, body: command::Body) {
        let command = Command {
            actor: format!("system/{task}"),
            reason: reason.to_owned(),
            term: status.term,
            body: Some(body),
            ..Command::default()
        };
        // What fails now is looked at again with the next tick.
        if let Err(error) = self.proposer.submit(command).await {
            tracing::debug!(%error, task, "a task of the leader did not get its way");
        }
    }
}

/// Enters how to reach this node into the state, whenever that differs. Runs on every node; ends with the stop of `tasks`.
pub fn introduce(proposer: Proposer, published: Published, member: tidegate_proto::v1::MemberMeta, tasks: &Tasks) {
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("introduce", async move {
        loop {
            let status = proposer.agreement().status();
            let member = tidegate_proto::v1::MemberMeta { node_id: status.node_id, ..member.clone() };
            let known = published.load().members_meta().get(&status.node_id) == Some(&member);
            if status.node_id != 0 && status.leader.is_some() && !known {
                let command = Command {
                    actor: "system/introduce".to_owned(),
                    reason: "how to reach it".to_owned(),
                    body: Some(command::Body::PutMember(PutMember { member: Some(member) })),
                    ..Command::default()
                };
                if let Err(error) = proposer.submit(command).await {
                    tracing::debug!(%error, "this node could not introduce itself");
                }
            }
            // Dropping the sleep is safe: there is nothing in it.
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(INTRODUCE_EVERY) => {}
            }
        }
    });
}

/// Addresses change with restarts only.
const INTRODUCE_EVERY: Duration = Duration::from_secs(5);
