//! Who is calling: API keys, known only by their digests.
//!
//! A key is found by its BLAKE3 digest, keyed with the mesh's pepper when there is one. A digest of 256 random bits cannot be guessed
//! or steered, so looking it up in a hash map leaks nothing; a slow password hash would only be a self-made denial of service. An
//! unknown key costs the same work as a known one. Failed checks are counted per address, and a guesser is told to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, header};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tidegate_ledger::Fee;
use tidegate_quota::{LimitSet, Subject};
use tidegate_routing::Preferences;

use crate::config::{Defaults, KeyConfig, MeshConfig, OrganisationConfig, WorkspaceConfig};
use crate::quota::NearEnd;

/// The digest by which a key is known: BLAKE3 in keyed mode when a pepper is given (its own BLAKE3 hash is the key), plain otherwise.
#[must_use]
pub fn digest(key: &str, pepper: Option<&SecretString>) -> [u8; 32] {
    Digester::new(pepper).digest(key)
}

/// [`digest`] with the pepper prepared once.
#[derive(Clone)]
struct Digester(Option<[u8; 32]>);

impl Digester {
    fn new(pepper: Option<&SecretString>) -> Self {
        Self(pepper.map(|pepper| *blake3::hash(pepper.expose_secret().as_bytes()).as_bytes()))
    }

    fn digest(&self, key: &str) -> [u8; 32] {
        match &self.0 {
            Some(pepper) => *blake3::keyed_hash(pepper, key.as_bytes()).as_bytes(),
            None => *blake3::hash(key.as_bytes()).as_bytes(),
        }
    }
}

/// A caller that may be served.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Name in logs and records.
    pub(crate) name: Arc<str>,
    /// Mixes into affinity keys and hashed user ids, so that two keys never share either.
    pub(crate) salt: u64,
    /// Hex digest, shown by `GET /key`; empty for anonymous callers.
    pub(crate) hash: String,
    /// Holds for every request; requests can only tighten it.
    pub(crate) preferences: Arc<Preferences>,
    /// The key's configuration; `None` for anonymous callers.
    pub(crate) config: Option<KeyConfig>,
    /// Who pays.
    pub(crate) organisation: Option<Arc<str>>,
    pub(crate) workspace: Option<Arc<str>>,
    /// What the organisation pays on top.
    pub(crate) fee: Fee,
    /// Limits of the key, its workspace and its organisation; `None` without any.
    pub(crate) limits: Option<Arc<LimitSet>>,
    /// A spend budget is near its end, so that the most an answer can cost is held.
    pub(crate) near_end: NearEnd,
    /// When a request of this caller last ended whose settlement a remote store has to be told, microseconds.
    pub(crate) ended_at: AtomicU64,
    /// Credits that its organisation has bought, micro-dollars; `None` when nothing is prepaid.
    pub(crate) credits: Option<u64>,
}

/// Why a caller is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthFailure {
    Missing,
    Unknown,
    Disabled,
    Expired,
}

impl AuthFailure {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Missing => "No API key given. Send it as `Authorization: Bearer <key>`.",
            Self::Unknown => "The API key is not known here. Check it for typing errors, or ask for a new one.",
            Self::Disabled => "The API key is disabled. Ask whoever manages keys to enable it.",
            Self::Expired => "The API key has expired. Ask whoever manages keys for a new one.",
        }
    }
}

/// All keys of one configuration.
pub(crate) struct Keys {
    digester: Digester,
    callers: HashMap<[u8; 32], Arc<Caller>>,
    anonymous: Option<Arc<Caller>>,
}

