//! A decision as JSON with names, for programs that have no snapshot.

use serde_json::{Value, json};

use super::{Choice, Considered, Decision};
use crate::{EndpointIndex, Snapshot};

pub(super) fn named(decision: &Decision, snapshot: &Snapshot) -> Value {
    let models = decision.models.iter().map(|model| snapshot.models().get(model.get()).map(|model| model.slug()));
    let excluded = decision.excluded.iter().map(
        |excluded| json!({ "endpoint": name(snapshot, excluded.endpoint), "reason": excluded.reason, "detail": excluded.reason.label() }),
    );
    let attempts = decision.attempts.iter().map(|choice| named_choice(decision, choice, snapshot));
    json!({
        "revision": decision.revision,
        "seed": decision.seed,
        "strategy": decision.strategy.to_string(),
        "models": models.collect::<Vec<_>>(),
        "sticky": decision.sticky.map(|endpoint| name(snapshot, endpoint)),
        "expected_output": decision.expected_output,
        "excluded": excluded.collect::<Vec<_>>(),
        "choices": attempts.collect::<Vec<_>>(),
        "stopped": decision.stopped,
    })
}

fn named_choice(decision: &Decision, choice: &Choice, snapshot: &Snapshot) -> Value {
    let chosen = choice.chosen.map(|chosen| {
        json!({
            "endpoint": name(snapshot, chosen.endpoint),
            "credential": credential_name(snapshot, chosen.endpoint, chosen.credential),
            "by": chosen.pick,
            "probe": chosen.probe,
        })
    });
    let considered = choice.considered(decision).iter().map(|one| named_considered(one, snapshot));
    json!({
        "number": choice.number,
        "at_micros": choice.at,
        "panicked": choice.panicked,
        "hedge": choice.hedge,
        "chosen": chosen,
        "end": choice.end,
        "considered": considered.collect::<Vec<_>>(),
    })
}

fn named_considered(one: &Considered, snapshot: &Snapshot) -> Value {
    // Plain numbers and unit enums always serialise.
    let mut value = serde_json::to_value(one).unwrap_or_default();
    value["endpoint"] = name(snapshot, one.endpoint).into();
    value["provider"] = snapshot.providers().get(one.provider.get()).map(|provider| provider.slug()).into();
    value
}

fn name(snapshot: &Snapshot, endpoint: EndpointIndex) -> Option<&str> {
    snapshot.endpoints().get(endpoint.get()).map(|endpoint| endpoint.name.as_str())
}

fn credential_name(snapshot: &Snapshot, endpoint: EndpointIndex, credential: crate::CredentialIndex) -> Option<&str> {
    let provider = snapshot.providers().get(snapshot.endpoints().get(endpoint.get())?.provider().get())?;
    let mut credentials = provider.credentials();
    credentials.find(|(index, _)| *index == credential).map(|(_, credential)| credential.name())
}
