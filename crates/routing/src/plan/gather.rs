//! Looks at every candidate once: health, credentials, deadline, the caller's bounds. One short lock per candidate.

use std::time::Duration;

use fastrand::Rng;
use smallvec::SmallVec;

use super::Plan;
use super::candidate::Candidate;
use crate::explain::{Considered, Gate};
use crate::health::{BlockReason, EndpointCell, Health, Percentiles, State};
use crate::id::mix;
use crate::preferences::Cutoffs;
use crate::strategy::affinity;
use crate::thompson;
use crate::{CredentialIndex, EndpointIndex, Mode, Settings, Snapshot, Timestamp};

/// A candidate's account with what the endpoint lets it do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usable {
    pub(super) credential: CredentialIndex,
    pub(super) id: u64,
    pub(super) weight: f64,
}

impl Plan {
    /// Appends one entry per candidate to the record.
    pub(super) fn gather(&mut self, snapshot: &Snapshot, health: &Health, now: Timestamp) {
        for at in 0..self.candidates.len() {
            let candidate = self.candidates[at];
            let entry = self.look_at(&candidate, snapshot, health, now);
            self.decision.considered.push(entry);
        }
    }

    fn look_at(&self, candidate: &Candidate, snapshot: &Snapshot, health: &Health, now: Timestamp) -> Considered {
        let endpoint = snapshot.endpoint(candidate.endpoint);
        let mut entry = Considered {
            endpoint: candidate.endpoint,
            provider: endpoint.provider(),
            gate: candidate.gate(),
            model: candidate.model,
            rank: 0,
            price: candidate.price,
            success: 0.0,
            samples: 0.0,
            failures: 0.0,
            first_token: endpoint.prior_first_token.map(|prior| prior.as_secs_f32()),
            first_token_p95: None,
            speed: endpoint.prior_tokens_per_second,
            in_flight: 0,
            limit: endpoint.max_concurrency.unwrap_or(u32::MAX),
            remaining: 1.0,
            ramp: 1.0,
            degraded: false,
            requests: 0,
            affinity: 0,
            weight: 0.0,
            cost: 0.0,
        };
        if let (Mode::Sticky, Some(conversation)) = (self.strategy.mode, self.intent.affinity) {
            entry.affinity = affinity(conversation.key, endpoint.hash);
        }
        let Some(cell) = health.cell(candidate.endpoint) else {
            return entry;
        };
        entry.in_flight = cell.in_flight();
        let reading = cell.with(|state| self.read(state, &mut entry, snapshot, health, now));
        if entry.gate == Gate::Open || entry.gate == Gate::HalfOpen {
            let full = endpoint.max_concurrency.is_some_and(|most| entry.in_flight >= most);
            if full {
                entry.gate = Gate::Full;
            } else if reading.is_late {
                entry.gate = Gate::Late;
            } else if entry.gate == Gate::Open && entry.in_flight >= entry.limit {
                entry.gate = Gate::Crowded;
            }
        }
        entry.rank = candidate.rank.value(reading.misses_bounds || endpoint.deprecated);
        entry
    }

    /// Everything that needs the cell's lock.
    fn read(&self, state: &mut State, entry: &mut Considered, snapshot: &Snapshot, health: &Health, now: Timestamp) -> Reading {
        let settings = snapshot.settings();
        let counts = state.window.counts(now);
        entry.success = if settings.thompson && self.strategy.explores() {
            let endpoint = snapshot.endpoint(entry.endpoint).hash;
            let mut rng = Rng::with_seed(mix(self.intent.seed ^ endpoint ^ THOMPSON_SALT ^ u64::from(self.attempts)));
            thompson::success(counts.ok, counts.failed + counts.missing, &mut rng) as f32
        } else {
            state.success(&counts, settings, now) as f32
        };
        entry.samples = counts.total() as f32;
        entry.failures = counts.failed as f32;
        entry.limit = entry.limit.min(state.limiter.limit());
        entry.ramp = state.ramp(settings, now) as f32;
        entry.degraded = !snapshot.endpoint(entry.endpoint).pinned && state.remote.is_degraded(settings, now);
        if let Some(first_token) = state.first_token(self.class, settings, now) {
            entry.first_token = Some(first_token as f32);
        }
        if let Some(speed) = state.speed.get() {
            entry.speed = Some(speed as f32);
        }
        let mut reading = Reading::default();
        if let Some((p10, p95)) = state.tails(self.class) {
            entry.first_token_p95 = Some(p95 as f32);
            let remaining = self.intent.deadline.since(now).as_secs_f64();
            reading.is_late = !self.intent.needs.buffered && remaining < p10;
        }
        reading.misses_bounds = self.read_percentiles(state, entry, now);
        if entry.gate != Gate::Open {
            return reading;
        }
        entry.gate = match self.accounts(state, entry.endpoint, snapshot, health, now) {
            Ok(usable) => {
                let best = usable.iter().map(|one| state.allowance(one.id).map_or(1.0, |own| own.remaining(settings, now)));
                entry.remaining = best.fold(0.0, f32::max);
                if snapshot.endpoint(entry.endpoint).pinned { Gate::Open } else { health_gate(state, snapshot, now) }
            }
            Err(gate) => gate,
        };
        reading
    }

