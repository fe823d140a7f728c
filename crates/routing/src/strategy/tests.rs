use std::time::Duration;

use super::*;
use crate::testing::{World, answer, endpoint};
use crate::{AttemptEnd, EndpointSpec, Intent, Settings};

fn mode(mode: Mode) -> impl Fn(&mut Intent) {
    move |intent| intent.mode = mode
}

fn quiet(endpoints: Vec<EndpointSpec>) -> World {
    World::with_settings(endpoints, Settings { exploration_share: 0.0, ..Settings::default() })
}

fn prices(all: &[(&str, u64)]) -> Vec<EndpointSpec> {
    all.iter().map(|(name, price)| endpoint(name, *price)).collect()
}

#[test]
fn simple_gives_a_third_of_the_price_nine_times_the_traffic() {
    let world = quiet(prices(&[("cheap", 1_000_000), ("dear", 3_000_000)]));
    let share = world.share("cheap", 20_000, mode(Mode::Simple));
    assert!((share - 0.9).abs() < 0.01, "{share}");
}

#[test]
fn simple_puts_an_outage_last_for_thirty_seconds() {
    let mut world = quiet(prices(&[("a", 1_000_000), ("b", 2_000_000), ("c", 3_000_000)]));
    world.observe("b", AttemptEnd::Server(500), 1);
    for seed in 0..200 {
        let mut intent = world.intent(seed);
        intent.mode = Mode::Simple;
        let mut plan = world.plan(intent);
        let first = world.attempt(&mut plan);
        assert_ne!(world.name(first.endpoint), "b");
        drop(plan);
    }
    let mut intent = world.intent(5);
    intent.mode = Mode::Simple;
    let tried = world.run(intent, |_| AttemptEnd::Empty);
    assert_eq!(tried[2], "b", "unstable ones are the last resort");
    world.pass(Duration::from_secs(33));
    assert!(world.share("b", 2_000, mode(Mode::Simple)) > 0.1);
}

#[test]
fn price_mode_is_steep_and_never_absolute() {
    let world = quiet(prices(&[("cheap", 1_000_000), ("dear", 2_000_000)]));
    let share = world.share("cheap", 10_000, mode(Mode::Price));
    assert!((share - 16.0 / 17.0).abs() < 0.01, "{share}");
}

#[test]
fn balanced_lets_price_and_speed_both_move_traffic() {
    let measured = |cheap_speed, dear_speed| {
        let mut world = quiet(prices(&[("cheap", 1_000_000), ("dear", 1_500_000)]));
        for _ in 0..20 {
            world.observe_outcome("cheap", &answer(Duration::from_millis(400), cheap_speed));
            world.observe_outcome("dear", &answer(Duration::from_millis(400), dear_speed));
            world.pass(Duration::from_millis(200));
        }
        world.share("cheap", 4_000, mode(Mode::Balanced))
    };
    let (faster, slower) = (measured(100, 20), measured(20, 100));
    assert!(faster > 0.85, "cheaper and faster: {faster}");
    assert!((0.3..0.7).contains(&slower), "cheaper and slower: {slower}");
}

#[test]
fn balanced_does_not_pay_ten_times_for_a_little_speed() {
    let mut world = quiet(prices(&[("cheap", 1_000_000), ("dear", 10_000_000)]));
    for _ in 0..20 {
        world.observe_outcome("cheap", &answer(Duration::from_millis(500), 50));
        world.observe_outcome("dear", &answer(Duration::from_millis(400), 60));
        world.pass(Duration::from_millis(200));
    }
    let share = world.share("cheap", 2_000, mode(Mode::Balanced));
    assert!(share > 0.95, "{share}");
}

#[test]
fn latency_and_throughput_modes_follow_their_measure_whatever_the_price() {
    let mut world = quiet(prices(&[("quick", 9_000_000), ("steady", 1_000_000)]));
    for _ in 0..20 {
        world.observe_outcome("quick", &answer(Duration::from_millis(100), 20));
        world.observe_outcome("steady", &answer(Duration::from_millis(2_000), 200));
        world.pass(Duration::from_millis(200));
    }
    let short = |intent: &mut Intent| {
        intent.mode = Mode::Latency;
        intent.needs.expected_output = 5;
    };
    assert_eq!(world.share("quick", 200, short), 1.0);
    assert_eq!(world.share("steady", 200, mode(Mode::Throughput)), 1.0);
}

#[test]
fn configured_order_is_kept_while_the_first_works() {
    let world = quiet(prices(&[("first", 9_000_000), ("second", 1)]));
    assert_eq!(world.share("first", 100, mode(Mode::Order)), 1.0);
    world.observe("first", AttemptEnd::Server(500), 5);
    assert_eq!(world.share("second", 100, mode(Mode::Order)), 1.0);
}

#[test]
fn sticky_spreads_conversations_and_keeps_each() {
    let world = quiet(prices(&[("a", 1), ("b", 1), ("c", 1)]));
    let of = |key, seed| {
        let mut intent = world.intent(seed);
        intent.mode = Mode::Sticky;
        intent.affinity = Some(crate::Affinity { key, endpoint: None });
        world.first(intent)
    };
    let mut counts = std::collections::BTreeMap::new();
    for key in 0..300 {
        let home = of(key, 1);
        assert!((2..5).all(|seed| of(key, seed) == home));
        *counts.entry(home).or_insert(0) += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 60), "{counts:?}");
}

#[test]
fn only_the_lost_endpoints_conversations_move() {
    let world = quiet(prices(&[("a", 1), ("b", 1), ("c", 1)]));
    let homes = || -> Vec<&str> {
        let home = |key| {
            let mut intent = world.intent(1);
            intent.mode = Mode::Sticky;
            intent.affinity = Some(crate::Affinity { key, endpoint: None });
            world.first(intent)
        };
        (0..200).map(home).collect()
    };
    let before = homes();
    world.observe("b", AttemptEnd::Server(500), 5);
    for (before, after) in before.into_iter().zip(homes()) {
        assert_ne!(after, "b");
        if before != "b" {
            assert_eq!(before, after);
        }
    }
}

#[test]
fn exacto_avoids_the_outlier_and_compares_nobody_among_few() {
    let run = |names: &[&str]| {
        let mut world = quiet(names.iter().map(|name| endpoint(name, 1_000_000)).collect());
        for _ in 0..120 {
            for name in names {
                let speed = if *name == "slow" { 10 } else { 100 };
                world.observe_outcome(name, &answer(Duration::from_millis(300), speed));
            }
            world.pass(Duration::from_millis(500));
        }
        world.share("slow", 500, mode(Mode::Exacto))
    };
    assert_eq!(run(&["a", "b", "c", "slow"]), 0.0);
    assert!(run(&["a", "slow"]) > 0.0);
}
