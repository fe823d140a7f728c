//! Everything one edge knows about one endpoint, behind one short lock.
//!
//! A cell outlives snapshots: the old and the new health share it, so requests that began under one snapshot still count
//! under the next. Requests in flight are an atomic outside the lock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::account::Allowance;
use super::breaker::{Breaker, BreakerState, Evidence, Failure, Opening, Stir};
use super::ewma::{Ewma, PeakEwma};
use super::history::{History, Span};
use super::increment::{FailureClass, Pending};
use super::limiter::Limiter;
use super::remote::RemoteEvidence;
use super::sketch::Sketch;
use super::window::{Counts, Window};
use crate::explain::Gate;
use crate::outcome::{Outcome, Verdict};
use crate::{AttemptEnd, Settings, Timestamp};

#[derive(Debug)]
pub(crate) struct EndpointCell {
    in_flight: AtomicU32,
    state: Mutex<State>,
}

/// What is known, guarded by the cell's lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) window: Window,
    pub(crate) breaker: Breaker,
    pub(crate) first_token: [PeakEwma; CLASSES],
    /// Output tokens per second between the first and the last token.
    pub(crate) speed: Ewma,
    pub(crate) limiter: Limiter,
    pub(crate) allowances: SmallVec<[Allowance; 2]>,
    /// Until when a server error asked us to stay away.
    pub(crate) backing_off_until: Timestamp,
    /// Since when the weight ramps up.
    pub(crate) ramp_from: Option<Timestamp>,
    pub(crate) remote: RemoteEvidence,
    pub(crate) token: Token,
    /// Allocated with the first observation.
    pub(crate) measured: Option<Box<Measured>>,
}

/// The large part.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) history: History,
    pub(crate) tails: [Tail; CLASSES],
    /// What was not reported yet.
    pub(crate) pending: Pending,
}

/// The region's permission to try an endpoint that it ejected.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Token {
    pub(crate) granted_until: Timestamp,
    /// Whether a request is using it.
    probing: bool,
}

/// Ends of a distribution, recomputed once in a while so that a decision only reads them.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    sketch: Sketch,
    samples: u32,
    p10: f64,
    p95: f64,
}

impl EndpointCell {
    pub(crate) fn new(settings: &Settings) -> EndpointCell {
        EndpointCell {
            in_flight: AtomicU32::new(0),
            state: Mutex::new(State {
                window: Window::default(),
                breaker: Breaker::default(),
                first_token: Default::default(),
                speed: Ewma::default(),
                limiter: Limiter::new(settings),
                allowances: SmallVec::new(),
                backing_off_until: Timestamp(0),
                ramp_from: None,
                remote: RemoteEvidence::default(),
                token: Token::default(),
                measured: None,
            }),
        }
    }

    /// Requests on their way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes a place among the requests in flight, unless `most` are taken.
    pub(crate) fn enter(&self, most: u32) -> bool {
        if most == u32::MAX {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        // Adding first and taking back afterwards would refuse others for a moment.
        let place = |taken: u32| (taken < most).then_some(taken + 1);
        self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place).is_ok()
    }

    /// Gives the place back.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Runs `work` under the lock. Keep it short: no other lock, no allocation beyond the first observation.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock())
    }

    /// Failure ratio and sample count of the window.
    pub(crate) fn counts(&self, now: Timestamp) -> Counts {
        self.state.lock().window.counts(now)
    }
}

/// What an observation needs to know besides the outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// Whether the attempt was a probe.
    pub(crate) probe: bool,
    /// Stable id of the credential it used.
    pub(crate) credential: u64,
    /// Whether its time to first token was learned already.
    pub(crate) first_token_known: bool,
    /// Requests in flight, this one included.
    pub(crate) in_flight: u32,
    /// Median failure ratio of the model's other endpoints.
    pub(crate) peers: Option<f64>,
    /// Draw from −1 to 1 for whatever must not happen everywhere at once.
    pub(crate) jitter: f64,
}

