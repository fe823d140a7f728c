//! Whether a caller may spend: asks before a request is planned, and says afterwards what it used.
//!
//! Counting is the quota crate's; here a request becomes an estimate and a refusal becomes an error that callers understand. A store in
//! this process, or a slice that was bought before, answers without waiting; only a cold key of a remote store costs a round trip.

mod answer;
mod estimate;
mod held;
mod metrics;
mod outputs;
mod provider;
mod restored;
mod start;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_quota::{Decision, Dimension, Entry, Gate, Mode, Refusal, Reservation, ReserveRequest, Usage};
use tidegate_routing::ModelIndex;
use tidegate_wire::ChatCall;
use ulid::Ulid;

use crate::auth::{Account, Caller};
use crate::error::EdgeError;
use crate::state::RoutingState;
pub(crate) use answer::{LimitHeaders, headers};
use estimate::{Answer, Estimate};
pub(crate) use estimate::{Ceiling, micro_dollars};
pub(crate) use held::Held;
pub(crate) use metrics::QuotaMetrics;
use outputs::Outputs;
pub(crate) use provider::ByProvider;
pub(crate) use restored::keep_restored;
pub(crate) use start::{Spent, open, restore};

/// What all requests of an edge share of quotas.
pub(crate) struct Quotas {
    gate: Arc<Gate>,
    /// The store outlives this process, so that the journal must remember what is to be settled.
    remote: bool,
    outputs: Outputs,
    metrics: QuotaMetrics,
}

/// A settlement that waits for its record to be written.
pub(crate) struct Owed {
    pub(crate) reservation: Reservation,
    pub(crate) used: Usage,
}

/// What a request wants.
pub(crate) struct Demand<'a> {
    pub(crate) state: &'a RoutingState,
    pub(crate) caller: &'a Arc<Caller>,
    pub(crate) account: &'a Account,
    pub(crate) call: &'a ChatCall,
    /// Accepted models, the first one asked for first.
    pub(crate) models: &'a [ModelIndex],
    pub(crate) prompt_tokens: u32,
    /// `gen-` and a ULID.
    pub(crate) id: &'a str,
    /// Time that the request may take.
    pub(crate) patience: Duration,
}

/// A refusal, with what its answer says.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    /// Milliseconds of Unix time at which it was.
    pub(crate) at_ms: u64,
}

impl Refused {
    pub(crate) fn told(&self) -> answer::Told {
        answer::told(&self.refusal)
    }

    pub(crate) fn headers(&self) -> LimitHeaders {
        answer::refusal_headers(&self.refusal, self.at_ms)
    }
}

impl Quotas {
    pub(crate) fn new(gate: Arc<Gate>, remote: bool, metrics: QuotaMetrics) -> Self {
        Self { gate, remote, outputs: Outputs::new(), metrics }
    }

    /// The counters behind it, for showing what is used.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Holds the estimate of a request, or refuses it. A caller without limits is not asked about.
    pub(crate) async fn reserve(self: &Arc<Self>, demand: &Demand<'_>) -> Result<Held, EdgeError> {
        let Some(limits) = demand.account.limits.as_ref() else { return Ok(Held::nothing(self)) };
        let model = demand.state.model(demand.models[0]);
        let selection = limits.select(&model.slug, None);
        let names_providers = limits.names_providers();
        if selection.is_empty() && !names_providers {
            return Ok(Held::nothing(self));
        }
        let expected = self.outputs.expected(demand.caller.salt, demand.models[0]);
        let estimate = Estimate::of(demand, expected);
        let by_provider = names_providers.then(|| ByProvider::boxed(limits, estimate, demand));
        if selection.is_empty() {
            return Ok(Held::nothing(self).with(by_provider));
        }
        let near_end = demand.caller.near_end.load(Ordering::Relaxed);
        let answer = if near_end { Answer::Longest } else { Answer::Usual };
        let id = request_id(demand.id);
        let lifetime = demand.patience + RESERVATION_GRACE;
        let mut request = ReserveRequest { id, limits, selection, estimate: estimate.usage(answer), lifetime };
        let mut held = self.decide(&request, demand.caller).await?;
        if answer == Answer::Usual && held.runs_low() {
            // The end of a budget is near: from here on what is held is the most that the answer can cost, so that it cannot be outrun.
            demand.caller.near_end.store(true, Ordering::Relaxed);
            let longest = estimate.usage(Answer::Longest);
            if longest != request.estimate {
                held.give_back();
                request = ReserveRequest { id: another_id(id), estimate: longest, ..request };
                held = self.decide(&request, demand.caller).await?;
            }
        } else if near_end && !held.runs_low() {
            demand.caller.near_end.store(false, Ordering::Relaxed);
        }
        Ok(held.with(by_provider))
    }

