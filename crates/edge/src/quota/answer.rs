//! How callers are told about limits: errors with their source, and headers that SDKs understand.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use tidegate_quota::{Dimension, Funding, Limit, Refusal, RefusalKind, Reservation, Scope, TokenKind, Window};

/// Headers about limits.
pub(crate) type LimitHeaders = SmallVec<[(HeaderName, HeaderValue); 9]>;

/// What a refusal says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) message: String,
    /// Why, in one word of a closed set.
    pub(crate) reason: &'static str,
    /// Whose limit, in one word of a closed set; OpenRouter's words where it has one.
    pub(crate) limit_source: &'static str,
    /// What helps.
    pub(crate) remedy: &'static str,
}

/// What a refusal says.
pub(crate) fn told(refusal: &Refusal) -> Told {
    let Some(bucket) = &refusal.bucket else {
        return Told {
            message: "The use of this key cannot be counted at the moment, and its limits forbid to go on without.".to_owned(),
            reason: "store_unavailable",
            limit_source: "quota_store",
            remedy: "Try again shortly.",
        };
    };
    let limit = &bucket.limit;
    let whose = match limit.scope {
        Scope::Key => "This API key",
        Scope::Workspace => "The workspace of this API key",
        Scope::Organisation => "The organisation of this API key",
    };
    let (amount, what) = named(limit);
    let what = match &limit.provider {
        Some(provider) => format!("{what} at provider `{provider}`"),
        None => what.to_owned(),
    };
    match refusal.kind {
        RefusalKind::Funds if refusal.too_big => Told {
            message: format!("{whose} has {what} of {amount}, and this request alone may cost more than that."),
            reason: "weight_exceeds_budget",
            limit_source: source(limit),
            remedy: "Set a smaller `max_tokens`, shorten the prompt, or name a cheaper model.",
        },
        RefusalKind::Funds => Told {
            message: format!("{whose} has {what} of {amount}, and what is left of it does not cover this request."),
            reason: if refusal.remaining > 0 { "in_flight_budget_exhausted" } else { "budget_exhausted" },
            limit_source: source(limit),
            remedy: match limit.funding {
                Funding::Prepaid => "Add credits.",
                Funding::Postpaid if refusal.retry_after.is_some() => {
                    "Wait for the next period, or ask whoever manages the budget to raise it."
                }
                Funding::Postpaid => "Ask whoever manages the budget to raise it.",
            },
        },
        RefusalKind::Rate | RefusalKind::Unavailable => Told {
            message: format!("{whose} may make {amount} {what}, and has."),
            reason: if refusal.too_big { "weight_exceeds_limit" } else { "rate_limit_exceeded" },
            limit_source: source(limit),
            remedy: "Wait as `Retry-After` says.",
        },
    }
}

/// Amount and unit, for people.
fn named(limit: &Limit) -> (String, &'static str) {
    let count = limit.amount.to_string();
    match limit.dimension {
        Dimension::RequestsPerMinute => (count, "requests per minute"),
        Dimension::TokensPerMinute(TokenKind::Both) => (count, "tokens per minute"),
        Dimension::TokensPerMinute(TokenKind::Input) => (count, "prompt tokens per minute"),
        Dimension::TokensPerMinute(TokenKind::Output) => (count, "answer tokens per minute"),
        Dimension::Concurrent => (count, "requests at the same time"),
        Dimension::FreeRequestsPerDay => (count, "requests to free models per day"),
        Dimension::Spend(window) => {
            let what = match (window, limit.funding) {
                (Window::Total, Funding::Prepaid) => "credits",
                (Window::Total, Funding::Postpaid) => "a budget",
                (Window::Day, _) => "a daily budget",
                (Window::Week, _) => "a weekly budget",
                (Window::Month, _) => "a monthly budget",
            };
            let money = tidegate_ledger::Money::from_picodollars(i128::from(limit.amount) * 1_000_000);
            (format!("${money}"), what)
        }
    }
}

