//! Conversations that stay where their prompt is cached (reference, checklist 7.5).

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tidegate_edge::config::CredentialConfig;
use tidegate_ledger::Rate;
use tidegate_provider_sim::Fault;
use tidegate_routing::Mode;
use tidegate_testkit::{Mesh, ProviderDraft, Topology, key};

const CHAT: &str = "/v1/chat/completions";

/// Two equal providers, between which requests without a conversation are tossed like a coin.
fn twins(change: fn(&mut ProviderDraft)) -> Topology {
    Topology::new()
        .with(|t| {
            t.defaults.mode = Mode::Simple;
            t.settings.retry_reserve = 1e6;
            // How much slower an endpoint may be is for tests of the strategy; here the machine's noise must not decide.
            t.settings.sticky_cost_ratio = 1e9;
        })
        .provider("a", change)
        .provider("b", change)
}

/// Reads from the cache cost a tenth.
fn rewarding(p: &mut ProviderDraft) {
    p.endpoint = Box::new(|endpoint| endpoint.prices.cache_read = Some(Rate::per_million_usd("0.1").expect("a price")));
}

/// As above, and nothing is ever reported as cached.
fn forgetful(p: &mut ProviderDraft) {
    rewarding(p);
    p.sim.prompt_cache = None;
}

/// A conversation that begins like this; long enough to be cached.
fn conversation(topic: &str) -> Value {
    json!({ "model": "m", "messages": [
        { "role": "system", "content": "You are the harbour master and know every tide. ".repeat(8) },
        { "role": "user", "content": topic },
    ] })
}

fn with(mut request: Value, members: Value) -> Value {
    for (name, value) in members.as_object().expect("an object") {
        request[name] = value.clone();
    }
    request
}

fn only(request: &Value, slug: &str) -> Value {
    with(request.clone(), json!({ "provider": { "only": [slug] } }))
}

