//! Hedging from outside: a second provider is asked when the first token takes long, for keys that want it.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_routing::Mode;
use tidegate_testkit::{Mesh, Topology, chat, stream};

const CHAT: &str = "/v1/chat/completions";

/// A cheap provider that is asked first, a dear one beside it, and hedges after a moment for everyone who may have one.
async fn mesh(hedge: bool) -> Mesh {
    let change = |t: &mut Topology| {
        t.settings.hedge_least = Duration::from_millis(50);
        t.settings.hedge_share = 1.0;
        t.settings.exploration_share = 0.0;
        t.defaults.mode = Mode::Simple;
        t.key.hedge = hedge;
    };
    Topology::new()
        .with(change)
        .provider("cheap", |p| "0.01".clone_into(&mut p.price))
        .provider("dear", |p| "100".clone_into(&mut p.price))
        .start()
        .await
}

fn slow(mesh: &Mesh, slug: &str, script: &str) {
    mesh.sim(slug).push_script(script.parse().expect("a script"));
}

/// Sends a stream and gives its record.
async fn record_of(mesh: &Mesh, request: &Value) -> Value {
    let stream = mesh.stream(CHAT, request).await;
    let id = stream.headers["x-generation-id"].to_str().expect("an id").to_owned();
    stream.collect().await;
    mesh.generation(&id).await
}

fn outcomes(record: &Value) -> Vec<(String, i64)> {
    let responses = record["provider_responses"].as_array().expect("attempts");
    responses
        .iter()
        .map(|one| (one["provider_name"].as_str().unwrap_or_default().to_lowercase(), one["status"].as_i64().unwrap_or(0)))
        .collect()
}

#[tokio::test]
async fn a_slow_first_token_is_hedged_and_the_loser_is_cancelled() {
    let mesh = mesh(true).await;
    slow(&mesh, "cheap", "first-token=60s");
    let record = record_of(&mesh, &stream("m", "hello")).await;
    assert_eq!(record["provider_name"].as_str().map(str::to_lowercase).as_deref(), Some("dear"), "{record}");
    assert_eq!(outcomes(&record), [("cheap".to_owned(), 0), ("dear".to_owned(), 200)], "{record}");
    assert_eq!(mesh.metric("tidegate_edge_hedges_total", &[]), 1.0);
    assert_eq!(mesh.metric("tidegate_edge_attempts_total", &[("outcome", "cancelled"), ("provider", "cheap")]), 1.0);
    assert_eq!(mesh.metric("tidegate_edge_failovers_total", &[]), 1.0);
    // The provider was told to stop.
    mesh.sim("cheap").wait_until(|stats| stats.disconnects.len() == 1).await;
}

#[tokio::test]
async fn the_first_attempt_can_still_win() {
    let mesh = mesh(true).await;
    slow(&mesh, "cheap", "first-token=300ms");
    slow(&mesh, "dear", "first-token=60s");
    let record = record_of(&mesh, &stream("m", "hello")).await;
    assert_eq!(outcomes(&record), [("dear".to_owned(), 0), ("cheap".to_owned(), 200)], "{record}");
    assert_eq!(mesh.metric("tidegate_edge_hedges_total", &[]), 1.0);
    assert_eq!(mesh.metric("tidegate_edge_failovers_total", &[]), 0.0);
}

#[tokio::test]
async fn a_hedge_that_fails_costs_the_caller_nothing() {
    let mesh = mesh(true).await;
    slow(&mesh, "cheap", "first-token=400ms");
    slow(&mesh, "dear", "status=500");
    let record = record_of(&mesh, &stream("m", "hello")).await;
    assert_eq!(outcomes(&record), [("dear".to_owned(), 500), ("cheap".to_owned(), 200)], "{record}");
}

#[tokio::test]
async fn nobody_is_hedged_who_did_not_ask_and_no_whole_answer_is() {
    let silent = mesh(false).await;
    slow(&silent, "cheap", "first-token=300ms");
    assert_eq!(outcomes(&record_of(&silent, &stream("m", "hello")).await).len(), 1);
    let asked = mesh(true).await;
    slow(&asked, "cheap", "first-token=300ms");
    assert_eq!(asked.post(CHAT, &chat("m", "hello")).await.status, 200);
    let mut thinking = stream("m", "hello");
    thinking["reasoning"] = json!({ "effort": "high" });
    slow(&asked, "cheap", "first-token=300ms");
    assert_eq!(outcomes(&record_of(&asked, &thinking).await).len(), 1);
    for mesh in [silent, asked] {
        assert_eq!(mesh.metric("tidegate_edge_hedges_total", &[]), 0.0);
    }
}
