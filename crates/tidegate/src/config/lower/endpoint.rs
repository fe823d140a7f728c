//! Models and endpoints.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_edge::config::{EndpointConfig, ModelConfig};
use tidegate_routing::{DataPolicy, ModalitySet, ParameterSet, Quantization, Tier};

use super::time::unix_seconds;
use super::{Lowering, Names, Place};
use crate::config::file::{Endpoint, Modality, Model, QuantizationName, TierName};
use crate::config::problem::Problem;
use crate::config::scalar::Named;
use crate::config::suggest;

/// The lifetime that most vendors promise for an unused prompt cache.
const CACHE_LIFETIME: Duration = Duration::from_secs(300);

impl<'a> Lowering<'a> {
    pub(super) fn models(&mut self, models: &Named<Model>, place: Place<'a>) -> Vec<ModelConfig> {
        let mut configs = Vec::with_capacity(models.0.len());
        for (slug, raw) in &models.0 {
            if is_model_slug(slug) {
                configs.push(self.model(slug, raw, place.get(slug)));
            } else {
                let message = format!("`{slug}` cannot be the slug of a model");
                self.error_of_key(place, slug, message, "write `author/name` without spaces and `@`");
            }
        }
        configs
    }

    fn model(&mut self, slug: &str, raw: &Model, place: Place<'a>) -> ModelConfig {
        for (index, alias) in raw.aliases.iter().enumerate() {
            if alias.is_empty() || alias.contains([' ', '@']) {
                self.error(place.get("aliases").item(index), format!("`{alias}` cannot be an alias"), "leave out spaces and `@`");
            }
        }
        let mut created = 0;
        if let Some(text) = &raw.created {
            match unix_seconds(text) {
                Some(seconds) => created = seconds,
                None => self.error(place.get("created"), format!("`{text}` is not a date"), "write `2026-11-23`"),
            }
        }
        let outputs = raw.output_modalities.clone().unwrap_or_else(|| vec![Modality::Text]);
        ModelConfig {
            slug: slug.to_owned(),
            name: raw.name.clone().unwrap_or_else(|| slug.to_owned()),
            aliases: raw.aliases.clone(),
            description: raw.description.clone(),
            created,
            distillable: raw.distillable,
            output_modalities: outputs.into_iter().map(|modality| modality.as_str().to_owned()).collect(),
            tokenizer: raw.tokenizer.clone(),
            successor: raw.successor.clone(),
        }
    }

    /// What can only be said when all models are known.
    pub(super) fn models_are_consistent(&mut self, models: &Named<Model>, names: &Names, place: Place<'a>) {
        let mut owners: HashMap<&str, &str> = models.0.iter().map(|(slug, _)| (slug.as_str(), slug.as_str())).collect();
        for (slug, raw) in &models.0 {
            for (index, alias) in raw.aliases.iter().enumerate() {
                if let Some(owner) = owners.insert(alias, slug) {
                    let message = format!("`{alias}` already means `{owner}`");
                    self.error(place.get(slug).get("aliases").item(index), message, "an alias belongs to one model");
                }
            }
            if let Some(successor) = &raw.successor {
                self.known_model(successor, names, place.get(slug).get("successor"));
            }
        }
    }

    pub(super) fn endpoints(&mut self, endpoints: &[Endpoint], names: &Names, place: Place<'a>) -> Vec<EndpointConfig> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut configs = Vec::with_capacity(endpoints.len());
        for (index, raw) in endpoints.iter().enumerate() {
            let at = place.item(index);
            let Some(config) = self.endpoint(raw, names, at) else { continue };
            if let Some(first) = seen.insert(config.name.clone(), index) {
                let first = place.item(first).node();
                self.report.problems.push(
                    Problem::at(at.node(), format!("a second endpoint named `{}`", config.name))
                        .help("give one of them its own `tag` (such as `provider/variant`) or `name`")
                        .context(&first.span, "the first one"),
                );
                continue;
            }
            configs.push(config);
        }
        configs
    }

