//! Which endpoints can serve a request at all, and why the others cannot.
//!
//! Every endpoint gets at most one reason: the first in a fixed order from "does not exist for you" over "policy" to "too
//! small". When nothing is left, the furthest stage that anything reached names the answer's code, so a caller is told what
//! to change.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::preferences::DataCollection;
use crate::{Endpoint, EndpointIndex, Intent, ModelIndex, Preferences, Provider, Snapshot, Tier, TierChoice};

/// An endpoint that cannot serve the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Which.
    pub endpoint: EndpointIndex,
    /// Why.
    pub reason: Exclusion,
}

/// Why an endpoint cannot serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// Taken out by an operator.
    Drained,
    /// A service tier nobody asked for.
    Tier,
    /// Not on an allow list.
    Allowed,
    /// On a deny list.
    Ignored,
    /// Not in `order`, and fallbacks are not allowed.
    NotListed,
    /// May store prompts or train on them.
    Training,
    /// Keeps prompts.
    Retention,
    /// Processes data outside the region.
    DataRegion,
    /// The model's author does not permit distillation.
    Distillation,
    /// Serves another precision.
    Quantization,
    /// Charges more than the caller accepts.
    MaxPrice,
    /// The prompt is longer than the context.
    ContextLength,
    /// The answer may be longer than the endpoint gives.
    OutputLength,
    /// Does not accept an input modality of the request.
    Inputs,
    /// Does not support every parameter, and all are required.
    Parameters,
    /// Others support the tools, output format or verbosity asked for; this one does not.
    Steering,
    /// Prompt and answer together may be longer than the context; others have room.
    TightContext,
}

impl Exclusion {
    /// Closed label, for people and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Exclusion::Drained => "drained",
            Exclusion::Tier => "service tier not asked for",
            Exclusion::Allowed => "not an allowed provider",
            Exclusion::Ignored => "ignored provider",
            Exclusion::NotListed => "not in `order`, fallbacks not allowed",
            Exclusion::Training => "may collect data",
            Exclusion::Retention => "retains data",
            Exclusion::DataRegion => "outside the data region",
            Exclusion::Distillation => "distillation not permitted",
            Exclusion::Quantization => "other quantization",
            Exclusion::MaxPrice => "above `max_price`",
            Exclusion::ContextLength => "context too short",
            Exclusion::OutputLength => "output limit too low",
            Exclusion::Inputs => "input modality not accepted",
            Exclusion::Parameters => "parameter not supported",
            Exclusion::Steering => "others support the tools, format or verbosity asked for",
            Exclusion::TightContext => "others have room for prompt and answer",
        }
    }

    /// The word for it in the public `excluded_by` vocabulary, which is closed (reference section 1.7).
    pub const fn excluded_by(self) -> Option<&'static str> {
        match self {
            Exclusion::Drained | Exclusion::Tier => None,
            Exclusion::Allowed | Exclusion::Ignored | Exclusion::NotListed => Some("allowed_providers"),
            Exclusion::Training | Exclusion::Distillation => Some("data_policy:training"),
            Exclusion::Retention => Some("data_policy:zdr"),
            Exclusion::DataRegion => Some("data_region"),
            Exclusion::Quantization => Some("quantization"),
            Exclusion::MaxPrice => Some("max_price"),
            Exclusion::ContextLength | Exclusion::OutputLength | Exclusion::TightContext => Some("context_length"),
            Exclusion::Inputs | Exclusion::Parameters | Exclusion::Steering => Some("require_parameters"),
        }
    }

    const fn code(self) -> NoRouteCode {
        match self {
            Exclusion::Drained | Exclusion::Tier | Exclusion::Allowed | Exclusion::Ignored | Exclusion::NotListed => {
                NoRouteCode::NoEndpoints
            }
            Exclusion::Training | Exclusion::Retention | Exclusion::Distillation => NoRouteCode::PrivacyRestricted,
            Exclusion::DataRegion
            | Exclusion::Quantization
            | Exclusion::MaxPrice
            | Exclusion::ContextLength
            | Exclusion::OutputLength
            | Exclusion::Inputs
            | Exclusion::Parameters
            | Exclusion::Steering
            | Exclusion::TightContext => NoRouteCode::ConstraintFiltered,
        }
    }
}

/// Why no endpoint can serve a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint can serve the request: {}", code.as_str())]
pub struct NoRoute {
    /// What to tell the caller.
    pub code: NoRouteCode,
    /// Words of the public vocabulary, without repetition.
    pub excluded_by: Vec<&'static str>,
    /// The constraint that got furthest, if it has a name in the request.
    pub constraint: Option<Constraint>,
    /// Every endpoint with its reason.
    pub excluded: Vec<Excluded>,
}

/// Public code of a request that nothing can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRouteCode {
    /// The intent names no model of the snapshot.
    ModelNotFound,
    /// Nothing is routable, or the caller's lists removed all.
    NoEndpoints,
    /// A data policy removed all.
    PrivacyRestricted,
    /// Price, size, parameters, precision or region removed all.
    ConstraintFiltered,
}

