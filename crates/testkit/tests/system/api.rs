//! The API as callers meet it (reference, checklist 7.1): requests in, answers out, and the catalogue around them.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use tidegate_edge::config::PresetConfig;
use tidegate_ledger::Rate;
use tidegate_routing::{DataPolicy, ModalitySet, ParameterSet};
use tidegate_testkit::{Answer, Canned, Event, KEY, Mesh, Topology, chat, key, raw, stream};

const CHAT: &str = "/v1/chat/completions";

fn without(parameter: &str) -> ParameterSet {
    ParameterSet::all().missing_from(ParameterSet::from_name(parameter).expect("a known parameter"))
}

/// The body that the provider got last.
fn upstream_body(mesh: &Mesh, slug: &str) -> Value {
    mesh.sim(slug).last_request().expect("the provider was asked").json()
}

fn ids(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    body["data"].as_array().expect("a list").iter().map(|model| model["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn a_json_answer_has_every_documented_member() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let body = answer.json();
    assert_eq!(body["object"], "chat.completion");
    assert!(body["created"].as_u64().is_some_and(|created| created > 1_700_000_000), "{body}");
    assert_eq!(body["model"], "m");
    assert_eq!(body["provider"], "A");
    assert_eq!(body["service_tier"], "default");
    let choice = &body["choices"][0];
    assert_eq!((choice["index"].as_u64(), choice["finish_reason"].as_str()), (Some(0), Some("stop")));
    assert_eq!(choice["native_finish_reason"], "stop");
    assert_eq!(choice["message"]["role"], "assistant");
    assert!(choice["message"]["content"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    let usage = &body["usage"];
    let count = |name: &str| usage[name].as_u64().expect("a count of tokens");
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    assert!(usage["prompt_tokens_details"]["cached_tokens"].is_u64(), "{usage}");
    assert!(usage["completion_tokens_details"]["reasoning_tokens"].is_u64(), "{usage}");
    assert_eq!(usage["is_byok"], false);
    assert!(usage["cost_details"]["upstream_inference_cost"].is_number(), "{usage}");
}

#[tokio::test]
async fn cost_is_exact_to_the_last_decimal() {
    let mesh = Topology::new()
        .provider("a", |p| {
            p.endpoint = Box::new(|endpoint| {
                endpoint.prices.prompt = Rate::per_million_usd("0.137").expect("a price");
                endpoint.prices.completion = Rate::per_million_usd("0.571").expect("a price");
                endpoint.prices.request = Rate::per_unit_usd("0.0003").expect("a price");
            });
        })
        .start()
        .await;
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    let usage = &answer.json()["usage"];
    let (prompt, completion) = (usage["prompt_tokens"].as_u64().expect("a count"), usage["completion_tokens"].as_u64().expect("a count"));
    // In units of 10⁻⁹ dollars.
    let expected = 137 * prompt + 571 * completion + 300_000;
    let digits = format!("{expected:09}");
    let expected = format!("\"cost\":0.{}", digits.trim_end_matches('0'));
    assert!(answer.text().contains(&expected), "{expected} in {usage}");
}

#[tokio::test]
async fn both_prefixes_and_unknown_query_parameters_answer() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    for path in [CHAT, "/api/v1/chat/completions", "/v1/chat/completions?beta=true&x=%00", "/v1/chat/completions?"] {
        assert_eq!(mesh.post(path, &chat("m", "hello")).await.status, 200, "{path}");
    }
    for path in ["/v1/models", "/api/v1/models", "/v1/models?whatever=1&use_rss=x"] {
        assert_eq!(mesh.get(path).await.status, 200, "{path}");
    }
    let elsewhere = mesh.get("/v2/models").await;
    assert_eq!((elsewhere.status, elsewhere.error_type().as_str()), (404, "not_found"));
    let wrong = mesh.get(CHAT).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST, OPTIONS"));
}

#[tokio::test]
async fn a_sign_of_life_needs_no_key() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let stranger = mesh.caller().without_key();
    assert_eq!(stranger.get("/").await.status, 200);
    let head = stranger.send(Method::HEAD, "/", Default::default()).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for path in ["/openapi.json", "/v1/models", "/v1/providers", "/v1/models/m/x/endpoints"] {
        assert_ne!(stranger.get(path).await.status, 401, "{path} is public");
    }
    for path in ["/v1/key", "/v1/generation?id=gen-1"] {
        assert_eq!(stranger.get(path).await.status, 401, "{path} is not");
    }
}

#[tokio::test]
async fn a_key_is_taken_from_either_header() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let keyless = mesh.caller().without_key();
    assert_eq!(keyless.post(CHAT, &chat("m", "hello")).await.status, 401);
    for (name, value) in [("x-api-key", KEY.to_owned()), ("authorization", format!("bearer {KEY}"))] {
        let answer = keyless.clone().with_header(name, &value).post(CHAT, &chat("m", "hello")).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    let seen = mesh.sim("a").last_request().expect("the provider was asked");
    assert_eq!(seen.headers.get("authorization").map(http::HeaderValue::as_bytes), Some(&b"Bearer upstream-secret"[..]));
    assert!(seen.headers.values().all(|value| value.to_str().is_ok_and(|text| !text.contains(KEY))), "our callers' keys stay here");
}

#[tokio::test]
async fn the_bytes_of_a_request_survive_but_for_the_models_name() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let body = concat!(
        "{ \"model\" :\"m\",\n\t\"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9llo \\/ \\ud83c\\udf0a\",\"x-part\":[1.0e+2,{}]}],",
        " \"future\":{\"big\":123456789012345678901234567890,\"price\":2.50,\"none\":null}, \"top_k\":  40 }"
    );
    let answer = mesh.send(Method::POST, CHAT, body.into()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let arrived = mesh.sim("a").last_request().expect("the provider was asked").body;
    assert_eq!(String::from_utf8_lossy(&arrived), body.replace("\"m\"", "\"up-m\""));
}

#[tokio::test]
async fn unknown_members_of_an_answer_survive() {
    let mut completion = raw::completion("fine");
    completion["vendor_extension"] = json!({ "kept": [1, 2] });
    completion["choices"][0]["message"]["annotations"] = json!([{ "type": "url_citation" }]);
    let canned = Canned::start("200 OK", &completion.to_string()).await;
    let mesh = Topology::new().provider("a", |p| p.served_by(&canned)).start().await;
    let body = mesh.post(CHAT, &chat("m", "hello")).await.json();
    assert_eq!(body["vendor_extension"], json!({ "kept": [1, 2] }));
    assert_eq!(body["choices"][0]["message"]["annotations"], json!([{ "type": "url_citation" }]));
    assert_eq!(body["model"], "m", "the upstream's own name stays hidden");
}

#[tokio::test]
async fn nothing_is_injected_and_null_is_absent() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let mut request = chat("m", "hello");
    request["temperature"] = Value::Null;
    request["stop"] = Value::Null;
    request["tools"] = Value::Null;
    request["provider"] = Value::Null;
    request["seed"] = json!(7);
    let answer = mesh.post(CHAT, &request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = upstream_body(&mesh, "a");
    assert_eq!(body["seed"], 7);
    for name in ["temperature", "top_p", "top_k", "frequency_penalty", "stop", "tools", "max_tokens"] {
        assert!(body[name].is_null(), "{name}: {body}");
    }
}

#[tokio::test]
async fn what_only_the_gateway_understands_stays_here() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let mut request = chat("m", "hello");
    request["models"] = json!(["m"]);
    request["provider"] = json!({ "sort": "price" });
    request["route"] = json!("fallback");
    request["session_id"] = json!("s-1");
    request["trace"] = json!({ "trace_id": "t-1" });
    request["usage"] = json!({ "include": true });
    assert_eq!(mesh.post(CHAT, &request).await.status, 200);
    let body = upstream_body(&mesh, "a");
    for name in ["models", "provider", "route", "session_id", "trace", "usage"] {
        assert!(body.get(name).is_none(), "{name} went upstream: {body}");
    }
}

#[tokio::test]
async fn values_out_of_range_are_refused_before_anyone_is_asked() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let pairs = |count: usize| -> Value { (0..count).map(|at| (format!("k{at}"), json!("v"))).collect::<serde_json::Map<_, _>>().into() };
    let wrong = [
        ("temperature", json!(2.1)),
        ("temperature", json!(-0.1)),
        ("temperature", json!("warm")),
        ("top_p", json!(1.5)),
        ("min_p", json!(-1)),
        ("top_a", json!(2)),
        ("top_k", json!(-1)),
        ("frequency_penalty", json!(2.5)),
        ("presence_penalty", json!(-2.5)),
        ("repetition_penalty", json!(3)),
        ("top_logprobs", json!(21)),
        ("max_tokens", json!(0)),
        ("max_completion_tokens", json!(1.5)),
        ("stop", json!(["a", "b", "c", "d", "e"])),
        ("metadata", pairs(17)),
        ("metadata", json!({ "k".repeat(65): "v" })),
        ("metadata", json!({ "k": "v".repeat(513) })),
        ("session_id", json!("s".repeat(257))),
        ("verbosity", json!("loud")),
        ("reasoning_effort", json!("lots")),
        ("route", json!("elsewhere")),
        ("stream", json!("yes")),
        ("tools", json!({})),
        ("response_format", json!("json")),
        ("messages", json!("hello")),
        ("messages", json!([])),
    ];
    for (name, value) in wrong {
        let mut request = chat("m", "hello");
        request[name] = value.clone();
        let answer = mesh.post(CHAT, &request).await;
        assert_eq!(answer.status, 400, "{name}: {value}: {}", answer.text());
        let error = &answer.json()["error"];
        assert!(error["message"].as_str().is_some_and(|message| message.contains(name)), "{name}: {error}");
        assert!(["invalid_request", "string_too_long"].contains(&answer.error_type().as_str()), "{name}: {error}");
    }
    let allowed = [
        ("temperature", json!(2)),
        ("top_logprobs", json!(20)),
        ("stop", json!(["a", "b", "c", "d"])),
        ("metadata", pairs(16)),
        ("metadata", json!({ "k".repeat(64): "v".repeat(512) })),
        ("session_id", json!("s".repeat(256))),
    ];
    assert_eq!(mesh.hits("a"), 0);
    for (name, value) in allowed {
        let mut request = chat("m", "hello");
        request[name] = value.clone();
        let answer = mesh.post(CHAT, &request).await;
        assert_eq!(answer.status, 200, "{name}: {value}: {}", answer.text());
    }
}

