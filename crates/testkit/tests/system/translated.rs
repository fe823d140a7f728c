//! One OpenAI request, three dialects upstream: whoever serves it, the caller reads the same kind of answer.

use serde_json::{Value, json};
use tidegate_ledger::Rate;
use tidegate_provider_sim::Fault;
use tidegate_testkit::{Answer, Event, Mesh, ProviderDraft, Topology, chat};
use tidegate_wire::Dialect;

const CHAT: &str = "/v1/chat/completions";

/// The two dialects that are translated, with what their providers call a model.
const TRANSLATED: [(Dialect, &str); 2] = [(Dialect::AnthropicMessages, "claude-sonnet-4-5"), (Dialect::Gemini, "gemini-2.5-flash")];

fn speaking(dialect: Dialect, upstream_model: &'static str) -> impl FnOnce(&mut ProviderDraft) {
    move |p| {
        p.dialect = dialect;
        p.endpoint = Box::new(move |endpoint| {
            upstream_model.clone_into(&mut endpoint.upstream_model);
            endpoint.max_output = Some(8_000);
        });
    }
}

async fn mesh_of(dialect: Dialect, upstream_model: &'static str) -> Mesh {
    Topology::new().with(|t| t.settings.retry_reserve = 1e6).provider("a", speaking(dialect, upstream_model)).start().await
}

fn upstream_body(mesh: &Mesh) -> Value {
    mesh.sim("a").last_request().expect("the provider was asked").json()
}

fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Members of any object inside `value` that have this name.
fn all<'v>(value: &'v Value, name: &str) -> Vec<&'v Value> {
    let mut found = Vec::new();
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                if key == name {
                    found.push(inner);
                }
                found.extend(all(inner, name));
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| found.extend(all(inner, name))),
        _ => {}
    }
    found
}

fn with_weather(text: &str) -> Value {
    let mut request = chat("m", text);
    request["tools"] = json!([{ "type": "function", "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] },
    } }]);
    request
}

/// Name and arguments of the calls in a message.
fn calls(message: &Value) -> Vec<(String, Value)> {
    let calls = message["tool_calls"].as_array().expect("calls of tools");
    let read = |call: &Value| {
        assert_eq!(call["type"], "function");
        assert!(call["id"].as_str().is_some_and(|id| !id.is_empty()), "{call}");
        let arguments = call["function"]["arguments"].as_str().expect("arguments as text");
        (call["function"]["name"].as_str().expect("a name").to_owned(), serde_json::from_str(arguments).expect("arguments are JSON"))
    };
    calls.iter().map(read).collect()
}

#[tokio::test]
async fn text_comes_back_as_an_ordinary_completion() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let mut request = chat("m", "hello");
        request["messages"].as_array_mut().expect("messages").insert(0, json!({ "role": "system", "content": "Be brief, sailor." }));
        request["temperature"] = json!(0.5);
        request["stop"] = json!(["END"]);
        let body = ok(&mesh.post(CHAT, &request).await);
        assert_eq!((&body["object"], &body["model"], &body["provider"]), (&json!("chat.completion"), &json!("m"), &json!("A")));
        let choice = &body["choices"][0];
        assert_eq!(choice["finish_reason"], "stop");
        assert!(["end_turn", "STOP"].contains(&choice["native_finish_reason"].as_str().expect("a reason")), "{choice}");
        assert!(choice["message"]["content"].as_str().is_some_and(|text| text.contains("hello")), "{choice}");
        let usage = &body["usage"];
        let tokens = usage["prompt_tokens"].as_u64().expect("tokens") + usage["completion_tokens"].as_u64().expect("tokens");
        assert_eq!((usage["total_tokens"].as_u64(), &usage["cost"]), (Some(tokens), &json!(tokens as f64 / 1e6)), "{usage}");

        let sent = upstream_body(&mesh);
        assert!(sent.to_string().contains("Be brief, sailor."), "{sent}");
        assert!(
            sent.get("messages").is_none_or(|messages| !messages.to_string().contains("sailor")),
            "the system prompt has a place of its own"
        );
        assert_eq!(all(&sent, "temperature"), [&json!(0.5)], "{sent}");
    }
}

