//! Where requests go (reference, checklist 7.4): providers are counted, not asked.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tidegate_edge::config::CredentialConfig;
use tidegate_provider_sim::{Fault, FaultRule};
use tidegate_routing::{DataPolicy, Mode, ParameterSet, Preferences, Quantization, Tier};
use tidegate_testkit::{Answer, Canned, Mesh, ProviderDraft, Topology, chat, raw, stream};

const CHAT: &str = "/v1/chat/completions";

/// A topology without the limits that have tests of their own.
fn topology() -> Topology {
    Topology::new().with(|t| {
        t.settings.retry_reserve = 1e6;
        t.settings.exploration_share = 0.0;
    })
}

/// As [`topology`], with the rule of the example in the reference: a price and nothing else.
fn simple() -> Topology {
    topology().with(|t| t.defaults.mode = Mode::Simple)
}

fn costs(price: &'static str) -> impl FnOnce(&mut ProviderDraft) {
    move |p| price.clone_into(&mut p.price)
}

/// A request with this `provider` object.
fn asking(provider: &Value) -> Value {
    let mut request = chat("m", "hello");
    request["provider"] = provider.clone();
    request
}

/// Sends a request that must be answered, and says by whom.
async fn served_by(mesh: &Mesh, request: &Value) -> String {
    let answer = mesh.post(CHAT, request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["provider"].as_str().expect("a provider").to_lowercase()
}

/// How many of so many requests each provider serves.
async fn shares<const N: usize>(mesh: &Mesh, slugs: [&str; N], requests: usize, request: impl Fn() -> Value) -> [usize; N] {
    let mut shares = [0; N];
    for _ in 0..requests {
        let by = served_by(mesh, &request()).await;
        shares[slugs.iter().position(|slug| *slug == by).expect("a known provider")] += 1;
    }
    shares
}

/// One short stream, by which a provider's speed becomes known. Later answers are as fast as they can be.
async fn measure(mesh: &Mesh, slug: &str, script: &str) {
    mesh.sim(slug).push_script(script.parse().expect("a script"));
    let mut request = stream("m", "hello");
    request["provider"] = json!({ "only": [slug] });
    request["max_tokens"] = json!(10);
    mesh.stream(CHAT, &request).await.collect().await;
}

fn down(mesh: &Mesh, slug: &str, status: u16) {
    mesh.sim(slug).set_fault(Some(Fault::Status { status, retry_after: None }));
}

fn up(mesh: &Mesh, slug: &str) {
    mesh.sim(slug).set_fault(None);
}

fn plain() -> Value {
    chat("m", "hello")
}

/// The decision behind an answer, as the operations port explains it.
async fn explained(mesh: &Mesh, answer: &Answer) -> Value {
    let id = answer.header("x-generation-id");
    mesh.generation(id).await;
    let explained = mesh.operations().get(&format!("/explain/{id}")).await;
    assert_eq!(explained.status, 200, "{}", explained.text());
    explained.json()
}

fn no(parameter: &str) -> ParameterSet {
    ParameterSet::all().missing_from(ParameterSet::from_name(parameter).expect("a parameter"))
}

// The default choice.

#[tokio::test]
async fn a_third_of_the_price_gets_nine_times_the_traffic() {
    let mesh = simple().provider("a", costs("1")).provider("c", costs("3")).start().await;
    let [a, c] = shares(&mesh, ["a", "c"], 400, plain).await;
    // 360 expected, five standard deviations are 30.
    assert!((330..=390).contains(&a), "{a} to {c}");
}

#[tokio::test]
async fn a_recent_outage_goes_last_until_it_is_a_small_part_of_what_was_seen() {
    let mesh = simple().provider("a", costs("1")).provider("b", costs("5")).start().await;
    mesh.sim("a").push_script("status=500".parse().expect("a script"));
    let mut request = asking(&json!({ "order": ["a"] }));
    assert_eq!(served_by(&mesh, &request).await, "b");
    assert_eq!(shares(&mesh, ["a", "b"], 20, plain).await, [0, 20]);
    // Still the fallback: when the other one fails, it serves.
    mesh.sim("b").push_script("status=500".parse().expect("a script"));
    assert_eq!(served_by(&mesh, &plain()).await, "a");
    // Thirty answers later its one failure, and that of the other, are below five percent.
    request["provider"] = json!({ "only": ["a"] });
    for _ in 0..30 {
        assert_eq!(served_by(&mesh, &request).await, "a");
    }
    let [a, b] = shares(&mesh, ["a", "b"], 20, plain).await;
    assert!(a > b, "{a} to {b}");
}

#[tokio::test]
async fn by_default_the_cheaper_gets_more_and_the_dearer_some() {
    let mesh = topology().with(|t| t.settings.success_exponent = 0).provider("a", costs("1")).provider("b", costs("1.5")).start().await;
    let [a, b] = shares(&mesh, ["a", "b"], 200, plain).await;
    assert!(a > 60 && b > 0, "{a} to {b}");
}

#[tokio::test]
async fn by_default_the_faster_of_two_equals_gets_more() {
    let mesh = topology().provider("fast", |_| {}).provider("slow", |_| {}).start().await;
    measure(&mesh, "fast", "ok").await;
    measure(&mesh, "slow", "first-token=500ms").await;
    let brief = || {
        let mut request = plain();
        request["max_tokens"] = json!(1);
        request
    };
    let [fast, slow] = shares(&mesh, ["fast", "slow"], 60, brief).await;
    // Each is drawn half of the time, twice: the slow one wins only against itself, so 45 are expected.
    assert!(fast > 30, "{fast} to {slow}");
}

#[tokio::test]
async fn the_worst_healthy_endpoint_still_gets_a_little() {
    let mesh =
        topology().with(|t| t.settings.exploration_share = 0.2).provider("a", costs("0.1")).provider("b", costs("1000")).start().await;
    let [a, b] = shares(&mesh, ["a", "b"], 100, plain).await;
    assert!(b >= 1 && a > b, "{a} to {b}");
}

#[tokio::test]
async fn a_new_endpoint_is_treated_like_its_peers() {
    let mesh = simple().provider("old", |_| {}).provider("new", |_| {}).start().await;
    let only = asking(&json!({ "only": ["old"] }));
    for _ in 0..30 {
        served_by(&mesh, &only).await;
    }
    let [old, new] = shares(&mesh, ["old", "new"], 100, plain).await;
    assert!(old > 20 && new > 20, "{old} to {new}");
}

// Health.

#[tokio::test]
async fn a_broken_endpoint_is_paused_and_comes_back_when_it_is_well() {
    let mesh = topology()
        .with(|t| {
            t.settings.breaker_open = Duration::from_millis(150);
            t.settings.jitter = 0.0;
            t.settings.ramp = Duration::from_millis(1);
        })
        .provider("a", |_| {})
        .provider("b", |_| {})
        .start()
        .await;
    let request = asking(&json!({ "order": ["a", "b"] }));
    down(&mesh, "a", 500);
    for _ in 0..5 {
        assert_eq!(served_by(&mesh, &request).await, "b");
    }
    assert_eq!(mesh.hits("a"), 5);
    assert_eq!(served_by(&mesh, &request).await, "b");
    assert_eq!(mesh.hits("a"), 5, "paused, not tried again");
    up(&mesh, "a");
    let back = async {
        // Three probes in a row must succeed; each is an ordinary request.
        while mesh.hits("a") < 10 {
            served_by(&mesh, &request).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("the endpoint is admitted again");
    assert_eq!(served_by(&mesh, &request).await, "a");
}

#[tokio::test]
async fn with_everybody_ejected_requests_are_tried_all_the_same() {
    let mesh = topology().provider("a", |_| {}).start().await;
    down(&mesh, "a", 500);
    for _ in 0..8 {
        assert_eq!(mesh.post(CHAT, &plain()).await.status, 503);
    }
    up(&mesh, "a");
    assert_eq!(served_by(&mesh, &plain()).await, "a");
}

#[tokio::test]
async fn only_the_endpoints_own_failures_hurt_it() {
    let canned = Canned::start("400 Bad Request", "{}").await;
    let mesh = topology().with(|t| t.settings.breaker_consecutive = 1_000).provider("a", |p| p.served_by(&canned)).start().await;
    let mut known = 0.0;
    for (status, hurts) in [
        ("400 Bad Request", false),
        ("413 Content Too Large", false),
        ("422 Unprocessable Entity", false),
        ("451 Unavailable For Legal Reasons", false),
        ("408 Request Timeout", true),
        ("500 Internal Server Error", true),
        ("502 Bad Gateway", true),
        ("503 Service Unavailable", true),
        ("504 Gateway Timeout", true),
        ("524 A Timeout Occurred", true),
        ("529 Overloaded", true),
    ] {
        canned.set(status, "", "{}");
        for _ in 0..3 {
            assert_ne!(mesh.post(CHAT, &plain()).await.status, 200);
        }
        canned.set("200 OK", "", &raw::completion("well").to_string());
        let explained = explained(&mesh, &mesh.post(CHAT, &plain()).await).await;
        let failures = explained["record"]["considered"][0]["failures"].as_f64().expect("failures");
        assert_eq!(failures > known, hurts, "{status}: {known} before, {failures} after");
        known = failures;
    }
}

#[tokio::test]
async fn a_retry_is_drawn_among_the_rest() {
    let mesh = simple().provider("a", costs("1")).provider("b", costs("1")).provider("c", costs("3")).start().await;
    down(&mesh, "a", 500);
    let [b, c] = shares(&mesh, ["b", "c"], 200, || asking(&json!({ "order": ["a"] }))).await;
    // 180 expected, five standard deviations are 21.
    assert!((159..=199).contains(&b) && c > 0, "{b} to {c}");
}

#[tokio::test]
async fn a_silent_provider_is_left_in_time_for_another() {
    let mesh = topology().provider("a", |_| {}).provider("b", |_| {}).start().await;
    mesh.sim("a").set_fault(Some(Fault::Hang));
    let answer = mesh.caller().with_header("x-request-timeout", "0.6").post(CHAT, &asking(&json!({ "order": ["a", "b"] }))).await;
    assert_eq!((answer.status, &answer.json()["provider"]), (200, &json!("B")), "{}", answer.text());
    mesh.sim("a").wait_until(|stats| stats.disconnects.len() == 1).await;
}

#[tokio::test]
async fn every_way_to_break_before_the_first_token_goes_unnoticed() {
    let mesh = topology().with(|t| t.settings.breaker_consecutive = 1_000).provider("a", |_| {}).provider("b", |_| {}).start().await;
    for fault in [Fault::Reset, Fault::Refuse, Fault::Malformed, Fault::Cut { after: 0 }, Fault::ErrorEvent { after: 0 }] {
        mesh.sim("a").set_fault(Some(fault.clone()));
        for request in [chat("m", "hello"), stream("m", "hello")] {
            let mut request = request;
            request["provider"] = json!({ "order": ["a", "b"] });
            let answer = mesh.post(CHAT, &request).await;
            assert_eq!(answer.status, 200, "{fault:?}: {}", answer.text());
            assert!(answer.text().contains("\"provider\":\"B\"") && !answer.text().contains("\"provider\":\"A\""), "{fault:?}");
        }
    }
}

// The `provider` object.

#[tokio::test]
async fn order_is_strict_skips_strangers_and_then_takes_the_rest() {
    let mesh = simple().provider("a", costs("1")).provider("b", costs("9")).provider("c", costs("8")).start().await;
    let request = || asking(&json!({ "order": ["nobody", "b", "c"] }));
    assert_eq!(shares(&mesh, ["a", "b", "c"], 20, request).await, [0, 20, 0]);
    mesh.sim("b").push_script("status=500".parse().expect("a script"));
    assert_eq!(served_by(&mesh, &request()).await, "c");
    for slug in ["b", "c"] {
        mesh.sim(slug).push_script("status=500".parse().expect("a script"));
    }
    assert_eq!(served_by(&mesh, &request()).await, "a");
}

#[tokio::test]
async fn without_fallbacks_a_failure_is_returned() {
    let mesh = topology().provider("a", costs("1")).provider("b", costs("2")).start().await;
    for provider in [json!({ "allow_fallbacks": false, "sort": "price" }), json!({ "allow_fallbacks": false, "order": ["a"] })] {
        mesh.sim("a").push_script("status=500".parse().expect("a script"));
        let answer = mesh.post(CHAT, &asking(&provider)).await;
        assert_eq!((answer.status, mesh.hits("b")), (503, 0), "{provider}: {}", answer.text());
    }
    // The listed ones are the first choice together.
    mesh.sim("a").push_script("status=500".parse().expect("a script"));
    assert_eq!(served_by(&mesh, &asking(&json!({ "allow_fallbacks": false, "order": ["a", "b"] }))).await, "b");
}

#[tokio::test]
async fn a_keys_lists_can_only_be_narrowed() {
    let mesh = simple()
        .with(|t| {
            t.key.preferences = Preferences {
                only: vec![["a", "b", "c"].map(str::to_owned).into()],
                ignore: vec!["a".to_owned()],
                ..Preferences::default()
            };
        })
        .provider("a", costs("1"))
        .provider("b", costs("2"))
        .provider("c", costs("3"))
        .provider("d", costs("1"))
        .start()
        .await;
    assert_eq!(shares(&mesh, ["b", "c"], 10, || asking(&json!({ "only": ["b", "d"] }))).await, [10, 0]);
    assert_eq!(shares(&mesh, ["b", "c"], 10, || asking(&json!({ "ignore": ["b"] }))).await, [0, 10]);
    for provider in [json!({ "only": ["d"] }), json!({ "only": ["a"] }), json!({ "ignore": ["b", "c"] })] {
        let answer = mesh.post(CHAT, &asking(&provider)).await;
        assert_eq!((answer.status, &answer.json()["error"]["availability"]["code"]), (404, &json!("no_endpoints")), "{provider}");
    }
    assert_eq!((mesh.hits("a"), mesh.hits("d")), (0, 0));
}

#[tokio::test]
async fn required_parameters_leave_those_who_know_them() {
    let mesh = simple()
        .provider("a", |p| p.endpoint = Box::new(|endpoint| endpoint.parameters = no("seed")))
        .provider("b", costs("9"))
        .start()
        .await;
    let mut request = asking(&json!({ "require_parameters": true }));
    request["seed"] = json!(1);
    assert_eq!(shares(&mesh, ["a", "b"], 10, || request.clone()).await, [0, 10]);
}

#[tokio::test]
async fn data_policies_filter_and_cannot_be_relaxed() {
    let policy = |price: &'static str, trains, retains| {
        move |p: &mut ProviderDraft| {
            price.clone_into(&mut p.price);
            p.endpoint = Box::new(move |endpoint| endpoint.data = DataPolicy { trains, retains });
        }
    };
    let build = || {
        simple()
            .provider("trains", policy("0.1", true, true))
            .provider("keeps", policy("0.2", false, true))
            .provider("clean", policy("9", false, false))
    };
    let mesh = build().start().await;
    for provider in [json!({ "data_collection": "deny" }), json!({ "zdr": true })] {
        assert_eq!(shares(&mesh, ["clean"], 10, || asking(&provider)).await, [10], "{provider}");
    }
    assert_ne!(served_by(&mesh, &asking(&json!({ "ignore": ["clean"] }))).await, "clean", "nothing was asked");

    let strict = Preferences { zdr: true, ..Preferences::default() };
    let mesh = build().with(|t| t.key.preferences = strict).start().await;
    for provider in [json!({ "zdr": false }), json!({ "data_collection": "allow" }), json!({})] {
        assert_eq!(shares(&mesh, ["clean"], 5, || asking(&provider)).await, [5], "{provider}");
    }
}

#[tokio::test]
async fn distillable_text_comes_from_models_that_permit_it() {
    let mesh = topology().model("free").change_model("free", |model| model.distillable = true).provider("a", |_| {}).start().await;
    let mut request = asking(&json!({ "enforce_distillable_text": true }));
    assert_eq!(mesh.post(CHAT, &request).await.status, 404);
    request["models"] = json!(["free"]);
    assert_eq!(mesh.post(CHAT, &request).await.json()["model"], "free");
}

#[tokio::test]
async fn a_family_of_quantizations_includes_its_block_formats() {
    let precision = |quantization| move |p: &mut ProviderDraft| p.endpoint = Box::new(move |endpoint| endpoint.quantization = quantization);
    let mesh = simple()
        .provider("fp8", precision(Quantization::Fp8))
        .provider("mxfp8", precision(Quantization::Mxfp8))
        .provider("nvfp4", precision(Quantization::Nvfp4))
        .provider("bf16", precision(Quantization::Bf16))
        .start()
        .await;
    let all = ["fp8", "mxfp8", "nvfp4", "bf16"];
    let [fp8, mxfp8, nvfp4, bf16] = shares(&mesh, all, 30, || asking(&json!({ "quantizations": ["fp8"] }))).await;
    assert!(fp8 > 0 && mxfp8 > 0 && nvfp4 + bf16 == 0, "{fp8} {mxfp8} {nvfp4} {bf16}");
    assert_eq!(shares(&mesh, all, 10, || asking(&json!({ "quantizations": ["fp4"] }))).await, [0, 0, 10, 0]);
    assert_eq!(shares(&mesh, all, 10, || asking(&json!({ "quantizations": ["mxfp8"] }))).await, [0, 10, 0, 0]);
}

#[tokio::test]
async fn a_sort_is_the_same_choice_every_time() {
    let prior = |price: &'static str, first_token: u64, speed: f32| {
        move |p: &mut ProviderDraft| {
            price.clone_into(&mut p.price);
            p.endpoint = Box::new(move |endpoint| {
                endpoint.prior_first_token = Some(Duration::from_millis(first_token));
                endpoint.prior_tokens_per_second = Some(speed);
            });
        }
    };
    let mesh = topology()
        .provider("a", prior("1", 900, 50.0))
        .provider("b", prior("2", 100, 40.0))
        .provider("c", prior("3", 500, 90.0))
        .start()
        .await;
    for (sort, best) in [("price", "a"), ("latency", "b")] {
        let request = || asking(&json!({ "sort": sort }));
        for _ in 0..10 {
            assert_eq!(served_by(&mesh, &request()).await, best, "{sort}");
        }
    }
    // An answer measures speed, so the expectation holds for the first request only.
    let fresh = topology().provider("a", prior("1", 900, 50.0)).provider("c", prior("3", 500, 90.0)).start().await;
    assert_eq!(served_by(&fresh, &asking(&json!({ "sort": "throughput" }))).await, "c");
    // The next best follows when the best fails.
    mesh.sim("a").push_script("status=500".parse().expect("a script"));
    assert_eq!(served_by(&mesh, &asking(&json!({ "sort": { "by": "price" } }))).await, "b");
}

#[tokio::test]
async fn variants_sort_and_keep_out_of_the_models_name() {
    let mesh = topology().provider("a", costs("5")).provider("b", costs("1")).start().await;
    for _ in 0..5 {
        let answer = mesh.post(CHAT, &chat("m:floor", "hello")).await;
        assert_eq!((&answer.json()["provider"], &answer.json()["model"]), (&json!("B"), &json!("m")), "{}", answer.text());
    }
    let explained = explained(&mesh, &mesh.post(CHAT, &chat("m:nitro", "hello")).await).await;
    assert_eq!(explained["decision"]["strategy"], "throughput, strictly");
    let mut request = chat("m:floor", "hello");
    request["provider"] = json!({ "sort": "latency" });
    let explained = self::explained(&mesh, &mesh.post(CHAT, &request).await).await;
    assert_eq!(explained["decision"]["strategy"], "latency, strictly", "an explicit sort outweighs a variant");
}

#[tokio::test]
async fn measured_speed_decides_a_sort_by_throughput_or_latency() {
    for (sort, fault) in [("latency", "first-token=400ms"), ("throughput", "tokens-per-second=30")] {
        let mesh = topology().provider("slow", |_| {}).provider("fast", costs("9")).start().await;
        measure(&mesh, "slow", fault).await;
        measure(&mesh, "fast", "ok").await;
        for _ in 0..5 {
            assert_eq!(served_by(&mesh, &asking(&json!({ "sort": sort }))).await, "fast", "{sort}");
        }
    }
}

#[tokio::test]
async fn a_sort_over_all_models_may_prefer_a_later_model() {
    let on = |model: &'static str, price: &'static str| {
        move |p: &mut ProviderDraft| {
            p.models = vec![model.to_owned()];
            price.clone_into(&mut p.price);
        }
    };
    let mesh = topology().model("n").provider("a", on("m", "3")).provider("b", on("n", "1")).start().await;
    let mut request = asking(&json!({ "sort": { "by": "price", "partition": "none" } }));
    request["models"] = json!(["n"]);
    assert_eq!(mesh.post(CHAT, &request).await.json()["model"], "n");
    for provider in [json!({ "sort": { "by": "price", "partition": "model" } }), json!({ "sort": "price" })] {
        request["provider"] = provider;
        assert_eq!(mesh.post(CHAT, &request).await.json()["model"], "m");
    }
}

#[tokio::test]
async fn missed_performance_bounds_move_to_the_end_and_never_out() {
    let mesh = simple().provider("slow", costs("1")).provider("fast", costs("50")).start().await;
    measure(&mesh, "slow", "first-token=400ms").await;
    measure(&mesh, "fast", "ok").await;
    let within = |bound: Value| move || asking(&json!({ "preferred_max_latency": bound }));
    assert_eq!(shares(&mesh, ["slow", "fast"], 10, within(json!(0.3))).await, [0, 10]);
    assert_eq!(shares(&mesh, ["slow", "fast"], 10, within(json!({ "p50": 30, "p99": 0.3 }))).await, [0, 10]);
    let [by_slow, _] = shares(&mesh, ["slow", "fast"], 10, within(json!({ "p50": 30, "p99": 30 }))).await;
    assert!(by_slow > 0, "all bounds hold, so the price decides");
    mesh.sim("fast").push_script("status=500".parse().expect("a script"));
    assert_eq!(served_by(&mesh, &within(json!(0.3))()).await, "slow");
    for provider in [json!({ "preferred_max_latency": 0.000_001 }), json!({ "preferred_min_throughput": 1e9 })] {
        served_by(&mesh, &asking(&provider)).await;
    }
}

#[tokio::test]
async fn a_highest_price_is_a_hard_limit() {
    let mesh = simple().provider("a", costs("2")).provider("b", costs("4")).start().await;
    for _ in 0..10 {
        assert_eq!(served_by(&mesh, &asking(&json!({ "max_price": { "prompt": 3, "completion": "2.5" } }))).await, "a");
    }
    mesh.sim("a").push_script("status=500".parse().expect("a script"));
    assert_eq!(mesh.post(CHAT, &asking(&json!({ "max_price": { "prompt": 3 } }))).await.status, 503, "not even as a fallback");
    assert_eq!(mesh.post(CHAT, &asking(&json!({ "max_price": { "prompt": 1 } }))).await.status, 404);
    assert_eq!(mesh.hits("b"), 0);
}

#[tokio::test]
async fn a_base_slug_means_every_variant_and_a_tag_means_one() {
    let tagged = |tag: &'static str| move |p: &mut ProviderDraft| p.endpoint = Box::new(move |endpoint| tag.clone_into(&mut endpoint.tag));
    let mesh = simple()
        .provider("turbo", tagged("deep/turbo"))
        .provider("slow", tagged("deep/slow"))
        .provider("other", tagged("other"))
        .start()
        .await;
    let all = ["turbo", "slow", "other"];
    let [turbo, slow, other] = shares(&mesh, all, 30, || asking(&json!({ "only": ["Deep"] }))).await;
    assert!(turbo > 0 && slow > 0 && other == 0, "{turbo} {slow} {other}");
    assert_eq!(shares(&mesh, all, 10, || asking(&json!({ "only": ["deep/turbo"] }))).await, [10, 0, 0]);
    assert_eq!(shares(&mesh, all, 10, || asking(&json!({ "ignore": ["deep"] }))).await, [0, 0, 10]);
}

// What a request needs.

#[tokio::test]
async fn tools_go_to_those_who_know_them_and_are_left_out_if_nobody_does() {
    let without = |p: &mut ProviderDraft| p.endpoint = Box::new(|endpoint| endpoint.parameters = no("tools"));
    let mut request = chat("m", "what is the weather?");
    request["tools"] = json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }]);
    let mesh = simple().provider("a", without).provider("b", costs("50")).start().await;
    for _ in 0..10 {
        assert_eq!(served_by(&mesh, &request).await, "b");
    }
    let mesh = simple().provider("a", without).start().await;
    assert_eq!(served_by(&mesh, &request).await, "a");
    assert!(mesh.sim("a").last_request().expect("a request").json().get("tools").is_none());
}

