//! What one request wants, in routing's own words.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::preferences::{Preferences, SortBy};
use crate::{EndpointIndex, ModalitySet, ModelIndex, ParameterSet, Timestamp};

/// Everything a plan is made from besides the snapshot and health.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Models in order of preference; the first is the one asked for.
    pub models: SmallVec<[ModelIndex; 2]>,
    /// Sort asked for by a slug variant such as `:nitro`. An explicit `provider.sort` wins over it.
    pub variant_sort: Option<SortBy>,
    /// The merged `provider` object.
    pub preferences: Arc<Preferences>,
    /// What the request needs of an endpoint.
    pub needs: Needs,
    /// The conversation it belongs to, if any.
    pub affinity: Option<Affinity>,
    /// How to choose when the caller does not say.
    pub mode: Mode,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
    /// Source of every draw of this plan: the same seed over the same inputs decides the same.
    pub seed: u64,
    /// Most attempts over all models; 0 takes the setting.
    pub max_attempts: u8,
    /// Which service tiers may serve it.
    pub eligible_tiers: TierChoice,
}

impl Intent {
    /// An intent for one model with nothing special asked.
    pub fn new(model: ModelIndex, deadline: Timestamp, seed: u64) -> Intent {
        Intent {
            models: smallvec::smallvec![model],
            variant_sort: None,
            preferences: Arc::default(),
            needs: Needs::default(),
            affinity: None,
            mode: Mode::default(),
            deadline,
            seed,
            max_attempts: 0,
            eligible_tiers: TierChoice::default(),
        }
    }
}

/// What a request needs of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Estimated prompt size.
    pub prompt_tokens: u32,
    /// Expected answer size: the smaller of the caller's bound and what such calls usually need.
    pub expected_output: u32,
    /// The caller's bound on the answer.
    pub max_output: Option<u32>,
    /// Parameters present in the request.
    pub parameters: ParameterSet,
    /// Inputs present in the request. Text need not be named.
    pub inputs: ModalitySet,
    /// The answer comes in one piece: the first byte then takes as long as the last token, and is waited for accordingly.
    pub buffered: bool,
}

/// The conversation a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Hash of account, model and conversation.
    pub key: u64,
    /// Where the conversation was served before, if remembered.
    pub endpoint: Option<EndpointIndex>,
}

/// How to choose among the candidates when the caller does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Price, success, headroom and speed together.
    #[default]
    Balanced,
    /// Inverse-square price among endpoints without a recent outage.
    Simple,
    /// Steeply the cheapest.
    Price,
    /// The fastest to the first token.
    Latency,
    /// The fastest over a long answer.
    Throughput,
    /// The order of configuration.
    Order,
    /// The same endpoint for the same conversation.
    Sticky,
    /// Tiers by measured quality, balanced within.
    Exacto,
}

impl Mode {
    /// By name, as configuration spells it.
    pub fn from_name(name: &str) -> Option<Mode> {
        MODES.into_iter().find(|mode| mode.as_str() == name)
    }

    /// The name configuration and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Balanced => "balanced",
            Mode::Simple => "simple",
            Mode::Price => "price",
            Mode::Latency => "latency",
            Mode::Throughput => "throughput",
            Mode::Order => "order",
            Mode::Sticky => "sticky",
            Mode::Exacto => "exacto",
        }
    }
}

/// Which service tiers may serve a request (reference section 2.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierChoice {
    /// The default tier only.
    #[default]
    Default,
    /// `service_tier: priority`: priority endpoints first, each group by throughput, then the default tier.
    Priority,
    /// `service_tier: flex`: flex endpoints only, cheapest first and without fallback; the default tier if there are none.
    Flex,
    /// `:nitro`: default and priority together.
    Nitro,
    /// `:floor`: default and flex together.
    Floor,
}

impl TierChoice {
    /// From the request's `service_tier` and the sort variant of its slug. An explicit `default` turns the variant's
    /// admission off; unknown or automatic tiers change nothing.
    pub fn resolve(service_tier: Option<&str>, variant_sort: Option<SortBy>) -> TierChoice {
        match (service_tier, variant_sort) {
            (Some("priority" | "fast"), _) => TierChoice::Priority,
            (Some("flex"), _) => TierChoice::Flex,
            (Some("default" | "standard"), _) => TierChoice::Default,
            (_, Some(SortBy::Throughput)) => TierChoice::Nitro,
            (_, Some(SortBy::Price)) => TierChoice::Floor,
            (_, Some(SortBy::Latency | SortBy::Exacto) | None) => TierChoice::Default,
        }
    }
}

const MODES: [Mode; 8] =
    [Mode::Balanced, Mode::Simple, Mode::Price, Mode::Latency, Mode::Throughput, Mode::Order, Mode::Sticky, Mode::Exacto];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_tier_wins_over_a_variant() {
        assert_eq!(TierChoice::resolve(Some("fast"), Some(SortBy::Price)), TierChoice::Priority);
        assert_eq!(TierChoice::resolve(Some("default"), Some(SortBy::Throughput)), TierChoice::Default);
        assert_eq!(TierChoice::resolve(Some("auto"), Some(SortBy::Throughput)), TierChoice::Nitro);
        assert_eq!(TierChoice::resolve(None, Some(SortBy::Price)), TierChoice::Floor);
        assert_eq!(TierChoice::resolve(None, None), TierChoice::Default);
    }

    #[test]
    fn mode_names_round_trip() {
        for mode in MODES {
            assert_eq!(Mode::from_name(mode.as_str()), Some(mode));
        }
    }
}
