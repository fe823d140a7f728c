//! Errors as callers meet them (reference, checklist 7.3): shape, types, availability, and what they tell about waiting.

use http::Method;
use serde_json::{Value, json};
use tidegate_routing::{DataPolicy, ParameterSet, Quantization};
use tidegate_testkit::{Answer, Canned, KEY, Mesh, Topology, chat, key, raw};

const CHAT: &str = "/v1/chat/completions";

/// `error` of an answer that must be one, after a look at what holds for every error.
fn error_of(answer: &Answer) -> Value {
    assert!(answer.status >= 400, "not an error: {}", answer.text());
    let error = answer.json()["error"].clone();
    assert_eq!(error["code"], answer.status, "{error}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.header("x-generation-id").starts_with("gen-"), "{:?}", answer.headers);
    error
}

fn availability(answer: &Answer) -> Value {
    let availability = error_of(answer)["availability"].clone();
    assert!(availability["retryable"].is_boolean() && availability["requested_models"].is_array(), "{availability}");
    assert!(availability["docs_url"].is_string(), "{availability}");
    let empty = |value: &Value| value.is_null() || value == "" || value == &json!([]);
    let members = availability.as_object().expect("an object");
    assert!(!members.values().any(empty), "absent members are left out: {availability}");
    availability
}

fn patient(topology: Topology) -> Topology {
    // The budget for retries has its own test.
    topology.with(|t| t.settings.retry_reserve = 1e6)
}

async fn with_provider(body: &Value, mesh: &Mesh) -> Answer {
    let mut request = chat("m", "hello");
    request["provider"] = body.clone();
    mesh.post(CHAT, &request).await
}

#[tokio::test]
async fn callers_without_a_good_key_are_told_what_is_wrong_with_it() {
    let mesh = Topology::new()
        .provider("a", |_| {})
        .with(|t| {
            let mut disabled = key("disabled", "tg_disabled");
            disabled.disabled = true;
            let mut expired = key("expired", "tg_expired");
            expired.expires_at = Some(1_000_000_000);
            t.more_keys.extend([disabled, expired]);
        })
        .start()
        .await;
    for (given, word) in
        [(None, "No API key"), (Some("tg_wrong"), "not known"), (Some("tg_disabled"), "disabled"), (Some("tg_expired"), "expired")]
    {
        let keyless = mesh.caller().without_key();
        let caller = given.map_or(keyless.clone(), |key| keyless.with_key(key));
        let answer = caller.post(CHAT, &chat("m", "hello")).await;
        let error = error_of(&answer);
        assert_eq!((answer.status, answer.error_type().as_str()), (401, "authentication"));
        assert!(error["message"].as_str().is_some_and(|message| message.contains(word)), "{error}");
        assert_eq!(answer.header("x-should-retry"), "false");
    }
    assert_eq!(mesh.hits("a"), 0);
}

#[tokio::test]
async fn a_guesser_is_told_to_wait_and_a_good_caller_elsewhere_is_not() {
    let mesh = Topology::new().provider("a", |_| {}).with(|t| t.limits.auth_failures_per_minute = 3).start().await;
    let guesser = mesh.caller().without_key();
    for at in 0..3 {
        assert_eq!(guesser.clone().with_key(&format!("tg_guess_{at}")).get("/v1/key").await.status, 401);
    }
    let answer = guesser.with_key("tg_guess_4").get("/v1/key").await;
    assert_eq!((answer.status, answer.error_type().as_str()), (429, "rate_limit_exceeded"));
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), ("60", "60000"));
    error_of(&answer);
}

#[tokio::test]
async fn a_key_may_be_limited_to_models() {
    let mesh = Topology::new().model("n").provider("a", |_| {}).with(|t| t.key.allowed_models = vec!["n".to_owned()]).start().await;
    assert_eq!(mesh.post(CHAT, &chat("n", "hello")).await.status, 200);
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!((answer.status, answer.error_type().as_str()), (403, "permission_denied"));
    error_of(&answer);
}

#[tokio::test]
async fn bodies_that_are_no_requests_are_refused() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"model\":\"m\"}",
        "{\"model\":\"m\",\"messages\":[{}]",
        "\u{feff}{}",
        "{\"model\":\"m\",\"messages\":[1]}",
    ] {
        let answer = mesh.send(Method::POST, CHAT, body.into()).await;
        assert_eq!((answer.status, answer.error_type().as_str()), (400, "invalid_request"), "{body:?}: {}", answer.text());
        error_of(&answer);
    }
    assert_eq!(mesh.hits("a"), 0);
}