impl Keys {
    /// Compiles the keys; what is wrong with their limits is named by key.
    pub(crate) fn new(
        keys: &[KeyConfig],
        owners: Owners<'_>,
        pepper: Option<&SecretString>,
        defaults: &Defaults,
    ) -> Result<Self, Vec<(String, String)>> {
        let anonymous = defaults.anonymous.then(|| {
            Arc::new(Caller {
                name: "anonymous".into(),
                salt: 0,
                hash: String::new(),
                preferences: Arc::new(defaults.preferences.clone()),
                config: None,
                organisation: None,
                workspace: None,
                fee: Fee::default(),
                limits: None,
                near_end: NearEnd::new(false),
                ended_at: AtomicU64::new(0),
                credits: None,
            })
        });
        let mut problems = Vec::new();
        let mut callers = HashMap::with_capacity(keys.len());
        for key in keys {
            match Caller::of(key, owners, defaults) {
                Ok(caller) => {
                    callers.insert(key.digest, Arc::new(caller));
                }
                Err(message) => problems.push((key.name.clone(), message)),
            }
        }
        if problems.is_empty() { Ok(Self { digester: Digester::new(pepper), callers, anonymous }) } else { Err(problems) }
    }

    /// Everybody who may call with a key.
    pub(crate) fn callers(&self) -> impl Iterator<Item = &Arc<Caller>> {
        self.callers.values()
    }

    /// Finds the caller of a request. The key may stand in `Authorization: Bearer` or in `x-api-key`, as SDKs differ.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, unix_now: u64) -> Result<Arc<Caller>, AuthFailure> {
        let Some(key) = key_of(headers) else {
            return self.anonymous.clone().ok_or(AuthFailure::Missing);
        };
        let digest = self.digester.digest(key);
        let Some((known, caller)) = self.callers.get_key_value(&digest) else { return Err(AuthFailure::Unknown) };
        if !bool::from(known.ct_eq(&digest)) {
            return Err(AuthFailure::Unknown);
        }
        let Some(config) = &caller.config else { return Err(AuthFailure::Unknown) };
        if config.disabled {
            return Err(AuthFailure::Disabled);
        }
        if config.expires_at.is_some_and(|expires_at| expires_at <= unix_now) {
            return Err(AuthFailure::Expired);
        }
        Ok(Arc::clone(caller))
    }
}

impl Caller {
    fn of(key: &KeyConfig, owners: Owners<'_>, defaults: &Defaults) -> Result<Self, String> {
        let salt = u64::from_le_bytes(key.digest[..8].try_into().unwrap_or_default());
        let workspace = match &key.workspace {
            None => None,
            Some(name) => {
                let found = owners.workspaces.iter().find(|workspace| workspace.name == *name);
                Some(found.ok_or_else(|| format!("there is no workspace `{name}`"))?)
            }
        };
        // A key in a workspace belongs to the workspace's organisation.
        let named = workspace.map(|workspace| &workspace.organisation).or(key.organisation.as_ref());
        if let (Some(named), Some(own)) = (named, &key.organisation)
            && named != own
        {
            return Err(format!("the workspace belongs to `{named}`, not to `{own}`"));
        }
        let organisation = match named {
            None => None,
            Some(name) => {
                let found = owners.organisations.iter().find(|organisation| organisation.name == *name);
                Some(found.ok_or_else(|| format!("there is no organisation `{name}`"))?)
            }
        };
        let limits = compile(key, workspace, organisation)?;
        Ok(Self {
            organisation: organisation.map(|organisation| organisation.name.as_str().into()),
            workspace: workspace.map(|workspace| workspace.name.as_str().into()),
            fee: organisation.map(|organisation| organisation.fee).unwrap_or_default(),
            credits: organisation.and_then(|organisation| organisation.credits),
            limits: limits.map(Arc::new),
            near_end: NearEnd::new(false),
            ended_at: AtomicU64::new(0),
            name: key.name.as_str().into(),
            salt,
            hash: key.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            preferences: Arc::new(Preferences::merge(&defaults.preferences, key.preferences.clone())),
            config: Some(key.clone()),
        })
    }

