//! Who is calling: API keys, known only by their digests.
//!
//! A key is found by its BLAKE3 digest, keyed with the mesh's pepper when there is one. A digest of 256 random bits cannot be guessed
//! or steered, so looking it up in a hash map leaks nothing; a slow password hash would only be a self-made denial of service. An
//! unknown key costs the same work as a known one. Failed checks are counted per address, and a guesser is told to wait.

mod account;
mod contact;
mod cuts;
mod keys;
mod limiter;
mod policy;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, header};
use secrecy::SecretString;
use subtle::ConstantTimeEq;
use tidegate_routing::{Mode, Preferences};
use tidegate_runtime::api_key::Digester;

use crate::config::{Defaults, KeyConfig, KeyPolicy};
use crate::hash;
use crate::quota::NearEnd;
use account::Own;
pub(crate) use account::{Account, Membership, Owners};
pub use account::{UnknownKey, limits_of};
pub(crate) use contact::Contact;
pub(crate) use cuts::Cuts;
pub(crate) use keys::Keys;
pub(crate) use limiter::{FailureLimiter, WINDOW};
pub use policy::ReadPolicy;
pub(crate) use policy::{Policies, Policy};

/// The digest by which a key is known: BLAKE3 in keyed mode when a pepper is given (its own BLAKE3 hash is the key), plain otherwise.
#[must_use]
pub fn digest(key: &str, pepper: Option<&SecretString>) -> [u8; 32] {
    Digester::new(pepper).digest(key)
}

/// A caller that may be served. One per key, and there may be a million keys: what many keys share stands in [`Policy`].
#[derive(Debug)]
pub(crate) struct Caller {
    /// Name in logs and records.
    pub(crate) name: Arc<str>,
    /// What the key is known by to those who manage it; the name for a key of a file, empty for anonymous callers.
    pub(crate) public_id: Arc<str>,
    /// Mixes into affinity keys and hashed user ids, so that two keys never share either.
    pub(crate) salt: u64,
    pub(crate) policy: Arc<Policy>,
    pub(crate) first: Secret,
    /// While a key is rotated, both of its secrets hold.
    pub(crate) second: Option<Box<Secret>>,
    /// Unix seconds after which the key is refused; 0 means never.
    pub(crate) expires_at: u64,
    /// Log index of the key's last change; 0 for a key of a file.
    pub(crate) revision: u64,
    pub(crate) disabled: bool,
    /// Manages other keys; cannot call models.
    pub(crate) management: bool,
    /// Shared by the keys of one owner.
    pub(crate) membership: Arc<Membership>,
    /// See [`Caller::resolve`].
    account: ArcSwapOption<Account>,
    /// A spend budget is near its end, so that the most an answer can cost is held.
    pub(crate) near_end: NearEnd,
    /// When a request of this caller last ended whose settlement a remote store has to be told, microseconds.
    pub(crate) ended_at: AtomicU64,
}

/// A secret, known by its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) digest: [u8; 32],
    /// Unix seconds after which the secret is refused; 0 means never.
    pub(crate) expires_at: u64,
}

impl Secret {
    fn is(&self, digest: &[u8; 32]) -> bool {
        bool::from(self.digest.ct_eq(digest))
    }
}

/// Why a caller is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthFailure {
    Missing,
    Unknown,
    Disabled,
    Expired,
    /// The edge has not heard of the control plane for so long that it cannot tell.
    Undecided,
    /// It was taken away while it was in use.
    Revoked,
    /// A management key wants to call a model.
    Management,
    /// A key that calls models wants to manage keys.
    Inference,
}

impl AuthFailure {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Missing => "No API key given. Send it as `Authorization: Bearer <key>`.",
            Self::Unknown => "The API key is not known here. Check it for typing errors, or ask for a new one.",
            Self::Disabled => "The API key is disabled. Ask whoever manages keys to enable it.",
            Self::Expired => "The API key has expired. Ask whoever manages keys for a new one.",
            Self::Undecided => "This edge cannot tell at the moment whether the API key is valid. Try again shortly.",
            Self::Revoked => "The API key of this request was revoked.",
            Self::Management => "This API key manages other keys; it cannot call models.",
            Self::Inference => "This API key calls models; managing keys takes a management key.",
        }
    }
}