impl NoRouteCode {
    /// Wire value of `availability.code`.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoRouteCode::ModelNotFound => "model_not_found",
            NoRouteCode::NoEndpoints => "no_endpoints",
            NoRouteCode::PrivacyRestricted => "privacy_restricted",
            NoRouteCode::ConstraintFiltered => "constraint_filtered",
        }
    }

    /// HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            NoRouteCode::ModelNotFound => 400,
            NoRouteCode::NoEndpoints | NoRouteCode::PrivacyRestricted | NoRouteCode::ConstraintFiltered => 404,
        }
    }
}

/// The request field that left nothing, and what would have fitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// Request field.
    pub field: &'static str,
    /// A sentence for the caller.
    pub detail: String,
}

/// What is left of one model.
#[derive(Debug, Default)]
pub(crate) struct Filtered {
    pub(crate) kept: SmallVec<[EndpointIndex; 8]>,
    pub(crate) excluded: SmallVec<[Excluded; 4]>,
    /// The tier asked for exists, and only it may serve: `service_tier: flex`.
    pub(crate) tier_only: bool,
}

/// Applies every filter that needs no health.
pub(crate) fn filter(snapshot: &Snapshot, model: ModelIndex, intent: &Intent) -> Filtered {
    let endpoints = snapshot.endpoints_of(model);
    let has_flex = || endpoints.iter().map(|at| snapshot.endpoint(*at)).any(|one| one.tier == Tier::Flex && !one.drained);
    let tier_only = intent.eligible_tiers == TierChoice::Flex && has_flex();
    let mut filtered = Filtered { tier_only, ..Filtered::default() };
    let filter = Filter { snapshot, intent, preferences: &intent.preferences, tier_only };
    let distillable = snapshot.models().get(model.get()).is_some_and(|model| model.distillable());
    for at in endpoints {
        let endpoint = snapshot.endpoint(*at);
        match filter.exclusion(endpoint, distillable) {
            None => filtered.kept.push(*at),
            Some(reason) => filtered.excluded.push(Excluded { endpoint: *at, reason }),
        }
    }
    let needs = &intent.needs;
    let steering = needs.parameters.steering();
    if !steering.is_empty() {
        filtered.prefer(snapshot, Exclusion::Steering, |endpoint| endpoint.parameters.contains(steering));
    }
    if let Some(output) = needs.max_output {
        let whole = u64::from(needs.prompt_tokens) + u64::from(output);
        filtered.prefer(snapshot, Exclusion::TightContext, |one| whole <= u64::from(one.context_length));
    }
    filtered
}

impl Filtered {
    /// Leaves only the endpoints that fit, unless none does.
    fn prefer(&mut self, snapshot: &Snapshot, reason: Exclusion, fits: impl Fn(&Endpoint) -> bool) {
        let fitting = self.kept.iter().filter(|at| fits(snapshot.endpoint(**at))).count();
        if fitting == 0 || fitting == self.kept.len() {
            return;
        }
        let excluded = &mut self.excluded;
        self.kept.retain(|at| {
            let fits = fits(snapshot.endpoint(*at));
            if !fits {
                excluded.push(Excluded { endpoint: *at, reason });
            }
            fits
        });
    }
}

/// Says what kept a request from every endpoint.
pub(crate) fn no_route(snapshot: &Snapshot, intent: &Intent, excluded: SmallVec<[Excluded; 4]>) -> NoRoute {
    let furthest = excluded.iter().map(|one| one.reason).max();
    let mut excluded_by = Vec::new();
    for word in excluded.iter().filter_map(|one| one.reason.excluded_by()) {
        if !excluded_by.contains(&word) {
            excluded_by.push(word);
        }
    }
    NoRoute {
        code: furthest.map_or(NoRouteCode::NoEndpoints, Exclusion::code),
        excluded_by,
        constraint: furthest.and_then(|reason| constraint(snapshot, intent, reason, &excluded)),
        excluded: excluded.into_vec(),
    }
}

struct Filter<'a> {
    snapshot: &'a Snapshot,
    intent: &'a Intent,
    preferences: &'a Preferences,
    tier_only: bool,
}