#[tokio::test]
async fn a_request_goes_where_it_fits() {
    let mesh = simple()
        .provider("small", |p| p.endpoint = Box::new(|endpoint| (endpoint.max_output, endpoint.context_length) = (Some(50), 2_000)))
        .provider("large", costs("50"))
        .start()
        .await;
    assert_eq!(served_by(&mesh, &plain()).await, "small");
    let mut request = plain();
    request["max_tokens"] = json!(51);
    assert_eq!(served_by(&mesh, &request).await, "large");
    assert_eq!(served_by(&mesh, &chat("m", &"tide ".repeat(3_000))).await, "large");
    let mut tight = chat("m", &"tide ".repeat(1_255));
    tight["max_tokens"] = json!(50);
    assert_eq!(served_by(&mesh, &tight).await, "large", "prompt and answer together do not fit");
}

#[tokio::test]
async fn pictures_go_to_those_who_see() {
    let mesh = simple()
        .provider("blind", |p| p.endpoint = Box::new(|endpoint| endpoint.inputs = tidegate_routing::ModalitySet::TEXT))
        .provider("seeing", costs("50"))
        .start()
        .await;
    let mut request = chat("m", "what is this?");
    request["messages"][0]["content"] =
        json!([{ "type": "text", "text": "what?" }, { "type": "image_url", "image_url": { "url": "https://x.example/a.png" } }]);
    assert_eq!(served_by(&mesh, &request).await, "seeing");
}