async fn served_by(caller: &tidegate_testkit::Caller, request: &Value) -> String {
    let answer = caller.post(CHAT, request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["provider"].as_str().expect("a provider").to_lowercase()
}

/// Brings a conversation to a provider, by way of its cache: the second answer reports cached tokens.
async fn settle(mesh: &Mesh, request: &Value, slug: &str) {
    for _ in 0..2 {
        assert_eq!(served_by(mesh, &only(request, slug)).await, slug);
    }
}

/// Whether the next requests all go to this provider: one in 4096 would by chance.
async fn stays(caller: &tidegate_testkit::Caller, request: &Value, slug: &str) -> bool {
    for _ in 0..12 {
        if served_by(caller, request).await != slug {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_conversation_stays_where_it_was_seen_to_be_cached() {
    let mesh = twins(rewarding).start().await;
    for (topic, slug) in [("ebb", "a"), ("flow", "b")] {
        let request = conversation(topic);
        settle(&mesh, &request, slug).await;
        assert!(stays(&mesh, &request, slug).await, "{topic} left {slug}");
        let mut longer = request.clone();
        longer["messages"]
            .as_array_mut()
            .expect("messages")
            .extend([json!({ "role": "assistant", "content": "At noon." }), json!({ "role": "user", "content": "And tomorrow?" })]);
        assert!(stays(&mesh, &longer, slug).await, "the opening messages are the same");
    }
}

#[tokio::test]
async fn without_cached_usage_nothing_sticks() {
    let mesh = twins(forgetful).start().await;
    let request = conversation("ebb");
    settle(&mesh, &request, "b").await;
    assert!(!stays(&mesh, &request, "b").await);
}

#[tokio::test]
async fn a_session_sticks_from_its_first_success_wherever_it_is_named() {
    let mesh = twins(forgetful).start().await;
    let request = conversation("ebb");
    let named = with(request.clone(), json!({ "session_id": "s-body" }));
    assert_eq!(served_by(&mesh, &only(&named, "b")).await, "b");
    assert!(stays(&mesh, &with(conversation("something else"), json!({ "session_id": "s-body" })), "b").await);

    for header in ["x-session-id", "x-session-affinity", "session-id", "thread-id", "x-claude-code-session-id"] {
        let caller = mesh.caller().with_header(header, &format!("of-{header}"));
        assert_eq!(served_by(&caller, &only(&request, "a")).await, "a");
        assert!(stays(&caller, &conversation("something else"), "a").await, "{header}");
    }
}

#[tokio::test]
async fn the_body_beats_the_header_and_a_session_beats_a_cache_key() {
    let mesh = twins(rewarding).start().await;
    let request = conversation("ebb");
    let keyed = with(request.clone(), json!({ "prompt_cache_key": "k-1" }));
    settle(&mesh, &keyed, "b").await;
    let other_words = conversation("something else");
    assert!(stays(&mesh, &with(other_words.clone(), json!({ "prompt_cache_key": "k-1" })), "b").await, "the key stands for the words");

    let header = mesh.caller().with_header("x-session-id", "s-header");
    assert_eq!(served_by(&header, &only(&request, "a")).await, "a");
    assert!(stays(&header, &with(other_words.clone(), json!({ "prompt_cache_key": "k-1" })), "a").await, "a session is more than a key");

    let body = with(other_words, json!({ "session_id": "s-body", "prompt_cache_key": "k-2" }));
    assert_eq!(served_by(&mesh, &only(&body, "b")).await, "b");
    assert!(stays(&header, &body, "b").await, "the body's session is meant");
}

#[tokio::test]
async fn an_agents_user_id_names_its_conversation() {
    let mesh = twins(rewarding).start().await;
    let request = with(conversation("ebb"), json!({ "metadata": { "user_id": "{\"session_id\":\"9d1f\"}" } }));
    settle(&mesh, &request, "b").await;
    let mut later = request;
    later["messages"][1]["content"] = json!("after the agent has compacted its context");
    assert!(stays(&mesh, &later, "b").await);
}

#[tokio::test]
async fn nobody_stays_for_a_cache_that_saves_nothing() {
    let same_price = |p: &mut ProviderDraft| {
        p.endpoint = Box::new(|endpoint| endpoint.prices.cache_read = Some(endpoint.prices.prompt));
    };
    for change in [same_price, (|_| {}) as fn(&mut ProviderDraft)] {
        let mesh = twins(change).start().await;
        let request = with(conversation("ebb"), json!({ "session_id": "s" }));
        settle(&mesh, &request, "b").await;
        assert!(!stays(&mesh, &request, "b").await);
    }
}

#[tokio::test]
async fn order_and_filters_outweigh_stickiness() {
    let mesh = twins(rewarding).start().await;
    let request = with(conversation("ebb"), json!({ "session_id": "s" }));
    settle(&mesh, &request, "b").await;
    for provider in [json!({ "order": ["a"] }), json!({ "ignore": ["b"] })] {
        assert_eq!(served_by(&mesh, &with(request.clone(), json!({ "provider": provider }))).await, "a");
        settle(&mesh, &request, "b").await;
    }
}

#[tokio::test]
async fn when_its_endpoint_fails_a_conversation_settles_elsewhere() {
    let mesh = twins(rewarding).start().await;
    let request = with(conversation("ebb"), json!({ "session_id": "s" }));
    settle(&mesh, &request, "b").await;
    mesh.sim("b").set_fault(Some(Fault::Status { status: 500, retry_after: None }));
    assert_eq!(served_by(&mesh, &request).await, "a");
    mesh.sim("b").set_fault(None);
    assert!(stays(&mesh, &request, "a").await, "its cache is there now");
}

#[tokio::test]
async fn stickiness_belongs_to_a_key_a_model_and_a_variant() {
    let mesh = twins(forgetful).model("n").with(|t| t.more_keys.push(key("other", "tg_other_key_of_the_test"))).start().await;
    let other = mesh.caller().with_key("tg_other_key_of_the_test");
    let mut elsewhere = [0; 3];
    for at in 0..16 {
        let request = with(conversation("ebb"), json!({ "session_id": format!("s-{at}") }));
        assert_eq!(served_by(&mesh, &only(&request, "b")).await, "b");
        let model = with(request.clone(), json!({ "model": "n" }));
        for (count, (caller, request)) in elsewhere.iter_mut().zip([(&other, &request), (&*mesh, &model)]) {
            *count += usize::from(served_by(caller, request).await == "a");
        }
        // A variant of the slug is another conversation too; its sort takes the first of two equals.
        let variant = with(request.clone(), json!({ "model": "m:floor" }));
        elsewhere[2] += usize::from(served_by(&mesh, &variant).await == "a");
    }
    assert!(elsewhere.iter().all(|count| *count > 0), "{elsewhere:?}");
}

#[tokio::test]
async fn a_conversation_keeps_its_account() {
    let mesh = Topology::new()
        .provider("a", |p| {
            rewarding(p);
            p.provider = Box::new(|provider| {
                let account = |at: u32| CredentialConfig {
                    name: format!("account-{at}"),
                    weight: 1,
                    secret: Some(SecretString::from(format!("secret-{at}"))),
                    own_key: false,
                };
                provider.credentials = (0..8).map(account).collect();
            });
        })
        .start()
        .await;
    for topic in ["ebb", "flow", "slack"] {
        let before = mesh.sim("a").requests().len();
        for _ in 0..6 {
            served_by(&mesh, &conversation(topic)).await;
        }
        let requests = mesh.sim("a").requests();
        let mut accounts: Vec<_> = requests[before..].iter().map(|request| request.headers.get("authorization").cloned()).collect();
        accounts.dedup();
        assert_eq!(accounts.len(), 1, "prompt caches belong to accounts: {accounts:?}");
    }
}

#[tokio::test]
async fn a_conversation_is_remembered_as_long_as_the_cache_may_live() {
    let request = with(conversation("ebb"), json!({ "session_id": "s" }));
    let lives = |lifetime: u64| twins(forgetful).with(move |t| t.defaults.sticky_for = Duration::from_millis(lifetime));
    // Gone before the next request can come.
    let short = |p: &mut ProviderDraft| {
        forgetful(p);
        p.endpoint = Box::new(|endpoint| {
            endpoint.prices.cache_read = Some(Rate::per_million_usd("0.1").expect("a price"));
            endpoint.cache_lifetime = Duration::from_micros(1);
        });
    };
    let mesh = twins(short).with(|t| t.defaults.sticky_for = Duration::from_micros(1)).start().await;
    settle(&mesh, &request, "b").await;
    assert!(!stays(&mesh, &request, "b").await);

    // The endpoint's cache lives for five minutes, whatever the least is.
    let mesh = lives(0).start().await;
    settle(&mesh, &request, "b").await;
    assert!(stays(&mesh, &request, "b").await);

    // The least holds where the cache is shorter-lived.
    let mesh = twins(short).start().await;
    settle(&mesh, &request, "b").await;
    assert!(stays(&mesh, &request, "b").await);
}

#[tokio::test]
async fn stickiness_can_be_switched_off() {
    let mesh = twins(rewarding).with(|t| t.defaults.sticky = false).start().await;
    let request = with(conversation("ebb"), json!({ "session_id": "s" }));
    settle(&mesh, &request, "b").await;
    assert!(!stays(&mesh, &request, "b").await);
}

#[tokio::test]
async fn as_a_mode_conversations_are_spread_and_stay() {
    let mesh = twins(forgetful).with(|t| t.defaults.mode = Mode::Sticky).start().await;
    let mut used = std::collections::BTreeSet::new();
    for at in 0..12 {
        let request = conversation(&format!("topic {at}"));
        let home = served_by(&mesh, &request).await;
        for _ in 0..3 {
            assert_eq!(served_by(&mesh, &request).await, home, "topic {at}");
        }
        used.insert(home);
    }
    assert_eq!(used.len(), 2, "both providers have conversations");
}
