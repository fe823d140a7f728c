//! OpenRouter's public API: `/models` (each served through OpenRouter) and `/models/{id}/endpoints` (each at its own provider).
//! Prices are decimal strings, USD per token, request or image.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ImportError, Imported, Number, Offer, Override, Prices, Selection, Skipped, Unit, names};

#[derive(Debug, Deserialize)]
struct Answer {
    /// A list of models, or one model with its endpoints. Kept as text: numbers that pass through an untagged enum lose their digits.
    data: Box<RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Model {
    id: String,
    name: Option<String>,
    created: Option<u64>,
    context_length: Option<Number>,
    architecture: Architecture,
    pricing: Option<Pricing>,
    top_provider: TopProvider,
    supported_parameters: Vec<String>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Architecture {
    input_modalities: Vec<String>,
    output_modalities: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TopProvider {
    max_completion_tokens: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    provider_name: String,
    tag: String,
    quantization: Option<String>,
    context_length: Option<Number>,
    max_completion_tokens: Option<Number>,
    pricing: Option<Pricing>,
    supported_parameters: Vec<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Pricing {
    prompt: Option<Number>,
    completion: Option<Number>,
    request: Option<Number>,
    image: Option<Number>,
    audio: Option<Number>,
    internal_reasoning: Option<Number>,
    input_cache_read: Option<Number>,
    input_cache_write: Option<Number>,
    input_cache_write_1h: Option<Number>,
    discount: Option<Number>,
    min_prompt_tokens: Option<u64>,
    utc_start: Option<u16>,
    utc_end: Option<u16>,
    overrides: Vec<Pricing>,
}

/// Slug of OpenRouter itself as a provider.
const SELF: &str = "openrouter";

/// Reads either answer.
pub(crate) fn read(text: &str, selection: &Selection) -> Result<Imported, ImportError> {
    let json = |source| ImportError::Json { source_name: "OpenRouter's API", source };
    let Answer { data } = serde_json::from_str(text).map_err(json)?;
    let mut imported = Imported::default();
    if data.get().starts_with('[') {
        let models: Vec<Model> = serde_json::from_str(data.get()).map_err(json)?;
        for model in models.iter().filter(|model| selection.wants_provider(SELF, SELF) && selection.wants_model(&model.id)) {
            match through_openrouter(model) {
                Ok(offer) => imported.offers.push(offer),
                Err(reason) => imported.skipped.push(Skipped { id: model.id.clone(), reason }),
            }
        }
    } else {
        let model: Model = serde_json::from_str(data.get()).map_err(json)?;
        for endpoint in model.endpoints.iter().filter(|_| selection.wants_model(&model.id)) {
            let theirs = endpoint.tag.split('/').next().unwrap_or_default();
            if !selection.wants_provider(names::provider(theirs).unwrap_or_default(), theirs) {
                continue;
            }
            match direct(&model, endpoint, theirs) {
                Ok(offer) => imported.offers.push(offer),
                Err(reason) => imported.skipped.push(Skipped { id: format!("{} at {}", model.id, endpoint.provider_name), reason }),
            }
        }
    }
    imported.tidy();
    Ok(imported)
}

fn through_openrouter(model: &Model) -> Result<Offer, String> {
    let pricing = model.pricing.as_ref().ok_or("no price")?;
    let base = offer(model, pricing, model.context_length.as_ref(), model.top_provider.max_completion_tokens.as_ref())?;
    Ok(Offer {
        provider: SELF.to_owned(),
        tag: SELF.to_owned(),
        upstream_model: model.id.clone(),
        parameters: known_parameters(&model.supported_parameters),
        ..base
    })
}

fn direct(model: &Model, endpoint: &Endpoint, theirs: &str) -> Result<Offer, String> {
    let provider = names::provider(theirs).ok_or_else(|| format!("no provider `{theirs}` ships with Tidegate"))?;
    let pricing = endpoint.pricing.as_ref().ok_or("no price")?;
    let base = offer(model, pricing, endpoint.context_length.as_ref(), endpoint.max_completion_tokens.as_ref())?;
    let variant = endpoint.tag.split_once('/').map(|(_, variant)| variant);
    let upstream_model = model.id.rsplit('/').next().unwrap_or(&model.id).to_owned();
    Ok(Offer {
        provider: provider.to_owned(),
        tag: variant.map_or(provider.to_owned(), |variant| format!("{provider}/{variant}")),
        upstream_model,
        quantization: endpoint.quantization.clone().filter(|format| format != "unknown"),
        parameters: known_parameters(&endpoint.supported_parameters),
        remarks: vec!["the list does not say what the provider calls the model: check `upstream_model`".to_owned()],
        ..base
    })
}

fn offer(model: &Model, pricing: &Pricing, context: Option<&Number>, max_output: Option<&Number>) -> Result<Offer, String> {
    if !model.id.contains('/') {
        return Err("no author in its id".to_owned());
    }
    let outputs = &model.architecture.output_modalities;
    if !outputs.is_empty() && !outputs.iter().any(|kind| kind == "text") {
        return Err("gives no text".to_owned());
    }
    if pricing.prompt.is_none() || pricing.completion.is_none() {
        return Err("no token price".to_owned());
    }
    let context_length = context.and_then(Number::whole).filter(|tokens| *tokens > 0).ok_or("no context length")?;
    let mut rates = prices(pricing)?;
    // The API writes 0 for "nothing extra".
    rates.0.retain(|(name, rate)| *rate != tidegate_ledger::Rate::ZERO || matches!(*name, "prompt" | "completion"));
    let mut overrides = Vec::new();
    for entry in &pricing.overrides {
        let hours = entry.utc_start.zip(entry.utc_end);
        overrides.push(Override { min_prompt_tokens: entry.min_prompt_tokens, hours, prices: prices(entry)? });
    }
    let inputs = ["image", "file", "audio", "video"]
        .into_iter()
        .filter(|kind| model.architecture.input_modalities.iter().any(|input| input == kind))
        .collect();
    Ok(Offer {
        model: model.id.clone(),
        model_name: model.name.clone(),
        created: model.created.map(date_of),
        prices: rates,
        overrides,
        discount: pricing.discount.as_ref().map(|Number(text)| text.clone()).filter(|share| !share.trim_matches(['0', '.']).is_empty()),
        context_length,
        max_output: max_output.and_then(Number::whole).filter(|max| (1..=context_length).contains(max)),
        inputs,
        ..Offer::default()
    })
}

fn prices(pricing: &Pricing) -> Result<Prices, String> {
    let mut prices = Prices::default();
    for (name, value) in [
        ("prompt", &pricing.prompt),
        ("completion", &pricing.completion),
        ("cache_read", &pricing.input_cache_read),
        ("cache_write", &pricing.input_cache_write),
        ("cache_write_1h", &pricing.input_cache_write_1h),
        ("reasoning", &pricing.internal_reasoning),
        ("request", &pricing.request),
        ("image", &pricing.image),
        ("audio", &pricing.audio),
    ] {
        prices.add(name, value.as_ref(), Unit::One)?;
    }
    Ok(prices)
}

/// The parameters that we know by name; `None` when the list says nothing.
fn known_parameters(names: &[String]) -> Option<Vec<&'static str>> {
    if names.is_empty() {
        return None;
    }
    let known = tidegate_routing::ParameterSet::all();
    Some(known.names().filter(|known| names.iter().any(|name| name == known)).collect())
}

/// The UTC day of a Unix time.
fn date_of(seconds: u64) -> String {
    tidegate_ledger::UnixMillis(seconds.saturating_mul(1_000)).to_string().chars().take(10).collect()
}
