//! Anthropic messages.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{Event, Reply, Trouble, grouped};
use crate::answer::{Answer, Call, Finish, Usage};
use crate::ask::{Ask, Format, Tool, ToolChoice, holds_field, prefixes, text_of, token_count};
use crate::rate_limit::Standing;
use crate::text;

pub(super) fn read(body: &Value, headers: &HeaderMap) -> Result<Ask, Trouble> {
    if !headers.contains_key("anthropic-version") {
        return Err(Trouble::invalid("anthropic-version: header is required", None));
    }
    let model = body.get("model").and_then(Value::as_str).ok_or_else(|| Trouble::invalid("model: Field required", Some("model")))?;
    let max_tokens =
        token_count(body.get("max_tokens")).ok_or_else(|| Trouble::invalid("max_tokens: Field required", Some("max_tokens")))?;
    let messages =
        body.get("messages").and_then(Value::as_array).ok_or_else(|| Trouble::invalid("messages: Field required", Some("messages")))?;
    if messages.is_empty() {
        return Err(Trouble::invalid("messages: at least one message is required", Some("messages")));
    }
    let role = |message: &Value| message.get("role").and_then(Value::as_str).map(str::to_owned);
    if let Some(wrong) = messages.iter().position(|message| !matches!(role(message).as_deref(), Some("user" | "assistant" | "system"))) {
        let text = format!("messages.{wrong}.role: Input should be 'user' or 'assistant'");
        return Err(Trouble::invalid(text, Some("messages")));
    }
    let users = messages.iter().rev().filter(|message| role(message).as_deref() == Some("user"));
    let question = users.filter_map(|message| message.get("content")).map(text_of).find(|text| !text.is_empty());
    let tools = body.get("tools").and_then(Value::as_array);
    let parts = [body.get("tools"), body.get("system")].into_iter().flatten().chain(messages);
    Ok(Ask {
        model: model.to_owned(),
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
        stream_usage: true,
        question: question.unwrap_or_default(),
        after_tool: messages.last().is_some_and(holds_tool_result),
        prompt: prefixes(model, parts),
        max_tokens: Some(max_tokens),
        tools: tools.into_iter().flatten().filter_map(tool).collect(),
        tool_choice: tool_choice(body.get("tool_choice")),
        parallel_calls: !body.pointer("/tool_choice/disable_parallel_tool_use").and_then(Value::as_bool).unwrap_or(false),
        format: format(body),
        reasoning: matches!(body.pointer("/thinking/type").and_then(Value::as_str), Some("enabled" | "adaptive")),
        cache_marked: holds_field(body, "cache_control"),
    })
}

fn holds_tool_result(message: &Value) -> bool {
    let parts = message.get("content").and_then(Value::as_array);
    let is_result = |part: &Value| part.get("type").and_then(Value::as_str) == Some("tool_result");
    parts.is_some_and(|parts| parts.iter().any(is_result))
}

fn tool(tool: &Value) -> Option<Tool> {
    Some(Tool {
        name: tool.get("name")?.as_str()?.to_owned(),
        schema: tool.get("input_schema").cloned().unwrap_or_else(|| json!({"type": "object"})),
    })
}

fn tool_choice(choice: Option<&Value>) -> ToolChoice {
    let field = |name: &str| choice.and_then(|choice| choice.get(name)?.as_str());
    match field("type") {
        Some("none") => ToolChoice::Never,
        Some("any") => ToolChoice::Required,
        Some("tool") => field("name").map_or(ToolChoice::Required, |name| ToolChoice::Named(name.to_owned())),
        _ => ToolChoice::Auto,
    }
}

/// Structured output lies in `output_config.format`, in `output_format` while it was in beta.
fn format(body: &Value) -> Format {
    let format = body.pointer("/output_config/format").or_else(|| body.get("output_format"));
    format.and_then(|format| format.get("schema")).map_or(Format::Text, |schema| Format::Schema(schema.clone()))
}

pub(super) fn whole(reply: &Reply<'_>) -> Value {
    let answer = reply.answer;
    let content: Vec<Value> = blocks(answer).into_iter().map(|block| block.finished()).collect();
    let mut message = message(reply, &usage_object(&answer.usage, answer.usage.completion));
    message["content"] = Value::Array(content);
    message["stop_reason"] = json!(stop_reason(answer.finish));
    message
}

pub(super) fn events(reply: &Reply<'_>) -> Vec<Event> {
    let answer = reply.answer;
    let start = message(reply, &usage_object(&answer.usage, 1));
    let mut events = vec![event(&json!({"type": "message_start", "message": start}), 0), event(&json!({"type": "ping"}), 0)];
    for (index, block) in blocks(answer).into_iter().enumerate() {
        let begun = json!({"type": "content_block_start", "index": index, "content_block": block.begun()});
        events.push(event(&begun, 0));
        for (delta, tokens) in block.deltas(reply.tokens_per_chunk) {
            events.push(event(&json!({"type": "content_block_delta", "index": index, "delta": delta}), tokens));
        }
        events.push(event(&json!({"type": "content_block_stop", "index": index}), 0));
    }
    let end = json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(answer.finish), "stop_sequence": null},
        "usage": usage_object(&answer.usage, answer.usage.completion),
    });
    events.push(event(&end, 0));
    events.push(event(&json!({"type": "message_stop"}), 0));
    events
}

