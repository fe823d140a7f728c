use serde_json::{Value, json};

use super::client::{Answered, chat, gemini, messages, post_with, regular, start};
use crate::{RateLimitSpec, SimSpec};

fn ask(text: &str) -> Value {
    json!({"model": "m-1", "messages": [{"role": "user", "content": text}]})
}

fn with(mut body: Value, more: Value) -> Value {
    let fields = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(fields);
    body
}

fn joined(events: &[Value], pointer: &str) -> String {
    events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect()
}

fn weather_tool() -> Value {
    json!({"type": "object", "required": ["city", "unit"], "additionalProperties": false,
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 1}}})
}

fn assert_fits(schema: &Value, value: &Value) {
    assert!(jsonschema::is_valid(schema, value), "{value} does not fit {schema}");
}

#[tokio::test]
async fn openai_answers_the_same_in_both_forms() {
    let sim = regular();
    let whole = chat(&sim, &ask("why do tides turn?")).await;
    assert_eq!((whole.status, whole.header("content-type")), (200, "application/json"));
    let whole = whole.json();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(text.contains("why do tides turn?"));
    assert_eq!(whole["usage"]["completion_tokens"], text.split(' ').count());

    let body = with(ask("why do tides turn?"), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let streamed = chat(&sim, &body).await;
    assert!(streamed.text.ends_with("data: [DONE]\n\n") && streamed.complete);
    let events = streamed.events();
    assert_eq!(joined(&events, "/choices/0/delta/content"), text);
    assert_eq!(joined(&events, "/choices/0/finish_reason"), "stop");
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);

    let unasked = chat(&sim, &with(ask("why?"), json!({"stream": true}))).await;
    assert!(unasked.events().iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn anthropic_answers_the_same_in_both_forms() {
    let sim = regular();
    let body = with(ask("why do tides turn?"), json!({"max_tokens": 500, "thinking": {"type": "enabled", "budget_tokens": 100}}));
    let whole = messages(&sim, &body).await.json();
    let (thought, text) = (&whole["content"][0]["thinking"], &whole["content"][1]["text"]);
    assert_eq!(whole["stop_reason"], "end_turn");
    let streamed = messages(&sim, &with(body, json!({"stream": true}))).await;
    let events = streamed.events();
    assert_eq!(joined(&events, "/delta/thinking"), thought.as_str().unwrap());
    assert_eq!(joined(&events, "/delta/text"), text.as_str().unwrap());
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(types[types.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let names: Vec<&str> = streamed.text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, types);
    assert_eq!(events[types.len() - 2]["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

#[tokio::test]
async fn gemini_answers_the_same_in_both_forms() {
    let sim = regular();
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "why do tides turn?"}]}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": true}}});
    let whole = gemini(&sim, "generateContent", &body).await.json();
    let parts = &whole["candidates"][0]["content"]["parts"];
    assert_eq!(parts[0]["thought"], true);
    assert_eq!(whole["modelVersion"], "gem-1");
    let streamed = gemini(&sim, "streamGenerateContent?alt=sse", &body).await.events();
    let (thoughts, answer): (Vec<Value>, Vec<Value>) =
        streamed.iter().cloned().partition(|event| event.pointer("/candidates/0/content/parts/0/thought").is_some());
    assert_eq!(joined(&thoughts, "/candidates/0/content/parts/0/text"), parts[0]["text"].as_str().unwrap());
    assert_eq!(joined(&answer, "/candidates/0/content/parts/0/text"), parts[1]["text"].as_str().unwrap());
    let last = streamed.last().unwrap();
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(last["usageMetadata"], whole["usageMetadata"]);
    assert!(whole["usageMetadata"]["thoughtsTokenCount"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_token_limit_cuts_the_answer_in_every_dialect() {
    let sim = regular();
    let openai = chat(&sim, &with(ask("why?"), json!({"max_tokens": 5}))).await.json();
    assert_eq!(openai["choices"][0]["finish_reason"], "length");
    assert_eq!(openai["usage"]["completion_tokens"], 5);
    let anthropic = messages(&sim, &with(ask("why?"), json!({"max_tokens": 5}))).await.json();
    assert_eq!((&anthropic["stop_reason"], &anthropic["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(5)));
    let body = json!({"contents": [{"parts": [{"text": "why?"}]}], "generationConfig": {"maxOutputTokens": 5}});
    let gemini = gemini(&sim, "generateContent", &body).await.json();
    assert_eq!(gemini["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(gemini["usageMetadata"]["candidatesTokenCount"], 5);
}

#[tokio::test]
async fn openai_calls_tools_when_asked_or_forced() {
    let sim = regular();
    let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters": weather_tool()}});
    let tools = json!({"tools": [tool], "stream": true});
    let streamed = chat(&sim, &with(ask("what is the weather like?"), tools.clone())).await.events();
    assert_eq!(joined(&streamed, "/choices/0/delta/tool_calls/0/function/name"), "get_weather");
    let arguments = joined(&streamed, "/choices/0/delta/tool_calls/0/function/arguments");
    assert_fits(&weather_tool(), &serde_json::from_str(&arguments).unwrap());
    assert_eq!(joined(&streamed, "/choices/0/finish_reason"), "tool_calls");

    let finish = |answered: Answered| answered.json()["choices"][0]["finish_reason"].clone();
    let unstreamed = |more: Value| with(with(ask("hello"), tools.clone()), with(more, json!({"stream": false})));
    assert_eq!(finish(chat(&sim, &unstreamed(json!({}))).await), "stop");
    assert_eq!(finish(chat(&sim, &unstreamed(json!({"tool_choice": "required"}))).await), "tool_calls");
    let named = json!({"tool_choice": {"type": "function", "function": {"name": "get_weather"}}});
    assert_eq!(finish(chat(&sim, &unstreamed(named)).await), "tool_calls");

    let mut answered_tool = with(ask("what is the weather like?"), tools.clone());
    answered_tool["stream"] = json!(false);
    answered_tool["messages"].as_array_mut().unwrap().push(json!({"role": "tool", "tool_call_id": "x", "content": "rain"}));
    assert_eq!(finish(chat(&sim, &answered_tool).await), "stop");

    let both = with(with(ask("weather in both cities"), tools), json!({"stream": false}));
    let calls = |answered: Answered| answered.json()["choices"][0]["message"]["tool_calls"].as_array().unwrap().len();
    assert_eq!(calls(chat(&sim, &both).await), 2);
    assert_eq!(calls(chat(&sim, &with(both, json!({"parallel_tool_calls": false}))).await), 1);
}

#[tokio::test]
async fn the_other_dialects_call_tools_too() {
    let sim = regular();
    let body = with(ask("weather?"), json!({"max_tokens": 100, "tools": [{"name": "get_weather", "input_schema": weather_tool()}]}));
    let whole = messages(&sim, &body).await.json();
    assert_eq!((&whole["stop_reason"], &whole["content"][0]["type"]), (&json!("tool_use"), &json!("tool_use")));
    assert_fits(&weather_tool(), &whole["content"][0]["input"]);
    let events = messages(&sim, &with(body, json!({"stream": true}))).await.events();
    let partial = joined(&events, "/delta/partial_json");
    assert_eq!(serde_json::from_str::<Value>(&partial).unwrap(), whole["content"][0]["input"]);

    let body = json!({"contents": [{"parts": [{"text": "weather?"}]}],
        "tools": [{"functionDeclarations": [{"name": "get_weather", "parameters": weather_tool()}]}]});
    let call = gemini(&sim, "generateContent", &body).await.json()["candidates"][0]["content"]["parts"][0].clone();
    assert_eq!(call["functionCall"]["name"], "get_weather");
    assert_fits(&weather_tool(), &call["functionCall"]["args"]);
}

#[tokio::test]
async fn structured_output_fits_its_schema() {
    let sim = regular();
    let format = json!({"type": "json_schema", "json_schema": {"name": "w", "strict": true, "schema": weather_tool()}});
    let openai = chat(&sim, &with(ask("report"), json!({"response_format": format}))).await.json();
    let content = openai["choices"][0]["message"]["content"].as_str().unwrap();
    assert_fits(&weather_tool(), &serde_json::from_str(content).unwrap());
    let more = json!({"max_tokens": 200, "output_config": {"format": {"type": "json_schema", "schema": weather_tool()}}});
    let anthropic = messages(&sim, &with(ask("report"), more)).await.json();
    assert_fits(&weather_tool(), &serde_json::from_str(anthropic["content"][0]["text"].as_str().unwrap()).unwrap());
    let object = chat(&sim, &with(ask("report"), json!({"response_format": {"type": "json_object"}}))).await.json();
    let content = object["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(content).unwrap()["answer"].is_string());
}

#[tokio::test]
async fn reasoning_comes_first_and_is_counted() {
    let sim = regular();
    let body = with(ask("why?"), json!({"reasoning_effort": "high", "stream": true, "stream_options": {"include_usage": true}}));
    let events = chat(&sim, &body).await.events();
    let reasoning = joined(&events, "/choices/0/delta/reasoning_content");
    let counted = &events.last().unwrap()["usage"]["completion_tokens_details"]["reasoning_tokens"];
    assert_eq!(*counted, reasoning.split(' ').count());
    assert!(!chat(&sim, &with(body, json!({"reasoning_effort": "none"}))).await.text.contains("reasoning_content"));
}

#[tokio::test]
async fn a_repeated_prompt_is_cached() {
    let sim = regular();
    let body = ask(&"a long question ".repeat(50));
    let cached = |answered: Answered| answered.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached(chat(&sim, &body).await), 0);
    let again = chat(&sim, &body).await;
    let prompt = again.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(cached(again), prompt);

    let marked = json!({"model": "m-1", "max_tokens": 9, "messages": [{"role": "user", "content":
        [{"type": "text", "text": "a long question ".repeat(50), "cache_control": {"type": "ephemeral"}}]}]});
    let first = messages(&sim, &marked).await.json()["usage"].clone();
    let second = messages(&sim, &marked).await.json()["usage"].clone();
    assert_eq!((&first["input_tokens"], &first["cache_read_input_tokens"]), (&json!(0), &json!(0)));
    assert_eq!(first["cache_creation_input_tokens"], second["cache_read_input_tokens"]);
}

#[tokio::test]
async fn mistakes_are_refused_in_the_shape_of_the_dialect() {
    let spec = SimSpec { keys: vec!["good".to_owned()], models: vec!["m-1".to_owned()], context_length: Some(1_000), ..SimSpec::default() };
    let sim = start(spec);
    let key = ("authorization", "Bearer good");
    let openai = async |body: Value| {
        let answered = post_with(&sim, "/v1/chat/completions", &[key], &body).await;
        (answered.status, answered.json()["error"].clone())
    };
    assert_eq!(openai(ask("fine")).await.0, 200);
    let (status, error) = openai(json!({"model": "m-1"})).await;
    assert_eq!((status, &error["param"]), (400, &json!("messages")));
    let (status, error) = openai(with(ask("x"), json!({"model": "m-2"}))).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
    let (status, error) = openai(ask(&"word ".repeat(5_000))).await;
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
    let denied = chat(&sim, &ask("x")).await;
    assert_eq!((denied.status, &denied.json()["error"]["code"]), (401, &json!("invalid_api_key")));

    let unversioned = post_with(&sim, "/v1/messages", &[("x-api-key", "good")], &ask("x")).await;
    assert_eq!((unversioned.status, &unversioned.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    let denied = messages(&sim, &ask("x")).await;
    assert_eq!((denied.status, &denied.json()["error"]["type"]), (401, &json!("authentication_error")));

    let denied = gemini(&sim, "generateContent", &json!({})).await;
    assert_eq!((denied.status, &denied.json()["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    let empty = gemini(&sim, "generateContent?key=good", &json!({})).await;
    assert_eq!((empty.status, &empty.json()["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    assert_eq!(post_with(&sim, "/v1/other", &[key], &json!({})).await.status, 404);
}

#[tokio::test]
async fn rate_limits_are_told_and_kept() {
    let spec = SimSpec { rate_limit: Some(RateLimitSpec { requests: 2, tokens: 10_000 }), ..SimSpec::default() };
    let sim = start(spec);
    let first = chat(&sim, &ask("x")).await;
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "1");
    assert_eq!(first.header("x-ratelimit-limit-tokens"), "10000");
    let second = messages(&sim, &with(ask("x"), json!({"max_tokens": 9}))).await;
    assert_eq!(second.header("anthropic-ratelimit-requests-remaining"), "0");
    assert!(second.header("anthropic-ratelimit-tokens-reset").ends_with('Z'));
    let third = chat(&sim, &ask("x")).await;
    assert_eq!(third.status, 429);
    let retry_after: u64 = third.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&retry_after));
}