    /// What this key is asked and what it is answered may be stored.
    pub(crate) fn stores_content(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.store_content)
    }

    /// The caller may use this model.
    pub(crate) fn may_use(&self, slug: &str) -> bool {
        let Some(config) = &self.config else { return true };
        config.allowed_models.is_empty() || config.allowed_models.iter().any(|allowed| allowed == slug)
    }

    /// Show the provider's own error body.
    pub(crate) fn raw_errors(&self) -> bool {
        self.config.as_ref().is_some_and(|config| config.raw_errors)
    }

    /// What goes upstream instead of the caller's end-user id: stable per key and user, and meaningless elsewhere.
    pub(crate) fn hashed_user(&self, user: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(user.as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// Organisations and workspaces that keys refer to.
#[derive(Clone, Copy)]
pub(crate) struct Owners<'a> {
    pub(crate) organisations: &'a [OrganisationConfig],
    pub(crate) workspaces: &'a [WorkspaceConfig],
}

/// The limits of a key of this name, with those of its workspace and its organisation; `None` when there are none.
///
/// # Errors
/// No such key, or limits that cannot be counted.
pub fn limits_of(config: &MeshConfig, key: &str) -> Result<Option<Arc<LimitSet>>, UnknownKey> {
    let found = config.keys.iter().find(|one| one.name == key);
    let key = found.ok_or_else(|| UnknownKey(format!("there is no key `{key}` in this configuration")))?;
    let owners = Owners { organisations: &config.organisations, workspaces: &config.workspaces };
    Ok(Caller::of(key, owners, &config.defaults).map_err(UnknownKey)?.limits)
}

/// Why the limits of a key cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownKey(String);

/// The limits of a key, its workspace and its organisation together.
fn compile(
    key: &KeyConfig,
    workspace: Option<&WorkspaceConfig>,
    organisation: Option<&OrganisationConfig>,
) -> Result<Option<LimitSet>, String> {
    let mut limits = key.limits.clone();
    limits.extend(workspace.iter().flat_map(|workspace| workspace.limits.iter().cloned()));
    limits.extend(organisation.iter().flat_map(|organisation| organisation.limits.iter().cloned()));
    if limits.is_empty() {
        return Ok(None);
    }
    let subject = Subject {
        // A key without an organisation counts by itself.
        organisation: organisation.map_or_else(|| format!("key:{}", key.name).into(), |organisation| organisation.name.as_str().into()),
        workspace: workspace.map(|workspace| workspace.name.as_str().into()),
        key: key.name.as_str().into(),
    };
    LimitSet::compile(subject, &limits, key.on_store_down).map(Some).map_err(|error| error.to_string())
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().ok()?;
        let (scheme, key) = value.split_once(' ')?;
        let key = key.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key);
    }
    let key = headers.get("x-api-key")?.to_str().ok()?.trim();
    (!key.is_empty()).then_some(key)
}

/// Counts failed checks per address, in windows of a minute. Memory is bounded by the cache's capacity.
pub(crate) struct FailureLimiter {
    failures: Cache<IpAddr, Arc<AtomicU32>>,
    most: u32,
    /// Microseconds of the latest failure: while nobody fails, nobody pays for the look-up.
    latest: AtomicU64,
}

impl FailureLimiter {
    pub(crate) fn new(most: u32) -> Self {
        let failures = Cache::builder().max_capacity(ADDRESSES).time_to_live(WINDOW).build();
        Self { failures, most, latest: AtomicU64::new(0) }
    }

    /// True when this address has failed too often within the last minute.
    pub(crate) fn is_blocked(&self, address: IpAddr, now_micros: u64) -> bool {
        let latest = self.latest.load(Ordering::Relaxed);
        if self.most == 0 || latest == 0 || now_micros.saturating_sub(latest) > WINDOW.as_micros() as u64 {
            return false;
        }
        self.failures.get(&address).is_some_and(|count| count.load(Ordering::Relaxed) >= self.most)
    }

    /// Notes a failed check.
    pub(crate) fn failed(&self, address: IpAddr, now_micros: u64) {
        if self.most == 0 {
            return;
        }
        self.latest.store(now_micros.max(1), Ordering::Relaxed);
        self.failures.get_with(address, Arc::default).fetch_add(1, Ordering::Relaxed);
    }
}

