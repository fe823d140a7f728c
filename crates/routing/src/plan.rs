//! Where one request goes, attempt by attempt.
//!
//! A plan is made once per request from what was configured, and asked for attempts one by one while health moves. It alone
//! decides about retries: how many, where, whether the budget allows one, and when to stop. It sends nothing.

mod candidate;
pub(crate) mod decide;
mod exhausted;
mod gather;
pub(crate) mod hedge;
mod step;

pub use exhausted::{Exhausted, Reason};

use std::time::Duration;

use fastrand::Rng;
use smallvec::SmallVec;

use self::candidate::{Candidate, CandidateState, sticky_endpoint, strategy_of};
use self::decide::{Ruling, Scene, decide};
use self::exhausted::reason_of;
use crate::explain::{Choice, Chosen, Considered, Decision, Gate, Pick};
use crate::filter::{self, Excluded, NoRoute, NoRouteCode};
use crate::health::{BlockReason, Context, Health, Slot, prompt_class};
use crate::id::mix;
use crate::outcome::Outcome;
use crate::strategy::Strategy;
use crate::{CredentialIndex, EndpointIndex, Intent, ModelIndex, ProviderIndex, Snapshot, Timestamp};

/// The state of one request's routing. Use it with the snapshot and health it was made with, even when newer ones exist.
#[derive(Debug)]
pub struct Plan {
    intent: Intent,
    strategy: Strategy,
    candidates: SmallVec<[Candidate; 8]>,
    /// Prompt class of the request.
    class: usize,
    /// Attempts made.
    attempts: u8,
    max_attempts: u8,
    tried_credentials: SmallVec<[(EndpointIndex, CredentialIndex); 4]>,
    used_providers: SmallVec<[ProviderIndex; 4]>,
    same_endpoint: Option<EndpointIndex>,
    fallbacks: Fallbacks,
    over: bool,
    running: Option<Running>,
    /// The attempt that the running one hedges.
    waiting: Option<Running>,
    /// The next attempt is paid for by another budget.
    free: bool,
    decision: Decision,
}

/// One attempt to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptPlan {
    /// 1 for the first.
    pub number: u8,
    /// The model that will answer.
    pub model: ModelIndex,
    /// Where to.
    pub endpoint: EndpointIndex,
    /// With which account.
    pub credential: CredentialIndex,
    /// How long to wait for the first token (for a buffered answer: for the whole of it).
    pub first_token_timeout: Duration,
    /// How long a silence between chunks may last.
    pub idle_timeout: Duration,
    /// Whether it proves a half-open endpoint.
    pub probe: bool,
    /// When it was decided.
    pub started: Timestamp,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try this, then call [`Plan::ended`] exactly once.
    Attempt(AttemptPlan),
    /// Give up.
    Exhausted(Exhausted),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fallbacks {
    Allowed,
    /// One endpoint per model, chosen by the first attempt.
    None,
}

/// The attempt that is under way.
#[derive(Debug)]
struct Running {
    slot: Slot,
    number: u8,
    first_token_known: bool,
}

impl Plan {
    /// Filters the endpoints of the intent's models, or says why nothing is left.
    pub fn new(snapshot: &Snapshot, intent: Intent) -> Result<Plan, NoRoute> {
        let settings = snapshot.settings();
        if intent.models.is_empty() {
            return Err(NoRoute { code: NoRouteCode::ModelNotFound, excluded_by: Vec::new(), constraint: None, excluded: Vec::new() });
        }
        let strategy = strategy_of(&intent);
        let mut fallbacks = if intent.preferences.fallbacks_allowed() || !intent.preferences.order.is_empty() {
            Fallbacks::Allowed
        } else {
            Fallbacks::None
        };
        let mut candidates = SmallVec::new();
        let mut excluded: SmallVec<[Excluded; 4]> = SmallVec::new();
        for (at, model) in intent.models.iter().enumerate() {
            let filtered = filter::filter(snapshot, *model, &intent);
            if filtered.tier_only {
                fallbacks = Fallbacks::None;
            }
            for endpoint in filtered.kept {
                candidates.push(Candidate::new(snapshot, &intent, at, endpoint));
            }
            excluded.extend(filtered.excluded);
        }
        if candidates.is_empty() {
            return Err(filter::no_route(snapshot, &intent, excluded));
        }
        let max_attempts = if intent.max_attempts == 0 { settings.max_attempts } else { intent.max_attempts };
        let sticky = sticky_endpoint(snapshot, &intent, strategy);
        let decision = Decision {
            revision: snapshot.revision(),
            seed: intent.seed,
            models: intent.models.clone(),
            strategy,
            sticky,
            expected_output: intent.needs.expected_output,
            excluded,
            attempts: SmallVec::new(),
            considered: Vec::with_capacity(candidates.len()),
            stopped: None,
        };
        Ok(Plan {
            class: prompt_class(intent.needs.prompt_tokens),
            intent,
            strategy,
            candidates,
            attempts: 0,
            max_attempts,
            tried_credentials: SmallVec::new(),
            used_providers: SmallVec::new(),
            same_endpoint: None,
            fallbacks,
            over: false,
            running: None,
            waiting: None,
            free: false,
            decision,
        })
    }