impl Caller {
    /// A key of a file. `previous` lends its policy when it is the same.
    fn of_config(key: &KeyConfig, previous: Option<&Caller>, defaults: &Defaults) -> Self {
        let own = KeyPolicy::of(key);
        let policy = match previous {
            Some(previous) if previous.policy.own == own => Arc::clone(&previous.policy),
            _ => Policy::new(own, &defaults.preferences, Bytes::new()),
        };
        let name: Arc<str> = key.name.as_str().into();
        let membership = Membership::of_config(key);
        let membership = match previous {
            Some(previous) if *previous.membership == membership => Arc::clone(&previous.membership),
            _ => Arc::new(membership),
        };
        Self {
            public_id: Arc::clone(&name),
            name,
            salt: u64::from_le_bytes(key.digest[..8].try_into().unwrap_or_default()),
            policy,
            first: Secret { digest: key.digest, expires_at: 0 },
            second: None,
            expires_at: key.expires_at.unwrap_or(0),
            revision: 0,
            disabled: key.disabled,
            management: false,
            membership,
            account: ArcSwapOption::empty(),
            near_end: NearEnd::new(false),
            ended_at: AtomicU64::new(0),
        }
    }

    fn anonymous(defaults: &Defaults) -> Self {
        Self {
            name: "anonymous".into(),
            public_id: "".into(),
            salt: 0,
            policy: Policy::new(KeyPolicy::default(), &defaults.preferences, Bytes::new()),
            first: Secret::default(),
            second: None,
            expires_at: 0,
            revision: 0,
            disabled: false,
            management: false,
            membership: Arc::default(),
            account: ArcSwapOption::empty(),
            near_end: NearEnd::new(false),
            ended_at: AtomicU64::new(0),
        }
    }

    /// A key of the agreed state; says what is wrong with it otherwise.
    pub(crate) fn of_agreed(key: &tidegate_proto::v1::Key, revision: u64, policies: &mut Policies) -> Result<Self, String> {
        let mut secrets = key.secrets.iter().map(|secret| match secret.digest.as_ref().try_into() {
            Ok(digest) => Ok(Secret { digest, expires_at: secret.expires_at }),
            Err(_) => Err(format!("a digest has 32 bytes, this one {}", secret.digest.len())),
        });
        let first = secrets.next().ok_or("a key without a secret")??;
        let second = secrets.next().transpose()?.map(Box::new);
        if secrets.next().is_some() {
            return Err("a key with more than two secrets".to_owned());
        }
        let public_id: Arc<str> = key.public_id.as_str().into();
        if public_id.is_empty() {
            return Err("a key without an id".to_owned());
        }
        Ok(Self {
            name: if key.name == key.public_id { Arc::clone(&public_id) } else { key.name.as_str().into() },
            // Not of a secret: a rotation must not move conversations away from the caches that they warmed.
            salt: hash::of(&[public_id.as_bytes()]),
            public_id,
            policy: policies.get(&key.policy)?,
            first,
            second,
            expires_at: key.expires_at,
            revision,
            disabled: key.disabled,
            management: key.role() == tidegate_proto::v1::KeyRole::Management,
            membership: policies.membership(&key.organisation, &key.workspace),
            account: ArcSwapOption::empty(),
            near_end: NearEnd::new(false),
            ended_at: AtomicU64::new(0),
        })
    }

    /// The message that this caller was made from, as far as an edge needs it: to be kept over a restart.
    pub(crate) fn to_agreed(&self) -> tidegate_proto::v1::Key {
        use tidegate_proto::v1::{Key, KeyRole, KeySecret};
        let secret = |secret: &Secret| KeySecret {
            digest: Bytes::copy_from_slice(&secret.digest),
            expires_at: secret.expires_at,
            ..KeySecret::default()
        };
        let role = if self.management { KeyRole::Management } else { KeyRole::Inference };
        Key {
            public_id: self.public_id.to_string(),
            name: self.name.to_string(),
            secrets: self.secrets().map(secret).collect(),
            disabled: self.disabled,
            expires_at: self.expires_at,
            role: role.into(),
            policy: self.policy.source.clone(),
            organisation: self.membership.organisation.as_deref().unwrap_or_default().to_owned(),
            workspace: self.membership.workspace.as_deref().unwrap_or_default().to_owned(),
            ..Key::default()
        }
    }