#[tokio::test]
async fn preferences_are_checked_field_by_field() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    for (provider, field) in [
        (json!({ "sort": "cheapness" }), "sort"),
        (json!({ "order": "a" }), "order"),
        (json!({ "order": ["a", 1] }), "order[1]"),
        (json!({ "max_price": { "prompt": "much" } }), "max_price.prompt"),
        (json!({ "quantizations": ["fp9"] }), "quantizations[0]"),
        (json!({ "zdr": "yes" }), "zdr"),
        (json!({ "data_collection": "maybe" }), "data_collection"),
        (json!([]), "provider"),
    ] {
        let mut request = chat("m", "hello");
        request["provider"] = provider.clone();
        let answer = mesh.post(CHAT, &request).await;
        assert_eq!(answer.status, 400, "{provider}: {}", answer.text());
        assert!(answer.json()["error"]["message"].as_str().is_some_and(|message| message.contains(field)), "{}", answer.text());
    }
    let mut request = chat("m", "hello");
    request["provider"] = json!({ "a_field_of_tomorrow": true, "order": null });
    assert_eq!(mesh.post(CHAT, &request).await.status, 200);
}

#[tokio::test]
async fn an_unsupported_parameter_is_dropped_unless_required() {
    let mesh = Topology::new().provider("a", |p| p.endpoint = Box::new(|endpoint| endpoint.parameters = without("seed"))).start().await;
    let mut request = chat("m", "hello");
    request["seed"] = json!(7);
    request["temperature"] = json!(0.5);
    assert_eq!(mesh.post(CHAT, &request).await.status, 200);
    let body = upstream_body(&mesh, "a");
    assert!(body.get("seed").is_none(), "{body}");
    assert_eq!(body["temperature"], 0.5);

    request["provider"] = json!({ "require_parameters": true });
    let answer = mesh.post(CHAT, &request).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert_eq!(answer.json()["error"]["availability"]["excluded_by"], json!(["require_parameters"]));
    assert_eq!(mesh.hits("a"), 1);
}

