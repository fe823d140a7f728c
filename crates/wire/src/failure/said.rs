//! What an error body says, whatever its shape.

use serde_json::{Map, Value};

/// The words of an error body, independent of where a vendor puts them.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Codes, types and status words, most specific first.
    pub(super) codes: Vec<String>,
    pub(super) message: Option<String>,
    /// Google's `RetryInfo.retryDelay`.
    pub(super) retry_delay: Option<String>,
}

impl Said {
    /// Reads any of the known shapes; a body that is none of them says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut said = Self::default();
        match serde_json::from_slice(body) {
            Ok(value) => said.value(&value, 0),
            // Ollama and some proxies answer with plain text; pages of HTML say nothing worth repeating.
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                let text = text.trim();
                if !text.is_empty() && !text.starts_with(['<', '{', '[']) {
                    said.message = Some(text.to_owned());
                }
            }
        }
        said
    }

    fn value(&mut self, value: &Value, depth: u8) {
        match value {
            // Google's streams put the error into an array; `errors` lists hold the first cause first.
            Value::Array(list) if depth < 4 => {
                if let Some(first) = list.first() {
                    self.value(first, depth + 1);
                }
            }
            Value::Object(object) if depth < 4 => self.object(object, depth),
            Value::String(text) => self.say(text),
            _ => {}
        }
    }

    fn object(&mut self, object: &Map<String, Value>, depth: u8) {
        // Outer members qualify inner ones, so the inner are read first.
        for name in ["error", "errors", "detail"] {
            if let Some(inner) = object.get(name) {
                self.value(inner, depth + 1);
            }
        }
        // Azure nests the filter's own code.
        if let Some(Value::Object(inner)) = object.get("innererror") {
            self.code(inner.get("code"));
        }
        if let Some(Value::Object(metadata)) = object.get("metadata") {
            self.code(metadata.get("error_type"));
            self.code(metadata.get("provider_code"));
        }
        for name in ["code", "type", "status", "error_type", "__type", "status_code"] {
            self.code(object.get(name));
        }
        for name in ["message", "Message", "msg"] {
            if let Some(Value::String(text)) = object.get(name) {
                self.say(text);
            }
        }
        for detail in object.get("details").and_then(Value::as_array).into_iter().flatten() {
            let kind = detail["@type"].as_str().unwrap_or_default();
            if kind.ends_with("RetryInfo") {
                self.retry_delay = detail["retryDelay"].as_str().map(str::to_owned);
            }
            if kind.ends_with("ErrorInfo") {
                self.code(detail.get("reason"));
            }
        }
    }

    fn code(&mut self, value: Option<&Value>) {
        match value {
            Some(Value::String(word)) if !word.is_empty() && word != "error" => self.codes.push(word.clone()),
            Some(Value::Number(number)) => self.codes.push(number.to_string()),
            _ => {}
        }
    }

    fn say(&mut self, text: &str) {
        if self.message.is_none() && !text.trim().is_empty() {
            self.message = Some(text.to_owned());
        }
    }
}

/// Beginnings of words that are credentials. Vendors repeat a wrong key in their 401, and not all of them mask it.
const SECRET_PREFIXES: [&str; 9] = ["sk-", "sk_", "pk-", "gsk_", "xai-", "key-", "AIza", "r8_", "hf_"];

/// At most `limit` bytes of `text`, without control characters and without anything that looks like a credential.
pub(super) fn shown(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    let mut secret = false;
    let mut boundary = true;
    for (index, c) in text.char_indices() {
        if out.len() + c.len_utf8() > limit {
            break;
        }
        let word = c.is_alphanumeric() || matches!(c, '-' | '_' | '*' | '.');
        if word && boundary {
            secret = SECRET_PREFIXES.iter().any(|prefix| text[index..].starts_with(prefix));
            if secret {
                out.push_str("[key]");
            }
        }
        boundary = !word;
        secret &= word;
        if !secret {
            out.push(if c.is_control() { ' ' } else { c });
        }
    }
    out.truncate(out.floor_char_boundary(limit));
    out
}
