//! Names of providers and models across lists.

use tidegate_wire::ProviderCatalog;

/// Names that lists use for providers that we know under another slug.
const PROVIDERS: [(&str, &str); 18] = [
    ("google", "google-ai-studio"),
    ("gemini", "google-ai-studio"),
    ("bedrock", "amazon-bedrock"),
    ("together_ai", "together"),
    ("togetherai", "together"),
    ("fireworks_ai", "fireworks"),
    ("fireworks-ai", "fireworks"),
    ("cohere_chat", "cohere"),
    ("x-ai", "xai"),
    ("zai", "z-ai"),
    ("moonshotai", "moonshot"),
    ("dashscope", "alibaba"),
    ("novita-ai", "novita"),
    ("nvidia_nim", "nvidia"),
    ("lambda_ai", "lambda"),
    ("huggingface", "hugging-face"),
    ("vercel_ai_gateway", "vercel"),
    ("mistralai", "mistral"),
];

/// Authors under other names than the ones most lists agree on.
const AUTHORS: [(&str, &str); 12] = [
    ("deepseek-ai", "deepseek"),
    ("zai-org", "z-ai"),
    ("thudm", "z-ai"),
    ("minimaxai", "minimax"),
    ("meta", "meta-llama"),
    ("mistral", "mistralai"),
    ("xai", "x-ai"),
    ("moonshot", "moonshotai"),
    ("gemini", "google"),
    ("qwen3", "qwen"),
    ("alibaba", "qwen"),
    ("coherelabs", "cohere"),
];

/// Families whose names tell the author.
const FAMILIES: [(&str, &str); 26] = [
    ("gpt", "openai"),
    ("chatgpt", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("claude", "anthropic"),
    ("gemini", "google"),
    ("gemma", "google"),
    ("llama", "meta-llama"),
    ("mistral", "mistralai"),
    ("ministral", "mistralai"),
    ("magistral", "mistralai"),
    ("devstral", "mistralai"),
    ("codestral", "mistralai"),
    ("mixtral", "mistralai"),
    ("pixtral", "mistralai"),
    ("deepseek", "deepseek"),
    ("qwen", "qwen"),
    ("qwq", "qwen"),
    ("grok", "x-ai"),
    ("kimi", "moonshotai"),
    ("glm", "z-ai"),
    ("minimax", "minimax"),
    ("command", "cohere"),
    ("nemotron", "nvidia"),
    ("sonar", "perplexity"),
];

/// Our slug of a provider that ships with Tidegate; `None` for one that does not.
pub(crate) fn provider(theirs: &str) -> Option<&'static str> {
    let theirs = theirs.to_lowercase();
    let slug = PROVIDERS.iter().find(|(other, _)| *other == theirs).map_or(theirs.as_str(), |(_, ours)| ours);
    ProviderCatalog::shipped().get(slug).map(|info| info.slug.as_str())
}

/// `author/name` in lower case for what a provider calls a model; `None` when the author cannot be told.
pub(crate) fn model(upstream: &str) -> Option<String> {
    let lower = upstream.to_lowercase();
    let mut segments = lower.rsplit('/');
    let name = segments.next().filter(|name| !name.is_empty())?;
    let author = segments.next().filter(|author| !matches!(*author, "models" | "routers" | "instant"));
    let author = match author {
        Some(author) => AUTHORS.iter().find(|(other, _)| *other == author).map_or(author, |(_, ours)| ours),
        None => FAMILIES.iter().find(|(family, _)| name.starts_with(family)).map(|(_, author)| *author)?,
    };
    Some(format!("{author}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_get_the_names_that_lists_agree_on() {
        for (upstream, slug) in [
            ("gpt-5.4-mini", Some("openai/gpt-5.4-mini")),
            ("openai/gpt-oss-120b", Some("openai/gpt-oss-120b")),
            ("deepseek-ai/DeepSeek-V3.1", Some("deepseek/deepseek-v3.1")),
            ("accounts/fireworks/models/kimi-k3", Some("moonshotai/kimi-k3")),
            ("zai-org/GLM-5.1", Some("z-ai/glm-5.1")),
            ("house-blend-7b", None),
            ("", None),
        ] {
            assert_eq!(model(upstream).as_deref(), slug, "{upstream}");
        }
    }

    #[test]
    fn providers_are_found_under_the_names_of_lists() {
        assert_eq!(provider("openai"), Some("openai"));
        assert_eq!(provider("fireworks_ai"), Some("fireworks"));
        assert_eq!(provider("nobody-knows"), None);
    }
}
