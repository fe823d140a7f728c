//! Keeps secrets out of messages.
//!
//! A configuration holds references, but people paste the secret itself, and a caret under it would copy it into a terminal or a log.
//! So the texts that messages quote from are masked first: what stands where a secret reference belongs, and what looks like a key of
//! a well-known vendor anywhere else. Masks keep the length, so that carets stay where they are.

use super::problem::Source;
use super::tree::{Node, Value};

/// Masks secrets in the quoted texts.
pub(crate) fn secrets(tree: &Node, sources: &mut [Source]) {
    visit(tree, false, sources);
    unreadable(sources);
}

/// Masks what looks like a secret in texts of which no more is known.
pub(crate) fn unreadable(sources: &mut [Source]) {
    for source in sources {
        source.text = mask_key_shapes(&source.text);
    }
}

/// Keys whose values are references to secrets.
const SECRET_KEYS: [&str; 4] = ["credentials", "secret", "keys_pepper", "digest"];
/// How what belongs there begins.
const REFERENCES: [&str; 3] = ["env:", "file:", "blake3:"];
/// How keys of well-known vendors, and our own, begin.
const KEY_PREFIXES: [&str; 12] = ["sk-", "tg_live_", "tg_test_", "gsk_", "xai-", "AIza", "csk-", "fw_", "hf_", "nvapi-", "pplx-", "key-"];
/// Shorter words are not keys.
const SHORTEST_KEY: usize = 20;

fn visit(node: &Node, secret: bool, sources: &mut [Source]) {
    match &node.value {
        Value::Scalar { text, .. } if secret => {
            let reference = REFERENCES.iter().any(|prefix| text.starts_with(prefix)) || text == "none";
            if !reference && let Some(source) = sources.get_mut(node.span.source) {
                let range = node.span.range.clone();
                source.text.replace_range(range.clone(), &masked(&source.text[range]));
            }
        }
        Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter().for_each(|item| visit(item, secret, sources)),
        Value::Mapping(entries) => {
            for entry in entries {
                // A credential's own name and weight are not secret.
                let inside = secret && !matches!(entry.key.as_str(), "name" | "weight");
                let secret = inside || SECRET_KEYS.contains(&entry.key.as_str());
                visit(&entry.node, secret, sources);
            }
        }
    }
}

fn mask_key_shapes(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        out.push_str(before);
        let key = word.len() >= SHORTEST_KEY && KEY_PREFIXES.iter().any(|prefix| word.starts_with(prefix));
        if key {
            out.push_str(&masked(word))
        } else {
            out.push_str(word)
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// As many bytes as before, line breaks kept.
fn masked(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { '*' }).collect()
}