#[tokio::test]
async fn a_request_without_a_model_gets_the_default_or_a_400() {
    let mut nameless = chat("m", "hello");
    nameless.as_object_mut().expect("an object").remove("model");
    let mesh = Topology::new().provider("a", |_| {}).with(|t| t.defaults.model = Some("m".to_owned())).start().await;
    let answer = mesh.post(CHAT, &nameless).await;
    assert_eq!((answer.status, &answer.json()["model"]), (200, &json!("m")));

    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let answer = mesh.post(CHAT, &nameless).await;
    assert_eq!((answer.status, answer.error_type().as_str()), (400, "invalid_request"));
    assert_eq!(answer.json()["error"]["param"], "model");
}

#[tokio::test]
async fn an_alias_means_its_model() {
    let mesh =
        Topology::new().change_model("m", |model| model.aliases = vec!["~house/m-latest".to_owned()]).provider("a", |_| {}).start().await;
    let answer = mesh.post(CHAT, &chat("~house/m-latest", "hello")).await;
    assert_eq!((answer.status, &answer.json()["model"]), (200, &json!("m")));
}

#[tokio::test]
async fn a_trailing_assistant_message_goes_through_as_a_prefill() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let mut request = chat("m", "a poem");
    request["messages"].as_array_mut().expect("messages").push(json!({ "role": "assistant", "content": "The tide" }));
    assert_eq!(mesh.post(CHAT, &request).await.status, 200);
    assert_eq!(upstream_body(&mesh, "a")["messages"][1], json!({ "role": "assistant", "content": "The tide" }));
}

