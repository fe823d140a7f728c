//! How an attempt ended, and what follows from it: the failure taxonomy.
//!
//! One table decides for every ending whether the breaker hears of it, whether the concurrency limit shrinks, whether the
//! request may go elsewhere, and whose fault it was. A caller's mistake or departure never hurts an endpoint.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the edge saw of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: AttemptEnd,
    /// From the start of the attempt to the first token; only for streamed answers.
    pub first_token: Option<Duration>,
    /// From the start of the attempt to its end.
    pub elapsed: Duration,
    /// Prompt tokens that were not read from a cache; they set the size class of the first-token sample.
    pub prompt_tokens: u32,
    /// Output tokens, if known.
    pub output_tokens: Option<u32>,
    /// What the provider asked for.
    pub retry_after: Option<Duration>,
    /// What the provider said about the account's rate limits.
    pub rate: Option<RateHint>,
}

impl Outcome {
    /// An outcome with nothing but its end and duration.
    pub fn new(end: AttemptEnd, elapsed: Duration) -> Outcome {
        Outcome { end, first_token: None, elapsed, prompt_tokens: 0, output_tokens: None, retry_after: None, rate: None }
    }

    /// Closed label for metrics.
    pub fn label(&self) -> &'static str {
        self.end.label()
    }
}

/// Rate limits as the provider's headers state them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateHint {
    /// Smallest remaining share over all dimensions (requests, tokens), 0 to 1.
    pub remaining_ratio: f32,
    /// When that dimension is full again.
    pub reset: Option<Duration>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// A complete answer.
    Success,
    /// No connection: name resolution, TCP, TLS.
    Connect,
    /// No first byte in time.
    FirstTokenTimeout,
    /// A server error with this status.
    Server(u16),
    /// The provider says it is overloaded (529 or such a body).
    Overloaded,
    /// 429 for the rate.
    RateLimited,
    /// The account is out of credit, spend or quota.
    CreditExhausted,
    /// The credential was not accepted.
    Unauthorized,
    /// 403 without a word about the key: a geo, legal or permission gate. It says nothing about the endpoint's health, and nothing
    /// about the account: blocking that for every caller would make an outage of one refused request.
    Forbidden,
    /// The provider does not know the model.
    ModelNotFound,
    /// The caller's fault, with this status.
    Rejected(u16),
    /// The caller's own limit for this provider has no room: nothing was sent.
    OverLimit,
    /// The answer broke off after it had been relayed in part.
    Cut,
    /// Silence in the middle of an answer.
    IdleTimeout,
    /// The answer could not be understood.
    Malformed,
    /// The answer had no content.
    Empty,
    /// The caller left, or we were told to stop.
    Cancelled,
}

