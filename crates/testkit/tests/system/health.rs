//! Shared health over real sockets: edges that report, control nodes that exchange and judge, a log between regions. What is simulated in
//! virtual time beside the control crate is met here with everything that carries it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_control::fleet::HealthRow;
use tidegate_provider_sim::{Fault, Timing};
use tidegate_routing::RegionVerdict;
use tidegate_testkit::control::{Following, FollowingEdge, until};
use tidegate_testkit::{Caller, Topology, chat};

const CHAT: &str = "/v1/chat/completions";
const DOWN: Fault = Fault::Status { status: 500, retry_after: None };
/// Less than an edge waits for word from its control node, and than an attempt waits for its first byte.
const LEAP: Duration = Duration::from_secs(4);

/// Providers that answer at once, all for the same price.
fn topology(providers: &[&str]) -> Topology {
    providers.iter().fold(Topology::new(), |topology, slug| topology.provider(slug, |draft| draft.sim.timing = Timing::instant()))
}

/// Starts edges: which region each is in, by position, and its name.
async fn edges(regions: &[Following], placed: &[(usize, &str)]) -> Vec<FollowingEdge> {
    let mut edges = Vec::new();
    for (region, name) in placed {
        edges.push(regions[*region].ready_edge(name).await);
    }
    // A build trusts itself half for ten minutes, and a fresh control node concludes nothing for five seconds.
    regions[0].forward.pass(Duration::from_secs(601));
    for (region, _) in placed {
        let name = &regions[*region].edge_region();
        let expected = placed.iter().filter(|(of, _)| regions[*of].edge_region() == *name).count();
        until(|| (regions[*region].node.health().active_edges as usize == expected).then_some(())).await;
    }
    edges
}

/// Lets time pass in steps that edges take for a slow moment, with word from the control plane in between.
async fn pass(regions: &[Following], edges: &[FollowingEdge], mut time: Duration) {
    while !time.is_zero() {
        let step = time.min(LEAP);
        regions[0].forward.pass(step);
        time -= step;
        for edge in edges {
            until(|| (edge.metric("tidegate_state_age_seconds", &[("kind", "health")]) < 1.5).then_some(())).await;
        }
    }
}

fn row(node: &Following, endpoint: &str, region: &str) -> Option<HealthRow> {
    node.node.health().rows.into_iter().find(|row| row.endpoint == endpoint && row.region == region)
}

fn verdict(node: &Following, endpoint: &str, region: &str) -> Option<RegionVerdict> {
    row(node, endpoint, region).map(|row| row.verdict)
}

/// What the region says to this edge: 1 healthy, 0.5 degraded, 0 out.
fn up(edge: &FollowingEdge, endpoint: &str) -> f64 {
    edge.metric("tidegate_provider_up", &[("endpoint", endpoint)])
}

/// How likely an edge thinks an endpoint is to work.
async fn success(edge: &FollowingEdge, endpoint: &str, elsewhere: &str) -> f64 {
    considered(edge, endpoint, elsewhere).await["success"].as_f64().expect("a probability")
}

