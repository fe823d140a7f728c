use tidegate_proto::v1::{OpenBreaker, ReportCell, Verdict};
use tidegate_routing::Histogram;

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp(1_000_000_000 + millis * 1_000)
}

const UNIX_MS: u64 = 1_800_000_000_000;
const ENDPOINT: u64 = 42;

fn cell(ok: u32, server_error: u32) -> ReportCell {
    let mut first_token = Histogram::default();
    (0..ok).for_each(|_| first_token.record(500.0));
    ReportCell { endpoint: ENDPOINT, ok, server_error, first_token: first_token.encode().into(), ..ReportCell::default() }
}

fn report(seq: u64, cells: Vec<ReportCell>) -> HealthReport {
    HealthReport { incarnation: 1, seq, window_ms: 250, confidence: 100, cells, ..HealthReport::default() }
}

/// A node that has been up for a while.
fn warm(node_id: u64) -> Fleet {
    let mut fleet = Fleet::new("eu", node_id, node_id);
    fleet.tick(&Health::default(), Timestamp(0));
    fleet
}

fn fleet() -> Fleet {
    warm(1)
}

/// Every edge reports the same once.
fn all(fleet: &mut Fleet, edges: u64, seq: u64, one: &ReportCell, now: Timestamp) {
    for edge in 0..edges {
        assert_eq!(fleet.take_report(&format!("edge-{edge}"), report(seq, vec![one.clone()]), UNIX_MS, now), Taken::New);
    }
}

fn verdict(fleet: &Fleet) -> Verdict {
    fleet.endpoints[&EndpointId(ENDPOINT)].told().verdict()
}

#[test]
fn a_quorum_ejects_and_an_edge_hears_of_it_once() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    let mut cursor = ViewCursor::default();
    all(&mut fleet, 6, 1, &cell(10, 0), at(0));
    fleet.tick(&agreed, at(10));
    let view = fleet.view_for("edge-0", &mut cursor, at(10)).unwrap();
    assert!(view.full && view.acknowledged == 1 && view.active_edges == 6);
    assert_eq!((view.cells[0].verdict(), view.cells[0].success_permille, view.cells[0].reporters), (Verdict::Healthy, 1_000, 6));
    assert_eq!(fleet.view_for("edge-0", &mut cursor, at(20)), None);

    all(&mut fleet, 6, 2, &cell(0, 12), at(250));
    assert!(fleet.tick(&agreed, at(260)));
    let view = fleet.view_for("edge-0", &mut cursor, at(260)).unwrap();
    assert!(!view.full && view.acknowledged == 2);
    assert_eq!(view.cells[0].verdict(), Verdict::Ejected);
    assert_eq!(fleet.view_for("edge-0", &mut cursor, at(300)), None);
    let heartbeat = fleet.view_for("edge-0", &mut cursor, at(1_300)).unwrap();
    assert!(heartbeat.cells.is_empty() && !heartbeat.full);
}

/// Five failures in a row, the first and the last so long ago.
fn opened(began_ms: u32, opened_ms: u32) -> ReportCell {
    let open = OpenBreaker { began_ms, opened_ms, samples: 5.0, failed: 5.0, connect: 0.0 };
    ReportCell { endpoint: ENDPOINT, open: Some(open), ..ReportCell::default() }
}

#[test]
fn open_breakers_speak_over_the_successes_of_the_seconds_before() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    all(&mut fleet, 6, 1, &cell(500, 0), at(0));
    fleet.tick(&agreed, at(10));
    assert!(!fleet.is_stirred());
    let failing = ReportCell { server_error: 5, ..opened(100, 0) };
    assert_eq!(fleet.take_report("edge-0", report(2, vec![failing.clone()]), UNIX_MS, at(250)), Taken::New);
    assert!(fleet.is_stirred());
    fleet.look_again(at(270));
    assert_eq!(verdict(&fleet), Verdict::Healthy, "one of six");
    for edge in ["edge-1", "edge-2"] {
        fleet.take_report(edge, report(2, vec![failing.clone()]), UNIX_MS, at(280));
    }
    fleet.look_again(at(300));
    assert_eq!(verdict(&fleet), Verdict::Healthy, "half of them, and what the others saw is as recent");
    fleet.take_report("edge-3", report(2, vec![opened(100, 0)]), UNIX_MS, at(310));
    assert!(fleet.look_again(at(330)));
    let told = fleet.endpoints[&EndpointId(ENDPOINT)].told();
    assert_eq!(told.verdict(), Verdict::Ejected);
    assert!(told.success_permille <= 500, "{told:?}");
    // Edges stop saying it, as the region has taken it out; what it is told to be stays.
    all(&mut fleet, 6, 3, &ReportCell { endpoint: ENDPOINT, ..ReportCell::default() }, at(500));
    fleet.tick(&agreed, at(510));
    let told = fleet.endpoints[&EndpointId(ENDPOINT)].told();
    assert!(told.verdict() == Verdict::Ejected && told.success_permille <= 500, "{told:?}");
}