#[tokio::test]
async fn finish_reasons_are_normalised_and_the_native_word_is_kept() {
    let canned = Canned::start("200 OK", "{}").await;
    let mesh = Topology::new().provider("a", |p| p.served_by(&canned)).start().await;
    for (native, normal) in [("eos_token", "stop"), ("model_length", "length"), ("tool_use", "tool_calls"), ("SAFETY", "content_filter")] {
        let mut completion = raw::completion("fine");
        completion["choices"][0]["finish_reason"] = json!(native);
        canned.set("200 OK", "", &completion.to_string());
        let body = mesh.post(CHAT, &chat("m", "hello")).await.json();
        assert_eq!(body["choices"][0]["finish_reason"], normal, "{body}");
        assert_eq!(body["choices"][0]["native_finish_reason"], native, "{body}");
    }
}

#[tokio::test]
async fn thoughts_are_shown_unless_the_caller_does_not_want_them() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    for (reasoning, shown) in [(json!({ "effort": "low" }), true), (json!({ "effort": "low", "exclude": true }), false)] {
        let mut request = chat("m", "why is the tide late?");
        request["reasoning"] = reasoning;
        let message = mesh.post(CHAT, &request).await.json()["choices"][0]["message"].clone();
        assert_eq!(message["reasoning"].is_string(), shown, "{message}");
        assert_eq!(message["reasoning_details"].is_array(), shown, "{message}");
        request["stream"] = json!(true);
        let events = mesh.stream(CHAT, &request).await.collect().await;
        let streamed = events.iter().filter_map(Event::data).any(|chunk| chunk["choices"][0]["delta"]["reasoning"].is_string());
        assert_eq!(streamed, shown);
        assert!(!Event::text(&events).is_empty());
    }
}

