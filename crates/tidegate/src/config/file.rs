//! The configuration file as it is written: raw values with documented defaults.
//!
//! These structs say what a file may hold and nothing about what it means; [`super::lower`] turns them into the domain values of the
//! edge and holds the rules. The JSON Schema and `docs/configuration.md` are made from them, so the doc comments here are read by
//! operators: they say what a key does, its unit, and what happens without it.

mod control;
pub(crate) mod control_node;
mod endpoint;
mod key;
mod ledger;
mod limits;
mod owner;
mod preferences;
mod process;
mod provider;
mod quota;
mod settings;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use control::Control;
pub(crate) use endpoint::{Endpoint, Modality, Model, PriceOverride, Prices, QuantizationName, TierName};
pub(crate) use key::{Key, KeyPolicy};
pub(crate) use ledger::{Ledger, Objects};
pub(crate) use limits::Limits;
pub(crate) use owner::{Limit, Organisation, StoreDownName, Workspace};
pub(crate) use preferences::{ModeName, Preferences};
pub(crate) use process::{
    AccessLog, Certificate, Generations, Listener, Log, LogFormatName, Operations, Runtime, RuntimeModelName, Telemetry,
};
pub(crate) use provider::{
    Auth, Credential, DialectName, MaxTokensFieldName, Provider, Quirks, RateLimitsName, ReasoningName, UpstreamHttpName,
};
pub(crate) use quota::{Quota, Redis, RedisTls};
pub(crate) use settings::Routing;

use super::scalar::{Named, SecretRef, Span};

/// A Tidegate edge: where it listens, what it routes to, and who may call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Tidegate configuration")]
pub(crate) struct File {
    /// Region of this edge: a metric label, and a field of every generation record. Without it: `local`.
    pub(crate) region: Option<String>,
    /// Where callers connect. Without it: plain HTTP on `127.0.0.1:8080`. Fixed until a restart.
    pub(crate) listeners: Vec<Listener>,
    /// The port for metrics and probes. Fixed until a restart.
    pub(crate) operations: Operations,
    /// Threads that serve requests. Fixed until a restart.
    pub(crate) runtime: Runtime,
    /// Sizes and times that a stranger cannot exceed. Fixed until a restart.
    pub(crate) limits: Limits,
    /// One line per request: `off`, `stdout` or `file:PATH` (reopened on SIGHUP). Without it: `off`. Fixed until a restart.
    pub(crate) access_log: AccessLog,
    /// What the process says about itself, on standard error. The level follows a reload; the format is fixed until a restart.
    pub(crate) log: Log,
    /// Traces to an OpenTelemetry collector. Off unless an endpoint is given. Fixed until a restart.
    pub(crate) telemetry: Telemetry,
    /// How long `GET /generation` can find a finished generation. Fixed until a restart.
    pub(crate) generations: Generations,
    /// The control plane to follow. Without it this file says everything. Fixed until a restart.
    pub(crate) control: Option<Control>,
    /// Where use is counted against limits. Fixed until a restart.
    pub(crate) quota: Quota,
    /// Records of generations and sums over them. Fixed until a restart.
    pub(crate) ledger: Ledger,
    /// Adds the catalogue that ships with this version: current models, endpoints and list prices of every provider whose key
    /// variable is set. Entries of this file win over shipped ones of the same name.
    pub(crate) catalog: Option<CatalogChoice>,
    /// Vendors and our accounts there, by slug. A slug that ships with Tidegate (`openai`, `anthropic`, `google-ai-studio`, `groq`, …) needs
    /// credentials only; any other needs `base_url`.
    pub(crate) providers: Named<Provider>,
    /// What callers can name, by slug (`author/name`).
    pub(crate) models: Named<Model>,
    /// Which provider serves which model, and for how much.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Who pays for keys, by name.
    pub(crate) organisations: Named<Organisation>,
    /// Parts of organisations, by name.
    pub(crate) workspaces: Named<Workspace>,
    /// Callers' keys, by name. The file holds digests only: `tidegate key new` makes both.
    pub(crate) keys: Named<Key>,
    /// Secret that keys the digest function, so that digests are useless without it. `env:NAME` or `file:PATH`.
    pub(crate) keys_pepper: Option<SecretRef>,
    /// Named request fragments, by slug, for `@preset/slug` and the `preset` field. The request's own fields win.
    pub(crate) presets: Named<JsonObject>,
    /// What holds when neither key nor request say otherwise.
    pub(crate) defaults: Defaults,
    /// Constants of health, breakers and weights. The defaults are meant to be right; each can be overridden.
    pub(crate) routing: Routing,
}

/// Where models and prices come from besides this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CatalogChoice {
    /// The catalogue inside the binary.
    Shipped,
}

/// Fields of a request, as JSON.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct JsonObject(pub(crate) Map<String, Value>);

/// What holds when neither key nor request say otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Defaults {
    /// Model of a request that names none. Without it such a request is refused.
    pub(crate) model: Option<String>,
    /// How to choose among endpoints. Without it: `balanced`.
    pub(crate) mode: Option<ModeName>,
    /// Preferences that hold for every request; keys and requests can only tighten them.
    pub(crate) preferences: Preferences,
    /// Total time of a request, all attempts together. Without it: `10m`.
    pub(crate) deadline: Option<Span>,
    /// Attempts per request, the first one included. Without it: 3.
    pub(crate) max_attempts: Option<u8>,
    /// Keep a conversation on the endpoint whose prompt cache it warmed. Without it: `true`.
    pub(crate) sticky: Option<bool>,
    /// Least time that a conversation stays there after its last use; longer where the endpoint's cache lives longer. Without it:
    /// `10m`.
    pub(crate) sticky_for: Option<Span>,
    /// Every region whose edges share the limits declared `global`, and budgets from credits. Without at least two, each region has the whole
    /// amount. Add a region here before it serves, while no edge is cut off.
    pub(crate) quota_regions: Vec<String>,
    /// Serve requests that carry no key. Meant for trying things out: only accepted when every listener is on a loopback address.
    pub(crate) anonymous: bool,
}
