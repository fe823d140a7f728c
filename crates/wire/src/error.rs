//! What callers are told when something goes wrong: the closed vocabulary of error types and the JSON body around it.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::{facts::Stamp, json};

/// A request that was refused before any upstream saw it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// HTTP status to answer with.
    pub status: u16,
    /// Its type for callers.
    pub error_type: ErrorType,
    /// Path of the offending field, such as `messages[2].role`.
    pub param: Option<String>,
    /// What is wrong, safe to show. Never contains the value of a field that may hold prompt text.
    pub message: String,
}

impl RequestError {
    /// An ordinary 400 that blames one field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: ErrorType::InvalidRequest.status(),
            error_type: ErrorType::InvalidRequest,
            param: Some(param.into()),
            message: message.into(),
        }
    }

    /// The answer to give for it; a fault of our own is masked.
    pub fn body(&self) -> ErrorBody<'_> {
        let own = self.status == 500;
        ErrorBody {
            code: self.status,
            message: if own { ErrorBody::MASKED } else { &self.message },
            error_type: (!own).then_some(self.error_type),
            param: self.param.as_deref(),
            ..ErrorBody::default()
        }
    }

    /// A refusal that concerns the request as a whole.
    pub fn of(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self { status: error_type.status(), error_type, param: None, message: message.into() }
    }
}

/// The stable vocabulary of `error_type`, with the HTTP status each goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation: they are the wire vocabulary itself")]
pub enum ErrorType {
    ContextLengthExceeded,
    MaxTokensExceeded,
    TokenLimitExceeded,
    StringTooLong,
    Authentication,
    PermissionDenied,
    PaymentRequired,
    RateLimitExceeded,
    ProviderOverloaded,
    ProviderUnavailable,
    InvalidRequest,
    InvalidPrompt,
    NotFound,
    PreconditionFailed,
    PayloadTooLarge,
    Unprocessable,
    ContentPolicyViolation,
    Refusal,
    InvalidImage,
    ImageTooLarge,
    ImageTooSmall,
    UnsupportedImageFormat,
    ImageDownloadFailed,
    ImageNotFound,
    Server,
    Timeout,
    Unmapped,
}

impl ErrorType {
    /// Every value, for metrics that must know their labels beforehand.
    pub const ALL: [Self; 27] = [
        Self::ContextLengthExceeded,
        Self::MaxTokensExceeded,
        Self::TokenLimitExceeded,
        Self::StringTooLong,
        Self::Authentication,
        Self::PermissionDenied,
        Self::PaymentRequired,
        Self::RateLimitExceeded,
        Self::ProviderOverloaded,
        Self::ProviderUnavailable,
        Self::InvalidRequest,
        Self::InvalidPrompt,
        Self::NotFound,
        Self::PreconditionFailed,
        Self::PayloadTooLarge,
        Self::Unprocessable,
        Self::ContentPolicyViolation,
        Self::Refusal,
        Self::InvalidImage,
        Self::ImageTooLarge,
        Self::ImageTooSmall,
        Self::UnsupportedImageFormat,
        Self::ImageDownloadFailed,
        Self::ImageNotFound,
        Self::Server,
        Self::Timeout,
        Self::Unmapped,
    ];