    /// Replaces quick estimates by percentiles where the strategy wants them; says whether the caller's bounds are missed.
    fn read_percentiles(&self, state: &State, entry: &mut Considered, now: Timestamp) -> bool {
        let preferences = &self.intent.preferences;
        let wanted = self.strategy.wants_percentiles();
        let speeds_wanted = wanted || preferences.preferred_min_throughput.is_some();
        let times_wanted = wanted || preferences.preferred_max_latency.is_some();
        if !speeds_wanted && !times_wanted {
            return false;
        }
        let Some(measured) = state.measured.as_ref() else {
            return false;
        };
        let speeds = if speeds_wanted { measured.history.recent_speed(now) } else { None };
        let times = if times_wanted { measured.history.recent_first_token(now) } else { None };
        if wanted {
            entry.requests = state.requests_30m(now);
            entry.speed = speeds.map(|all| all.p50 as f32).or(entry.speed);
            entry.first_token = times.map(|all| all.p50 as f32).or(entry.first_token);
        }
        let too_slow = bounds(preferences.preferred_min_throughput, speeds, |value, bound| value < bound);
        let too_late = bounds(preferences.preferred_max_latency, times, |value, bound| value > bound);
        too_slow || too_late
    }

    /// The accounts this plan may use at an endpoint, or why there is none.
    pub(super) fn accounts(
        &self,
        state: &State,
        index: EndpointIndex,
        snapshot: &Snapshot,
        health: &Health,
        now: Timestamp,
    ) -> Result<SmallVec<[Usable; 4]>, Gate> {
        let endpoint = snapshot.endpoint(index);
        let mut usable = SmallVec::new();
        let mut back: Option<(Timestamp, BlockReason)> = None;
        for (credential, account) in snapshot.provider(endpoint.provider()).credentials() {
            if account.weight() == 0 || self.tried_credentials.contains(&(index, credential)) {
                continue;
            }
            let allowance = state.allowance(account.id());
            let block = health
                .account(credential)
                .and_then(|cell| cell.blocked(now))
                .max(allowance.and_then(|own| own.blocked_until(now)).map(|until| (until, BlockReason::RateLimited)));
            match block {
                Some((until, reason)) => {
                    if back.is_none_or(|(soonest, _)| until < soonest) {
                        back = Some((until, reason));
                    }
                }
                None => {
                    let share = allowance.map_or(1.0, |own| f64::from(own.remaining(snapshot.settings(), now)));
                    let share = (share / snapshot.settings().headroom_rate_share).clamp(LEAST_SHARE, 1.0);
                    usable.push(Usable { credential, id: account.id(), weight: f64::from(account.weight()) * share });
                }
            }
        }
        if !usable.is_empty() {
            return Ok(usable);
        }
        Err(back.map_or(Gate::CredentialsTried, |(until, reason)| Gate::Blocked { until, reason }))
    }

    /// How long the first token is waited for.
    pub(super) fn first_token_timeout(&self, chosen: &Considered, has_alternative: bool, snapshot: &Snapshot, now: Timestamp) -> Duration {
        let settings = snapshot.settings();
        let remaining = self.intent.deadline.since(now);
        let usual = match chosen.first_token_p95 {
            Some(p95) => f64::from(p95) * settings.first_token_timeout_factor,
            None => f64::INFINITY,
        };
        let (least, most) = (settings.first_token_timeout_least, settings.first_token_timeout_most);
        let mut timeout =
            if usual.is_finite() { Duration::from_secs_f64(usual.clamp(least.as_secs_f64(), most.as_secs_f64())) } else { most };
        if self.intent.needs.buffered {
            // The whole answer has to be written before the first byte comes.
            let output = self.intent.needs.max_output.unwrap_or(self.intent.needs.expected_output);
            let speed = chosen.speed.map_or(settings.speed_guess, f64::from).max(LEAST_SPEED);
            let writing = settings.first_token_timeout_factor * f64::from(output) / speed;
            timeout = most.max(timeout + Duration::from_secs_f64(writing.min(remaining.as_secs_f64())));
        }
        timeout.min(if has_alternative { remaining / 2 } else { remaining })
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    is_late: bool,
    misses_bounds: bool,
}

fn health_gate(state: &State, snapshot: &Snapshot, now: Timestamp) -> Gate {
    if let Some(gate) = state.remote_gate(snapshot.settings(), now) {
        return gate;
    }
    if let Some(gate) = Gate::of_breaker(state.breaker_state(now), state.breaker.is_probing()) {
        return gate;
    }
    if state.backing_off_until > now {
        return Gate::BackingOff { until: state.backing_off_until };
    }
    Gate::Open
}

/// Whether any bound is missed. What was never measured misses nothing.
fn bounds(cutoffs: Option<Cutoffs>, seen: Option<Percentiles>, misses: impl Fn(f64, f64) -> bool) -> bool {
    let (Some(cutoffs), Some(seen)) = (cutoffs, seen) else {
        return false;
    };
    let pairs = [(seen.p50, cutoffs.p50), (seen.p75, cutoffs.p75), (seen.p90, cutoffs.p90), (seen.p99, cutoffs.p99)];
    pairs.into_iter().any(|(value, bound)| bound.is_some_and(|bound| misses(value, bound)))
}

/// Takes the half-open endpoint's probe token.
pub(super) fn begin_probe(cell: &EndpointCell, settings: &Settings, now: Timestamp) -> bool {
    cell.with(|state| state.begin_probe(settings, now))
}

/// Separates the draws of success probabilities from those of choices.
const THOMPSON_SALT: u64 = 0x7468_6f6d_7073_6f6e;
/// Share of its weight that a nearly used-up account keeps.
const LEAST_SHARE: f64 = 0.01;
/// Tokens per second; keeps a wait finite.
const LEAST_SPEED: f64 = 0.1;