impl State {
    /// Probability that a request succeeds: local samples over a prior, with remote news worth a few samples at most.
    pub(crate) fn success(&self, counts: &Counts, settings: &Settings, now: Timestamp) -> f64 {
        let remote = settings.remote_samples * self.remote.confidence_at(settings, now);
        let prior = settings.success_prior_samples;
        let good = counts.ok + settings.success_prior * prior + remote * self.remote.success;
        good / (counts.total() + counts.missing + prior + remote)
    }

    /// Share of its weight an endpoint gets: 1 in general, less for a while after it came back or appeared.
    pub(crate) fn ramp(&mut self, settings: &Settings, now: Timestamp) -> f64 {
        // All endpoints of a model are seen by its first request, so a cold edge ramps them alike and prefers none.
        let from = *self.ramp_from.get_or_insert(now);
        if settings.ramp.is_zero() {
            return 1.0;
        }
        (now.seconds_since(from) / settings.ramp.as_secs_f64()).clamp(settings.ramp_floor, 1.0)
    }

    /// Expected time to first token of a prompt class, in seconds. A class without data borrows from the nearest one.
    pub(crate) fn first_token(&self, class: usize, settings: &Settings, now: Timestamp) -> Option<f64> {
        if let Some(own) = self.first_token[class].get(settings, now) {
            return Some(own);
        }
        let nearest = (0..CLASSES).filter(|other| self.first_token[*other].is_measured()).min_by_key(|other| other.abs_diff(class))?;
        let borrowed = self.first_token[nearest].get(settings, now)?;
        Some(borrowed * CLASS_RATIO[class] / CLASS_RATIO[nearest])
    }

    /// 10th and 95th percentile of a class's time to first token in seconds, once there are enough samples.
    pub(crate) fn tails(&self, class: usize) -> Option<(f64, f64)> {
        let tail = &self.measured.as_ref()?.tails[class];
        (tail.samples >= TAIL_SAMPLES).then_some((tail.p10, tail.p95))
    }

    /// Attempts of the last half hour that say something about the endpoint.
    pub(crate) fn requests_30m(&self, now: Timestamp) -> u32 {
        let (ok, failed) = self.measured.as_ref().map_or((0, 0), |all| all.history.tally(Span::HalfHour, now));
        ok.saturating_add(failed)
    }

    /// What one account may do here.
    pub(crate) fn allowance(&self, credential: u64) -> Option<&Allowance> {
        self.allowances.iter().find(|allowance| allowance.credential == credential)
    }

    /// Learns a time to first token.
    pub(crate) fn learn_first_token(&mut self, seconds: f64, class: usize, in_flight: u32, settings: &Settings, now: Timestamp) {
        let clip = self.tails(class).map_or(f64::INFINITY, |(_, p95)| p95 * settings.first_token_clip);
        let clipped = seconds.min(clip);
        self.first_token[class].observe(clipped, settings, now);
        self.limiter.observe(clipped / CLASS_RATIO[class], in_flight, settings, now);
        let measured = self.measured.get_or_insert_default();
        measured.tails[class].record(seconds);
        measured.history.first_token(seconds, now);
        measured.pending.first_token(seconds);
    }

    /// What stands between this endpoint and traffic because of the region's verdict.
    pub(crate) fn remote_gate(&self, settings: &Settings, now: Timestamp) -> Option<Gate> {
        if !self.remote.is_ejected(settings, now) {
            return None;
        }
        Some(match self.token {
            Token { probing: true, .. } => Gate::Probing,
            Token { granted_until, .. } if granted_until > now => Gate::HalfOpen,
            Token { .. } => Gate::RemoteEjected,
        })
    }

    /// Takes the probe token, the region's or the local breaker's. False when someone else has it, or there is nothing to probe.
    pub(crate) fn begin_probe(&mut self, settings: &Settings, now: Timestamp) -> bool {
        match self.remote_gate(settings, now) {
            None => self.breaker.begin_probe(now),
            Some(Gate::HalfOpen) => {
                self.token.probing = true;
                true
            }
            Some(_) => false,
        }
    }

