//! Vendors and our accounts there.

use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::config::scalar::{Named, SecretRef, Span};

/// One vendor and how to reach it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Provider {
    /// Slug of a shipped provider to start from: address, dialect, authentication and quirks. Without it: the shipped provider of
    /// the same slug, if there is one.
    pub(crate) inherits: Option<String>,
    /// Shown to callers. Without it: the inherited name, else the slug.
    pub(crate) name: Option<String>,
    /// API shape it speaks. Without it: the inherited one, else `openai-chat`.
    pub(crate) dialect: Option<DialectName>,
    /// Address up to and including the version, such as `https://api.example.com/v1`.
    pub(crate) base_url: Option<String>,
    /// How credentials are sent: `bearer`, `header:NAME`, `query:NAME` or `none`. Without it: the inherited way, else `bearer`.
    pub(crate) auth: Option<Auth>,
    /// Our accounts. Several share the traffic by weight and stand in for each other. `none` for a provider that needs no key.
    /// Without it: the first well-known variable of the shipped provider that is set.
    pub(crate) credentials: Vec<Credential>,
    /// Headers sent with every request, such as an organisation id. Not for secrets.
    pub(crate) headers: Named<String>,
    /// Certificate authorities.
    pub(crate) tls: ProviderTls,
    /// Permit an `http://` address. Without it plain HTTP is permitted to loopback addresses only.
    pub(crate) allow_plain_http: bool,
    /// Permit private, link-local and other internal addresses. Loopback addresses written in `base_url` need no permission.
    pub(crate) allow_private_addresses: bool,
    /// HTTP version. Without it: `auto`.
    pub(crate) http: Option<UpstreamHttpName>,
    /// Time to establish a connection, TLS included. Without it: `5s`.
    pub(crate) connect_timeout: Option<Span>,
    /// Idle connections kept per worker. Without it: 64.
    pub(crate) idle_connections: Option<usize>,
    /// Idle connections are closed after this. Without it: `90s`.
    pub(crate) idle_timeout: Option<Span>,
    /// Send W3C `traceparent` to this provider.
    pub(crate) propagate_trace: bool,
    /// The provider stops billing when a stream is cancelled. Without it: what is known of the shipped provider.
    pub(crate) cancels_billing: Option<bool>,
    /// Which rate-limit headers it answers with. Without it: the inherited ones, else `none`.
    pub(crate) rate_limits: Option<RateLimitsName>,
    /// Path of chat completions below `base_url`, where it is not the dialect's own; starts with a slash.
    pub(crate) chat_path: Option<String>,
    /// Differences from the dialect. What is not given is inherited.
    pub(crate) quirks: Quirks,
}

/// Differences from the dialect.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Quirks {
    /// Name of the field that bounds the answer.
    pub(crate) max_tokens_field: Option<MaxTokensFieldName>,
    /// Request fields that it answers with an error; they are left out.
    pub(crate) rejects: Option<Vec<String>>,
    /// It takes `stream_options` and reports usage at the end of a stream.
    pub(crate) stream_options: Option<bool>,
    /// How it is told to reason.
    pub(crate) reasoning: Option<ReasoningName>,
    /// It knows the role `developer`; otherwise `system` is written.
    pub(crate) developer_role: Option<bool>,
    /// It is a router itself and understands `models`, `provider`, `plugins` and the like.
    pub(crate) aggregator: Option<bool>,
    /// It accepts `user`.
    pub(crate) user: Option<bool>,
}

/// Name of the field that bounds the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MaxTokensFieldName {
    /// Whatever the caller used: it understands both.
    AsSent,
    /// Only the older name.
    MaxTokens,
    /// Only the newer name.
    MaxCompletionTokens,
}

