//! Vendors as data: where each lives, how it authenticates, what it sends, and where it departs from its dialect.
//!
//! A provider that speaks a known dialect is one entry in `providers.toml`, or in a deployer's own file of the same form. What a
//! provider charges, which models it serves and where, is the catalogue's business and not here.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::{dialect::Dialect, rate_limit::RateLimitScheme, reasoning::Effort};

/// One vendor.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderInfo {
    /// Stable lower-case name in configuration, preferences and metric labels.
    pub slug: String,
    /// Display name, as callers see it in `provider`.
    pub name: String,
    /// Prefix of every path, without a trailing slash. `{…}` marks what the deployer must fill in, such as a region.
    pub base_url: String,
    /// What it speaks below that URL.
    #[serde(default = "openai_chat")]
    pub dialect: Dialect,
    /// Where the credential goes.
    #[serde(default)]
    pub auth: AuthScheme,
    /// Environment variables that customarily hold a key, most usual first.
    #[serde(default)]
    pub key_env: Vec<String>,
    /// Which rate-limit headers it answers with.
    #[serde(default)]
    pub rate_limits: RateLimitScheme,
    /// Whether closing a stream stops generation and billing.
    #[serde(default)]
    pub cancels_billing: bool,
    /// The chat path below the base URL, where it is not the dialect's own.
    #[serde(default)]
    pub chat_path: Option<String>,
    /// Where it departs from the dialect.
    #[serde(default)]
    pub quirks: Quirks,
    /// Fixed headers of every request.
    #[serde(default)]
    pub extra_headers: HashMap<String, String>,
    /// Vendor's privacy policy.
    #[serde(default)]
    pub privacy_policy_url: Option<String>,
    /// Vendor's terms.
    #[serde(default)]
    pub terms_of_service_url: Option<String>,
    /// Vendor's status page.
    #[serde(default)]
    pub status_page_url: Option<String>,
    /// ISO 3166 country of the company.
    #[serde(default)]
    pub headquarters: Option<String>,
    /// ISO 3166 countries it computes in.
    #[serde(default)]
    pub datacenters: Vec<String>,
}

/// Where the credential goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthScheme {
    /// `Authorization: Bearer <key>`.
    #[default]
    Bearer,
    /// A header of this name, holding the bare key.
    Header(String),
    /// A query parameter of this name.
    Query(String),
    /// No credential.
    None,
}

/// Departures from the dialect. The default is what OpenAI itself does, and what most copies do too.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quirks {
    /// How it wants the output limit to be called.
    pub max_tokens_field: MaxTokensField,
    /// Top-level fields it answers with 400 for, although callers may send them to others.
    pub rejects: Vec<String>,
    /// It accepts `stream_options.include_usage`.
    pub stream_options: bool,
    /// How it is told to reason.
    pub reasoning: ReasoningStyle,
    /// Effort names it accepts; others are replaced by the nearest. Empty = all of them.
    pub efforts: Vec<String>,
    /// It knows the role `developer`; otherwise the role is written `system`.
    pub developer_role: bool,
    /// It is a router itself and understands the gateway's own fields (`models`, `provider`, `plugins` …).
    pub aggregator: bool,
    /// It accepts `user`.
    pub user: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            max_tokens_field: MaxTokensField::AsSent,
            rejects: Vec::new(),
            stream_options: true,
            reasoning: ReasoningStyle::Effort,
            efforts: Vec::new(),
            developer_role: false,
            aggregator: false,
            user: true,
        }
    }
}

/// The name of the output limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaxTokensField {
    /// Both names are understood.
    #[default]
    AsSent,
    /// Only the older `max_tokens`.
    MaxTokens,
    /// Only the newer `max_completion_tokens`.
    MaxCompletionTokens,
}

/// How a provider is told to reason, or not to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasoningStyle {
    /// `reasoning_effort: "low" | "medium" | "high" …`
    #[default]
    Effort,
    /// The `reasoning` object of OpenRouter, as sent.
    Object,
    /// `thinking: {type: "enabled" | "disabled"}`.
    Thinking,
    /// `enable_thinking: bool` and `thinking_budget: tokens`.
    EnableThinking,
    /// `chat_template_kwargs: {enable_thinking: bool}`, as self-hosted engines take it.
    TemplateKwargs,
    /// It cannot be told; the fields are dropped.
    None,
}

impl ProviderInfo {
    /// A provider that keeps to its dialect: bearer key, no rate-limit headers, no quirks.
    pub fn new(slug: impl Into<String>, name: impl Into<String>, base_url: impl Into<String>, dialect: Dialect) -> Self {
        Self {
            slug: slug.into(),
            name: name.into(),
            base_url: base_url.into(),
            dialect,
            auth: AuthScheme::default(),
            key_env: Vec::new(),
            rate_limits: RateLimitScheme::default(),
            cancels_billing: false,
            chat_path: None,
            quirks: Quirks::default(),
            extra_headers: HashMap::new(),
            privacy_policy_url: None,
            terms_of_service_url: None,
            status_page_url: None,
            headquarters: None,
            datacenters: Vec::new(),
        }
    }

    /// The fixed headers, parsed; names and values were checked when the catalogue was read.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
        self.extra_headers.iter().filter_map(|(name, value)| Some((HeaderName::try_from(name.as_str()).ok()?, value.parse().ok()?)))
    }
}

/// A set of providers with unique slugs.
#[derive(Debug, Clone)]
pub struct ProviderCatalog {
    providers: Vec<ProviderInfo>,
}

/// Why a provider file was refused; names the entry and the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider `{entry}`: {detail}")]
pub struct ProviderError {
    /// Slug of the entry, or its position when it has none.
    pub entry: String,
    /// What is wrong with which key.
    pub detail: String,
}

