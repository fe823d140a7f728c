use super::write::{Origin, document};
use super::*;
use crate::config::lower;

const ORIGIN: Origin<'_> = Origin { source: "a list", licence: "MIT", file: "list.json", date: "2026-11-23" };

/// The shape of LiteLLM's list, with one entry per case.
const LITELLM: &str = r#"{
  "sample_spec": {"mode": "one of: chat, embedding"},
  "gpt-test": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 272000, "max_output_tokens": 128000,
    "input_cost_per_token": 2.5e-07, "output_cost_per_token": 0.000002, "cache_read_input_token_cost": 2.5e-08,
    "input_cost_per_token_above_272k_tokens": 5e-07, "output_cost_per_token_above_272k_tokens": 3e-06,
    "supports_function_calling": true, "supports_vision": true, "supports_reasoning": true, "supports_sampling_params": false},
  "groq/openai/gpt-oss-test": {"litellm_provider": "groq", "mode": "chat", "max_input_tokens": "131072",
    "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "deprecation_date": "2027-01-01"},
  "claude-test": {"litellm_provider": "anthropic", "mode": "chat", "max_input_tokens": 200000, "max_output_tokens": 64000,
    "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05, "cache_read_input_token_cost": 3e-07,
    "cache_creation_input_token_cost": 3.75e-06, "cache_creation_input_token_cost_above_1hr": 6e-06},
  "gpt-rounded": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 1000,
    "input_cost_per_token": 1.0416666666e-08, "output_cost_per_token": 1e-06},
  "gpt-free-of-price": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 1000},
  "gpt-responses-only": {"litellm_provider": "openai", "mode": "responses", "max_input_tokens": 1000, "input_cost_per_token": 1e-06,
    "output_cost_per_token": 1e-06, "supported_endpoints": ["/v1/responses"]},
  "text-embedding-test": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 1e-08},
  "groq/house-blend": {"litellm_provider": "groq", "mode": "chat", "max_input_tokens": 1000, "input_cost_per_token": 1e-06,
    "output_cost_per_token": 1e-06},
  "nobody/gpt-test": {"litellm_provider": "nobody", "mode": "chat", "max_input_tokens": 1000, "input_cost_per_token": 1e-06,
    "output_cost_per_token": 1e-06}
}"#;

/// The shape of models.dev's `api.json`.
const MODELS_DEV: &str = r#"{
  "openai": {"id": "openai", "env": ["OPENAI_API_KEY"], "name": "OpenAI", "models": {
    "gpt-test": {"id": "gpt-test", "name": "GPT Test", "attachment": true, "reasoning": true, "temperature": false, "tool_call": true,
      "release_date": "2026-03-05", "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]},
      "cost": {"input": 1.25, "output": 10, "cache_read": 0.125, "context_over_200k": {"input": 2.5, "output": 15}},
      "limit": {"context": 400000, "output": 128000}},
    "gpt-image-test": {"id": "gpt-image-test", "modalities": {"input": ["text"], "output": ["image"]}, "limit": {"context": 1, "output": 0}},
    "gpt-unpriced": {"id": "gpt-unpriced", "limit": {"context": 1000, "output": 100}}}},
  "nobody": {"id": "nobody", "models": {"a": {}, "b": {}}}
}"#;

const OPENROUTER_MODELS: &str = r#"{"data": [
  {"id": "openai/gpt-test", "name": "OpenAI: GPT Test", "created": 1795410218, "context_length": 400000,
    "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
    "pricing": {"prompt": "0.00000125", "completion": "0.00001", "request": "0", "image": "0.001", "input_cache_read": "0.000000125",
      "overrides": [{"min_prompt_tokens": 200000, "prompt": "0.0000025"}, {"utc_start": 1630, "utc_end": 30, "completion": "0.000005"}]},
    "top_provider": {"context_length": 400000, "max_completion_tokens": 128000}, "supported_parameters": ["tools", "seed", "made_up"]},
  {"id": "openrouter/auto", "context_length": 2000000, "pricing": {"prompt": "-1", "completion": "-1"}},
  {"id": "google/painter", "context_length": 1000, "architecture": {"output_modalities": ["image"]},
    "pricing": {"prompt": "0", "completion": "0"}}
]}"#;

