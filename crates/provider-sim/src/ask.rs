//! What a request asks for, whichever dialect it was asked in.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// The facts of a request that an answer depends on.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// Usage wanted at the end of a stream, where the dialect leaves the choice.
    pub(crate) stream_usage: bool,
    /// Text of the last message of the user.
    pub(crate) question: String,
    /// The last message is the result of a tool, so the answer is due.
    pub(crate) after_tool: bool,
    /// The prompt, one entry per message, each with all before it.
    pub(crate) prompt: Vec<Prefix>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) tool_choice: ToolChoice,
    pub(crate) parallel_calls: bool,
    pub(crate) format: Format,
    pub(crate) reasoning: bool,
    /// The caller marked what to cache, for the dialect that caches only then.
    pub(crate) cache_marked: bool,
}

impl Ask {
    /// Tokens of the whole prompt.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        self.prompt.last().map_or(0, |prefix| prefix.tokens)
    }
}

/// The beginning of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) hash: u64,
    pub(crate) tokens: u32,
}

/// A function that the model may call.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) schema: Value,
}

/// Whether it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    Never,
    Auto,
    Required,
    Named(String),
}

/// What the text has to look like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Format {
    Text,
    Json,
    Schema(Value),
}

/// The prefixes of a prompt that consists of these values, in order. Cache markers do not count: they move from turn to turn.
pub(crate) fn prefixes<'v>(model: &str, parts: impl IntoIterator<Item = &'v Value>) -> Vec<Prefix> {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    let mut characters = 0;
    parts
        .into_iter()
        .map(|part| {
            fold(part, &mut hasher, &mut characters);
            // What surrounds a message costs about three tokens, and so does a token four characters.
            characters += 12;
            Prefix { hash: hasher.finish(), tokens: u32::try_from(characters / 4).unwrap_or(u32::MAX) }
        })
        .collect()
}

fn fold(value: &Value, hasher: &mut DefaultHasher, characters: &mut usize) {
    match value {
        Value::String(text) => {
            text.hash(hasher);
            *characters += if is_media(text) { MEDIA_CHARACTERS } else { text.len() };
        }
        Value::Array(items) => items.iter().for_each(|item| fold(item, hasher, characters)),
        Value::Object(fields) => {
            for (name, field) in fields.iter().filter(|(name, _)| *name != "cache_control") {
                name.hash(hasher);
                fold(field, hasher, characters);
            }
        }
        Value::Number(number) => number.to_string().hash(hasher),
        Value::Bool(_) | Value::Null => {}
    }
}

/// Whether a text is an image or the like, which costs a fixed number of tokens and not by its length.
fn is_media(text: &str) -> bool {
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte);
    text.starts_with("data:") || (text.len() > 512 && text.bytes().all(base64))
}

/// The text of a content that is a string, or a list of parts with a `text` each.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// A number of tokens that is at least 1.
pub(crate) fn token_count(value: Option<&Value>) -> Option<u32> {
    let number = value?.as_u64()?;
    Some(u32::try_from(number).unwrap_or(u32::MAX)).filter(|number| *number > 0)
}

/// Whether a field of this name occurs anywhere.
pub(crate) fn holds_field(value: &Value, name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| holds_field(item, name)),
        Value::Object(fields) => fields.iter().any(|(key, field)| key == name || holds_field(field, name)),
        _ => false,
    }
}

/// 85 tokens, what OpenAI counts for a small image.
const MEDIA_CHARACTERS: usize = 340;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_longer_conversation_begins_with_the_shorter() {
        let short = [json!({"role": "user", "content": "one"}), json!({"role": "assistant", "content": "two"})];
        let mut long = short.to_vec();
        long.push(json!({"role": "user", "content": "three"}));
        long[0]["cache_control"] = json!({"type": "ephemeral"});
        assert_eq!(prefixes("m", &short), prefixes("m", &long)[..2]);
        assert_ne!(prefixes("m", &short)[0], prefixes("n", &short)[0]);
    }

    #[test]
    fn media_do_not_count_by_length() {
        let image = format!("data:image/png;base64,{}", "A".repeat(100_000));
        assert!(prefixes("m", [&json!({"url": image})])[0].tokens < 100);
        assert!(prefixes("m", [&json!("word ".repeat(1_000))])[0].tokens > 1_000);
    }
}
