use proptest::prelude::*;

use super::*;
use crate::Timestamp;
use crate::weight::tests::candidate;
use crate::{Mode, Strategy};

const OPEN_BREAKER: Gate = Gate::BreakerOpen { until: Timestamp(9) };

fn scene(settings: &Settings, seed: u64) -> Scene<'_> {
    Scene {
        settings,
        strategy: Strategy { mode: Mode::Balanced, strict: false },
        seed,
        number: 1,
        sticky: None,
        same_endpoint: None,
        may_probe: true,
        expected_output: 100,
        used_providers: &[],
    }
}

fn gated(gates: &[Gate]) -> Vec<Considered> {
    gates.iter().enumerate().map(|(at, gate)| Considered { gate: *gate, ..candidate(at as u32, 1e6) }).collect()
}

#[test]
fn half_may_be_ejected_and_more_may_not() {
    let settings = Settings::default();
    let panics = |gates: &[Gate]| decide(&scene(&settings, 1), &mut gated(gates)).panicked;
    assert!(!panics(&[Gate::Open, OPEN_BREAKER]));
    assert!(panics(&[Gate::Open, OPEN_BREAKER, Gate::Probing]));
    assert!(panics(&[OPEN_BREAKER]), "the last one is always kept");
    let blocked = Gate::Blocked { until: Timestamp(9), reason: crate::BlockReason::RateLimited };
    assert!(!panics(&[Gate::Open, blocked, blocked, blocked]), "rate limits are not health");
    assert_eq!(decide(&scene(&settings, 1), &mut gated(&[blocked, Gate::Full, Gate::Tried])).pick, None);
}

#[test]
fn a_broken_model_leaves_to_the_next_one_instead_of_panicking() {
    let settings = Settings::default();
    let mut all = gated(&[OPEN_BREAKER, OPEN_BREAKER, Gate::Open]);
    all[2].model = 1;
    all[2].rank = 1 << 20;
    let ruling = decide(&scene(&settings, 1), &mut all);
    assert_eq!((ruling.pick, ruling.panicked), (Some((2, Pick::Strategy)), false));
}

#[test]
fn an_ejected_endpoint_gets_little_even_in_a_panic() {
    let settings = Settings { exploration_share: 0.0, ..Settings::default() };
    let hits = (0..2_000).filter(|seed| {
        let mut all = gated(&[Gate::Open, OPEN_BREAKER, OPEN_BREAKER]);
        decide(&scene(&settings, *seed), &mut all).pick.is_some_and(|(at, _)| at != 0)
    });
    assert!(hits.count() < 100);
}

#[test]
fn a_half_open_endpoint_is_probed_at_once_if_somebody_can_catch_the_fall() {
    let settings = Settings::default();
    let pick = |scene: &Scene<'_>, gates: &[Gate]| decide(scene, &mut gated(gates)).pick.map(|(_, pick)| pick);
    assert_eq!(pick(&scene(&settings, 1), &[Gate::Open, Gate::HalfOpen]), Some(Pick::Probe));
    assert_eq!(pick(&scene(&settings, 1), &[Gate::HalfOpen]), Some(Pick::Strategy), "there is nobody else");
    let last = Scene { may_probe: false, ..scene(&settings, 1) };
    for seed in 0..100 {
        let mut all = gated(&[Gate::Open, Gate::HalfOpen]);
        let (at, _) = decide(&Scene { seed, ..last }, &mut all).pick.unwrap();
        assert_eq!(at, 0);
    }
}

#[test]
fn one_percent_explores_what_is_not_known() {
    let settings = Settings::default();
    let known = |all: &mut Vec<Considered>| all[0].samples = 100.0;
    let hits = (0..20_000).filter(|seed| {
        let mut all = gated(&[Gate::Open, Gate::Open]);
        all[1].price = 1e12;
        known(&mut all);
        decide(&scene(&settings, *seed), &mut all).pick == Some((1, Pick::Exploration))
    });
    let share = hits.count() as f64 / 20_000.0;
    assert!((0.007..0.013).contains(&share), "{share}");
}

proptest! {
    #[test]
    fn a_choice_is_always_somebody_who_may_be_chosen(
        seed: u64,
        gates in prop::collection::vec(prop::sample::select(vec![
            Gate::Open, Gate::HalfOpen, Gate::Tried, Gate::NoFallback, OPEN_BREAKER, Gate::Full, Gate::Crowded, Gate::Late,
        ]), 1..9),
        ranks in prop::collection::vec(0_u32..3, 9),
    ) {
        let settings = Settings::default();
        let mut all = gated(&gates);
        for (one, rank) in all.iter_mut().zip(ranks) {
            one.rank = rank;
        }
        let ruling = decide(&scene(&settings, seed), &mut all);
        match ruling.pick {
            Some((at, _)) => {
                let gate = all[at].gate;
                prop_assert!(
                    matches!(gate, Gate::Open | Gate::HalfOpen | Gate::Crowded) || (ruling.panicked && gate.is_ejected())
                );
            }
            None => prop_assert!(!gates.iter().any(|gate| matches!(gate, Gate::Open | Gate::HalfOpen | Gate::Crowded))),
        }
    }
}
