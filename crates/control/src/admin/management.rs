//! What management keys may do, for callers of edges: OpenRouter's `/keys`.
//!
//! The caller's key is checked here, by its text, so that an edge can act only for keys that were sent to it. A management key reaches
//! inference keys only: those of its workspace where it has one, else of its organisation where it has one, else all.

use std::collections::HashMap;

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value, json};
use tidegate_proto::Kind;
use tidegate_proto::v1::{
    Applied, Command, CreateKey, EditKey, Key, KeyRole, ManageOperation, ManageReply, ManageRequest, RevokeKeys, command,
};
use tidegate_runtime::api_key::{ApiKey, Digester, KeyEnv};

use super::Admin;
use super::answer::hex;
use super::error::AdminError;
use super::keys::{belongs, random};
use crate::state::State;

/// Keys of one page, as OpenRouter has it.
const PAGE: usize = 100;
/// Longest `Idempotency-Key`.
const MAX_IDEMPOTENCY_KEY: usize = 200;
/// Tries of an edit that meets others of the same key.
const EDITS: usize = 8;
/// How a spend limit is called in a key's policy, and how `limit_reset` calls the time after which it starts anew.
const RESETS: [(&str, Option<&str>); 4] =
    [("spend_per_day", Some("daily")), ("spend_per_week", Some("weekly")), ("spend_per_month", Some("monthly")), ("spend_total", None)];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    limit: Option<Number>,
    limit_reset: Option<String>,
    include_byok_in_limit: Option<bool>,
    /// Unix seconds.
    expires_at: Option<u64>,
    workspace_id: Option<String>,
    /// There are no users here; clients may send it.
    #[serde(rename = "creator_user_id")]
    _creator: Option<String>,
}

/// Absent fields stay as they are; `null` takes away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    name: Option<String>,
    disabled: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    limit: Option<Option<Number>>,
    #[serde(default, deserialize_with = "given")]
    limit_reset: Option<Option<String>>,
    include_byok_in_limit: Option<bool>,
    /// Unix seconds.
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<Option<u64>>,
}

fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// One request of a management key that was found good.
struct Managing<'a> {
    admin: &'a Admin,
    asked: ManageRequest,
    state: &'a State,
    reach: Reach,
    /// Name of the edge.
    through: &'a str,
}

/// Which keys a management key reaches.
struct Reach {
    organisation: String,
    workspace: String,
    /// Organisations of the workspaces.
    owners: HashMap<String, String>,
}

/// An answer, and the revision of what was changed.
struct Done {
    status: StatusCode,
    body: Value,
    revision: u64,
}

impl Admin {
    /// Does what a management key asks through an edge of this name.
    pub(crate) async fn manage(&self, through: &str, asked: ManageRequest) -> ManageReply {
        let (operation, actor) = (asked.operation(), asked.public_id.clone());
        let outcome = self.managed(through, asked).await;
        if !matches!(operation, ManageOperation::List | ManageOperation::Get) {
            let said = outcome.as_ref().map_or_else(|error| error.code, |_| "done");
            tracing::info!(operation = operation.as_str_name(), actor, through, outcome = said, "request of a management key");
        }
        match outcome {
            Ok(done) => ManageReply {
                status: done.status.as_u16().into(),
                body: done.body.to_string().into(),
                revision: done.revision,
                retry_after: 0,
            },
            Err(error) => ManageReply {
                status: error.status.as_u16().into(),
                body: error.message.into(),
                revision: 0,
                retry_after: error.retry_after.unwrap_or(0),
            },
        }
    }

    async fn managed(&self, through: &str, asked: ManageRequest) -> Result<Done, AdminError> {
        self.parts
            .proposer
            .agreement()
            .read_barrier()
            .await
            .map_err(|error| AdminError::unavailable("no_leader", format!("keys cannot be managed at the moment: {error}; ask again")))?;
        let state = self.parts.published.load();
        let key = self.authentic(&state, &asked)?;
        let owners = owners(&state);
        let reach = Reach { organisation: organisation_of(&owners, &key).to_owned(), workspace: key.workspace, owners };
        let operation = asked.operation();
        let managing = Managing { admin: self, asked, state: &state, reach, through };
        match operation {
            ManageOperation::List => Ok(managing.list()),
            ManageOperation::Create => managing.create().await,
            ManageOperation::Get => managing.get(),
            ManageOperation::Edit => managing.edit().await,
            ManageOperation::Delete => managing.delete().await,
            ManageOperation::Unspecified => Err(AdminError::bad_request("this control node does not know what was asked; upgrade it")),
        }
    }