    /// The word on the wire, also the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::MaxTokensExceeded => "max_tokens_exceeded",
            Self::TokenLimitExceeded => "token_limit_exceeded",
            Self::StringTooLong => "string_too_long",
            Self::Authentication => "authentication",
            Self::PermissionDenied => "permission_denied",
            Self::PaymentRequired => "payment_required",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::ProviderOverloaded => "provider_overloaded",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidPrompt => "invalid_prompt",
            Self::NotFound => "not_found",
            Self::PreconditionFailed => "precondition_failed",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Unprocessable => "unprocessable",
            Self::ContentPolicyViolation => "content_policy_violation",
            Self::Refusal => "refusal",
            Self::InvalidImage => "invalid_image",
            Self::ImageTooLarge => "image_too_large",
            Self::ImageTooSmall => "image_too_small",
            Self::UnsupportedImageFormat => "unsupported_image_format",
            Self::ImageDownloadFailed => "image_download_failed",
            Self::ImageNotFound => "image_not_found",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Unmapped => "unmapped",
        }
    }

    /// The HTTP status it is answered with.
    pub fn status(self) -> u16 {
        match self {
            Self::ContextLengthExceeded
            | Self::MaxTokensExceeded
            | Self::TokenLimitExceeded
            | Self::StringTooLong
            | Self::InvalidRequest
            | Self::InvalidPrompt
            | Self::ContentPolicyViolation
            | Self::Refusal
            | Self::InvalidImage
            | Self::ImageTooLarge
            | Self::ImageTooSmall
            | Self::UnsupportedImageFormat
            | Self::ImageDownloadFailed => 400,
            Self::Authentication => 401,
            Self::PaymentRequired => 402,
            Self::PermissionDenied => 403,
            Self::NotFound | Self::ImageNotFound => 404,
            Self::PreconditionFailed => 412,
            Self::PayloadTooLarge => 413,
            Self::Unprocessable => 422,
            Self::RateLimitExceeded => 429,
            Self::Server | Self::Unmapped => 500,
            Self::ProviderUnavailable => 502,
            Self::ProviderOverloaded => 503,
            Self::Timeout => 504,
        }
    }
}

/// One failed attempt, as callers may see it: never the upstream's raw body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousError {
    /// Display name of the provider.
    pub provider: String,
    /// What it said, or our own word for it.
    pub code: String,
    /// Its HTTP status; 0 when there was none.
    pub status: u16,
}

/// Why nobody could serve the request, and whether asking again may help.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Availability {
    /// A word of the availability vocabulary, such as `constraint_filtered`.
    pub code: &'static str,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What the caller asked for.
    pub requested_models: Vec<String>,
    /// Where this is explained.
    pub docs_url: String,
    /// How long to wait, when known.
    pub retry_after: Option<Duration>,
    /// Providers that were tried or removed.
    pub affected_providers: Vec<String>,
    /// Which filters emptied the set.
    pub excluded_by: Vec<String>,
    /// Models that would be served.
    pub fallback_models: Vec<String>,
    /// The field of the request that decided, and the detail.
    pub constraint: Option<(String, String)>,
}

/// An error answer. Absent fields are left out of the JSON, never written empty.
#[derive(Debug, Clone, Default)]
pub struct ErrorBody<'a> {
    /// `error.code`, equal to the HTTP status before the first byte.
    pub code: u16,
    /// `error.message`; the caller of this type has masked what must be masked (see [`ErrorBody::MASKED`]).
    pub message: &'a str,
    /// `error.metadata.error_type`.
    pub error_type: Option<ErrorType>,
    /// `error.param`: the field to blame.
    pub param: Option<&'a str>,
    /// Who failed.
    pub provider_name: Option<&'a str>,
    /// The provider's own error code.
    pub provider_code: Option<&'a str>,
    /// The provider's own words, bounded.
    pub raw: Option<&'a str>,
    /// What was tried before.
    pub previous_errors: &'a [PreviousError],
    /// Why nobody serves it.
    pub availability: Option<Availability>,
    /// Seconds to wait, in `metadata.retry_after`; rounded up.
    pub retry_after: Option<Duration>,
    /// `metadata.reason`, for instance `in_flight_budget_exhausted`.
    pub reason: Option<&'a str>,
    /// `metadata.limit_source`: whose limit.
    pub limit_source: Option<&'a str>,
    /// `metadata.remedy_hint`: what to do about it.
    pub remedy_hint: Option<&'a str>,
    /// More members of `metadata`: name and raw JSON.
    pub extra: &'a [(&'a str, &'a str)],
    /// Router metadata as raw JSON, a sibling of `error`.
    pub router_metadata: Option<&'a str>,
    /// Name of that sibling.
    pub metadata_field: &'a str,
    /// `user_id` at the top level.
    pub user_id: Option<&'a str>,
}

