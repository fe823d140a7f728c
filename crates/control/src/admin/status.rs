//! How this node, the cluster, the edges and the providers are.

use serde_json::{Value, json};
use tidegate_consensus::Status;
use tidegate_proto::v1::{EdgeStatus, RolloutStage};

use super::Admin;
use super::answer::{Result, hex, ok};
use super::call::Call;
use super::error::AdminError;

/// Answers on any node at any time: it is what one looks at when nothing else answers.
pub(super) async fn status(admin: Admin, _: Call) -> Result {
    let status = admin.parts.proposer.agreement().status();
    let state = admin.parts.published.load();
    let mut body = node(&status);
    body["build"] = admin.parts.build.clone().into();
    body["revision"] = state.revision().into();
    body["digest"] = state.digest().to_string().into();
    body["settled_digest"] = state.settled().digest().to_string().into();
    body["resources"] = state.newest().len().into();
    body["edges_here"] = admin.parts.edges.here().len().into();
    body["rollout"] = match state.rollouts().running() {
        Some(rollout) => json!({ "revision": rollout.revision, "waiting": rollout.stage() == RolloutStage::Waiting }),
        None => Value::Null,
    };
    ok(body)
}

pub(super) fn node(status: &Status) -> Value {
    json!({
        "cluster_id": status.cluster_id,
        "node_id": status.node_id,
        "role": status.role.as_str(),
        "term": status.term,
        "leader": status.leader,
        "last_log": status.last_log,
        "committed": status.committed,
        "applied": status.applied,
        "millis_since_quorum_ack": status.millis_since_quorum_ack,
        "millis_since_leader": status.millis_since_leader,
        "refusing": status.refusing,
        "fatal": status.fatal,
    })
}

pub(super) async fn cluster(admin: Admin, _: Call) -> Result {
    let status = admin.parts.proposer.agreement().status();
    let state = admin.parts.published.load();
    let members: Vec<Value> = status
        .members
        .iter()
        .map(|member| {
            let meta = state.members_meta().get(&member.id);
            json!({
                "id": member.id,
                "name": member.name,
                "address": member.address,
                "region": member.region,
                "voter": member.voter,
                "leader": status.leader == Some(member.id),
                "matched": member.matched,
                "lag": member.lag,
                "admin_address": meta.map(|meta| &meta.admin_address),
                "sync_address": meta.map(|meta| &meta.sync_address),
                "build": meta.map(|meta| &meta.build),
            })
        })
        .collect();
    let mut body = node(&status);
    body["members"] = members.into();
    ok(body)
}

pub(super) async fn edges(admin: Admin, _: Call) -> Result {
    let gathered = admin.parts.edges.everywhere().await;
    let edges: Vec<Value> = gathered.edges.iter().map(edge).collect();
    let lost: Vec<Value> = gathered.lost.iter().map(edge).collect();
    let state = admin.parts.published.load();
    ok(json!({
        "revision": state.revision(),
        "applied": state.applied(),
        "edges": edges,
        "lost": lost,
        "unreachable_nodes": gathered.unreachable,
    }))
}

fn edge(edge: &EdgeStatus) -> Value {
    let refused = edge.refused.as_ref().map(|nack| {
        let resource = nack.resource.as_ref().map(|id| format!("{} `{}`", id.kind, id.name));
        json!({ "index": nack.index, "stage": nack.stage, "resource": resource, "reason": nack.reason, "more": nack.more })
    });
    json!({
        "name": edge.edge,
        "region": edge.region,
        "build": edge.build,
        "address": edge.address,
        "instance": hex(&edge.instance.to_be_bytes()),
        "connected_since_ms": edge.connected_since_ms,
        "silent_ms": edge.silent_ms,
        "received": edge.received,
        "applied": edge.applied,
        "revoked": edge.revoked,
        "refused": refused,
    })
}

pub(super) async fn health(admin: Admin, _: Call) -> Result {
    let Some(fleet) = admin.parts.fleet.get() else {
        return Err(AdminError::unavailable("no_health", "this node gathers no health yet: it has no place in a cluster"));
    };
    let table = fleet.table();
    ok(serde_json::to_value(table).unwrap_or_default())
}
