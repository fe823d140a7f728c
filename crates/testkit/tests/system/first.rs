//! The thinnest slice, end to end: an answer, a stream, a failover.

use serde_json::json;
use tidegate_testkit::{Event, Topology, chat};

#[tokio::test]
async fn an_answer_has_our_id_the_provider_and_an_exact_cost() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let answer = mesh.post("/v1/chat/completions", &chat("m", "hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert!(body["id"].as_str().unwrap_or_default().starts_with("gen-"), "{body}");
    assert_eq!(body["id"], answer.header("x-generation-id"));
    assert_eq!((body["model"].as_str(), body["provider"].as_str()), (Some("m"), Some("A")));
    let usage = &body["usage"];
    let tokens = usage["prompt_tokens"].as_u64().unwrap_or(0) + usage["completion_tokens"].as_u64().unwrap_or(0);
    assert_eq!(usage["cost"].as_f64(), Some(tokens as f64 / 1e6), "{usage}");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_stream_ends_with_usage_and_done() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let mut request = chat("m", "hello");
    request["stream"] = json!(true);
    let events = mesh.stream("/api/v1/chat/completions", &request).await.collect().await;
    assert_eq!(events.last(), Some(&Event::Done));
    let last = events[events.len() - 2].data().expect("a data event before the end");
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["cost"].is_number(), "{last}");
    assert!(!Event::text(&events).is_empty());
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_failing_provider_is_not_noticed() {
    let mesh = Topology::new().provider("a", |_| {}).provider("b", |_| {}).start().await;
    for slug in ["a", "b"] {
        mesh.sim(slug).push_script("status=503".parse().expect("a script"));
    }
    let mut request = chat("m", "hello");
    request["models"] = json!(["m"]);
    let answer = mesh.caller().with_header("x-tidegate-metadata", "enabled").post("/v1/chat/completions", &request).await;
    // Both were told to fail once: the first attempt and the second fail, the third is answered.
    assert_eq!(answer.status, 503, "two providers, each tried once: {}", answer.text());
    let again = mesh.post("/v1/chat/completions", &chat("m", "hello")).await;
    assert_eq!(again.status, 200);
    mesh.edge.shutdown().await;
}
