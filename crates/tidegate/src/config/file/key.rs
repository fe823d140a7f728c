//! Callers' keys.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ModeName, Preferences};
use crate::config::scalar::Span;

/// One caller's key, known by its digest.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// `blake3:` and 64 hex digits, as printed by `tidegate key new`.
    pub(crate) digest: String,
    /// Refuses the key without forgetting it.
    #[serde(default)]
    pub(crate) disabled: bool,
    /// When the key stops working, as in RFC 3339: `2027-01-31T00:00:00Z`, or `2027-01-31` for the start of that UTC day.
    pub(crate) expires_at: Option<String>,
    /// Slugs of models this key may use. Without it: all.
    #[serde(default)]
    pub(crate) allowed_models: Vec<String>,
    /// Preferences that hold for every request of this key; requests can only tighten them.
    #[serde(default)]
    pub(crate) preferences: Preferences,
    /// How to choose among endpoints unless the request says otherwise. Without it: the default of all keys.
    pub(crate) mode: Option<ModeName>,
    /// Ask a second provider when the first token of a stream takes long. Bounded to one request in fifty, never for prompts above 8 k
    /// tokens or reasoning; both providers bill.
    #[serde(default)]
    pub(crate) hedge: bool,
    /// Show the provider's own error text to this caller.
    #[serde(default)]
    pub(crate) raw_errors: bool,
}

/// What a key of the control plane may do: a key without what identifies it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeyPolicy {
    /// Slugs of models this key may use. Without it: all.
    pub(crate) allowed_models: Vec<String>,
    /// Preferences that hold for every request of this key; requests can only tighten them.
    pub(crate) preferences: Preferences,
    /// How to choose among endpoints unless the request says otherwise. Without it: the default of all keys.
    pub(crate) mode: Option<ModeName>,
    /// Ask a second provider when the first token of a stream takes long; both bill.
    pub(crate) hedge: bool,
    /// Show the provider's own error text to this caller.
    pub(crate) raw_errors: bool,
    /// How long an edge serves the key without word from the control plane. Without it: as the edge says.
    pub(crate) grace: Option<Span>,
}