    async fn decide(self: &Arc<Self>, request: &ReserveRequest<'_>, caller: &Caller) -> Result<Held, EdgeError> {
        let decision = match self.gate.reserve_now(request) {
            Some(decision) => decision,
            // Boxed: most requests never come here, and all carry the size of what they might.
            None => Box::pin(self.ask(request, caller)).await,
        };
        match decision {
            Decision::Allowed(reservation) => {
                self.notice(&reservation, caller);
                Ok(Held::of(self, reservation))
            }
            Decision::Refused(refusal) => Err(EdgeError::Quota(Box::new(Refused { refusal, at_ms: request.id.timestamp_ms() }))),
        }
    }

    /// Asks a remote store. A slot may still look taken because the end of the caller's last request is on its way to the store: then a
    /// moment is waited, as a caller who asks one thing after the other must never meet a limit of one.
    async fn ask(&self, request: &ReserveRequest<'_>, caller: &Caller) -> Decision {
        let mut decision = self.gate.reserve(request).await;
        for pause in SLOT_PAUSES {
            let full = matches!(&decision, Decision::Refused(refusal) if refusal.bucket.as_ref().is_some_and(|bucket| bucket.limit.dimension == Dimension::Concurrent));
            let since_end = micros_of(request.id).saturating_sub(caller.ended_at.load(Ordering::Relaxed));
            if !full || since_end > JUST_ENDED {
                break;
            }
            tokio::time::sleep(pause).await;
            decision = self.gate.reserve(request).await;
        }
        decision
    }

    /// Shadow limits that would have refused, and soft thresholds that are reached: counted each time, said once in a while.
    fn notice(&self, reservation: &Reservation, caller: &Caller) {
        for bucket in reservation.shadowed() {
            self.metrics.noticed("shadow", bucket.limit.dimension.as_str());
            if self.metrics.may_say(&bucket.key) {
                let limit = &bucket.limit;
                tracing::warn!(key = %caller.name, scope = %limit.scope, limit = %limit.dimension, "a shadow limit would have refused this request");
            }
        }
        for entry in reservation.warnings() {
            let limit = &entry.bucket.limit;
            self.metrics.noticed("warning", limit.dimension.as_str());
            if self.metrics.may_say(&entry.bucket.key) {
                tracing::warn!(key = %caller.name, scope = %limit.scope, limit = %limit.dimension, remaining = entry.remaining, amount = limit.amount, "a limit's warning threshold is reached");
            }
        }
    }

    /// Remembers how long an answer was, for the next estimate.
    pub(crate) fn answered(&self, salt: u64, model: ModelIndex, completion_tokens: u64) {
        self.outputs.answered(salt, model, completion_tokens);
    }

    /// Settles what was held. With a store in this process, or from a slice that this process holds, at once; a store that outlives this
    /// process is told after the journal has the record, and the settlement is given back for that.
    fn settle(&self, reservation: Reservation, used: Usage) -> Option<Owed> {
        if self.is_journalled(&reservation) {
            return Some(Owed { reservation, used });
        }
        self.gate.settle(reservation, &used);
        None
    }

    /// A later start would have to settle it.
    fn is_journalled(&self, reservation: &Reservation) -> bool {
        self.remote && reservation.mode == Mode::Exact
    }
}

impl Owed {
    /// Tells the store; never waits.
    pub(crate) fn pay(self, gate: &Gate) {
        gate.settle(self.reservation, &self.used);
    }
}

/// It was counted as a request to a free model.
pub(crate) fn was_free(reservation: &Reservation) -> bool {
    let free = |entry: &Entry| entry.bucket.limit.dimension == Dimension::FreeRequestsPerDay && entry.held > 0;
    reservation.entries.iter().any(free)
}

/// The ULID of a generation's id.
pub(crate) fn request_id(id: &str) -> Ulid {
    id.strip_prefix("gen-").and_then(|ulid| ulid.parse().ok()).unwrap_or_default()
}

/// Another id of the same moment.
fn another_id(id: Ulid) -> Ulid {
    Ulid::from_parts(id.timestamp_ms(), id.random() ^ 1 << 79)
}

/// When a request with this id arrived, microseconds of Unix time.
fn micros_of(id: Ulid) -> u64 {
    id.timestamp_ms() * 1_000
}

/// A settlement is told within a few milliseconds; beyond this, in microseconds, a slot that looks taken is taken.
const JUST_ENDED: u64 = 100_000;
const SLOT_PAUSES: [Duration; 3] = [Duration::from_millis(3), Duration::from_millis(10), Duration::from_millis(30)];
/// How much longer than its request a reservation stands.
const RESERVATION_GRACE: Duration = Duration::from_secs(600);

/// A caller's budget is near its end.
pub(crate) type NearEnd = AtomicBool;