impl ErrorBody<'_> {
    /// What callers read instead of the details of an internal fault.
    pub const MASKED: &'static str = "Internal server error. The request was not completed.";

    /// The JSON body.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.push(b'{');
        self.write_members(&mut out);
        out.push(b'}');
        out
    }

    fn write_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"error\":{\"code\":");
        json::write_integer(out, u64::from(self.code));
        let mut error = json::Members::continuing(out);
        error.string("message", self.message);
        error.optional_string("param", self.param);
        if self.has_metadata() {
            let out = error.key("metadata");
            out.push(b'{');
            let mut metadata = json::Members::starting(out);
            metadata.optional_string("error_type", self.error_type.map(ErrorType::as_str));
            metadata.optional_string("provider_name", self.provider_name);
            metadata.optional_string("provider_code", self.provider_code);
            metadata.optional_string("raw", self.raw);
            if !self.previous_errors.is_empty() {
                write_previous(metadata.key("previous_errors"), self.previous_errors);
            }
            if let Some(wait) = self.retry_after {
                json::write_integer(metadata.key("retry_after"), seconds_up(wait));
            }
            metadata.optional_string("reason", self.reason);
            metadata.optional_string("limit_source", self.limit_source);
            metadata.optional_string("remedy_hint", self.remedy_hint);
            for (name, raw) in self.extra {
                metadata.raw(name, raw.as_bytes());
            }
            out.push(b'}');
        }
        if let Some(availability) = &self.availability {
            availability.write(error.key("availability"));
        }
        out.push(b'}');
        let mut top = json::Members::continuing(out);
        if let Some(raw) = self.router_metadata.filter(|_| !self.metadata_field.is_empty()) {
            top.raw(self.metadata_field, raw.as_bytes());
        }
        top.optional_string("user_id", self.user_id);
    }

    fn has_metadata(&self) -> bool {
        self.error_type.is_some()
            || self.provider_name.is_some()
            || self.provider_code.is_some()
            || self.raw.is_some()
            || !self.previous_errors.is_empty()
            || self.retry_after.is_some()
            || self.reason.is_some()
            || self.limit_source.is_some()
            || self.remedy_hint.is_some()
            || !self.extra.is_empty()
    }
}

impl Availability {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut members = json::Members::starting(out);
        members.string("code", self.code);
        members.raw("retryable", if self.retryable { b"true" } else { b"false" });
        write_strings(members.key("requested_models"), &self.requested_models);
        members.string("docs_url", &self.docs_url);
        if let Some(wait) = self.retry_after {
            json::write_integer(members.key("retry_after"), seconds_up(wait));
        }
        for (name, list) in [
            ("affected_providers", &self.affected_providers),
            ("excluded_by", &self.excluded_by),
            ("fallback_models", &self.fallback_models),
        ] {
            if !list.is_empty() {
                write_strings(members.key(name), list);
            }
        }
        if let Some((field, detail)) = &self.constraint {
            let out = members.key("constraint");
            out.push(b'{');
            let mut constraint = json::Members::starting(out);
            constraint.string("field", field);
            constraint.string("detail", detail);
            out.push(b'}');
        }
        out.push(b'}');
    }
}

/// Writes the last event of a stream that failed after its first byte: a chunk with the error at its top level and
/// `finish_reason: "error"`, then `[DONE]`. The status stays 200, so this is all the caller learns.
pub fn write_stream_error(stamp: &Stamp, error: &ErrorBody<'_>, out: &mut BytesMut) {
    let mut chunk = Vec::with_capacity(384);
    chunk.push(b'{');
    let mut members = json::Members::starting(&mut chunk);
    members.string("id", &stamp.generation_id);
    members.string("object", "chat.completion.chunk");
    json::write_integer(members.key("created"), stamp.created);
    members.string("model", &stamp.model);
    members.string("provider", &stamp.provider);
    chunk.push(b',');
    error.write_members(&mut chunk);
    chunk.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":\"error\",\"native_finish_reason\":\"error\"}]}");
    out.reserve(chunk.len() + 24);
    out.put_slice(b"data: ");
    out.put_slice(&chunk);
    out.put_slice(b"\n\ndata: [DONE]\n\n");
}

