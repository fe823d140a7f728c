//! What operators force: drain, pin, disable.

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_proto::Kind;
use tidegate_proto::v1::{LiftOverride, Override, OverrideAction, PutOverride, ResourceId, command};

use super::Admin;
use super::answer::{self, Result, ok, written};
use super::call::Call;
use super::error::AdminError;

pub(super) async fn list(admin: Admin, call: Call) -> Result {
    let state = admin.read(&call).await?;
    let overrides: Vec<Value> = state.newest().of_kind(Kind::Override).map(|(id, resource)| answer::resource(id, resource)).collect();
    ok(json!({ "revision": state.revision(), "overrides": overrides }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    kind: String,
    target: String,
    action: Action,
    /// Without it: every region.
    #[serde(default)]
    region: String,
    /// Unix seconds; without it until lifted.
    expires_at: Option<u64>,
    /// The same, from now on.
    expires_in_seconds: Option<u64>,
    #[serde(default, rename = "reason")]
    _reason: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Drain,
    Pin,
    Disable,
}

pub(super) async fn put(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let asked: Asked = call.json()?;
    let from_now = asked.expires_in_seconds.map(|seconds| admin.parts.clock.unix_seconds().saturating_add(seconds));
    let value = Override {
        target: Some(ResourceId { kind: asked.kind, name: asked.target }),
        action: match asked.action {
            Action::Drain => OverrideAction::Drain,
            Action::Pin => OverrideAction::Pin,
            Action::Disable => OverrideAction::Disable,
        }
        .into(),
        region: asked.region,
        reason: call.reason.clone(),
        expires_at: asked.expires_at.or(from_now).unwrap_or_default(),
        ..Override::default()
    };
    let applied = admin.write(&call, command::Body::PutOverride(PutOverride { value: Some(value) })).await?;
    let mut body = written(&applied);
    body["name"] = applied.name.into();
    ok(body)
}

pub(super) async fn lift(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let Some(name) = call.parameter("name") else {
        return Err(AdminError::bad_request("say which: `?name=provider/groq` or `?name=provider/groq@eu`"));
    };
    let lift = LiftOverride { name: name.to_owned() };
    let applied = admin.write(&call, command::Body::LiftOverride(lift)).await?;
    ok(written(&applied))
}