#[test]
fn an_open_breaker_is_believed_for_three_seconds_and_degrades_where_edges_are_few() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    all(&mut fleet, 1, 1, &cell(300, 0), at(0));
    all(&mut fleet, 1, 2, &opened(80, 0), at(100));
    fleet.tick(&agreed, at(110));
    let told = fleet.endpoints[&EndpointId(ENDPOINT)].told();
    assert_eq!((told.verdict(), told.success_permille, told.samples), (Verdict::Degraded, 0, 5));
    // Said again every second it holds, long after the failures have left every window.
    for second in 1..40 {
        all(&mut fleet, 1, 2 + second, &opened(80 + second as u32 * 1_000, second as u32 * 1_000), at(100 + second * 1_000));
        fleet.tick(&agreed, at(110 + second * 1_000));
        assert_eq!(verdict(&fleet), Verdict::Degraded, "second {second}");
    }
    let seen = |fleet: &mut Fleet, millis: u64, seq| {
        all(fleet, 1, seq, &ReportCell { endpoint: 7, ..ReportCell::default() }, at(millis));
        fleet.tick(&agreed, at(millis));
        fleet.endpoints[&EndpointId(ENDPOINT)].finding().verdict
    };
    assert_eq!(seen(&mut fleet, 42_000, 50), tidegate_routing::RegionVerdict::Degraded);
    assert_eq!(seen(&mut fleet, 42_200, 51), tidegate_routing::RegionVerdict::Healthy, "not said for three seconds");
}

#[test]
fn what_opened_a_breaker_before_an_endpoint_was_taken_back_does_not_take_it_out_again() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    let began = to_probing(&mut fleet, &agreed);
    let probed = ReportCell { probe_ok: 3, ..cell(3, 0) };
    let holder = holders(&fleet, at(began)).remove(0);
    fleet.take_report(&holder, report(100_000, vec![probed]), UNIX_MS, at(began + 10));
    assert!(fleet.is_stirred(), "a probe's end is worth a look");
    fleet.look_again(at(began + 20));
    assert_eq!(verdict(&fleet), Verdict::Healthy);
    // The edges have not heard yet.
    let since = began as u32;
    all(&mut fleet, 6, 200_000, &opened(since + 90, since), at(began + 100));
    fleet.tick(&agreed, at(began + 110));
    assert_eq!(verdict(&fleet), Verdict::Healthy);
    all(&mut fleet, 6, 200_001, &opened(60, 10), at(began + 400));
    fleet.tick(&agreed, at(began + 410));
    assert_eq!(verdict(&fleet), Verdict::Ejected, "these are new");
}

#[test]
fn a_node_that_just_started_concludes_nothing() {
    let (mut fleet, agreed) = (Fleet::new("eu", 1, 1), Health::default());
    for millis in (0..=5_000).step_by(250) {
        all(&mut fleet, 4, 1 + millis, &cell(0, 9), at(millis));
        fleet.tick(&agreed, at(millis));
        assert_eq!(fleet.endpoints[&EndpointId(ENDPOINT)].verdict().is_out(), millis == 5_000, "{millis} ms");
    }
}