impl AttemptEnd {
    /// Closed label for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            AttemptEnd::Success => "success",
            AttemptEnd::Connect => "connect",
            AttemptEnd::FirstTokenTimeout => "first_token_timeout",
            AttemptEnd::Server(_) => "server_error",
            AttemptEnd::Overloaded => "overloaded",
            AttemptEnd::RateLimited => "rate_limited",
            AttemptEnd::CreditExhausted => "credit_exhausted",
            AttemptEnd::Unauthorized => "unauthorized",
            AttemptEnd::Forbidden => "forbidden",
            AttemptEnd::ModelNotFound => "model_not_found",
            AttemptEnd::Rejected(_) => "rejected",
            AttemptEnd::OverLimit => "over_limit",
            AttemptEnd::Cut => "cut",
            AttemptEnd::IdleTimeout => "idle_timeout",
            AttemptEnd::Malformed => "malformed",
            AttemptEnd::Empty => "empty",
            AttemptEnd::Cancelled => "cancelled",
        }
    }

    /// Whether another endpoint of the same model might do better. Only meaningful before the first relayed byte.
    pub const fn retry_elsewhere(self) -> bool {
        matches!(self.next_step(), NextStep::Elsewhere | NextStep::OtherCredential | NextStep::OtherProvider)
    }

    /// What the plan does next.
    pub(crate) const fn next_step(self) -> NextStep {
        match self {
            AttemptEnd::Connect
            | AttemptEnd::FirstTokenTimeout
            | AttemptEnd::Server(_)
            | AttemptEnd::Overloaded
            | AttemptEnd::Forbidden
            | AttemptEnd::ModelNotFound
            | AttemptEnd::Malformed
            | AttemptEnd::Empty => NextStep::Elsewhere,
            AttemptEnd::RateLimited | AttemptEnd::CreditExhausted | AttemptEnd::Unauthorized => NextStep::OtherCredential,
            AttemptEnd::Rejected(_) => NextStep::OtherModel,
            AttemptEnd::OverLimit => NextStep::OtherProvider,
            AttemptEnd::Success | AttemptEnd::Cut | AttemptEnd::IdleTimeout | AttemptEnd::Cancelled => NextStep::Stop,
        }
    }

    /// What the endpoint's health learns.
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            AttemptEnd::Success => Verdict::Success,
            AttemptEnd::Connect | AttemptEnd::FirstTokenTimeout | AttemptEnd::Server(_) | AttemptEnd::Cut | AttemptEnd::IdleTimeout => {
                Verdict::Hard
            }
            AttemptEnd::Overloaded | AttemptEnd::Malformed | AttemptEnd::Empty => Verdict::Soft,
            AttemptEnd::ModelNotFound => Verdict::Missing,
            AttemptEnd::RateLimited
            | AttemptEnd::CreditExhausted
            | AttemptEnd::Unauthorized
            | AttemptEnd::Forbidden
            | AttemptEnd::Rejected(_)
            | AttemptEnd::OverLimit
            | AttemptEnd::Cancelled => Verdict::Neutral,
        }
    }

    /// Whether the ending says that too much was asked at once.
    pub(crate) const fn sheds_load(self) -> bool {
        matches!(self, AttemptEnd::FirstTokenTimeout | AttemptEnd::Server(503) | AttemptEnd::Overloaded | AttemptEnd::RateLimited)
    }
}

/// What the plan does after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// The request is over, well or badly.
    Stop,
    /// Another endpoint.
    Elsewhere,
    /// Another credential of the same endpoint, else another endpoint.
    OtherCredential,
    /// An endpoint of another provider. Nothing was asked of this one, so that neither the attempts nor the retry budget pay for it.
    OtherProvider,
    /// No endpoint of this model can help; the next model may.
    OtherModel,
}

/// What an endpoint's health learns from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It works.
    Success,
    /// It is broken.
    Hard,
    /// It may be broken: counts half.
    Soft,
    /// It does not serve the model (any more): lowers the weight, never opens the breaker.
    Missing,
    /// Nothing about the endpoint.
    Neutral,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_fault_or_departure_hurts_nobody() {
        for end in [AttemptEnd::Rejected(400), AttemptEnd::Rejected(413), AttemptEnd::Cancelled] {
            assert_eq!(end.verdict(), Verdict::Neutral);
            assert!(!end.retry_elsewhere() && !end.sheds_load());
        }
    }

    #[test]
    fn account_trouble_is_not_endpoint_trouble() {
        for end in [AttemptEnd::RateLimited, AttemptEnd::CreditExhausted, AttemptEnd::Unauthorized, AttemptEnd::Forbidden] {
            assert_eq!(end.verdict(), Verdict::Neutral);
            assert!(end.retry_elsewhere());
        }
    }

    #[test]
    fn nothing_is_retried_after_bytes_were_relayed() {
        for end in [AttemptEnd::Success, AttemptEnd::Cut, AttemptEnd::IdleTimeout, AttemptEnd::Cancelled] {
            assert_eq!(end.next_step(), NextStep::Stop);
        }
    }
}
