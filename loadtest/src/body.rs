//! Request bodies that look like what chat clients send: a system prompt, then turns of a conversation, up to a wanted size.
//!
//! Deterministic in the seed, so that every process under test reads the same bytes; several variants, so that a cache keyed by
//! the conversation is not asked for one entry only.

use fastrand::Rng;
use serde_json::json;

/// A vocabulary with the marks that JSON must escape, so that parsers pay what they pay in practice.
const WORDS: &[&str] = &[
    "the",
    "request",
    "was",
    "routed",
    "through",
    "another",
    "region",
    "because",
    "latency",
    "rose",
    "above",
    "its",
    "usual",
    "bound",
    "please",
    "explain",
    "why",
    "this",
    "function",
    "returns",
    "early",
    "when",
    "list",
    "is",
    "empty",
    "and",
    "rewrite",
    "it",
    "so",
    "that",
    "errors",
    "are",
    "visible",
    "to",
    "caller",
    "\"quoted\"",
    "naïve",
    "C:\\temp",
    "line\nbreak",
    "tabs\there",
    "42",
    "3.14",
    "résumé",
    "→",
    "summary",
    "of",
    "quarterly",
    "figures",
    "in",
    "three",
    "sentences",
    "without",
    "jargon",
];

/// A chat request for `model` of about `bytes` bytes; never smaller than its fixed parts (about 300 bytes).
pub(crate) fn chat_request(model: &str, stream: bool, bytes: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let mut messages = vec![json!({"role": "system", "content": format!("You are assistant {seed}. Answer briefly and precisely.")})];
    let request = |messages: &[serde_json::Value]| {
        let mut body = json!({"model": model, "messages": messages, "temperature": 0.7, "max_tokens": 256});
        if stream {
            body["stream"] = json!(true);
        }
        serde_json::to_vec(&body).unwrap_or_default()
    };
    let mut size = request(&messages).len();
    let mut user = true;
    while size < bytes {
        // A turn costs about 40 bytes of structure; turns of up to 4 KB keep the number of messages realistic.
        let text = sentence(&mut rng, (bytes - size).saturating_sub(40).clamp(8, 4096));
        let message = json!({"role": if user { "user" } else { "assistant" }, "content": text});
        size += serde_json::to_vec(&message).map_or(0, |bytes| bytes.len()) + 1;
        messages.push(message);
        user = !user;
    }
    if user && messages.len() > 1 {
        // The last word belongs to the caller.
        messages.push(json!({"role": "user", "content": "Go on."}));
    } else if messages.len() == 1 {
        messages.push(json!({"role": "user", "content": "Hello."}));
    }
    request(&messages)
}

/// Words up to about `bytes` bytes as JSON.
fn sentence(rng: &mut Rng, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    // Every tenth word needs one more byte when escaped; close enough for "about".
    while text.len() + text.len() / 32 < bytes {
        text.push_str(WORDS[rng.usize(..WORDS.len())]);
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_wanted_size_and_are_valid() {
        for (bytes, stream) in [(2_000, false), (20_000, true), (200_000, false), (1_000_000, false)] {
            let body = chat_request("bench/json", stream, bytes, 7);
            assert!(body.len() >= bytes && body.len() < bytes + bytes / 20 + 100, "{} for {bytes}", body.len());
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["model"], "bench/json");
            assert_eq!(value["stream"].as_bool().unwrap_or(false), stream);
            let messages = value["messages"].as_array().unwrap();
            assert_eq!(messages.last().unwrap()["role"], "user");
        }
    }

    #[test]
    fn the_seed_decides_the_bytes() {
        assert_eq!(chat_request("m", false, 2_000, 1), chat_request("m", false, 2_000, 1));
        assert_ne!(chat_request("m", false, 2_000, 1), chat_request("m", false, 2_000, 2));
    }

    #[test]
    fn the_model_is_named_once() {
        let body = chat_request("bench/json", false, 20_000, 3);
        assert_eq!(memchr::memmem::find_iter(&body, b"\"model\"").count(), 1);
    }
}