    /// Gives the probe token back without a verdict.
    pub(crate) fn abandon_probe(&mut self) {
        // A probe under the region's token is not the breaker's, which may be waiting still.
        if !std::mem::take(&mut self.token.probing) {
            self.breaker.abandon_probe();
        }
    }

    /// The region took the endpoint back.
    pub(crate) fn taken_back(&mut self, ramp_from: Timestamp, now: Timestamp) {
        self.token = Token { granted_until: Timestamp(0), ..self.token };
        self.breaker.close(now);
        self.window = Window::default();
        self.ramp_from = Some(ramp_from);
    }

    /// What an open breaker knows and the region does not make use of yet: once it has taken the endpoint out, its own probes decide.
    pub(crate) fn opening(&self, settings: &Settings, now: Timestamp) -> Option<Opening> {
        self.breaker.opening().filter(|_| !self.remote.is_ejected(settings, now))
    }

    /// Learns from a finished attempt. What a failure did to the breaker.
    pub(crate) fn learn(&mut self, outcome: &Outcome, context: &Context, settings: &Settings, now: Timestamp) -> Stir {
        let by_token = context.probe && std::mem::take(&mut self.token.probing);
        if !matches!(outcome.end, AttemptEnd::Cancelled | AttemptEnd::Rejected(_) | AttemptEnd::OverLimit) {
            self.measured.get_or_insert_default().pending.count(outcome, context, by_token);
        }
        if by_token && matches!(outcome.end.verdict(), Verdict::Hard | Verdict::Soft) {
            // It did what it was for; the region will say who is next.
            self.token.granted_until = Timestamp(0);
        }
        // The region counts what its token found out; the local breaker goes by its own probes.
        let context = &Context { probe: context.probe && !by_token, ..*context };
        let verdict = outcome.end.verdict();
        let counts = match verdict {
            Verdict::Success => Some(Counts::OK),
            Verdict::Hard => Some(Counts::HARD),
            Verdict::Soft => Some(Counts::SOFT),
            Verdict::Missing => Some(Counts::MISSING),
            Verdict::Neutral => None,
        };
        if let Some(counts) = counts {
            self.window.record(counts, now);
        }
        let mut stir = Stir::None;
        match verdict {
            Verdict::Success => self.learn_success(outcome, context, settings, now),
            Verdict::Hard | Verdict::Soft => stir = self.learn_failure(outcome, verdict == Verdict::Hard, context, settings, now),
            Verdict::Missing | Verdict::Neutral => {
                if context.probe {
                    self.breaker.abandon_probe();
                }
            }
        }
        if outcome.end.sheds_load() {
            self.limiter.back_off(settings, now);
        }
        self.learn_allowance(outcome, context, settings, now);
        stir
    }

    fn learn_success(&mut self, outcome: &Outcome, context: &Context, settings: &Settings, now: Timestamp) {
        if self.breaker.succeeded(context.probe, settings, now) {
            self.ramp_from = Some(now);
            // What opened it must not open it again at once.
            self.window = Window::default();
        }
        if let (Some(first_token), false) = (outcome.first_token, context.first_token_known) {
            let class = prompt_class(outcome.prompt_tokens);
            self.learn_first_token(first_token.as_secs_f64(), class, context.in_flight, settings, now);
        }
        let measured = self.measured.get_or_insert_default();
        measured.history.count(true, now);
        let Some(tokens) = outcome.output_tokens.filter(|tokens| *tokens > 0) else {
            return;
        };
        let total = outcome.elapsed.as_secs_f64();
        if total > 0.0 {
            measured.history.speed(f64::from(tokens) / total, now);
            measured.pending.speed(f64::from(tokens) / total);
        }
        let writing = outcome.first_token.map_or(total, |first| total - first.as_secs_f64());
        // A handful of tokens, or an answer that came in one piece, says little about speed.
        if writing > LEAST_WRITING && (tokens >= LEAST_TOKENS || outcome.first_token.is_none()) {
            self.speed.observe(f64::from(tokens) / writing, settings.speed_fade, now);
        }
    }

