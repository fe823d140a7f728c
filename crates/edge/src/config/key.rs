//! Who may call, and what.

use std::time::Duration;

use tidegate_quota::{Limit, StoreDown};
use tidegate_routing::{Mode, Preferences};

/// One caller's key.
#[derive(Debug, Clone)]
pub struct KeyConfig {
    /// Name in logs and records; never the key itself.
    pub name: String,
    /// Digest as made by [`crate::auth::digest`], 32 bytes.
    pub digest: [u8; 32],
    /// A disabled key is refused.
    pub disabled: bool,
    /// Unix time after which the key is refused, seconds.
    pub expires_at: Option<u64>,
    /// Models this key may name; empty means all.
    pub allowed_models: Vec<String>,
    /// Preferences that hold for every request of this key; requests can only tighten them.
    pub preferences: Preferences,
    /// Strategy unless the request says otherwise.
    pub mode: Option<Mode>,
    /// Ask a second provider when the first token of a stream takes long; both are billed.
    pub hedge: bool,
    /// Show the provider's own error body in `error.metadata.raw`.
    pub raw_errors: bool,
    /// Who pays; the workspace's organisation when absent.
    pub organisation: Option<String>,
    /// Part of an organisation.
    pub workspace: Option<String>,
    /// Limits of this key; those of its workspace and organisation hold too.
    pub limits: Vec<Limit>,
    /// What it may do while its use cannot be counted.
    pub on_store_down: StoreDown,
    /// Prompts and answers are stored, where a place for them is configured.
    pub store_content: bool,
}

impl KeyConfig {
    /// A key that may do everything, without limits.
    #[must_use]
    pub fn new(name: impl Into<String>, digest: [u8; 32]) -> Self {
        Self {
            name: name.into(),
            digest,
            disabled: false,
            expires_at: None,
            allowed_models: Vec::new(),
            preferences: Preferences::default(),
            mode: None,
            hedge: false,
            raw_errors: false,
            organisation: None,
            workspace: None,
            limits: Vec::new(),
            on_store_down: StoreDown::default(),
            store_content: false,
        }
    }
}

/// What a key may do besides being valid: the part that many keys have in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyPolicy {
    /// Models this key may name; empty means all.
    pub allowed_models: Vec<String>,
    /// Preferences that hold for every request of this key; requests can only tighten them.
    pub preferences: Preferences,
    /// Strategy unless the request says otherwise.
    pub mode: Option<Mode>,
    /// Send a second attempt to another provider when the first token of a stream takes long.
    pub hedge: bool,
    /// Show the provider's own error body in `error.metadata.raw`.
    pub raw_errors: bool,
    /// Limits of the key itself; those of its workspace and organisation hold too.
    pub limits: Vec<Limit>,
    /// What it may do while its use cannot be counted.
    pub on_store_down: StoreDown,
    /// Prompts and answers are stored, where a place for them is configured.
    pub store_content: bool,
    /// How long the key is served without word from the control plane; `None` leaves it to [`ControlLinkConfig::key_grace`](super::ControlLinkConfig::key_grace).
    pub grace: Option<Duration>,
}

impl KeyPolicy {
    /// The policy of a key of a file.
    #[must_use]
    pub fn of(key: &KeyConfig) -> Self {
        Self {
            allowed_models: key.allowed_models.clone(),
            preferences: key.preferences.clone(),
            mode: key.mode,
            hedge: key.hedge,
            raw_errors: key.raw_errors,
            limits: key.limits.clone(),
            on_store_down: key.on_store_down,
            store_content: key.store_content,
            grace: None,
        }
    }
}
