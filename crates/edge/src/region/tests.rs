use std::sync::Arc;

use prometheus::Registry;
use tidegate_proto::v1::{ProbeToken, Verdict, ViewCell};
use tidegate_routing::{AttemptEnd, EndpointId, EndpointIndex, Intent, Next, Outcome, Plan, Preferences};
use tidegate_runtime::ops::Readiness;

use super::*;
use crate::metrics::Metrics;
use crate::state::RoutingState;

const MODEL: &str = "author/model";

/// An edge with one endpoint at each of so many providers, and no sockets.
fn state(providers: usize) -> RoutingState {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    RoutingState::build(crate::config::testing::mesh(providers, MODEL), None, &metrics).unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp(1_000_000_000 + millis * 1_000)
}

fn id(name: &str) -> EndpointId {
    EndpointId::of(name)
}

/// One request that can only go to one endpoint. Whether it could.
fn request(state: &RoutingState, endpoint: usize, end: AttemptEnd, now: Timestamp) -> bool {
    let model = state.snapshot.model(MODEL).unwrap();
    let mut intent = Intent::new(model, now + Duration::from_secs(60), now.micros());
    let tag = state.snapshot.endpoints()[endpoint].tag.clone();
    intent.preferences = Arc::new(Preferences { only: vec![vec![tag]], ..Preferences::default() });
    let mut plan = Plan::new(&state.snapshot, intent).unwrap();
    let Next::Attempt(attempt) = plan.next(&state.snapshot, &state.health, now) else { return false };
    plan.ended(&state.snapshot, &state.health, &attempt, &Outcome::new(end, Duration::from_millis(20)), now);
    true
}

fn cell(name: &str, verdict: Verdict, closings: u32) -> ViewCell {
    ViewCell {
        endpoint: id(name).0,
        verdict: verdict as i32,
        success_permille: if verdict == Verdict::Healthy { 1_000 } else { 0 },
        samples: 100,
        reporters: 8,
        confidence: 100,
        closings,
        ..ViewCell::default()
    }
}

fn view(version: u64, cells: Vec<ViewCell>) -> HealthView {
    HealthView { epoch: 1, version, full: version == 1, active_edges: 8, cells, ..HealthView::default() }
}

#[test]
fn increments_are_told_until_acknowledged_and_never_twice() {
    let state = state(2);
    let mut reports = Reports::new(7, at(0));
    request(&state, 0, AttemptEnd::Success, at(10));
    let first = reports.next(&state, 100, false, at(250)).unwrap();
    assert_eq!((first.seq, first.incarnation, first.window_ms, first.cells.len(), first.cells[0].ok), (1, 7, 250, 1, 1));
    request(&state, 0, AttemptEnd::Connect, at(300));
    let second = reports.next(&state, 100, false, at(500)).unwrap();
    assert_eq!((second.cells[0].ok, second.cells[0].connect), (0, 1));
    assert_eq!(reports.next(&state, 100, false, at(750)), None, "nothing happened");
    let again = reports.unacknowledged(at(9_000));
    assert_eq!(again.iter().map(|report| (report.seq, report.window_ms)).collect::<Vec<_>>(), [(1, 9_000), (2, 8_750)]);
    reports.acknowledged(1);
    assert_eq!(reports.unacknowledged(at(9_000)).len(), 1);
    let heartbeat = reports.next(&state, 100, false, at(1_500)).unwrap();
    assert!(heartbeat.cells.is_empty());
}

#[test]
fn without_acknowledgement_counts_add_up_in_place() {
    let state = state(1);
    let mut reports = Reports::new(7, at(0));
    for round in 0..50 {
        request(&state, 0, AttemptEnd::Success, at(round * 250));
        reports.next(&state, 100, false, at(round * 250 + 1));
    }
    assert_eq!(reports.unacknowledged(at(20_000)).len(), 16);
    reports.acknowledged(16);
    let rest = reports.next(&state, 100, false, at(20_000)).unwrap();
    assert_eq!(rest.cells[0].ok, 34);
}

#[test]
fn an_open_breaker_is_told_once_a_second_and_when_it_closes() {
    let (state, region, mut rng) = (state(2), RegionHealth::default(), fastrand::Rng::with_seed(1));
    let mut reports = Reports::new(7, at(0));
    request(&state, 0, AttemptEnd::Success, at(0));
    assert_eq!(reports.next(&state, 100, false, at(1)).unwrap().cells[0].open, None);
    for millis in [10, 20, 30, 40, 50] {
        request(&state, 0, AttemptEnd::Server(500), at(millis));
    }
    let open = reports.next(&state, 100, false, at(60)).unwrap().cells[0].open.unwrap();
    assert_eq!((open.began_ms, open.opened_ms, open.samples, open.failed), (50, 10, 5.0, 5.0), "without the success before");
    assert_eq!(reports.next(&state, 100, false, at(310)), None, "nothing new");
    let again = reports.next(&state, 100, false, at(1_060)).unwrap().cells;
    assert_eq!((again.len(), again[0].ok + again[0].server_error, again[0].open.unwrap().opened_ms), (1, 0, 1_010));
    // The region took it out: it knows.
    region.hear(view(1, vec![cell("endpoint-0", Verdict::Ejected, 0)]), &state, &mut rng, at(1_100));
    assert_eq!(reports.next(&state, 100, false, at(1_200)).unwrap().cells[0].open, None);
    let heartbeat = reports.next(&state, 100, false, at(2_300)).unwrap();
    assert!(heartbeat.cells.is_empty(), "and is not told again: {heartbeat:?}");
    region.hear(view(2, vec![cell("endpoint-0", Verdict::Healthy, 1)]), &state, &mut rng, at(12_000));
    assert_eq!(reports.next(&state, 100, false, at(12_100)).unwrap().cells, [], "taken back: closed");
}