    fn learn_failure(&mut self, outcome: &Outcome, hard: bool, context: &Context, settings: &Settings, now: Timestamp) -> Stir {
        let evidence = Evidence { counts: self.window.counts(now), peers: context.peers, degraded: self.remote.is_degraded(settings, now) };
        let points_at_us = FailureClass::of(outcome.end).is_some_and(FailureClass::points_at_us);
        let failure = Failure { hard, points_at_us, probe: context.probe };
        let stir = self.breaker.failed(failure, &evidence, context.jitter, settings, now);
        let asked = outcome.retry_after.unwrap_or(Duration::ZERO).min(settings.failure_penalty_cap);
        let penalty = settings.failure_penalty.max(asked).as_secs_f64();
        self.first_token[prompt_class(outcome.prompt_tokens)].penalise(penalty, settings, now);
        if !asked.is_zero() {
            self.backing_off_until = self.backing_off_until.max(now + asked);
        }
        self.measured.get_or_insert_default().history.count(false, now);
        stir
    }

    fn learn_allowance(&mut self, outcome: &Outcome, context: &Context, settings: &Settings, now: Timestamp) {
        let refused = outcome.end == AttemptEnd::RateLimited;
        let known = self.allowances.iter().position(|one| one.credential == context.credential);
        let answered = outcome.end == AttemptEnd::Success;
        if known.is_none() && !refused && !answered && outcome.rate.is_none() {
            return;
        }
        let at = known.unwrap_or_else(|| {
            // Credentials come and go with configuration; what is no longer true is dropped before the list grows.
            self.allowances.retain(|one| !one.is_stale(settings, now));
            self.allowances.push(Allowance::new(context.credential));
            self.allowances.len() - 1
        });
        let allowance = &mut self.allowances[at];
        if let Some(hint) = outcome.rate {
            allowance.hinted(hint, now);
        }
        if refused {
            allowance.refused(outcome.retry_after, context.jitter, settings, now);
        } else if answered {
            allowance.accepted(u64::from(outcome.prompt_tokens) + u64::from(outcome.output_tokens.unwrap_or(0)), now);
        }
    }

    /// What the breaker lets through.
    pub(crate) fn breaker_state(&self, now: Timestamp) -> BreakerState {
        self.breaker.state(now)
    }
}

impl Tail {
    fn record(&mut self, seconds: f64) {
        self.sketch.record(seconds);
        self.samples = self.samples.saturating_add(1);
        if self.samples >= TAIL_SAMPLES && self.samples.is_multiple_of(TAIL_REFRESH) {
            self.p10 = self.sketch.quantile(0.1).unwrap_or(self.p10);
            self.p95 = self.sketch.quantile(0.95).unwrap_or(self.p95);
            if self.sketch.len() >= TAIL_MEMORY {
                self.sketch.halve();
            }
        }
    }
}

/// Size class of a prompt by its uncached tokens: up to 1 k, 8 k, 32 k, and above. Without classes the provider that happens
/// to get the long prompts looks slow.
pub(crate) fn prompt_class(tokens: u32) -> usize {
    match tokens {
        0..=1_024 => 0,
        1_025..=8_192 => 1,
        8_193..=32_768 => 2,
        _ => 3,
    }
}

pub(crate) const CLASSES: usize = 4;
/// Usual time to first token of each class relative to the first, to borrow between classes: prefill is roughly linear
/// above a fixed part.
const CLASS_RATIO: [f64; CLASSES] = [1.0, 1.3, 2.2, 5.0];
/// Samples before the ends of a distribution mean anything. A multiple of [`TAIL_REFRESH`].
const TAIL_SAMPLES: u32 = 16;
/// Samples between two looks at the ends.
const TAIL_REFRESH: u32 = 8;
/// Samples after which the past is halved, so that a change shows within a few hundred requests.
const TAIL_MEMORY: u32 = 512;
/// Seconds between first and last token below which a speed is mostly noise.
const LEAST_WRITING: f64 = 0.001;
/// Output tokens below which a speed is mostly noise.
const LEAST_TOKENS: u32 = 4;