/// A named event; the name is the type.
pub(super) fn event(value: &Value, tokens: u32) -> Event {
    let name = value.get("type").and_then(Value::as_str).unwrap_or("message");
    Event { bytes: Bytes::from(format!("event: {name}\ndata: {value}\n\n")), tokens }
}

/// A part of the answer.
enum Block<'a> {
    Thinking(&'a [String]),
    Text(&'a [String]),
    ToolUse(&'a Call),
}

fn blocks(answer: &Answer) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    if !answer.reasoning.is_empty() {
        blocks.push(Block::Thinking(&answer.reasoning));
    }
    if !answer.text.is_empty() {
        blocks.push(Block::Text(&answer.text));
    }
    blocks.extend(answer.calls.iter().map(Block::ToolUse));
    blocks
}

impl Block<'_> {
    fn finished(&self) -> Value {
        match self {
            Self::Thinking(tokens) => {
                json!({"type": "thinking", "thinking": tokens.concat(), "signature": SIGNATURE})
            }
            Self::Text(tokens) => json!({"type": "text", "text": tokens.concat()}),
            Self::ToolUse(call) => {
                let input: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
                json!({"type": "tool_use", "id": tool_id(call), "name": call.name, "input": input})
            }
        }
    }

    fn begun(&self) -> Value {
        match self {
            Self::Thinking(_) => json!({"type": "thinking", "thinking": "", "signature": ""}),
            Self::Text(_) => json!({"type": "text", "text": ""}),
            Self::ToolUse(call) => {
                json!({"type": "tool_use", "id": tool_id(call), "name": call.name, "input": {}})
            }
        }
    }

    fn deltas(&self, per: usize) -> Vec<(Value, u32)> {
        match self {
            Self::Thinking(tokens) => {
                let mut deltas: Vec<(Value, u32)> =
                    grouped(tokens, per).map(|(piece, count)| (json!({"type": "thinking_delta", "thinking": piece}), count)).collect();
                deltas.push((json!({"type": "signature_delta", "signature": SIGNATURE}), 0));
                deltas
            }
            Self::Text(tokens) => {
                grouped(tokens, per).map(|(piece, count)| (json!({"type": "text_delta", "text": piece}), count)).collect()
            }
            Self::ToolUse(call) => {
                // The name took a token too.
                let mut deltas = vec![(json!({"type": "input_json_delta", "partial_json": ""}), 1)];
                let pieces = text::pieces(&call.arguments);
                let rest = grouped(&pieces, per).map(|(piece, count)| (json!({"type": "input_json_delta", "partial_json": piece}), count));
                deltas.extend(rest);
                deltas
            }
        }
    }
}

fn message(reply: &Reply<'_>, usage: &Value) -> Value {
    json!({
        "id": format!("msg_{:016x}", reply.number),
        "type": "message",
        "role": "assistant",
        "model": reply.ask.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage,
    })
}

fn tool_id(call: &Call) -> String {
    format!("toolu_{:016x}", call.number)
}

fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
    }
}

/// `input_tokens` is what was neither read from nor written to the cache.
fn usage_object(usage: &Usage, output: u32) -> Value {
    json!({
        "input_tokens": usage.prompt.saturating_sub(usage.cached + usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    })
}

pub(super) fn error(trouble: &Trouble) -> Value {
    let kind = match trouble.status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": trouble.message}, "request_id": null})
}

pub(super) fn rate_headers(standing: &Standing, unix_now: u64, headers: &mut HeaderMap) {
    let reset = rfc3339(unix_now + standing.reset.as_secs());
    let fields = [
        ("anthropic-ratelimit-requests-limit", standing.spec.requests.to_string()),
        ("anthropic-ratelimit-requests-remaining", standing.requests_left.to_string()),
        ("anthropic-ratelimit-requests-reset", reset.clone()),
        ("anthropic-ratelimit-tokens-limit", standing.spec.tokens.to_string()),
        ("anthropic-ratelimit-tokens-remaining", standing.tokens_left.to_string()),
        ("anthropic-ratelimit-tokens-reset", reset),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// `2026-03-14T15:09:26Z`. The calendar arithmetic is Howard Hinnant's `civil_from_days`, for years after 1970.
fn rfc3339(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// What proves a thinking block to the real provider.
const SIGNATURE: &str = "c2ltdWxhdGVkIHNpZ25hdHVyZQ==";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_767_225_599), "2025-12-31T23:59:59Z");
    }
}
