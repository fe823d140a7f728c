use std::time::Duration;

use super::*;
use crate::outcome::Outcome;
use crate::testing::{World, answer, endpoint, outcome};
use crate::{RateHint, Settings};

fn view(world: &World, name: &str) -> EndpointView {
    world.health.endpoint_view(world.index(name), world.now)
}

#[test]
fn health_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Health>();
}

#[test]
fn the_posterior_starts_at_the_prior_and_follows_the_window() {
    let mut world = World::new(vec![endpoint("a", 1)]);
    assert_eq!(view(&world, "a").success, 0.95);
    world.observe("a", AttemptEnd::Success, 10);
    assert!((view(&world, "a").success - 19.5 / 20.0).abs() < 1e-9);
    world.observe("a", AttemptEnd::Server(500), 4);
    assert!((view(&world, "a").success - 19.5 / 24.0).abs() < 1e-9);
    world.pass(Duration::from_secs(33));
    assert_eq!(view(&world, "a").success, 0.95);
}

#[test]
fn a_callers_fault_or_departure_changes_nothing() {
    let world = World::new(vec![endpoint("a", 1)]);
    world.observe("a", AttemptEnd::Success, 3);
    let before = view(&world, "a");
    for end in [AttemptEnd::Rejected(400), AttemptEnd::Rejected(422), AttemptEnd::Cancelled] {
        world.observe("a", end, 20);
        assert_eq!(view(&world, "a"), before, "{end:?}");
    }
}

#[test]
fn an_unknown_model_lowers_the_weight_and_opens_nothing() {
    let world = World::new(vec![endpoint("a", 1)]);
    world.observe("a", AttemptEnd::ModelNotFound, 60);
    assert!(view(&world, "a").success < 0.2);
    assert_eq!(view(&world, "a").breaker, BreakerState::Closed);
}

#[test]
fn an_endpoint_much_worse_than_its_peers_is_opened() {
    let world = World::new(vec![endpoint("a", 1), endpoint("b", 1), endpoint("c", 1)]);
    world.observe("b", AttemptEnd::Success, 50);
    world.observe("c", AttemptEnd::Success, 50);
    for _ in 0..15 {
        world.observe("a", AttemptEnd::Success, 4);
        world.observe("a", AttemptEnd::Server(500), 1);
    }
    assert!(matches!(view(&world, "a").breaker, BreakerState::Open { .. }), "20 % against 0 %");

    let alike = World::new(vec![endpoint("a", 1), endpoint("b", 1)]);
    for _ in 0..15 {
        for name in ["a", "b"] {
            alike.observe(name, AttemptEnd::Success, 4);
            alike.observe(name, AttemptEnd::Server(500), 1);
        }
    }
    assert_eq!(view(&alike, "a").breaker, BreakerState::Closed, "as bad as everybody else");
}

#[test]
fn remote_news_is_worth_ten_samples_and_fades() {
    let mut world = World::new(vec![endpoint("a", 1)]);
    let received = world.now;
    let news = RemoteEvidence { success: 0.0, confidence: 1.0, verdict: RemoteVerdict::Degraded, received };
    world.health.set_remote(world.index("a"), news);
    assert!((view(&world, "a").success - 9.5 / 20.0).abs() < 1e-9);
    world.observe("a", AttemptEnd::Server(500), 2);
    assert!(matches!(view(&world, "a").breaker, BreakerState::Open { .. }), "two suffice when degraded");
    world.pass(Duration::from_secs(60));
    assert!(view(&world, "a").success > 0.94);
}

#[test]
fn a_region_wide_ejection_holds_fifteen_seconds_after_its_last_word() {
    let mut world = World::new(vec![endpoint("a", 1), endpoint("b", 1)]);
    let received = world.now;
    let news = RemoteEvidence { success: 0.0, confidence: 1.0, verdict: RemoteVerdict::Ejected, received };
    world.health.set_remote(world.index("a"), news);
    assert_eq!(world.share("a", 100, |_| ()), 0.0);
    world.pass(Duration::from_secs(16));
    assert!(world.share("a", 100, |_| ()) > 0.0);
}

