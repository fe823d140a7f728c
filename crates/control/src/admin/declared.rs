//! Declared things: what there is, what a change would do, and the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_proto::v1::{Change, RefusalCode, Resource, SealedCredential, command};
use tidegate_proto::{Kind, Problem};

use super::access::{Permission, Role};
use super::answer::{self, Result, ok, written};
use super::call::{Call, canonical};
use super::credentials::{fingerprint, seal};
use super::error::AdminError;
use super::{Admin, Validate};
use crate::proposer::SubmitError;
use crate::state::{Id, ResourceSet, State};

/// Kinds that a change may name.
pub(super) const DECLARED: [Kind; 8] =
    [Kind::Defaults, Kind::Routing, Kind::Provider, Kind::Model, Kind::Endpoint, Kind::Preset, Kind::Organisation, Kind::Workspace];

/// How often a change is planned anew because the state moved under it.
const ATTEMPTS: usize = 5;

pub(super) async fn list(admin: Admin, call: Call) -> Result {
    let kind = call.parameter("kind").map(parse_kind).transpose()?;
    let state = admin.read(&call).await?;
    let resources: Vec<Value> = state
        .newest()
        .iter()
        .filter(|(id, _)| kind.is_none_or(|kind| id.kind() == Some(kind)))
        .map(|(id, resource)| answer::resource(id, resource))
        .collect();
    ok(json!({ "revision": state.revision(), "resources": resources }))
}

pub(super) async fn get(admin: Admin, call: Call) -> Result {
    let id = Id::new(parse_kind(&call.segments[0])?, &call.segments[1]);
    let state = admin.read(&call).await?;
    match state.newest().get(&id) {
        Some(resource) => ok(answer::resource(&id, resource)),
        None => Err(AdminError::not_found(format!("no {id}"))),
    }
}

