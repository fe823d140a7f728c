//! The `data` object of `GET /generation`: names, order and units of the API.

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::rfc3339::UnixMillis;
use super::{AttemptRecord, Generation};
use crate::charge::Ending;

impl Serialize for Generation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Data::from(self).serialize(serializer)
    }
}

/// Field for field what the API shows. Fields after `provider_responses` are ours.
#[derive(Serialize)]
struct Data<'a> {
    id: &'a str,
    upstream_id: Option<&'a str>,
    request_id: &'a str,
    session_id: Option<&'a str>,
    created_at: String,
    model: &'a str,
    provider_name: &'a str,
    router: Option<&'a str>,
    api_type: &'static str,
    streamed: bool,
    cancelled: bool,
    latency: Option<u64>,
    generation_time: Option<u64>,
    moderation_latency: Option<u64>,
    finish_reason: Option<&'a str>,
    native_finish_reason: Option<&'a str>,
    tokens_prompt: u64,
    tokens_completion: u64,
    native_tokens_prompt: u64,
    native_tokens_completion: u64,
    native_tokens_reasoning: u64,
    native_tokens_cached: u64,
    native_tokens_completion_images: Option<u64>,
    num_media_prompt: u64,
    num_media_completion: Option<u64>,
    num_input_audio_prompt: Option<u64>,
    num_search_results: Option<u64>,
    num_fetches: Option<u64>,
    web_search_engine: Option<&'a str>,
    usage: crate::Money,
    total_cost: crate::Money,
    upstream_inference_cost: crate::Money,
    cache_discount: crate::Money,
    is_byok: bool,
    service_tier: Option<&'a str>,
    data_region: Option<&'a str>,
    origin: &'a str,
    http_referer: Option<&'a str>,
    user_agent: Option<&'a str>,
    app_id: Option<u64>,
    external_user: Option<&'a str>,
    preset_id: Option<&'a str>,
    workspace_id: Option<&'a str>,
    response_cache_source_id: Option<&'a str>,
    provider_responses: Attempts<'a>,
    tidegate: Own<'a>,
}

/// What only Tidegate knows.
#[derive(Serialize)]
struct Own<'a> {
    key: &'a str,
    organisation: Option<&'a str>,
    region: &'a str,
    endpoint: &'a str,
    app_title: Option<&'a str>,
    ending: &'static str,
    recovered: bool,
    cost: crate::Money,
    fee: crate::Money,
    usage_estimated: bool,
    native_tokens_cache_write: u64,
}

impl<'a> From<&'a Generation> for Data<'a> {
    fn from(generation: &'a Generation) -> Data<'a> {
        let usage = &generation.usage;
        Data {
            id: &generation.id,
            upstream_id: generation.upstream_id.as_deref(),
            request_id: &generation.request_id,
            session_id: generation.session_id.as_deref(),
            created_at: UnixMillis(generation.created_ms).to_string(),
            model: &generation.model,
            provider_name: &generation.provider_name,
            router: generation.router.as_deref(),
            api_type: generation.api_type.as_str(),
            streamed: generation.streamed,
            cancelled: generation.ending == Ending::Cancelled,
            latency: generation.first_token_us.map(millis),
            generation_time: generation.generation_us.map(millis),
            moderation_latency: None,
            finish_reason: generation.finish_reason.as_deref(),
            native_finish_reason: generation.native_finish_reason.as_deref(),
            tokens_prompt: usage.prompt_tokens,
            tokens_completion: usage.completion_tokens,
            native_tokens_prompt: usage.prompt_tokens,
            native_tokens_completion: usage.completion_tokens,
            native_tokens_reasoning: usage.reasoning_tokens,
            native_tokens_cached: usage.cached_tokens,
            native_tokens_completion_images: None,
            num_media_prompt: usage.image_count,
            num_media_completion: None,
            num_input_audio_prompt: None,
            num_search_results: None,
            num_fetches: None,
            web_search_engine: None,
            usage: generation.charged,
            total_cost: generation.charged,
            upstream_inference_cost: generation.upstream_cost,
            cache_discount: generation.charge.cache_discount,
            is_byok: generation.is_byok,
            service_tier: generation.service_tier.as_deref(),
            data_region: Some(data_region(generation.data_region.as_deref())),
            origin: generation.origin.as_deref().unwrap_or(""),
            http_referer: generation.http_referer.as_deref(),
            user_agent: generation.user_agent.as_deref(),
            app_id: None,
            external_user: generation.external_user.as_deref(),
            preset_id: generation.preset_id.as_deref(),
            workspace_id: generation.workspace.as_deref(),
            response_cache_source_id: None,
            provider_responses: Attempts(&generation.attempts),
            tidegate: Own {
                key: &generation.key,
                organisation: generation.organisation.as_deref(),
                region: &generation.region,
                endpoint: &generation.endpoint,
                app_title: generation.app_title.as_deref(),
                ending: generation.ending.as_str(),
                recovered: generation.recovered,
                cost: generation.charge.total,
                fee: generation.fee,
                usage_estimated: generation.usage_estimated,
                native_tokens_cache_write: usage.cache_write_tokens,
            },
        }
    }
}

struct Attempts<'a>(&'a [AttemptRecord]);

impl Serialize for Attempts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for attempt in self.0 {
            list.serialize_element(&Attempt(attempt))?;
        }
        list.end()
    }
}

struct Attempt<'a>(&'a AttemptRecord);

impl Serialize for Attempt<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attempt = self.0;
        let mut object = serializer.serialize_struct("Attempt", 10)?;
        object.serialize_field("id", &attempt.upstream_id)?;
        object.serialize_field("provider_name", &*attempt.provider_name)?;
        object.serialize_field("model_permaslug", &*attempt.model)?;
        object.serialize_field("endpoint_id", &*attempt.endpoint)?;
        object.serialize_field("status", &attempt.status)?;
        object.serialize_field("latency", &millis(attempt.latency_us))?;
        object.serialize_field("is_byok", &attempt.is_byok)?;
        match &attempt.service_tier {
            Some(tier) => object.serialize_field("routed_service_tier", tier)?,
            // Readers with a schema take a tier or nothing, not `null`.
            None => object.skip_field("routed_service_tier")?,
        }
        object.serialize_field("attempt", &attempt.number)?;
        object.serialize_field("outcome", &*attempt.outcome)?;
        object.end()
    }
}

/// Whole milliseconds, rounded to the nearest.
fn millis(micros: u64) -> u64 {
    micros / 1_000 + u64::from(micros % 1_000 >= 500)
}

/// The published word for where a provider computes; its own name for the region is not of that vocabulary.
fn data_region(region: Option<&str>) -> &'static str {
    let region = region.unwrap_or_default().to_ascii_lowercase();
    let within = |area: &str| region.strip_prefix(area).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if within("eu") || within("europe") {
        "europe"
    } else if within("us") {
        "us"
    } else {
        "global"
    }
}