#[tokio::test]
async fn a_preset_is_named_in_three_ways_and_the_request_wins() {
    let fields = json!({ "model": "m", "temperature": 0.25, "seed": 3, "system_prompt": "Answer like a sailor." });
    let mesh = Topology::new()
        .model("n")
        .provider("a", |_| {})
        .with(|t| t.presets.push(PresetConfig { slug: "mail".to_owned(), fields: fields.to_string() }))
        .start()
        .await;
    let mut by_field = chat("n", "hello");
    by_field["preset"] = json!("mail");
    for (request, model) in [(chat("@preset/mail", "hello"), "m"), (chat("n@preset/mail", "hello"), "n"), (by_field, "n")] {
        let mut request = request;
        request["seed"] = json!(9);
        let answer = mesh.post(CHAT, &request).await;
        assert_eq!((answer.status, &answer.json()["model"]), (200, &json!(model)), "{}", answer.text());
        let body = upstream_body(&mesh, "a");
        assert_eq!((&body["temperature"], &body["seed"]), (&json!(0.25), &json!(9)), "{body}");
        assert_eq!(body["messages"][0], json!({ "role": "system", "content": "Answer like a sailor." }));
        assert!(body.get("preset").is_none() && body.get("system_prompt").is_none(), "{body}");
        let id = answer.header("x-generation-id").to_owned();
        assert_eq!(mesh.generation(&id).await["preset_id"], "mail");
    }
    let unknown = mesh.post(CHAT, &chat("m@preset/none", "hello")).await;
    assert_eq!((unknown.status, unknown.error_type().as_str()), (400, "invalid_request"));
}

#[tokio::test]
async fn an_end_user_goes_upstream_as_a_hash_that_belongs_to_the_key() {
    let mesh = Topology::new().provider("a", |_| {}).with(|t| t.more_keys.push(key("other", "tg_other_key_of_the_test"))).start().await;
    let other = mesh.caller().with_key("tg_other_key_of_the_test");
    let mut seen = Vec::new();
    for (caller, user) in [(&*mesh, "alice"), (&*mesh, "alice"), (&*mesh, "bob"), (&other, "alice")] {
        let mut request = chat("m", "hello");
        request["user"] = json!(user);
        assert_eq!(caller.post(CHAT, &request).await.status, 200);
        let body = upstream_body(&mesh, "a");
        assert!(!body.to_string().contains(user), "{body}");
        seen.push(body["user"].as_str().expect("a hash").to_owned());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 3, "{seen:?}");
}

#[tokio::test]
async fn models_are_filtered_sorted_and_paged_on_demand() {
    let mesh = Topology::new()
        .model("house/small")
        .model("house/large")
        .model("other/eyes")
        .change_model("house/small", |model| (model.created, model.distillable) = (1_800_000_000, true))
        .change_model("other/eyes", |model| model.name = "Sharp Eyes".to_owned())
        .provider("cheap", |p| {
            p.models = vec!["house/small".to_owned()];
            p.price = "0.1".to_owned();
            p.endpoint = Box::new(|endpoint| {
                endpoint.parameters = without("tools");
                endpoint.inputs = ModalitySet::TEXT;
                endpoint.context_length = 8_000;
            });
        })
        .provider("dear", |p| {
            p.models = ["m", "house/large", "other/eyes"].map(str::to_owned).into();
            p.price = "5".to_owned();
            p.endpoint = Box::new(|endpoint| {
                endpoint.data = DataPolicy { trains: false, retains: endpoint.model != "m" };
                if endpoint.model != "other/eyes" {
                    endpoint.inputs = ModalitySet::TEXT;
                }
            });
        })
        .start()
        .await;
    for (query, expected) in [
        ("", vec!["m", "house/small", "house/large", "other/eyes"]),
        ("?q=HOUSE", vec!["house/small", "house/large"]),
        ("?q=sharp", vec!["other/eyes"]),
        ("?supported_parameters=tools,seed", vec!["m", "house/large", "other/eyes"]),
        ("?input_modalities=text,image", vec!["other/eyes"]),
        ("?output_modalities=all&model_authors=house", vec!["house/small", "house/large"]),
        ("?output_modalities=image", vec![]),
        ("?providers=cheap", vec!["house/small"]),
        ("?context=10000", vec!["m", "house/large", "other/eyes"]),
        ("?max_price=1", vec!["house/small"]),
        ("?min_price=1&model_authors=house", vec!["house/large"]),
        ("?zdr=true", vec!["m", "house/small"]),
        ("?distillable=true", vec!["house/small"]),
        ("?sort=newest&limit=1", vec!["house/small"]),
        ("?sort=pricing-low-to-high&limit=1", vec!["house/small"]),
        ("?sort=context-high-to-low&offset=3", vec!["house/small"]),
        ("?offset=1&limit=2", vec!["house/small", "house/large"]),
        ("?offset=9", vec![]),
    ] {
        let answer = mesh.get(&format!("/v1/models{query}")).await;
        assert_eq!(ids(&answer), expected, "{query}");
    }
    let page = mesh.get("/v1/models?offset=1&limit=2").await.json();
    assert_eq!(page["total_count"], 4);
    assert_eq!(page["links"]["next"], "/api/v1/models?offset=3&limit=2");
    assert!(mesh.get("/v1/models").await.json()["links"]["next"].is_null(), "paging is opt-in");
}