/// A change as it is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    upserts: Vec<AskedResource>,
    #[serde(default)]
    removes: Vec<AskedId>,
    /// Secrets of providers among the upserts.
    #[serde(default)]
    secrets: Vec<AskedSecret>,
    /// Removes every declared thing that is not among the upserts.
    #[serde(default)]
    prune: bool,
    expected_revision: Option<u64>,
    /// Every edge gets it at once.
    #[serde(default)]
    immediate: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default, rename = "reason")]
    _reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedResource {
    kind: String,
    name: String,
    spec: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedId {
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedSecret {
    provider: String,
    credential: String,
    /// Without it the secret has to be there already.
    secret: Option<SecretString>,
    /// Where the caller looked for it, for messages.
    reference: Option<String>,
}

/// A change against a state.
pub(super) struct Plan {
    /// What is different, with the body it will have.
    changes: BTreeMap<Id, Option<Bytes>>,
    /// Positions of secrets that are new or other ones.
    secrets: Vec<usize>,
    immediate: bool,
}

pub(super) async fn plan(admin: Admin, call: Call) -> Result {
    let mut asked: Asked = call.json()?;
    asked.dry_run = true;
    run(admin, call, asked).await
}

pub(super) async fn apply(admin: Admin, call: Call) -> Result {
    let asked: Asked = call.json()?;
    if !asked.dry_run {
        call.principal.may(Permission::Needs(Role::Operator))?;
        call.needs_reason()?;
    }
    run(admin, call, asked).await
}

async fn run(admin: Admin, call: Call, asked: Asked) -> Result {
    let wanted = wanted(&asked)?;
    let mut refusal = None;
    for _ in 0..ATTEMPTS {
        let state = admin.read(&call).await?;
        if let Some(expected) = asked.expected_revision.filter(|expected| *expected != state.revision()) {
            let message = format!("revision {expected} was expected, the state is at revision {}", state.revision());
            return Err(AdminError::new(http::StatusCode::CONFLICT, "conflict", message));
        }
        let plan = planned(&state, &wanted, &asked)?;
        admin.validate(&state, &plan.changes, plan.immediate).await?;
        if asked.dry_run {
            return ok(described(&state, &plan, &asked));
        }
        if !plan.secrets.is_empty() {
            call.principal.may(Permission::Needs(Role::SecretAdmin))?;
        }
        let change = admin.change(&state, &plan, &asked)?;
        match admin.write(&call, command::Body::Change(change)).await {
            Ok(applied) => {
                let mut body = described(&state, &plan, &asked);
                body.as_object_mut().into_iter().for_each(|body| body.extend(written(&applied).as_object().cloned().unwrap_or_default()));
                return ok(body);
            }
            // Somebody else was faster: plan again on what there is now.
            Err(SubmitError::Refused(refused)) if refused.code() == RefusalCode::Conflict && asked.expected_revision.is_none() => {
                refusal = Some(refused);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(refusal.unwrap_or_default().into())
}

impl Admin {
    /// Asks the rules whether the state with these changes can be used, by the edges that get it first and, when they are to get it at
    /// once, by all others too.
    pub(super) async fn validate(
        &self,
        state: &Arc<State>,
        changes: &BTreeMap<Id, Option<Bytes>>,
        immediate: bool,
    ) -> std::result::Result<(), AdminError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut sets = vec![with(state.newest(), changes)];
        if immediate && state.newest().digest() != state.settled().digest() {
            sets.push(with(state.settled(), changes));
        }
        let validate = Validate::clone(&self.parts.validate);
        // A large mesh takes a while to compile.
        let checked = tokio::task::spawn_blocking(move || sets.iter().try_for_each(|set| validate(set))).await;
        match checked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problems)) => Err(AdminError::invalid(problems)),
            Err(error) => {
                tracing::error!(%error, "the rules failed on a set of resources");
                let message = "the rules failed on this set of resources; nothing was changed. Please report this";
                Err(AdminError::new(http::StatusCode::INTERNAL_SERVER_ERROR, "internal", message))
            }
        }
    }

    fn change(&self, state: &State, plan: &Plan, asked: &Asked) -> std::result::Result<Change, AdminError> {
        let mut change = Change { expected_revision: Some(state.revision()), immediate: plan.immediate, ..Change::default() };
        for (id, body) in &plan.changes {
            match body {
                Some(body) => change.upserts.push(Resource { id: Some(id.into()), body: body.clone(), revision: 0 }),
                None => change.removes.push(id.into()),
            }
        }
        for position in &plan.secrets {
            let AskedSecret { provider, credential, secret: Some(secret), .. } = &asked.secrets[*position] else { continue };
            change.credentials.push(seal(&self.parts, state, provider, credential, secret)?);
        }
        Ok(change)
    }
}

/// Declared resources of a set with changes, as the rules take them: without keys, which are many and have rules of their own.
pub(super) fn with(set: &ResourceSet, changes: &BTreeMap<Id, Option<Bytes>>) -> Vec<Resource> {
    let kept = set.iter().filter(|(id, _)| id.kind() != Some(Kind::Key) && !changes.contains_key(id));
    let mut resources: Vec<Resource> = kept.map(|(_, resource)| resource.as_ref().clone()).collect();
    resources.extend(changes.iter().filter_map(|(id, body)| Some(Resource { id: Some(id.into()), body: body.clone()?, revision: 0 })));
    resources
}

fn wanted(asked: &Asked) -> std::result::Result<BTreeMap<Id, Option<Bytes>>, AdminError> {
    let mut wanted = BTreeMap::new();
    for AskedResource { kind, name, spec } in &asked.upserts {
        let id = declared(kind, name)?;
        // The order of a preset's fields is part of what a model reads.
        let spec = if id.kind() == Some(Kind::Preset) { spec.clone() } else { canonical(spec.clone()) };
        if wanted.insert(id.clone(), Some(spec.to_string().into())).is_some() {
            return Err(AdminError::bad_request(format!("{id} is given twice")));
        }
    }
    for AskedId { kind, name } in &asked.removes {
        let id = declared(kind, name)?;
        if wanted.insert(id.clone(), None).is_some() {
            return Err(AdminError::bad_request(format!("{id} is given twice")));
        }
    }
    Ok(wanted)
}

fn planned(state: &State, wanted: &BTreeMap<Id, Option<Bytes>>, asked: &Asked, cluster: &str) -> std::result::Result<Plan, AdminError> {
    let mut changes = wanted.clone();
    if asked.prune {
        for kind in DECLARED {
            for (id, _) in state.newest().of_kind(kind) {
                changes.entry(id.clone()).or_insert(None);
            }
        }
    }
    changes.retain(|id, body| state.newest().get(id).map(|resource| &resource.body) != body.as_ref());
    let mut secrets = Vec::new();
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for (position, AskedSecret { provider, credential, secret, reference }) in asked.secrets.iter().enumerate() {
        let name = format!("{provider}/{credential}");
        if !seen.insert(name.clone()) {
            return Err(AdminError::bad_request(format!("secret `{name}` is given twice")));
        }
        let present = state.get(Kind::Credential, &name).and_then(|resource| SealedCredential::decode(resource.body.clone()).ok());
        match (secret, present) {
            (Some(secret), Some(present)) if present.fingerprint == fingerprint(&present.cluster, &name, secret) => {}
            (Some(_), _) => secrets.push(position),
            (None, Some(_)) => {}
            (None, None) => problems.push(Problem {
                resource: Some((&Id::new(Kind::Provider, provider)).into()),
                path: "credentials".to_owned(),
                message: format!("the secret `{credential}` is neither given nor in the agreed state"),
                help: vec![match reference {
                    Some(reference) => format!("make `{reference}` available where this is applied, and apply again"),
                    None => "give it with the change".to_owned(),
                }],
            }),
        }
    }
    if !problems.is_empty() {
        return Err(AdminError::invalid(problems));
    }
    Ok(Plan { changes, secrets, immediate: asked.immediate })
}

fn described(state: &State, plan: &Plan, asked: &Asked) -> Value {
    let secrets: Vec<Value> = plan
        .secrets
        .iter()
        .map(|position| json!({ "provider": asked.secrets[*position].provider, "credential": asked.secrets[*position].credential }))
        .collect();
    json!({
        "base_revision": state.revision(),
        "dry_run": asked.dry_run,
        "changes": changes(state.newest(), &plan.changes),
        "secrets": secrets,
    })
}

/// What changes would do to a set.
pub(super) fn changes(set: &ResourceSet, changes: &BTreeMap<Id, Option<Bytes>>) -> Vec<Value> {
    changes
        .iter()
        .map(|(id, after)| {
            let before = set.get(id).map(|resource| &resource.body);
            let action = match (before, after) {
                (None, Some(_)) => "create",
                (_, None) => "delete",
                (Some(_), Some(_)) => "update",
            };
            json!({
                "action": action,
                "kind": id.kind_name(),
                "name": id.name(),
                "before": before.map(|body| answer::spec(id, body)),
                "after": after.as_ref().map(|body| answer::spec(id, body)),
            })
        })
        .collect()
}

fn declared(kind: &str, name: &str) -> std::result::Result<Id, AdminError> {
    let kind = parse_kind(kind)?;
    if !DECLARED.contains(&kind) {
        return Err(AdminError::bad_request(format!("kind `{kind}` is not declared: it has paths of its own")));
    }
    if matches!(kind, Kind::Defaults | Kind::Routing) && name != "mesh" {
        return Err(AdminError::bad_request(format!("the one {kind} is named `mesh`, not `{name}`")));
    }
    Ok(Id::new(kind, name))
}

pub(super) fn parse_kind(kind: &str) -> std::result::Result<Kind, AdminError> {
    kind.parse().map_err(|error| {
        let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
        AdminError::bad_request(format!("{error}; kinds are {}", kinds.join(", ")))
    })
}

/// Secrets are compared and sealed, never shown.
pub(super) fn exposed(secret: &SecretString) -> &str {
    secret.expose_secret()
}