/// How a provider is told to reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReasoningName {
    /// `reasoning_effort: low | medium | high`.
    Effort,
    /// The `reasoning` object of OpenRouter.
    Object,
    /// `thinking: {type: enabled | disabled}`.
    Thinking,
    /// `enable_thinking` and `thinking_budget`.
    EnableThinking,
    /// `chat_template_kwargs: {enable_thinking: …}`, as self-hosted engines take it.
    TemplateKwargs,
    /// It cannot be told.
    None,
}

/// Which rate-limit headers a provider answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RateLimitsName {
    /// None.
    None,
    /// `x-ratelimit-…`.
    Openai,
    /// `anthropic-ratelimit-…`.
    Anthropic,
    /// OpenAI's with `-requests-day` and `-tokens-minute`.
    Cerebras,
    /// OpenAI's with `-tokens-per-minute` and `-tokens-per-day`.
    Digitalocean,
    /// `x-ratelimit-…` and `x-tokenlimit-…`.
    Together,
}

/// One account: a reference to its secret, or a mapping with more.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    pub(crate) name: Option<String>,
    pub(crate) secret: SecretRef,
    pub(crate) weight: Option<u32>,
    pub(crate) own_key: Option<bool>,
}

/// One account at a provider.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FullCredential {
    /// Name in logs and metrics. Without it: the name of the variable or file.
    name: Option<String>,
    /// Where the secret is found.
    secret: SecretRef,
    /// Share of requests relative to the provider's other credentials; 0 takes it out. Without it: 1.
    weight: Option<u32>,
    /// The account is the callers' own, so that the provider bills them: they are charged `fee.own_key_percent` only. Without it: `false`.
    own_key: Option<bool>,
}

/// Certificate authorities of a provider.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProviderTls {
    /// PEM files of additional authorities.
    pub(crate) extra_roots: Vec<PathBuf>,
    /// Trust only `extra_roots`, not the system's authorities.
    pub(crate) only_extra_roots: bool,
}

/// API shape of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DialectName {
    /// `POST /chat/completions` as OpenAI defined it.
    OpenaiChat,
    /// `POST /v1/messages` of Anthropic.
    AnthropicMessages,
    /// `models/{model}:generateContent` of Google.
    Gemini,
}

/// How credentials are sent: `bearer`, `header:NAME`, `query:NAME` or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Auth {
    Bearer,
    Header(String),
    Query(String),
    None,
}

/// HTTP version towards a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UpstreamHttpName {
    /// What TLS agrees on; HTTP/1.1 without TLS.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only, also without TLS.
    Http2,
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Credential;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a reference such as `env:OPENAI_API_KEY`, or a mapping with `secret`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Credential, E> {
                let secret = SecretRef::deserialize(de::value::StrDeserializer::new(text))?;
                Ok(Credential { name: None, secret, weight: None, own_key: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Credential, A::Error> {
                let FullCredential { name, secret, weight, own_key } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Credential { name, secret, weight, own_key })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Credential {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Credential".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "description": "An account at a provider: a reference to its secret, or a mapping with more.",
            "anyOf": [generator.subschema_for::<SecretRef>(), generator.subschema_for::<FullCredential>()],
        })
    }
}

impl<'de> Deserialize<'de> for Auth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Auth;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`bearer`, `header:NAME`, `query:NAME` or `none`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Auth, E> {
                match text.split_once(':') {
                    None if text == "bearer" => Ok(Auth::Bearer),
                    None if text == "none" => Ok(Auth::None),
                    Some(("header", name)) if http::HeaderName::try_from(name).is_ok() => Ok(Auth::Header(name.to_owned())),
                    Some(("query", name)) if !name.is_empty() => Ok(Auth::Query(name.to_owned())),
                    _ => Err(E::custom(
                        "not a way to send credentials\nallowed: `bearer`, `header:x-api-key` (or another header), `query:key`, `none`",
                    )),
                }
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Auth {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Auth".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "`bearer`, `header:NAME`, `query:NAME` or `none`.",
            "pattern": "^(bearer|none|header:.+|query:.+)$",
        })
    }
}
