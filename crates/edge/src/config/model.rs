//! What callers can name, and who serves it.

use std::time::Duration;

use tidegate_ledger::PriceTable;
use tidegate_routing::{DataPolicy, ModalitySet, ParameterSet, Quantization, Tier};

/// One model that callers can name.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// `author/name`.
    pub slug: String,
    /// Shown in lists.
    pub name: String,
    /// Other slugs that mean this model.
    pub aliases: Vec<String>,
    /// Shown in lists.
    pub description: String,
    /// Unix time of its release, seconds.
    pub created: u64,
    /// The author permits distillation.
    pub distillable: bool,
    /// Kinds of output, such as `text`.
    pub output_modalities: Vec<String>,
    /// Tokenizer family, informational.
    pub tokenizer: Option<String>,
    /// Sunset: requests are answered 404 with this successor.
    pub successor: Option<String>,
}

/// One provider's deployment of one model.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Unique and stable; health is carried over a reload by it.
    pub name: String,
    /// Slug of a provider.
    pub provider: String,
    /// Slug of a model.
    pub model: String,
    /// Tag that callers can address, `provider` or `provider/variant`.
    pub tag: String,
    /// What the provider calls the model.
    pub upstream_model: String,
    /// Exact prices.
    pub prices: PriceTable,
    /// Prompt and completion together, tokens.
    pub context_length: u32,
    /// Longest completion, tokens.
    pub max_output: Option<u32>,
    /// Number format of the weights.
    pub quantization: Quantization,
    /// Where it runs, as the provider names it.
    pub region: Option<String>,
    /// What the provider does with prompts.
    pub data: DataPolicy,
    /// Request parameters it understands.
    pub parameters: ParameterSet,
    /// What a prompt may hold besides text.
    pub inputs: ModalitySet,
    /// Service tier.
    pub tier: Tier,
    /// Switched off by the operator: gets no traffic, running requests end.
    pub drained: bool,
    /// Kept in by the operator: neither a breaker nor a verdict takes it out.
    pub pinned: bool,
    /// Hard limit of parallel requests of this edge.
    pub max_concurrency: Option<u32>,
    /// How long the upstream's prompt cache lives after its last use.
    pub cache_lifetime: Duration,
    /// The upstream caches prompts without being asked.
    pub implicit_caching: bool,
    /// Expected time to first token before anything was measured.
    pub prior_first_token: Option<Duration>,
    /// Expected output speed before anything was measured, tokens per second.
    pub prior_tokens_per_second: Option<f32>,
}