#[tokio::test]
async fn every_upstream_error_gets_its_type_and_status() {
    let canned = Canned::start("500 Internal Server Error", "{}").await;
    let mesh = patient(Topology::new().provider("a", |p| p.served_by(&canned))).start().await;
    let coded = |code: &str| json!({ "error": { "message": "no", "type": "invalid_request_error", "code": code } }).to_string();
    let said = |message: &str| json!({ "error": { "message": message, "type": "invalid_request_error", "code": null } }).to_string();
    let table = [
        ("400 Bad Request", coded("context_length_exceeded"), 400, "context_length_exceeded"),
        ("400 Bad Request", said("This model's maximum context length is 8192 tokens."), 400, "context_length_exceeded"),
        ("400 Bad Request", coded("string_above_max_length"), 400, "string_too_long"),
        ("400 Bad Request", said("max_tokens is too large: 99999."), 400, "max_tokens_exceeded"),
        ("400 Bad Request", coded("content_filter"), 400, "content_policy_violation"),
        ("400 Bad Request", coded("image_too_large"), 400, "image_too_large"),
        ("400 Bad Request", coded("image_too_small"), 400, "image_too_small"),
        ("400 Bad Request", coded("unsupported_image_format"), 400, "unsupported_image_format"),
        ("400 Bad Request", coded("failed_to_download_image"), 400, "image_download_failed"),
        ("400 Bad Request", coded("invalid_base64_image"), 400, "invalid_image"),
        ("400 Bad Request", said("temperature must be lower"), 400, "invalid_request"),
        ("400 Bad Request", "not even JSON".to_owned(), 400, "invalid_request"),
        ("404 Not Found", coded("model_not_found"), 404, "not_found"),
        ("412 Precondition Failed", said("no"), 412, "precondition_failed"),
        ("413 Content Too Large", said("too big"), 413, "payload_too_large"),
        ("422 Unprocessable Entity", json!({ "detail": [{ "msg": "bad", "type": "x" }] }).to_string(), 422, "unprocessable"),
        ("451 Unavailable For Legal Reasons", said("not there"), 451, "invalid_request"),
        ("500 Internal Server Error", json!({ "error": { "message": "boom" } }).to_string(), 503, "provider_overloaded"),
        ("503 Service Unavailable", String::new(), 503, "provider_overloaded"),
        ("504 Gateway Timeout", "<html>".to_owned(), 503, "provider_overloaded"),
        (
            "529 Overloaded",
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } }).to_string(),
            503,
            "provider_overloaded",
        ),
        ("200 OK", "{\"id\":\"x\",\"choices\":[{".to_owned(), 502, "provider_unavailable"),
        ("200 OK", json!({ "id": "x", "choices": [] }).to_string(), 502, "provider_unavailable"),
        ("200 OK", json!({ "error": { "message": "too many", "code": 429 } }).to_string(), 429, "rate_limit_exceeded"),
    ];
    for (status, body, expected, error_type) in table {
        canned.set(status, "", &body);
        let answer = mesh.post(CHAT, &chat("m", "hello")).await;
        error_of(&answer);
        assert_eq!((answer.status, answer.error_type().as_str()), (expected, error_type), "{status}: {body}: {}", answer.text());
    }
    canned.set("200 OK", "", &raw::completion("well again").to_string());
}

#[tokio::test]
async fn trouble_with_our_own_account_is_not_the_callers() {
    for (status, body) in [
        ("401 Unauthorized", json!({ "error": { "message": "Incorrect API key provided: sk-live-123456", "code": "invalid_api_key" } })),
        ("402 Payment Required", json!({ "error": { "message": "Insufficient Balance", "code": "insufficient_balance" } })),
        ("429 Too Many Requests", json!({ "error": { "message": "You exceeded your current quota", "code": "insufficient_quota" } })),
        ("403 Forbidden", json!({ "error": { "message": "no access", "type": "permission_error" } })),
    ] {
        let canned = Canned::start(status, &body.to_string()).await;
        let mesh = patient(Topology::new().provider("a", |p| p.served_by(&canned))).start().await;
        let answer = mesh.post(CHAT, &chat("m", "hello")).await;
        error_of(&answer);
        assert_eq!((answer.status, answer.error_type().as_str()), (502, "provider_unavailable"), "{status}: {}", answer.text());
        assert!(!answer.text().contains("sk-live") && !answer.text().contains("Balance"), "{}", answer.text());
        assert_eq!(answer.header("x-should-retry"), "false");
    }
}

