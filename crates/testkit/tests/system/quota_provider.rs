//! Limits that name a provider: a provider without room for this caller is passed over, and the caller hears of it when nobody is left.

use serde_json::{Value, json};
use tidegate_ledger::Money;
use tidegate_quota::{Dimension, Limit, Scope, Window};
use tidegate_testkit::{Mesh, Topology, chat, key, stream};

const CHAT: &str = "/v1/chat/completions";

fn at(provider: &str, dimension: Dimension, amount: u64) -> Limit {
    Limit { provider: Some(provider.into()), ..Limit::new(Scope::Key, dimension, amount) }
}

/// Two providers, the cheaper one first; the key has these limits, `other-key` none.
async fn two(limits: Vec<Limit>) -> Mesh {
    let topology = Topology::new().provider("a", |_| {}).provider("b", |_| {});
    topology
        .with(|topology| {
            topology.key.limits = limits;
            topology.more_keys = vec![key("other", "other-key")];
        })
        .start()
        .await
}

/// Asks `a` first.
fn ordered(mut request: Value) -> Value {
    request["provider"] = json!({ "order": ["a", "b"] });
    request
}

fn only_a(mut request: Value) -> Value {
    request["provider"] = json!({ "only": ["a"] });
    request
}

#[tokio::test]
async fn a_provider_without_room_is_passed_over_and_named_when_nobody_is_left() {
    // A burst of one.
    let mesh = two(vec![at("a", Dimension::RequestsPerMinute, 6)]).await;
    for _ in 0..4 {
        assert_eq!(mesh.post(CHAT, &ordered(chat("m", "hello"))).await.status, 200);
    }
    assert_eq!((mesh.hits("a"), mesh.hits("b")), (1, 3), "one fits, the others go elsewhere");
    let refused = mesh.post(CHAT, &only_a(chat("m", "hello"))).await;
    assert_eq!((refused.status, refused.error_type().as_str()), (429, "rate_limit_exceeded"), "{}", refused.text());
    let error = refused.json()["error"].clone();
    assert_eq!(error["metadata"]["limit_source"], "key_rate_limit");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("provider `a`")), "{error}");
    assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|wait| (1..=10).contains(&wait)));
    assert_eq!(mesh.hits("a"), 1, "nothing was sent");
    let streamed = mesh.post(CHAT, &only_a(stream("m", "hello"))).await;
    assert_eq!(streamed.status, 429, "before a stream begins, too");
    let other = mesh.caller().with_key("other-key");
    for _ in 0..3 {
        assert_eq!(other.post(CHAT, &ordered(chat("m", "hello"))).await.status, 200);
    }
    assert_eq!(mesh.hits("a"), 4, "one caller's limit is nobody else's: the provider counts as well");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn what_an_attempt_holds_is_free_when_it_ends_well_or_badly() {
    let mesh = two(vec![at("a", Dimension::Concurrent, 1)]).await;
    for _ in 0..20 {
        assert_eq!(mesh.post(CHAT, &only_a(chat("m", "hello"))).await.status, 200, "one after the other");
    }
    mesh.sim("a").push_script("status=500".parse().expect("a script"));
    assert_eq!(mesh.post(CHAT, &ordered(chat("m", "hello"))).await.status, 200, "the other one serves");
    mesh.sim("a").push_script("status=500".parse().expect("a script"));
    assert!(mesh.post(CHAT, &only_a(chat("m", "hello"))).await.status >= 500);
    mesh.sim("a").push_script("stall=3".parse().expect("a script"));
    let mut held = mesh.stream(CHAT, &ordered(stream("m", "hello"))).await;
    held.next().await.expect("a first token");
    let (a, b) = (mesh.hits("a"), mesh.hits("b"));
    assert_eq!(mesh.post(CHAT, &ordered(chat("m", "hello"))).await.status, 200);
    assert_eq!((mesh.hits("a"), mesh.hits("b")), (a, b + 1), "the slot is taken while the stream runs");
    drop(held);
    mesh.until_metric("tidegate_edge_streams_active", &[], |streams| streams == 0.0).await;
    assert_eq!(mesh.post(CHAT, &only_a(chat("m", "hello"))).await.status, 200, "a caller who left holds nothing");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_budget_at_a_provider_counts_what_that_provider_was_paid() {
    let mesh = two(vec![at("a", Dimension::Spend(Window::Day), 1_000_000), at("b", Dimension::Spend(Window::Day), 1_000_000)]).await;
    let answer = mesh.post(CHAT, &only_a(chat("m", "hello"))).await.json();
    let money = |value: &Value| Money::parse_usd(&value.to_string()).expect("an amount");
    let cost = money(&answer["usage"]["cost"]);
    assert!(cost > Money::ZERO);
    let data = mesh.get("/v1/key").await.json()["data"].clone();
    let used = |provider: &str| {
        let limits = data["tidegate"]["limits"].as_array().expect("limits");
        money(&limits.iter().find(|limit| limit["provider"] == provider).expect("its limit")["used"])
    };
    assert_eq!((used("a"), used("b")), (cost, Money::ZERO), "{data}");
    mesh.edge.shutdown().await;
}
