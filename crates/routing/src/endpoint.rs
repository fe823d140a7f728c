//! One provider's deployment of one model, and how callers name it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, ModelIndex, ProviderIndex, stable_hash};
use crate::{ModalitySet, ParameterSet, Price, Provider, Quantization};

/// What configuration says about an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    /// Unique and stable: health is carried over by it when the snapshot changes.
    pub name: String,
    /// Slug of the provider.
    pub provider: String,
    /// Slug of the model.
    pub model: String,
    /// How callers name it: `provider`, `provider/variant`, `provider/region`.
    pub tag: String,
    /// What it charges.
    pub price: Price,
    /// Longest prompt plus answer, tokens.
    pub context_length: u32,
    /// Longest answer, tokens; `None` when only the context bounds it.
    pub max_output: Option<u32>,
    /// Precision it serves.
    pub quantization: Quantization,
    /// Where the data is processed, such as `eu` or `us-east-1`.
    pub region: Option<String>,
    /// What the provider does with prompts.
    pub data: DataPolicy,
    /// Request parameters it honours.
    pub parameters: ParameterSet,
    /// Inputs it accepts.
    pub inputs: ModalitySet,
    /// Service tier; endpoints outside [`Tier::Default`] are used only on demand.
    pub tier: Tier,
    /// Taken out by an operator: gets no new request.
    pub drained: bool,
    /// Kept in by an operator: no breaker and no verdict takes it out or makes it weigh less. Rate limits still hold.
    pub pinned: bool,
    /// Announced to go away: used only when nothing else is left.
    pub deprecated: bool,
    /// Most requests at once; a contract with the provider, never exceeded.
    pub max_concurrency: Option<u32>,
    /// How long the provider keeps a prompt cache. Zero: unknown.
    pub cache_lifetime: Duration,
    /// Expected time to first token before anything was measured.
    pub prior_first_token: Option<Duration>,
    /// Expected output speed before anything was measured.
    pub prior_tokens_per_second: Option<f32>,
}

impl EndpointSpec {
    /// An endpoint with everything allowed: all parameters, text input, the default tier, a 128 k context, no price.
    pub fn new(name: impl Into<String>, provider: impl Into<String>, model: impl Into<String>) -> EndpointSpec {
        let provider = provider.into();
        EndpointSpec {
            name: name.into(),
            tag: provider.clone(),
            provider,
            model: model.into(),
            price: Price::default(),
            context_length: DEFAULT_CONTEXT_LENGTH,
            max_output: None,
            quantization: Quantization::Unknown,
            region: None,
            data: DataPolicy::default(),
            parameters: ParameterSet::all(),
            inputs: ModalitySet::TEXT,
            tier: Tier::Default,
            drained: false,
            pinned: false,
            deprecated: false,
            max_concurrency: None,
            cache_lifetime: Duration::ZERO,
            prior_first_token: None,
            prior_tokens_per_second: None,
        }
    }
}

/// What a provider does with the prompts it sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPolicy {
    /// Uses them to train models.
    pub trains: bool,
    /// Keeps them after the answer.
    pub retains: bool,
}

/// Service tier of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// What everyone gets.
    #[default]
    Default,
    /// Cheaper and slower, refused when the provider is busy.
    Flex,
    /// Dearer and faster.
    Priority,
}

/// An endpoint inside a snapshot.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) spec: EndpointSpec,
    pub(crate) provider: ProviderIndex,
    pub(crate) model: ModelIndex,
    /// Hash of the name, for rendezvous hashing.
    pub(crate) hash: u64,
}

impl Endpoint {
    pub(crate) fn new(spec: EndpointSpec, provider: ProviderIndex, model: ModelIndex) -> Endpoint {
        let hash = stable_hash(&[&spec.name]);
        Endpoint { spec, provider, model, hash }
    }

    /// What the mesh calls it; see [`EndpointId`].
    pub fn id(&self) -> EndpointId {
        EndpointId(self.hash)
    }

    /// Its provider.
    pub fn provider(&self) -> ProviderIndex {
        self.provider
    }

    /// Its model.
    pub fn model(&self) -> ModelIndex {
        self.model
    }

    /// Whether a caller's slug means this endpoint: a base slug means every variant and region of a provider except service
    /// tiers; a full tag means exactly one endpoint. Case does not matter, and a provider's display name is as good as its
    /// slug.
    pub fn matches(&self, slug: &str, provider: &Provider) -> bool {
        if self.spec.tag.eq_ignore_ascii_case(slug) {
            return true;
        }
        if self.spec.tier != Tier::Default {
            return false;
        }
        let base = self.spec.tag.split('/').next().unwrap_or_default();
        base.eq_ignore_ascii_case(slug) || provider.slug().eq_ignore_ascii_case(slug) || provider.name().eq_ignore_ascii_case(slug)
    }

    /// Whether its data stays in `region`: the region itself or a part of it (`eu` covers `eu-west-1`).
    pub fn stays_in(&self, region: &str) -> bool {
        self.spec.region.as_deref().is_some_and(|own| {
            own.get(..region.len()).is_some_and(|head| head.eq_ignore_ascii_case(region))
                && matches!(own.as_bytes().get(region.len()), None | Some(b'-'))
        })
    }
}

impl std::ops::Deref for Endpoint {
    type Target = EndpointSpec;

    fn deref(&self) -> &EndpointSpec {
        &self.spec
    }
}

/// The most common context length of current models.
const DEFAULT_CONTEXT_LENGTH: u32 = 131_072;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CredentialSpec, ProviderSpec};

    fn endpoint(tag: &str, tier: Tier) -> (Endpoint, Provider) {
        let mut spec = EndpointSpec::new("e", "deepinfra", "m");
        spec.tag = tag.to_owned();
        spec.tier = tier;
        let provider = Provider::new(
            ProviderSpec {
                slug: "deepinfra".into(),
                name: "Deep Infra".into(),
                credentials: vec![CredentialSpec { name: "main".into(), weight: 1 }],
            },
            0,
        );
        (Endpoint::new(spec, ProviderIndex(0), ModelIndex(0)), provider)
    }

    #[test]
    fn base_slug_means_all_variants_but_no_tier_and_a_tag_means_one() {
        for (tag, tier, slug, expected) in [
            ("deepinfra", Tier::Default, "deepinfra", true),
            ("deepinfra/turbo", Tier::Default, "deepinfra", true),
            ("deepinfra/turbo", Tier::Default, "Deep Infra", true),
            ("deepinfra/turbo", Tier::Default, "DeepInfra/Turbo", true),
            ("deepinfra/turbo", Tier::Default, "deepinfra/fast", false),
            ("deepinfra", Tier::Default, "deepinfra/turbo", false),
            ("deepinfra/priority", Tier::Priority, "deepinfra", false),
            ("deepinfra/priority", Tier::Priority, "deepinfra/priority", true),
            ("deepinfra/flex", Tier::Flex, "Deep Infra", false),
            ("deepinfra2", Tier::Default, "deepinfra2", true),
        ] {
            let (endpoint, provider) = endpoint(tag, tier);
            assert_eq!(endpoint.matches(slug, &provider), expected, "{tag} by {slug}");
        }
    }

    #[test]
    fn a_region_covers_its_parts_only() {
        let (mut endpoint, _) = endpoint("deepinfra", Tier::Default);
        assert!(!endpoint.stays_in("eu"), "unknown is not inside");
        endpoint.spec.region = Some("eu-west-1".into());
        assert!(endpoint.stays_in("eu") && endpoint.stays_in("EU-West-1"));
        assert!(!endpoint.stays_in("us") && !endpoint.stays_in("e"));
    }
}