    fn endpoint(&mut self, raw: &Endpoint, names: &Names, place: Place<'a>) -> Option<EndpointConfig> {
        let provider = self.provider_of(raw, names, place.get("provider"));
        let model = self.model_of(raw, names, place.get("model"));
        let tag = raw.tag.clone().unwrap_or_else(|| raw.provider.clone());
        if tag != raw.provider && !tag.strip_prefix(&raw.provider).is_some_and(|rest| rest.starts_with('/') && rest.len() > 1) {
            let help = format!("write `{0}` or `{0}/variant`", raw.provider);
            self.error(place.get("tag"), format!("tag `{tag}` does not begin with the provider"), help);
        }
        if raw.context_length == 0 {
            self.error(place.get("context_length"), "a context of 0 tokens", "give the provider's limit, such as `131072`");
        }
        if let Some(max_output) = raw.max_output
            && (max_output == 0 || max_output > raw.context_length)
        {
            let message = format!("{max_output} output tokens in a context of {}", raw.context_length);
            self.error(place.get("max_output"), message, "use 1 up to `context_length`, or leave it out");
        }
        if raw.max_concurrency == Some(0) {
            self.error(place.get("max_concurrency"), "no request would be let through", "use `drained: true` to take an endpoint out");
        }
        if raw.prior.tokens_per_second.is_some_and(|speed| !speed.is_finite() || speed <= 0.0) {
            self.error(place.get("prior").get("tokens_per_second"), "not a speed", "use tokens per second above 0");
        }
        let parameters = self.parameters(raw.parameters.as_deref(), place.get("parameters"));
        let prices = self.prices(&raw.prices, place.get("prices"));
        if raw.region.as_deref() == Some("") {
            self.error(place.get("region"), "an empty region", "leave the key out when it is unknown");
        }

        let (provider, model) = (provider?, model?);
        let upstream_model = match (&raw.upstream_model, model.split_once('/')) {
            (Some(name), _) => name.clone(),
            (None, Some((_, name))) => name.to_owned(),
            (None, None) => model.clone(),
        };
        Some(EndpointConfig {
            name: raw.name.clone().unwrap_or_else(|| format!("{model}@{tag}")),
            provider,
            model,
            tag,
            upstream_model,
            prices,
            context_length: raw.context_length,
            max_output: raw.max_output,
            quantization: raw.quantization.lower(),
            region: raw.region.clone(),
            data: DataPolicy { trains: raw.data_policy.trains, retains: raw.data_policy.retains },
            parameters,
            inputs: raw.inputs.iter().flatten().fold(ModalitySet::TEXT, |set, modality| set.union(modality.lower())),
            tier: match raw.tier {
                TierName::Default => Tier::Default,
                TierName::Flex => Tier::Flex,
                TierName::Priority => Tier::Priority,
            },
            drained: raw.drained,
            pinned: false,
            max_concurrency: raw.max_concurrency,
            cache_lifetime: raw.cache_lifetime.map_or(CACHE_LIFETIME, |span| span.0),
            implicit_caching: raw.implicit_caching,
            prior_first_token: raw.prior.first_token.map(|span| span.0),
            prior_tokens_per_second: raw.prior.tokens_per_second,
        })
    }

    fn provider_of(&mut self, raw: &Endpoint, names: &Names, place: Place<'a>) -> Option<String> {
        let slug = &raw.provider;
        if names.providers.contains(slug) {
            return Some(slug.clone());
        }
        if self.is_dangling("providers", slug) {
            return None;
        }
        let help = if tidegate_wire::ProviderCatalog::shipped().get(slug).is_some() {
            format!("Tidegate knows this provider: add `{slug}: {{credentials: [env:…]}}` under `providers`")
        } else {
            match suggest::nearest(slug, names.providers.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare `{slug}` under `providers`"),
            }
        };
        self.error(place, format!("no provider `{slug}`"), help);
        None
    }

    fn model_of(&mut self, raw: &Endpoint, names: &Names, place: Place<'a>) -> Option<String> {
        match names.models.get(&raw.model) {
            Some(slug) if *slug == raw.model => Some(slug.clone()),
            Some(slug) => {
                self.error(place, format!("`{}` is an alias", raw.model), format!("write the model's slug, `{slug}`"));
                None
            }
            None => {
                self.known_model(&raw.model, names, place);
                None
            }
        }
    }

    fn parameters(&mut self, raw: Option<&[String]>, place: Place<'a>) -> ParameterSet {
        let Some(raw) = raw else { return ParameterSet::all() };
        let mut set = ParameterSet::default();
        for (index, name) in raw.iter().enumerate() {
            match ParameterSet::from_name(name) {
                Some(parameter) => set = set.union(parameter),
                None => {
                    let known: Vec<&str> = ParameterSet::all().names().collect();
                    self.report.problems.push(
                        Problem::at(place.item(index).node(), format!("no request parameter `{name}`"))
                            .maybe_help(suggest::advice(name, &known)),
                    );
                }
            }
        }
        set
    }
}

impl QuantizationName {
    pub(crate) fn lower(self) -> Quantization {
        match self {
            QuantizationName::Int4 => Quantization::Int4,
            QuantizationName::Int8 => Quantization::Int8,
            QuantizationName::Fp4 => Quantization::Fp4,
            QuantizationName::Mxfp4 => Quantization::Mxfp4,
            QuantizationName::Nvfp4 => Quantization::Nvfp4,
            QuantizationName::Fp6 => Quantization::Fp6,
            QuantizationName::Fp8 => Quantization::Fp8,
            QuantizationName::Mxfp8 => Quantization::Mxfp8,
            QuantizationName::Fp16 => Quantization::Fp16,
            QuantizationName::Bf16 => Quantization::Bf16,
            QuantizationName::Fp32 => Quantization::Fp32,
            QuantizationName::Unknown => Quantization::Unknown,
        }
    }
}

impl Modality {
    fn lower(self) -> ModalitySet {
        match self {
            Modality::Text => ModalitySet::TEXT,
            Modality::Image => ModalitySet::IMAGE,
            Modality::File => ModalitySet::FILE,
            Modality::Audio => ModalitySet::AUDIO,
            Modality::Video => ModalitySet::VIDEO,
        }
    }
}

/// `author/name`, without what the API gives a meaning of its own. `:free` and the like are part of a slug.
fn is_model_slug(slug: &str) -> bool {
    let Some((author, name)) = slug.split_once('/') else { return false };
    let plain = |part: &str| !part.is_empty() && !part.contains(['@', ' ', '"', '\n']);
    plain(author) && plain(name) && !author.contains(':')
}