#[test]
fn a_report_counts_once_however_often_it_comes() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    for _ in 0..3 {
        fleet.take_report("edge-0", report(1, vec![cell(4, 1)]), UNIX_MS, at(0));
    }
    let exchanged = fleet.exchange(at(5));
    assert_eq!(exchanged.reports.len(), 1);
    fleet.take_exchange(&FleetExchange { node_id: 2, ..exchanged }, at(10));
    fleet.tick(&agreed, at(20));
    assert_eq!(fleet.endpoints[&EndpointId(ENDPOINT)].told().samples, 5);
    assert_eq!(fleet.take_report("edge-0", report(9, Vec::new()), UNIX_MS, at(30)), Taken::New);
    let restarted = HealthReport { incarnation: 2, ..report(1, vec![cell(1, 0)]) };
    assert_eq!(fleet.take_report("edge-0", restarted, UNIX_MS, at(40)), Taken::New);
    assert!(matches!(fleet.take_report("edge-0", report(10, Vec::new()), UNIX_MS, at(50)), Taken::Refused(_)));
}

#[test]
fn nodes_of_a_region_come_to_the_same_view_by_exchange() {
    let agreed = Health::default();
    let (mut one, mut two) = (warm(1), warm(2));
    for edge in 0..6 {
        let node = if edge % 2 == 0 { &mut one } else { &mut two };
        node.take_report(&format!("edge-{edge}"), report(1, vec![cell(0, 9)]), UNIX_MS, at(0));
    }
    let (from_one, from_two) = (one.exchange(at(1)), two.exchange(at(1)));
    one.take_exchange(&from_two, at(2));
    two.take_exchange(&from_one, at(2));
    for fleet in [&mut one, &mut two] {
        fleet.tick(&agreed, at(10));
        assert_eq!((verdict(fleet), fleet.edges()), (Verdict::Ejected, (6, 0)));
    }
    let elsewhere = FleetExchange { region: "us".into(), ..from_one };
    let mut other = warm(3);
    other.take_exchange(&elsewhere, at(20));
    assert_eq!(other.endpoints.len(), 0, "another region's reports are not this region's");
}

/// Brings endpoint 42 to the state in which probes are handed out; the time of it.
fn to_probing(fleet: &mut Fleet, agreed: &Health) -> u64 {
    all(fleet, 6, 1, &cell(0, 9), at(0));
    fleet.tick(agreed, at(10));
    assert_eq!(verdict(fleet), Verdict::Ejected);
    for millis in (250..20_000).step_by(250) {
        all(fleet, 6, 2 + millis / 250, &ReportCell { endpoint: ENDPOINT, ..ReportCell::default() }, at(millis));
        fleet.tick(agreed, at(millis));
        if verdict(fleet) == Verdict::Probing {
            return millis;
        }
    }
    panic!("the wait did not end");
}

fn holders(fleet: &Fleet, now: Timestamp) -> Vec<String> {
    (0..6).map(|edge| format!("edge-{edge}")).filter(|edge| !fleet.tokens_of(edge, now).is_empty()).collect()
}

#[test]
fn one_edge_at_a_time_holds_the_token_and_success_takes_the_endpoint_back() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    let began = to_probing(&mut fleet, &agreed);
    assert!((8_000..=12_250).contains(&began), "{began}");
    let first = holders(&fleet, at(began));
    assert_eq!(first.len(), 1);
    // Unused for ten seconds: somebody else's turn.
    let mut now = began;
    while holders(&fleet, at(now)) == first {
        now += 250;
        all(&mut fleet, 6, 2 + now / 250, &ReportCell { endpoint: ENDPOINT, ..ReportCell::default() }, at(now));
        fleet.tick(&agreed, at(now));
        assert_eq!(holders(&fleet, at(now)).len(), 1);
        assert!(now <= began + 10_500);
    }
    let second = holders(&fleet, at(now)).remove(0);
    for probe in 1..=3_u64 {
        let worked = ReportCell { probe_ok: 1, ..cell(1, 0) };
        fleet.take_report(&second, report(100_000 + probe, vec![worked]), UNIX_MS, at(now + probe));
        fleet.tick(&agreed, at(now + probe));
    }
    let told = fleet.endpoints[&EndpointId(ENDPOINT)].told();
    assert_eq!((told.verdict(), told.closings), (Verdict::Healthy, 1));
    assert!(holders(&fleet, at(now + 4)).is_empty());
}

