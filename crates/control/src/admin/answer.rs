//! How things of the state look as JSON. No secret and no digest of one is among it.

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use serde_json::{Value, json};
use tidegate_proto::Kind;
use tidegate_proto::v1::{Applied, Key, KeyRole, Override, OverrideAction, Resource, SealedCredential};

use super::error::AdminError;
use crate::state::Id;

/// A good answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Json(Value),
    /// A file.
    Bytes(Bytes),
}

pub(crate) type Result = std::result::Result<Answer, AdminError>;

pub(crate) fn ok(body: Value) -> Result {
    Ok(Answer { status: StatusCode::OK, content: Content::Json(body) })
}

pub(crate) fn created(body: Value) -> Result {
    Ok(Answer { status: StatusCode::CREATED, content: Content::Json(body) })
}

/// What every write answers.
pub(crate) fn written(applied: &Applied) -> Value {
    let mut body = json!({ "revision": applied.revision, "changed": applied.changed });
    if applied.replayed {
        body["replayed"] = true.into();
    }
    body
}

/// A resource with what it says.
pub(crate) fn resource(id: &Id, resource: &Resource) -> Value {
    json!({ "kind": id.kind_name(), "name": id.name(), "revision": resource.revision, "spec": spec(id, &resource.body) })
}

/// What a resource says.
pub(crate) fn spec(id: &Id, body: &Bytes) -> Value {
    let unreadable = || json!({ "unreadable": true });
    match id.kind() {
        Some(Kind::Key) => Key::decode(body.clone()).map_or_else(|_| unreadable(), |value| key(&value)),
        Some(Kind::Credential) => SealedCredential::decode(body.clone()).map_or_else(|_| unreadable(), |value| credential(&value)),
        Some(Kind::Override) => Override::decode(body.clone()).map_or_else(|_| unreadable(), |value| forced(&value)),
        Some(
            Kind::Defaults
            | Kind::Routing
            | Kind::Provider
            | Kind::Model
            | Kind::Endpoint
            | Kind::Preset
            | Kind::Organisation
            | Kind::Workspace,
        )
        | None => serde_json::from_slice(body).unwrap_or_else(|_| unreadable()),
    }
}

pub(crate) fn key(key: &Key) -> Value {
    let secrets: Vec<Value> = key
        .secrets
        .iter()
        .map(|secret| json!({ "label": secret.label, "created_at": secret.created_at, "expires_at": moment(secret.expires_at) }))
        .collect();
    json!({
        "id": key.public_id,
        "name": key.name,
        "organisation": text(&key.organisation),
        "workspace": text(&key.workspace),
        "role": match key.role() {
            KeyRole::Inference => "inference",
            KeyRole::Management => "management",
        },
        "disabled": key.disabled,
        "expires_at": moment(key.expires_at),
        "created_at": key.created_at,
        "creator": key.creator,
        "secrets": secrets,
        "policy": serde_json::from_slice::<Value>(&key.policy).unwrap_or_else(|_| json!({})),
    })
}

fn credential(sealed: &SealedCredential) -> Value {
    json!({ "provider": sealed.provider, "credential": sealed.credential, "version": sealed.version, "kek": sealed.kek_id })
}

fn forced(value: &Override) -> Value {
    let target = value.target.clone().unwrap_or_default();
    json!({
        "kind": target.kind,
        "target": target.name,
        "action": action_name(value.action()),
        "region": text(&value.region),
        "reason": value.reason,
        "actor": value.actor,
        "expires_at": moment(value.expires_at),
    })
}

pub(crate) fn action_name(action: OverrideAction) -> &'static str {
    match action {
        OverrideAction::Drain => "drain",
        OverrideAction::Pin => "pin",
        OverrideAction::Disable => "disable",
        OverrideAction::Unspecified => "unspecified",
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn moment(seconds: u64) -> Option<u64> {
    (seconds != 0).then_some(seconds)
}

fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
