//! Patterns with `*`.

/// Whether `text` matches `pattern`, where `*` stands for any number of characters. Case does not matter.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut parts = pattern.split('*');
    // `split` yields at least one part.
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("openai/*", "openai/gpt-5", true),
            ("*/claude-*", "anthropic/claude-haiku", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*bc", "abcbc", true),
            ("OpenAI/*", "openai/x", true),
            ("openai/gpt-5", "openai/gpt-5-mini", false),
            ("*mini", "gpt-mini-2", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