#[test]
fn two_nodes_do_not_hand_out_two_tokens() {
    let agreed = Health::default();
    let (mut one, mut two) = (warm(1), warm(2));
    let began = to_probing(&mut one, &agreed);
    to_probing(&mut two, &agreed);
    assert!(two.held_probes(at(began)).len() == 1, "both did at the same moment");
    two.take_exchange(&one.exchange(at(began)), at(began));
    one.take_exchange(&two.exchange(at(began)), at(began));
    assert_eq!((one.held_probes(at(began)).len(), two.held_probes(at(began)).len()), (1, 0), "the lower node keeps its own");
    two.tick(&agreed, at(began + 250));
    assert!(two.held_probes(at(began + 250)).is_empty());
}

#[test]
fn a_suspect_edge_has_no_say_and_is_counted_apart() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    all(&mut fleet, 5, 1, &cell(10, 0), at(0));
    let sick = HealthReport { suspect: true, confidence: 0, ..report(1, vec![cell(0, 500)]) };
    fleet.take_report("edge-sick", sick, UNIX_MS, at(0));
    fleet.tick(&agreed, at(10));
    assert_eq!(fleet.edges(), (5, 1));
    assert_eq!(fleet.endpoints[&EndpointId(ENDPOINT)].told().success_permille, 1_000);
}

#[test]
fn an_increment_over_a_long_silence_counts_for_uptime_only() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    let late = HealthReport { window_ms: 60_000, ..report(1, vec![cell(0, 500)]) };
    fleet.take_report("edge-0", late, UNIX_MS, at(0));
    fleet.tick(&agreed, at(10));
    assert_eq!(fleet.endpoints[&EndpointId(ENDPOINT)].told().samples, 0);
    let shares = fleet.digest(&agreed, UNIX_MS + 60_000, at(60_000)).unwrap().digest.shares;
    assert_eq!((shares[0].counts[0].ok, shares[0].counts[0].failed), (0, 500));
}

#[test]
fn a_digest_says_only_what_is_material() {
    let (mut fleet, mut agreed) = (fleet(), Health::default());
    let tell = |agreed: &mut Health, digest: &tidegate_proto::v1::RegionDigest, leader_ms: u64| {
        let region = tidegate_proto::v1::RegionCells { region: digest.region.clone(), cells: digest.cells.clone() };
        let batch = tidegate_proto::v1::HealthBatch { regions: vec![region], shares: digest.shares.clone() };
        agreed.apply(batch, leader_ms);
    };
    all(&mut fleet, 6, 1, &cell(100, 0), at(0));
    fleet.tick(&agreed, at(10));
    let first = fleet.digest(&agreed, UNIX_MS, at(10)).unwrap();
    assert!(!first.urgent);
    tell(&mut agreed, &first.digest, UNIX_MS);
    assert!(fleet.digest(&agreed, UNIX_MS, at(20)).is_none());
    // One point is nothing, three are.
    all(&mut fleet, 6, 2, &cell(0, 1), at(100));
    fleet.tick(&agreed, at(110));
    assert!(fleet.digest(&agreed, UNIX_MS, at(110)).is_none());
    all(&mut fleet, 6, 3, &cell(0, 2), at(200));
    fleet.tick(&agreed, at(210));
    assert_eq!(fleet.digest(&agreed, UNIX_MS, at(210)).unwrap().digest.cells.len(), 1);
    all(&mut fleet, 6, 4, &cell(0, 400), at(300));
    fleet.tick(&agreed, at(310));
    assert!(fleet.digest(&agreed, UNIX_MS, at(310)).unwrap().urgent, "a verdict does not wait");
}

