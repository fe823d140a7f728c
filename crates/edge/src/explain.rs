//! Why a request went where it went: router metadata for callers who ask, and the whole decision for operators.

use serde_json::{Value, json};
use tidegate_routing::{AttemptEnd, ModelIndex, NoRoute};

use crate::generation::Generation;
use crate::generations::past::Past;
use crate::state::RoutingState;

/// Router metadata (reference 1.8) as JSON text. `status` is given when the request failed.
pub(crate) fn metadata(generation: &Generation, status: Option<u16>) -> String {
    let state = &generation.state;
    let attempts = generation.attempts();
    let served = attempts.last().filter(|last| last.end == AttemptEnd::Success);
    let decision = generation.decision();
    let considered = decision.and_then(|decision| decision.attempts.first().map(|first| first.considered(decision))).unwrap_or_default();
    let available: Vec<Value> = considered
        .iter()
        .map(|candidate| {
            let endpoint = candidate.endpoint;
            let target = state.target(endpoint);
            json!({
                "provider": target.provider.name.as_ref(),
                "model": target.model.as_ref(),
                "selected": served.is_some_and(|served| served.plan.endpoint == endpoint),
            })
        })
        .collect();
    let tried: Vec<Value> = attempts
        .iter()
        .map(|note| {
            let target = state.target(note.plan.endpoint);
            json!({
                "provider": target.provider.name.as_ref(),
                "model": target.model.as_ref(),
                "status": note.status.unwrap_or(0),
                "endpoint": target.name.as_ref(),
                "outcome": note.end.label(),
                "latency_ms": note.latency.as_secs_f64() * 1000.0,
            })
        })
        .collect();
    let asked = &state.model(generation.context.model).slug;
    let served_model = served.map(|note| state.target(note.plan.endpoint).model.clone());
    let fell_back = served_model.as_ref().is_some_and(|model| model != asked);
    json!({
        "requested": asked.as_ref(),
        "strategy": if fell_back { "fallback" } else { "direct" },
        "region": generation.context.region.as_ref(),
        "summary": summary(generation, served.is_some(), status),
        "attempt": served.map_or(0, |note| note.plan.number),
        "is_byok": false,
        "endpoints": { "total": available.len(), "available": available },
        "attempts": tried,
        "pipeline": [],
        "mode": decision.map(|decision| decision.strategy.to_string()),
        "snapshot_revision": state.snapshot.revision(),
        "overhead_ms": generation.times().overhead().as_secs_f64() * 1000.0,
    })
    .to_string()
}

/// Router metadata of a request that nothing could serve.
pub(crate) fn refused(state: &RoutingState, model: ModelIndex, why: &NoRoute, region: &str) -> String {
    json!({
        "requested": state.model(model).slug.as_ref(),
        "strategy": "direct",
        "region": region,
        "summary": format!("refused with {}: none of {} endpoints can serve the request", why.code.status(), why.excluded.len()),
        "attempt": 0,
        "is_byok": false,
        "endpoints": { "total": 0, "available": [] },
        "attempts": [],
        "pipeline": [],
        "snapshot_revision": state.snapshot.revision(),
    })
    .to_string()
}

fn summary(generation: &Generation, served: bool, status: Option<u16>) -> String {
    let count = generation.attempts().len();
    let plural = if count == 1 { "" } else { "s" };
    match (generation.target(), served) {
        (Some(target), true) => format!("served by {} after {count} attempt{plural}", target.name),
        (Some(target), false) => {
            format!("failed with {} after {count} attempt{plural}, the last at {}", status.unwrap_or(200), target.name)
        }
        (None, _) => format!("failed with {} before any attempt", status.unwrap_or(503)),
    }
}

/// A finished generation with its decision, for `tidegate explain`.
pub(crate) fn finished(past: &Past) -> Value {
    let snapshot = &past.state.snapshot;
    json!({
        "generation": past.record(),
        "text": past.decision.render(snapshot),
        "decision": past.decision.named(snapshot),
        "record": past.decision,
        "settings": snapshot.settings(),
        "reproducible": past.decision.is_reproducible(snapshot),
        "snapshot_revision": snapshot.revision(),
    })
}
