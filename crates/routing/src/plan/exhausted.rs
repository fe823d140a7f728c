//! Why a plan gave up, in a closed vocabulary.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::explain::{Considered, Gate};
use crate::health::BlockReason;

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The reason.
    pub reason: Reason,
    /// Attempts that were made.
    pub attempts: u8,
    /// Why accounts are blocked, where that is the reason.
    pub blocked_by: Option<BlockReason>,
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Every candidate was tried or is ejected.
    Candidates,
    /// The model's retry budget is used up.
    Budget,
    /// The caller's deadline has come, or comes too soon for any candidate.
    Deadline,
    /// The most attempts a request may make were made.
    Attempts,
    /// Others remain, but the caller wants no other.
    FallbacksDisallowed,
    /// Every account that could be used is blocked.
    Blocked {
        /// When the first comes back.
        until: Timestamp,
    },
    /// Every endpoint is at its configured concurrency.
    Full,
    /// The last attempt ended the request: it succeeded, was relayed in part, was cancelled, or was the caller's fault.
    Ended,
}

impl Reason {
    /// Closed label for logs, metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Candidates => "candidates",
            Reason::Budget => "budget",
            Reason::Deadline => "deadline",
            Reason::Attempts => "attempts",
            Reason::FallbacksDisallowed => "fallbacks_disallowed",
            Reason::Blocked { .. } => "blocked",
            Reason::Full => "full",
            Reason::Ended => "ended",
        }
    }
}

/// Why none of these can be used, in the words that help most.
pub(super) fn reason_of(considered: &[Considered]) -> (Reason, Option<BlockReason>) {
    let any = |gate: Gate| considered.iter().any(|one| one.gate == gate);
    let soonest = considered
        .iter()
        .filter_map(|one| match one.gate {
            Gate::Blocked { until, reason } => Some((until, reason)),
            _ => None,
        })
        .min();
    if any(Gate::NoFallback) {
        (Reason::FallbacksDisallowed, None)
    } else if let Some((until, reason)) = soonest {
        (Reason::Blocked { until }, Some(reason))
    } else if any(Gate::Full) {
        (Reason::Full, None)
    } else if any(Gate::Late) {
        (Reason::Deadline, None)
    } else {
        (Reason::Candidates, None)
    }
}