    /// Decides the next attempt and takes its place among the endpoint's requests in flight. The place is given back by
    /// [`ended`](Self::ended), or when the plan is dropped.
    pub fn next(&mut self, snapshot: &Snapshot, health: &Health, now: Timestamp) -> Next {
        self.running = None;
        if let Some(reason) = self.reason_to_stop(now) {
            return self.exhausted(reason, None);
        }
        let first = self.decision.considered.len();
        let number = self.attempts + 1;
        let mut choice = Choice {
            number,
            at: now,
            first: u16::try_from(first).unwrap_or(u16::MAX),
            count: u16::try_from(self.candidates.len()).unwrap_or(u16::MAX),
            same_endpoint: self.same_endpoint,
            may_probe: self.may_probe(snapshot, health, now),
            panicked: false,
            hedge: false,
            chosen: None,
            end: None,
        };
        self.gather(snapshot, health, now);
        let found = loop {
            let scene = Scene {
                settings: snapshot.settings(),
                strategy: self.strategy,
                seed: self.intent.seed,
                number,
                sticky: self.decision.sticky,
                same_endpoint: choice.same_endpoint,
                may_probe: choice.may_probe,
                expected_output: self.intent.needs.expected_output,
                used_providers: &self.used_providers,
            };
            let ruling = decide(&scene, &mut self.decision.considered[first..]);
            choice.panicked = ruling.panicked;
            let Some((at, pick)) = ruling.pick else {
                break None;
            };
            match self.take(first + at, pick, snapshot, health, now) {
                Ok((slot, chosen)) => break Some((slot, chosen, at, ruling)),
                // Another thread was faster. Each turn closes one gate, so this ends.
                Err(gate) => self.decision.considered[first + at].gate = gate,
            }
        };
        let Some((slot, chosen, at, ruling)) = found else {
            self.decision.attempts.push(choice);
            let (reason, blocked_by) = reason_of(&self.decision.considered[first..]);
            return self.exhausted(reason, blocked_by);
        };
        if !self.pay(snapshot, health, now) {
            // Nothing was decided, so there is nothing to weigh again.
            self.decision.considered.truncate(first);
            choice.count = 0;
            self.decision.attempts.push(choice);
            return self.exhausted(Reason::Budget, None);
        }
        choice.chosen = Some(chosen);
        self.decision.attempts.push(choice);
        let considered = self.decision.considered[first + at];
        Next::Attempt(self.start(slot, &chosen, &considered, ruling, snapshot, now))
    }

    /// Learns the time to first token as soon as it is known, instead of when a long answer ends. Optional.
    pub fn first_token(&mut self, snapshot: &Snapshot, health: &Health, attempt: &AttemptPlan, after: Duration, now: Timestamp) {
        let mut under_way = [self.running.as_mut(), self.waiting.as_mut()].into_iter().flatten();
        let Some(running) = under_way.find(|running| running.number == attempt.number) else {
            return;
        };
        if running.first_token_known {
            return;
        }
        running.first_token_known = true;
        let in_flight = running.slot.in_flight();
        if let Some(cell) = health.cell(attempt.endpoint) {
            let settings = snapshot.settings();
            cell.with(|state| state.learn_first_token(after.as_secs_f64(), self.class, in_flight, settings, now));
        }
    }

    /// Hears how an attempt ended: health learns from it, the place in flight is given back, and the plan knows what may come
    /// next. Call it exactly once per attempt; a second call for the same attempt is ignored.
    pub fn ended(&mut self, snapshot: &Snapshot, health: &Health, attempt: &AttemptPlan, outcome: &Outcome, now: Timestamp) {
        let is_it = |running: &mut Running| running.number == attempt.number;
        let Some(mut running) = self.running.take_if(is_it).or_else(|| self.waiting.take_if(is_it)) else {
            return;
        };
        let context = Context {
            probe: attempt.probe,
            credential: credential_id(snapshot, attempt),
            first_token_known: running.first_token_known,
            in_flight: running.slot.in_flight(),
            peers: None,
            jitter: self.jitter(attempt.number),
        };
        health.observe(snapshot, attempt.endpoint, attempt.credential, outcome, context, now);
        running.slot.probe_observed();
        let mut choices = self.decision.attempts.iter_mut().rev();
        if let Some(choice) = choices.find(|choice| choice.number == attempt.number && choice.chosen.is_some()) {
            choice.end = Some(outcome.end);
        }
        self.step(snapshot, attempt, outcome.end);
    }

    /// The record so far.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The record, when the plan is done.
    pub fn into_decision(self) -> Decision {
        self.decision
    }

    /// Attempts made so far.
    pub fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Why nothing more may be tried, before looking at any candidate.
    fn reason_to_stop(&self, now: Timestamp) -> Option<Reason> {
        if self.over {
            Some(Reason::Ended)
        } else if self.attempts >= self.max_attempts {
            Some(Reason::Attempts)
        } else if now >= self.intent.deadline {
            Some(Reason::Deadline)
        } else {
            None
        }
    }

