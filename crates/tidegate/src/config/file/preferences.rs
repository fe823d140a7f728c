//! Provider preferences, the same object that requests carry as `provider`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::QuantizationName;
use crate::config::scalar::Decimal;

/// What is asked of providers: filters, order and bounds.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Preferences {
    /// Slugs or tags to try first, in this order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<Vec<String>>,
    /// Whether others than the first choice may be tried. Without it: they may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_fallbacks: Option<bool>,
    /// Use only endpoints that honour every parameter of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) require_parameters: Option<bool>,
    /// `deny` removes endpoints that train on prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_collection: Option<DataCollectionName>,
    /// Use only endpoints that keep nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zdr: Option<bool>,
    /// Use only models whose author permits training on the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enforce_distillable_text: Option<bool>,
    /// Use only these slugs or tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) only: Option<Vec<String>>,
    /// Never use these slugs or tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ignore: Option<Vec<String>>,
    /// Accepted number formats. `fp4` includes its block formats, `fp8` includes `mxfp8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantizations: Option<Vec<QuantizationName>>,
    /// Strict order instead of load balancing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sort: Option<SortName>,
    /// Median output speed, tokens per second, below which an endpoint goes to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preferred_min_throughput: Option<f64>,
    /// Median time to first token, seconds, above which an endpoint goes to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) preferred_max_latency: Option<f64>,
    /// Highest acceptable prices; a request fails when nothing cheaper is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_price: Option<MaxPrice>,
    /// Region that prompts must stay in, such as `eu`.
    #[serde(skip_serializing)]
    pub(crate) data_region: Option<String>,
}

/// Highest acceptable prices: per million tokens, per request and per image, USD.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MaxPrice {
    /// Per million prompt tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<Decimal>,
    /// Per million completion tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completion: Option<Decimal>,
    /// Per request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Decimal>,
    /// Per image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<Decimal>,
    /// Per million audio tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audio: Option<Decimal>,
}

/// Whether prompts may be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DataCollectionName {
    /// They may.
    Allow,
    /// They must not.
    Deny,
}

/// What to order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SortName {
    /// Cheapest first.
    Price,
    /// Highest output speed first.
    Throughput,
    /// Shortest time to first token first.
    Latency,
    /// Best measured quality first.
    Exacto,
}

/// How to choose among endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModeName {
    /// Price, success, headroom and speed together.
    Balanced,
    /// Mostly the cheap ones, among those without a recent outage.
    Simple,
    /// Almost always the cheapest.
    Price,
    /// The fastest to the first token.
    Latency,
    /// The fastest over a long answer.
    Throughput,
    /// The order of this file.
    Order,
    /// The same endpoint for the same conversation.
    Sticky,
    /// By measured quality.
    Exacto,
}
