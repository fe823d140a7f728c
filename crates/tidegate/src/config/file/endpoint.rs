//! Models, and which provider serves them for how much.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::scalar::{Decimal, Span};

/// A model that callers can name.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Model {
    /// Shown in lists. Without it: the slug.
    pub(crate) name: Option<String>,
    /// Other slugs that mean this model, such as `~author/family-latest`.
    pub(crate) aliases: Vec<String>,
    /// Shown in lists.
    pub(crate) description: String,
    /// Day of its release, `2026-11-23`, or a moment as in RFC 3339.
    pub(crate) created: Option<String>,
    /// The author permits training on the output.
    pub(crate) distillable: bool,
    /// Kinds of output. Without it: text.
    pub(crate) output_modalities: Option<Vec<Modality>>,
    /// Tokenizer family, informational.
    pub(crate) tokenizer: Option<String>,
    /// Sunset: requests are answered 404 with this slug as the successor.
    pub(crate) successor: Option<String>,
}

/// One provider's deployment of one model.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endpoint {
    /// Slug of a provider.
    pub(crate) provider: String,
    /// Slug of a model.
    pub(crate) model: String,
    /// What the provider calls the model. Without it: the model's slug after the author.
    pub(crate) upstream_model: Option<String>,
    /// How callers address exactly this endpoint, `provider` or `provider/variant`. Without it: the provider's slug.
    pub(crate) tag: Option<String>,
    /// Unique name in metrics, logs and health; keep it when other things change. Without it: `model@tag`.
    pub(crate) name: Option<String>,
    /// What it costs.
    pub(crate) prices: Prices,
    /// Longest prompt and answer together, tokens.
    pub(crate) context_length: u32,
    /// Longest answer, tokens. Without it only the context bounds it.
    pub(crate) max_output: Option<u32>,
    /// Number format of the weights, as the provider states it.
    #[serde(default)]
    pub(crate) quantization: QuantizationName,
    /// Where it runs, such as `eu` or `us-east-1`.
    pub(crate) region: Option<String>,
    /// What the provider does with prompts. What is not stated is assumed to happen.
    #[serde(default)]
    pub(crate) data_policy: DataPolicy,
    /// Request parameters it honours, by their OpenAI names. Without it: all.
    pub(crate) parameters: Option<Vec<String>>,
    /// What a prompt may hold. Without it: text.
    pub(crate) inputs: Option<Vec<Modality>>,
    /// Service tier. Endpoints outside `default` are used only when asked for.
    #[serde(default)]
    pub(crate) tier: TierName,
    /// Takes the endpoint out: no new requests, running ones end.
    #[serde(default)]
    pub(crate) drained: bool,
    /// Most parallel requests of this edge. Without it the limit is learned.
    pub(crate) max_concurrency: Option<u32>,
    /// How long the provider's prompt cache lives after its last use. Without it: `5m`.
    pub(crate) cache_lifetime: Option<Span>,
    /// The provider caches prompts without being asked.
    #[serde(default)]
    pub(crate) implicit_caching: bool,
    /// Expectations before anything was measured.
    #[serde(default)]
    pub(crate) prior: Prior,
}

/// What a provider does with prompts.
#[derive(Debug, Clone, Deserialize, JsonSchema, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DataPolicy {
    /// Trains models on them.
    pub(crate) trains: bool,
    /// Keeps them after the answer. `false` is what `zdr` requests ask for.
    pub(crate) retains: bool,
}

impl Default for DataPolicy {
    fn default() -> Self {
        Self { trains: true, retains: true }
    }
}

/// Expectations before anything was measured.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Prior {
    /// Time to first token.
    pub(crate) first_token: Option<Span>,
    /// Output speed, tokens per second.
    pub(crate) tokens_per_second: Option<f32>,
}

/// Prices in USD, read exactly. Token prices are per **million** tokens, `request` and `image` per single request and image.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prices {
    /// Per million prompt tokens.
    pub(crate) prompt: Decimal,
    /// Per million completion tokens.
    pub(crate) completion: Decimal,
    /// Per million prompt tokens read from the provider's cache. Without it: `prompt`.
    pub(crate) cache_read: Option<Decimal>,
    /// Per million prompt tokens written to the provider's cache (5 minutes). Without it: `prompt`.
    pub(crate) cache_write: Option<Decimal>,
    /// Per million prompt tokens written for one hour. Without it: `cache_write`.
    pub(crate) cache_write_1h: Option<Decimal>,
    /// Per million reasoning tokens. Without it: `completion`.
    pub(crate) reasoning: Option<Decimal>,
    /// Per request. Without it: 0.
    pub(crate) request: Option<Decimal>,
    /// Per image in the prompt. Without it: 0.
    pub(crate) image: Option<Decimal>,
    /// Per million audio tokens in the prompt. Without it: `prompt`.
    pub(crate) audio: Option<Decimal>,
    /// Share taken off every price, 0 to 1: `0.25` leaves three quarters.
    pub(crate) discount: Option<Decimal>,
    /// Prices that hold under conditions. All conditions of an entry must hold; later entries win per price.
    #[serde(default)]
    pub(crate) overrides: Vec<PriceOverride>,
}

/// Prices that hold while all conditions do.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PriceOverride {
    /// Condition: the prompt has **more** than this many tokens.
    pub(crate) min_prompt_tokens: Option<u64>,
    /// Condition: the request starts at or after this time of the UTC day, HHMM (`1630`). Needs `utc_end`; may wrap midnight.
    pub(crate) utc_start: Option<u16>,
    /// Condition: the request starts before this time of the UTC day, HHMM. Needs `utc_start`.
    pub(crate) utc_end: Option<u16>,
    /// Replaces `prompt`.
    pub(crate) prompt: Option<Decimal>,
    /// Replaces `completion`.
    pub(crate) completion: Option<Decimal>,
    /// Replaces `cache_read`.
    pub(crate) cache_read: Option<Decimal>,
    /// Replaces `cache_write`.
    pub(crate) cache_write: Option<Decimal>,
    /// Replaces `cache_write_1h`.
    pub(crate) cache_write_1h: Option<Decimal>,
    /// Replaces `reasoning`.
    pub(crate) reasoning: Option<Decimal>,
    /// Replaces `request`.
    pub(crate) request: Option<Decimal>,
    /// Replaces `image`.
    pub(crate) image: Option<Decimal>,
    /// Replaces `audio`.
    pub(crate) audio: Option<Decimal>,
    /// Replaces `discount`.
    pub(crate) discount: Option<Decimal>,
}

/// Number format of the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QuantizationName {
    Int4,
    Int8,
    Fp4,
    Mxfp4,
    Nvfp4,
    Fp6,
    Fp8,
    Mxfp8,
    Fp16,
    Bf16,
    Fp32,
    #[default]
    Unknown,
}

/// Service tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TierName {
    /// What everyone gets.
    #[default]
    Default,
    /// Cheaper and slower.
    Flex,
    /// Dearer and faster.
    Priority,
}

/// A kind of input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Modality {
    Text,
    Image,
    File,
    Audio,
    Video,
}

impl Modality {
    /// The name in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Modality::Text => "text",
            Modality::Image => "image",
            Modality::File => "file",
            Modality::Audio => "audio",
            Modality::Video => "video",
        }
    }
}
