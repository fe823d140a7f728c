//! The record of one accounted model call, in the shape of `GET /generation`.
//!
//! Fields keep exact values (micro-seconds, pico-dollars); serialising turns them into the units of the API: milliseconds and decimal
//! USD numbers with all their digits. What Tidegate cannot know (moderation, searches) is written as `null`, so that a client which
//! reads those names finds them. [`Line`] is the same record as a flat line for a warehouse.

mod json;
mod line;
mod rfc3339;

pub use line::Line;
pub use rfc3339::UnixMillis;

use std::borrow::Cow;
use std::sync::Arc;

use crate::charge::{Charge, Ending, Usage};
use crate::money::Money;

/// One generation: what was asked, who served it, how it ended and what it cost.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Our id, `gen-…`.
    pub id: Arc<str>,
    /// The provider's id of the answer.
    pub upstream_id: Option<String>,
    /// Groups the generations of one request.
    pub request_id: Arc<str>,
    /// Conversation the caller named.
    pub session_id: Option<String>,
    /// When the request arrived, milliseconds of Unix time.
    pub created_ms: u64,
    /// Model that served.
    pub model: Arc<str>,
    /// Display name of the provider that served.
    pub provider_name: Arc<str>,
    /// Name of the endpoint that served.
    pub endpoint: Arc<str>,
    /// Router model that resolved to `model`, if one did.
    pub router: Option<Arc<str>>,
    /// Kind of call.
    pub api_type: ApiType,
    /// Answered as a stream.
    pub streamed: bool,
    /// How it ended.
    pub ending: Ending,
    /// From arrival of the request to the first token, µs; `None` when there was none.
    pub first_token_us: Option<u64>,
    /// From sending the serving attempt to its last byte, µs.
    pub generation_us: Option<u64>,
    /// Normalised reason, `stop`, `length`, `tool_calls`, `content_filter` or `error`.
    pub finish_reason: Option<Arc<str>>,
    /// The provider's own reason.
    pub native_finish_reason: Option<String>,
    /// Tokens by the provider's count.
    pub usage: Usage,
    /// `usage` was estimated from bytes because the provider never reported it.
    pub usage_estimated: bool,
    /// What the answer costs, by the list prices of the endpoint that served.
    pub charge: Charge,
    /// What the organisation pays on top.
    pub fee: Money,
    /// What the caller is charged: cost and fee, or the fee alone when served with the caller's own credential.
    pub charged: Money,
    /// What the provider charges at list price.
    pub upstream_cost: Money,
    /// Served with the caller's own credential.
    pub is_byok: bool,
    /// Tier that served.
    pub service_tier: Option<String>,
    /// Region the provider served from, if the endpoint names one.
    pub data_region: Option<Arc<str>>,
    /// Region of the edge.
    pub region: Arc<str>,
    /// `Origin` of the request.
    pub origin: Option<String>,
    /// `HTTP-Referer` of the request: the application's identity.
    pub http_referer: Option<String>,
    /// Display name of the application.
    pub app_title: Option<String>,
    /// `User-Agent` of the request.
    pub user_agent: Option<String>,
    /// The caller's own user id.
    pub external_user: Option<String>,
    /// Preset used.
    pub preset_id: Option<Arc<str>>,
    /// Name of the key, never the key.
    pub key: Arc<str>,
    /// Organisation of the key.
    pub organisation: Option<Arc<str>>,
    /// Workspace of the key.
    pub workspace: Option<Arc<str>>,
    /// Error type that the caller was told; empty when all went well.
    pub error_type: Cow<'static, str>,
    /// Put together after a crash from what the journal had noted of the answer while it was delivered.
    pub recovered: bool,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
}

/// Kind of call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ApiType {
    /// Chat or text completion.
    #[default]
    Completions,
    /// Embeddings.
    Embeddings,
    /// Reranking.
    Rerank,
    /// Speech from text.
    Tts,
    /// Text from speech.
    Stt,
    /// Video.
    Video,
    /// Image.
    Image,
}

/// One upstream try.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// 1 for the first.
    pub number: u8,
    /// Display name of the provider.
    pub provider_name: Arc<str>,
    /// Model tried.
    pub model: Arc<str>,
    /// Name of the endpoint.
    pub endpoint: Arc<str>,
    /// HTTP status of the answer; `None` when there was none.
    pub status: Option<u16>,
    /// Label of the outcome, from the closed set of the router.
    pub outcome: Cow<'static, str>,
    /// From sending to the answer's head or the failure, µs.
    pub latency_us: u64,
    /// Tier it was sent to.
    pub service_tier: Option<String>,
    /// The provider's id of the answer.
    pub upstream_id: Option<String>,
    /// Sent with the caller's own credential.
    pub is_byok: bool,
}

impl Generation {
    /// The application that asked, by its attribution headers: its title, else its address, else nothing.
    pub fn app(&self) -> &str {
        self.app_title.as_deref().or(self.http_referer.as_deref()).unwrap_or_default()
    }

    /// The answer was served with the caller's own credential, so that the provider bills its price to the caller.
    pub fn own_key_cost(&self) -> Money {
        if self.is_byok { self.charge.total } else { Money::ZERO }
    }
}

impl ApiType {
    /// Every kind.
    pub const ALL: [ApiType; 7] =
        [ApiType::Completions, ApiType::Embeddings, ApiType::Rerank, ApiType::Tts, ApiType::Stt, ApiType::Video, ApiType::Image];

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<ApiType> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ApiType::Completions => "completions",
            ApiType::Embeddings => "embeddings",
            ApiType::Rerank => "rerank",
            ApiType::Tts => "tts",
            ApiType::Stt => "stt",
            ApiType::Video => "video",
            ApiType::Image => "image",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
