//! One accounted model call, from the first attempt to the last byte.
//!
//! A [`Generation`] is a guard: however the request ends, also when the caller's connection simply vanishes and everything is dropped,
//! the attempt in progress is reported to health, the cost is computed, one line is logged and one record kept. Nothing here waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tidegate_ledger::{Ending, Usage};
use tidegate_routing::{AttemptEnd, AttemptPlan, Decision, Next, Outcome, Plan, RateHint, Timestamp};
use tidegate_wire::{Facts, Stamp};

use crate::access_line;
use crate::admission::Admitted;
use crate::auth::Caller;
use crate::bill::{Bill, Delivered};
use crate::content::Captured;
use crate::context::RequestContext;
use crate::error::EdgeError;
use crate::generations::past::Past;
use crate::ledger::{Closing, Holding, Ledger, Live, Note, Opening};
use crate::quota::{Held, Owed};
use crate::shared::Shared;
use crate::state::{RoutingState, Target};
use crate::trace::{self, RequestTrace};
use tidegate_runtime::telemetry::TraceContext;

/// The guard.
pub(crate) struct Generation {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Arc<RoutingState>,
    pub(crate) context: Arc<RequestContext>,
    pub(crate) caller: Arc<Caller>,
    /// Taken when the generation is settled: its record is what remains.
    plan: Option<Plan>,
    conversation: Option<u64>,
    session_named: bool,
    uncached_prompt: u32,
    current: Option<Current>,
    /// The attempt that is hedged, or the hedge: whichever of the two is not being spoken of.
    other: Option<Box<Current>>,
    attempts: SmallVec<[AttemptNote; 2]>,
    times: Times,
    /// Bodies that were sent upstream, for callers who debug their requests; empty unless asked for.
    echoes: Vec<Bytes>,
    settled: bool,
    /// What the caller's limits hold for it.
    held: Held,
    /// What the attempt that ended last holds of limits for its provider: it is the one that served, or that is answered for.
    held_by_last: Option<Box<Held>>,
    /// How far the answer has come, for the journal.
    live: Arc<Live>,
    /// The request and its answer, where the key opted in to have them stored.
    captured: Option<Box<Captured>>,
    /// When the caller stops waiting.
    pub(crate) deadline: Timestamp,
    pub(crate) trace: RequestTrace,
    _admitted: Admitted,
}

/// The attempt in progress.
struct Current {
    plan: AttemptPlan,
    sent: Timestamp,
    first_token: Option<Timestamp>,
    trace: TraceContext,
    /// What the caller's limits for its provider hold for it.
    held: Option<Box<Held>>,
}

/// A finished attempt.
pub(crate) struct AttemptNote {
    pub(crate) plan: AttemptPlan,
    pub(crate) end: AttemptEnd,
    pub(crate) status: Option<u16>,
    /// From sending to the first token, or to the end without one.
    pub(crate) latency: Duration,
    pub(crate) sent: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) trace: TraceContext,
    pub(crate) upstream_id: Option<String>,
}

/// Moments of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The head was read.
    pub(crate) received: Timestamp,
    /// The body was read.
    pub(crate) complete: Timestamp,
    /// The first attempt was handed to its connection.
    pub(crate) sent: Option<Timestamp>,
    /// The provider's first token came.
    pub(crate) answered: Option<Timestamp>,
    /// The caller's first byte was handed over.
    pub(crate) committed: Option<Timestamp>,
}

impl Times {
    /// Time spent in the gateway itself, waiting for the caller's body and for providers excluded.
    pub(crate) fn overhead(&self) -> Duration {
        let before = self.sent.map_or(Duration::ZERO, |sent| sent - self.complete);
        let after = match (self.answered, self.committed) {
            (Some(answered), Some(committed)) => committed - answered,
            _ => Duration::ZERO,
        };
        before + after
    }
}