const OPENROUTER_ENDPOINTS: &str = r#"{"data": {"id": "openai/gpt-oss-test", "name": "gpt-oss test", "created": 1795410218,
  "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
  "endpoints": [
    {"name": "Groq | gpt-oss", "provider_name": "Groq", "tag": "groq", "quantization": "unknown", "context_length": 131072,
      "max_completion_tokens": 65536, "pricing": {"prompt": "0.00000015", "completion": "0.0000006", "discount": 0.25}},
    {"name": "DeepInfra | gpt-oss", "provider_name": "DeepInfra", "tag": "deepinfra/fp4", "quantization": "fp4", "context_length": 131072,
      "pricing": {"prompt": "0.00000004", "completion": "0.00000018"}, "supported_parameters": ["tools"]},
    {"name": "Nobody | gpt-oss", "provider_name": "Nobody", "tag": "nobody", "context_length": 1000,
      "pricing": {"prompt": "0", "completion": "0"}}
  ]}}"#;

/// The document is a configuration that obeys the rules, and says where it comes from.
fn accepted(imported: &Imported) -> (String, crate::catalog::Catalogue) {
    let text = document(imported, &ORIGIN);
    assert!(
        text.starts_with(
            "# Models and endpoints imported from a list.\n# File: list.json. Imported: 2026-11-23. Licence of the list: MIT.\n"
        )
    );
    match lower::catalogue("imported.yaml", &text) {
        Ok(catalogue) => {
            assert_eq!(catalogue.endpoints.len(), imported.offers.len(), "{text}");
            (text, catalogue)
        }
        Err(report) => panic!("{}\n{text}", report.render(false)),
    }
}

#[test]
fn litellm_entries_become_endpoints_with_exact_prices() {
    let imported = litellm::read(LITELLM, &Selection::default()).unwrap();
    let (text, catalogue) = accepted(&imported);
    let gpt = catalogue.endpoints.iter().find(|endpoint| endpoint.model == "openai/gpt-test").unwrap();
    assert_eq!(gpt.prices.prompt.usd_per_million(), "0.25");
    assert_eq!(gpt.prices.completion.usd_per_million(), "2");
    assert_eq!(gpt.prices.effective(272_001, 0).prompt.usd_per_million(), "0.5");
    assert_eq!(gpt.context_length, 272_000);
    assert!(!gpt.parameters.names().any(|name| name == "temperature"));
    let claude = catalogue.endpoints.iter().find(|endpoint| endpoint.model == "anthropic/claude-test").unwrap();
    assert_eq!(claude.prices.cache_write_1h.unwrap().usd_per_million(), "6");
    let oss = catalogue.endpoints.iter().find(|endpoint| endpoint.provider == "groq").unwrap();
    assert_eq!((oss.model.as_str(), oss.upstream_model.as_str()), ("openai/gpt-oss-test", "openai/gpt-oss-test"));
    assert!(text.contains("# the provider announced its end for 2027-01-01"));
}

#[test]
fn litellm_entries_that_cannot_be_used_are_listed_with_reasons() {
    let imported = litellm::read(LITELLM, &Selection::default()).unwrap();
    let text = document(&imported, &ORIGIN);
    for reason in [
        "#   gpt-rounded: price `prompt` 1.0416666666e-08: finer than a pico-dollar per unit; it would have to be rounded",
        "#   gpt-free-of-price: no token price",
        "#   gpt-responses-only: not served as chat completions",
        "#   text-embedding-test: not a chat model (embedding)",
        "#   groq/house-blend: the author of the model cannot be told from its name",
        "#   nobody/gpt-test: no provider `nobody` ships with Tidegate",
    ] {
        assert!(text.contains(reason), "{reason}\n{text}");
    }
    assert_eq!(imported.skipped.len(), 6);
}

