//! Staged rollouts, running and past.

use serde_json::{Value, json};
use tidegate_proto::v1::{RevertRollout, Rollout, RolloutStage, command};

use super::Admin;
use super::answer::{Result, ok, written};
use super::call::Call;
use super::error::AdminError;

pub(super) async fn list(admin: Admin, call: Call) -> Result {
    let state = admin.read(&call).await?;
    let rollouts: Vec<Value> = state.rollouts().iter().rev().map(|rollout| shown(rollout)).collect();
    ok(json!({ "revision": state.revision(), "running": state.rollouts().running().map(|rollout| rollout.revision), "rollouts": rollouts }))
}

/// An operator's own reason to go back, beside those that the leader sees.
pub(super) async fn revert(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let revision = call.segments[0].parse::<u64>().map_err(|_| AdminError::bad_request("a revision is a whole number"))?;
    let revert = RevertRollout { revision, cause: call.reason.clone() };
    let applied = admin.write(&call, command::Body::RevertRollout(revert)).await?;
    ok(written(&applied))
}

fn shown(rollout: &Rollout) -> Value {
    let changes: Vec<Value> = rollout.changes.iter().map(|id| json!({ "kind": id.kind, "name": id.name })).collect();
    json!({
        "revision": rollout.revision,
        "stage": match rollout.stage() {
            RolloutStage::Waiting => "waiting",
            RolloutStage::Canary => "canary",
            RolloutStage::Tenth => "tenth",
            RolloutStage::Done => "done",
            RolloutStage::Reverted => "reverted",
            RolloutStage::Superseded => "superseded",
            RolloutStage::Unspecified => "unknown",
        },
        "started_ms": rollout.started_ms,
        "stage_ms": rollout.stage_ms,
        "cohort": rollout.cohort,
        "note": rollout.note,
        "changes": changes,
    })
}
