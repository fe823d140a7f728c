//! What an upstream's failure means.

use std::time::Duration;

use http::HeaderMap;

use crate::{dialect::Dialect, error::ErrorType};

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
    /// What it said; bounded and safe to show.
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
    /// A failure that we saw, rather than one that the upstream reported.
    pub(crate) fn seen(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            error_type: ErrorType::ProviderUnavailable,
            provider_code: None,
            message: message.into(),
            retry_after: None,
            raw: None,
        }
    }
}

/// Says what an unsuccessful answer means, from its status, its headers and whatever body there is.
pub fn classify(dialect: Dialect, status: u16, headers: &HeaderMap, body: &[u8], unix_now: u64) -> Failure {
    let _ = (dialect, body);
    Failure {
        status: Some(status),
        retry_after: retry_after(headers, unix_now),
        ..Failure::seen(FailureKind::Server, "upstream failed")
    }
}

/// When the upstream wants to be asked again.
pub fn retry_after(headers: &HeaderMap, unix_now: u64) -> Option<Duration> {
    let _ = unix_now;
    headers.get("retry-after")?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}
