use super::*;
use crate::charge::charge_for;
use crate::{PriceTable, Rate};

pub(crate) fn generation() -> Generation {
    let usage = Usage { prompt_tokens: 1_200, cached_tokens: 1_000, completion_tokens: 34, reasoning_tokens: 10, ..Usage::default() };
    let prices = PriceTable {
        prompt: Rate::per_million_usd("0.15").unwrap(),
        completion: Rate::per_million_usd("0.6").unwrap(),
        cache_read: Some(Rate::per_million_usd("0.075").unwrap()),
        ..PriceTable::default()
    };
    let charge = charge_for(Ending::Completed, Some("stop"), &usage, &prices, 0);
    Generation {
        id: "gen-1".into(),
        upstream_id: Some("chatcmpl-9".to_owned()),
        request_id: "req-1".into(),
        session_id: None,
        created_ms: 1_795_410_218_250,
        model: "openai/gpt-4o-mini".into(),
        provider_name: "OpenAI".into(),
        endpoint: "openai/gpt-4o-mini".into(),
        router: None,
        api_type: ApiType::Completions,
        streamed: true,
        ending: Ending::Completed,
        first_token_us: Some(312_499),
        generation_us: Some(1_000_500),
        finish_reason: Some("stop".into()),
        native_finish_reason: Some("stop".to_owned()),
        usage,
        usage_estimated: false,
        charge,
        fee: Money::ZERO,
        charged: charge.total,
        upstream_cost: charge.total,
        is_byok: false,
        service_tier: None,
        data_region: None,
        region: "local".into(),
        origin: None,
        http_referer: Some("https://example.com".to_owned()),
        app_title: Some("Example".to_owned()),
        user_agent: None,
        external_user: None,
        preset_id: None,
        key: "ci".into(),
        organisation: None,
        workspace: None,
        error_type: "".into(),
        recovered: false,
        attempts: vec![AttemptRecord {
            number: 1,
            provider_name: "OpenAI".into(),
            model: "openai/gpt-4o-mini".into(),
            endpoint: "openai/gpt-4o-mini".into(),
            status: Some(200),
            outcome: "success".into(),
            latency_us: 250_000,
            service_tier: None,
            upstream_id: Some("chatcmpl-9".to_owned()),
            is_byok: false,
        }],
    }
}

#[test]
fn serialises_money_with_all_digits_and_times_in_milliseconds() {
    let text = serde_json::to_string(&generation()).unwrap();
    assert!(text.contains(r#""total_cost":0.0001254,"#), "{text}");
    assert!(text.contains(r#""cache_discount":0.000075,"#), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["latency"], 312);
    assert_eq!(value["generation_time"], 1_001);
    assert_eq!(value["created_at"], "2026-11-23T05:03:38.250Z");
    assert_eq!(value["provider_responses"][0]["latency"], 250);
    assert_eq!(value["tidegate"]["key"], "ci");
}

/// The names of the API, in the reference's order.
#[test]
fn has_every_field_of_the_api() {
    let value = serde_json::to_value(generation()).unwrap();
    let names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names.join(" "),
        "id upstream_id request_id session_id created_at model provider_name router api_type streamed cancelled latency \
         generation_time moderation_latency finish_reason native_finish_reason tokens_prompt tokens_completion native_tokens_prompt \
         native_tokens_completion native_tokens_reasoning native_tokens_cached native_tokens_completion_images num_media_prompt \
         num_media_completion num_input_audio_prompt num_search_results num_fetches web_search_engine usage total_cost \
         upstream_inference_cost cache_discount is_byok service_tier data_region origin http_referer user_agent app_id external_user \
         preset_id workspace_id response_cache_source_id provider_responses tidegate"
    );
    let attempt: Vec<&str> = value["provider_responses"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(attempt.join(" "), "id provider_name model_permaslug endpoint_id status latency is_byok attempt outcome");
}
