//! A request as it arrived, and the little that is read from it without knowing its dialect.

use std::time::Instant;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// Number of the request, from 1.
    pub number: u64,
    /// When its body was complete.
    pub at: Instant,
    /// Method.
    pub method: Method,
    /// Path.
    pub path: String,
    /// What follows the question mark; empty when there is none.
    pub query: String,
    /// Headers, keys included.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl RecordedRequest {
    /// The body as JSON, `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The key in any of the places where providers look for it.
    pub(crate) fn presented_key(&self) -> Option<String> {
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let header = ["x-api-key", "x-goog-api-key", "api-key"].into_iter().find_map(text);
        let query = self.query.split('&').find_map(|pair| pair.strip_prefix("key="));
        bearer.or(header).or(query).map(str::to_owned)
    }

    /// The request as a JSON text.
    pub(crate) fn echo(&self) -> String {
        let mut headers: Map<String, Value> = Map::new();
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            match headers.get_mut(name.as_str()) {
                Some(Value::String(all)) => {
                    all.push_str(", ");
                    all.push_str(&value);
                }
                _ => {
                    headers.insert(name.as_str().to_owned(), Value::String(value.into_owned()));
                }
            }
        }
        json!({
            "method": self.method.as_str(),
            "path": self.path,
            "query": self.query,
            "headers": headers,
            "body": self.json(),
        })
        .to_string()
    }

    /// Whether the body says `"stream": true`, without parsing it.
    pub(crate) fn asks_for_stream(&self) -> bool {
        memchr::memmem::find_iter(&self.body, br#""stream""#).any(|at| {
            let rest = self.body.get(at + br#""stream""#.len()..).unwrap_or_default().trim_ascii_start();
            let value = rest.strip_prefix(b":").unwrap_or_default().trim_ascii_start();
            value.starts_with(b"true")
        })
    }
}