#[test]
fn public_figures_need_enough_requests() {
    let world = World::new(vec![endpoint("a", 1)]);
    for _ in 0..95 {
        world.observe_outcome("a", &answer(Duration::from_millis(500), 50));
    }
    assert_eq!(view(&world, "a").uptime_5m, None);
    world.observe("a", AttemptEnd::Server(502), 4);
    world.observe("a", AttemptEnd::RateLimited, 1);
    world.observe("a", AttemptEnd::Success, 0);
    assert_eq!(view(&world, "a").uptime_5m, None, "rate limits do not count");
    assert_eq!(view(&world, "a").requests_30m, 99);
    let latency = view(&world, "a").latency_30m.unwrap();
    assert!((0.45..0.55).contains(&latency.p50), "{latency:?}");
    let throughput = view(&world, "a").throughput_30m.unwrap();
    assert!((30.0..37.0).contains(&throughput.p50), "50 tokens in 1.5 s: {throughput:?}");

    let enough = World::with_settings(vec![endpoint("a", 1)], Settings { uptime_min_requests: 10, ..Settings::default() });
    enough.observe("a", AttemptEnd::Success, 9);
    enough.observe("a", AttemptEnd::Cut, 1);
    for uptime in [view(&enough, "a").uptime_5m, view(&enough, "a").uptime_30m, view(&enough, "a").uptime_1d] {
        assert_eq!(uptime, Some(90.0));
    }
}

#[test]
fn a_fast_failure_does_not_look_fast() {
    let mut world = World::new(vec![endpoint("a", 1)]);
    world.observe_outcome("a", &answer(Duration::from_millis(300), 50));
    let mut failed = Outcome::new(AttemptEnd::Server(503), Duration::from_millis(2));
    failed.retry_after = Some(Duration::from_secs(8));
    world.observe_outcome("a", &failed);
    assert!(view(&world, "a").first_token.unwrap() > Duration::from_secs(1));
    world.pass(Duration::from_secs(100));
    assert!(view(&world, "a").first_token.unwrap() < Duration::from_millis(310), "and it is forgiven");
}

#[test]
fn an_outlier_is_clipped() {
    let mut world = World::new(vec![endpoint("a", 1)]);
    for _ in 0..64 {
        world.observe_outcome("a", &answer(Duration::from_millis(300), 50));
        world.pass(Duration::from_millis(20));
    }
    world.observe_outcome("a", &answer(Duration::from_secs(60), 50));
    assert!(view(&world, "a").first_token.unwrap() < Duration::from_millis(700));
}

#[test]
fn long_prompts_do_not_make_an_endpoint_look_slow_for_short_ones() {
    let mut world = World::new(vec![endpoint("a", 1)]);
    let mut long = answer(Duration::from_secs(10), 50);
    long.prompt_tokens = 100_000;
    world.observe_outcome("a", &long);
    let borrowed = view(&world, "a").first_token.unwrap();
    assert_eq!(borrowed, Duration::from_secs(2), "borrowed by the usual ratio");
    for _ in 0..20 {
        world.observe_outcome("a", &answer(Duration::from_millis(300), 50));
        world.observe_outcome("a", &long);
        world.pass(Duration::from_millis(100));
    }
    assert!(view(&world, "a").first_token.unwrap() < Duration::from_millis(310));
}

#[test]
fn an_endpoint_is_blocked_when_no_account_is_left() {
    let world = World::of(crate::testing::spec(vec![endpoint("a", 1)], 2));
    let mut limited = outcome(AttemptEnd::RateLimited);
    limited.retry_after = Some(Duration::from_secs(30));
    world.observe_outcome("a", &limited);
    assert_eq!(view(&world, "a").blocked_until, None);
    limited.retry_after = Some(Duration::from_secs(9));
    world.observe_outcome("a", &limited);
    assert_eq!(view(&world, "a").blocked_until, Some(world.now + Duration::from_secs(9)));
    assert_eq!(view(&world, "a").breaker, BreakerState::Closed, "429 is neutral to the breaker");
}

#[test]
fn a_little_left_of_the_rate_limit_lowers_the_weight() {
    let mut world = World::with_settings(
        vec![endpoint("a", 1_000_000), endpoint("b", 1_000_000)],
        Settings { exploration_share: 0.0, ..Settings::default() },
    );
    for name in ["a", "b"] {
        world.observe_outcome(name, &answer(Duration::from_millis(300), 100));
    }
    let usual = world.share("a", 1_000, |_| ());
    let mut hinted = answer(Duration::from_millis(300), 100);
    hinted.rate = Some(RateHint { remaining_ratio: 0.01, reset: Some(Duration::from_secs(5)) });
    world.observe_outcome("a", &hinted);
    let little = world.share("a", 1_000, |_| ());
    assert!(little < 0.25 && little < usual / 2.0, "{usual} then {little}");
    world.pass(Duration::from_secs(6));
    assert!(world.share("a", 1_000, |_| ()) > little * 2.0);
}