#[test]
fn a_breaker_that_opens_does_not_wait_for_the_next_report() {
    let state = state(2);
    let mut reports = Reports::new(7, at(0));
    let fail = |count: u64, now| (0..count).all(|_| request(&state, 0, AttemptEnd::Server(500), now));
    let due = |reports: &mut Reports, now| reports.due(state.health.take_news().unwrap(), now);
    assert_eq!(state.health.take_news(), None);
    reports.next(&state, 100, false, at(0));
    assert!(fail(1, at(20)));
    assert_eq!(due(&mut reports, at(20)), Some(Duration::from_millis(30)), "the first failure, 50 ms after the report before");
    assert!(fail(4, at(70)));
    assert_eq!(due(&mut reports, at(70)), Some(Duration::ZERO), "it opened");
    request(&state, 1, AttemptEnd::Server(500), at(80));
    assert_eq!(due(&mut reports, at(80)), None, "a failure somewhere is not worth a second report in a second");
    request(&state, 1, AttemptEnd::Success, at(1_080));
    request(&state, 1, AttemptEnd::Server(500), at(1_080));
    assert_eq!(due(&mut reports, at(1_080)), Some(Duration::ZERO));
}

#[test]
fn a_view_takes_an_endpoint_out_gives_a_token_and_takes_it_back() {
    let (state, region, mut rng) = (state(2), RegionHealth::default(), fastrand::Rng::with_seed(1));
    let open = |now| {
        let model = state.snapshot.model(MODEL).unwrap();
        let picks = (0..40).map(|seed| {
            let mut plan = Plan::new(&state.snapshot, Intent::new(model, now + Duration::from_secs(60), seed)).unwrap();
            let Next::Attempt(attempt) = plan.next(&state.snapshot, &state.health, now) else { panic!("two endpoints") };
            attempt.endpoint
        });
        picks.filter(|endpoint| *endpoint == EndpointIndex::new(0)).count()
    };
    assert!(open(at(0)) > 0);
    region.hear(view(1, vec![cell("endpoint-0", Verdict::Ejected, 0)]), &state, &mut rng, at(0));
    assert_eq!(open(at(1)), 0);
    region.hear(view(2, Vec::new()), &state, &mut rng, at(14_000));
    assert_eq!(open(at(20_000)), 0, "an empty view says that it still holds");
    let token = ProbeToken { endpoint: id("endpoint-0").0, expires_in_ms: 10_000 };
    region.hear(HealthView { probes: vec![token], ..view(3, Vec::new()) }, &state, &mut rng, at(21_000));
    assert!(open(at(21_001)) > 0);
    region.hear(view(4, Vec::new()), &state, &mut rng, at(22_000));
    assert_eq!(open(at(22_001)), 0, "somebody else's turn");
    region.hear(view(5, vec![cell("endpoint-0", Verdict::Healthy, 1)]), &state, &mut rng, at(23_000));
    let ramp = state.health.endpoint_view(EndpointIndex::new(0), at(28_000)).ramp;
    assert!(ramp < 0.2, "it ramps up from a moment within five seconds: {ramp}");
    assert_eq!(region.age(at(24_000)), Some(Duration::from_secs(1)));
}

#[test]
fn silence_of_the_control_plane_ends_its_verdicts() {
    let (state, region, mut rng) = (state(2), RegionHealth::default(), fastrand::Rng::with_seed(1));
    region.hear(view(1, vec![cell("endpoint-0", Verdict::Ejected, 0)]), &state, &mut rng, at(0));
    let remote = |now| up(state.health.endpoint_view(EndpointIndex::new(0), now).remote);
    assert_eq!(remote(at(14_000)), Some(0.0));
    assert_eq!(remote(at(15_001)), None);
}

#[test]
fn an_edge_alone_in_its_trouble_says_so() {
    let (state, region, mut rng) = (state(4), RegionHealth::default(), fastrand::Rng::with_seed(1));
    let fine = (0..4).map(|at| cell(&format!("endpoint-{at}"), Verdict::Healthy, 0)).collect();
    region.hear(view(1, fine), &state, &mut rng, at(0));
    let (mut reports, mut check) = (Reports::new(1, at(0)), SelfCheck::default());
    for endpoint in 0..3 {
        for _ in 0..4 {
            request(&state, endpoint, AttemptEnd::Connect, at(100));
        }
    }
    assert!(!check.step(&region, &state, at(200)).suspect, "nothing was counted yet");
    let report = reports.next(&state, 100, false, at(250)).unwrap();
    check.count(&report, &state, at(250));
    assert!(check.step(&region, &state, at(251)).suspect, "three providers, and the region sees none of it");
    let blind = RegionHealth::default();
    let mut alone = SelfCheck::default();
    alone.count(&report, &state, at(250));
    assert!(!alone.step(&blind, &state, at(251)).suspect, "nobody to compare with");
}

#[test]
fn a_new_build_trusts_itself_half_and_a_suspect_not_at_all() {
    let readiness = Readiness::new();
    let mut link = HealthLink::new(1, readiness.condition("health"), at(0));
    assert!(readiness.is_ready());
    assert_eq!((link.confidence(false, at(0)), link.confidence(true, at(0)), link.confidence(false, at(600_000))), (50, 0, 100));
    link.seen_to_work();
    assert_eq!(link.confidence(false, at(0)), 100);
    let spans: Vec<Duration> = (0..200).map(|_| link.interval()).collect();
    assert!(spans.iter().all(|span| (200..=300).contains(&span.as_millis())) && spans.iter().max() != spans.iter().min());
}
