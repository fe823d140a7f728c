//! What was when: revisions, prices, the audit log, and the way back.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_proto::v1::{AuditEntry, Revision, RevisionChange, Rollback, command};

use super::Admin;
use super::access::{Permission, Role};
use super::answer::{self, Result, hex, ok, written};
use super::call::Call;
use super::declared::{changes, parse_kind};
use super::error::AdminError;
use crate::state::Id;

/// Lines that one answer has unless asked otherwise, and at most.
const PAGE: u64 = 100;
const LARGEST_PAGE: u64 = 1_000;

/// `?limit=`.
fn limit(call: &Call) -> std::result::Result<usize, AdminError> {
    Ok(call.number("limit")?.unwrap_or(PAGE).min(LARGEST_PAGE) as usize)
}

pub(super) async fn list(admin: Admin, call: Call) -> Result {
    let limit = limit(&call)?;
    let wanted = match (call.parameter("kind"), call.parameter("name")) {
        (Some(kind), Some(name)) => Some(Id::new(parse_kind(kind)?, name)),
        (None, None) => None,
        _ => return Err(AdminError::bad_request("give `kind` and `name` together, or neither")),
    };
    let state = admin.read(&call).await?;
    let history = state.history();
    let revisions: Vec<Value> = match &wanted {
        None => history.revisions().rev().take(limit).map(|revision| summary(revision)).collect(),
        Some(id) => {
            let mut versions: Vec<Value> = history
                .of(id)
                .map(|(revision, after)| {
                    let mut line = summary(revision);
                    line["spec"] = after.map_or(Value::Null, |resource| answer::spec(id, &resource.body));
                    line
                })
                .collect();
            versions.reverse();
            versions.truncate(limit);
            versions
        }
    };
    ok(json!({ "revision": state.revision(), "oldest": history.floor(), "revisions": revisions }))
}

pub(super) async fn revision(admin: Admin, call: Call) -> Result {
    let number = call.segments[0].parse::<u64>().map_err(|_| AdminError::bad_request("a revision is a whole number"))?;
    let state = admin.read(&call).await?;
    let Some(revision) = state.history().get(number) else {
        let floor = state.history().floor();
        return Err(AdminError::not_found(format!(
            "revision {number} changed nothing that is declared, or is older than revision {floor}"
        )));
    };
    let mut body = summary(revision);
    body["changes"] = revision.changes.iter().map(full).collect();
    ok(body)
}

pub(super) async fn prices(admin: Admin, call: Call) -> Result {
    let limit = limit(&call)?;
    let endpoint = call.parameter("endpoint").map(str::to_owned);
    let state = admin.read(&call).await?;
    let lines: Vec<Value> = state
        .prices()
        .changes()
        .rev()
        .filter(|change| endpoint.as_ref().is_none_or(|endpoint| change.endpoint == *endpoint))
        .take(limit)
        .map(|change| {
            json!({
                "endpoint": change.endpoint,
                "revision": change.index,
                "time_ms": change.time_ms,
                "prices": serde_json::from_slice::<Value>(&change.prices).unwrap_or_default(),
            })
        })
        .collect();
    ok(json!({ "revision": state.revision(), "changes": lines }))
}

pub(super) async fn audit(admin: Admin, call: Call) -> Result {
    let limit = limit(&call)?;
    let before = call.number("before")?;
    let state = admin.read(&call).await?;
    let entries: Vec<Value> = state
        .audit()
        .entries()
        .rev()
        .filter(|entry| before.is_none_or(|before| entry.index < before))
        .take(limit)
        .map(|entry| audit_line(entry))
        .collect();
    ok(json!({ "archived": state.audit().dropped(), "entries": entries }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    to: u64,
    expected_revision: Option<u64>,
    /// Goes through the stages of a rollout instead of reaching every edge at once.
    #[serde(default)]
    staged: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn rollback(admin: Admin, call: Call) -> Result {
    let asked: Asked = call.json()?;
    if !asked.dry_run {
        call.principal.may(Permission::Needs(Role::Operator))?;
        call.needs_reason()?;
    }
    let state = admin.read(&call).await?;
    let Some(mut wanted) = state.history().back_to(asked.to) else {
        let message = format!("history reaches back to revision {} only", state.history().floor());
        return Err(AdminError::new(StatusCode::UNPROCESSABLE_ENTITY, "too_old", message));
    };
    wanted.retain(|id, body| state.newest().get(id).map(|resource| &resource.body) != body.as_ref());
    admin.validate(&state, &wanted, !asked.staged).await?;
    let mut body = json!({ "base_revision": state.revision(), "dry_run": asked.dry_run, "changes": changes(state.newest(), &wanted) });
    if asked.dry_run {
        return ok(body);
    }
    let expected_revision = asked.expected_revision.or(Some(state.revision()));
    let rollback = Rollback { to: asked.to, expected_revision, staged: asked.staged };
    let applied = admin.write(&call, command::Body::Rollback(rollback)).await?;
    body.as_object_mut().into_iter().for_each(|body| body.extend(written(&applied).as_object().cloned().unwrap_or_default()));
    ok(body)
}

fn summary(revision: &Revision) -> Value {
    let changes: Vec<Value> = revision
        .changes
        .iter()
        .map(|change| {
            let id = change.id.clone().unwrap_or_default();
            json!({ "action": action(change), "kind": id.kind, "name": id.name })
        })
        .collect();
    json!({
        "revision": revision.index,
        "time_ms": revision.time_ms,
        "actor": revision.actor,
        "reason": revision.reason,
        "changes": changes,
    })
}

fn full(change: &RevisionChange) -> Value {
    let wire = change.id.clone().unwrap_or_default();
    let id = Id::from(&wire);
    json!({
        "action": action(change),
        "kind": wire.kind,
        "name": wire.name,
        "before": change.before.as_ref().map(|resource| answer::spec(&id, &resource.body)),
        "after": change.after.as_ref().map(|resource| answer::spec(&id, &resource.body)),
    })
}

fn action(change: &RevisionChange) -> &'static str {
    match (&change.before, &change.after) {
        (None, _) => "create",
        (Some(_), None) => "delete",
        (Some(_), Some(_)) => "update",
    }
}

fn audit_line(entry: &AuditEntry) -> Value {
    let changes: Vec<Value> = entry
        .changes
        .iter()
        .map(|change| {
            let id = change.id.clone().unwrap_or_default();
            json!({ "kind": id.kind, "name": id.name, "before": hex(&change.before), "after": hex(&change.after) })
        })
        .collect();
    json!({
        "index": entry.index,
        "time_ms": entry.time_ms,
        "actor": entry.actor,
        "reason": entry.reason,
        "action": entry.action,
        "request_id": entry.request_id,
        "changes": changes,
        "more": entry.more,
        "previous": hex(&entry.previous),
        "hash": hex(&entry.hash),
    })
}