    /// The same key, refused from now on.
    pub(crate) fn refused(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            public_id: Arc::clone(&self.public_id),
            policy: Arc::clone(&self.policy),
            first: self.first.clone(),
            second: self.second.clone(),
            disabled: true,
            membership: Arc::clone(&self.membership),
            account: ArcSwapOption::empty(),
            near_end: NearEnd::new(false),
            ended_at: AtomicU64::new(0),
            ..*self
        }
    }

    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.first).chain(self.second.as_deref())
    }

    fn secret(&self, digest: &[u8; 32]) -> Option<&Secret> {
        self.secrets().find(|secret| secret.is(digest))
    }

    /// By which its use is recorded and counted: the id, which is unique where names need not be.
    pub(crate) fn counted_as(&self) -> &Arc<str> {
        if self.public_id.is_empty() { &self.name } else { &self.public_id }
    }

    /// The account under these owners: put together when they are new to this key, kept otherwise. A key of the agreed state whose owner
    /// is not there, or whose limits cannot be counted, has an account without them, and a log line says so.
    pub(crate) fn resolve(&self, owners: &Arc<Owners>) -> Arc<Account> {
        if let Some(known) = self.account.load().as_ref().filter(|known| known.is_of(owners)) {
            return Arc::clone(known);
        }
        let policy = &self.policy.own;
        let own = Own { key: self.counted_as(), membership: &self.membership, limits: &policy.limits, on_store_down: policy.on_store_down };
        let account = Account::of(&own, owners).unwrap_or_else(|error| {
            tracing::warn!(key = %self.counted_as(), error, "this key is served without its organisation's limits");
            Account::of(&Own { membership: &Membership::default(), ..own }, owners).unwrap_or_else(|_| Account::none(owners))
        });
        let account = Arc::new(account);
        self.account.store(Some(Arc::clone(&account)));
        account
    }

    /// The account as last put together.
    pub(crate) fn account(&self) -> Arc<Account> {
        self.account.load_full().unwrap_or_else(|| self.resolve(&Arc::default()))
    }

    /// What this key is asked and what it is answered may be stored.
    pub(crate) fn stores_content(&self) -> bool {
        self.policy.own.store_content
    }

    /// Holds for every request; requests can only tighten it.
    pub(crate) fn preferences(&self) -> Arc<Preferences> {
        self.policy.preferences()
    }

    /// Strategy of this key's requests, unless they say otherwise.
    pub(crate) fn mode(&self) -> Option<Mode> {
        self.policy.own.mode
    }

    /// The models this key may name; empty means all.
    pub(crate) fn allowed_models(&self) -> &[String] {
        &self.policy.own.allowed_models
    }

    /// Hex digest, shown by `GET /key`; empty for anonymous callers.
    pub(crate) fn hash(&self) -> String {
        if self.public_id.is_empty() {
            return String::new();
        }
        self.first.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How long this key is served without word from the control plane, unless the mesh's time holds.
    pub(crate) fn grace(&self) -> Option<Duration> {
        self.policy.own.grace
    }

    /// Show the provider's own error body.
    pub(crate) fn raw_errors(&self) -> bool {
        self.policy.own.raw_errors
    }

    /// What goes upstream instead of the caller's end-user id: stable per key and user, and meaningless elsewhere.
    pub(crate) fn hashed_user(&self, user: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(user.as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// The key that was sent, as it was sent.
pub(crate) fn key_of(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().ok()?;
        let (scheme, key) = value.split_once(' ')?;
        let key = key.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key);
    }
    let key = headers.get("x-api-key")?.to_str().ok()?.trim();
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pepper_changes_the_digest() {
        let pepper = SecretString::from("pepper");
        assert_ne!(digest("secret", None), digest("secret", Some(&pepper)));
    }
}
