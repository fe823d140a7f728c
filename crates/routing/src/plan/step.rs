//! What the end of one attempt means for the rest of the plan.

use super::candidate::{CandidateState, is_unpartitioned};
use super::{AttemptPlan, Fallbacks, Plan};
use crate::outcome::NextStep;
use crate::{AttemptEnd, EndpointIndex, Snapshot};

impl Plan {
    /// Moves on after an attempt.
    pub(super) fn step(&mut self, snapshot: &Snapshot, attempt: &AttemptPlan, end: AttemptEnd) {
        let Some(at) = self.candidates.iter().position(|one| one.endpoint == attempt.endpoint) else {
            return;
        };
        let model = self.candidates[at].model;
        self.free = end == AttemptEnd::OverLimit;
        match end.next_step() {
            NextStep::Stop => self.over = true,
            NextStep::Elsewhere => {
                self.candidates[at].state = CandidateState::Tried;
                self.used_providers.push(snapshot.endpoint(attempt.endpoint).provider());
            }
            NextStep::OtherCredential => {
                self.tried_credentials.push((attempt.endpoint, attempt.credential));
                self.used_providers.push(snapshot.endpoint(attempt.endpoint).provider());
                // The last attempt is better spent elsewhere, if there is an elsewhere.
                if self.attempts + 1 < self.max_attempts || self.candidates.len() == 1 {
                    self.same_endpoint = Some(attempt.endpoint);
                }
            }
            NextStep::OtherProvider => {
                let provider = snapshot.endpoint(attempt.endpoint).provider();
                let theirs = |one: EndpointIndex| snapshot.endpoint(one).provider() == provider;
                for candidate in self.candidates.iter_mut().filter(|one| one.model == model && theirs(one.endpoint)) {
                    candidate.state = CandidateState::Tried;
                }
                self.max_attempts = self.max_attempts.saturating_add(1);
            }
            NextStep::OtherModel => {
                self.close_model(model);
                self.over = self.candidates.iter().all(|one| one.state != CandidateState::Untried);
            }
        }
        if self.fallbacks == Fallbacks::None {
            self.disallow_others(attempt.endpoint, model);
        }
        self.leave_attempts_for_later_models(model);
    }

    fn close_model(&mut self, model: u8) {
        for candidate in self.candidates.iter_mut().filter(|one| one.model == model) {
            candidate.state = CandidateState::ModelClosed;
        }
    }

    /// Without fallbacks the first choice is the only one: of its model, or of all if all were sorted together.
    fn disallow_others(&mut self, chosen: EndpointIndex, model: u8) {
        let together = is_unpartitioned(&self.intent);
        for candidate in &mut self.candidates {
            if candidate.endpoint == chosen {
                if candidate.state == CandidateState::Tried {
                    candidate.state = CandidateState::NotAllowed;
                }
            } else if (together || candidate.model == model) && candidate.state == CandidateState::Untried {
                candidate.state = CandidateState::NotAllowed;
            }
        }
    }

    /// Every model of the caller's list gets its chance: the last attempts belong to the models not tried yet.
    fn leave_attempts_for_later_models(&mut self, model: u8) {
        if self.intent.models.len() < 2 || is_unpartitioned(&self.intent) {
            return;
        }
        let later = (model + 1..=u8::MAX)
            .take(self.intent.models.len())
            .filter(|later| {
                let mut candidates = self.candidates.iter();
                candidates.any(|one| one.model == *later && one.state == CandidateState::Untried)
            })
            .count();
        if later > 0 && usize::from(self.max_attempts.saturating_sub(self.attempts)) <= later {
            self.close_model(model);
            self.same_endpoint = None;
        }
    }
}
