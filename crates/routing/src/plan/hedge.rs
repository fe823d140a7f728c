//! Hedging: asking a second provider while the first one keeps a request waiting.
//!
//! Both attempts are billed by their providers, so it is the caller's choice, bounded by a budget, and never for long prompts, for
//! models that think before they speak, or for whole answers, whose first byte comes only when all of it is written.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{AttemptPlan, CandidateState, Fallbacks, Next, Plan};
use crate::{Health, Mode, ParameterSet, Settings, Snapshot, Timestamp};

/// Earned by requests, spent by hedges; in millionths of a hedge.
#[derive(Debug, Default)]
pub(crate) struct HedgeBudget(AtomicI64);

impl HedgeBudget {
    /// Counts a request that may be hedged.
    fn deposit(&self, settings: &Settings) {
        let share = (settings.hedge_share * HEDGE as f64) as i64;
        if self.0.fetch_add(share, Ordering::Relaxed) + share > MOST_SAVED {
            self.0.fetch_min(MOST_SAVED, Ordering::Relaxed);
        }
    }

    fn withdraw(&self) -> bool {
        let enough = |saved: i64| (saved >= HEDGE).then_some(saved - HEDGE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_ok()
    }
}

impl Plan {
    /// How long the attempt may keep a caller who opted in waiting before it is hedged; `None` when it must not be. Asked once per
    /// request, for its first attempt.
    pub fn hedge_after(&self, snapshot: &Snapshot, health: &Health, attempt: &AttemptPlan) -> Option<Duration> {
        let settings = snapshot.settings();
        let needs = &self.intent.needs;
        let thinks = ParameterSet::from_name("reasoning").is_some_and(|reasoning| needs.parameters.contains(reasoning));
        let barred = attempt.number != 1
            || attempt.probe
            || needs.buffered
            || thinks
            || needs.prompt_tokens > settings.hedge_prompt_most
            || self.max_attempts < 2
            || self.fallbacks == Fallbacks::None
            || self.strategy.mode == Mode::Order
            || self.candidates.len() < 2;
        if barred {
            return None;
        }
        health.hedges().deposit(settings);
        let chosen = self.decision.considered.iter().find(|one| one.endpoint == attempt.endpoint);
        let slow = chosen.and_then(|one| one.first_token_p95).map_or(0.0, f64::from);
        Some(settings.hedge_least.max(Duration::from_secs_f64(slow.clamp(0.0, LONGEST_WAIT))))
    }

