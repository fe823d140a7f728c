//! From what the caller asked to what routing needs to know: models, variants, preferences, needs, affinity.
//!
//! Pure: a function of the call, the caller, the state and what the affinity table remembers.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tidegate_routing::{Affinity, Intent, ModalitySet, ModelIndex, Needs, ParameterSet, Preferences, SortBy, TierChoice, Timestamp};
use tidegate_wire::ChatCall;

use crate::affinity::AffinityTable;
use crate::auth::Caller;
use crate::error::EdgeError;
use crate::hash;
use crate::state::RoutingState;

/// A model name taken apart: `author/name:nitro@preset/slug`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModelName<'a> {
    /// Slug with catalogue variants such as `:free`; empty when only a preset was named.
    pub(crate) slug: &'a str,
    /// Sort of the last routing variant.
    pub(crate) sort: Option<SortBy>,
    /// Slug of the preset.
    pub(crate) preset: Option<&'a str>,
}

impl<'a> ModelName<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        // Nearly every name is a plain slug; asking all bytes at once is cheaper than three searches.
        if !text.bytes().fold(false, |found, byte| found | (byte == b'@') | (byte == b':')) {
            return Self { slug: text, sort: None, preset: None };
        }
        let mark = text.match_indices('@').map(|(at, _)| at).find(|at| text[*at..].starts_with("@preset/"));
        let (name, preset) = match mark {
            Some(at) => (&text[..at], Some(&text[at + "@preset/".len()..])),
            None => (text, None),
        };
        let mut slug = name;
        let mut sort = None;
        // Routing variants stand last; the last one wins, catalogue variants stay with the slug.
        while let Some((rest, variant)) = slug.rsplit_once(':') {
            let by = match variant {
                "nitro" => SortBy::Throughput,
                "floor" => SortBy::Price,
                "exacto" => SortBy::Exacto,
                _ => break,
            };
            sort = sort.or(Some(by));
            slug = rest;
        }
        Self { slug, sort, preset }
    }
}

/// The call with its preset merged in, if it names one in any of the three ways.
pub(crate) fn with_preset(call: ChatCall, state: &RoutingState) -> Result<(ChatCall, Option<Arc<str>>), EdgeError> {
    let named = match call.preset() {
        Some(preset) => Some(preset.to_owned()),
        None => call.model().and_then(|model| ModelName::parse(model).preset).map(str::to_owned),
    };
    let Some(slug) = named else { return Ok((call, None)) };
    let slug = slug.strip_prefix("@preset/").unwrap_or(&slug);
    let Some(preset) = state.preset(slug) else { return Err(EdgeError::UnknownPreset { preset: slug.to_owned() }) };
    let id: Arc<str> = slug.into();
    Ok((call.with_preset(&preset.fields)?, Some(id)))
}

/// What one request wants, and the conversation it belongs to.
pub(crate) struct Resolved {
    pub(crate) intent: Intent,
    /// Key of the affinity table; `None` when stickiness is off.
    pub(crate) conversation: Option<u64>,
    /// A session was named, so that any success arms stickiness.
    pub(crate) session_named: bool,
}

/// What is not in the call itself.
pub(crate) struct Circumstances<'a> {
    pub(crate) state: &'a RoutingState,
    pub(crate) caller: &'a Caller,
    pub(crate) affinity: &'a AffinityTable,
    /// Session named by a header; the body's wins.
    pub(crate) session_header: Option<&'a str>,
    /// Total time that the caller grants.
    pub(crate) patience: Duration,
    pub(crate) now: Timestamp,
    pub(crate) seed: u64,
}

/// Resolves a call.
pub(crate) fn resolve(call: &ChatCall, around: &Circumstances<'_>) -> Result<Resolved, EdgeError> {
    let state = around.state;
    let defaults = &state.config.defaults;
    let (models, variant_sort) = models_of(call, around)?;
    let preferences = preferences_of(call, around.caller)?;
    let needs = needs_of(call);
    let (conversation, session_named) = match (defaults.sticky, models.first()) {
        (true, Some(model)) => conversation_of(call, around, *model),
        _ => (None, false),
    };
    let affinity = conversation.map(|key| Affinity { key, endpoint: around.affinity.get(key).and_then(|id| state.endpoint_by_id(id)) });
    let mode = around.caller.mode().unwrap_or(defaults.mode);
    let intent = Intent {
        models,
        variant_sort,
        preferences,
        needs,
        // Also before an endpoint is known: the account that the first request warms is the one that later ones must use.
        affinity,
        mode,
        deadline: around.now + around.patience,
        seed: around.seed,
        max_attempts: defaults.max_attempts,
        eligible_tiers: TierChoice::resolve(call.service_tier(), variant_sort),
    };
    Ok(Resolved { intent, conversation, session_named })
}