#[tokio::test]
async fn each_provider_is_authenticated_in_its_own_way() {
    for (dialect, model, header) in
        [(Dialect::AnthropicMessages, "claude-sonnet-4-5", "x-api-key"), (Dialect::Gemini, "gemini-2.5-flash", "x-goog-api-key")]
    {
        let mesh = mesh_of(dialect, model).await;
        ok(&mesh.caller().with_header("x-anthropic-beta", "context-1m-2025-08-07").post(CHAT, &chat("m", "hello")).await);
        let seen = mesh.sim("a").last_request().expect("the provider was asked");
        let text = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
        assert_eq!((text(header), text("authorization")), (Some("upstream-secret"), None));
        match dialect {
            Dialect::AnthropicMessages => {
                assert!(text("anthropic-version").is_some());
                assert_eq!(text("anthropic-beta"), Some("context-1m-2025-08-07"));
            }
            _ => {
                assert_eq!(text("anthropic-beta"), None);
                assert_eq!(seen.path, "/v1beta/models/gemini-2.5-flash:generateContent");
            }
        }
    }
}

#[tokio::test]
async fn tools_are_called_and_their_results_go_back() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let request = with_weather("weather please");
        let body = ok(&mesh.post(CHAT, &request).await);
        assert_eq!(body["choices"][0]["finish_reason"], "tool_calls", "{body}");
        let message = &body["choices"][0]["message"];
        let called = calls(message);
        assert!(called.len() == 1 && called[0].0 == "weather" && called[0].1["city"].is_string(), "{called:?}");

        let mut next = request;
        let messages = next["messages"].as_array_mut().expect("messages");
        messages.push(message.clone());
        messages.push(json!({ "role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "fog at 7 degrees" }));
        let body = ok(&mesh.post(CHAT, &next).await);
        assert_eq!(body["choices"][0]["finish_reason"], "stop", "{body}");
        let sent = upstream_body(&mesh);
        assert!(sent.to_string().contains("fog at 7 degrees"), "{sent}");
        match dialect {
            Dialect::AnthropicMessages => assert_eq!(all(&sent, "tool_use_id"), [&message["tool_calls"][0]["id"]], "{sent}"),
            _ => assert_eq!(all(&sent, "functionResponse")[0]["name"], "weather", "{sent}"),
        }
    }
}

#[tokio::test]
async fn two_calls_at_once_stay_two_calls() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let body = ok(&mesh.post(CHAT, &with_weather("weather in two places")).await);
        let message = &body["choices"][0]["message"];
        assert_eq!(calls(message).len(), 2, "{message}");
        assert_ne!(message["tool_calls"][0]["id"], message["tool_calls"][1]["id"]);
    }
}

#[tokio::test]
async fn a_named_tool_must_be_called_and_none_must_not() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let mut request = with_weather("tell me a joke");
        request["tool_choice"] = json!({ "type": "function", "function": { "name": "weather" } });
        let body = ok(&mesh.post(CHAT, &request).await);
        assert_eq!(calls(&body["choices"][0]["message"]).len(), 1);
        let mut request = with_weather("weather please");
        request["tool_choice"] = json!("none");
        let body = ok(&mesh.post(CHAT, &request).await);
        assert!(body["choices"][0]["message"]["tool_calls"].is_null(), "{body}");
    }
}

#[tokio::test]
async fn pictures_travel_as_the_dialect_wants_them() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let mut request = chat("m", "");
        request["messages"][0]["content"] = json!([
            { "type": "text", "text": "what is on it?" },
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,iVBORw0KGgo=" } },
        ]);
        ok(&mesh.post(CHAT, &request).await);
        let sent = upstream_body(&mesh);
        let expected = match dialect {
            Dialect::AnthropicMessages => json!({ "type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo=" }),
            _ => json!({ "mimeType": "image/png", "data": "iVBORw0KGgo=" }),
        };
        let found = if dialect == Dialect::AnthropicMessages { all(&sent, "source") } else { all(&sent, "inlineData") };
        assert_eq!(found, [&expected], "{sent}");
    }
}

#[tokio::test]
async fn structured_output_keeps_to_the_schema() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let mut request = chat("m", "a port");
        request["response_format"] = json!({ "type": "json_schema", "json_schema": { "name": "port", "strict": true, "schema": {
            "type": "object",
            "properties": { "name": { "type": "string" }, "depth": { "type": "integer" } },
            "required": ["name", "depth"],
            "additionalProperties": false,
        } } });
        let body = ok(&mesh.post(CHAT, &request).await);
        let content = body["choices"][0]["message"]["content"].as_str().expect("content");
        let port: Value = serde_json::from_str(content).unwrap_or_else(|error| panic!("{error}: {content}"));
        assert!(port["name"].is_string() && port["depth"].is_i64(), "{port}");
    }
}

