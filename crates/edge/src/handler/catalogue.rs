//! `GET /models`: what can be asked for, with filters, order and opt-in paging.

use http::Response;
use serde_json::{Value, json};
use tidegate_routing::{ModalitySet, ModelIndex, ParameterSet, Timestamp};

use super::{Query, Reading, public, value_answer};
use crate::body::EdgeBody;
use crate::error::EdgeError;
use crate::handler::endpoints;
use crate::state::{ModelFacts, RoutingState};

/// Lists models. Filters narrow, unknown parameters are ignored, paging happens when `offset` or `limit` is given.
pub(super) fn models(reading: &Reading<'_>) -> Result<Response<EdgeBody>, EdgeError> {
    let (state, query) = (reading.state, &reading.query);
    let filter = Filter::of(query);
    let mut found: Vec<(ModelIndex, &ModelFacts)> =
        (0u32..).map(ModelIndex::new).zip(state.models()).filter(|(index, model)| filter.admits(state, *index, model)).collect();
    sort(&mut found, query.get("sort").as_deref(), state, Timestamp(reading.shared.clock.micros()));
    let total = found.len();
    let number = |name| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let (offset, limit) = (number("offset"), number("limit"));
    let paged = offset.is_some() || limit.is_some();
    let limit = limit.unwrap_or(PAGE).min(PAGE_MAX);
    let offset = offset.unwrap_or(0);
    let data: Vec<Value> = found
        .iter()
        .skip(if paged { offset } else { 0 })
        .take(if paged { limit } else { total })
        .map(|(index, model)| describe(state, *index, model))
        .collect();
    let mut answer = json!({ "object": "list", "data": data, "total_count": total, "links": { "next": null } });
    if paged && offset + limit < total {
        let others: String = query.without(&["offset", "limit"]).map(|pair| format!("&{pair}")).collect();
        answer["links"] = json!({ "next": format!("/api/v1/models?offset={}&limit={limit}{others}", offset + limit) });
    }
    Ok(public(value_answer(&answer)))
}

/// One model, as lists show it.
pub(super) fn describe(state: &RoutingState, index: ModelIndex, model: &ModelFacts) -> Value {
    let endpoints = state.snapshot.endpoints_of(index);
    let of = |endpoint: &tidegate_routing::EndpointIndex| state.endpoint(*endpoint);
    let context = endpoints.iter().map(|endpoint| of(endpoint).context_length).max();
    let output = endpoints.iter().filter_map(|endpoint| of(endpoint).max_output).max();
    let inputs = inputs_of(state, index);
    let parameters = parameters_of(state, index);
    let inputs: Vec<&str> = inputs.names().collect();
    let config = &model.config;
    json!({
        "id": model.slug.as_ref(),
        "object": "model",
        "owned_by": model.slug.split('/').next().unwrap_or_default(),
        "canonical_slug": model.slug.as_ref(),
        "name": config.name,
        "created": config.created,
        "description": config.description,
        "context_length": context,
        "architecture": {
            "modality": format!("{}->{}", inputs.join("+"), config.output_modalities.join("+")),
            "input_modalities": inputs,
            "output_modalities": config.output_modalities,
            "tokenizer": config.tokenizer.as_deref().unwrap_or("Other"),
            "instruct_type": null,
        },
        "pricing": endpoints::cheapest(state, model),
        "top_provider": { "context_length": context, "max_completion_tokens": output, "is_moderated": false },
        "per_request_limits": null,
        "supported_voices": null,
        "supported_parameters": published(parameters),
        "default_parameters": {},
        "hugging_face_id": "",
        "expiration_date": null,
        "knowledge_cutoff": null,
        "links": { "details": format!("/api/v1/models/{}/endpoints", model.slug) },
    })
}

/// Parameter names as the published vocabulary has them: clients with a schema refuse lists that hold others. Routing knows more,
/// because it also weighs what only some providers accept.
pub(super) fn published(parameters: ParameterSet) -> Vec<&'static str> {
    parameters.names().filter(|name| PUBLISHED_PARAMETERS.contains(name)).collect()
}

fn inputs_of(state: &RoutingState, model: ModelIndex) -> ModalitySet {
    state.snapshot.endpoints_of(model).iter().fold(ModalitySet::TEXT, |all, endpoint| all | state.endpoint(*endpoint).inputs)
}

fn parameters_of(state: &RoutingState, model: ModelIndex) -> ParameterSet {
    state.snapshot.endpoints_of(model).iter().fold(ParameterSet::EMPTY, |all, endpoint| all.union(state.endpoint(*endpoint).parameters))
}

/// What the query asks for.
struct Filter {
    text: Option<String>,
    parameters: Vec<String>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    providers: Vec<String>,
    authors: Vec<String>,
    context: Option<u32>,
    max_price: Option<f64>,
    min_price: Option<f64>,
    zdr: bool,
    distillable: Option<bool>,
}