// Several models.

#[tokio::test]
async fn any_error_of_a_model_moves_on_and_the_answer_names_the_one_that_served() {
    let canned = Canned::start("400 Bad Request", "{}").await;
    let mesh = topology()
        .model("n")
        .provider("a", |p| {
            p.models = vec!["m".to_owned()];
            p.served_by(&canned);
        })
        .provider("b", |p| p.models = vec!["n".to_owned()])
        .start()
        .await;
    let mut request = plain();
    request["models"] = json!(["n"]);
    for (status, code) in [
        ("400 Bad Request", "context_length_exceeded"),
        ("400 Bad Request", "content_policy_violation"),
        ("429 Too Many Requests", "rate_limit_exceeded"),
        ("500 Internal Server Error", "server_error"),
        ("404 Not Found", "model_not_found"),
    ] {
        canned.set(status, "", &json!({ "error": { "message": "no", "code": code } }).to_string());
        let answer = mesh.caller().with_header("x-tidegate-metadata", "enabled").post(CHAT, &request).await;
        assert_eq!((answer.status, &answer.json()["model"]), (200, &json!("n")), "{code}: {}", answer.text());
        assert_eq!(answer.json()["tidegate_metadata"]["strategy"], "fallback");
    }
}

#[tokio::test]
async fn when_all_models_fail_the_last_error_is_told() {
    let rejecting =
        Canned::start("400 Bad Request", &json!({ "error": { "message": "first", "code": "context_length_exceeded" } }).to_string()).await;
    let refusing = Canned::start("422 Unprocessable Entity", &json!({ "error": { "message": "second" } }).to_string()).await;
    let mesh = topology()
        .model("n")
        .provider("a", |p| {
            p.models = vec!["m".to_owned()];
            p.served_by(&rejecting);
        })
        .provider("b", |p| {
            p.models = vec!["n".to_owned()];
            p.served_by(&refusing);
        })
        .start()
        .await;
    let mut request = plain();
    request["models"] = json!(["n"]);
    let answer = mesh.post(CHAT, &request).await;
    assert_eq!((answer.status, answer.error_type().as_str()), (422, "unprocessable"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["metadata"]["previous_errors"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn every_model_of_the_list_gets_its_chance() {
    let mesh = topology().model("n").provider("a", |_| {}).provider("b", |_| {}).provider("c", |_| {}).start().await;
    for slug in ["a", "b", "c"] {
        mesh.sim(slug).set_models(vec!["up-n".to_owned()]);
    }
    let mut request = plain();
    request["models"] = json!(["n"]);
    let answer = mesh.post(CHAT, &request).await;
    assert_eq!((answer.status, &answer.json()["model"]), (200, &json!("n")), "{}", answer.text());
}

// Service tiers.

fn tiers() -> Topology {
    let tier = |tier: Tier, price: &'static str, tag: &'static str| {
        move |p: &mut ProviderDraft| {
            price.clone_into(&mut p.price);
            p.endpoint = Box::new(move |endpoint| {
                endpoint.tier = tier;
                tag.clone_into(&mut endpoint.tag);
            });
        }
    };
    simple()
        .provider("usual", tier(Tier::Default, "2", "p"))
        .provider("priority", tier(Tier::Priority, "4", "p/priority"))
        .provider("flex", tier(Tier::Flex, "1", "p/flex"))
}

const TIERS: [&str; 3] = ["usual", "priority", "flex"];

fn tiered(tier: &str) -> Value {
    let mut request = plain();
    request["service_tier"] = json!(tier);
    request
}

#[tokio::test]
async fn nobody_gets_a_tier_without_asking() {
    let mesh = tiers().start().await;
    assert_eq!(shares(&mesh, TIERS, 50, plain).await, [50, 0, 0]);
    assert_eq!(shares(&mesh, TIERS, 10, || tiered("default")).await, [10, 0, 0]);
    assert_eq!(shares(&mesh, TIERS, 10, || asking(&json!({ "only": ["p"] }))).await, [10, 0, 0]);
    assert_eq!(shares(&mesh, TIERS, 5, || asking(&json!({ "only": ["p/flex"] }))).await, [0, 0, 5]);
    assert_eq!(shares(&mesh, TIERS, 5, || asking(&json!({ "order": ["p/priority"] }))).await, [0, 5, 0]);
}

#[tokio::test]
async fn priority_goes_first_falls_back_and_bills_what_served() {
    let mesh = tiers().start().await;
    for tier in ["priority", "fast"] {
        assert_eq!(served_by(&mesh, &tiered(tier)).await, "priority");
    }
    down(&mesh, "priority", 503);
    let answer = mesh.post(CHAT, &tiered("priority")).await;
    let body = answer.json();
    assert_eq!(body["provider"], "USUAL");
    let tokens = body["usage"]["total_tokens"].as_u64().expect("tokens");
    assert_eq!(body["usage"]["cost"], json!(2.0 * tokens as f64 / 1e6), "{}", body["usage"]);
    assert_eq!(mesh.hits("flex"), 0);
}

#[tokio::test]
async fn flex_never_falls_back() {
    let mesh = tiers().start().await;
    assert_eq!(shares(&mesh, TIERS, 5, || tiered("flex")).await, [0, 0, 5]);
    down(&mesh, "flex", 429);
    let answer = mesh.post(CHAT, &tiered("flex")).await;
    assert_eq!((answer.status, mesh.hits("usual"), mesh.hits("priority")), (429, 0, 0), "{}", answer.text());
    // Where there is no flex tier the request is an ordinary one.
    let mesh = simple().provider("usual", |_| {}).start().await;
    assert_eq!(served_by(&mesh, &tiered("flex")).await, "usual");
}

#[tokio::test]
async fn variants_admit_the_tier_that_suits_them() {
    let mesh = tiers().start().await;
    for _ in 0..5 {
        assert_eq!(served_by(&mesh, &chat("m:floor", "hello")).await, "flex");
    }
    down(&mesh, "flex", 500);
    assert_eq!(served_by(&mesh, &chat("m:floor", "hello")).await, "usual", "the next cheapest");
    up(&mesh, "flex");
    let mut declined = chat("m:floor", "hello");
    declined["service_tier"] = json!("default");
    assert_eq!(served_by(&mesh, &declined).await, "usual");
    let before = mesh.hits("flex");
    for _ in 0..5 {
        assert_ne!(served_by(&mesh, &chat("m:nitro", "hello")).await, "flex");
    }
    assert_eq!(mesh.hits("flex"), before);
}

// Accounts and rate limits.

fn accounts(list: &'static [(&'static str, u32)]) -> impl FnOnce(&mut ProviderDraft) {
    move |p| {
        p.provider = Box::new(move |provider| {
            let account = |(name, weight): &(&str, u32)| CredentialConfig {
                name: (*name).to_owned(),
                weight: *weight,
                secret: Some(SecretString::from(format!("secret-{name}"))),
                own_key: false,
            };
            provider.credentials = list.iter().map(account).collect();
        });
    }
}

/// The accounts that a provider was asked with, oldest first.
fn asked_with(mesh: &Mesh, slug: &str) -> Vec<String> {
    let header = |request: &tidegate_provider_sim::RecordedRequest| {
        let value = request.headers.get("authorization").and_then(|value| value.to_str().ok());
        value.and_then(|value| value.strip_prefix("Bearer secret-")).expect("a key of ours").to_owned()
    };
    mesh.sim(slug).requests().iter().map(header).collect()
}

#[tokio::test]
async fn accounts_share_the_load_by_weight() {
    let mesh = topology().provider("a", accounts(&[("big", 3), ("small", 1)])).start().await;
    assert_eq!(shares(&mesh, ["a"], 200, plain).await, [200]);
    let big = asked_with(&mesh, "a").iter().filter(|name| *name == "big").count();
    // 150 expected, five standard deviations are 31.
    assert!((119..=181).contains(&big), "{big}");
}

#[tokio::test]
async fn trouble_with_one_account_is_solved_by_another() {
    for (status, stays) in [(401, "until it is replaced"), (402, "until it is paid"), (429, "for a moment")] {
        let mesh = topology().provider("a", accounts(&[("one", 1), ("two", 1)])).provider("b", |_| {}).start().await;
        mesh.sim("a").push_script(format!("status={status}; retry-after=20").parse().expect("a script"));
        let only = asking(&json!({ "only": ["a"] }));
        assert_eq!(shares(&mesh, ["a"], 12, || only.clone()).await, [12], "{status}");
        let asked = asked_with(&mesh, "a");
        assert_eq!(asked.len(), 13, "{status}: one failure, made good at once");
        assert!(asked[1..].iter().all(|name| *name != asked[0]), "{status}: blocked {stays}: {asked:?}");
        assert_eq!(mesh.hits("b"), 0, "the endpoint is well");
    }
}

#[tokio::test]
async fn a_rejected_key_costs_one_attempt_and_no_reputation() {
    let mesh = topology().provider("a", accounts(&[("old", 1), ("new", 1)])).start().await;
    mesh.sim("a").set_keys(vec!["secret-new".to_owned()]);
    assert_eq!(shares(&mesh, ["a"], 20, plain).await, [20]);
    let stats = mesh.sim("a").stats();
    assert!(stats.by_status.get(&401).is_none_or(|refused| *refused == 1), "{stats:?}");
    let explained = explained(&mesh, &mesh.post(CHAT, &plain()).await).await;
    assert_eq!(explained["record"]["considered"][0]["failures"], 0.0);
}

#[tokio::test]
async fn a_provider_that_asks_for_a_pause_gets_it_and_no_longer() {
    let mesh = topology().with(|t| t.settings.jitter = 0.0).provider("a", costs("0.01")).provider("b", costs("9")).start().await;
    mesh.sim("a").push_script("status=429; retry-after=1".parse().expect("a script"));
    let request = || asking(&json!({ "sort": "price" }));
    let began = std::time::Instant::now();
    assert_eq!(served_by(&mesh, &request()).await, "b");
    let back = async { while served_by(&mesh, &request()).await != "a" {} };
    tokio::time::timeout(Duration::from_secs(10), back).await.expect("the provider is asked again");
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    assert_eq!(mesh.sim("a").stats().by_status.get(&429), Some(&1));
}

// Telling.

#[tokio::test]
async fn router_metadata_tells_the_way_under_both_names() {
    let mesh = topology().provider("a", costs("1")).provider("b", costs("2")).start().await;
    for (header, field) in [("x-tidegate-metadata", "tidegate_metadata"), ("x-openrouter-metadata", "openrouter_metadata")] {
        let caller = mesh.caller().with_header(header, "ENABLED");
        mesh.sim("a").push_script("status=500".parse().expect("a script"));
        let body = caller.post(CHAT, &asking(&json!({ "sort": "price" }))).await.json();
        let told = &body[field];
        assert_eq!((&told["requested"], &told["attempt"], &told["is_byok"]), (&json!("m"), &json!(2), &json!(false)), "{body}");
        assert_eq!((&told["strategy"], &told["region"]), (&json!("direct"), &json!("test")));
        assert_eq!(told["endpoints"]["total"], 2);
        let available = &told["endpoints"]["available"];
        assert_eq!(available[1], json!({ "provider": "B", "model": "m", "selected": true }));
        assert_eq!((&available[0]["provider"], &available[0]["selected"]), (&json!("A"), &json!(false)));
        let attempts = &told["attempts"];
        assert_eq!((&attempts[0]["provider"], &attempts[0]["status"]), (&json!("A"), &json!(500)));
        assert_eq!((&attempts[1]["provider"], &attempts[1]["status"]), (&json!("B"), &json!(200)));
        assert_eq!(told["pipeline"], json!([]));
    }
    let off = mesh.caller().with_header("x-openrouter-metadata", "yes please").post(CHAT, &plain()).await.json();
    assert!(off.get("openrouter_metadata").is_none(), "{off}");
}

#[tokio::test]
async fn every_decision_can_be_made_again_from_its_record() {
    let mesh = Topology::new()
        .with(|t| t.settings.retry_reserve = 1e6)
        .provider("a", costs("1"))
        .provider("b", costs("2"))
        .provider("c", costs("3"))
        .start()
        .await;
    mesh.sim("b").set_faults(vec![FaultRule::always(Fault::Status { status: 500, retry_after: None }).with_ratio(0.5)]);
    for (at, provider) in
        [json!({}), json!({ "sort": "price" }), json!({ "order": ["c"] }), json!({ "order": ["b"] })].iter().cycle().take(40).enumerate()
    {
        let answer = mesh.post(CHAT, &asking(provider)).await;
        let explained = explained(&mesh, &answer).await;
        assert_eq!(explained["reproducible"], true, "request {at}: {}", explained["text"].as_str().unwrap_or_default());
        assert_eq!(explained["generation"]["id"], answer.header("x-generation-id"));
    }
    let text = explained(&mesh, &mesh.post(CHAT, &plain()).await).await["text"].as_str().expect("a text").to_owned();
    assert!(["a/m", "b/m", "c/m"].iter().all(|endpoint| text.contains(endpoint)), "{text}");
    assert_eq!(mesh.operations().get("/explain/gen-unknown").await.status, 404);
}