#[tokio::test]
async fn an_unknown_model_is_named_with_its_neighbours() {
    let mesh = Topology::new().model("house/large").provider("a", |_| {}).start().await;
    let answer = mesh.post(CHAT, &chat("house/lrge", "hello")).await;
    let availability = availability(&answer);
    assert_eq!((answer.status, answer.error_type().as_str()), (400, "invalid_request"));
    assert_eq!((&availability["code"], &availability["retryable"]), (&json!("model_not_found"), &json!(false)));
    assert_eq!(availability["requested_models"], json!(["house/lrge"]));
    let docs = mesh.caller().without_key().get(availability["docs_url"].as_str().expect("a path")).await;
    assert!(docs.status == 200 && docs.text().contains("model_not_found"), "the edge itself explains its errors");
    let close = mesh.post(CHAT, &chat("house/larg", "hello")).await;
    assert_eq!(close.json()["error"]["availability"]["fallback_models"], json!(["house/large"]));
    let stranger = mesh.post(CHAT, &chat("zzz", "hello")).await;
    assert!(stranger.json()["error"]["availability"].get("fallback_models").is_none());
}

#[tokio::test]
async fn a_retired_model_names_its_successor() {
    let mesh =
        Topology::new().model("n").change_model("m", |model| model.successor = Some("n".to_owned())).provider("a", |_| {}).start().await;
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    let availability = availability(&answer);
    assert_eq!((answer.status, answer.error_type().as_str()), (404, "not_found"));
    assert_eq!((&availability["code"], &availability["fallback_models"]), (&json!("model_deprecated"), &json!(["n"])));
}

#[tokio::test]
async fn a_model_that_nobody_serves_has_no_endpoints() {
    let mesh = Topology::new().model("n").provider("a", |p| p.models = vec!["m".to_owned()]).start().await;
    let answer = mesh.post(CHAT, &chat("n", "hello")).await;
    assert_eq!((answer.status, &availability(&answer)["code"]), (404, &json!("no_endpoints")));
    let answer = with_provider(&json!({ "only": ["nobody"] }), &mesh).await;
    let availability = availability(&answer);
    assert_eq!((&availability["code"], &availability["excluded_by"]), (&json!("no_endpoints"), &json!(["allowed_providers"])));
    assert_eq!(availability["constraint"]["field"], "provider.only");
}

#[tokio::test]
async fn the_filter_that_left_nothing_is_named() {
    let mesh = Topology::new()
        .provider("a", |p| {
            p.price = "2".to_owned();
            p.endpoint = Box::new(|endpoint| {
                endpoint.data = DataPolicy { trains: true, retains: true };
                endpoint.quantization = Quantization::Fp8;
                endpoint.context_length = 2_000;
                endpoint.max_output = Some(500);
                endpoint.parameters = ParameterSet::all().missing_from(ParameterSet::from_name("seed").expect("a parameter"));
            });
        })
        .start()
        .await;
    for (provider, code, excluded_by, field) in [
        (json!({ "zdr": true }), "privacy_restricted", "data_policy:zdr", "provider.zdr"),
        (json!({ "data_collection": "deny" }), "privacy_restricted", "data_policy:training", "provider.data_collection"),
        (json!({ "enforce_distillable_text": true }), "privacy_restricted", "data_policy:training", "provider.enforce_distillable_text"),
        (json!({ "max_price": { "prompt": 1 } }), "constraint_filtered", "max_price", "provider.max_price"),
        (json!({ "quantizations": ["bf16"] }), "constraint_filtered", "quantization", "provider.quantizations"),
        (json!({ "require_parameters": true }), "constraint_filtered", "require_parameters", "provider.require_parameters"),
        (json!({ "ignore": ["a"] }), "no_endpoints", "allowed_providers", "provider.ignore"),
    ] {
        let mut request = chat("m", "hello");
        request["provider"] = provider.clone();
        request["seed"] = json!(1);
        let answer = mesh.post(CHAT, &request).await;
        let availability = availability(&answer);
        assert_eq!((answer.status, answer.error_type().as_str()), (404, "not_found"), "{provider}");
        assert_eq!((&availability["code"], &availability["excluded_by"]), (&json!(code), &json!([excluded_by])), "{provider}");
        assert_eq!(availability["constraint"]["field"], field, "{provider}");
        assert_eq!((&availability["retryable"], answer.header("x-should-retry")), (&json!(false), "false"));
    }
    for (name, value, field) in
        [("max_tokens", json!(501), "max_tokens"), ("messages", json!([{ "role": "user", "content": "tide ".repeat(4_000) }]), "messages")]
    {
        let mut request = chat("m", "hello");
        request[name] = value;
        let availability = availability(&mesh.post(CHAT, &request).await);
        assert_eq!(
            (&availability["code"], &availability["excluded_by"]),
            (&json!("constraint_filtered"), &json!(["context_length"])),
            "{name}"
        );
        assert_eq!(availability["constraint"]["field"], field);
    }
    assert_eq!(mesh.hits("a"), 0);
}