#[tokio::test]
async fn reasoning_is_shown_and_goes_back_with_its_proof() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let mut request = chat("m", "why is the tide late?");
        request["reasoning"] = json!({ "effort": "low" });
        let body = ok(&mesh.post(CHAT, &request).await);
        let message = &body["choices"][0]["message"];
        assert!(message["reasoning"].as_str().is_some_and(|text| text.contains("question")), "{message}");
        let details = message["reasoning_details"].as_array().expect("details");
        assert!(!details.is_empty(), "{message}");
        if dialect == Dialect::Gemini {
            assert!(body["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().is_some_and(|count| count > 0), "{body}");
            continue;
        }
        let signature = details[0]["signature"].as_str().expect("a signature").to_owned();
        let messages = request["messages"].as_array_mut().expect("messages");
        messages.push(message.clone());
        messages.push(json!({ "role": "user", "content": "and tomorrow?" }));
        ok(&mesh.post(CHAT, &request).await);
        let sent = upstream_body(&mesh);
        assert_eq!(all(&sent, "signature"), [&json!(signature)], "{sent}");
        assert!(all(&sent, "thinking").contains(&&message["reasoning"]), "{sent}");

        request["reasoning"] = json!({ "effort": "low", "exclude": true });
        ok(&mesh.post(CHAT, &request).await);
        assert_eq!(upstream_body(&mesh)["thinking"]["display"], "omitted", "thoughts that nobody reads are not sent");
    }
}

#[tokio::test]
async fn a_stream_says_the_same_as_a_whole_answer() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let mut request = chat("m", "hello");
        let whole = ok(&mesh.post(CHAT, &request).await);
        request["stream"] = json!(true);
        let stream = mesh.stream(CHAT, &request).await;
        assert_eq!(
            (stream.status, stream.headers.get("content-type").map(http::HeaderValue::as_bytes)),
            (200, Some(&b"text/event-stream"[..]))
        );
        let events = stream.collect().await;
        assert_eq!(Event::text(&events), whole["choices"][0]["message"]["content"].as_str().expect("content"));
        assert_eq!(events.last(), Some(&Event::Done));
        let chunks: Vec<&Value> = events.iter().filter_map(Event::data).collect();
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        assert!(
            chunks
                .iter()
                .all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["object"] == "chat.completion.chunk" && chunk["model"] == "m")
        );
        let reasons: Vec<&Value> =
            chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).filter(|reason| !reason.is_null()).collect();
        assert_eq!(reasons, [&json!("stop")]);
        let last = chunks.last().expect("chunks");
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
        assert!(last["usage"]["cost"].is_number(), "{last}");
    }
}

#[tokio::test]
async fn streamed_calls_and_thoughts_come_together_piece_by_piece() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let mut request = with_weather("weather in two places");
        request["stream"] = json!(true);
        request["reasoning"] = json!({ "effort": "low" });
        let events = mesh.stream(CHAT, &request).await.collect().await;
        let mut arguments = vec![String::new(), String::new()];
        let mut thoughts = String::new();
        for chunk in events.iter().filter_map(Event::data) {
            let delta = &chunk["choices"][0]["delta"];
            thoughts.push_str(delta["reasoning"].as_str().unwrap_or_default());
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                let index = usize::try_from(call["index"].as_u64().expect("an index")).expect("a small number");
                arguments[index].push_str(call["function"]["arguments"].as_str().unwrap_or_default());
            }
        }
        for text in &arguments {
            let read: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!(read["city"].is_string(), "{read}");
        }
        assert!(thoughts.contains("question"), "{thoughts}");
        let reasons: Vec<&str> =
            events.iter().filter_map(Event::data).filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
        assert_eq!(reasons, ["tool_calls"]);
    }
}

#[tokio::test]
async fn a_limit_ends_an_answer_by_its_length() {
    for (dialect, model) in TRANSLATED {
        let mesh = mesh_of(dialect, model).await;
        let mut request = chat("m", "a long story");
        request["max_completion_tokens"] = json!(3);
        let body = ok(&mesh.post(CHAT, &request).await);
        let choice = &body["choices"][0];
        assert_eq!((&choice["finish_reason"], &body["usage"]["completion_tokens"]), (&json!("length"), &json!(3)), "{body}");
        assert!(["max_tokens", "MAX_TOKENS"].contains(&choice["native_finish_reason"].as_str().expect("a reason")));
    }
}

