//! Callers' keys. A key's text exists in the answer that made it and nowhere else.

use std::time::Duration;

use http::StatusCode;
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_proto::Kind;
use tidegate_proto::v1::{CreateKey, EdgeStatus, EditKey, Key, KeyRole, KeySecret, RevokeKeys, RotateKey, command};
use tidegate_runtime::api_key::{ApiKey, KeyEnv, RANDOM_BYTES};

use super::Admin;
use super::answer::{self, Result, created, ok, written};
use super::call::{Call, canonical};
use super::error::AdminError;
use crate::state::{Id, State};

/// Time that the secret before a rotation holds unless asked otherwise: a deployment.
const OVERLAP_SECONDS: u64 = 24 * 3600;
/// Longest wait for edges to confirm.
const CONFIRM: Duration = Duration::from_secs(10);
/// Keys of one answer unless asked otherwise, and at most.
const PAGE: u64 = 100;
const LARGEST_PAGE: u64 = 10_000;

pub(super) async fn list(admin: Admin, call: Call) -> Result {
    let limit = call.number("limit")?.unwrap_or(PAGE).min(LARGEST_PAGE) as usize;
    let after = call.parameter("after").map(str::to_owned);
    let workspace = call.parameter("workspace").map(str::to_owned);
    let state = admin.read(&call).await?;
    let mut keys: Vec<Value> = Vec::new();
    let mut more = false;
    for (id, resource) in state.newest().of_kind(Kind::Key) {
        if after.as_deref().is_some_and(|after| id.name() <= after) {
            continue;
        }
        let Ok(key) = Key::decode(resource.body.clone()) else { continue };
        if workspace.as_ref().is_some_and(|workspace| key.workspace != *workspace) {
            continue;
        }
        if keys.len() == limit {
            more = true;
            break;
        }
        keys.push(shown(&key, resource.revision));
    }
    ok(json!({ "revision": state.revision(), "keys": keys, "more": more }))
}