/// Failures are counted over this, and forgotten after it.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered at once.
const ADDRESSES: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &str) -> KeyConfig {
        KeyConfig {
            name: "team".to_owned(),
            digest: digest(secret, None),
            disabled: false,
            expires_at: Some(1_000),
            allowed_models: vec!["a/b".to_owned()],
            preferences: Preferences::default(),
            mode: None,
            raw_errors: false,
            ..KeyConfig::new("team", digest(secret, None))
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header value of this test"));
        headers
    }

    #[test]
    fn either_header_is_accepted_and_wrong_keys_are_told_apart() {
        let disabled = KeyConfig { disabled: true, ..key("off") };
        let keys = Keys::new(&[key("secret"), disabled], NOBODY, None, &Defaults::default()).expect("good keys");
        let check = |headers: HeaderMap, now| keys.authenticate(&headers, now).map(|caller| caller.name.to_string());
        assert_eq!(check(headers("authorization", "Bearer secret"), 999), Ok("team".to_owned()));
        assert_eq!(check(headers("authorization", "bearer  secret "), 999), Ok("team".to_owned()));
        assert_eq!(check(headers("x-api-key", "secret"), 999), Ok("team".to_owned()));
        assert_eq!(check(headers("authorization", "Bearer secret"), 1_000), Err(AuthFailure::Expired));
        assert_eq!(check(headers("authorization", "Bearer off"), 1), Err(AuthFailure::Disabled));
        assert_eq!(check(headers("authorization", "Bearer other"), 1), Err(AuthFailure::Unknown));
        assert_eq!(check(headers("authorization", "Basic secret"), 1), Err(AuthFailure::Missing));
        assert_eq!(check(HeaderMap::new(), 1), Err(AuthFailure::Missing));
    }

    const NOBODY: Owners<'static> = Owners { organisations: &[], workspaces: &[] };

    #[test]
    fn a_key_counts_with_its_workspace_and_its_organisation() {
        let limit = |scope| tidegate_quota::Limit::new(scope, tidegate_quota::Dimension::RequestsPerMinute, 5);
        let organisations = [OrganisationConfig {
            limits: vec![limit(tidegate_quota::Scope::Organisation)],
            fee: Fee { markup_ppm: 50_000, own_key_ppm: 0 },
            ..OrganisationConfig::new("acme")
        }];
        let workspaces =
            [WorkspaceConfig { limits: vec![limit(tidegate_quota::Scope::Workspace)], ..WorkspaceConfig::new("search", "acme") }];
        let owners = Owners { organisations: &organisations, workspaces: &workspaces };
        let member = KeyConfig { workspace: Some("search".to_owned()), ..key("secret") };
        let caller = Caller::of(&member, owners, &Defaults::default()).expect("a good key");
        assert_eq!((caller.organisation.as_deref(), caller.workspace.as_deref()), (Some("acme"), Some("search")));
        assert_eq!(caller.fee.markup_ppm, 50_000);
        let limits = caller.limits.expect("inherited limits");
        assert_eq!(limits.buckets(limits.select_all()).count(), 2);
        for (organisation, workspace, why) in [
            (None, Some("other"), "no workspace"),
            (Some("other"), None, "no organisation"),
            (Some("other"), Some("search"), "belongs to `acme`"),
        ] {
            let wrong =
                KeyConfig { organisation: organisation.map(str::to_owned), workspace: workspace.map(str::to_owned), ..key("secret") };
            let error = Caller::of(&wrong, owners, &Defaults::default()).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_pepper_changes_the_digest() {
        let pepper = SecretString::from("pepper");
        assert_ne!(digest("secret", None), digest("secret", Some(&pepper)));
    }

    #[test]
    fn a_guesser_is_blocked_and_others_are_not() {
        let limiter = FailureLimiter::new(2);
        let (guesser, other) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        assert!(!limiter.is_blocked(guesser, 5));
        limiter.failed(guesser, 5);
        limiter.failed(guesser, 6);
        assert!(limiter.is_blocked(guesser, 7));
        assert!(!limiter.is_blocked(other, 7));
        assert!(!limiter.is_blocked(guesser, 7 + 61_000_000), "nobody failed for a minute");
    }
}
