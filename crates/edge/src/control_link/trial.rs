//! From a set of resources to something to route by, without trusting it.
//!
//! Sizes are looked at first, then the set is compiled, then a hundred made-up requests are decided with it. Whatever goes wrong on the
//! way, a panic included, is a refusal with a reason, and the edge goes on with what it has.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tidegate_proto::v1::{Nack, ResourceId};
use tidegate_proto::{Kind, ResourceMap};
use tidegate_routing::{Health, Intent, ModelIndex, Next, Plan, Timestamp};

use super::Compile;
use crate::config::MeshConfig;
use crate::intent::ModelName;
use crate::metrics::Metrics;
use crate::state::RoutingState;

/// Why a set is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Which stage refused.
    pub(super) stage: Stage,
    /// Whose fault it is, where one resource's.
    pub(super) resource: Option<ResourceId>,
    pub(super) reason: String,
    /// Further problems.
    pub(super) more: usize,
}

/// Where it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    BootGuard,
    Limits,
    Compile,
    DryRun,
    Panic,
    Key,
}

impl Stage {
    pub(super) const ALL: [Stage; 6] = [Stage::BootGuard, Stage::Limits, Stage::Compile, Stage::DryRun, Stage::Panic, Stage::Key];

    /// On the wire and in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Stage::BootGuard => "boot_guard",
            Stage::Limits => "limits",
            Stage::Compile => "compile",
            Stage::DryRun => "dry_run",
            Stage::Panic => "panic",
            Stage::Key => "key",
        }
    }
}

impl Refusal {
    pub(super) fn new(stage: Stage, reason: impl Into<String>) -> Self {
        Self { stage, resource: None, reason: reason.into(), more: 0 }
    }

    pub(super) fn to_nack(&self, index: u64) -> Nack {
        Nack {
            index,
            resource: self.resource.clone(),
            reason: self.reason.clone(),
            stage: self.stage.as_str().to_owned(),
            more: u32::try_from(self.more).unwrap_or(u32::MAX),
        }
    }
}

/// What is to be tried.
pub(super) struct Candidate<'a> {
    pub(super) cluster_id: &'a str,
    pub(super) index: u64,
    pub(super) mesh: &'a ResourceMap,
}

/// Compiles and tries a set. `previous` is what is in use and lends its health and connections.
pub(super) fn try_out(
    candidate: &Candidate<'_>,
    previous: &RoutingState,
    compile: &Compile,
    metrics: &Metrics,
) -> Result<RoutingState, Refusal> {
    let Candidate { cluster_id, index, mesh } = *candidate;
    let tried = catch_unwind(AssertUnwindSafe(|| {
        within_limits(mesh)?;
        let mut config = compile(cluster_id, mesh).map_err(|problems| {
            let more = problems.len().saturating_sub(1);
            match problems.into_iter().next() {
                Some(mut first) => {
                    let resource = first.resource.take();
                    Refusal { stage: Stage::Compile, resource, reason: first.to_string(), more }
                }
                None => Refusal::new(Stage::Compile, "it does not compile, and the compiler does not say why"),
            }
        })?;
        config.revision = index;
        usable(&config)?;
        still_a_mesh(&previous.config, &config)?;
        let state = RoutingState::build(config, Some(previous), metrics).map_err(|problems| Refusal {
            more: problems.len().saturating_sub(1),
            ..Refusal::new(Stage::Compile, problems.first().map(ToString::to_string).unwrap_or_default())
        })?;
        dry_run(&state)?;
        Ok(state)
    }));
    tried.unwrap_or_else(|panic| Err(Refusal::new(Stage::Panic, format!("compiling it panicked: {}", said(panic.as_ref())))))
}

/// What a panic said. It speaks of the configuration, not of callers or secrets, and is cut short.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").chars().take(PANIC_SHOWN).collect()
}

fn within_limits(mesh: &ResourceMap) -> Result<(), Refusal> {
    let mut total = 0;
    for resource in mesh.iter() {
        total += resource.body.len();
        if resource.body.len() > LARGEST_BODY {
            return Err(Refusal {
                resource: resource.id.clone(),
                ..Refusal::new(Stage::Limits, format!("its body has {} bytes; at most {LARGEST_BODY} are taken", resource.body.len()))
            });
        }
    }
    if total > LARGEST_SET {
        return Err(Refusal::new(Stage::Limits, format!("all resources together have {total} bytes; at most {LARGEST_SET} are taken")));
    }
    for (kind, most) in MOST {
        let count = mesh.of_kind(kind).count();
        if count > most {
            return Err(Refusal::new(Stage::Limits, format!("{count} resources of kind `{kind}`; at most {most} are taken")));
        }
    }
    Ok(())
}

