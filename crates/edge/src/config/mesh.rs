//! What a reload replaces.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use tidegate_routing::{Mode, Preferences, Settings};

use super::{EndpointConfig, KeyConfig, ModelConfig, OrganisationConfig, ProviderConfig, WorkspaceConfig};

/// What a reload replaces.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// Number of this configuration; grows with each reload of a process.
    pub revision: u64,
    /// Vendors and our accounts there.
    pub providers: Vec<ProviderConfig>,
    /// What callers can name.
    pub models: Vec<ModelConfig>,
    /// Which provider serves which model, and for how much.
    pub endpoints: Vec<EndpointConfig>,
    /// Who pays for keys.
    pub organisations: Vec<OrganisationConfig>,
    /// Parts of organisations.
    pub workspaces: Vec<WorkspaceConfig>,
    /// Who may call.
    pub keys: Vec<KeyConfig>,
    /// Key of the digest function (BLAKE3 keyed mode); `None` uses plain BLAKE3.
    pub keys_pepper: Option<SecretString>,
    /// Named request fragments (`@preset/slug`).
    pub presets: Vec<PresetConfig>,
    /// What holds when neither key nor request say otherwise.
    pub defaults: Defaults,
    /// Constants of health, breakers and weights.
    pub settings: Settings,
}

/// A named request fragment.
#[derive(Clone)]
pub struct PresetConfig {
    /// As in `@preset/slug`.
    pub slug: String,
    /// JSON object of request fields; the request wins.
    pub fields: String,
}

/// A preset holds prompts, which are nobody's business but its users'.
impl fmt::Debug for PresetConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PresetConfig").field("slug", &self.slug).finish_non_exhaustive()
    }
}

/// What holds when neither key nor request say otherwise.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Model of a request that names none.
    pub model: Option<String>,
    /// Strategy.
    pub mode: Mode,
    /// Preferences that hold for every request.
    pub preferences: Preferences,
    /// Total time of a request.
    pub deadline: Duration,
    /// Attempts per request, the first one included.
    pub max_attempts: u8,
    /// Requests without a key are served (for `tidegate dev` behind loopback only).
    pub anonymous: bool,
    /// Keep a conversation on the endpoint whose prompt cache it warmed.
    pub sticky: bool,
    /// Least time that a conversation stays there after its last use; longer where the endpoint's cache lives longer.
    pub sticky_for: Duration,
    /// The regions that share limits declared `global`; fewer than two share nothing. Of use only where a control plane is followed.
    pub quota_regions: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            model: None,
            mode: Mode::Balanced,
            preferences: Preferences::default(),
            deadline: Duration::from_secs(600),
            max_attempts: 3,
            anonymous: false,
            sticky: true,
            // OpenRouter's documented time; shorter would give up caches that still live.
            sticky_for: Duration::from_secs(600),
            quota_regions: Vec::new(),
        }
    }
}