#[tokio::test]
async fn the_next_page_keeps_the_filters() {
    let mesh = Topology::new().model("house/a").model("house/b").provider("a", |_| {}).start().await;
    let page = mesh.get("/v1/models?q=house%2F&sort=newest&limit=1").await;
    assert_eq!(ids(&page), ["house/a"]);
    let next = page.json()["links"]["next"].as_str().expect("another page").to_owned();
    let page = mesh.get(&next).await;
    assert_eq!(ids(&page), ["house/b"], "{next}");
    assert!(page.json()["links"]["next"].is_null());
}

#[tokio::test]
async fn a_model_object_describes_its_endpoints_together() {
    let mesh = Topology::new()
        .provider("a", |p| p.endpoint = Box::new(|endpoint| endpoint.max_output = Some(4_000)))
        .provider("b", |p| {
            p.price = "0.5".to_owned();
            p.endpoint = Box::new(|endpoint| (endpoint.context_length, endpoint.parameters) = (200_000, without("seed")));
        })
        .start()
        .await;
    let model = &mesh.get("/v1/models").await.json()["data"][0];
    assert_eq!(model["pricing"]["prompt"], "0.0000005");
    assert_eq!(model["context_length"], 200_000);
    assert_eq!(model["top_provider"]["max_completion_tokens"], 4_000);
    assert!(model["supported_parameters"].as_array().is_some_and(|names| names.contains(&json!("seed"))), "{model}");
    assert_eq!(model["architecture"]["output_modalities"], json!(["text"]));
}

#[tokio::test]
async fn endpoints_show_prices_to_everyone_and_speeds_to_those_with_a_key() {
    let mesh = Topology::new()
        .model("house/large")
        .provider("a", |p| {
            p.models = vec!["house/large".to_owned()];
            p.price = "2".to_owned();
        })
        .start()
        .await;
    assert!(!mesh.stream(CHAT, &stream("house/large", "hello")).await.collect().await.is_empty());
    mesh.until_metric("tidegate_edge_requests_total", &[], |count| count >= 1.0).await;
    let path = "/v1/models/house/large/endpoints";
    let seen = mesh.get(path).await.json();
    let endpoint = &seen["data"]["endpoints"][0];
    assert_eq!(seen["data"]["id"], "house/large");
    assert_eq!((&endpoint["provider_name"], &endpoint["tag"]), (&json!("A"), &json!("a")));
    assert_eq!((&endpoint["pricing"]["prompt"], &endpoint["status"]), (&json!("0.000002"), &json!(0)));
    assert!(endpoint["uptime_last_5m"].is_null(), "one request says nothing about uptime");
    for percentile in ["p50", "p75", "p90", "p99"] {
        assert!(endpoint["latency_last_30m"][percentile].is_number(), "{endpoint}");
        assert!(endpoint["throughput_last_30m"][percentile].is_number(), "{endpoint}");
    }
    let public = mesh.caller().without_key().get(path).await.json();
    let endpoint = &public["data"]["endpoints"][0];
    assert_eq!(endpoint["pricing"]["prompt"], "0.000002");
    assert!(endpoint["latency_last_30m"].is_null() && endpoint["throughput_last_30m"].is_null(), "{endpoint}");
    let unknown = mesh.get("/v1/models/house/none/endpoints").await;
    assert_eq!(unknown.json()["error"]["availability"]["code"], "model_not_found");
    assert_eq!(mesh.get("/v1/models/house/large:nitro/endpoints").await.status, 200, "routing variants mean their model");
}