#[test]
fn a_selection_narrows_an_import() {
    let providers = Selection { providers: vec!["groq".to_owned()], ..Selection::default() };
    let imported = litellm::read(LITELLM, &providers).unwrap();
    assert_eq!((imported.offers.len(), imported.skipped.len()), (1, 1));
    let models = Selection { models: Some("*/claude-*".to_owned()), ..Selection::default() };
    assert_eq!(litellm::read(LITELLM, &models).unwrap().offers.len(), 1);
}

#[test]
fn models_dev_entries_become_endpoints() {
    let imported = models_dev::read(MODELS_DEV, &Selection::default()).unwrap();
    let (text, catalogue) = accepted(&imported);
    let gpt = &catalogue.endpoints[0];
    assert_eq!(gpt.prices.cache_read.unwrap().usd_per_million(), "0.125");
    assert_eq!(gpt.prices.effective(200_001, 0).completion.usd_per_million(), "15");
    assert_eq!(gpt.max_output, Some(128_000));
    let model = &catalogue.models[0];
    assert_eq!((model.name.as_str(), model.created), ("GPT Test", 1_772_668_800));
    for reason in [
        "#   nobody: no such provider ships with Tidegate (2 models)",
        "#   openai: gpt-image-test: gives no text",
        "#   openai: gpt-unpriced: no price",
    ] {
        assert!(text.contains(reason), "{reason}\n{text}");
    }
}

#[test]
fn openrouter_models_are_served_through_openrouter() {
    let imported = openrouter::read(OPENROUTER_MODELS, &Selection::default()).unwrap();
    let (text, catalogue) = accepted(&imported);
    let gpt = &catalogue.endpoints[0];
    assert_eq!((gpt.provider.as_str(), gpt.upstream_model.as_str()), ("openrouter", "openai/gpt-test"));
    assert_eq!(gpt.prices.image.usd_per_unit(), "0.001");
    assert_eq!(gpt.prices.effective(200_001, 1200).prompt.usd_per_million(), "2.5");
    assert_eq!(gpt.prices.effective(1, 0).completion.usd_per_million(), "5");
    assert_eq!(gpt.parameters.names().collect::<Vec<_>>(), ["tools", "seed"]);
    assert!(
        text.contains("#   openrouter/auto: price `prompt` -1: negative") || text.contains("openrouter/auto: no context length"),
        "{text}"
    );
    assert!(text.contains("#   google/painter: gives no text"));
}

#[test]
fn openrouter_endpoints_go_to_their_own_providers() {
    let imported = openrouter::read(OPENROUTER_ENDPOINTS, &Selection::default()).unwrap();
    let (text, catalogue) = accepted(&imported);
    let tags: Vec<&str> = catalogue.endpoints.iter().map(|endpoint| endpoint.tag.as_str()).collect();
    assert_eq!(tags, ["deepinfra/fp4", "groq"]);
    assert_eq!(catalogue.endpoints[1].prices.discount_ppm, 250_000);
    assert_eq!(catalogue.endpoints[0].quantization, tidegate_routing::Quantization::Fp4);
    assert!(text.contains("#   openai/gpt-oss-test at Nobody: no provider `nobody` ships with Tidegate"));
    assert!(text.contains("check `upstream_model`"));
}

#[test]
fn another_file_is_refused_by_name() {
    for error in [
        litellm::read("[]", &Selection::default()).unwrap_err(),
        models_dev::read("{\"a\": 1}", &Selection::default()).unwrap_err(),
        openrouter::read("{}", &Selection::default()).unwrap_err(),
    ] {
        assert!(error.to_string().starts_with("not the JSON of"), "{error}");
    }
}