/// What is known about an attempt when it ends.
#[derive(Debug, Default)]
pub(crate) struct AttemptDetails {
    pub(crate) status: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) rate: Option<RateHint>,
    pub(crate) output_tokens: Option<u32>,
    pub(crate) upstream_id: Option<String>,
}

/// How the whole request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) ending: Ending,
    /// As sent; 499 when the caller left before any.
    pub(crate) status: u16,
    /// Empty when all went well.
    pub(crate) error_type: &'static str,
}

/// What a generation is made of.
pub(crate) struct Parts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: Arc<RoutingState>,
    pub(crate) context: RequestContext,
    pub(crate) caller: Arc<Caller>,
    pub(crate) plan: Plan,
    pub(crate) conversation: Option<u64>,
    pub(crate) session_named: bool,
    pub(crate) prompt_tokens: u32,
    pub(crate) received: Timestamp,
    pub(crate) complete: Timestamp,
    /// When the caller stops waiting.
    pub(crate) deadline: Timestamp,
    pub(crate) trace: RequestTrace,
    pub(crate) admitted: Admitted,
    pub(crate) held: Held,
    pub(crate) captured: Option<Box<Captured>>,
}

impl Generation {
    pub(crate) fn begin(parts: Parts) -> Self {
        let Parts {
            shared,
            state,
            context,
            caller,
            plan,
            conversation,
            session_named,
            prompt_tokens,
            received,
            complete,
            deadline,
            trace,
            admitted,
            held,
            captured,
        } = parts;
        let context = Arc::new(context);
        let live = Arc::new(Live::default());
        let opening = Opening {
            state: Arc::clone(&state),
            context: Arc::clone(&context),
            caller: Arc::clone(&caller),
            live: Arc::clone(&live),
            prompt_tokens,
            reservation: held.to_remember(),
        };
        // Lost when the journal has no room, which it counts.
        let _ = shared.ledger.note(Note::Begun(Box::new(opening)));
        Self {
            shared,
            state,
            context,
            caller,
            plan: Some(plan),
            conversation,
            session_named,
            uncached_prompt: prompt_tokens,
            current: None,
            other: None,
            attempts: SmallVec::new(),
            times: Times { received, complete, sent: None, answered: None, committed: None },
            echoes: Vec::new(),
            settled: false,
            held,
            held_by_last: None,
            live,
            captured,
            deadline,
            trace,
            _admitted: admitted,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.shared.clock.micros())
    }

    /// Asks the plan for the next attempt and takes it up.
    pub(crate) fn next(&mut self) -> Option<Next> {
        let now = self.now();
        let next = self.plan.as_mut()?.next(&self.state.snapshot, &self.state.health, now);
        if let Next::Attempt(plan) = &next {
            if let Some(last) = self.attempts.last() {
                self.shared.metrics.retry(last.end.label());
            }
            self.live.serving(plan.endpoint, plan.credential);
            self.current = Some(Current { plan: *plan, sent: now, first_token: None, trace: self.trace.attempt(), held: None });
        }
        Some(next)
    }

    /// How long the attempt in progress may take before it is hedged, if the caller wants that.
    pub(crate) fn hedge_after(&self, attempt: &AttemptPlan) -> Option<Duration> {
        if !self.caller.policy.own.hedge {
            return None;
        }
        self.plan.as_ref()?.hedge_after(&self.state.snapshot, &self.state.health, attempt)
    }

    /// Asks the plan for a second attempt beside the one in progress, and takes it up.
    pub(crate) fn hedge(&mut self) -> Option<AttemptPlan> {
        let now = self.now();
        let plan = self.plan.as_mut()?.hedge(&self.state.snapshot, &self.state.health, now)?;
        self.shared.metrics.hedges.inc();
        let hedge = Current { plan, sent: now, first_token: None, trace: self.trace.attempt(), held: None };
        self.other = self.current.replace(hedge).map(Box::new);
        Some(plan)
    }

    /// A limit of the caller names a provider: see [`Generation::hold_attempt`].
    pub(crate) fn has_provider_limits(&self) -> bool {
        self.held.by_provider().is_some()
    }