#[tokio::test]
async fn providers_are_listed_with_their_policies() {
    let mesh = Topology::new()
        .provider("a", |p| {
            p.provider = Box::new(|provider| provider.info.privacy_policy_url = Some("https://a.example/privacy".into()));
        })
        .provider("b", |_| {})
        .start()
        .await;
    let list = mesh.get("/v1/providers").await.json();
    assert_eq!(list["data"].as_array().map(Vec::len), Some(2));
    assert_eq!((&list["data"][0]["slug"], &list["data"][0]["name"]), (&json!("a"), &json!("A")));
    assert_eq!(list["data"][0]["privacy_policy_url"], "https://a.example/privacy");
    assert!(list["data"][1]["datacenters"].is_array() || list["data"][1]["datacenters"].is_null(), "{list}");
}

#[tokio::test]
async fn a_generation_is_shown_to_its_own_key_only() {
    let mesh = Topology::new().provider("a", |_| {}).with(|t| t.more_keys.push(key("other", "tg_other_key_of_the_test"))).start().await;
    let answer = mesh
        .caller()
        .with_header("x-title", "Harbour")
        .with_header("http-referer", "https://app.example")
        .post(CHAT, &chat("m", "hello"))
        .await;
    let id = answer.header("x-generation-id").to_owned();
    let record = mesh.generation(&id).await;
    let usage = &answer.json()["usage"];
    assert_eq!(record["id"], id.as_str());
    assert_eq!((&record["model"], &record["provider_name"], &record["streamed"]), (&json!("m"), &json!("A"), &json!(false)));
    assert_eq!(record["total_cost"].to_string(), usage["cost"].to_string());
    assert_eq!(record["finish_reason"], "stop");
    assert_eq!(record["cancelled"], false);
    assert_eq!((&record["tidegate"]["app_title"], &record["http_referer"]), (&json!("Harbour"), &json!("https://app.example")));
    assert_eq!(record["tokens_prompt"].as_u64().or(record["native_tokens_prompt"].as_u64()), usage["prompt_tokens"].as_u64());

    let path = format!("/v1/generation?id={id}");
    let other = mesh.caller().with_key("tg_other_key_of_the_test").get(&path).await;
    assert_eq!((other.status, other.error_type().as_str()), (404, "not_found"));
    assert_eq!(mesh.get("/v1/generation?id=gen-unknown").await.status, 404);
    assert_eq!(mesh.get("/v1/generation").await.json()["error"]["param"], "id");
}

#[tokio::test]
async fn a_key_describes_itself_without_showing_itself() {
    let mesh = Topology::new().provider("a", |_| {}).with(|t| t.key.allowed_models = vec!["m".to_owned()]).start().await;
    let answer = mesh.get("/v1/key").await;
    let data = &answer.json()["data"];
    assert_eq!((&data["name"], &data["disabled"]), (&json!("test"), &json!(false)));
    assert_eq!(data["allowed_models"], json!(["m"]));
    assert!(data["limit"].is_null() && data["limit_remaining"].is_null(), "{data}");
    assert!(!answer.text().contains(KEY));
}

#[tokio::test]
async fn the_document_describes_every_route_that_answers() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let document = mesh.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/chat/completions", "/models", "/models/{author}/{slug}/endpoints", "/providers", "/generation", "/key"] {
        for prefix in ["/v1", "/api/v1"] {
            assert!(paths.contains_key(&format!("{prefix}{path}")), "{prefix}{path}");
        }
    }
    for (path, operations) in paths {
        let asked = path.replace("{author}", "a").replace("{slug}", "b");
        let method = if operations.get("post").is_some() { Method::POST } else { Method::GET };
        let answer = mesh.send(method, &asked, Default::default()).await;
        let nowhere = answer.status == 404 && answer.text().contains("There is nothing at");
        assert!(!nowhere && answer.status != 405, "{path} is described but does not exist");
    }
}

#[tokio::test]
async fn http2_callers_get_the_same_answers() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let answer = mesh.caller().over_http2().post(CHAT, &chat("m", "hello")).await;
    assert_eq!((answer.status, &answer.json()["provider"]), (200, &json!("A")));
}