impl ProviderCatalog {
    /// The providers that come with Tidegate.
    pub fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<ProviderCatalog> = LazyLock::new(|| {
            ProviderCatalog::parse(include_str!("providers.toml")).expect("the shipped file is part of the build and a test parses it")
        });
        &SHIPPED
    }

    /// Reads a file of `[[provider]]` tables. All problems are reported at once.
    pub fn parse(text: &str) -> Result<Self, Vec<ProviderError>> {
        let whole = |detail: String| vec![ProviderError { entry: "file".to_owned(), detail }];
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| whole(error.to_string()))?;
        let entries = match table.remove("provider") {
            Some(toml::Value::Array(entries)) => entries,
            Some(_) => return Err(whole("key `provider` must be an array of tables".to_owned())),
            None => Vec::new(),
        };
        if let Some(key) = table.keys().next() {
            return Err(whole(format!("unknown key `{key}`")));
        }
        let mut errors = Vec::new();
        let mut providers = Vec::with_capacity(entries.len());
        let mut slugs = HashSet::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let name = entry.get("slug").and_then(toml::Value::as_str).map_or_else(|| format!("#{}", index + 1), str::to_owned);
            let mut blame = |detail: String| errors.push(ProviderError { entry: name.clone(), detail });
            let provider: ProviderInfo = match entry.try_into() {
                Ok(provider) => provider,
                Err(error) => {
                    blame(error.to_string());
                    continue;
                }
            };
            provider.check(&mut blame);
            if !slugs.insert(provider.slug.clone()) {
                blame("key `slug` is used by another entry".to_owned());
            }
            providers.push(provider);
        }
        if errors.is_empty() { Ok(Self { providers }) } else { Err(errors) }
    }

    /// Every provider, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, ProviderInfo> {
        self.providers.iter()
    }

    /// The provider with this slug.
    pub fn get(&self, slug: &str) -> Option<&ProviderInfo> {
        self.providers.iter().find(|provider| provider.slug == slug)
    }
}

impl<'a> IntoIterator for &'a ProviderCatalog {
    type Item = &'a ProviderInfo;
    type IntoIter = std::slice::Iter<'a, ProviderInfo>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The providers that come with Tidegate.
pub fn providers() -> &'static [ProviderInfo] {
    &ProviderCatalog::shipped().providers
}

impl ProviderInfo {
    fn check(&self, blame: &mut impl FnMut(String)) {
        let slug_ok =
            !self.slug.is_empty() && self.slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        if !slug_ok {
            blame("key `slug` must be lower-case letters, digits, `-` and `.`".to_owned());
        }
        if self.name.trim().is_empty() {
            blame("key `name` must not be empty".to_owned());
        }
        if !(self.base_url.starts_with("https://") || self.base_url.starts_with("http://")) || self.base_url.ends_with('/') {
            blame("key `base_url` must be an http(s) URL without a trailing slash".to_owned());
        }
        if self.chat_path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            blame("key `chat_path` must start with a slash".to_owned());
        }
        if let AuthScheme::Header(name) = &self.auth
            && HeaderName::try_from(name.as_str()).is_err()
        {
            blame("key `auth.header` is no header name".to_owned());
        }
        for (name, value) in &self.extra_headers {
            if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::try_from(value.as_str()).is_err() {
                blame(format!("key `extra_headers.{name}` is no header"));
            }
        }
        for (key, url) in [
            ("privacy_policy_url", &self.privacy_policy_url),
            ("terms_of_service_url", &self.terms_of_service_url),
            ("status_page_url", &self.status_page_url),
        ] {
            if url.as_ref().is_some_and(|url| !url.starts_with("https://")) {
                blame(format!("key `{key}` must be an https URL"));
            }
        }
        for effort in &self.quirks.efforts {
            if Effort::parse(effort).is_none() {
                blame(format!("key `quirks.efforts` holds the unknown effort `{effort}`"));
            }
        }
        let country = |code: &String| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
        if !self.headquarters.iter().all(country) {
            blame("key `headquarters` must be an ISO country code".to_owned());
        }
        if !self.datacenters.iter().all(country) {
            blame("key `datacenters` must hold ISO country codes".to_owned());
        }
    }
}

fn openai_chat() -> Dialect {
    Dialect::OpenaiChat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_entry_parses_and_is_unique() {
        let catalog = ProviderCatalog::parse(include_str!("providers.toml")).unwrap();
        assert!(catalog.iter().count() >= 28, "{}", catalog.iter().count());
        let names: HashSet<_> = catalog.iter().map(|provider| &provider.name).collect();
        assert_eq!(names.len(), catalog.iter().count());
        for dialect in Dialect::ALL {
            assert!(catalog.iter().any(|provider| provider.dialect == dialect), "{dialect:?}");
        }
        assert!(catalog.get("openai").unwrap().cancels_billing);
        assert!(!catalog.get("groq").unwrap().cancels_billing);
    }

    #[test]
    fn errors_name_entry_and_key() {
        let text =
            "[[provider]]\nslug='a'\nname='A'\nbase_url='ftp://a'\n[[provider]]\nslug='b'\nname='B'\nbase_url='https://b'\nnonsense=1\n";
        let errors = ProviderCatalog::parse(text).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].to_string().contains("`a`") && errors[0].to_string().contains("`base_url`"), "{}", errors[0]);
        assert!(errors[1].to_string().contains("`b`") && errors[1].to_string().contains("nonsense"), "{}", errors[1]);
    }

    #[test]
    fn two_entries_may_not_share_a_slug() {
        let entry = "[[provider]]\nslug='a'\nname='A'\nbase_url='https://a'\n";
        let errors = ProviderCatalog::parse(&entry.repeat(2)).unwrap_err();
        assert!(errors[0].detail.contains("slug"));
    }
}