fn models_of(call: &ChatCall, around: &Circumstances<'_>) -> Result<(SmallVec<[ModelIndex; 2]>, Option<SortBy>), EdgeError> {
    let state = around.state;
    let asked = call.model().map(|model| ModelName::parse(model).slug).filter(|slug| !slug.is_empty());
    let main = match (asked, call.models().first()) {
        (Some(_), _) => call.model().map(Cow::Borrowed),
        (None, Some(_)) => None,
        (None, None) => match &state.config.defaults.model {
            Some(model) => Some(Cow::Owned(model.clone())),
            None => return Err(EdgeError::NoModel),
        },
    };
    let mut sort = None;
    let mut found = SmallVec::new();
    for name in main.iter().map(AsRef::as_ref).chain(call.models().iter().map(AsRef::as_ref)) {
        let name = ModelName::parse(name);
        let Some(index) = state.snapshot.model(name.slug) else {
            return Err(EdgeError::UnknownModel { model: name.slug.to_owned(), similar: similar(state, name.slug) });
        };
        let model = state.model(index);
        if !may_use(around.caller, state, index) {
            return Err(EdgeError::ModelNotAllowed { model: model.slug.to_string() });
        }
        if let Some(successor) = &model.config.successor {
            return Err(EdgeError::ModelDeprecated { model: model.slug.to_string(), successor: successor.clone() });
        }
        sort = sort.or(name.sort);
        if !found.contains(&index) {
            found.push(index);
        }
    }
    Ok((found, sort))
}

/// The key may use this model. It names models by slug or alias.
fn may_use(caller: &Caller, state: &RoutingState, model: ModelIndex) -> bool {
    let allowed = caller.allowed_models();
    allowed.is_empty() || allowed.iter().any(|slug| state.snapshot.model(slug) == Some(model))
}

/// The preferences of key and request together. Requests without any share the key's.
fn preferences_of(call: &ChatCall, caller: &Caller) -> Result<Arc<Preferences>, EdgeError> {
    let Some(raw) = call.provider() else { return Ok(caller.preferences()) };
    let requested: Preferences =
        serde_json::from_str(raw).map_err(|error| EdgeError::BadPreferences { reason: without_position(&error) })?;
    Ok(Arc::new(Preferences::merge(&caller.preferences(), requested)))
}

/// serde counts lines within the `provider` object alone, which would only mislead.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

fn needs_of(call: &ChatCall) -> Needs {
    let inputs = call.inputs();
    let mut modalities = ModalitySet::TEXT;
    for (present, modality) in [
        (inputs.image, ModalitySet::IMAGE),
        (inputs.file, ModalitySet::FILE),
        (inputs.audio, ModalitySet::AUDIO),
        (inputs.video, ModalitySet::VIDEO),
    ] {
        if present {
            modalities = modalities | modality;
        }
    }
    let max_output = call.max_output();
    Needs {
        prompt_tokens: call.prompt_tokens_estimate(),
        expected_output: max_output.unwrap_or(USUAL_OUTPUT).min(USUAL_OUTPUT),
        max_output,
        parameters: ParameterSet::from_names(call.parameters()),
        inputs: modalities,
        buffered: !call.stream(),
    }
}

/// Scope of stickiness: account, model and conversation, the conversation by the affinity keys that clients send, most trusted first.
fn conversation_of(call: &ChatCall, around: &Circumstances<'_>, model: ModelIndex) -> (Option<u64>, bool) {
    let named = call.session_id().or(around.session_header);
    let hashed;
    let conversation: &[u8] = match named.or_else(|| call.prompt_cache_key()).or_else(|| call.metadata_user_id()) {
        Some(name) => name.as_bytes(),
        None => {
            hashed = call.conversation_hash().to_le_bytes();
            &hashed
        }
    };
    let variant = call.model().and_then(|name| ModelName::parse(name).sort).map_or(0u8, |sort| sort as u8 + 1);
    let key = hash::of(&[&around.caller.salt.to_le_bytes(), around.state.model(model).slug.as_bytes(), &[variant], conversation]);
    (Some(key), named.is_some())
}

/// Known slugs that look like the unknown one, best first.
fn similar(state: &RoutingState, unknown: &str) -> Vec<String> {
    let wanted = unknown.rsplit('/').next().unwrap_or(unknown).to_ascii_lowercase();
    let mut scored: Vec<(usize, &str)> = state
        .models()
        .iter()
        .filter_map(|model| {
            let name = model.slug.rsplit('/').next().unwrap_or(&model.slug).to_ascii_lowercase();
            let shared = name.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count();
            let near = shared * 2 >= wanted.len().max(1) || name.contains(&wanted) || wanted.contains(&name);
            near.then_some((shared, model.slug.as_ref()))
        })
        .collect();
    scored.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, slug)| slug.to_owned()).collect()
}

/// Expected answer of a request that sets no bound, tokens: the usual size of a chat answer (`scale.md`, case A).
const USUAL_OUTPUT: u32 = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_names_come_apart() {
        let cases = [
            ("a/b", "a/b", None, None),
            ("a/b:nitro", "a/b", Some(SortBy::Throughput), None),
            ("a/b:floor:nitro", "a/b", Some(SortBy::Throughput), None),
            ("a/b:nitro:floor", "a/b", Some(SortBy::Price), None),
            ("a/b:free", "a/b:free", None, None),
            ("a/b:free:floor", "a/b:free", Some(SortBy::Price), None),
            ("a/b:exacto@preset/mail", "a/b", Some(SortBy::Exacto), Some("mail")),
            ("@preset/mail", "", None, Some("mail")),
        ];
        for (text, slug, sort, preset) in cases {
            assert_eq!(ModelName::parse(text), ModelName { slug, sort, preset }, "{text}");
        }
    }
}
