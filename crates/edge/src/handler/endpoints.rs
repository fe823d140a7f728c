//! `GET /models/{author}/{slug}/endpoints`: who serves a model, for how much, and how well.

use http::Response;
use serde_json::{Value, json};
use tidegate_ledger::{PriceTable, Rate};
use tidegate_routing::{BreakerState, EndpointIndex, EndpointView, ParameterSet, Percentiles, Tier, Timestamp};

use super::{Reading, percent_decoded, public, value_answer};
use crate::body::EdgeBody;
use crate::error::EdgeError;
use crate::intent::ModelName;
use crate::region::{RegionSummary, Spread, percent, uptime};
use crate::state::{ModelFacts, RoutingState};

/// Describes the endpoints of one model. Latency and throughput are shown to authenticated callers only.
pub(super) fn of_model(reading: &Reading<'_>) -> Result<Response<EdgeBody>, EdgeError> {
    let name = reading.segments.iter().map(|segment| percent_decoded(segment)).collect::<Vec<_>>().join("/");
    let slug = ModelName::parse(&name).slug;
    let Some(index) = reading.state.snapshot.model(slug) else {
        return Err(EdgeError::UnknownModel { model: slug.to_owned(), similar: Vec::new() });
    };
    let authenticated = reading.shared.keys.load().authenticate(reading.headers, reading.shared.clock.unix_seconds()).is_ok();
    let now = Timestamp(reading.shared.clock.micros());
    let model = reading.state.model(index);
    let endpoints: Vec<Value> = reading
        .state
        .snapshot
        .endpoints_of(index)
        .iter()
        .map(|endpoint| {
            let agreed = reading.shared.region_health.summaries(reading.state.endpoint(*endpoint).id());
            describe(reading.state, *endpoint, &agreed, authenticated, now)
        })
        .collect();
    let mut data = super::catalogue::describe(reading.state, index, model);
    data["endpoints"] = Value::Array(endpoints);
    Ok(public(value_answer(&json!({ "data": data }))))
}

fn describe(state: &RoutingState, index: EndpointIndex, agreed: &[RegionSummary], authenticated: bool, now: Timestamp) -> Value {
    let endpoint = state.endpoint(index);
    let target = state.target(index);
    let view = state.health.endpoint_view(index, now);
    let shown = |percentiles: Option<Percentiles>, factor| percentiles.filter(|_| authenticated).map(|p| of_percentiles(p, factor));
    let least = state.snapshot.settings().uptime_min_requests;
    let [five, half, day] = uptime(&view, agreed, least);
    json!({
        "name": format!("{} | {}", target.provider.name, target.model),
        "model_id": target.model.as_ref(),
        "model_name": state.model(endpoint.model()).config.name,
        "provider_name": target.provider.name.as_ref(),
        "tag": endpoint.tag,
        "quantization": endpoint.quantization.as_str(),
        "context_length": endpoint.context_length,
        "max_completion_tokens": endpoint.max_output,
        "max_prompt_tokens": null,
        "pricing": pricing(&target.prices),
        "supported_parameters": super::catalogue::published(endpoint.parameters),
        "supports_implicit_caching": target.implicit_caching,
        "supports_voice_cloning": false,
        "supports_diarization": false,
        "supports_tool_choice": tool_choice(endpoint.parameters),
        "native_tools": {},
        "status": status(&view, endpoint.drained),
        "uptime_last_5m": five,
        "uptime_last_30m": half,
        "uptime_last_1d": day,
        "latency_last_30m": shown(view.latency_30m, MILLIS),
        "throughput_last_30m": shown(view.throughput_30m, 1.0),
        "seen_from": agreed.iter().map(|region| seen_from(region, authenticated, least)).collect::<Vec<_>>(),
        "region": endpoint.region,
        "data_policy": { "training": endpoint.data.trains, "retains_prompts": endpoint.data.retains },
        "service_tier": match endpoint.tier { Tier::Default => "default", Tier::Flex => "flex", Tier::Priority => "priority" },
    })
}

/// The same as one region of the mesh sees it. Other regions tell the median and the 95th percentile only.
fn seen_from(region: &RegionSummary, authenticated: bool, least: u32) -> Value {
    let spread = |spread: Option<Spread>| {
        spread.filter(|_| authenticated).map(|spread| match spread.whole {
            Some(whole) => of_percentiles(whole, 1.0),
            None => json!({ "p50": spread.p50, "p95": spread.p95 }),
        })
    };
    let [five, half, day] = region.uptime.map(|(ok, failed)| percent(ok, failed, least));
    json!({
        "region": region.region,
        "verdict": region.verdict.label(),
        "uptime_last_5m": five,
        "uptime_last_30m": half,
        "uptime_last_1d": day,
        "latency_last_30m": spread(region.first_token),
        "throughput_last_30m": spread(region.speed),
    })
}

/// An endpoint that takes `tool_choice` takes every form of it.
fn tool_choice(parameters: ParameterSet) -> Value {
    let supported = ParameterSet::from_name("tool_choice").is_some_and(|choice| parameters.contains(choice));
    json!({ "auto": supported, "function": supported, "none": supported, "required": supported })
}

fn of_percentiles(percentiles: Percentiles, factor: f64) -> Value {
    let rounded = |value: f64| (value * factor * 1000.0).round() / 1000.0;
    json!({
        "p50": rounded(percentiles.p50),
        "p75": rounded(percentiles.p75),
        "p90": rounded(percentiles.p90),
        "p99": rounded(percentiles.p99),
    })
}

/// The reference shows latency in milliseconds.
const MILLIS: f64 = 1000.0;

/// OpenRouter's scale: 0 is normal, more negative is worse.
fn status(view: &EndpointView, drained: bool) -> i8 {
    match view.breaker {
        _ if drained => -10,
        BreakerState::Closed if view.uptime_5m.is_some_and(|uptime| uptime < 80.0) => -2,
        BreakerState::Closed if view.uptime_5m.is_some_and(|uptime| uptime < 95.0) => -1,
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => -3,
        BreakerState::Open { .. } => -5,
    }
}

/// Prices as decimal strings, US dollars per unit.
pub(super) fn pricing(prices: &PriceTable) -> Value {
    let mut pricing = json!({
        "prompt": prices.prompt.usd_per_unit(),
        "completion": prices.completion.usd_per_unit(),
        "request": prices.request.usd_per_unit(),
        "image": prices.image.usd_per_unit(),
    });
    let optional: [(&str, Option<Rate>); 5] = [
        ("input_cache_read", prices.cache_read),
        ("input_cache_write", prices.cache_write),
        ("input_cache_write_1h", prices.cache_write_1h),
        ("internal_reasoning", prices.reasoning),
        ("audio", prices.audio),
    ];
    for (name, rate) in optional {
        if let Some(rate) = rate {
            pricing[name] = rate.usd_per_unit().into();
        }
    }
    if prices.discount_ppm > 0 {
        pricing["discount"] = json!(f64::from(prices.discount_ppm) / 1e6);
    }
    pricing
}

/// The cheapest endpoint's prices stand for the model.
pub(super) fn cheapest(state: &RoutingState, model: &ModelFacts) -> Value {
    let Some(index) = state.snapshot.model(&model.slug) else { return Value::Null };
    let endpoints = state.snapshot.endpoints_of(index).iter();
    let price = |endpoint: &&EndpointIndex| {
        let price = state.endpoint(**endpoint).price;
        price.prompt + price.completion
    };
    endpoints.min_by_key(price).map_or(Value::Null, |endpoint| pricing(&state.target(*endpoint).prices))
}
