//! Many threads share one health: places in flight and probe tokens are neither lost nor doubled.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use tidegate_routing::{
    AttemptEnd, CredentialSpec, EndpointIndex, EndpointSpec, Health, Intent, ModelSpec, Next, Outcome, Plan, ProviderSpec, Snapshot,
    SnapshotSpec, Timestamp,
};

const ENDPOINTS: u32 = 3;
const MOST_AT_ONCE: u32 = 2;

#[test]
fn concurrent_requests_keep_every_promise() {
    let providers = (0..ENDPOINTS).map(|at| ProviderSpec {
        slug: format!("p{at}"),
        name: format!("P{at}"),
        credentials: vec![CredentialSpec { name: "main".to_owned(), weight: 1 }],
    });
    let endpoints = (0..ENDPOINTS).map(|at| EndpointSpec {
        max_concurrency: Some(MOST_AT_ONCE),
        ..EndpointSpec::new(format!("e{at}"), format!("p{at}"), "author/model")
    });
    let spec = SnapshotSpec {
        providers: providers.collect(),
        models: vec![ModelSpec { slug: "author/model".to_owned(), ..ModelSpec::default() }],
        endpoints: endpoints.collect(),
        ..SnapshotSpec::default()
    };
    let snapshot = Snapshot::build(spec).expect("a sound spec");
    let health = Health::new(&snapshot, None);
    let running: Vec<AtomicU32> = (0..ENDPOINTS).map(|_| AtomicU32::new(0)).collect();
    let probes: Vec<AtomicU32> = (0..ENDPOINTS).map(|_| AtomicU32::new(0)).collect();

    thread::scope(|scope| {
        for worker in 0..8_u64 {
            let (snapshot, health, running, probes) = (&snapshot, &health, &running, &probes);
            scope.spawn(move || {
                for request in 0..2_000_u64 {
                    let seed = worker * 2_000 + request;
                    let now = Timestamp(request * 20_000);
                    let model = snapshot.model("author/model").expect("the model is configured");
                    let intent = Intent::new(model, now + Duration::from_secs(60), seed);
                    let mut plan = Plan::new(snapshot, intent).expect("endpoints can serve it");
                    while let Next::Attempt(attempt) = plan.next(snapshot, health, now) {
                        let at = attempt.endpoint.get();
                        assert!(running[at].fetch_add(1, Ordering::SeqCst) < MOST_AT_ONCE);
                        if attempt.probe {
                            assert_eq!(probes[at].fetch_add(1, Ordering::SeqCst), 0, "one probe at a time");
                        }
                        thread::yield_now();
                        if attempt.probe {
                            probes[at].fetch_sub(1, Ordering::SeqCst);
                        }
                        running[at].fetch_sub(1, Ordering::SeqCst);
                        let broken = at == 0 && (500..1_000).contains(&request);
                        let end = if broken { AttemptEnd::Server(500) } else { AttemptEnd::Success };
                        let outcome = Outcome::new(end, Duration::from_millis(10));
                        plan.ended(snapshot, health, &attempt, &outcome, now);
                    }
                }
            });
        }
    });

    for at in 0..ENDPOINTS {
        let view = health.endpoint_view(EndpointIndex::new(at), Timestamp(2_000 * 20_000));
        assert_eq!(view.in_flight, 0);
    }
}