impl Filter {
    fn of(query: &Query<'_>) -> Self {
        let list = |name| {
            let text: Option<String> = query.get(name);
            text.map(|text| text.split(',').map(|item| item.trim().to_ascii_lowercase()).filter(|item| !item.is_empty()).collect())
                .unwrap_or_default()
        };
        let flag = |name| query.get(name).map(|text| text == "true" || text == "1");
        let mut outputs: Vec<String> = list("output_modalities");
        if outputs.is_empty() {
            outputs.push("text".to_owned());
        }
        Self {
            text: query.get("q").map(|text| text.to_ascii_lowercase()),
            parameters: list("supported_parameters"),
            inputs: list("input_modalities"),
            outputs,
            providers: list("providers"),
            authors: list("model_authors"),
            context: query.get("context").and_then(|text| text.parse().ok()),
            max_price: query.get("max_price").and_then(|text| text.parse().ok()),
            min_price: query.get("min_price").and_then(|text| text.parse().ok()),
            zdr: flag("zdr") == Some(true),
            distillable: flag("distillable"),
        }
    }

    fn admits(&self, state: &RoutingState, index: ModelIndex, model: &ModelFacts) -> bool {
        let slug = model.slug.to_ascii_lowercase();
        let named = self.text.as_ref().is_none_or(|text| slug.contains(text) || model.config.name.to_ascii_lowercase().contains(text));
        let author = self.authors.is_empty() || self.authors.iter().any(|author| slug.split('/').next() == Some(author));
        let all = self.outputs.iter().any(|output| output == "all");
        let outputs = all || self.outputs.iter().all(|output| model.config.output_modalities.iter().any(|own| own == output));
        let distillable = self.distillable.is_none_or(|wanted| wanted == model.config.distillable);
        named
            && author
            && outputs
            && distillable
            && state.snapshot.endpoints_of(index).iter().any(|endpoint| self.admits_endpoint(state, *endpoint))
    }

    fn admits_endpoint(&self, state: &RoutingState, index: tidegate_routing::EndpointIndex) -> bool {
        let endpoint = state.endpoint(index);
        let per_million = endpoint.price.prompt as f64 / 1e6;
        let parameters =
            self.parameters.iter().all(|name| ParameterSet::from_name(name).is_some_and(|set| endpoint.parameters.contains(set)));
        let inputs = self
            .inputs
            .iter()
            .all(|name| ModalitySet::from_name(name).is_some_and(|set| (endpoint.inputs | ModalitySet::TEXT).contains(set)));
        let provider = state.snapshot.provider(endpoint.provider());
        let providers = self.providers.is_empty() || self.providers.iter().any(|slug| endpoint.matches(slug, provider));
        let price = self.max_price.is_none_or(|most| per_million <= most) && self.min_price.is_none_or(|least| per_million >= least);
        let context = self.context.is_none_or(|least| endpoint.context_length >= least);
        let policy = !self.zdr || !(endpoint.data.retains || endpoint.data.trains);
        parameters && inputs && providers && price && context && policy
    }
}

fn sort(models: &mut [(ModelIndex, &ModelFacts)], by: Option<&str>, state: &RoutingState, now: Timestamp) {
    let endpoints = |index: ModelIndex| state.snapshot.endpoints_of(index).iter();
    let price = |index: ModelIndex| {
        endpoints(index)
            .map(|endpoint| state.endpoint(*endpoint).price)
            .map(|price| price.prompt + price.completion)
            .min()
            .unwrap_or(u64::MAX)
    };
    let context = |index: ModelIndex| endpoints(index).map(|endpoint| state.endpoint(*endpoint).context_length).max().unwrap_or(0);
    let speed = |index: ModelIndex| {
        endpoints(index).filter_map(|endpoint| state.health.endpoint_view(*endpoint, now).tokens_per_second).fold(0.0, f64::max)
    };
    let latency = |index: ModelIndex| {
        endpoints(index)
            .filter_map(|endpoint| state.health.endpoint_view(*endpoint, now).first_token)
            .min()
            .map_or(u128::MAX, |first| first.as_micros())
    };
    match by {
        Some("newest") => models.sort_by_key(|(_, model)| std::cmp::Reverse(model.config.created)),
        Some("pricing-low-to-high") => models.sort_by_key(|(index, _)| price(*index)),
        Some("pricing-high-to-low") => models.sort_by_key(|(index, _)| std::cmp::Reverse(price(*index))),
        Some("context-high-to-low") => models.sort_by_key(|(index, _)| std::cmp::Reverse(context(*index))),
        Some("throughput-high-to-low") => models.sort_by(|a, b| speed(b.0).total_cmp(&speed(a.0))),
        Some("throughput-low-to-high") => models.sort_by(|a, b| speed(a.0).total_cmp(&speed(b.0))),
        Some("latency-low-to-high") => models.sort_by_key(|(index, _)| latency(*index)),
        _ => {}
    }
}

/// OpenRouter's `Parameter` enumeration, November 2026.
const PUBLISHED_PARAMETERS: [&str; 26] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "top_a",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "max_tokens",
    "max_completion_tokens",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "prediction",
    "seed",
    "response_format",
    "structured_outputs",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "include_reasoning",
    "reasoning",
    "reasoning_effort",
    "web_search_options",
    "verbosity",
];
/// The reference's page sizes.
const PAGE: usize = 500;
const PAGE_MAX: usize = 1000;
