//! LiteLLM's `model_prices_and_context_window.json`: a flat mapping from ids to facts, prices in USD per token.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ImportError, Imported, Number, Offer, Override, Prices, Selection, Skipped, Unit, names};

/// One entry, as far as we use it. Everything is optional in the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    litellm_provider: Option<String>,
    mode: Option<String>,
    max_input_tokens: Option<Number>,
    max_output_tokens: Option<Number>,
    max_tokens: Option<Number>,
    deprecation_date: Option<String>,
    supported_endpoints: Option<Vec<String>>,
    input_cost_per_token: Option<Number>,
    output_cost_per_token: Option<Number>,
    cache_read_input_token_cost: Option<Number>,
    cache_creation_input_token_cost: Option<Number>,
    cache_creation_input_token_cost_above_1hr: Option<Number>,
    output_cost_per_reasoning_token: Option<Number>,
    input_cost_per_audio_token: Option<Number>,
    input_cost_per_image: Option<Number>,
    input_cost_per_request: Option<Number>,
    input_cost_per_token_above_128k_tokens: Option<Number>,
    output_cost_per_token_above_128k_tokens: Option<Number>,
    input_cost_per_token_above_200k_tokens: Option<Number>,
    output_cost_per_token_above_200k_tokens: Option<Number>,
    cache_read_input_token_cost_above_200k_tokens: Option<Number>,
    cache_creation_input_token_cost_above_200k_tokens: Option<Number>,
    input_cost_per_token_above_272k_tokens: Option<Number>,
    output_cost_per_token_above_272k_tokens: Option<Number>,
    cache_read_input_token_cost_above_272k_tokens: Option<Number>,
    cache_creation_input_token_cost_above_272k_tokens: Option<Number>,
    tiered_pricing: Option<Box<RawValue>>,
    off_peak_pricing: Option<Box<RawValue>>,
    supports_function_calling: bool,
    supports_tool_choice: bool,
    supports_parallel_function_calling: bool,
    supports_response_schema: bool,
    supports_reasoning: bool,
    supports_sampling_params: Option<bool>,
    supports_vision: bool,
    supports_pdf_input: bool,
    supports_audio_input: bool,
    supports_video_input: bool,
}

/// Reads the list.
pub(crate) fn read(text: &str, selection: &Selection) -> Result<Imported, ImportError> {
    let json = |source| ImportError::Json { source_name: "LiteLLM's price list", source };
    let entries: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(json)?;
    let mut imported = Imported::default();
    for (id, raw) in entries.iter().filter(|(id, _)| *id != "sample_spec") {
        let entry: Entry = match serde_json::from_str(raw.get()) {
            Ok(entry) => entry,
            Err(error) => {
                imported.skipped.push(Skipped { id: id.clone(), reason: format!("not readable: {error}") });
                continue;
            }
        };
        let theirs = entry.litellm_provider.as_deref().unwrap_or_default();
        let ours = names::provider(theirs);
        if !selection.wants_provider(ours.unwrap_or_default(), theirs) {
            continue;
        }
        let upstream = id.strip_prefix(theirs).and_then(|rest| rest.strip_prefix('/')).unwrap_or(id);
        let slug = names::model(upstream);
        if !slug.as_deref().is_none_or(|slug| selection.wants_model(slug)) {
            continue;
        }
        match offer(upstream, ours, slug, &entry) {
            Ok(offer) => imported.offers.push(offer),
            Err(reason) => imported.skipped.push(Skipped { id: id.clone(), reason }),
        }
    }
    imported.tidy();
    Ok(imported)
}