impl Filter<'_> {
    fn exclusion(&self, endpoint: &Endpoint, distillable: bool) -> Option<Exclusion> {
        let provider = self.snapshot.provider(endpoint.provider());
        let preferences = self.preferences;
        let needs = &self.intent.needs;
        let listed = |slugs: &[String]| slugs.iter().any(|slug| endpoint.matches(slug, provider));
        let checks = [
            (endpoint.drained, Exclusion::Drained),
            (!self.admits_tier(endpoint, provider), Exclusion::Tier),
            (preferences.only.iter().any(|list| !listed(list)), Exclusion::Allowed),
            (listed(&preferences.ignore), Exclusion::Ignored),
            (!preferences.fallbacks_allowed() && !preferences.order.is_empty() && !listed(&preferences.order), Exclusion::NotListed),
            (
                preferences.data_collection == Some(DataCollection::Deny) && (endpoint.data.trains || endpoint.data.retains),
                Exclusion::Training,
            ),
            (preferences.zdr && endpoint.data.retains, Exclusion::Retention),
            (preferences.data_region.as_deref().is_some_and(|region| !endpoint.stays_in(region)), Exclusion::DataRegion),
            (preferences.enforce_distillable_text && !distillable, Exclusion::Distillation),
            (preferences.quantizations.is_some_and(|accepted| !accepted.matches(endpoint.quantization)), Exclusion::Quantization),
            (preferences.max_price.is_some_and(|bound| bound.exceeded_by(&endpoint.price).is_some()), Exclusion::MaxPrice),
            (needs.prompt_tokens > endpoint.context_length, Exclusion::ContextLength),
            (needs.max_output.is_some_and(|asked| endpoint.max_output.is_some_and(|most| asked > most)), Exclusion::OutputLength),
            (!endpoint.inputs.contains(needs.inputs), Exclusion::Inputs),
            (
                preferences.require_parameters == Some(true) && !needs.parameters.required().missing_from(endpoint.parameters).is_empty(),
                Exclusion::Parameters,
            ),
        ];
        checks.into_iter().find(|(excluded, _)| *excluded).map(|(_, reason)| reason)
    }

    /// A tier is admitted by the choice of tiers, or by its full tag in `only` or `order`.
    fn admits_tier(&self, endpoint: &Endpoint, provider: &Provider) -> bool {
        if self.tier_only {
            return endpoint.tier == Tier::Flex;
        }
        let chosen = match endpoint.tier {
            Tier::Default => true,
            Tier::Priority => matches!(self.intent.eligible_tiers, TierChoice::Priority | TierChoice::Nitro),
            Tier::Flex => self.intent.eligible_tiers == TierChoice::Floor,
        };
        let named = |slugs: &[String]| slugs.iter().any(|slug| endpoint.matches(slug, provider));
        chosen || named(&self.preferences.order) || self.preferences.only.iter().any(|list| named(list))
    }
}

fn constraint(snapshot: &Snapshot, intent: &Intent, reason: Exclusion, excluded: &[Excluded]) -> Option<Constraint> {
    let endpoints = || excluded.iter().filter(|one| one.reason == reason).map(|one| snapshot.endpoint(one.endpoint));
    let needs = &intent.needs;
    let (field, detail) = match reason {
        Exclusion::Drained | Exclusion::Tier => return None,
        Exclusion::Allowed => ("provider.only", "no allowed provider serves this model".to_owned()),
        Exclusion::Ignored => ("provider.ignore", "every provider of this model is ignored".to_owned()),
        Exclusion::NotListed => ("provider.order", "no listed provider serves this model, and fallbacks are not allowed".to_owned()),
        Exclusion::Training => ("provider.data_collection", "every provider of this model may collect prompts".to_owned()),
        Exclusion::Retention => ("provider.zdr", "every provider of this model retains prompts".to_owned()),
        Exclusion::Distillation => {
            ("provider.enforce_distillable_text", "the author of this model does not permit distillation".to_owned())
        }
        Exclusion::DataRegion => ("data_region", "no provider serves this model in the data region".to_owned()),
        Exclusion::Quantization => ("provider.quantizations", "no provider serves this model in an accepted quantization".to_owned()),
        Exclusion::MaxPrice => ("provider.max_price", "every provider of this model charges more".to_owned()),
        Exclusion::ContextLength | Exclusion::TightContext => {
            let longest = endpoints().map(|one| one.context_length).max().unwrap_or_default();
            ("messages", format!("about {} prompt tokens; the longest context is {longest}", needs.prompt_tokens))
        }
        Exclusion::OutputLength => {
            let longest = endpoints().filter_map(|one| one.max_output).max().unwrap_or_default();
            let asked = needs.max_output.unwrap_or_default();
            ("max_tokens", format!("{asked} output tokens asked for; the highest limit is {longest}"))
        }
        Exclusion::Inputs => {
            let missing: Vec<&str> = needs.inputs.names().filter(|name| *name != "text").collect();
            ("messages", format!("no provider of this model accepts {} input", missing.join(" and ")))
        }
        Exclusion::Parameters | Exclusion::Steering => {
            let fewest = endpoints()
                .map(|one| needs.parameters.required().missing_from(one.parameters))
                .min_by_key(|missing| missing.names().count())
                .unwrap_or_default();
            let missing: Vec<&str> = fewest.names().collect();
            ("provider.require_parameters", format!("no provider supports all parameters: {}", missing.join(", ")))
        }
    };
    Some(Constraint { field, detail })
}

#[cfg(test)]
mod tests;
