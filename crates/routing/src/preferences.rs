//! The caller's wishes about providers: the `provider` object, field by field (reference section 2.3).
//!
//! Fields nobody here knows are ignored, `null` is the same as absent, and a wrong value is reported with its path. Policies
//! of an account or a key are the same object, merged so that a request can narrow but never widen them.

mod parse;

pub use parse::PreferencesError;

use serde::{Deserialize, Serialize};

use crate::price::MaxPrice;
use crate::quantization::QuantizationSet;

/// What a caller, a key or an account asks of the providers. `Default` asks nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preferences {
    /// Slugs to try first, in this order; switches load balancing and stickiness off.
    pub order: Vec<String>,
    /// Whether endpoints other than the first choice (or the listed ones) may be tried. Absent: they may.
    pub allow_fallbacks: Option<bool>,
    /// Whether an endpoint must support every parameter of the request. Absent: it need not.
    pub require_parameters: Option<bool>,
    /// Whether providers that train on prompts may be used. Absent: they may.
    pub data_collection: Option<DataCollection>,
    /// Whether only providers that keep nothing may be used.
    pub zdr: bool,
    /// Whether only models whose author permits distillation may be used.
    pub enforce_distillable_text: bool,
    /// Allow lists. An endpoint must be on every one of them: an account's and a request's list intersect. A list that is
    /// present and empty admits nothing.
    pub only: Vec<Vec<String>>,
    /// Slugs that must not be used.
    pub ignore: Vec<String>,
    /// Accepted precisions.
    pub quantizations: Option<QuantizationSet>,
    /// Strict order instead of load balancing.
    pub sort: Option<Sort>,
    /// Output speed, tokens per second, below which an endpoint goes to the end.
    pub preferred_min_throughput: Option<Cutoffs>,
    /// Time to first token, seconds, above which an endpoint goes to the end.
    pub preferred_max_latency: Option<Cutoffs>,
    /// Highest acceptable prices.
    pub max_price: Option<MaxPrice>,
    /// Region the data must stay in. Not part of the wire object: only policies set it.
    pub data_region: Option<String>,
}

impl Preferences {
    /// Parses the JSON text of a `provider` object.
    pub fn parse(json: &str) -> Result<Preferences, PreferencesError> {
        parse::parse(json)
    }

    /// The policy of an account, key or preset together with a request's wishes. What filters only gets tighter: `only`
    /// lists intersect, `ignore` lists unite, `zdr` and `deny` win, price bounds take the lower. What orders is the
    /// request's where it says anything.
    pub fn merge(base: &Preferences, request: Preferences) -> Preferences {
        let mut only = base.only.clone();
        only.extend(request.only);
        let mut ignore = base.ignore.clone();
        ignore.extend(request.ignore.into_iter().filter(|slug| !base.ignore.contains(slug)));
        Preferences {
            order: if request.order.is_empty() { base.order.clone() } else { request.order },
            allow_fallbacks: request.allow_fallbacks.or(base.allow_fallbacks),
            require_parameters: request.require_parameters.or(base.require_parameters),
            data_collection: match (base.data_collection, request.data_collection) {
                (Some(DataCollection::Deny), _) | (_, Some(DataCollection::Deny)) => Some(DataCollection::Deny),
                (base, request) => request.or(base),
            },
            zdr: base.zdr || request.zdr,
            enforce_distillable_text: base.enforce_distillable_text || request.enforce_distillable_text,
            only,
            ignore,
            quantizations: both(base.quantizations, request.quantizations, QuantizationSet::intersection),
            sort: request.sort.or(base.sort),
            preferred_min_throughput: request.preferred_min_throughput.or(base.preferred_min_throughput),
            preferred_max_latency: request.preferred_max_latency.or(base.preferred_max_latency),
            max_price: both(base.max_price, request.max_price, MaxPrice::tightened),
            data_region: base.data_region.clone().or(request.data_region),
        }
    }

    /// Whether another endpoint may be tried after the first choice failed.
    pub fn fallbacks_allowed(&self) -> bool {
        self.allow_fallbacks.unwrap_or(true)
    }
}

impl<'de> Deserialize<'de> for Preferences {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Preferences, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        parse::from_value(&value).map_err(serde::de::Error::custom)
    }
}

/// Whether prompts may be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataCollection {
    /// They may.
    Allow,
    /// They must not.
    Deny,
}

/// A strict order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what; absent when only the partition was given.
    pub by: Option<SortBy>,
    /// Over what.
    pub partition: Partition,
}

/// What to order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SortBy {
    /// Expected price of this request, lowest first.
    Price,
    /// Output speed, highest first.
    Throughput,
    /// Time to first token, lowest first.
    Latency,
    /// Measured quality.
    Exacto,
}

impl SortBy {
    /// By wire name.
    pub fn from_name(name: &str) -> Option<SortBy> {
        match name {
            "price" => Some(SortBy::Price),
            "throughput" => Some(SortBy::Throughput),
            "latency" => Some(SortBy::Latency),
            "exacto" => Some(SortBy::Exacto),
            _ => None,
        }
    }

    /// By the routing variant of a model slug, without the colon.
    pub fn from_variant(variant: &str) -> Option<SortBy> {
        match variant {
            "nitro" => Some(SortBy::Throughput),
            "floor" => Some(SortBy::Price),
            "exacto" => Some(SortBy::Exacto),
            _ => None,
        }
    }
}

/// What a sort runs over when there are several models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Partition {
    /// Model order first, sort within each.
    #[default]
    Model,
    /// All endpoints of all models together.
    None,
}

/// Percentiles with a bound each; all that are present must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cutoffs {
    /// Median.
    pub p50: Option<f64>,
    /// 75th percentile.
    pub p75: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

fn both<T: Copy>(base: Option<T>, request: Option<T>, join: impl Fn(T, T) -> T) -> Option<T> {
    match (base, request) {
        (Some(base), Some(request)) => Some(join(base, request)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests;