#[tokio::test]
async fn a_model_that_every_provider_forgot_is_unavailable_upstream() {
    let mesh = patient(Topology::new().provider("a", |_| {}).provider("b", |_| {})).start().await;
    for slug in ["a", "b"] {
        mesh.sim(slug).set_models(vec!["another".to_owned()]);
    }
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    let availability = availability(&answer);
    assert_eq!((answer.status, answer.error_type().as_str()), (404, "not_found"));
    assert_eq!(availability["code"], "model_unavailable_upstream");
    assert_eq!(availability["affected_providers"].as_array().map(Vec::len), Some(2));
    assert_eq!((mesh.hits("a"), mesh.hits("b")), (1, 1));
}

#[tokio::test]
async fn the_shortest_wait_is_told_in_body_and_headers() {
    let mesh = patient(Topology::new().provider("a", |_| {}).provider("b", |_| {})).start().await;
    mesh.sim("a").push_script("status=429; retry-after=40".parse().expect("a script"));
    mesh.sim("b").push_script("status=429; retry-after=10".parse().expect("a script"));
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    let availability = availability(&answer);
    assert_eq!((answer.status, answer.error_type().as_str()), (429, "rate_limit_exceeded"));
    assert_eq!((&availability["code"], &availability["retryable"]), (&json!("capacity_exhausted"), &json!(true)));
    assert_eq!(availability["requested_models"], json!(["m"]));
    assert_eq!((&availability["retry_after"], &answer.json()["error"]["metadata"]["retry_after"]), (&json!(10), &json!(10)));
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), ("10", "10000"));
    assert_eq!(answer.header("x-should-retry"), "", "waiting helps");

    // Both are blocked now: nobody is asked, and the answer is of the same kind.
    let again = mesh.post(CHAT, &chat("m", "hello")).await;
    let blocked = availability_of_blocked(&again);
    assert_eq!((again.status, again.error_type().as_str()), (429, "rate_limit_exceeded"));
    assert_eq!(blocked["code"], "capacity_exhausted");
    assert!((1..=12).contains(&blocked["retry_after"].as_u64().expect("a wait")), "{blocked}");
    assert_eq!((mesh.hits("a"), mesh.hits("b")), (1, 1));
}

fn availability_of_blocked(answer: &Answer) -> Value {
    let wait = answer.header("retry-after").parse::<u64>().expect("a wait in seconds");
    let availability = availability(answer);
    assert_eq!(availability["retry_after"], wait);
    availability
}

#[tokio::test]
async fn a_long_wait_is_capped_at_a_minute_because_clients_obey_blindly() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    mesh.sim("a").push_script("status=429; retry-after=300".parse().expect("a script"));
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), ("60", "60000"));
}

#[tokio::test]
async fn outages_everywhere_are_temporary() {
    let mesh = patient(Topology::new().model("n").provider("a", |_| {}).provider("b", |p| p.models = vec!["m".to_owned()])).start().await;
    for slug in ["a", "b"] {
        mesh.sim(slug).set_fault(Some(tidegate_provider_sim::Fault::Status { status: 500, retry_after: None }));
    }
    let mut request = chat("m", "hello");
    request["models"] = json!(["n"]);
    let answer = mesh.post(CHAT, &request).await;
    let availability = availability(&answer);
    assert_eq!((answer.status, answer.error_type().as_str()), (503, "provider_overloaded"));
    assert_eq!((&availability["code"], &availability["retryable"]), (&json!("temporarily_unavailable"), &json!(true)));
    assert_eq!(availability["requested_models"], json!(["m", "n"]));
    assert_eq!(answer.header("x-should-retry"), "false", "our own attempts are spent");
}

#[tokio::test]
async fn a_dead_port_is_an_outage_too() {
    let mesh = patient(Topology::new().provider("a", |p| {
        // Nothing listens on port 1 of a machine that runs tests.
        p.provider = Box::new(|provider| provider.info.base_url = "http://127.0.0.1:1/v1".into());
    }))
    .start()
    .await;
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!((answer.status, &availability(&answer)["code"]), (503, &json!("temporarily_unavailable")));
    assert_eq!(answer.json()["error"]["metadata"]["previous_errors"][0]["code"], "connect");
}