fn offer(upstream: &str, provider: Option<&str>, slug: Option<String>, entry: &Entry) -> Result<Offer, String> {
    match entry.mode.as_deref() {
        Some("chat" | "responses") => {}
        Some(mode) => return Err(format!("not a chat model ({mode})")),
        None => return Err("the list does not say what kind of model it is".to_owned()),
    }
    if entry.supported_endpoints.as_ref().is_some_and(|paths| !paths.iter().any(|path| path == "/v1/chat/completions")) {
        return Err("not served as chat completions".to_owned());
    }
    let provider =
        provider.ok_or_else(|| format!("no provider `{}` ships with Tidegate", entry.litellm_provider.as_deref().unwrap_or("(none)")))?;
    let model = slug.ok_or("the author of the model cannot be told from its name")?;
    if entry.input_cost_per_token.is_none() || entry.output_cost_per_token.is_none() {
        return Err("no token price".to_owned());
    }
    if entry.tiered_pricing.is_some() {
        return Err("tiered prices of a form that cannot be expressed".to_owned());
    }
    let context = entry.max_input_tokens.as_ref().or(entry.max_tokens.as_ref()).and_then(Number::whole);
    let context_length = context.filter(|tokens| *tokens > 0).ok_or("no context length")?;

    let mut prices = Prices::default();
    prices.add("prompt", entry.input_cost_per_token.as_ref(), Unit::One)?;
    prices.add("completion", entry.output_cost_per_token.as_ref(), Unit::One)?;
    prices.add("cache_read", entry.cache_read_input_token_cost.as_ref(), Unit::One)?;
    prices.add("cache_write", entry.cache_creation_input_token_cost.as_ref(), Unit::One)?;
    prices.add("cache_write_1h", entry.cache_creation_input_token_cost_above_1hr.as_ref(), Unit::One)?;
    prices.add("reasoning", entry.output_cost_per_reasoning_token.as_ref(), Unit::One)?;
    prices.add("audio", entry.input_cost_per_audio_token.as_ref(), Unit::One)?;
    prices.add("image", entry.input_cost_per_image.as_ref(), Unit::One)?;
    prices.add("request", entry.input_cost_per_request.as_ref(), Unit::One)?;
    prices.drop_if_equal("reasoning", "completion");
    prices.drop_if_equal("audio", "prompt");

    let mut remarks = Vec::new();
    if let Some(date) = &entry.deprecation_date {
        remarks.push(format!("the provider announced its end for {date}"));
    }
    if entry.off_peak_pricing.is_some() {
        remarks.push("cheaper at some hours; write them as `overrides` if they matter".to_owned());
    }
    Ok(Offer {
        provider: provider.to_owned(),
        tag: provider.to_owned(),
        model,
        upstream_model: upstream.to_owned(),
        prices,
        overrides: overrides(entry)?,
        context_length,
        max_output: entry.max_output_tokens.as_ref().and_then(Number::whole).filter(|max| (1..=context_length).contains(max)),
        parameters: Some(parameters(entry)),
        inputs: inputs(entry),
        remarks,
        ..Offer::default()
    })
}

/// Prices for long prompts. The list's thresholds are exclusive, like ours.
fn overrides(entry: &Entry) -> Result<Vec<Override>, String> {
    let mut overrides = Vec::new();
    let tiers = [
        (128_000, [&entry.input_cost_per_token_above_128k_tokens, &entry.output_cost_per_token_above_128k_tokens, &None, &None]),
        (
            200_000,
            [
                &entry.input_cost_per_token_above_200k_tokens,
                &entry.output_cost_per_token_above_200k_tokens,
                &entry.cache_read_input_token_cost_above_200k_tokens,
                &entry.cache_creation_input_token_cost_above_200k_tokens,
            ],
        ),
        (
            272_000,
            [
                &entry.input_cost_per_token_above_272k_tokens,
                &entry.output_cost_per_token_above_272k_tokens,
                &entry.cache_read_input_token_cost_above_272k_tokens,
                &entry.cache_creation_input_token_cost_above_272k_tokens,
            ],
        ),
    ];
    for (threshold, [prompt, completion, cache_read, cache_write]) in tiers {
        let mut prices = Prices::default();
        prices.add("prompt", prompt.as_ref(), Unit::One)?;
        prices.add("completion", completion.as_ref(), Unit::One)?;
        prices.add("cache_read", cache_read.as_ref(), Unit::One)?;
        prices.add("cache_write", cache_write.as_ref(), Unit::One)?;
        if !prices.0.is_empty() {
            overrides.push(Override { min_prompt_tokens: Some(threshold), hours: None, prices });
        }
    }
    Ok(overrides)
}

fn parameters(entry: &Entry) -> Vec<&'static str> {
    let mut names = vec!["max_tokens", "stop"];
    if entry.supports_sampling_params.unwrap_or(true) {
        names.extend(["temperature", "top_p"]);
    }
    for (supported, name) in [
        (entry.supports_function_calling, "tools"),
        (entry.supports_tool_choice, "tool_choice"),
        (entry.supports_parallel_function_calling, "parallel_tool_calls"),
        (entry.supports_response_schema, "response_format"),
        (entry.supports_response_schema, "structured_outputs"),
        (entry.supports_reasoning, "reasoning"),
    ] {
        if supported {
            names.push(name);
        }
    }
    names
}

fn inputs(entry: &Entry) -> Vec<&'static str> {
    [
        (entry.supports_vision, "image"),
        (entry.supports_pdf_input, "file"),
        (entry.supports_audio_input, "audio"),
        (entry.supports_video_input, "video"),
    ]
    .into_iter()
    .filter_map(|(supported, name)| supported.then_some(name))
    .collect()
}