/// How an edge sees an endpoint when it chooses, asked by a request that does not go there.
async fn considered(edge: &FollowingEdge, endpoint: &str, elsewhere: &str) -> Value {
    let mut request = chat("m", "hello");
    request["provider"] = json!({ "order": [elsewhere] });
    let answer = edge.post(CHAT, &request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    let operations = Caller::new(edge.edge.bound().operations.expect("the operations port is on"));
    let explained = loop {
        let explained = operations.get(&format!("/explain/{id}")).await;
        if explained.status == 200 {
            break explained.json();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let considered = explained["decision"]["choices"][0]["considered"].as_array().cloned().unwrap_or_default();
    let found: Option<&Value> = considered.iter().find(|one| one["endpoint"] == endpoint);
    found.cloned().unwrap_or_else(|| panic!("{endpoint} is not among {considered:?}"))
}

/// Callers that never stop, and how their requests ended.
struct Steady {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    callers: tokio::task::JoinSet<()>,
}

impl Steady {
    fn at(edges: &[FollowingEdge]) -> Self {
        let mut steady =
            Self { stop: Arc::default(), served: Arc::default(), failed: Arc::default(), callers: tokio::task::JoinSet::new() };
        for edge in edges {
            let (caller, stop) = (edge.caller(), Arc::clone(&steady.stop));
            let (served, failed) = (Arc::clone(&steady.served), Arc::clone(&steady.failed));
            steady.callers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let ended = if caller.post(CHAT, &chat("m", "hello")).await.status == 200 { &served } else { &failed };
                    ended.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        steady
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    async fn until_served(&self, more: u64) {
        let enough = self.served() + more;
        until(|| (self.served() >= enough).then_some(())).await;
    }

    /// Served and failed in all.
    async fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
        (self.served.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

async fn end(edges: Vec<FollowingEdge>) {
    for edge in edges {
        edge.edge.shutdown().await;
    }
}

/// A provider that fails hard: breakers open after five failures at each edge, and then nobody sends there. Its region knows all the same,
/// over two control nodes; the other region hears of it; and it comes back by single probes and a ramp.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_one_region_is_known_everywhere_and_its_end_is_proven_gently() {
    let regions = Topology::in_regions(&["eu", "us", "eu"], || topology(&["near", "spare"]));
    let mut edges = edges(&regions, &[(0, "e1"), (0, "e2"), (2, "e3"), (2, "e4"), (1, "u1")]).await;
    let elsewhere = edges.split_off(4);
    let near = |request: fn(&Following) -> u64| [&regions[0], &regions[2]].map(request).iter().sum::<u64>();
    let hits = || near(|following| following.sim("near").stats().requests);
    let steady = Steady::at(&edges);
    steady.until_served(400).await;
    assert_eq!(verdict(&regions[0], "near/m", "eu"), Some(RegionVerdict::Healthy));
    assert!(success(&elsewhere[0], "near/m", "spare").await > 0.9);

    let began = Instant::now();
    regions[0].sim("near").set_fault(Some(DOWN));
    regions[2].sim("near").set_fault(Some(DOWN));
    for node in [&regions[0], &regions[2]] {
        until(|| (verdict(node, "near/m", "eu") == Some(RegionVerdict::Ejected)).then_some(())).await;
    }
    println!("ejected at both nodes of the region after {:?}", began.elapsed());
    for edge in &edges {
        until(|| (up(edge, "near/m") == 0.0).then_some(())).await;
    }
    println!("known to all edges of the region after {:?}", began.elapsed());
    while success(&elsewhere[0], "near/m", "spare").await > 0.75 {
        assert!(began.elapsed() < Duration::from_secs(20), "the other region does not hear of it: {:?}", row(&regions[1], "near/m", "eu"));
    }
    println!("chosen less in the other region after {:?}", began.elapsed());
    let out = row(&regions[0], "near/m", "eu").expect("a row");
    assert!(out.success.is_none_or(|success| success < 0.5), "{out:?}");
    assert_eq!(verdict(&regions[1], "near/m", "us").unwrap_or_default(), RegionVerdict::Healthy, "a prior, and no verdict of its own");

    // The wait is 10 s; while it lasts, and while single requests probe, hardly anything goes there.
    regions[0].sim("near").set_fault(None);
    regions[2].sim("near").set_fault(None);
    let (before, served) = (hits(), steady.served());
    let mut waited = Duration::ZERO;
    while verdict(&regions[0], "near/m", "eu") != Some(RegionVerdict::Healthy) {
        assert!(waited < Duration::from_secs(60), "{:?}", row(&regions[0], "near/m", "eu"));
        // Once one of them has taken it back the others only have to hear of it, which takes no time that leaps; and what is decided is
        // said within a second of real time, in which the ramp must not go by.
        let mut is_out = [&regions[0], &regions[2]].iter().all(|node| verdict(node, "near/m", "eu") == Some(RegionVerdict::Ejected));
        for edge in &edges {
            is_out &= up(edge, "near/m") == 0.0;
        }
        if is_out {
            pass(&regions, &edges, Duration::from_secs(1)).await;
            waited += Duration::from_secs(1);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(waited >= Duration::from_secs(7), "taken back after {waited:?}");
    for edge in &edges {
        until(|| (up(edge, "near/m") == 1.0).then_some(())).await;
    }
    let probes = hits() - before;
    let served = steady.served() - served;
    println!("taken back after {probes} requests to it of {served}");
    // Most would go there if it were not out; those of the moment at which it is taken back are among these.
    assert!(probes >= 3 && probes * 4 < served, "{probes} of {served} requests went to it before it was back");

    // A tenth of its weight at first; all of it after half a minute. Its share of requests is more than that of its weight here, as each
    // leap in time makes the other one look slow to the requests that were under way.
    let share = |from: (u64, u64)| (hits() - from.0) as f64 / (steady.served() - from.1) as f64;
    let from = (hits(), steady.served());
    for edge in &edges {
        let ramp = considered(edge, "near/m", "spare").await["ramp"].as_f64();
        assert!(ramp.is_some_and(|ramp| ramp < 0.5), "a ramp of {ramp:?}");
    }
    steady.until_served(200).await;
    let first = share(from);
    pass(&regions, &edges, Duration::from_secs(36)).await;
    // The leaps make one or the other look slow, which takes a while to be forgotten.
    let mut shares = Vec::new();
    while shares.last().is_none_or(|share| first >= 0.8 * share) {
        assert!(shares.len() < 20, "{first} at first, and {shares:?} after the ramp");
        let from = (hits(), steady.served());
        steady.until_served(200).await;
        shares.push(share(from));
    }
    println!("its share: {first:.2} at first, {shares:.2?} after the ramp");
    for edge in &edges {
        assert_eq!(considered(edge, "near/m", "spare").await["ramp"], 1.0);
    }
    let (served, failed) = steady.end().await;
    assert_eq!(failed, 0, "of {served} requests");
    end(edges).await;
    end(elsewhere).await;
}

/// Fewer than four edges: they degrade, and the other region hears that as well.
#[tokio::test(flavor = "multi_thread")]
async fn two_edges_of_a_region_degrade_what_fails_for_both() {
    let regions = Topology::in_regions(&["eu", "us"], || topology(&["near", "spare"]));
    let mut edges = edges(&regions, &[(0, "e1"), (0, "e2"), (1, "u1")]).await;
    let elsewhere = edges.split_off(2);
    let steady = Steady::at(&edges);
    steady.until_served(200).await;
    let began = Instant::now();
    regions[0].sim("near").set_fault(Some(DOWN));
    for edge in &edges {
        until(|| (up(edge, "near/m") == 0.5).then_some(())).await;
    }
    println!("degraded at both edges after {:?}", began.elapsed());
    until(|| row(&regions[1], "near/m", "eu").filter(|row| row.verdict == RegionVerdict::Degraded)).await;
    while success(&elsewhere[0], "near/m", "spare").await > 0.8 {
        assert!(began.elapsed() < Duration::from_secs(20), "the other region does not hear of it");
    }
    println!("chosen less in the other region after {:?}", began.elapsed());
    let seen = row(&regions[0], "near/m", "eu").expect("a row");
    assert_eq!((seen.verdict, seen.rule, seen.reporters), (RegionVerdict::Degraded, "few edges", 2), "{seen:?}");
    // As long as their breakers are open, which is longer than a verdict is held for its own sake, and no longer.
    let held = Instant::now();
    while held.elapsed() < Duration::from_secs(6) {
        assert_eq!(verdict(&regions[0], "near/m", "eu"), Some(RegionVerdict::Degraded), "after {:?}", held.elapsed());
        steady.until_served(5).await;
    }
    regions[0].sim("near").set_fault(None);
    until(|| (verdict(&regions[0], "near/m", "eu") == Some(RegionVerdict::Healthy)).then_some(())).await;
    let used = regions[0].sim("near").stats().requests;
    until(|| (regions[0].sim("near").stats().requests > used + 20).then_some(())).await;
    assert_eq!(steady.end().await.1, 0);
    end(edges).await;
    end(elsewhere).await;
}

/// Half of a region's edges follow a node of the other region: they count in their own, and hear what it says.
#[tokio::test(flavor = "multi_thread")]
async fn edges_that_follow_another_regions_node_count_in_their_own() {
    let mut regions = Topology::in_regions(&["eu", "us"], || topology(&["near", "spare"]));
    let (near, far) = (regions[0].link.endpoints.clone(), regions[1].link.endpoints.clone());
    let mut all = Vec::new();
    for (name, follows) in [("u1", &far), ("u2", &far), ("guest-1", &near), ("guest-2", &near)] {
        regions[1].link.endpoints.clone_from(follows);
        let edge = regions[1].edge(name).await;
        edge.until_ready().await;
        all.push(edge);
    }
    let home = regions[0].ready_edge("e1").await;
    regions[0].forward.pass(Duration::from_secs(601));
    until(|| (regions[1].node.health().active_edges == 4).then_some(())).await;
    until(|| (regions[0].node.health().active_edges == 1).then_some(())).await;
    let steady = Steady::at(&all);
    steady.until_served(400).await;
    regions[1].sim("near").set_fault(Some(DOWN));
    let began = Instant::now();
    until(|| (verdict(&regions[1], "near/m", "us") == Some(RegionVerdict::Ejected)).then_some(())).await;
    for edge in &all {
        until(|| (up(edge, "near/m") == 0.0).then_some(())).await;
    }
    println!("known to all edges of the region, wherever they are connected, after {:?}", began.elapsed());
    assert_eq!(row(&regions[1], "near/m", "us").expect("a row").rule, "quorum");
    assert_eq!(verdict(&regions[0], "near/m", "eu").unwrap_or_default(), RegionVerdict::Healthy, "nobody of this region said anything");
    assert_eq!(up(&home, "near/m"), 1.0);
    // Also single requests that prove the end of it are shared out over all of them.
    regions[1].sim("near").set_fault(None);
    let mut waited = Duration::ZERO;
    while verdict(&regions[1], "near/m", "us") != Some(RegionVerdict::Healthy) {
        assert!(waited < Duration::from_secs(60), "{:?}", row(&regions[1], "near/m", "us"));
        if verdict(&regions[1], "near/m", "us") == Some(RegionVerdict::Ejected) {
            pass(&regions, &all, Duration::from_secs(1)).await;
            waited += Duration::from_secs(1);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for edge in &all {
        until(|| (up(edge, "near/m") == 1.0).then_some(())).await;
    }
    assert_eq!(steady.end().await.1, 0);
    end(all).await;
    end(vec![home]).await;
}

/// An edge that reaches no provider while its neighbours do: it is not believed, it leaves, and nothing is out for anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_sick_edge_says_so_and_leaves() {
    let providers = ["a", "b", "c", "d"];
    let regions = Topology::in_regions(&["eu", "eu"], || topology(&providers));
    let mut edges = edges(&regions, &[(0, "e1"), (0, "e2"), (0, "e3"), (0, "e4"), (1, "sick")]).await;
    let sick = edges.split_off(4);
    let steady = Steady::at(&edges);
    steady.until_served(400).await;
    providers.iter().for_each(|slug| regions[1].sim(slug).set_fault(Some(Fault::Refuse)));
    let unlucky = Steady::at(&sick);
    until(|| (regions[0].node.health().suspect_edges == 1).then_some(())).await;
    let mut waited = Duration::ZERO;
    while sick[0].edge.readiness().is_ok() {
        assert!(waited < Duration::from_secs(60), "it does not leave");
        pass(&regions, &edges, Duration::from_secs(2)).await;
        steady.until_served(20).await;
        waited += Duration::from_secs(2);
        for slug in providers {
            let seen = verdict(&regions[0], &format!("{slug}/m"), "eu");
            assert_eq!(seen, Some(RegionVerdict::Healthy), "{slug} works for everybody else");
        }
    }
    let why = sick[0].edge.readiness().expect_err("it left");
    assert!(format!("{why:?}").contains("network"), "{why:?}");
    assert!(waited >= Duration::from_secs(20), "it left after {waited:?}");
    assert!(edges.iter().all(|edge| edge.edge.readiness().is_ok()));
    assert_eq!(steady.end().await.1, 0);
    unlucky.end().await;
    end(edges).await;
    end(sick).await;
}

/// A region that reaches no provider at all ejects them there and nowhere else, and nobody takes its word for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_region_whose_egress_is_broken_ejects_nobody_elsewhere() {
    let providers = ["a", "b", "c"];
    let regions = Topology::in_regions(&["eu", "us"], || topology(&providers));
    let mut edges = edges(&regions, &[(0, "e1"), (0, "e2"), (0, "e3"), (0, "e4"), (1, "u1"), (1, "u2")]).await;
    let elsewhere = edges.split_off(4);
    let (there, here) = (Steady::at(&edges), Steady::at(&elsewhere));
    there.until_served(400).await;
    here.until_served(100).await;
    providers.iter().for_each(|slug| regions[0].sim(slug).set_fault(Some(Fault::Refuse)));
    for slug in providers {
        let endpoint = format!("{slug}/m");
        until(|| (verdict(&regions[0], &endpoint, "eu") == Some(RegionVerdict::Ejected)).then_some(())).await;
        // The other region has heard it.
        until(|| (verdict(&regions[1], &endpoint, "eu") == Some(RegionVerdict::Ejected)).then_some(())).await;
    }
    here.until_served(200).await;
    for slug in providers {
        let endpoint = format!("{slug}/m");
        assert_eq!(verdict(&regions[1], &endpoint, "us"), Some(RegionVerdict::Healthy));
        let other = if slug == "a" { "b" } else { "a" };
        for edge in &elsewhere {
            assert_eq!(up(edge, &endpoint), 1.0, "{slug}");
            assert!(success(edge, &endpoint, other).await > 0.9, "{slug}");
        }
    }
    assert!(edges.iter().all(|edge| edge.edge.readiness().is_ok()), "all alike: nobody leaves");
    assert_eq!(here.end().await.1, 0);
    assert!(there.end().await.1 > 0, "callers there notice, of course");
    end(edges).await;
    end(elsewhere).await;
}