fn write_previous(out: &mut Vec<u8>, errors: &[PreviousError]) {
    out.push(b'[');
    for (index, error) in errors.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        let mut members = json::Members::starting(out);
        members.string("provider", &error.provider);
        members.string("code", &error.code);
        json::write_integer(members.key("status"), u64::from(error.status));
        out.push(b'}');
    }
    out.push(b']');
}

fn write_strings(out: &mut Vec<u8>, list: &[String]) {
    out.push(b'[');
    for (index, text) in list.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_string(out, text);
    }
    out.push(b']');
}

fn seconds_up(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> serde_json::Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn absent_fields_are_left_out() {
        let body = ErrorBody { code: 400, message: "no \"model\"", ..ErrorBody::default() };
        assert_eq!(parse(&body.to_json()), serde_json::json!({"error": {"code": 400, "message": "no \"model\""}}));
    }

    #[test]
    fn a_full_error_keeps_every_part_in_its_place() {
        let previous = [PreviousError { provider: "A".into(), code: "429".into(), status: 429 }];
        let body = ErrorBody {
            code: 503,
            message: "all providers are overloaded",
            error_type: Some(ErrorType::ProviderOverloaded),
            provider_name: Some("A"),
            previous_errors: &previous,
            retry_after: Some(Duration::from_millis(1500)),
            extra: &[("patterns", "[\"x\"]")],
            availability: Some(Availability {
                code: "temporarily_unavailable",
                retryable: true,
                requested_models: vec!["a/b".into()],
                docs_url: "https://example.org".into(),
                excluded_by: vec!["max_price".into()],
                constraint: Some(("provider.max_price".into(), "nothing is that cheap".into())),
                ..Availability::default()
            }),
            router_metadata: Some("{\"attempt\":0}"),
            metadata_field: "openrouter_metadata",
            user_id: Some("u"),
            ..ErrorBody::default()
        };
        assert_eq!(
            parse(&body.to_json()),
            serde_json::json!({
                "error": {
                    "code": 503,
                    "message": "all providers are overloaded",
                    "metadata": {
                        "error_type": "provider_overloaded",
                        "provider_name": "A",
                        "previous_errors": [{"provider": "A", "code": "429", "status": 429}],
                        "retry_after": 2,
                        "patterns": ["x"]
                    },
                    "availability": {
                        "code": "temporarily_unavailable",
                        "retryable": true,
                        "requested_models": ["a/b"],
                        "docs_url": "https://example.org",
                        "excluded_by": ["max_price"],
                        "constraint": {"field": "provider.max_price", "detail": "nothing is that cheap"}
                    }
                },
                "openrouter_metadata": {"attempt": 0},
                "user_id": "u"
            })
        );
    }

    #[test]
    fn a_stream_error_is_one_chunk_and_the_end() {
        let stamp = Stamp { generation_id: "gen-1".into(), model: "a/b".into(), provider: "A".into(), created: 7 };
        let mut out = BytesMut::new();
        write_stream_error(&stamp, &ErrorBody { code: 502, message: "cut", ..ErrorBody::default() }, &mut out);
        let text = std::str::from_utf8(&out).unwrap();
        let chunk = text.strip_prefix("data: ").unwrap().strip_suffix("\n\ndata: [DONE]\n\n").unwrap();
        let chunk = parse(chunk.as_bytes());
        assert_eq!(chunk["error"]["code"], 502);
        assert_eq!(chunk["choices"][0]["finish_reason"], "error");
        assert_eq!(chunk["choices"][0]["delta"]["content"], "");
    }

    #[test]
    fn every_type_has_its_own_word() {
        let words: std::collections::HashSet<_> = ErrorType::ALL.iter().map(|t| t.as_str()).collect();
        assert_eq!(words.len(), ErrorType::ALL.len());
    }
}
