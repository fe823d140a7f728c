//! `tidegate explain --replay`: the decision once more, from a file and nothing else.
//!
//! A saved explanation holds every input of every choice: the settings, the seed, what health said of each candidate. So this version
//! of the program can decide again and show where it differs, without the edge, its configuration or its providers.

use std::process::ExitCode;

use anyhow::Context;
use serde::Deserialize;
use tidegate_routing::{Decision, EndpointIndex, Settings};

use crate::output::Output;

/// What of an explanation matters here.
#[derive(Deserialize)]
struct Explanation {
    record: Decision,
    settings: Settings,
    /// The same decision with names.
    decision: Named,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    choices: Vec<NamedChoice>,
}

#[derive(Deserialize)]
struct NamedChoice {
    #[serde(default)]
    considered: Vec<NamedCandidate>,
}

#[derive(Deserialize)]
struct NamedCandidate {
    endpoint: Option<String>,
}

/// Decides anew and says whether the choices are the recorded ones.
pub(super) fn run(text: &str, output: &mut Output) -> anyhow::Result<ExitCode> {
    let (lines, same) = replayed(text)?;
    output.text(lines);
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is to be said, and whether every choice is the recorded one.
fn replayed(text: &str) -> anyhow::Result<(String, bool)> {
    let explanation: Explanation = serde_json::from_str(text)
        .context("this is no explanation with its settings and record; save one with `tidegate explain <generation> --json`")?;
    let record = &explanation.record;
    let mut lines = String::new();
    let mut all_same = true;
    for (choice, now) in record.attempts.iter().zip(record.replay(&explanation.settings)) {
        let then = choice.chosen.map(|chosen| chosen.endpoint);
        let same = then == now;
        all_same &= same;
        let (then, now) = (explanation.name(then), explanation.name(now));
        let mark = if same { "same" } else { "DIFFERENT" };
        lines.push_str(&format!("choice {}  recorded {then}, decided anew {now}: {mark}\n", choice.number));
    }
    lines.push_str(if all_same {
        "the same choices from the same settings, health and seed\n"
    } else {
        "DIFFERENT choices: the record was changed, or this version decides differently from the one that made it\n"
    });
    Ok((lines, all_same))
}

impl Explanation {
    /// Name of an endpoint, from wherever it was considered.
    fn name(&self, endpoint: Option<EndpointIndex>) -> String {
        let Some(endpoint) = endpoint else { return "nothing".to_owned() };
        let named = self.record.attempts.iter().zip(&self.decision.choices).find_map(|(choice, names)| {
            let at = choice.considered(&self.record).iter().position(|one| one.endpoint == endpoint)?;
            names.considered.get(at)?.endpoint.clone()
        });
        named.unwrap_or_else(|| format!("endpoint {}", endpoint.get()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tidegate_routing::{EndpointSpec, Health, Intent, ModelSpec, Plan, ProviderSpec, Snapshot, SnapshotSpec, Timestamp};

    use super::*;

    fn explanation(seed: u64) -> Value {
        let spec = SnapshotSpec {
            revision: 1,
            providers: ["a", "b", "c"]
                .map(|slug| ProviderSpec {
                    slug: slug.to_owned(),
                    name: slug.to_owned(),
                    credentials: vec![tidegate_routing::CredentialSpec { name: "key".to_owned(), weight: 1 }],
                })
                .into(),
            models: vec![ModelSpec { slug: "x/m".to_owned(), aliases: Vec::new(), distillable: false }],
            endpoints: ["a", "b", "c"].map(|slug| EndpointSpec::new(format!("{slug}/m"), slug, "x/m")).into(),
            settings: Settings::default(),
        };
        let snapshot = Snapshot::build(spec).unwrap();
        let health = Health::new(&snapshot, None);
        let model = snapshot.model("x/m").unwrap();
        let mut plan = Plan::new(&snapshot, Intent::new(model, Timestamp(600_000_000), seed)).unwrap();
        plan.next(&snapshot, &health, Timestamp(1_000_000));
        let decision = plan.decision();
        json!({ "record": decision, "settings": snapshot.settings(), "decision": decision.named(&snapshot) })
    }

    #[test]
    fn an_untouched_record_gives_the_same_choices() {
        for seed in 0..20 {
            let (text, same) = replayed(&explanation(seed).to_string()).unwrap();
            assert!(same && text.contains("the same choices") && text.contains("/m: same"), "{text}");
        }
    }

    #[test]
    fn a_changed_record_is_found_out() {
        let mut explanation = explanation(1);
        for one in explanation["record"]["considered"].as_array_mut().unwrap() {
            one["gate"] = json!("full");
        }
        let (text, same) = replayed(&explanation.to_string()).unwrap();
        assert!(!same && text.contains("decided anew nothing: DIFFERENT"), "{text}");
    }

    #[test]
    fn what_is_no_explanation_is_said_to_be_none() {
        let error = replayed("{}").unwrap_err();
        assert!(error.to_string().contains("--json"), "{error}");
    }
}
