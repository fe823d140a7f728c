//! OpenAI chat completions, as its many compatible hosts speak it: reasoning comes in `reasoning_content`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{Event, Reply, Trouble, data, grouped};
use crate::answer::{Answer, Call, Finish, Usage};
use crate::ask::{Ask, Format, Tool, ToolChoice, holds_field, prefixes, text_of, token_count};
use crate::rate_limit::Standing;
use crate::text;

pub(super) fn read(body: &Value) -> Result<Ask, Trouble> {
    let model =
        body.get("model").and_then(Value::as_str).ok_or_else(|| Trouble::invalid("you must provide a model parameter", Some("model")))?;
    let messages = body
        .get("messages")
        .and_then(Value::as_array)
        .ok_or_else(|| Trouble::invalid("Missing required parameter: 'messages'.", Some("messages")))?;
    if messages.is_empty() {
        return Err(Trouble::invalid("[] is too short - 'messages'", Some("messages")));
    }
    if let Some(nameless) = messages.iter().position(|message| message.get("role").and_then(Value::as_str).is_none()) {
        return Err(Trouble::invalid(format!("Missing required parameter: 'messages[{nameless}].role'."), Some("messages")));
    }
    let role = |message: &Value, role: &str| message.get("role").and_then(Value::as_str) == Some(role);
    let question = messages.iter().rev().find(|message| role(message, "user")).and_then(|message| message.get("content"));
    let tools = body.get("tools").and_then(Value::as_array);
    Ok(Ask {
        model: model.to_owned(),
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
        stream_usage: body.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false),
        question: question.map(text_of).unwrap_or_default(),
        after_tool: messages.last().is_some_and(|message| role(message, "tool")),
        prompt: prefixes(model, body.get("tools").into_iter().chain(messages)),
        max_tokens: token_count(body.get("max_completion_tokens")).or_else(|| token_count(body.get("max_tokens"))),
        tools: tools.into_iter().flatten().filter_map(tool).collect(),
        tool_choice: tool_choice(body.get("tool_choice")),
        parallel_calls: body.get("parallel_tool_calls").and_then(Value::as_bool).unwrap_or(true),
        format: format(body.get("response_format")),
        reasoning: reasons(body),
        cache_marked: holds_field(body, "cache_control"),
    })
}

fn tool(tool: &Value) -> Option<Tool> {
    let function = tool.get("function")?;
    Some(Tool {
        name: function.get("name")?.as_str()?.to_owned(),
        schema: function.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"})),
    })
}

fn tool_choice(choice: Option<&Value>) -> ToolChoice {
    match choice {
        Some(Value::String(word)) if word == "none" => ToolChoice::Never,
        Some(Value::String(word)) if word == "required" => ToolChoice::Required,
        Some(Value::Object(object)) => object
            .get("function")
            .and_then(|function| function.get("name")?.as_str())
            .map_or(ToolChoice::Auto, |name| ToolChoice::Named(name.to_owned())),
        _ => ToolChoice::Auto,
    }
}

fn format(format: Option<&Value>) -> Format {
    match format.and_then(|format| format.get("type")?.as_str()) {
        Some("json_object") => Format::Json,
        Some("json_schema") => {
            format.and_then(|format| format.pointer("/json_schema/schema")).map_or(Format::Json, |schema| Format::Schema(schema.clone()))
        }
        _ => Format::Text,
    }
}

/// Asked for by `reasoning_effort`, or by the `reasoning` or `thinking` objects of compatible hosts.
fn reasons(body: &Value) -> bool {
    let effort = body.get("reasoning_effort").or_else(|| body.pointer("/reasoning/effort"));
    let by_effort = effort.and_then(Value::as_str).is_some_and(|effort| effort != "none");
    let enabled = body.pointer("/reasoning/enabled").and_then(Value::as_bool).unwrap_or(false);
    let budget = token_count(body.pointer("/reasoning/max_tokens")).is_some();
    let thinking = body.pointer("/thinking/type").and_then(Value::as_str) == Some("enabled");
    by_effort || enabled || budget || thinking
}