    /// Whether the failure of a probe could still be retried.
    fn may_probe(&self, snapshot: &Snapshot, health: &Health, now: Timestamp) -> bool {
        self.attempts == 0
            && self.max_attempts > 1
            && self.fallbacks == Fallbacks::Allowed
            && self.candidates.len() > 1
            && health.budget(self.intent.models[0]).is_some_and(|budget| budget.balance(snapshot.settings(), now) >= 1.0)
    }

    /// Takes a place at the chosen endpoint, an account, and the probe token if needed; or says which gate closed meanwhile.
    fn take(&self, at: usize, pick: Pick, snapshot: &Snapshot, health: &Health, now: Timestamp) -> Result<(Slot, Chosen), Gate> {
        let considered = &self.decision.considered[at];
        let endpoint = snapshot.endpoint(considered.endpoint);
        let cell = health.cell(considered.endpoint).ok_or(Gate::Full)?;
        let accounts = cell.with(|state| self.accounts(state, considered.endpoint, snapshot, health, now))?;
        let credential = self.choose_account(&accounts);
        let mut slot = Slot::take(cell, endpoint.max_concurrency.unwrap_or(u32::MAX)).ok_or(Gate::Full)?;
        let probe = considered.gate == Gate::HalfOpen;
        if probe {
            if !gather::begin_probe(cell, snapshot.settings(), now) {
                return Err(Gate::Probing);
            }
            slot.mark_probe();
        }
        Ok((slot, Chosen { endpoint: considered.endpoint, credential, pick, probe }))
    }

    /// One of the accounts by weight. A conversation keeps its account: prompt caches belong to accounts.
    fn choose_account(&self, accounts: &[gather::Usable]) -> CredentialIndex {
        let conversation = self.intent.affinity.map(|affinity| affinity.key);
        let mut rng = Rng::with_seed(mix(self.intent.seed ^ ACCOUNT_SALT ^ u64::from(self.attempts)));
        // Weighted rendezvous: the account with the smallest -ln(u)/weight, u a hash of conversation and account, or a draw.
        let score = |account: &gather::Usable, rng: &mut Rng| {
            let word = conversation.map_or_else(|| rng.u64(..), |key| mix(key ^ account.id));
            let uniform = ((word >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            -uniform.ln() / account.weight
        };
        let mut best = accounts[0].credential;
        if accounts.len() > 1 {
            let mut lowest = f64::INFINITY;
            for account in accounts {
                let score = score(account, &mut rng);
                if score < lowest {
                    lowest = score;
                    best = account.credential;
                }
            }
        }
        best
    }

    /// Pays for the attempt: the first one deposits into the model's retry budget, every other one takes from it.
    fn pay(&self, snapshot: &Snapshot, health: &Health, now: Timestamp) -> bool {
        let Some(budget) = health.budget(self.intent.models[0]).filter(|_| !self.free) else {
            return true;
        };
        if self.attempts > 0 {
            return budget.withdraw(snapshot.settings(), now);
        }
        budget.deposit(now);
        true
    }

    fn start(
        &mut self,
        slot: Slot,
        chosen: &Chosen,
        considered: &Considered,
        ruling: Ruling,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> AttemptPlan {
        self.attempts += 1;
        self.running = Some(Running { slot, number: self.attempts, first_token_known: false });
        self.same_endpoint = None;
        let has_alternative = ruling.has_alternative
            && self.attempts < self.max_attempts
            && (self.fallbacks == Fallbacks::Allowed || self.intent.models.len() > 1);
        AttemptPlan {
            number: self.attempts,
            model: snapshot.endpoint(chosen.endpoint).model(),
            endpoint: chosen.endpoint,
            credential: chosen.credential,
            first_token_timeout: self.first_token_timeout(considered, has_alternative, snapshot, now),
            idle_timeout: snapshot.settings().idle_timeout,
            probe: chosen.probe,
            started: now,
        }
    }

    fn jitter(&self, number: u8) -> f64 {
        let mut rng = Rng::with_seed(mix(self.intent.seed ^ JITTER_SALT ^ u64::from(number)));
        rng.f64() * 2.0 - 1.0
    }

    fn exhausted(&mut self, reason: Reason, blocked_by: Option<BlockReason>) -> Next {
        self.decision.stopped = Some(reason);
        Next::Exhausted(Exhausted { reason, attempts: self.attempts, blocked_by })
    }
}

fn credential_id(snapshot: &Snapshot, attempt: &AttemptPlan) -> u64 {
    let provider = snapshot.provider(snapshot.endpoint(attempt.endpoint).provider());
    let mut credentials = provider.credentials();
    credentials.find(|(index, _)| *index == attempt.credential).map_or(0, |(_, credential)| credential.id())
}

/// Separates the draws for accounts from those for endpoints.
const ACCOUNT_SALT: u64 = 0x6163_636f_756e_7431;
/// Separates the jitter of blocks and breakers from the draws of choices.
const JITTER_SALT: u64 = 0x6a69_7474_6572_2d31;

#[cfg(test)]
mod tests;