#[test]
fn other_regions_lower_the_bar_until_their_word_is_old() {
    let (mut fleet, mut agreed) = (fleet(), Health::default());
    let said = |region: &str| tidegate_proto::v1::RegionCells {
        region: region.into(),
        cells: vec![tidegate_proto::v1::HealthCell {
            endpoint: ENDPOINT,
            samples: 50,
            verdict: Verdict::Ejected as i32,
            reporters: 5,
            confidence: 100,
            ..Default::default()
        }],
    };
    agreed.apply(tidegate_proto::v1::HealthBatch { regions: vec![said("us"), said("ap")], shares: Vec::new() }, UNIX_MS);
    fleet.tick(&agreed, at(0));
    let mut cursor = ViewCursor::default();
    let view = fleet.view_for("edge-0", &mut cursor, at(0)).unwrap();
    let others = view.cells[0].elsewhere.unwrap();
    assert_eq!(
        (view.cells[0].verdict(), others.verdict(), others.success_permille, others.ejected),
        (Verdict::Healthy, Verdict::Degraded, 0, 2)
    );
    fleet.tick(&agreed, at(9_000));
    assert!(fleet.endpoints[&EndpointId(ENDPOINT)].told().elsewhere.is_some());
    // No leader, no entries: the word ages by the node's own time.
    fleet.tick(&agreed, at(15_250));
    let view = fleet.view_for("edge-0", &mut cursor, at(15_250)).unwrap();
    assert_eq!(view.cells[0].elsewhere, None);
}

#[test]
fn uptime_comes_back_from_the_log_as_a_summary() {
    let (mut fleet, mut agreed) = (fleet(), Health::default());
    all(&mut fleet, 2, 1, &cell(99, 1), at(0));
    let digest = fleet.digest(&agreed, UNIX_MS + 61_000, at(61_000)).unwrap().digest;
    agreed.apply(tidegate_proto::v1::HealthBatch { regions: Vec::new(), shares: digest.shares }, UNIX_MS + 61_000);
    assert!(
        fleet.digest(&agreed, UNIX_MS + 62_000, at(62_000)).is_none_or(|next| next.digest.shares.is_empty()),
        "acknowledged by the log"
    );
    fleet.tick(&agreed, at(70_000));
    let view = fleet.view_for("edge-0", &mut ViewCursor::default(), at(70_000)).unwrap();
    let summary = &view.summaries[0];
    let five = summary.five_minutes.unwrap();
    assert_eq!((five.ok.div_ceil(10), five.failed), (20, 2), "within the precision of a byte");
    assert!((summary.first_token_ms.unwrap().p50 / 500.0 - 1.0).abs() < 0.02);
    let table = fleet.table(&agreed, |id| (id.0 == ENDPOINT).then(|| ("acme-model".to_owned(), "acme".to_owned())));
    assert_eq!((table.rows[0].endpoint.as_str(), table.rows[0].rule), ("acme-model", "no evidence"));
    assert!(table.rows[0].uptime_5m.is_some_and(|uptime| (uptime - 0.99).abs() < 0.002));
}

/// Four edges of `eu`, two of which follow a node of `us`.
#[test]
fn an_edge_that_follows_another_regions_node_counts_in_its_own_region() {
    let agreed = Health::default();
    let (mut host, mut other) = (warm(1), warm(2));
    let mut guests = guests::Guests::default();
    let nodes_of = |region: &str| if region == "eu" { vec!["host".to_owned(), "other".to_owned()] } else { Vec::new() };
    let mut told: BTreeMap<String, Vec<tidegate_proto::v1::HealthView>> = BTreeMap::new();
    let mut pass_on = |guests: &mut guests::Guests, host: &mut Fleet, other: &mut Fleet, now, lost: bool| {
        for errand in guests.errands(9, nodes_of, now) {
            assert_eq!((errand.region.as_str(), errand.host.as_str(), errand.others.as_slice()), ("eu", "host", &["other".to_owned()][..]));
            other.take_exchange(&FleetExchange { guests: Vec::new(), ..errand.exchange.clone() }, now);
            let answer = host.host(errand.exchange, UNIX_MS, now);
            if lost {
                continue;
            }
            guests.heard("eu", "host", answer.number);
            for view in answer.views {
                told.entry(view.edge).or_default().push(view.view.unwrap());
            }
        }
    };
    for step in 0..8_u64 {
        let (now, one) = (at(step * 250), if step < 4 { cell(20, 0) } else { cell(0, 12) });
        for (number, edge) in ["edge-0", "edge-1", "edge-2", "edge-3"].into_iter().enumerate() {
            let report = report(step + 1, vec![one.clone()]);
            match number {
                0 | 1 => assert_eq!(guests.take("eu", edge, report, now), Taken::New),
                2 => assert_eq!(host.take_report(edge, report, UNIX_MS, now), Taken::New),
                _ => assert_eq!(other.take_report(edge, report, UNIX_MS, now), Taken::New),
            }
        }
        let (from_host, from_other) = (host.exchange(now), other.exchange(now));
        assert_eq!((from_host.reports.len(), from_other.reports.len()), (1, 1), "guests are not told twice");
        other.take_exchange(&from_host, now);
        host.take_exchange(&from_other, now);
        // An answer that is lost on its way is made good by the next.
        pass_on(&mut guests, &mut host, &mut other, now, step == 5);
        host.tick(&agreed, now);
        other.tick(&agreed, now);
    }
    pass_on(&mut guests, &mut host, &mut other, at(2_000), false);
    assert_eq!((host.edges(), other.edges()), ((4, 0), (4, 0)), "all of the region, and each once");
    for fleet in [&host, &other] {
        assert_eq!(verdict(fleet), Verdict::Ejected, "a quorum of four");
    }
    for edge in ["edge-0", "edge-1"] {
        let views = &told[edge];
        assert!(views[0].full && views.iter().any(|view| view.acknowledged == 8), "{views:?}");
        let last = views.iter().rev().find_map(|view| view.cells.first()).unwrap();
        assert_eq!((last.verdict(), views.last().unwrap().active_edges), (Verdict::Ejected, 4));
        assert_eq!(views.iter().filter(|view| view.full).count(), 2, "anew once, after the answer that was lost");
    }
    let minute = host.digest(&agreed, UNIX_MS + 61_000, at(61_000)).unwrap().digest.shares[0].counts[0];
    assert_eq!((minute.ok, minute.failed), (3 * 80, 3 * 48), "its own edge and two guests, each report once");

    // Without a word from their node they have no say after ten seconds, as any edge.
    host.tick(&agreed, at(13_000));
    assert_eq!(host.edges(), (0, 0));
    assert!(guests.errands(9, nodes_of, at(13_000)).is_empty());
}

