//! What was when: revisions, prices, the audit log, and the way back.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_proto::v1::{AuditChange, AuditEntry, ResourceId, Revision, RevisionChange, Rollback, command};

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

/// The audit line that `GET /audit` shows as this, to check the chain with [`verify_audit`](crate::state::verify_audit); `None` when it is none.
#[must_use]
pub fn audit_entry(line: &Value) -> Option<AuditEntry> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let change = |change: &Value| {
        let id = ResourceId { kind: text(&change["kind"])?, name: text(&change["name"])? };
        Some(AuditChange { id: Some(id), before: unhex(&change["before"])?, after: unhex(&change["after"])? })
    };
    Some(AuditEntry {
        index: line["index"].as_u64()?,
        time_ms: line["time_ms"].as_u64()?,
        actor: text(&line["actor"])?,
        reason: text(&line["reason"])?,
        action: text(&line["action"])?,
        request_id: text(&line["request_id"])?,
        changes: line["changes"].as_array()?.iter().map(change).collect::<Option<_>>()?,
        more: line["more"].as_u64()?.try_into().ok()?,
        previous: unhex(&line["previous"])?,
        hash: unhex(&line["hash"])?,
    })
}

fn unhex(text: &Value) -> Option<Bytes> {
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_str()?.as_bytes().chunks(2);
    pairs
        .map(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::state::verify_audit as verify;
    use prost::Message;
    use tidegate_proto::v1::{Change, Command, Resource};

    #[test]
    fn what_is_shown_of_the_audit_log_can_be_checked() {
        let mut machine = Machine::new();
        for index in 1..=3_u64 {
            let id = Some(ResourceId { kind: "model".into(), name: format!("m{index}") });
            let upserts = vec![Resource { id, body: "{}".into(), revision: 0 }];
            let change = Change { upserts, immediate: true, ..Change::default() };
            let command =
                Command { actor: "a".into(), reason: "b".into(), body: Some(command::Body::Change(change)), ..Command::default() };
            machine.apply(index, 1, command.encode_to_vec().into());
        }
        let state = machine.published().load();
        let shown: Vec<Value> = state.audit().entries().map(|entry| audit_line(entry)).collect();
        let read = |lines: &[Value]| lines.iter().map(audit_entry).collect::<Option<Vec<_>>>();
        let whole = read(&shown).unwrap();
        assert_eq!(whole.len(), 3);
        assert!(whole.iter().zip(state.audit().entries()).all(|(read, entry)| *read == **entry));
        assert_eq!(verify(&[], &whole), Ok(()));
        for (field, value) in [("actor", json!("c")), ("time_ms", json!(7)), ("more", json!(1)), ("changes", json!([]))] {
            let mut altered = shown.clone();
            altered[1][field] = value;
            assert!(verify(&[], &read(&altered).unwrap()).is_err(), "{field}");
        }
        for wrong in ["abc", "zz", "+1"] {
            let mut broken = shown[0].clone();
            broken["hash"] = json!(wrong);
            assert_eq!(audit_entry(&broken), None, "{wrong}");
        }
    }
}