pub(super) fn whole(reply: &Reply<'_>) -> Value {
    let Answer { reasoning, text, calls, finish, usage } = reply.answer;
    let content = if calls.is_empty() { Value::String(text.concat()) } else { Value::Null };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !reasoning.is_empty() {
        message["reasoning_content"] = Value::String(reasoning.concat());
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.iter().map(call).collect();
    }
    json!({
        "id": id(reply),
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.ask.model,
        "system_fingerprint": FINGERPRINT,
        "service_tier": "default",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(*finish)}],
        "usage": usage_object(usage),
    })
}

pub(super) fn events(reply: &Reply<'_>) -> Vec<Event> {
    let answer = reply.answer;
    let per = reply.tokens_per_chunk;
    let mut events = vec![chunk(reply, &json!({"role": "assistant", "content": "", "refusal": null}), None, 0)];
    for (piece, tokens) in grouped(&answer.reasoning, per) {
        events.push(chunk(reply, &json!({"reasoning_content": piece}), None, tokens));
    }
    for (piece, tokens) in grouped(&answer.text, per) {
        events.push(chunk(reply, &json!({"content": piece}), None, tokens));
    }
    for (index, made) in answer.calls.iter().enumerate() {
        let mut first = call(made);
        first["index"] = json!(index);
        first["function"]["arguments"] = json!("");
        events.push(chunk(reply, &json!({"tool_calls": [first]}), None, 1));
        for (piece, tokens) in grouped(&text::pieces(&made.arguments), per) {
            let delta = json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]});
            events.push(chunk(reply, &delta, None, tokens));
        }
    }
    events.push(chunk(reply, &json!({}), Some(answer.finish), 0));
    if reply.ask.stream_usage {
        let mut last = frame(reply);
        last["choices"] = json!([]);
        last["usage"] = usage_object(&answer.usage);
        events.push(data(&last, 0));
    }
    events.push(Event { bytes: Bytes::from_static(b"data: [DONE]\n\n"), tokens: 0 });
    events
}

fn chunk(reply: &Reply<'_>, delta: &Value, finish: Option<Finish>, tokens: u32) -> Event {
    let mut chunk = frame(reply);
    chunk["choices"] = json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish.map(finish_reason)}]);
    if reply.ask.stream_usage {
        chunk["usage"] = Value::Null;
    }
    data(&chunk, tokens)
}

fn frame(reply: &Reply<'_>) -> Value {
    json!({
        "id": id(reply),
        "object": "chat.completion.chunk",
        "created": reply.created,
        "model": reply.ask.model,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    })
}

fn call(call: &Call) -> Value {
    json!({
        "id": format!("call_{:016x}", call.number),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    })
}

fn id(reply: &Reply<'_>) -> String {
    format!("chatcmpl-{:016x}", reply.number)
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

fn usage_object(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

pub(super) fn error(trouble: &Trouble) -> Value {
    let (kind, code) = match trouble.status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        402 => ("insufficient_quota", Some("insufficient_quota")),
        429 => ("requests", Some("rate_limit_exceeded")),
        400..500 => ("invalid_request_error", None),
        _ => ("server_error", None),
    };
    json!({"error": {"message": trouble.message, "type": kind, "param": trouble.param, "code": trouble.code.or(code)}})
}

pub(super) fn rate_headers(standing: &Standing, headers: &mut HeaderMap) {
    let reset = go_duration(standing.reset);
    let fields = [
        ("x-ratelimit-limit-requests", standing.spec.requests.to_string()),
        ("x-ratelimit-remaining-requests", standing.requests_left.to_string()),
        ("x-ratelimit-reset-requests", reset.clone()),
        ("x-ratelimit-limit-tokens", standing.spec.tokens.to_string()),
        ("x-ratelimit-remaining-tokens", standing.tokens_left.to_string()),
        ("x-ratelimit-reset-tokens", reset),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// As Go prints durations: `350ms`, `12.5s`.
fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    format!("{}s", duration.as_millis() as f64 / 1_000.0)
}

pub(super) fn models(models: &[String], owner: &str) -> Value {
    let list: Vec<Value> =
        models.iter().map(|model| json!({"id": model, "object": "model", "created": 1_750_000_000, "owned_by": owner})).collect();
    json!({"object": "list", "data": list})
}

const FINGERPRINT: &str = "fp_simulated";
