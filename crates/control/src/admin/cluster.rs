//! Who takes part in the cluster. Each of these can be sent again: what is so already is no error.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tidegate_consensus::{BackupError, Consensus, InitError};
use tidegate_proto::v1::{ClusterChange, Note, ReplaceMember, cluster_change, cluster_changed, command};
use tokio::time::timeout;

use super::Admin;
use super::answer::{Answer, Content, Result, ok};
use super::call::Call;
use super::error::AdminError;
use crate::relay::change_here;

impl Admin {
    fn consensus(&self) -> std::result::Result<&Consensus, AdminError> {
        let message = "this node has no cluster that others could be in";
        self.parts.proposer.agreement().consensus().ok_or_else(|| AdminError::new(StatusCode::NOT_IMPLEMENTED, "alone", message))
    }

    /// A line in the audit log for what is agreed on by consensus itself; whether it is there. What was done is done, so a failure fails
    /// nothing.
    async fn note(&self, call: &Call, action: String) -> bool {
        // A node that has just been given its place hears of it, and of its leader, a moment later.
        let mut status = self.parts.proposer.agreement().watch_status();
        let _ = timeout(PLACE_PATIENCE, status.wait_for(|status| !status.cluster_id.is_empty() && status.leader.is_some())).await;
        let mut command = self.command(call, command::Body::Note(Note { action: action.clone() }));
        if command.request_id.is_empty() {
            // With an id it can be sent again when its outcome is not known, as happens while the members change.
            command.request_id = format!("note-{:032x}", fastrand::u128(..));
        }
        let noted = self.parts.proposer.submit(command).await;
        if let Err(error) = &noted {
            tracing::error!(%error, %action, actor = %call.principal.name, "a change of the cluster is not in the audit log");
        }
        noted.is_ok()
    }

    /// Makes a change where the leader is.
    async fn change_cluster(&self, call: &Call, change: cluster_change::Change, action: String) -> Result {
        call.needs_reason()?;
        let asked = ClusterChange { change: Some(change) };
        let mut outcome = change_here(self.parts.proposer.agreement(), asked).await.outcome;
        if let Some(cluster_changed::Outcome::NotLeading(_)) = &outcome {
            let status = self.parts.proposer.agreement().status();
            let Some(leader) = status.leader_member() else {
                return Err(AdminError::unavailable("no_leader", "no control node leads; an election may be on its way"));
            };
            let answer = self.parts.peers.change_cluster(&leader.instance.address, asked).await;
            let answer = answer.map_err(|status| AdminError::unavailable("leader_unreachable", status.message().to_owned()))?;
            outcome = answer.outcome;
        }
        match outcome {
            Some(cluster_changed::Outcome::Done(id)) => {
                let audited = self.note(call, action).await;
                ok(json!({ "node_id": id, "audited": audited }))
            }
            Some(cluster_changed::Outcome::NotLeading(_)) => {
                Err(AdminError::unavailable("no_leader", "leadership moved while we asked: ask again"))
            }
            Some(cluster_changed::Outcome::Refused(why)) => Err(AdminError::new(StatusCode::CONFLICT, "refused", why)),
            Some(cluster_changed::Outcome::Unfinished(why)) => Err(AdminError::unavailable("unfinished", why)),
            None => Err(AdminError::unavailable("outcome_unknown", "the leader answered something that this version does not know")),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Init {
    cluster_id: String,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn init(admin: Admin, call: Call) -> Result {
    let asked: Init = call.json()?;
    if asked.cluster_id.trim().is_empty() {
        return Err(AdminError::bad_request("a cluster has a name: `cluster_id`"));
    }
    admin.consensus()?.init(&asked.cluster_id).await.map_err(refused)?;
    let audited = admin.note(&call, format!("init {}", asked.cluster_id)).await;
    ok(json!({ "cluster_id": asked.cluster_id, "node_id": admin.consensus()?.status().node_id, "audited": audited }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    /// Raft addresses of nodes that belong to the cluster. Without it: `peers` of the configuration.
    #[serde(default)]
    peers: Vec<String>,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn join(admin: Admin, call: Call) -> Result {
    let asked: Join = call.json()?;
    let peers = if asked.peers.is_empty() { &admin.parts.join_peers } else { &asked.peers };
    if peers.is_empty() {
        let help = "give some in `peers`, or as `raft.peers` of the configuration";
        return Err(AdminError::bad_request(format!("no node is known that could be asked for a place: {help}")));
    }
    let node_id = admin.consensus()?.join_through(peers).await.map_err(refused)?;
    let audited = admin.note(&call, format!("join {node_id}")).await;
    ok(json!({ "cluster_id": admin.consensus()?.status().cluster_id, "node_id": node_id, "audited": audited }))
}

fn refused(error: InitError) -> AdminError {
    AdminError::new(StatusCode::CONFLICT, "refused", error.to_string())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    id: u64,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn promote(admin: Admin, call: Call) -> Result {
    let asked: One = call.json()?;
    admin.change_cluster(&call, cluster_change::Change::Promote(asked.id), format!("promote {}", asked.id)).await
}

pub(super) async fn remove(admin: Admin, call: Call) -> Result {
    let asked: One = call.json()?;
    admin.change_cluster(&call, cluster_change::Change::Remove(asked.id), format!("remove {}", asked.id)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replace {
    old: u64,
    new: u64,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn replace(admin: Admin, call: Call) -> Result {
    let Replace { old, new, .. } = call.json()?;
    let change = cluster_change::Change::Replace(ReplaceMember { old, new });
    admin.change_cluster(&call, change, format!("replace {old} by {new}")).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: Option<u64>,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn transfer(admin: Admin, call: Call) -> Result {
    let asked: Transfer = call.json()?;
    let change = cluster_change::Change::TransferLeader(asked.to.unwrap_or_default());
    admin.change_cluster(&call, change, "transfer leadership".to_owned()).await
}

pub(super) async fn backup(admin: Admin, _: Call) -> Result {
    let backup = admin.consensus()?.backup().await.map_err(failed)?;
    Ok(Answer { status: StatusCode::OK, content: Content::Bytes(backup) })
}

pub(super) async fn restore(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let Some(cluster_id) = call.parameter("cluster_id").filter(|id| !id.trim().is_empty()) else {
        return Err(AdminError::bad_request("a restored cluster is a new one: name it, `?cluster_id=…`"));
    };
    admin.consensus()?.restore_from(cluster_id, Bytes::clone(&call.body)).await.map_err(failed)?;
    let audited = admin.note(&call, format!("restore as {cluster_id}")).await;
    ok(json!({ "cluster_id": cluster_id, "node_id": admin.consensus()?.status().node_id, "audited": audited }))
}

fn failed(error: BackupError) -> AdminError {
    let message = error.to_string();
    match error {
        BackupError::Read(_) | BackupError::Stopped(_) => AdminError::unavailable("no_backup", message),
        BackupError::Damaged(_) => AdminError::new(StatusCode::UNPROCESSABLE_ENTITY, "damaged", message),
        BackupError::NotEmpty(_) => AdminError::new(StatusCode::CONFLICT, "not_empty", message),
        BackupError::Start(_) => AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", message),
    }
}

/// How long a change of the cluster waits for a leader to write its line with.
const PLACE_PATIENCE: Duration = Duration::from_secs(10);
