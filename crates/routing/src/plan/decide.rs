//! The choice itself: a function of recorded inputs and a seed, and of nothing else.
//!
//! It sees candidates that are gated and ranked, decides whether too much was ejected, narrows to the best rank, and applies
//! the rules above strategies in their order: another credential, the conversation's endpoint, a probe, exploration, strategy.

use fastrand::Rng;

use crate::explain::{Considered, Gate, Pick};
use crate::id::mix;
use crate::strategy::{Pool, Strategy, Table, is_worth_staying};
use crate::{EndpointIndex, ProviderIndex, Settings};

/// What a choice depends on besides its candidates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) strategy: Strategy,
    /// Seed of the plan; each choice derives its own.
    pub(crate) seed: u64,
    /// 1 for the first choice.
    pub(crate) number: u8,
    /// Where the conversation was before.
    pub(crate) sticky: Option<EndpointIndex>,
    /// Whose credential failed, if only that failed.
    pub(crate) same_endpoint: Option<EndpointIndex>,
    pub(crate) may_probe: bool,
    pub(crate) expected_output: u32,
    /// Providers this plan tried already.
    pub(crate) used_providers: &'a [ProviderIndex],
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// Position among the considered, and the rule.
    pub(crate) pick: Option<(usize, Pick)>,
    pub(crate) panicked: bool,
    /// Whether another candidate could have been chosen.
    pub(crate) has_alternative: bool,
}

/// Makes the choice, and fills in weights and costs on the way.
pub(crate) fn decide(scene: &Scene<'_>, considered: &mut [Considered]) -> Ruling {
    scene.strategy.weigh(scene.settings, scene.expected_output, considered);
    let considered = &*considered;
    let panicking = panicking(scene.settings, considered);
    let open = usable(considered, panicking);
    let ruling = |pick| Ruling { pick, panicked: panicking != 0, has_alternative: open.len() > 1 };
    if open.is_empty() {
        return ruling(None);
    }
    if let Some(at) = position(considered, &open, scene.same_endpoint) {
        return ruling(Some((at, Pick::OtherCredential)));
    }
    let table = Table { settings: scene.settings, considered };
    let mut rng = Rng::with_seed(mix(scene.seed ^ u64::from(scene.number).wrapping_mul(CHOICE_STRIDE)));
    let ranked = best_rank(considered, &open);
    if scene.number == 1
        && let Some(at) = position(considered, &ranked, scene.sticky)
        && considered[at].gate == Gate::Open
        && is_worth_staying(scene.settings, considered, &ranked, at)
    {
        return ruling(Some((at, Pick::Sticky)));
    }
    if scene.strategy.is_strict() {
        return ruling(Some((scene.strategy.pick(&table, &ranked, &mut rng), Pick::Strategy)));
    }
    if let Some(at) = probe(scene, considered, &ranked, &mut rng) {
        return ruling(Some((at, Pick::Probe)));
    }
    let proven = without_half_open(considered, &ranked);
    let pool = elsewhere(scene, considered, proven);
    if let Some(at) = exploration(scene, considered, &pool, &mut rng) {
        return ruling(Some((at, Pick::Exploration)));
    }
    ruling(Some((scene.strategy.pick(&table, &pool, &mut rng), Pick::Strategy)))
}

/// The models of which health ejected more than its share of what this plan could still use, one bit each.
///
/// The share is counted in endpoints. Counting it in weights would let the price decide: the cheapest endpoint would hold more
/// than half of the weight and could never be ejected, however broken. A model with nothing left panics only if no other model
/// of the caller's list can be used.
fn panicking(settings: &Settings, considered: &[Considered]) -> u64 {
    if !considered.iter().any(|one| one.gate.is_ejected()) {
        return 0;
    }
    let anybody = considered.iter().any(|one| is_usable(one.gate));
    let mut models = 0;
    for model in considered.iter().filter(|one| one.gate.is_ejected()).map(|one| one.model) {
        let of_model = || considered.iter().filter(|one| one.model == model);
        let ejected = of_model().filter(|one| one.gate.is_ejected()).count();
        let usable = of_model().filter(|one| is_usable(one.gate)).count();
        let too_much = ejected as f64 > settings.ejection_share * (ejected + usable) as f64;
        if too_much && (usable > 0 || !anybody) {
            models |= bit(model);
        }
    }
    models
}

