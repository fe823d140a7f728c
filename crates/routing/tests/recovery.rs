//! Simulated traffic through the public interface only: an endpoint that breaks loses its traffic within a few requests, its
//! callers hardly notice, and it gets its share back after it healed. Time is a number here; nothing sleeps.

use std::time::Duration;

use tidegate_routing::{
    AttemptEnd, CredentialSpec, EndpointSpec, Health, Intent, ModelSpec, Needs, Next, Outcome, Plan, Price, ProviderSpec, Snapshot,
    SnapshotSpec, Timestamp,
};

const STEP: Duration = Duration::from_millis(50);

struct Simulation {
    snapshot: Snapshot,
    health: Health,
    now: Timestamp,
    requests: u64,
}

#[derive(Debug, Default)]
struct Tally {
    attempts: [u32; 3],
    failed_requests: u32,
    requests: u32,
}

impl Simulation {
    fn new() -> Simulation {
        let names = ["cheap", "middle", "dear"];
        let spec = SnapshotSpec {
            revision: 1,
            providers: names
                .map(|name| ProviderSpec {
                    slug: name.to_owned(),
                    name: name.to_owned(),
                    credentials: vec![CredentialSpec { name: "main".to_owned(), weight: 1 }],
                })
                .into(),
            models: vec![ModelSpec { slug: "author/model".to_owned(), ..ModelSpec::default() }],
            endpoints: names
                .into_iter()
                .zip([1_000_000, 1_500_000, 2_000_000])
                .map(|(name, price)| EndpointSpec {
                    price: Price { prompt: price, completion: price, ..Price::default() },
                    ..EndpointSpec::new(name, name, "author/model")
                })
                .collect(),
            ..SnapshotSpec::default()
        };
        let snapshot = Snapshot::build(spec).expect("a sound spec");
        let health = Health::new(&snapshot, None);
        Simulation { snapshot, health, now: Timestamp(0), requests: 0 }
    }

    /// Twenty requests per second for so long; `broken` is the endpoint that answers 500.
    fn run(&mut self, time: Duration, broken: Option<usize>) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.request(broken, &mut tally);
            self.now = self.now + STEP;
            self.requests += 1;
        }
        tally
    }

    fn request(&self, broken: Option<usize>, tally: &mut Tally) {
        let model = self.snapshot.model("author/model").expect("the model is configured");
        let mut intent = Intent::new(model, self.now + Duration::from_secs(60), self.requests);
        intent.needs = Needs { prompt_tokens: 200, expected_output: 100, ..Needs::default() };
        let mut plan = Plan::new(&self.snapshot, intent).expect("endpoints can serve it");
        tally.requests += 1;
        while let Next::Attempt(attempt) = plan.next(&self.snapshot, &self.health, self.now) {
            tally.attempts[attempt.endpoint.get()] += 1;
            let fails = broken == Some(attempt.endpoint.get());
            let mut outcome = Outcome::new(
                if fails { AttemptEnd::Server(500) } else { AttemptEnd::Success },
                Duration::from_millis(if fails { 5 } else { 1_400 }),
            );
            if !fails {
                outcome.first_token = Some(Duration::from_millis(400));
                outcome.output_tokens = Some(100);
            }
            plan.ended(&self.snapshot, &self.health, &attempt, &outcome, self.now);
            if !fails {
                return;
            }
        }
        tally.failed_requests += 1;
    }
}

#[test]
fn a_broken_endpoint_loses_its_traffic_and_gets_it_back() {
    let mut simulation = Simulation::new();
    let healthy = simulation.run(Duration::from_secs(60), None);
    let share = f64::from(healthy.attempts[0]) / f64::from(healthy.requests);
    assert!(share > 0.4, "the cheapest carries most: {healthy:?}");

    let outage = simulation.run(Duration::from_secs(120), Some(0));
    assert_eq!(outage.failed_requests, 0, "callers do not notice: {outage:?}");
    assert!(outage.attempts[0] < 30, "a few failures and a few probes: {outage:?}");

    simulation.run(Duration::from_secs(240), None);
    let healed = simulation.run(Duration::from_secs(60), None);
    let regained = f64::from(healed.attempts[0]) / f64::from(healed.requests);
    assert!((regained - share).abs() < 0.15, "{share} before, {regained} after");
}

#[test]
fn an_outage_of_everything_is_survived_without_a_retry_storm() {
    let mut simulation = Simulation::new();
    simulation.run(Duration::from_secs(10), None);
    let mut attempts = 0;
    let mut requests = 0;
    for broken in [0, 1, 2].into_iter().cycle().take(60) {
        let tally = simulation.run(Duration::from_secs(1), Some(broken));
        attempts += tally.attempts.iter().sum::<u32>();
        requests += tally.requests;
    }
    assert!(f64::from(attempts) < f64::from(requests) * 1.4, "{attempts} attempts for {requests} requests");
}