    /// Asks the caller's limits for the provider of the attempt that was just taken up.
    ///
    /// # Errors
    /// The refusal; nothing may be sent then.
    pub(crate) async fn hold_attempt(&mut self) -> Result<(), EdgeError> {
        let (Some(current), Some(limits)) = (&mut self.current, self.held.by_provider()) else { return Ok(()) };
        let target = self.state.target(current.plan.endpoint);
        let place = (&*target.model, target.provider.info.slug.as_str());
        current.held = self.shared.quotas.reserve_attempt(limits, &self.caller, place, current.plan.number).await?;
        if let Some(reservation) = current.held.as_ref().and_then(|held| held.to_remember()) {
            let (context, provider_name) = (Arc::clone(&self.context), Arc::clone(&target.provider.name));
            // Lost when the journal has no room, which it counts.
            let _ = self.shared.ledger.note(Note::Holding(Box::new(Holding { context, provider_name, reservation })));
        }
        Ok(())
    }

    /// Makes the attempt of this number the one in progress; the other one waits.
    pub(crate) fn take_up(&mut self, number: u8) {
        if let (Some(current), Some(other)) = (&mut self.current, &mut self.other)
            && other.plan.number == number
        {
            std::mem::swap(current, other);
        }
    }

    /// The endpoint of the attempt in progress, or of the last one.
    pub(crate) fn target(&self) -> Option<&Target> {
        let plan = self.current.as_ref().map(|current| &current.plan).or_else(|| self.attempts.last().map(|note| &note.plan))?;
        Some(self.state.target(plan.endpoint))
    }

    /// The `traceparent` of the attempt in progress.
    pub(crate) fn traceparent(&self) -> Option<http::HeaderValue> {
        self.current.as_ref().map(|current| trace::outgoing(current.trace))
    }

    pub(crate) fn stamp(&self, target: &Target) -> Stamp {
        Stamp {
            generation_id: Arc::clone(&self.context.id),
            model: Arc::clone(&target.model),
            provider: Arc::clone(&target.provider.name),
            created: self.context.created_ms / 1000,
        }
    }

    pub(crate) fn attempts(&self) -> &[AttemptNote] {
        &self.attempts
    }