#[tokio::test]
async fn previous_errors_say_who_and_what_without_the_providers_words() {
    let secret = "db-17.internal: the password is swordfish";
    let canned =
        Canned::start("500 Internal Server Error", &json!({ "error": { "message": secret, "code": "exploded" } }).to_string()).await;
    let mesh = patient(Topology::new().provider("a", |_| {}).provider("b", |p| p.served_by(&canned)).with(|t| {
        let mut curious = key("curious", "tg_curious");
        curious.raw_errors = true;
        t.more_keys.push(curious);
    }))
    .start()
    .await;
    mesh.sim("a").set_fault(Some(tidegate_provider_sim::Fault::Status { status: 429, retry_after: None }));
    let mut request = chat("m", "hello");
    request["provider"] = json!({ "order": ["a", "b"] });
    let answer = mesh.post(CHAT, &request).await;
    let error = error_of(&answer);
    assert_eq!((answer.status, answer.error_type().as_str()), (502, "provider_unavailable"));
    let expected = json!([
        { "provider": "A", "code": "rate_limit_exceeded", "status": 429 },
        { "provider": "B", "code": "exploded", "status": 500 },
    ]);
    assert_eq!(error["metadata"]["previous_errors"], expected);
    assert_eq!(error["metadata"]["provider_name"], "B");
    assert!(!answer.text().contains("swordfish"), "{}", answer.text());

    let mut request = chat("m", "hello");
    request["provider"] = json!({ "only": ["b"] });
    let shown = mesh.caller().with_key("tg_curious").post(CHAT, &request).await;
    let error = error_of(&shown);
    assert!(error["metadata"]["raw"].as_str().is_some_and(|raw| raw.contains("swordfish")), "{error}");
    assert!(!error["message"].as_str().is_some_and(|message| message.contains("swordfish")), "{error}");
    assert!(!shown.text().contains(KEY));
}

#[tokio::test]
async fn a_rejected_request_is_explained_in_the_providers_words() {
    let body = json!({ "error": { "message": "Invalid value for 'logit_bias'.", "type": "invalid_request_error", "param": "logit_bias", "code": null } });
    let canned = Canned::start("400 Bad Request", &body.to_string()).await;
    let mesh = patient(Topology::new().provider("a", |p| p.served_by(&canned)).provider("b", |p| p.served_by(&canned))).start().await;
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    let error = error_of(&answer);
    assert_eq!(answer.status, 400);
    assert!(error["message"].as_str().is_some_and(|message| message.contains("logit_bias")), "{error}");
    assert_eq!(canned.hits(), 1, "another provider would say the same");
    assert_eq!(answer.header("x-should-retry"), "false");
}

#[tokio::test]
async fn router_metadata_is_a_sibling_of_the_error_when_asked_for() {
    let mesh = patient(Topology::new().provider("a", |_| {})).start().await;
    mesh.sim("a").push_script("status=500".parse().expect("a script"));
    let curious = mesh.caller().with_header("x-openrouter-metadata", "Enabled");
    let failed = curious.post(CHAT, &chat("m", "hello")).await.json();
    assert_eq!((&failed["error"]["code"], &failed["openrouter_metadata"]["attempt"]), (&json!(503), &json!(0)));
    assert_eq!(failed["openrouter_metadata"]["attempts"][0]["status"], 500);

    let mut request = chat("m", "hello");
    request["provider"] = json!({ "only": ["nobody"] });
    let refused = curious.post(CHAT, &request).await.json();
    assert_eq!((&refused["error"]["code"], &refused["openrouter_metadata"]["attempt"]), (&json!(404), &json!(0)));
    assert_eq!(refused["openrouter_metadata"]["requested"], "m");
    assert_eq!(refused["openrouter_metadata"]["attempts"], json!([]));

    let plain = mesh.post(CHAT, &request).await.json();
    assert!(plain.get("openrouter_metadata").is_none() && plain.get("tidegate_metadata").is_none(), "{plain}");
}

#[tokio::test]
async fn a_spent_retry_budget_is_said_and_nobody_else_is_asked() {
    let mesh = Topology::new()
        .provider("a", |_| {})
        .provider("b", |_| {})
        .with(|t| (t.settings.retry_reserve, t.settings.retry_share) = (0.0, 0.0))
        .start()
        .await;
    mesh.sim("a").set_fault(Some(tidegate_provider_sim::Fault::Status { status: 500, retry_after: None }));
    let mut request = chat("m", "hello");
    request["provider"] = json!({ "order": ["a"] });
    let answer = mesh.post(CHAT, &request).await;
    assert_eq!((answer.status, answer.header("x-tidegate-retry")), (503, "budget"));
    assert_eq!(mesh.hits("b"), 0);
}
