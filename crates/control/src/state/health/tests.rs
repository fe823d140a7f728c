use tidegate_proto::v1::{RegionCells, UptimeCount, UptimeShare};

use super::*;

const START_MS: u64 = 1_800_000_000_000;
const ENDPOINT: EndpointId = EndpointId(7);

fn share(node_id: u64, seq: u64, minute: u64, ok: u64, failed: u64) -> HealthBatch {
    let counts = vec![UptimeCount { endpoint: ENDPOINT.0, ok, failed }];
    let share = UptimeShare { region: "eu".into(), node_id, seq, minute, counts };
    HealthBatch { regions: Vec::new(), shares: vec![share] }
}

fn cells(region: &str, success_permille: u32) -> HealthBatch {
    let cell = HealthCell { endpoint: ENDPOINT.0, success_permille, ..HealthCell::default() };
    HealthBatch { regions: vec![RegionCells { region: region.into(), cells: vec![cell] }], shares: Vec::new() }
}

#[test]
fn a_share_counts_once_per_node() {
    let (mut health, minute) = (Health::default(), START_MS / MINUTE_MS);
    for (node, seq) in [(1, 10), (1, 10), (2, 5), (1, 9)] {
        health.apply(share(node, seq, minute, 20, 1), START_MS);
    }
    let counts = health.uptime(ENDPOINT, "eu", UptimeWindow::FiveMinutes, START_MS);
    assert_eq!(counts, UptimeCounts { ok: 40, failed: 2 });
    assert_eq!(counts.ratio(43), None);
    assert!((counts.ratio(42).unwrap() - 40.0 / 42.0).abs() < 1e-9);
    assert_eq!(health.uptime(ENDPOINT, "us", UptimeWindow::Day, START_MS), UptimeCounts::default());
}

#[test]
fn windows_see_their_own_stretch() {
    let (mut health, now) = (Health::default(), START_MS / MINUTE_MS);
    for (seq, back) in [(1, 0), (2, 5), (3, 6), (4, 30), (5, 31), (6, 100)] {
        health.apply(share(1, seq, now - back, 1, 0), START_MS);
    }
    let seen = |window| health.uptime(ENDPOINT, "eu", window, START_MS).ok;
    assert_eq!((seen(UptimeWindow::FiveMinutes), seen(UptimeWindow::HalfHour), seen(UptimeWindow::Day)), (2, 4, 6));
}

#[test]
fn another_time_than_the_leaders_is_not_believed() {
    let (mut health, minute) = (Health::default(), START_MS / MINUTE_MS);
    health.apply(share(1, 1, minute + 3, 5, 5), START_MS);
    health.apply(share(1, 2, minute - 121, 5, 5), START_MS);
    assert_eq!(health.with_history().count(), 0);
    assert_eq!(health.share_applied(1), 0);
}

#[test]
fn memory_is_bounded_by_90_days_and_forgotten_cells() {
    let mut health = Health::default();
    health.apply(cells("us", 990), START_MS);
    for day in 0..120 {
        for hour in 0..24 {
            let now = START_MS + day * DAY_MS + hour * HOUR_MS;
            health.apply(share(1, now, now / MINUTE_MS, 100, 3), now);
        }
    }
    let now = health.leader_time_ms();
    let section = health.to_section();
    assert_eq!(section.history.len(), 1);
    assert!(section.history[0].minutes.len() <= 25 && section.history[0].hours.len() <= 91, "{}", section.history[0].hours.len());
    assert_eq!(
        health.hours(ENDPOINT, "eu", 0).len(),
        section.history[0].hours.iter().map(|day| { day.counts.chunks(2).filter(|slot| *slot != [0, 0]).count() }).sum::<usize>()
    );
    assert_eq!(health.cells().count(), 0, "silent for a day");
    health.apply(HealthBatch::default(), now + 100 * DAY_MS);
    assert_eq!(health.with_history().count(), 0);
}

#[test]
fn a_section_comes_back_and_damage_is_seen() {
    let mut health = Health::default();
    health.apply(cells("eu", 500), START_MS);
    health.apply(share(3, 9, START_MS / MINUTE_MS, 1_000, 17), START_MS);
    let section = health.to_section();
    let back = Health::from_section(section.clone()).unwrap();
    assert_eq!(back.to_section(), section);
    let mut short = section.clone();
    short.history[0].minutes[0].counts = Bytes::from_static(&[1, 2, 3]);
    assert!(Health::from_section(short).is_none());
    assert!(Health::from_section(HealthSection { format: FORMAT + 1, ..section }).is_none());
}

#[test]
fn an_endpoints_regions_are_found_together() {
    let mut health = Health::default();
    for region in ["us", "ap", "eu"] {
        health.apply(cells(region, 1_000), START_MS);
    }
    let mut other = cells("eu", 1);
    other.regions[0].cells[0].endpoint = 8;
    health.apply(other, START_MS + 5);
    assert_eq!(health.of(ENDPOINT).map(|(region, _, _)| region).collect::<Vec<_>>(), ["ap", "eu", "us"]);
    assert_eq!(health.cell(EndpointId(8), "eu").unwrap().1, START_MS + 5);
}

use bytes::Bytes;