    /// The record of the decisions so far; `None` once it has been handed over.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.plan.as_ref().map(Plan::decision)
    }

    /// Keeps the body of an attempt for the caller.
    pub(crate) fn echo(&mut self, body: Bytes) {
        self.echoes.push(body);
    }

    /// The bodies that the caller wanted to see, one per attempt.
    pub(crate) fn take_echoes(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.echoes)
    }

    /// The request is on its way upstream.
    pub(crate) fn sent(&mut self) {
        let now = self.now();
        if let Some(current) = &mut self.current {
            current.sent = now;
        }
        self.times.sent.get_or_insert(now);
    }

    /// The provider's first token (or whole answer) came.
    pub(crate) fn answered(&mut self, now: Timestamp) {
        self.times.answered = Some(now);
        if let Some(current) = &mut self.current {
            current.first_token = Some(now);
            let target = self.state.target(current.plan.endpoint);
            let after = now - current.sent;
            target.metrics.first_token.observe(after.as_secs_f64());
            if self.context.streamed
                && let Some(plan) = &mut self.plan
            {
                plan.first_token(&self.state.snapshot, &self.state.health, &current.plan, after, now);
            }
        }
    }

    /// The caller's first byte is handed over: from here on nothing is tried elsewhere. Gives the moment.
    pub(crate) fn committed(&mut self) -> Timestamp {
        let now = self.now();
        self.times.committed = Some(now);
        now
    }

    /// So much of the answer was handed over.
    pub(crate) fn delivered(&mut self, facts: &Facts, bytes: &[u8]) {
        self.live.delivered(facts);
        if let Some(captured) = &mut self.captured {
            captured.answer(bytes);
        }
    }

    /// Reports the attempt in progress to health and metrics; then the one that waited beside it is in progress. Does nothing when there
    /// is none.
    pub(crate) fn end_attempt(&mut self, end: AttemptEnd, details: AttemptDetails) {
        self.end_attempt_at(end, details, self.now());
    }

    /// [`Generation::end_attempt`] where the moment is known.
    pub(crate) fn end_attempt_at(&mut self, end: AttemptEnd, details: AttemptDetails, now: Timestamp) {
        let other = self.other.take().map(|other| *other);
        let Some(current) = std::mem::replace(&mut self.current, other) else { return };
        let outcome = Outcome {
            first_token: current.first_token.map(|at| at - current.sent).filter(|_| self.context.streamed),
            prompt_tokens: self.uncached_prompt,
            output_tokens: details.output_tokens,
            retry_after: details.retry_after,
            rate: details.rate,
            ..Outcome::new(end, now - current.sent)
        };
        if let Some(plan) = &mut self.plan {
            plan.ended(&self.state.snapshot, &self.state.health, &current.plan, &outcome, now);
            if end != AttemptEnd::Success && self.state.health.has_news() {
                self.shared.health_news.notify_one();
            }
        }
        self.state.target(current.plan.endpoint).metrics.attempt(end);
        // What the attempt before held is given back: it did not serve.
        self.held_by_last = current.held;
        self.attempts.push(AttemptNote {
            end,
            status: details.status,
            latency: current.first_token.unwrap_or(now) - current.sent,
            sent: current.sent,
            duration: now - current.sent,
            trace: current.trace,
            upstream_id: details.upstream_id,
            plan: current.plan,
        });
    }

    /// What the answer costs, and what the caller is charged.
    pub(crate) fn bill(&self, ending: Ending, facts: &Facts) -> Bill {
        let serving = self.current.as_ref().map(|current| &current.plan).or_else(|| self.attempts.last().map(|note| &note.plan));
        let own_key = serving.is_some_and(|plan| self.state.is_own_key(plan.credential));
        let delivered = Delivered::of(facts, self.uncached_prompt);
        Bill::of(ending, &delivered, self.target(), own_key, self.caller.account().fee, self.shared.clock.utc_hhmm())
    }

    /// Ends the generation: the one place where a request is accounted for. Later calls do nothing.
    pub(crate) fn settle(&mut self, end: End, facts: &Facts, bill: &Bill) {
        self.settle_at(end, facts, bill, self.now());
    }

    /// [`Generation::settle`] where the moment is known.
    pub(crate) fn settle_at(&mut self, end: End, facts: &Facts, bill: &Bill, now: Timestamp) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let elapsed = now - self.times.received;
        self.remember_conversation(end, &bill.usage);
        self.count(end, bill, elapsed);
        self.shared.metrics.request_bytes.inc_by(self.context.request_bytes as u64);
        if self.shared.access_log.is_on() {
            self.shared.access_log.line(|line| access_line::generation(line, self, end, facts, bill, elapsed));
        }
        trace::export(self, end, facts, bill, elapsed);
        let Some(decision) = self.plan.take().map(Plan::into_decision) else { return };
        let past = Arc::new(Past {
            state: Arc::clone(&self.state),
            context: Arc::clone(&self.context),
            caller: Arc::clone(&self.caller),
            attempts: std::mem::take(&mut self.attempts),
            times: self.times,
            elapsed,
            end,
            facts: facts.clone(),
            bill: *bill,
            decision,
        });
        self.shared.generations.keep(&self.context.id, now, Arc::clone(&past));
        if bill.usage.completion_tokens > 0 {
            self.shared.quotas.answered(self.caller.salt, self.context.model, bill.usage.completion_tokens);
        }
        if let Some(captured) = self.captured.take() {
            self.shared.content.store(*captured, &past);
        }
        self.close(past, bill);
    }

    /// Settles what is held, and leaves the record to the journal. A remote store is told once the record is written; when the journal has
    /// no room, it is told without.
    fn close(&mut self, past: Arc<Past>, bill: &Bill) {
        let used = tidegate_quota::Usage {
            requests: 1,
            input_tokens: bill.usage.prompt_tokens,
            output_tokens: bill.usage.completion_tokens,
            micro_dollars: crate::quota::micro_dollars(bill.toll.charged),
            free: self.held.reservation().is_some_and(crate::quota::was_free),
        };
        let (owed, owed_by_attempt) = (self.held.settle(used), self.close_attempt(used));
        if owed.is_some() || owed_by_attempt.is_some() {
            self.caller.ended_at.store(self.shared.clock.unix_micros(), Ordering::Relaxed);
        }
        let ledger: &Ledger = &self.shared.ledger;
        if let Err(Note::Ended(closing)) = ledger.note(Note::Ended(Box::new(Closing { past, owed, owed_by_attempt }))) {
            for owed in closing.owed.into_iter().chain(closing.owed_by_attempt) {
                self.held.settle_anyway(owed);
            }
        }
    }

    /// Settles what the serving attempt holds of limits for its provider; what has to wait for the record is given back.
    fn close_attempt(&mut self, used: tidegate_quota::Usage) -> Option<Owed> {
        let held = self.current.as_mut().and_then(|current| current.held.take()).or_else(|| self.held_by_last.take());
        let mut held = held?;
        let free = held.reservation().is_some_and(crate::quota::was_free);
        held.settle(tidegate_quota::Usage { free, ..used })
    }

    pub(crate) fn times(&self) -> &Times {
        &self.times
    }

    fn count(&self, end: End, bill: &Bill, elapsed: Duration) {
        let metrics = &self.shared.metrics;
        let asked = self.state.model(self.context.model);
        if end.status == 200 && end.error_type.is_empty() {
            asked.metrics.answered.inc();
        } else {
            metrics.request(&asked.slug, end.status, end.error_type);
        }
        let duration = if self.context.streamed { &metrics.duration_stream } else { &metrics.duration_json };
        duration.observe(elapsed.as_secs_f64());
        metrics.overhead.observe(self.times.overhead().as_secs_f64());
        let served = self.attempts.last().filter(|note| note.end == AttemptEnd::Success);
        if served.is_some_and(|note| note.plan.number > 1) {
            metrics.failovers.inc();
        }
        if bill.usage.prompt_tokens + bill.usage.completion_tokens > 0
            && let Some(target) = self.target()
        {
            let micros = u64::try_from(bill.charge.total.micro_dollars_rounded_up()).unwrap_or(0);
            let generating = self.times.sent.map_or(elapsed, |sent| self.times.received + elapsed - sent);
            target.metrics.used(&bill.usage, micros, generating);
        }
    }

    /// Arms, keeps or drops the stickiness of this conversation.
    fn remember_conversation(&self, end: End, usage: &Usage) {
        let (Some(conversation), Some(last)) = (self.conversation, self.attempts.last()) else { return };
        if end.ending != Ending::Completed {
            if last.end != AttemptEnd::Cancelled {
                self.shared.affinity.forget(conversation);
            }
            return;
        }
        let endpoint = self.state.endpoint(last.plan.endpoint);
        let cache_used = usage.cached_tokens > 0 || usage.cache_write_tokens > 0;
        if (cache_used || self.session_named) && endpoint.price.rewards_stickiness() {
            let target = self.state.target(last.plan.endpoint);
            self.shared.affinity.arm(conversation, target.id, endpoint.cache_lifetime.max(self.state.config.defaults.sticky_for));
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // The caller left before a byte was relayed; the relay settles itself once it has begun. Up to two attempts were under way.
        while self.current.is_some() {
            self.end_attempt(AttemptEnd::Cancelled, AttemptDetails::default());
        }
        let facts = Facts::default();
        let bill = self.bill(Ending::Cancelled, &facts);
        self.settle(End { ending: Ending::Cancelled, status: 499, error_type: "cancelled" }, &facts, &bill);
    }
}
