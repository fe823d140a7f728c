//! Limits from outside: what is refused, how it is told, and what a refusal must never become.

use std::time::Duration;

use serde_json::Value;
use tidegate_edge::config::{KeyConfig, OrganisationConfig, WorkspaceConfig};
use tidegate_ledger::{Fee, Money, Rate};
use tidegate_provider_sim::Script;
use tidegate_quota::{Dimension, Funding, Limit, Scope, TokenKind, Window};
use tidegate_testkit::{Answer, KEY, Mesh, Topology, chat, key, stream};

const CHAT: &str = "/v1/chat/completions";

fn limit(dimension: Dimension, amount: u64) -> Limit {
    Limit::new(Scope::Key, dimension, amount)
}

async fn limited(limits: Vec<Limit>) -> Mesh {
    Topology::new().provider("a", |_| {}).with(|topology| topology.key.limits = limits).start().await
}

/// Four-byte words: as many tokens by any count.
fn words(count: usize) -> Script {
    Script { text: Some("aaa ".repeat(count).trim_end().to_owned()), ..Script::default() }
}

fn metadata(answer: &Answer) -> Value {
    answer.json()["error"]["metadata"].clone()
}

fn money(value: &Value) -> Money {
    Money::parse_usd(&value.to_string()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn number(answer: &Answer, header: &str) -> u64 {
    answer.header(header).parse().unwrap_or_else(|_| panic!("{header}: `{}`", answer.header(header)))
}

#[tokio::test]
async fn a_rate_refuses_with_429_its_source_and_when_to_come_back() {
    // A burst of ten seconds' worth: two at once.
    let mesh = limited(vec![limit(Dimension::RequestsPerMinute, 12)]).await;
    for _ in 0..2 {
        let answer = mesh.post(CHAT, &chat("m", "hello")).await;
        assert_eq!((answer.status, answer.header("x-ratelimit-limit")), (200, ""), "nobody asked for headers");
    }
    let refused = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!((refused.status, refused.error_type().as_str()), (429, "rate_limit_exceeded"));
    assert_eq!(metadata(&refused)["limit_source"], "key_rate_limit");
    assert!((1..=5).contains(&number(&refused, "retry-after")), "one comes back every five seconds");
    assert_eq!((number(&refused, "x-ratelimit-limit"), number(&refused, "x-ratelimit-remaining")), (12, 0));
    assert!(number(&refused, "x-ratelimit-reset") > 1_700_000_000_000, "milliseconds of Unix time");
    assert_eq!(refused.header("x-ratelimit-limit-requests"), "12");
    assert_eq!(mesh.hits("a"), 2, "a refused request costs the provider nothing");
    let other = mesh.caller().without_key().get("/v1/models").await;
    assert_eq!(other.status, 200, "what is not limited goes on");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn headers_come_with_success_when_they_are_asked_for() {
    let mesh = limited(vec![limit(Dimension::RequestsPerMinute, 60), limit(Dimension::TokensPerMinute(TokenKind::Both), 100_000)]).await;
    let asking = mesh.caller().with_header("x-tidegate-ratelimit", "enabled");
    let answer = asking.post(CHAT, &chat("m", "hello")).await;
    assert_eq!((number(&answer, "x-ratelimit-limit-requests"), number(&answer, "x-ratelimit-limit-tokens")), (60, 100_000));
    assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 9, "ten at once, one is taken");
    assert!(number(&answer, "x-ratelimit-remaining-tokens") < 100_000);
    let streamed = asking.stream(CHAT, &stream("m", "hello")).await;
    assert!(streamed.headers.contains_key("x-ratelimit-remaining-requests"));
    streamed.collect().await;
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_slot_is_free_again_the_moment_its_answer_ends() {
    let mesh = limited(vec![limit(Dimension::Concurrent, 1)]).await;
    // Time for nothing between an answer and the next request: a settlement that came later would refuse some.
    for _ in 0..50 {
        assert_eq!(mesh.post(CHAT, &chat("m", "hello")).await.status, 200);
    }
    mesh.sim("a").push_script("stall=3".parse().expect("a script"));
    let mut held = mesh.stream(CHAT, &stream("m", "hello")).await;
    held.next().await.expect("a first token");
    let refused = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!((refused.status, number(&refused, "retry-after")), (429, 1));
    drop(held);
    mesh.until_metric("tidegate_edge_streams_active", &[], |streams| streams == 0.0).await;
    assert_eq!(mesh.post(CHAT, &chat("m", "hello")).await.status, 200, "a caller who left holds nothing");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_thousand_at_once_cannot_outrun_a_budget_that_covers_ten() {
    // A dollar per million tokens; every answer has 50 of them and is allowed 50, prompts are counted as the provider counts them.
    let one = 50 + u64::from(prompt_tokens());
    let mesh = limited(vec![limit(Dimension::Spend(Window::Day), 10 * one)]).await;
    let request = || {
        let mut request = chat("m", "hello");
        request["messages"][0]["content"] = "the same for everybody".into();
        request["max_tokens"] = 50.into();
        request
    };
    for _ in 0..20 {
        mesh.sim("a").push_script(words(50));
    }
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (caller, request) = (mesh.caller(), request());
        calls.spawn(async move { caller.post(CHAT, &request).await });
    }
    let answers = calls.join_all().await;
    let served: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 402).collect();
    assert_eq!(served.len() + refused.len(), 1_000, "every answer is one of the two");
    // What is held is an estimate from above: fewer may be served while others still run, never more.
    assert!((1..=10).contains(&served.len()), "{} were served", served.len());
    for answer in &refused {
        assert_eq!(answer.error_type(), "payment_required");
        assert_eq!(metadata(answer)["limit_source"], "openrouter_key_limit");
    }
    let spent: Money = served.iter().map(|answer| money(&answer.json()["usage"]["cost"])).sum();
    mesh.until_metric("tidegate_ledger_records_total", &[], |records| records == served.len() as f64).await;
    let key = mesh.get("/v1/key").await.json()["data"].clone();
    let (limit, remaining) = (money(&key["limit"]), money(&key["limit_remaining"]));
    assert!(spent <= limit, "spent {spent} of {limit}, {remaining} left");
    // Whole micro-dollars here: nothing was rounded on the way.
    assert_eq!(limit - remaining, spent, "what is left agrees with what was spent");
    assert_eq!(money(&key["usage"]), spent, "and so does the ledger");
    mesh.edge.shutdown().await;
}

/// What the provider counts for the prompt of the test above.
fn prompt_tokens() -> u32 {
    5
}

#[tokio::test]
async fn a_budget_says_whose_it_is_and_prepaid_credits_say_so_too() {
    let organisation = OrganisationConfig {
        limits: vec![Limit { funding: Funding::Prepaid, ..Limit::new(Scope::Organisation, Dimension::Spend(Window::Total), 1) }],
        credits: Some(1),
        ..OrganisationConfig::new("acme")
    };
    let workspace = WorkspaceConfig {
        limits: vec![Limit::new(Scope::Workspace, Dimension::Spend(Window::Month), 1)],
        ..WorkspaceConfig::new("search", "free")
    };
    let mesh = Topology::new()
        .provider("a", |_| {})
        .with(|topology| {
            topology.organisations = vec![organisation, OrganisationConfig::new("free")];
            topology.workspaces = vec![workspace];
            topology.key.organisation = Some("acme".to_owned());
            topology.more_keys = vec![KeyConfig { workspace: Some("search".to_owned()), ..key("member", "member-key") }];
        })
        .start()
        .await;
    let credits = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!((credits.status, metadata(&credits)["limit_source"].clone()), (402, "openrouter_credits".into()));
    assert_eq!(metadata(&credits)["reason"], "weight_exceeds_budget", "a micro-dollar covers nothing");
    assert_eq!(credits.header("x-should-retry"), "false", "waiting does not buy credits");
    let member = mesh.caller().with_key("member-key").post(CHAT, &chat("m", "hello")).await;
    assert_eq!((member.status, metadata(&member)["limit_source"].clone()), (402, "workspace_budget".into()));
    let answer = mesh.get("/v1/credits").await.json();
    assert_eq!(
        (money(&answer["data"]["total_credits"]).micro_dollars_rounded_up(), money(&answer["data"]["total_usage"])),
        (1, Money::ZERO)
    );
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_shadow_limit_and_a_warning_are_seen_and_refuse_nothing() {
    let mesh = limited(vec![
        Limit { shadow: true, ..limit(Dimension::RequestsPerMinute, 6) },
        Limit { warn_at: Some(1), ..limit(Dimension::TokensPerMinute(TokenKind::Both), 1_000_000) },
    ])
    .await;
    for _ in 0..5 {
        assert_eq!(mesh.post(CHAT, &chat("m", "hello there, this is long enough to be one per cent")).await.status, 200);
    }
    assert!(mesh.metric("tidegate_quota_notices_total", &[("notice", "shadow"), ("kind", "rpm")]) >= 3.0);
    assert_eq!(mesh.metric("tidegate_quota_decisions_total", &[("decision", "refused")]), 0.0);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn failed_requests_cost_nothing_and_unroutable_ones_do_not_count() {
    let slow = Limit { burst: Some(10), ..limit(Dimension::RequestsPerMinute, 1) };
    let mesh = limited(vec![limit(Dimension::Spend(Window::Day), 1_000_000), slow]).await;
    for _ in 0..3 {
        mesh.sim("a").push_script("status=400".parse().expect("a script"));
        assert_eq!(mesh.post(CHAT, &chat("m", "hello")).await.status, 400);
    }
    let mut nowhere = chat("m", "hello");
    nowhere["provider"] = serde_json::json!({ "only": ["nobody"] });
    assert_eq!(mesh.post(CHAT, &nowhere).await.status, 404);
    let data = mesh.get("/v1/key").await.json()["data"].clone();
    assert_eq!((data["usage"].to_string().as_str(), data["limit_remaining"].to_string().as_str()), ("0", "1"));
    let requests = data["tidegate"]["limits"].as_array().expect("limits").iter().find(|limit| limit["dimension"] == "rpm").cloned();
    // The rate gives back all the time, so that a little less than three is in use.
    assert_eq!(requests.expect("the rate")["used"], 2, "three were sent, the fourth was not");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn free_models_have_a_daily_number_of_requests() {
    let mesh = Topology::new()
        .provider("a", |p| p.price = "0".to_owned())
        .with(|topology| topology.key.limits = vec![limit(Dimension::FreeRequestsPerDay, 2)])
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(mesh.post(CHAT, &chat("m", "hello")).await.status, 200);
    }
    let refused = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!(refused.status, 429);
    assert!(number(&refused, "retry-after") <= 86_400);
    let data = mesh.get("/v1/key").await.json()["data"]["free_model_daily_requests"].clone();
    assert_eq!(data, serde_json::json!({ "limit": 2, "remaining": 0, "used": 2 }));
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn limits_change_without_a_restart_and_know_what_was_spent_before() {
    let mesh = limited(Vec::new()).await;
    mesh.sim("a").push_script(words(40));
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    let spent = money(&answer.json()["usage"]["cost"]);
    mesh.until_metric("tidegate_ledger_records_total", &[], |records| records == 1.0).await;
    let mut changed = mesh.config.clone();
    changed.revision += 1;
    changed.keys[0].limits = vec![limit(Dimension::Spend(Window::Month), spent.micro_dollars_rounded_up().unsigned_abs())];
    mesh.edge.reload(changed).expect("a good configuration");
    let refused = async {
        while mesh.post(CHAT, &chat("m", "hello")).await.status != 402 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("the new budget is used up by what was spent before");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn fees_are_charged_shown_and_counted() {
    let organisation = OrganisationConfig { fee: Fee { markup_ppm: 50_000, own_key_ppm: 10_000 }, ..OrganisationConfig::new("acme") };
    let rate = Rate::per_million_usd("1").expect("a rate");
    for own_key in [false, true] {
        let mesh = Topology::new()
            .provider("a", move |p| p.provider = Box::new(move |provider| provider.credentials[0].own_key = own_key))
            .with(|topology| {
                topology.organisations = vec![organisation.clone()];
                topology.key.organisation = Some("acme".to_owned());
            })
            .start()
            .await;
        let answer = mesh.post(CHAT, &chat("m", "hello")).await.json();
        let usage = &answer["usage"];
        let tokens = usage["prompt_tokens"].as_u64().zip(usage["completion_tokens"].as_u64()).map(|(a, b)| a + b).expect("tokens");
        let cost = rate.times(tokens);
        let charged = if own_key { cost.share_ppm(10_000) } else { cost + cost.share_ppm(50_000) };
        assert_eq!(money(&usage["cost"]), charged);
        assert_eq!(usage["is_byok"], own_key);
        let record = mesh.generation(answer["id"].as_str().expect("an id")).await;
        assert_eq!((money(&record["total_cost"]), record["is_byok"].clone()), (charged, own_key.into()));
        assert_eq!(record["tidegate"]["organisation"], "acme");
        mesh.edge.shutdown().await;
    }
}

#[tokio::test]
async fn a_request_without_a_key_is_not_limited_by_anybodys_limit() {
    let mesh = Topology::new()
        .provider("a", |_| {})
        .with(|topology| {
            topology.defaults.anonymous = true;
            topology.key.limits = vec![limit(Dimension::RequestsPerMinute, 1)];
        })
        .start()
        .await;
    assert_eq!(mesh.caller().with_key(KEY).post(CHAT, &chat("m", "hello")).await.status, 200);
    for _ in 0..3 {
        assert_eq!(mesh.caller().without_key().post(CHAT, &chat("m", "hello")).await.status, 200);
    }
    mesh.edge.shutdown().await;
}