pub(super) async fn get(admin: Admin, call: Call) -> Result {
    let state = admin.read(&call).await?;
    let (key, revision) = present(&state, &call.segments[0])?;
    ok(shown(&key, revision))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    #[serde(default)]
    organisation: String,
    #[serde(default)]
    workspace: String,
    /// `live` or `test`; changes the looks of the key only.
    #[serde(default)]
    env: Env,
    #[serde(default)]
    role: Role,
    /// Unix seconds.
    expires_at: Option<u64>,
    #[serde(default)]
    policy: Option<Value>,
    #[serde(default, rename = "reason")]
    _reason: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Env {
    #[default]
    Live,
    Test,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    #[default]
    Inference,
    Management,
}

pub(super) async fn create(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let asked: New = call.json()?;
    if asked.name.trim().is_empty() {
        return Err(AdminError::bad_request("a key has a `name`, for logs and bills"));
    }
    let policy = admin.policy(asked.policy)?;
    let state = admin.read(&call).await?;
    belongs(&state, &asked.organisation, &asked.workspace)?;
    let text = ApiKey::from_random(asked.env.into(), &random()?);
    let key = Key {
        public_id: text.public_id().to_owned(),
        name: asked.name,
        organisation: asked.organisation,
        workspace: asked.workspace,
        secrets: vec![admin.secret(&text)],
        expires_at: asked.expires_at.unwrap_or_default(),
        role: KeyRole::from(asked.role).into(),
        policy,
        ..Key::default()
    };
    let create = CreateKey { key: Some(key), expected_revision: None };
    let applied = admin.write(&call, command::Body::CreateKey(create)).await?;
    let mut body = written(&applied);
    body["id"] = applied.name.clone().into();
    if !applied.replayed {
        // Of a request that is answered again the text is no longer known to anybody here.
        body["key"] = text.expose().into();
    }
    created(body)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    name: Option<String>,
    disabled: Option<bool>,
    /// Unix seconds; 0 is never.
    expires_at: Option<u64>,
    policy: Option<Value>,
    organisation: Option<String>,
    workspace: Option<String>,
    /// The `revision` of the key that the change was decided on.
    expected_revision: Option<u64>,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn edit(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let asked: Edit = call.json()?;
    let policy = match asked.policy {
        Some(policy) => Some(admin.policy(Some(policy))?),
        None => None,
    };
    let state = admin.read(&call).await?;
    let (key, _) = present(&state, &call.segments[0])?;
    let organisation = asked.organisation.as_ref().unwrap_or(&key.organisation);
    belongs(&state, organisation, asked.workspace.as_ref().unwrap_or(&key.workspace))?;
    let edit = EditKey {
        public_id: key.public_id,
        name: asked.name,
        disabled: asked.disabled,
        expires_at: asked.expires_at,
        policy,
        organisation: asked.organisation,
        workspace: asked.workspace,
        expected_revision: asked.expected_revision,
    };
    let applied = admin.write(&call, command::Body::EditKey(edit)).await?;
    ok(written(&applied))
}

pub(super) async fn disable(admin: Admin, call: Call) -> Result {
    switch(admin, call, Switch::Off).await
}

pub(super) async fn enable(admin: Admin, call: Call) -> Result {
    switch(admin, call, Switch::On).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    On,
    Off,
}

async fn switch(admin: Admin, call: Call, to: Switch) -> Result {
    call.needs_reason()?;
    let edit = EditKey { public_id: call.segments[0].clone(), disabled: Some(to == Switch::Off), ..EditKey::default() };
    let applied = admin.write(&call, command::Body::EditKey(edit)).await?;
    let mut body = written(&applied);
    if to == Switch::Off {
        confirm(&admin, &call, applied.revision, &mut body).await?;
    }
    ok(body)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    overlap_seconds: Option<u64>,
    #[serde(default)]
    env: Env,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn rotate(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let asked: Rotate = call.json()?;
    let public_id = &call.segments[0];
    let state = admin.read(&call).await?;
    let (key, _) = present(&state, public_id)?;
    let Some(text) = ApiKey::of_public_id(asked.env.into(), &key.public_id, &random()?) else {
        return Err(AdminError::bad_request(format!("`{public_id}` cannot be part of a key: make a new one and revoke this one")));
    };
    let overlap = asked.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
    let previous_until = if overlap == 0 { 0 } else { admin.parts.clock.unix_seconds().saturating_add(overlap) };
    let rotate = RotateKey { public_id: key.public_id, secret: Some(admin.secret(&text)), previous_until };
    let applied = admin.write(&call, command::Body::RotateKey(rotate)).await?;
    let mut body = written(&applied);
    body["id"] = public_id.clone().into();
    body["previous_until"] = previous_until.into();
    if !applied.replayed {
        body["key"] = text.expose().into();
    }
    ok(body)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    /// Cuts running answers too.
    #[serde(default)]
    kill_streams: bool,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn revoke(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let asked: Revoke = call.json()?;
    let revoke = RevokeKeys { public_ids: vec![call.segments[0].clone()], kill_streams: asked.kill_streams };
    let applied = admin.write(&call, command::Body::RevokeKeys(revoke)).await?;
    let mut body = written(&applied);
    confirm(&admin, &call, applied.revision, &mut body).await?;
    ok(body)
}

/// With `?wait=all`: returns when every live edge has confirmed, or says which have not.
async fn confirm(admin: &Admin, call: &Call, revision: u64, body: &mut Value) -> std::result::Result<(), AdminError> {
    match call.parameter("wait") {
        None | Some("none") => return Ok(()),
        Some("all") => {}
        Some(other) => return Err(AdminError::bad_request(format!("`wait={other}`: use `all` or `none`"))),
    }
    let confirmed = admin.parts.edges.confirmed(revision, CONFIRM).await;
    body["confirmed"] = confirmed.edges.into();
    body["missing"] = confirmed.missing.iter().map(unconfirmed).collect();
    body["lost"] = confirmed.lost.iter().map(unconfirmed).collect();
    body["unreachable_nodes"] = confirmed.unreachable.into();
    Ok(())
}

fn unconfirmed(edge: &EdgeStatus) -> Value {
    json!({ "edge": edge.edge, "region": edge.region, "address": edge.address, "silent_ms": edge.silent_ms })
}

impl Admin {
    pub(super) fn secret(&self, text: &ApiKey) -> KeySecret {
        KeySecret {
            digest: text.digest(self.parts.pepper.as_ref()).to_vec().into(),
            label: format!("{}_…", text.public_part()),
            ..KeySecret::default()
        }
    }

    pub(super) fn policy(&self, policy: Option<Value>) -> std::result::Result<bytes::Bytes, AdminError> {
        let Some(policy) = policy.filter(|policy| policy.as_object().is_none_or(|policy| !policy.is_empty())) else {
            return Ok(bytes::Bytes::new());
        };
        let body = bytes::Bytes::from(canonical(policy).to_string());
        (self.parts.validate_policy)(&body).map_err(AdminError::invalid)?;
        Ok(body)
    }
}

pub(super) fn belongs(state: &State, organisation: &str, workspace: &str) -> std::result::Result<(), AdminError> {
    for (kind, name) in [(Kind::Organisation, organisation), (Kind::Workspace, workspace)] {
        if !name.is_empty() && state.get(kind, name).is_none() {
            return Err(AdminError::not_found(format!("{} is not declared", Id::new(kind, name))));
        }
    }
    let Some(declared) = state.get(Kind::Workspace, workspace) else { return Ok(()) };
    let owner = serde_json::from_slice::<Value>(&declared.body).ok().and_then(|spec| spec["organisation"].as_str().map(str::to_owned));
    match owner {
        Some(owner) if !organisation.is_empty() && owner != organisation => {
            Err(AdminError::bad_request(format!("workspace `{workspace}` is part of `{owner}`, not of `{organisation}`")))
        }
        Some(_) | None => Ok(()),
    }
}

fn present(state: &State, public_id: &str) -> std::result::Result<(Key, u64), AdminError> {
    let found = state.get(Kind::Key, public_id).and_then(|resource| Some((Key::decode(resource.body.clone()).ok()?, resource.revision)));
    found.ok_or_else(|| AdminError::not_found(format!("no key `{public_id}`")))
}

fn shown(key: &Key, revision: u64) -> Value {
    let mut body = answer::key(key);
    body["revision"] = revision.into();
    body
}

pub(super) fn random() -> std::result::Result<[u8; RANDOM_BYTES], AdminError> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "no_randomness", format!("no randomness from the operating system: {error}"))
    })?;
    Ok(bytes)
}

impl From<Env> for KeyEnv {
    fn from(env: Env) -> KeyEnv {
        match env {
            Env::Live => KeyEnv::Live,
            Env::Test => KeyEnv::Test,
        }
    }
}

impl From<Role> for KeyRole {
    fn from(role: Role) -> KeyRole {
        match role {
            Role::Inference => KeyRole::Inference,
            Role::Management => KeyRole::Management,
        }
    }
}
