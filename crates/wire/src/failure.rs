//! What an upstream's failure means.
//!
//! The status alone does not say: "no money left" is a 429 at OpenAI and a 400 at Anthropic, "prompt too long" is a 400 with a
//! different text everywhere. So the meaning is taken from the vendor's code first, its text second and the status last. What is
//! to be *done* about it is not decided here.

use std::time::Duration;

use http::HeaderMap;

use self::said::Said;
use crate::{dialect::Dialect, error::ErrorType, time};

mod meaning;
mod said;

/// Most characters of an upstream's message that are shown.
const MAX_MESSAGE: usize = 512;
/// Most bytes of an upstream's error body that are kept.
const MAX_RAW: usize = 2048;
/// Most bytes of an error body that are looked at.
const MAX_READ: usize = 64 * 1024;

/// One failed upstream attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// The upstream's HTTP status, if it gave one.
    pub status: Option<u16>,
    /// The type callers are told.
    pub error_type: ErrorType,
    /// The provider's own code or type.
    pub provider_code: Option<String>,
    /// What it said; bounded, and free of credentials. See [`Failure::public_message`] for what callers may read.
    pub message: String,
    /// When it wants to be asked again.
    pub retry_after: Option<Duration>,
    /// Its raw words; bounded.
    pub raw: Option<String>,
}

/// The meanings a failure can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Too many requests or tokens for now.
    RateLimited,
    /// The account has no money left; waiting does not help.
    CreditExhausted,
    /// The credential is not accepted.
    Unauthorized,
    /// The credential is accepted but may not do this.
    Forbidden,
    /// The provider does not serve this model.
    ModelNotFound,
    /// The prompt is longer than the model's context.
    ContextLength,
    /// The provider's content policy refused.
    ContentPolicy,
    /// The request itself is at fault.
    InvalidRequest,
    /// The body is too large for this provider.
    PayloadTooLarge,
    /// Understood but not processable.
    Unprocessable,
    /// The upstream or something between us ran out of time.
    Timeout,
    /// The upstream broke.
    Server,
    /// The upstream has no capacity now.
    Overloaded,
    /// The answer is not what the dialect prescribes.
    Malformed,
    /// The answer was well-formed and had nothing in it.
    Empty,
    /// The body ended before the answer did.
    Cut,
}

impl Failure {
    /// What a caller may read: the upstream's words where the request is at fault, our own where the upstream is.
    pub fn public_message(&self) -> &str {
        match self.kind {
            FailureKind::ContextLength
            | FailureKind::ContentPolicy
            | FailureKind::InvalidRequest
            | FailureKind::PayloadTooLarge
            | FailureKind::Unprocessable
            | FailureKind::ModelNotFound
            | FailureKind::Forbidden
            | FailureKind::RateLimited => &self.message,
            FailureKind::CreditExhausted | FailureKind::Unauthorized => "The provider did not accept the gateway's credential",
            FailureKind::Timeout => "The provider did not answer in time",
            FailureKind::Server => "The provider returned an error",
            FailureKind::Overloaded => "The provider is overloaded",
            FailureKind::Malformed => "The provider's answer could not be read",
            FailureKind::Empty => "The provider's answer was empty",
            FailureKind::Cut => "The provider's answer was cut off",
        }
    }

    /// A failure that we saw, rather than one that the upstream reported.
    pub(crate) fn seen(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            error_type: kind.error_type(),
            provider_code: None,
            message: message.into(),
            retry_after: None,
            raw: None,
        }
    }
}