fn is_usable(gate: Gate) -> bool {
    matches!(gate, Gate::Open | Gate::HalfOpen | Gate::Crowded)
}

/// More models than bits share the last one.
fn bit(model: u8) -> u64 {
    1 << model.min(63)
}

/// Who may be chosen: the open ones, the ejected ones of a panicking model, the crowded ones only if there is nobody else,
/// because a learned limit is an estimate and refusing a caller on an estimate is worse than waiting at the provider.
fn usable(considered: &[Considered], panicking: u64) -> Pool {
    let those = |fits: &dyn Fn(&Considered) -> bool| -> Pool {
        considered.iter().enumerate().filter(|(_, one)| fits(one)).map(|(at, _)| at).collect()
    };
    let open = those(&|one| matches!(one.gate, Gate::Open | Gate::HalfOpen) || (panicking & bit(one.model) != 0 && one.gate.is_ejected()));
    if open.is_empty() { those(&|one| one.gate == Gate::Crowded) } else { open }
}

fn position(considered: &[Considered], pool: &Pool, endpoint: Option<EndpointIndex>) -> Option<usize> {
    let endpoint = endpoint?;
    pool.iter().copied().find(|at| considered[*at].endpoint == endpoint)
}

fn best_rank(considered: &[Considered], pool: &Pool) -> Pool {
    let best = pool.iter().map(|at| considered[*at].rank).min();
    pool.iter().copied().filter(|at| Some(considered[*at].rank) == best).collect()
}

/// The first half-open endpoint, when a failure could still be retried at a healthy one.
fn probe(scene: &Scene<'_>, considered: &[Considered], pool: &Pool, rng: &mut Rng) -> Option<usize> {
    if !scene.may_probe || scene.number > 1 {
        return None;
    }
    let half_open = pool.iter().copied().find(|at| considered[*at].gate == Gate::HalfOpen)?;
    pool.iter().find(|at| considered[**at].gate == Gate::Open)?;
    (rng.f64() < scene.settings.probe_probability).then_some(half_open)
}

/// Half-open endpoints are probed or left alone, unless nobody else is there.
fn without_half_open(considered: &[Considered], pool: &Pool) -> Pool {
    let proven: Pool = pool.iter().copied().filter(|at| considered[*at].gate != Gate::HalfOpen).collect();
    if proven.is_empty() { pool.clone() } else { proven }
}

/// On a retry, only other providers if there are any: what broke one endpoint may well be the provider.
fn elsewhere(scene: &Scene<'_>, considered: &[Considered], pool: Pool) -> Pool {
    if scene.used_providers.is_empty() {
        return pool;
    }
    let others: Pool = pool.iter().copied().filter(|at| !scene.used_providers.contains(&considered[*at].provider)).collect();
    if others.is_empty() { pool } else { others }
}

/// Now and then somebody with too little recent data, so that a change for the better is noticed.
fn exploration(scene: &Scene<'_>, considered: &[Considered], pool: &Pool, rng: &mut Rng) -> Option<usize> {
    if !scene.strategy.explores() || scene.number > 1 || pool.len() < 2 || rng.f64() >= scene.settings.exploration_share {
        return None;
    }
    let least = scene.settings.exploration_samples;
    let unknown: Pool = pool.iter().copied().filter(|at| f64::from(considered[*at].samples) < least).collect();
    if unknown.is_empty() { None } else { Some(unknown[rng.usize(..unknown.len())]) }
}

/// Odd and without pattern, so that the choices of one plan draw independently.
const CHOICE_STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests;