#[tokio::test]
async fn errors_mean_the_same_in_every_dialect() {
    let everywhere = TRANSLATED.into_iter().chain([(Dialect::OpenaiChat, "up-m")]);
    for (dialect, model) in everywhere {
        let mesh = Topology::new()
            .with(|t| t.settings.retry_reserve = 1e6)
            .provider("a", |p| {
                speaking(dialect, model)(p);
                p.sim.context_length = Some(100);
            })
            .start()
            .await;
        let long = mesh.post(CHAT, &chat("m", &"tide ".repeat(300))).await;
        assert_eq!((long.status, long.error_type().as_str()), (400, "context_length_exceeded"), "{dialect:?}: {}", long.text());
        for (status, expected, error_type) in [
            (400, 400, "invalid_request"),
            (404, 404, "not_found"),
            (413, 413, "payload_too_large"),
            (500, 503, "provider_overloaded"),
            (503, 503, "provider_overloaded"),
            (529, 503, "provider_overloaded"),
            (429, 429, "rate_limit_exceeded"),
        ] {
            mesh.sim("a").push_script(format!("status={status}; retry-after=7").parse().expect("a script"));
            let answer = mesh.post(CHAT, &chat("m", "hello")).await;
            assert_eq!((answer.status, answer.error_type().as_str()), (expected, error_type), "{dialect:?} {status}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_request_fails_over_from_one_dialect_to_the_next() {
    let mesh = Topology::new()
        .provider("chat", |_| {})
        .provider("messages", speaking(Dialect::AnthropicMessages, "claude-sonnet-4-5"))
        .provider("gemini", speaking(Dialect::Gemini, "gemini-2.5-flash"))
        .start()
        .await;
    let order = ["chat", "messages", "gemini"];
    for (down, streamed) in [(0, false), (1, false), (2, false), (2, true)] {
        let mut request = chat("m", "hello");
        request["provider"] = json!({ "order": order });
        request["stream"] = json!(streamed);
        for slug in &order[..down] {
            mesh.sim(slug).set_fault(Some(Fault::Status { status: 500, retry_after: None }));
        }
        let answer = mesh.post(CHAT, &request).await;
        let served = format!("\"provider\":\"{}\"", order[down].to_uppercase());
        assert!(answer.status == 200 && answer.text().contains(&served), "{served}: {}", answer.text());
    }
}

#[tokio::test]
async fn cache_markers_arrive_and_their_reads_and_writes_have_prices() {
    let mesh = Topology::new()
        .provider("a", |p| {
            p.dialect = Dialect::AnthropicMessages;
            p.endpoint = Box::new(|endpoint| {
                let rate = |text| Some(Rate::per_million_usd(text).expect("a price"));
                "claude-sonnet-4-5".clone_into(&mut endpoint.upstream_model);
                (endpoint.prices.cache_read, endpoint.prices.cache_write, endpoint.prices.cache_write_1h) =
                    (rate("0.1"), rate("1.25"), rate("2"));
            });
        })
        .start()
        .await;
    let mut request = chat("m", "hello");
    let marked = json!({ "role": "system", "content": [
        { "type": "text", "text": "the tide tables of the year ".repeat(20), "cache_control": { "type": "ephemeral", "ttl": "1h" } },
    ] });
    request["messages"].as_array_mut().expect("messages").insert(0, marked);
    for turn in 0..2 {
        let body = ok(&mesh.post(CHAT, &request).await);
        let usage = &body["usage"];
        let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64).expect("a count");
        let (read, written) = (count("/prompt_tokens_details/cached_tokens"), count("/prompt_tokens_details/cache_write_tokens"));
        assert_eq!((read > 0, written > 0), (turn == 1, turn == 0), "{usage}");
        let plain = count("/prompt_tokens") - read - written;
        // In hundredths of a micro-dollar; the simulation writes for five minutes whatever it is asked.
        let cost = 100 * plain + 10 * read + 125 * written + 100 * count("/completion_tokens");
        assert!((usage["cost"].as_f64().expect("a cost") - cost as f64 / 1e8).abs() < 1e-12, "{usage}");
        assert_eq!(all(&upstream_body(&mesh), "cache_control"), [&json!({ "type": "ephemeral", "ttl": "1h" })]);
    }
}
