//! Gemini `generateContent` and `streamGenerateContent?alt=sse`. Model and streaming are in the path; the server fills them in.

use serde_json::{Map, Value, json};

use super::{Event, Reply, Trouble, data, grouped};
use crate::answer::{Call, Finish, Usage};
use crate::ask::{Ask, Format, Tool, ToolChoice, prefixes, text_of, token_count};

pub(super) fn read(body: &Value) -> Result<Ask, Trouble> {
    let contents = body
        .get("contents")
        .and_then(Value::as_array)
        .filter(|contents| !contents.is_empty())
        .ok_or_else(|| Trouble::invalid("* GenerateContentRequest.contents: contents is not specified", Some("contents")))?;
    let is_user = |content: &&Value| content.get("role").and_then(Value::as_str).is_none_or(|role| role == "user");
    let questions = contents.iter().rev().filter(is_user).filter_map(|content| content.get("parts")).map(text_of);
    let settings = body.get("generationConfig");
    let setting = |name: &str| settings.and_then(|settings| settings.get(name));
    let thinking = setting("thinkingConfig").and_then(|config| config.get("includeThoughts")?.as_bool());
    let parts = [body.get("tools"), body.get("systemInstruction")].into_iter().flatten().chain(contents);
    Ok(Ask {
        model: String::new(),
        stream: false,
        stream_usage: true,
        question: questions.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
        after_tool: contents.last().is_some_and(holds_function_response),
        prompt: prefixes("gemini", parts),
        max_tokens: token_count(setting("maxOutputTokens")),
        tools: tools(body),
        tool_choice: tool_choice(body.pointer("/toolConfig/functionCallingConfig")),
        parallel_calls: true,
        format: format(settings),
        reasoning: thinking.unwrap_or(false),
        cache_marked: false,
    })
}

fn holds_function_response(content: &Value) -> bool {
    let parts = content.get("parts").and_then(Value::as_array);
    parts.is_some_and(|parts| parts.iter().any(|part| part.get("functionResponse").is_some()))
}

fn tools(body: &Value) -> Vec<Tool> {
    let lists = body.get("tools").and_then(Value::as_array).into_iter().flatten();
    lists
        .filter_map(|list| list.get("functionDeclarations").or_else(|| list.get("function_declarations"))?.as_array())
        .flatten()
        .filter_map(|function| {
            let schema = function.get("parametersJsonSchema").or_else(|| function.get("parameters"));
            Some(Tool {
                name: function.get("name")?.as_str()?.to_owned(),
                schema: schema.cloned().unwrap_or_else(|| json!({"type": "object"})),
            })
        })
        .collect()
}

fn tool_choice(config: Option<&Value>) -> ToolChoice {
    let only = config.and_then(|config| config.pointer("/allowedFunctionNames/0")?.as_str());
    match (config.and_then(|config| config.get("mode")?.as_str()), only) {
        (Some("NONE"), _) => ToolChoice::Never,
        (Some("ANY"), Some(name)) => ToolChoice::Named(name.to_owned()),
        (Some("ANY"), None) => ToolChoice::Required,
        _ => ToolChoice::Auto,
    }
}

fn format(settings: Option<&Value>) -> Format {
    let setting = |name: &str| settings.and_then(|settings| settings.get(name));
    match setting("responseJsonSchema").or_else(|| setting("responseSchema")) {
        Some(schema) => Format::Schema(schema.clone()),
        None if setting("responseMimeType").and_then(Value::as_str) == Some("application/json") => Format::Json,
        None => Format::Text,
    }
}

pub(super) fn whole(reply: &Reply<'_>) -> Value {
    let answer = reply.answer;
    let mut parts = Vec::new();
    if !answer.reasoning.is_empty() {
        parts.push(json!({"text": answer.reasoning.concat(), "thought": true}));
    }
    if !answer.text.is_empty() {
        parts.push(json!({"text": answer.text.concat()}));
    }
    parts.extend(answer.calls.iter().map(call));
    response(reply, parts, Some(answer.finish), &answer.usage)
}

pub(super) fn events(reply: &Reply<'_>) -> Vec<Event> {
    let answer = reply.answer;
    let per = reply.tokens_per_chunk;
    let thoughts =
        grouped(&answer.reasoning, per).map(|(piece, tokens)| Piece::of(json!({"text": piece, "thought": true}), tokens, tokens));
    let words = grouped(&answer.text, per).map(|(piece, tokens)| Piece::of(json!({"text": piece}), tokens, 0));
    let calls = answer.calls.iter().map(|made| Piece::of(call(made), made.tokens(), 0));
    let mut pieces: Vec<Piece> = thoughts.chain(words).chain(calls).collect();
    if pieces.is_empty() {
        pieces.push(Piece { parts: Vec::new(), tokens: 0, thoughts: 0 });
    }
    // Usage grows from event to event, and the last one says why it ended.
    let mut usage = Usage { completion: 0, reasoning: 0, ..answer.usage };
    let last = pieces.len() - 1;
    pieces
        .into_iter()
        .enumerate()
        .map(|(index, piece)| {
            usage.completion += piece.tokens;
            usage.reasoning += piece.thoughts;
            let finish = (index == last).then_some(answer.finish);
            data(&response(reply, piece.parts, finish, &usage), piece.tokens)
        })
        .collect()
}

struct Piece {
    parts: Vec<Value>,
    tokens: u32,
    thoughts: u32,
}

impl Piece {
    fn of(part: Value, tokens: u32, thoughts: u32) -> Self {
        Self { parts: vec![part], tokens, thoughts }
    }
}

fn response(reply: &Reply<'_>, parts: Vec<Value>, finish: Option<Finish>, usage: &Usage) -> Value {
    let mut content = Map::new();
    if !parts.is_empty() {
        content.insert("parts".to_owned(), Value::Array(parts));
    }
    content.insert("role".to_owned(), json!("model"));
    let mut candidate = json!({"content": content, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish_reason(finish));
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": usage_object(usage),
        "modelVersion": reply.ask.model,
        "responseId": format!("{:016x}", reply.number),
    })
}

fn call(call: &Call) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    json!({"functionCall": {"name": call.name, "args": arguments}})
}

/// A function call ends with `STOP` here.
fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::ToolCalls => "STOP",
        Finish::Length => "MAX_TOKENS",
    }
}

/// Thoughts are not among the candidates' tokens.
fn usage_object(usage: &Usage) -> Value {
    let mut object = json!({
        "promptTokenCount": usage.prompt,
        "candidatesTokenCount": usage.completion - usage.reasoning,
        "totalTokenCount": usage.prompt + usage.completion,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.prompt}],
    });
    if usage.reasoning > 0 {
        object["thoughtsTokenCount"] = json!(usage.reasoning);
    }
    if usage.cached > 0 {
        object["cachedContentTokenCount"] = json!(usage.cached);
    }
    object
}

pub(super) fn error(trouble: &Trouble) -> Value {
    let status = match trouble.status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        400..500 => "INVALID_ARGUMENT",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    };
    json!({"error": {"code": trouble.status, "message": trouble.message, "status": status}})
}

pub(super) fn models(models: &[String]) -> Value {
    let list: Vec<Value> =
        models.iter().map(|model| json!({"name": format!("models/{model}"), "supportedGenerationMethods": ["generateContent"]})).collect();
    json!({"models": list})
}
