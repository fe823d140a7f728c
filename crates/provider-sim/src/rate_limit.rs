//! Limits per minute, in fixed windows, as simple as providers describe theirs.

use std::time::{Duration, Instant};

use crate::spec::RateLimitSpec;

/// Counts of the current minute.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    began: Option<Instant>,
    requests: u32,
    tokens: u32,
}

/// How a caller stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) spec: RateLimitSpec,
    pub(crate) requests_left: u32,
    pub(crate) tokens_left: u32,
    /// Until the counts begin anew.
    pub(crate) reset: Duration,
    /// This request is one too many.
    pub(crate) exceeded: bool,
}

impl RateLimit {
    /// Counts a request, unless it is one too many.
    pub(crate) fn take(&mut self, spec: RateLimitSpec, tokens: u32, now: Instant) -> Standing {
        let began = match self.began {
            Some(began) if now.saturating_duration_since(began) < MINUTE => began,
            _ => {
                (self.requests, self.tokens) = (0, 0);
                *self.began.insert(now)
            }
        };
        let exceeded = self.requests >= spec.requests || self.tokens.saturating_add(tokens) > spec.tokens;
        if !exceeded {
            self.requests += 1;
            self.tokens += tokens;
        }
        Standing {
            spec,
            requests_left: spec.requests - self.requests,
            tokens_left: spec.tokens.saturating_sub(self.tokens),
            reset: MINUTE.saturating_sub(now.saturating_duration_since(began)),
            exceeded,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_holds_so_much_and_then_begins_anew() {
        let spec = RateLimitSpec { requests: 2, tokens: 100 };
        let start = Instant::now();
        let mut limit = RateLimit::default();
        assert!(!limit.take(spec, 60, start).exceeded);
        assert!(limit.take(spec, 60, start).exceeded, "tokens");
        let second = limit.take(spec, 10, start + Duration::from_secs(20));
        assert_eq!((second.requests_left, second.tokens_left, second.reset), (0, 30, Duration::from_secs(40)));
        assert!(limit.take(spec, 1, start).exceeded, "requests");
        assert!(!limit.take(spec, 1, start + MINUTE).exceeded);
    }
}