    /// Decides where a second attempt goes while the first one is still waited for: to another provider, or nowhere. The first one
    /// keeps its place; both end by [`Plan::ended`].
    pub fn hedge(&mut self, snapshot: &Snapshot, health: &Health, now: Timestamp) -> Option<AttemptPlan> {
        let first = self.decision.attempts.last()?.chosen?.endpoint;
        let provider = snapshot.endpoint(first).provider();
        let elsewhere = |index| snapshot.endpoint(index).provider() != provider;
        if !self.candidates.iter().any(|one| one.state == CandidateState::Untried && elsewhere(one.endpoint)) || !health.hedges().withdraw()
        {
            return None;
        }
        let waiting = self.running.take();
        let (untouched, same_endpoint, budget_free) = (self.candidates.clone(), self.same_endpoint.take(), self.free);
        for candidate in self.candidates.iter_mut().filter(|one| !elsewhere(one.endpoint) && one.state == CandidateState::Untried) {
            candidate.state = CandidateState::Tried;
        }
        self.free = true;
        let next = self.next(snapshot, health, now);
        self.free = budget_free;
        self.candidates = untouched;
        self.same_endpoint = same_endpoint;
        self.waiting = waiting;
        match next {
            Next::Attempt(attempt) => {
                for candidate in self.candidates.iter_mut().filter(|one| one.endpoint == first || one.endpoint == attempt.endpoint) {
                    candidate.state = CandidateState::Tried;
                }
                if let Some(choice) = self.decision.attempts.last_mut() {
                    choice.hedge = true;
                }
                Some(attempt)
            }
            Next::Exhausted(_) => {
                self.decision.stopped = None;
                self.running = self.waiting.take();
                None
            }
        }
    }
}

/// One hedge, in the budget's unit.
const HEDGE: i64 = 1_000_000;
/// Hedges that may be saved up: a burst of slow answers after a quiet hour must not double the traffic.
const MOST_SAVED: i64 = 10 * HEDGE;
/// Seconds; a timer that is longer than any deadline.
const LONGEST_WAIT: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, endpoint};
    use crate::{AttemptEnd, Intent, Outcome};

    fn world() -> World {
        World::new(vec![endpoint("a/one", 1_000), endpoint("a/two", 1_000), endpoint("b", 1_000_000)])
    }

    fn first(world: &World, intent: Intent) -> (Plan, AttemptPlan) {
        let mut plan = world.plan(intent);
        let attempt = world.attempt(&mut plan);
        (plan, attempt)
    }

    fn earn(world: &World, hedges: u32) {
        let settings = Settings { hedge_share: 1.0, ..Settings::default() };
        (0..hedges).for_each(|_| world.health.hedges().deposit(&settings));
    }

    #[test]
    fn a_hedge_goes_to_another_provider_and_the_first_attempt_keeps_its_place() {
        let world = world();
        earn(&world, 1);
        for seed in 0..20 {
            earn(&world, 1);
            let (mut plan, attempt) = first(&world, world.intent(seed));
            assert_eq!(plan.hedge_after(&world.snapshot, &world.health, &attempt), Some(Duration::from_millis(1_500)));
            let hedge = plan.hedge(&world.snapshot, &world.health, world.now).expect("a second provider");
            let provider = |attempt: &AttemptPlan| world.snapshot.endpoint(attempt.endpoint).provider();
            assert_ne!(provider(&attempt), provider(&hedge));
            let in_flight = |attempt: &AttemptPlan| world.health.endpoint_view(attempt.endpoint, world.now).in_flight;
            assert_eq!((in_flight(&attempt), in_flight(&hedge)), (1, 1));
            let ended = |end| Outcome::new(end, Duration::from_secs(2));
            plan.ended(&world.snapshot, &world.health, &attempt, &ended(AttemptEnd::Cancelled), world.now);
            plan.ended(&world.snapshot, &world.health, &hedge, &ended(AttemptEnd::Success), world.now);
            assert_eq!((in_flight(&attempt), in_flight(&hedge)), (0, 0));
            let ends: Vec<_> = plan.decision().attempts.iter().map(|choice| (choice.end, choice.hedge)).collect();
            assert_eq!(ends, [(Some(AttemptEnd::Cancelled), false), (Some(AttemptEnd::Success), true)]);
            assert!(plan.decision().is_reproducible(&world.snapshot));
        }
    }

    #[test]
    fn after_both_failed_the_plan_goes_on_with_who_is_left() {
        let world = world();
        earn(&world, 1);
        let (mut plan, attempt) = first(&world, world.intent(3));
        let hedge = plan.hedge(&world.snapshot, &world.health, world.now).unwrap();
        let failed = Outcome::new(AttemptEnd::Server(500), Duration::from_secs(2));
        plan.ended(&world.snapshot, &world.health, &hedge, &failed, world.now);
        plan.ended(&world.snapshot, &world.health, &attempt, &failed, world.now);
        let last = world.attempt(&mut plan);
        assert_eq!(last.number, 3);
        assert!(last.endpoint != attempt.endpoint && last.endpoint != hedge.endpoint);
        assert!(plan.decision().is_reproducible(&world.snapshot));
    }

    #[test]
    fn long_prompts_whole_answers_and_thinkers_are_not_hedged() {
        let world = world();
        let asked = |change: &dyn Fn(&mut Intent)| {
            let mut intent = world.intent(1);
            change(&mut intent);
            let (plan, attempt) = first(&world, intent);
            plan.hedge_after(&world.snapshot, &world.health, &attempt)
        };
        assert!(asked(&|_| {}).is_some());
        assert_eq!(asked(&|intent| intent.needs.prompt_tokens = 9_000), None);
        assert_eq!(asked(&|intent| intent.needs.buffered = true), None);
        assert_eq!(asked(&|intent| intent.needs.parameters = ParameterSet::from_name("reasoning").unwrap()), None);
        assert_eq!(asked(&|intent| intent.mode = Mode::Order), None);
        assert_eq!(asked(&|intent| intent.max_attempts = 1), None);
    }

    #[test]
    fn one_provider_alone_is_not_hedged_and_costs_no_budget() {
        let world = World::new(vec![endpoint("a/one", 1_000), endpoint("a/two", 1_000)]);
        earn(&world, 1);
        let (mut plan, _) = first(&world, world.intent(1));
        assert_eq!(plan.hedge(&world.snapshot, &world.health, world.now), None);
        assert!(world.health.hedges().withdraw());
    }

    #[test]
    fn hedges_are_a_fiftieth_of_the_requests() {
        let world = world();
        let mut hedged = 0;
        for seed in 0..1_000 {
            let (mut plan, attempt) = first(&world, world.intent(seed));
            plan.hedge_after(&world.snapshot, &world.health, &attempt).unwrap();
            hedged += u32::from(plan.hedge(&world.snapshot, &world.health, world.now).is_some());
        }
        assert_eq!(hedged, 20);
    }
}