    /// The management key, if it is one, may be used, and was sent.
    fn authentic(&self, state: &State, asked: &ManageRequest) -> Result<Key, AdminError> {
        let refused = |message: &str| AdminError::new(StatusCode::UNAUTHORIZED, "unauthorised", message);
        let now = self.parts.clock.unix_seconds();
        let holds = |until: u64| until == 0 || until > now;
        let digest = blake3::Hash::from_bytes(Digester::new(self.parts.pepper.as_ref()).digest(&asked.key));
        let key = state.get(Kind::Key, &asked.public_id).and_then(|resource| Key::decode(resource.body.clone()).ok());
        // Comparing BLAKE3 hashes compares in constant time.
        let sent = |key: &Key| {
            let digests = key.secrets.iter().filter(|secret| holds(secret.expires_at));
            digests.filter_map(|secret| blake3::Hash::from_slice(&secret.digest).ok()).any(|known| known == digest)
        };
        let key = key.filter(sent).ok_or_else(|| refused("The API key is not known to the control plane."))?;
        if key.disabled {
            return Err(refused("The API key is disabled. Ask whoever manages keys to enable it."));
        }
        if !holds(key.expires_at) {
            return Err(refused("The API key has expired. Ask whoever manages keys for a new one."));
        }
        if key.role() != KeyRole::Management {
            let message = "This API key calls models; managing keys takes a management key.";
            return Err(AdminError::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
        Ok(key)
    }
}

impl Managing<'_> {
    fn list(&self) -> Done {
        let ManageRequest { offset, include_disabled, workspace, .. } = &self.asked;
        let mut keys: Vec<Key> = self.reached().filter(|key| *include_disabled || !key.disabled).collect();
        keys.retain(|key| workspace.is_empty() || key.workspace == *workspace);
        keys.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.public_id.cmp(&b.public_id)));
        let total = keys.len();
        let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
        let page: Vec<Value> = keys.iter().skip(offset).take(PAGE).map(shown).collect();
        Done { status: StatusCode::OK, body: json!({ "data": page, "total_count": total }), revision: 0 }
    }

    fn get(&self) -> Result<Done, AdminError> {
        Ok(Done { status: StatusCode::OK, body: json!({ "data": shown(&self.found()?) }), revision: 0 })
    }

    async fn create(&self) -> Result<Done, AdminError> {
        let asked: New = self.body()?;
        named(&asked.name)?;
        refuse_own_keys(asked.include_byok_in_limit)?;
        let workspace = asked.workspace_id.unwrap_or_else(|| self.reach.workspace.clone());
        if !self.reach.workspace.is_empty() && workspace != self.reach.workspace {
            let message = format!("this management key makes keys of workspace `{}` only", self.reach.workspace);
            return Err(AdminError::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
        belongs(self.state, &self.reach.organisation, &workspace)?;
        let mut policy = Map::new();
        limit(&mut policy, Some(asked.limit), Some(asked.limit_reset))?;
        let text = ApiKey::from_random(KeyEnv::Live, &random()?);
        let key = Key {
            public_id: text.public_id().to_owned(),
            name: asked.name,
            organisation: self.reach.organisation.clone(),
            workspace,
            secrets: vec![self.admin.secret(&text)],
            expires_at: asked.expires_at.unwrap_or_default(),
            role: KeyRole::Inference.into(),
            policy: self.admin.policy(Some(policy.into()))?,
            ..Key::default()
        };
        let create = CreateKey { key: Some(key), expected_revision: None };
        let applied = self.write(command::Body::CreateKey(create)).await?;
        let mut body = json!({ "data": self.now(&applied.name)? });
        if !applied.replayed {
            // Of a request that is answered again the text is no longer known to anybody here.
            body["key"] = text.expose().into();
        }
        Ok(Done { status: StatusCode::CREATED, body, revision: applied.revision })
    }

    async fn edit(&self) -> Result<Done, AdminError> {
        let asked: Edit = self.body()?;
        if let Some(name) = &asked.name {
            named(name)?;
        }
        refuse_own_keys(asked.include_byok_in_limit)?;
        let public_id = self.found()?.public_id;
        let mut tries = 0..EDITS;
        let applied = loop {
            tries.next();
            // A limit is a part of the policy: what becomes of the rest is decided on what the key was.
            let (policy, expected_revision) = match (&asked.limit, &asked.limit_reset) {
                (None, None) => (None, None),
                _ => {
                    let (key, revision) = self.newest(&public_id)?;
                    let mut policy = policy_of(&key);
                    limit(&mut policy, asked.limit.clone(), asked.limit_reset.clone())?;
                    (Some(self.admin.policy(Some(policy.into()))?), Some(revision))
                }
            };
            let edit = EditKey {
                public_id: public_id.clone(),
                name: asked.name.clone(),
                disabled: asked.disabled,
                expires_at: asked.expires_at.map(Option::unwrap_or_default),
                policy,
                expected_revision,
                ..EditKey::default()
            };
            match self.write(command::Body::EditKey(edit)).await {
                // Somebody else was faster; what is asked for can still be done.
                Err(error) if error.code == "conflict" && !tries.is_empty() => {}
                outcome => break outcome?,
            }
        };
        let revision = if applied.changed > 0 { applied.revision } else { 0 };
        Ok(Done { status: StatusCode::OK, body: json!({ "data": self.now(&public_id)? }), revision })
    }

    async fn delete(&self) -> Result<Done, AdminError> {
        let revoke = RevokeKeys { public_ids: vec![self.found()?.public_id], kill_streams: false };
        let applied = self.write(command::Body::RevokeKeys(revoke)).await?;
        Ok(Done { status: StatusCode::OK, body: json!({ "deleted": true }), revision: applied.revision })
    }

    fn reached(&self) -> impl Iterator<Item = Key> {
        let keys = self.state.newest().of_kind(Kind::Key);
        keys.filter_map(|(_, resource)| Key::decode(resource.body.clone()).ok()).filter(|key| self.reach.covers(key))
    }

    /// The key that is meant. One that is out of reach looks like none.
    fn found(&self) -> Result<Key, AdminError> {
        let handle = &self.asked.handle;
        let by_id = self.state.get(Kind::Key, handle).and_then(|resource| Key::decode(resource.body.clone()).ok());
        let found = match (by_id, blake3::Hash::from_hex(handle)) {
            (Some(key), _) => Some(key).filter(|key| self.reach.covers(key)),
            (None, Ok(digest)) => self.reached().find(|key| key.secrets.iter().any(|secret| secret.digest.as_ref() == digest.as_bytes())),
            (None, Err(_)) => None,
        };
        let shown: String = handle.chars().filter(|c| !c.is_control()).take(64).collect();
        found.ok_or_else(|| AdminError::not_found(format!("There is no key `{shown}`. GET /v1/keys lists the `hash` of each.")))
    }

    /// A key that was found, as it is by now, and the revision that made it so.
    fn newest(&self, public_id: &str) -> Result<(Key, u64), AdminError> {
        let state = self.admin.parts.published.load();
        let resource = state.get(Kind::Key, public_id);
        let key = resource.and_then(|resource| Some((Key::decode(resource.body.clone()).ok()?, resource.revision)));
        key.ok_or_else(|| AdminError::not_found("The key is gone."))
    }

    /// A key as it is after a change.
    fn now(&self, public_id: &str) -> Result<Value, AdminError> {
        let state = self.admin.parts.published.load();
        let key = state.get(Kind::Key, public_id).and_then(|resource| Key::decode(resource.body.clone()).ok());
        // The change is agreed on; what this node shows is behind by more than `Proposer::submit` waits, or somebody has revoked it since.
        let behind = || AdminError::unavailable("behind", "The change was made, but cannot be shown yet. Look at the key again.");
        key.as_ref().map(shown).ok_or_else(behind)
    }

    fn body<T: serde::de::DeserializeOwned>(&self) -> Result<T, AdminError> {
        serde_json::from_slice(&self.asked.body).map_err(|error| AdminError::bad_request(format!("The body cannot be used: {error}.")))
    }

    async fn write(&self, body: command::Body) -> Result<Applied, AdminError> {
        let actor = format!("key:{}", self.asked.public_id);
        let given = &self.asked.idempotency_key;
        if given.len() > MAX_IDEMPOTENCY_KEY {
            return Err(AdminError::bad_request(format!("`Idempotency-Key` has at most {MAX_IDEMPOTENCY_KEY} characters")));
        }
        // Names of one key cannot meet those of another.
        let request_id = if given.is_empty() { format!("auto/{:032x}", fastrand::u128(..)) } else { format!("{actor}/{given}") };
        let command = Command {
            actor,
            reason: format!("{} through {}", self.asked.operation().as_str_name().to_ascii_lowercase(), self.through),
            request_id,
            request_digest: self.digest(),
            body: Some(body),
            ..Command::default()
        };
        Ok(self.admin.parts.proposer.submit(command).await?)
    }

    /// BLAKE3 of what was asked.
    fn digest(&self) -> Bytes {
        let mut hasher = blake3::Hasher::new();
        for part in [self.asked.operation().as_str_name().as_bytes(), self.asked.handle.as_bytes(), &self.asked.body] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Bytes::copy_from_slice(hasher.finalize().as_bytes())
    }
}

impl Reach {
    fn covers(&self, key: &Key) -> bool {
        let all = |wanted: &str| wanted.is_empty();
        key.role() == KeyRole::Inference
            && (all(&self.organisation) || organisation_of(&self.owners, key) == self.organisation)
            && (all(&self.workspace) || key.workspace == self.workspace)
    }
}

/// Organisations of the workspaces.
fn owners(state: &State) -> HashMap<String, String> {
    let owner = |body: &Bytes| serde_json::from_slice::<Value>(body).ok()?.get("organisation")?.as_str().map(str::to_owned);
    let workspaces = state.newest().of_kind(Kind::Workspace);
    workspaces.filter_map(|(id, resource)| Some((id.name().to_owned(), owner(&resource.body)?))).collect()
}

/// A key in a workspace belongs to the workspace's organisation.
fn organisation_of<'a>(owners: &'a HashMap<String, String>, key: &'a Key) -> &'a str {
    owners.get(&key.workspace).unwrap_or(&key.organisation)
}

fn named(name: &str) -> Result<(), AdminError> {
    match name.trim() {
        "" => Err(AdminError::bad_request("A key has a `name`, for logs and bills.")),
        _ => Ok(()),
    }
}

fn refuse_own_keys(asked: Option<bool>) -> Result<(), AdminError> {
    match asked {
        Some(true) => Err(AdminError::bad_request(
            "`include_byok_in_limit` cannot be true: what providers bill to credentials of your own does not count against limits here.",
        )),
        Some(false) | None => Ok(()),
    }
}

/// Of what the key is made, in OpenRouter's words; moments as Unix seconds. What it has used is known to edges.
fn shown(key: &Key) -> Value {
    let policy = policy_of(key);
    let (limit, reset) = match spend(&policy) {
        Some((_, name, amount)) => (amount, RESETS.iter().find(|(known, _)| *known == name).and_then(|(_, reset)| *reset)),
        None => (Value::Null, None),
    };
    let first = key.secrets.first();
    json!({
        "hash": first.map(|secret| hex(&secret.digest)),
        "label": first.map(|secret| &secret.label),
        "name": key.name,
        "disabled": key.disabled,
        "limit": limit,
        "limit_reset": reset,
        "include_byok_in_limit": false,
        "created_at": key.created_at,
        "updated_at": null,
        "expires_at": (key.expires_at != 0).then_some(key.expires_at),
        "creator_user_id": null,
        "workspace_id": (!key.workspace.is_empty()).then_some(&key.workspace),
        "tidegate": { "id": key.public_id, "organisation": key.organisation, "creator": key.creator, "policy": policy },
    })
}

fn policy_of(key: &Key) -> Map<String, Value> {
    serde_json::from_slice(&key.policy).unwrap_or_default()
}

/// The one limit that OpenRouter's fields speak of: the first of the key's own that counts all its spending and refuses. Where it stands, its
/// name in the policy, and US dollars.
fn spend(policy: &Map<String, Value>) -> Option<(usize, &'static str, Value)> {
    let limits = policy.get("limits")?.as_array()?;
    limits.iter().enumerate().find_map(|(at, limit)| {
        let narrow = limit.get("model").is_some() || limit.get("provider").is_some() || limit.get("shadow") == Some(&Value::Bool(true));
        let (name, amount) = RESETS.iter().find_map(|(name, _)| Some((*name, limit.get(name)?)))?;
        // Decimals may be written as text.
        let amount = match amount.as_str() {
            Some(text) => text.parse::<Number>().map_or(Value::Null, Value::Number),
            None => amount.clone(),
        };
        (!narrow).then_some((at, name, amount))
    })
}

/// Writes `limit` and `limit_reset` into a policy; what is not given stays as it is. All other limits stay.
fn limit(policy: &mut Map<String, Value>, amount: Option<Option<Number>>, reset: Option<Option<String>>) -> Result<(), AdminError> {
    let known = spend(policy);
    let amount = match amount {
        Some(amount) => amount,
        None => known.as_ref().and_then(|(_, _, amount)| amount.as_number().cloned()),
    };
    let name = match reset {
        None => known.as_ref().map_or("spend_total", |(_, name, _)| *name),
        Some(reset) => match RESETS.iter().find(|(_, word)| *word == reset.as_deref()) {
            Some((name, _)) => *name,
            None => return Err(AdminError::bad_request("`limit_reset` is `daily`, `weekly`, `monthly` or null.")),
        },
    };
    if amount.as_ref().and_then(Number::as_f64).is_some_and(|amount| amount < 0.0) {
        return Err(AdminError::bad_request("`limit` is an amount of US dollars, 0 or more, or null for none."));
    }
    let limits = policy.entry("limits").or_insert_with(|| json!([]));
    let Some(limits) = limits.as_array_mut() else {
        return Err(AdminError::bad_request("The key's limits cannot be read. Set its policy through the admin API."));
    };
    match (known, amount) {
        (Some((at, old, _)), Some(amount)) => {
            // Beside the amount, a limit says how it is kept: when it warns, whether regions share it.
            if let Some(kept) = limits[at].as_object_mut() {
                kept.remove(old);
                kept.insert(name.to_owned(), amount.into());
            }
        }
        (Some((at, ..)), None) => drop(limits.remove(at)),
        (None, Some(amount)) => limits.push(json!({ name: amount })),
        (None, None) => {}
    }
    if limits.is_empty() {
        policy.remove("limits");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        text.parse().unwrap()
    }

    #[test]
    fn the_limit_of_a_key_is_one_item_of_its_policy() {
        let mut policy = Map::new();
        limit(&mut policy, Some(Some(number("10.5"))), Some(Some("daily".into()))).unwrap();
        assert_eq!(Value::from(policy.clone()), json!({ "limits": [{ "spend_per_day": 10.5 }] }));
        limit(&mut policy, Some(Some(number("3"))), None).unwrap();
        assert_eq!(policy["limits"], json!([{ "spend_per_day": 3 }]), "the time stays");
        limit(&mut policy, None, Some(None)).unwrap();
        assert_eq!(policy["limits"], json!([{ "spend_total": 3 }]), "the amount stays");
        limit(&mut policy, Some(None), None).unwrap();
        assert!(policy.is_empty());
    }

    #[test]
    fn other_limits_are_left_alone() {
        let narrow = json!({ "spend_per_day": 1, "model": "acme/one" });
        let kept =
            json!({ "limits": [{ "requests_per_minute": 60 }, narrow, { "spend_per_month": "20.00", "warn_at": 80 }], "mode": "fast" });
        let Value::Object(mut policy) = kept else { unreachable!() };
        assert_eq!(spend(&policy), Some((2, "spend_per_month", json!(20.0))));
        limit(&mut policy, Some(Some(number("7"))), Some(Some("weekly".into()))).unwrap();
        assert_eq!(policy["limits"], json!([{ "requests_per_minute": 60 }, narrow, { "spend_per_week": 7, "warn_at": 80 }]));
        limit(&mut policy, Some(None), Some(None)).unwrap();
        assert_eq!(Value::from(policy), json!({ "limits": [{ "requests_per_minute": 60 }, narrow], "mode": "fast" }));
    }

    #[test]
    fn amounts_and_times_that_make_no_sense_are_refused() {
        for (amount, reset) in [("-1", None), ("1", Some("hourly".to_owned()))] {
            assert!(limit(&mut Map::new(), Some(Some(number(amount))), Some(reset)).is_err());
        }
    }

    #[test]
    fn a_management_key_reaches_inference_keys_of_its_owner() {
        let owners: HashMap<_, _> = [("search".to_owned(), "acme".to_owned())].into();
        let key =
            |organisation: &str, workspace: &str| Key { organisation: organisation.into(), workspace: workspace.into(), ..Key::default() };
        let reach = |organisation: &str, workspace: &str| Reach {
            organisation: organisation.into(),
            workspace: workspace.into(),
            owners: owners.clone(),
        };
        for (covers, reach, key) in [
            (true, reach("", ""), key("other", "")),
            (true, reach("acme", ""), key("acme", "")),
            (true, reach("acme", ""), key("", "search")),
            (false, reach("acme", ""), key("other", "")),
            (false, reach("acme", ""), key("", "")),
            (true, reach("acme", "search"), key("acme", "search")),
            (false, reach("acme", "search"), key("acme", "")),
        ] {
            assert_eq!(reach.covers(&key), covers, "{key:?}");
            assert!(!reach.covers(&Key { role: KeyRole::Management.into(), ..key }), "never one of its kind");
        }
    }
}