#[test]
fn a_guest_may_probe_for_its_region_and_the_next_node_is_its_host_when_one_is_away() {
    let agreed = Health::default();
    let mut host = warm(1);
    let mut guests = guests::Guests::default();
    let nodes = ["one".to_owned(), "two".to_owned()];
    let nodes_of = |_: &str| nodes.to_vec();
    for edge in ["edge-0", "edge-1", "edge-2", "edge-3"] {
        guests.take("eu", edge, report(1, vec![cell(0, 12)]), at(0));
    }
    let first = guests.errands(9, nodes_of, at(0)).remove(0);
    guests.failed("eu", &first.host, &nodes);
    let second = guests.errands(9, nodes_of, at(250)).remove(0);
    assert_eq!((first.host.as_str(), second.host.as_str()), ("one", "two"));
    assert!(second.exchange.reports.is_empty(), "edges say again what was not acknowledged");

    host.host(first.exchange, UNIX_MS, at(250));
    host.tick(&agreed, at(260));
    assert_eq!(verdict(&host), Verdict::Ejected);
    let mut probing = 260;
    while verdict(&host) != Verdict::Probing {
        probing += 250;
        assert!(probing < 60_000);
        for edge in ["edge-0", "edge-1", "edge-2", "edge-3"] {
            guests.take("eu", edge, report(probing, Vec::new()), at(probing));
        }
        host.host(guests.errands(9, nodes_of, at(probing)).remove(0).exchange, UNIX_MS, at(probing));
        host.tick(&agreed, at(probing));
    }
    host.tick(&agreed, at(probing + 250));
    let answer = host.host(guests.errands(9, nodes_of, at(probing + 250)).remove(0).exchange, UNIX_MS, at(probing + 250));
    let tokens: usize = answer.views.iter().filter_map(|view| view.view.as_ref()).map(|view| view.probes.len()).sum();
    assert_eq!(tokens, 1, "one of them has the region's token: {answer:?}");
}

#[test]
fn what_nobody_uses_is_forgotten() {
    let (mut fleet, agreed) = (fleet(), Health::default());
    all(&mut fleet, 2, 1, &cell(5, 0), at(0));
    for second in 0..2_500 {
        fleet.tick(&agreed, at(second * 1_000));
    }
    assert_eq!((fleet.endpoints.len(), fleet.changed.len(), fleet.edges.known.len()), (0, 0, 0));
}
