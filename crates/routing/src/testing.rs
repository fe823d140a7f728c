//! A small world for tests: endpoints in a row, one provider each unless said otherwise, and a hand-moved clock.

use std::time::Duration;

use crate::{
    AttemptEnd, AttemptPlan, CredentialSpec, EndpointIndex, EndpointSpec, Exhausted, Health, Intent, ModelSpec, Needs, Next, Outcome, Plan,
    Price, ProviderSpec, Settings, Snapshot, SnapshotSpec, Timestamp,
};

/// Model slug of every endpoint that does not say otherwise.
pub(crate) const MODEL: &str = "author/model";

pub(crate) fn endpoint(name: &str, price: u64) -> EndpointSpec {
    let provider = name.split('/').next().unwrap_or(name);
    let mut spec = EndpointSpec::new(name, provider, MODEL);
    spec.tag = name.to_owned();
    spec.price = Price { prompt: price, completion: price, ..Price::default() };
    spec
}

/// Providers and models follow from the endpoints.
pub(crate) fn spec(endpoints: Vec<EndpointSpec>, credentials: usize) -> SnapshotSpec {
    let mut spec = SnapshotSpec { revision: 1, ..SnapshotSpec::default() };
    for endpoint in &endpoints {
        if !spec.providers.iter().any(|one| one.slug == endpoint.provider) {
            spec.providers.push(ProviderSpec {
                slug: endpoint.provider.clone(),
                name: endpoint.provider.to_uppercase(),
                credentials: (0..credentials).map(|at| CredentialSpec { name: format!("key-{at}"), weight: 1 }).collect(),
            });
        }
        if !spec.models.iter().any(|one| one.slug == endpoint.model) {
            spec.models.push(ModelSpec { slug: endpoint.model.clone(), aliases: Vec::new(), distillable: false });
        }
    }
    spec.endpoints = endpoints;
    spec
}

pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) health: Health,
    pub(crate) now: Timestamp,
}

impl World {
    pub(crate) fn new(endpoints: Vec<EndpointSpec>) -> World {
        World::of(spec(endpoints, 1))
    }

    pub(crate) fn with_settings(endpoints: Vec<EndpointSpec>, settings: Settings) -> World {
        World::of(SnapshotSpec { settings, ..spec(endpoints, 1) })
    }

    pub(crate) fn of(spec: SnapshotSpec) -> World {
        let snapshot = Snapshot::build(spec).unwrap();
        let health = Health::new(&snapshot, None);
        World { snapshot, health, now: Timestamp(1_000_000_000) }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    pub(crate) fn intent(&self, seed: u64) -> Intent {
        let model = self.snapshot.model(MODEL).unwrap();
        let mut intent = Intent::new(model, self.now + Duration::from_secs(600), seed);
        intent.needs = Needs { prompt_tokens: 100, expected_output: 100, ..Needs::default() };
        intent
    }

    pub(crate) fn plan(&self, intent: Intent) -> Plan {
        Plan::new(&self.snapshot, intent).unwrap()
    }

    pub(crate) fn next(&self, plan: &mut Plan) -> Next {
        plan.next(&self.snapshot, &self.health, self.now)
    }

    pub(crate) fn attempt(&self, plan: &mut Plan) -> AttemptPlan {
        match self.next(plan) {
            Next::Attempt(attempt) => attempt,
            Next::Exhausted(exhausted) => {
                panic!("{exhausted:?}\n{}", plan.decision().render(&self.snapshot))
            }
        }
    }

    pub(crate) fn exhausted(&self, plan: &mut Plan) -> Exhausted {
        match self.next(plan) {
            Next::Exhausted(exhausted) => exhausted,
            Next::Attempt(attempt) => {
                panic!("unexpected attempt at {}", self.name(attempt.endpoint))
            }
        }
    }

    pub(crate) fn end(&self, plan: &mut Plan, attempt: &AttemptPlan, end: AttemptEnd) {
        plan.ended(&self.snapshot, &self.health, attempt, &outcome(end), self.now);
    }

    /// Runs a whole request whose every attempt at an endpoint ends as told; the names tried, in order.
    pub(crate) fn run(&self, intent: Intent, ends: impl Fn(&str) -> AttemptEnd) -> Vec<&str> {
        let mut plan = self.plan(intent);
        let mut tried = Vec::new();
        while let Next::Attempt(attempt) = self.next(&mut plan) {
            let name = self.name(attempt.endpoint);
            tried.push(name);
            self.end(&mut plan, &attempt, ends(name));
        }
        assert!(plan.decision().is_reproducible(&self.snapshot), "{}", plan.decision().render(&self.snapshot));
        tried
    }

    /// Where a request would go first, without anything being learned from it.
    pub(crate) fn first(&self, intent: Intent) -> &str {
        let mut plan = self.plan(intent);
        let attempt = self.attempt(&mut plan);
        self.name(attempt.endpoint)
    }

    /// Makes an endpoint fail or succeed so many times, by requests that can go nowhere else.
    pub(crate) fn observe(&self, name: &str, end: AttemptEnd, times: usize) {
        for _ in 0..times {
            self.observe_outcome(name, &outcome(end));
        }
    }

    pub(crate) fn observe_outcome(&self, name: &str, outcome: &Outcome) {
        let mut intent = self.intent(7);
        intent.preferences = std::sync::Arc::new(crate::Preferences { only: vec![vec![name.to_owned()]], ..Default::default() });
        let mut plan = self.plan(intent);
        let attempt = self.attempt(&mut plan);
        plan.ended(&self.snapshot, &self.health, &attempt, outcome, self.now);
    }

    pub(crate) fn name(&self, endpoint: EndpointIndex) -> &str {
        &self.snapshot.endpoint(endpoint).name
    }

    pub(crate) fn index(&self, name: &str) -> EndpointIndex {
        let at = self.snapshot.endpoints().iter().position(|one| one.name == name).unwrap();
        EndpointIndex::new(at as u32)
    }

    /// Share of first choices that go to an endpoint.
    pub(crate) fn share(&self, name: &str, requests: u64, change: impl Fn(&mut Intent)) -> f64 {
        let hits = (0..requests).filter(|seed| {
            let mut intent = self.intent(*seed);
            change(&mut intent);
            self.first(intent) == name
        });
        hits.count() as f64 / requests as f64
    }
}

/// An answer after 300 ms with 100 tokens within a second, or a failure after 10 ms.
pub(crate) fn outcome(end: AttemptEnd) -> Outcome {
    let mut outcome = Outcome::new(end, Duration::from_millis(10));
    outcome.prompt_tokens = 100;
    if end == AttemptEnd::Success {
        outcome.first_token = Some(Duration::from_millis(300));
        outcome.elapsed = Duration::from_millis(1_300);
        outcome.output_tokens = Some(100);
    }
    outcome
}

/// A streamed answer of this speed.
pub(crate) fn answer(first_token: Duration, tokens_per_second: u32) -> Outcome {
    let mut answer = outcome(AttemptEnd::Success);
    answer.first_token = Some(first_token);
    answer.elapsed = first_token + Duration::from_secs(1);
    answer.output_tokens = Some(tokens_per_second);
    answer
}
