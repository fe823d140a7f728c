//! Who keys belong to.

use schemars::JsonSchema;
use serde::Deserialize;

/// Owner of workspaces and keys.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Organisation {
    /// Shown in lists. Without it: the slug.
    pub(crate) name: Option<String>,
}

/// Part of an organisation.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workspace {
    /// Slug of the organisation it is part of.
    pub(crate) organisation: String,
    /// Shown in lists. Without it: the slug.
    #[expect(dead_code, reason = "people read it in the agreed state; no edge needs it")]
    pub(crate) name: Option<String>,
}
