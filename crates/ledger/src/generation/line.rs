//! A record as one flat JSON object per line, for the user's own warehouse.
//!
//! Names never change meaning; new ones may be added at the end. Money stands in whole pico-dollars, because a warehouse sums it and
//! the sum must be exact; times stand in microseconds.

use serde::Serialize;

use super::{Generation, UnixMillis};

/// The flat form of a record. Serialise it and add a line end.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    v: u8,
    id: &'a str,
    created_at: String,
    created_ms: u64,
    organisation: Option<&'a str>,
    workspace: Option<&'a str>,
    key: &'a str,
    app: &'a str,
    model: &'a str,
    provider: &'a str,
    endpoint: &'a str,
    region: &'a str,
    api_type: &'static str,
    streamed: bool,
    ending: &'static str,
    error_type: &'a str,
    finish_reason: Option<&'a str>,
    recovered: bool,
    usage_estimated: bool,
    prompt_tokens: u64,
    cached_tokens: u64,
    cache_write_tokens: u64,
    completion_tokens: u64,
    reasoning_tokens: u64,
    audio_tokens: u64,
    images: u64,
    cost_picodollars: i128,
    prompt_picodollars: i128,
    completion_picodollars: i128,
    request_picodollars: i128,
    upstream_picodollars: i128,
    fee_picodollars: i128,
    charged_picodollars: i128,
    own_key: bool,
    first_token_us: Option<u64>,
    duration_us: Option<u64>,
    attempts: usize,
    session_id: Option<&'a str>,
    user: Option<&'a str>,
    preset: Option<&'a str>,
    origin: Option<&'a str>,
    referer: Option<&'a str>,
    title: Option<&'a str>,
    upstream_id: Option<&'a str>,
    service_tier: Option<&'a str>,
}

/// Grows when a name changes its meaning, which it should never do.
const VERSION: u8 = 1;

impl<'a> From<&'a Generation> for Line<'a> {
    fn from(record: &'a Generation) -> Self {
        Line {
            v: VERSION,
            id: &record.id,
            created_at: UnixMillis(record.created_ms).to_string(),
            created_ms: record.created_ms,
            organisation: record.organisation.as_deref(),
            workspace: record.workspace.as_deref(),
            key: &record.key,
            app: record.app(),
            model: &record.model,
            provider: &record.provider_name,
            endpoint: &record.endpoint,
            region: &record.region,
            api_type: record.api_type.as_str(),
            streamed: record.streamed,
            ending: record.ending.as_str(),
            error_type: &record.error_type,
            finish_reason: record.finish_reason.as_deref(),
            recovered: record.recovered,
            usage_estimated: record.usage_estimated,
            prompt_tokens: record.usage.prompt_tokens,
            cached_tokens: record.usage.cached_tokens,
            cache_write_tokens: record.usage.cache_write_tokens,
            completion_tokens: record.usage.completion_tokens,
            reasoning_tokens: record.usage.reasoning_tokens,
            audio_tokens: record.usage.audio_tokens,
            images: record.usage.image_count,
            cost_picodollars: record.charge.total.picodollars(),
            prompt_picodollars: record.charge.prompt.picodollars(),
            completion_picodollars: record.charge.completion.picodollars(),
            request_picodollars: record.charge.request.picodollars(),
            upstream_picodollars: record.upstream_cost.picodollars(),
            fee_picodollars: record.fee.picodollars(),
            charged_picodollars: record.charged.picodollars(),
            own_key: record.is_byok,
            first_token_us: record.first_token_us,
            duration_us: record.generation_us,
            attempts: record.attempts.len(),
            session_id: record.session_id.as_deref(),
            user: record.external_user.as_deref(),
            preset: record.preset_id.as_deref(),
            origin: record.origin.as_deref(),
            referer: record.http_referer.as_deref(),
            title: record.app_title.as_deref(),
            upstream_id: record.upstream_id.as_deref(),
            service_tier: record.service_tier.as_deref(),
        }
    }
}
