//! `api.json` of models.dev: providers with models, prices in USD per million tokens.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ImportError, Imported, Number, Offer, Override, Prices, Selection, Skipped, Unit, names};

#[derive(Debug, Deserialize)]
struct Provider {
    #[serde(default)]
    models: BTreeMap<String, Model>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Model {
    name: Option<String>,
    attachment: bool,
    reasoning: bool,
    temperature: Option<bool>,
    tool_call: bool,
    structured_output: Option<bool>,
    release_date: Option<String>,
    status: Option<String>,
    modalities: Modalities,
    cost: Option<Cost>,
    limit: Limit,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Modalities {
    input: Vec<String>,
    output: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cost {
    input: Option<Number>,
    output: Option<Number>,
    reasoning: Option<Number>,
    cache_read: Option<Number>,
    cache_write: Option<Number>,
    input_audio: Option<Number>,
    context_over_200k: Option<Box<Cost>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Limit {
    context: Option<Number>,
    output: Option<Number>,
}

/// Reads the list.
pub(crate) fn read(text: &str, selection: &Selection) -> Result<Imported, ImportError> {
    let json = |source| ImportError::Json { source_name: "models.dev", source };
    let providers: BTreeMap<String, Provider> = serde_json::from_str(text).map_err(json)?;
    let mut imported = Imported::default();
    for (theirs, provider) in &providers {
        let ours = names::provider(theirs);
        if !selection.wants_provider(ours.unwrap_or_default(), theirs) {
            continue;
        }
        let Some(ours) = ours else {
            let reason = format!("no such provider ships with Tidegate ({} models)", provider.models.len());
            imported.skipped.push(Skipped { id: theirs.clone(), reason });
            continue;
        };
        for (id, model) in &provider.models {
            let slug = names::model(id);
            if !slug.as_deref().is_none_or(|slug| selection.wants_model(slug)) {
                continue;
            }
            match offer(ours, id, slug, model) {
                Ok(offer) => imported.offers.push(offer),
                Err(reason) => imported.skipped.push(Skipped { id: format!("{theirs}: {id}"), reason }),
            }
        }
    }
    imported.tidy();
    Ok(imported)
}

fn offer(provider: &str, id: &str, slug: Option<String>, entry: &Model) -> Result<Offer, String> {
    if !entry.modalities.output.is_empty() && !entry.modalities.output.iter().any(|kind| kind == "text") {
        return Err("gives no text".to_owned());
    }
    let model = slug.ok_or("the author of the model cannot be told from its name")?;
    let cost = entry.cost.as_ref().ok_or("no price")?;
    if cost.input.is_none() || cost.output.is_none() {
        return Err("no token price".to_owned());
    }
    let context_length = entry.limit.context.as_ref().and_then(Number::whole).filter(|tokens| *tokens > 0).ok_or("no context length")?;

    let mut prices = prices(cost)?;
    prices.drop_if_equal("reasoning", "completion");
    prices.drop_if_equal("audio", "prompt");
    let mut overrides = Vec::new();
    if let Some(long) = &cost.context_over_200k {
        overrides.push(Override { min_prompt_tokens: Some(200_000), hours: None, prices: self::prices(long)? });
    }
    let mut remarks = Vec::new();
    if let Some(status) = &entry.status {
        remarks.push(format!("the list calls it {status}"));
    }
    Ok(Offer {
        provider: provider.to_owned(),
        tag: provider.to_owned(),
        model,
        model_name: entry.name.clone(),
        created: entry.release_date.clone().filter(|date| date.len() == 10),
        upstream_model: id.to_owned(),
        prices,
        overrides,
        context_length,
        max_output: entry.limit.output.as_ref().and_then(Number::whole).filter(|max| (1..=context_length).contains(max)),
        parameters: Some(parameters(entry)),
        inputs: inputs(entry),
        remarks,
        ..Offer::default()
    })
}

fn prices(cost: &Cost) -> Result<Prices, String> {
    let mut prices = Prices::default();
    prices.add("prompt", cost.input.as_ref(), Unit::MillionTokens)?;
    prices.add("completion", cost.output.as_ref(), Unit::MillionTokens)?;
    prices.add("cache_read", cost.cache_read.as_ref(), Unit::MillionTokens)?;
    prices.add("cache_write", cost.cache_write.as_ref(), Unit::MillionTokens)?;
    prices.add("reasoning", cost.reasoning.as_ref(), Unit::MillionTokens)?;
    prices.add("audio", cost.input_audio.as_ref(), Unit::MillionTokens)?;
    Ok(prices)
}

fn parameters(entry: &Model) -> Vec<&'static str> {
    let mut names = vec!["max_tokens", "stop"];
    if entry.temperature.unwrap_or(true) {
        names.extend(["temperature", "top_p"]);
    }
    if entry.tool_call {
        names.extend(["tools", "tool_choice"]);
    }
    if entry.structured_output.unwrap_or(entry.tool_call) {
        names.extend(["response_format", "structured_outputs"]);
    }
    if entry.reasoning {
        names.push("reasoning");
    }
    names
}

fn inputs(entry: &Model) -> Vec<&'static str> {
    let named = |kind: &str| entry.modalities.input.iter().any(|input| input == kind);
    [("image", named("image") || entry.attachment), ("file", named("pdf")), ("audio", named("audio")), ("video", named("video"))]
        .into_iter()
        .filter_map(|(name, supported)| supported.then_some(name))
        .collect()
}
