//! Health as others may see it: metrics, the public endpoint objects, the operator.

use serde::Serialize;

use super::history::Span;
use super::{BlockReason, BreakerState, Health, Percentiles, RemoteEvidence};
use crate::{CredentialIndex, EndpointIndex, Timestamp};

/// One endpoint at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointView {
    /// What its breaker lets through.
    pub breaker: BreakerState,
    /// Probability that a request succeeds.
    pub success: f64,
    /// Expected time to first token of a short prompt.
    pub first_token: Option<std::time::Duration>,
    /// Expected output speed.
    pub tokens_per_second: Option<f64>,
    /// Requests on their way.
    pub in_flight: u32,
    /// Most requests at once, as learned.
    pub limit: u32,
    /// Until when nothing is sent there: every account is blocked, or a server error asked for a wait.
    pub blocked_until: Option<Timestamp>,
    /// Percent of attempts that succeeded in five minutes; absent with too few attempts.
    pub uptime_5m: Option<f64>,
    /// The same over half an hour.
    pub uptime_30m: Option<f64>,
    /// The same over a day.
    pub uptime_1d: Option<f64>,
    /// Time to first token over half an hour, seconds.
    pub latency_30m: Option<Percentiles>,
    /// Output tokens per second over half an hour, from sending the request to the last token.
    pub throughput_30m: Option<Percentiles>,
    /// Attempts in half an hour that say something about the endpoint.
    pub requests_30m: u32,
    /// Share of its weight it gets while it comes back.
    pub ramp: f64,
    /// What others say, while it holds.
    pub remote: Option<RemoteEvidence>,
    /// Distance between this edge's failure ratio and what others say, 0 to 1; absent when either side has nothing to compare.
    pub disagreement: Option<f64>,
}

/// One credential at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CredentialView {
    /// Until when it must not be used anywhere.
    pub blocked_until: Option<Timestamp>,
    /// Why.
    pub reason: Option<BlockReason>,
}

impl Health {
    /// One endpoint now. An index of another snapshot looks like an endpoint nobody has used.
    pub fn endpoint_view(&self, endpoint: EndpointIndex, now: Timestamp) -> EndpointView {
        let fresh;
        let cell = match self.cell(endpoint) {
            Some(cell) => cell,
            None => {
                fresh = std::sync::Arc::new(super::EndpointCell::new(&self.settings));
                &fresh
            }
        };
        let settings = &self.settings;
        let in_flight = cell.in_flight();
        cell.with(|state| {
            let counts = state.window.counts(now);
            let uptime = |span| state.measured.as_ref().and_then(|all| all.history.uptime(span, settings.uptime_min_requests, now));
            let refused = self.accounts_of(endpoint).iter().map(|(credential, id)| {
                let account = self.account(*credential).and_then(|account| account.blocked(now));
                let here = state.allowance(*id).and_then(|own| own.blocked_until(now));
                account.map(|(until, _)| until).max(here)
            });
            // Blocked is an endpoint only when no account is left.
            let refused = refused.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().min());
            let backing_off = (state.backing_off_until > now).then_some(state.backing_off_until);
            let ramp_from = state.ramp_from;
            let remote = Some(state.remote).filter(|remote| remote.confidence_at(settings, now) > 0.0 && remote.holds(settings, now));
            EndpointView {
                breaker: state.breaker_state(now),
                success: state.success(&counts, settings, now),
                first_token: state
                    .first_token(0, settings, now)
                    .map(|seconds| std::time::Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_SECONDS))),
                tokens_per_second: state.speed.get(),
                in_flight,
                limit: state.limiter.limit(),
                blocked_until: refused.max(backing_off),
                uptime_5m: uptime(Span::FiveMinutes),
                uptime_30m: uptime(Span::HalfHour),
                uptime_1d: uptime(Span::Day),
                latency_30m: state.measured.as_ref().and_then(|all| all.history.long_first_token(now)),
                throughput_30m: state.measured.as_ref().and_then(|all| all.history.long_speed(now)),
                requests_30m: state.requests_30m(now),
                // Looking must not start the ramp.
                ramp: if ramp_from.is_some() { state.ramp(settings, now) } else { 1.0 },
                remote,
                disagreement: remote
                    .filter(|_| counts.total() >= COMPARABLE_SAMPLES)
                    .map(|remote| (counts.failure_ratio() - (1.0 - remote.success)).abs()),
            }
        })
    }

    /// One credential now.
    pub fn credential_view(&self, credential: CredentialIndex, now: Timestamp) -> CredentialView {
        let block = self.account(credential).and_then(|account| account.blocked(now));
        CredentialView { blocked_until: block.map(|(until, _)| until), reason: block.map(|(_, reason)| reason) }
    }
}

/// Samples below which a local ratio is not compared with anything.
const COMPARABLE_SAMPLES: f64 = 5.0;
/// Keeps a conversion inside what a duration holds; no wait is that long.
const LONGEST_SECONDS: f64 = 86_400.0;
