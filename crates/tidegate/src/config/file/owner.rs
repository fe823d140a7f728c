//! Who pays: organisations, workspaces, and the limits that they and their keys have.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalar::Decimal;

/// Who pays for keys.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Organisation {
    /// What is charged on top of what answers cost. Without it: nothing.
    pub(crate) fee: Fee,
    /// All credits that were ever bought, US dollars: what is spent counts against it and nothing is lent. To top up, raise it. Without it
    /// nothing is prepaid.
    pub(crate) credits: Option<Decimal>,
    /// Limits that all its keys share.
    pub(crate) limits: Vec<Limit>,
}

/// What is charged on top of what answers cost.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Fee {
    /// Per cent of the cost, for answers from the mesh's own accounts. Without it: 0.
    pub(crate) markup_percent: Option<Decimal>,
    /// Per cent of the list price, for answers from credentials with `own_key`, whose price the provider bills itself. Without it: 0.
    pub(crate) own_key_percent: Option<Decimal>,
}

/// Part of an organisation.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workspace {
    /// Name of its organisation.
    pub(crate) organisation: String,
    /// Limits that all its keys share.
    #[serde(default)]
    pub(crate) limits: Vec<Limit>,
}

/// One limit: exactly one of the amounts, and how it is kept.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limit {
    /// Requests that may begin per minute.
    pub(crate) requests_per_minute: Option<u64>,
    /// Tokens of prompts and answers together per minute.
    pub(crate) tokens_per_minute: Option<u64>,
    /// Tokens of prompts per minute.
    pub(crate) input_tokens_per_minute: Option<u64>,
    /// Tokens of answers per minute.
    pub(crate) output_tokens_per_minute: Option<u64>,
    /// Requests that may run at the same time.
    pub(crate) concurrent_requests: Option<u64>,
    /// US dollars from midnight to midnight.
    pub(crate) spend_per_day: Option<Decimal>,
    /// US dollars from Monday to Monday.
    pub(crate) spend_per_week: Option<Decimal>,
    /// US dollars per calendar month.
    pub(crate) spend_per_month: Option<Decimal>,
    /// US dollars, ever.
    pub(crate) spend_total: Option<Decimal>,
    /// Requests to models that cost nothing, from midnight to midnight.
    pub(crate) free_requests_per_day: Option<u64>,
    /// Counts only requests for this model. Without it: all.
    pub(crate) model: Option<String>,
    /// Counts only requests that this provider serves; when it has no room, they go to another provider. Without it: all.
    pub(crate) provider: Option<String>,
    /// How much may be taken at once (rates per minute only). Without it: 10 s worth of requests, 60 s worth of tokens.
    pub(crate) burst: Option<u64>,
    /// Count and report, but never refuse.
    pub(crate) shadow: bool,
    /// Warn from this percentage of use on, in log and metrics.
    pub(crate) warn_at: Option<u8>,
    /// Shared by all regions of `defaults.quota_regions`, where a control plane is followed; otherwise each region has the whole amount.
    pub(crate) global: bool,
    /// Where the day begins, in minutes east of UTC, for budgets. Without it: 0.
    pub(crate) utc_offset_minutes: Option<i16>,
}

/// What a key may do while its use cannot be counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoreDownName {
    /// Each edge counts by itself, with its part of the limit.
    #[default]
    Local,
    /// Everything is allowed and settled later.
    Open,
    /// Nothing is allowed: 503.
    Closed,
}