fn source(limit: &Limit) -> &'static str {
    match (limit.dimension, limit.scope, limit.funding) {
        (Dimension::Spend(_), _, Funding::Prepaid) => "openrouter_credits",
        (Dimension::Spend(_), Scope::Key, _) => "openrouter_key_limit",
        (Dimension::Spend(_), Scope::Workspace, _) => "workspace_budget",
        (Dimension::Spend(_), Scope::Organisation, _) => "organisation_budget",
        (_, Scope::Key, _) => "key_rate_limit",
        (_, Scope::Workspace, _) => "workspace_rate_limit",
        (_, Scope::Organisation, _) => "organisation_rate_limit",
    }
}

/// Headers of an answer: the tightest limit of each kind.
pub(crate) fn headers(reservation: &Reservation, now_ms: u64) -> LimitHeaders {
    let mut headers = LimitHeaders::new();
    for kind in [Kind::Requests, Kind::Tokens] {
        let limits =
            reservation.entries.iter().filter(|entry| kind_of(entry.bucket.limit.dimension) == Some(kind) && !entry.bucket.limit.shadow);
        // Tightest by the share that is left; amounts differ by orders of magnitude.
        let tightest =
            limits.min_by_key(|entry| i128::from(entry.remaining.max(0)) * 1_000_000 / i128::from(entry.bucket.limit.amount.max(1)));
        if let Some(entry) = tightest {
            let remaining = u64::try_from(entry.remaining).unwrap_or(0);
            kind.push(&mut headers, entry.bucket.limit.amount, remaining, Duration::from_micros(entry.reset_after.unwrap_or(0)), now_ms);
        }
    }
    headers
}

/// Headers of a refusal: the limit that refused.
pub(crate) fn refusal_headers(refusal: &Refusal, now_ms: u64) -> LimitHeaders {
    let mut headers = LimitHeaders::new();
    if let Some(bucket) = &refusal.bucket
        && let Some(kind) = kind_of(bucket.limit.dimension)
    {
        let remaining = u64::try_from(refusal.remaining).unwrap_or(0);
        kind.push(&mut headers, bucket.limit.amount, remaining, refusal.retry_after.unwrap_or_default(), now_ms);
    }
    headers
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Requests,
    Tokens,
}

/// Money has no such header: what is left of a budget is said by `GET /key`.
fn kind_of(dimension: Dimension) -> Option<Kind> {
    match dimension {
        Dimension::RequestsPerMinute | Dimension::Concurrent | Dimension::FreeRequestsPerDay => Some(Kind::Requests),
        Dimension::TokensPerMinute(_) => Some(Kind::Tokens),
        Dimension::Spend(_) => None,
    }
}

impl Kind {
    /// OpenAI's names with its durations, and once the plain names with the moment of the reset in milliseconds of Unix time.
    fn push(self, headers: &mut LimitHeaders, limit: u64, remaining: u64, reset: Duration, now_ms: u64) {
        let millis = u64::try_from(reset.as_millis()).unwrap_or(u64::MAX);
        let [limit_name, remaining_name, reset_name] = match self {
            Kind::Requests => ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
            Kind::Tokens => ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
        };
        let text = if millis < 1_000 { format!("{millis}ms") } else { format!("{}s", millis.div_ceil(1_000)) };
        headers.push((HeaderName::from_static(limit_name), limit.into()));
        headers.push((HeaderName::from_static(remaining_name), remaining.into()));
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.push((HeaderName::from_static(reset_name), value));
        }
        if !headers.iter().any(|(name, _)| name == "x-ratelimit-limit") {
            headers.push((HeaderName::from_static("x-ratelimit-limit"), limit.into()));
            headers.push((HeaderName::from_static("x-ratelimit-remaining"), remaining.into()));
            headers.push((HeaderName::from_static("x-ratelimit-reset"), now_ms.saturating_add(millis).into()));
        }
    }
}