/// What compiles and would fail each request that meets it.
fn usable(config: &MeshConfig) -> Result<(), Refusal> {
    let refuse = |kind: Kind, name: &str, reason: String| {
        let resource = Some(ResourceId { kind: kind.as_str().to_owned(), name: name.to_owned() });
        Err(Refusal { resource, ..Refusal::new(Stage::Compile, reason) })
    };
    for preset in &config.presets {
        if let Err(error) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&preset.fields) {
            return refuse(Kind::Preset, &preset.slug, format!("its fields are not a JSON object: {error}"));
        }
    }
    let defaults = &config.defaults;
    if let Some(model) = defaults.model.as_deref().map(|model| ModelName::parse(model).slug)
        && !config.models.iter().any(|known| known.slug == model || known.aliases.iter().any(|alias| alias == model))
    {
        return refuse(Kind::Defaults, "mesh", format!("the default model `{model}` does not exist"));
    }
    if defaults.max_attempts == 0 || defaults.deadline.is_zero() {
        return refuse(Kind::Defaults, "mesh", "requests get no attempt, or no time".to_owned());
    }
    Ok(())
}

/// Blank fields and lists that a mistake emptied compile well. Taking everything away at once, or giving everything away, is not what
/// an operator does in one step with edges that serve.
fn still_a_mesh(before: &MeshConfig, after: &MeshConfig) -> Result<(), Refusal> {
    if !before.endpoints.is_empty() && after.endpoints.is_empty() {
        return Err(Refusal::new(Stage::Limits, "it leaves no endpoint at all, while this edge serves with some"));
    }
    let free = |config: &MeshConfig, name: &str| {
        let endpoint = config.endpoints.iter().find(|endpoint| endpoint.name == name)?;
        Some(endpoint.prices.prompt.picodollars() == 0 && endpoint.prices.completion.picodollars() == 0)
    };
    let priced: Vec<&str> =
        before.endpoints.iter().map(|endpoint| endpoint.name.as_str()).filter(|name| free(before, name) == Some(false)).collect();
    let now_free = priced.iter().filter(|name| free(after, name) == Some(true)).count();
    if now_free >= FREE_AT_ONCE && now_free * 2 > priced.len() {
        let reason = format!("{now_free} of {} endpoints that had a price would cost nothing", priced.len());
        return Err(Refusal::new(Stage::Limits, reason));
    }
    Ok(())
}

/// Decides made-up requests, one model after the other, with health as it is at a start.
fn dry_run(state: &RoutingState) -> Result<(), Refusal> {
    let models = u32::try_from(state.models().len()).unwrap_or(u32::MAX);
    if models == 0 {
        return Ok(());
    }
    let health = Health::new(&state.snapshot, None);
    let (mut routed, mut routable) = (0_u32, 0_u32);
    let mut refused = None;
    for number in 0..SYNTHETIC {
        let model = ModelIndex::new(number % models);
        if state.snapshot.endpoints_of(model).iter().all(|endpoint| state.config.endpoints[endpoint.get()].drained) {
            continue;
        }
        routable += 1;
        let mut intent = Intent::new(model, Timestamp(0) + A_MINUTE, u64::from(number));
        intent.mode = state.config.defaults.mode;
        match Plan::new(&state.snapshot, intent) {
            Ok(mut plan) => match plan.next(&state.snapshot, &health, Timestamp(0)) {
                Next::Attempt(_) => routed += 1,
                Next::Exhausted(why) => refused = refused.or_else(|| Some(format!("{:?}", why.reason))),
            },
            Err(why) => refused = refused.or_else(|| Some(format!("{:?}", why.code))),
        }
    }
    if routable > 0 && routed == 0 {
        let reason = refused.unwrap_or_default();
        return Err(Refusal::new(Stage::DryRun, format!("none of {routable} made-up requests found an endpoint: {reason}")));
    }
    Ok(())
}

/// Requests that are made up.
const SYNTHETIC: u32 = 100;
const A_MINUTE: Duration = Duration::from_secs(60);
/// Bytes of one resource's body.
const LARGEST_BODY: usize = 1 << 20;
/// Bytes of all bodies but those of keys.
const LARGEST_SET: usize = 64 << 20;
/// Twice what the design's largest mesh has (`scale.md`), so that a file that doubled is still noticed.
const MOST: [(Kind, usize); 6] = [
    (Kind::Provider, 2_000),
    (Kind::Credential, 20_000),
    (Kind::Model, 20_000),
    (Kind::Endpoint, 40_000),
    (Kind::Preset, 20_000),
    (Kind::Override, 20_000),
];
/// Fewer endpoints than these may become free together.
const FREE_AT_ONCE: usize = 2;
/// Characters of a panic's message.
const PANIC_SHOWN: usize = 200;