impl FailureKind {
    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::CreditExhausted => "credit_exhausted",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ModelNotFound => "model_not_found",
            Self::ContextLength => "context_length",
            Self::ContentPolicy => "content_policy",
            Self::InvalidRequest => "invalid_request",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Unprocessable => "unprocessable",
            Self::Timeout => "timeout",
            Self::Server => "server",
            Self::Overloaded => "overloaded",
            Self::Malformed => "malformed",
            Self::Empty => "empty",
            Self::Cut => "cut",
        }
    }

    /// What callers are told. Trouble with *our* account at the provider is none of theirs: to them the provider is unavailable.
    fn error_type(self) -> ErrorType {
        match self {
            Self::RateLimited => ErrorType::RateLimitExceeded,
            Self::Forbidden => ErrorType::PermissionDenied,
            Self::ModelNotFound => ErrorType::NotFound,
            Self::ContextLength => ErrorType::ContextLengthExceeded,
            Self::ContentPolicy => ErrorType::ContentPolicyViolation,
            Self::InvalidRequest => ErrorType::InvalidRequest,
            Self::PayloadTooLarge => ErrorType::PayloadTooLarge,
            Self::Unprocessable => ErrorType::Unprocessable,
            Self::Timeout => ErrorType::Timeout,
            Self::Overloaded => ErrorType::ProviderOverloaded,
            Self::CreditExhausted | Self::Unauthorized | Self::Server | Self::Malformed | Self::Empty | Self::Cut => {
                ErrorType::ProviderUnavailable
            }
        }
    }
}

/// Says what an unsuccessful answer means, from its status, its headers and whatever body there is. `unix_now` is in seconds.
pub fn classify(dialect: Dialect, status: u16, headers: &HeaderMap, body: &[u8], unix_now: u64) -> Failure {
    let mut said = Said::read(&body[..body.len().min(MAX_READ)]);
    // Bedrock names its exception in a header: `ThrottlingException:http://…`.
    if let Some(exception) = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok()) {
        said.codes.push(exception.split(':').next().unwrap_or_default().to_owned());
    }
    let retry_after = retry_after(headers, unix_now).or_else(|| time::parse_wait(said.retry_delay.as_deref()?, unix_now));
    build(dialect, Some(status), said, retry_after, body)
}

/// When the upstream wants to be asked again: `retry-after-ms`, else `retry-after` in any of the forms vendors use.
/// `unix_now` is in seconds.
pub fn retry_after(headers: &HeaderMap, unix_now: u64) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let millis = text("retry-after-ms").and_then(|text| text.trim().parse::<f64>().ok());
    if let Some(wait) = millis.filter(|millis| *millis >= 0.0).and_then(|millis| time::seconds(millis / 1000.0)) {
        return Some(wait);
    }
    time::parse_wait(text("retry-after")?, unix_now)
}

/// An error object inside a stream, or inside a body that came with a success status. An integer code counts as its status.
pub(crate) fn reported_in_body(error: &[u8]) -> Failure {
    let said = Said::read(&error[..error.len().min(MAX_READ)]);
    let status = said.codes.iter().find_map(|code| code.parse().ok()).filter(|code| (400..600).contains(code));
    let retry_after = said.retry_delay.as_deref().and_then(|delay| time::parse_wait(delay, 0));
    build(Dialect::OpenaiChat, status, said, retry_after, error)
}

/// A success without choices: an error in disguise if it says something, else an empty answer.
pub(crate) fn without_choices(body: &[u8]) -> Failure {
    let said = Said::read(&body[..body.len().min(MAX_READ)]);
    if said.message.is_none() {
        return Failure::seen(FailureKind::Empty, "the upstream's answer had no choices");
    }
    build(Dialect::OpenaiChat, None, said, None, body)
}

fn build(dialect: Dialect, status: Option<u16>, said: Said, retry_after: Option<Duration>, body: &[u8]) -> Failure {
    let meaning = meaning::of(dialect, status, &said);
    let message = match said.message {
        Some(message) => said::shown(&message, MAX_MESSAGE),
        None => match status {
            Some(status) => format!("the upstream answered with status {status}"),
            None => "the upstream reported an error".to_owned(),
        },
    };
    let raw = String::from_utf8_lossy(&body[..body.len().min(MAX_RAW)]);
    Failure {
        kind: meaning.kind,
        status,
        error_type: meaning.error_type.unwrap_or(meaning.kind.error_type()),
        provider_code: said.codes.into_iter().find(|code| code.parse::<u16>().is_err()).map(|code| said::shown(&code, 64)),
        message,
        retry_after,
        raw: Some(said::shown(&raw, MAX_RAW)).filter(|raw| !raw.is_empty()),
    }
}

#[cfg(test)]
mod tests;
