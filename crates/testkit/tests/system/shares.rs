//! Limits that span regions, over real sockets: two regions with a Redis each, four edges, and a control node behind connections that a
//! test can cut.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_edge::config::{ControlEndpoint, StoreConfig};
use tidegate_proto::Kind;
use tidegate_quota::{RedisOptions, RedisTopology};
use tidegate_testkit::control::{Body, Following, FollowingEdge, until};
use tidegate_testkit::{Caller, Topology, chat};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const CHAT: &str = "/v1/chat/completions";
const MEMBER: &str = "sk-member-of-acme";

/// A real server on a free port, gone with the test.
struct Redis {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Redis {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let folder = tempfile::tempdir().expect("a directory");
        let process = Command::new(crate::region::redis_server())
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server 7 or newer: `apt-get install redis-server`");
        let redis = Self { process, port, _folder: folder };
        until(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        redis
    }

    fn store(&self) -> StoreConfig {
        let options = RedisOptions::new(RedisTopology::Single(format!("127.0.0.1:{}", self.port)));
        // A machine that builds and tests at once answers late; what is tested here is not patience.
        StoreConfig::Redis(Box::new(RedisOptions { call_timeout: Duration::from_secs(5), ..options }))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The way of a region to the control node.
struct Way {
    address: SocketAddr,
    open: watch::Sender<bool>,
    _carrying: JoinSet<()>,
}

impl Way {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (open, state) = watch::channel(true);
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, mut state) = (target.clone(), state.clone());
                connections.spawn(async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    // Losing a half-copied connection is what a cut is.
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open, _carrying: carrying }
    }

    fn cut(&self) {
        self.open.send_replace(false);
    }

    fn heal(&self) {
        self.open.send_replace(true);
    }
}

/// Two regions.
struct World {
    following: Following,
    edges: Vec<(&'static str, FollowingEdge)>,
    ways: [Way; 2],
    _redis: [Redis; 2],
}

const REGIONS: [&str; 2] = ["eu", "us"];

impl World {
    /// Two regions of `each` edges, in which keys of `acme` share what this body says.
    async fn new(each: usize, acme: Body, price: &str) -> Self {
        let mut following = Topology::new().provider("a", |_| {}).under_control();
        let node = &following.node;
        node.put(&[(Kind::Endpoint, "a/m", Body { price: Some(price.to_owned()), ..Body::default() })]);
        node.put(&[(Kind::Defaults, "mesh", Body { quota_regions: REGIONS.map(str::to_owned).to_vec(), ..Body::default() })]);
        node.put(&[(Kind::Organisation, "acme", acme)]);
        node.create_member("member", MEMBER, "acme");
        let (redis, ways) = ([Redis::start().await, Redis::start().await], [Way::to(node.address()).await, Way::to(node.address()).await]);
        let mut edges = Vec::new();
        for (index, region) in REGIONS.into_iter().enumerate() {
            following.edge_config.region = region.to_owned();
            following.edge_config.quota.store = redis[index].store();
            following.link.endpoints = vec![ControlEndpoint { address: ways[index].address.to_string(), region: None }];
            for number in 0..each {
                edges.push((region, following.ready_edge(&format!("{region}-{number}")).await));
            }
        }
        Self { following, edges, ways, _redis: redis }
    }

    /// An edge of a region.
    fn edge(&self, region: &str) -> &FollowingEdge {
        self.edges.iter().find(|(of, _)| *of == region).map(|(_, edge)| edge).expect("a region of this world")
    }

    fn callers(&self) -> Vec<(usize, Caller)> {
        let index = |region: &str| REGIONS.iter().position(|one| *one == region).expect("a region of this world");
        self.edges.iter().map(|(region, edge)| (index(region), edge.caller().with_key(MEMBER))).collect()
    }

    /// What an edge shows of the first shared limit.
    async fn shown(&self, region: &str) -> Value {
        let edge = &self.edge(region).edge;
        let operations = Caller::new(edge.bound().operations.expect("the operations port is on"));
        operations.get("/quota/shares?key=member").await.json()
    }

    async fn shutdown(self) {
        for (_, edge) in self.edges {
            edge.edge.shutdown().await;
        }
        self.following.node.kill().await;
    }
}

/// Requests let in, by region, counted as they are answered.
#[derive(Default)]
struct Admitted {
    by_region: [AtomicU64; 2],
    refused: AtomicU64,
}

impl Admitted {
    fn now(&self) -> [u64; 2] {
        [self.by_region[0].load(Ordering::SeqCst), self.by_region[1].load(Ordering::SeqCst)]
    }
}

/// A moment of the run.
#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    admitted: [u64; 2],
}

/// What is let in over a time, whatever happens, stays below the limit's rate and its burst.
#[tokio::test(flavor = "multi_thread")]
async fn two_regions_under_overload_never_let_in_more_than_the_limit_also_while_one_is_cut_off() {
    const PER_MINUTE: u64 = 1_200;
    let world = World::new(2, Body { global_requests_per_minute: Some(PER_MINUTE), ..Body::default() }, "1").await;
    let (admitted, stop, began) = (Arc::new(Admitted::default()), Arc::new(AtomicBool::new(false)), Instant::now());
    let mut callers = JoinSet::new();
    for (region, caller) in world.callers() {
        for _ in 0..4 {
            let (caller, admitted, stop) = (caller.clone(), Arc::clone(&admitted), Arc::clone(&stop));
            // Each asks for more than the whole limit allows.
            callers.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match caller.post(CHAT, &chat("m", "hello")).await.status {
                        200 => admitted.by_region[region].fetch_add(1, Ordering::SeqCst),
                        429 => admitted.refused.fetch_add(1, Ordering::SeqCst),
                        other => panic!("status {other}"),
                    };
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
    let mut samples = vec![Sample { at: Duration::ZERO, admitted: [0, 0] }];
    let run_for = async |seconds: u64, samples: &mut Vec<Sample>| {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            samples.push(Sample { at: began.elapsed(), admitted: admitted.now() });
        }
        samples.len() - 1
    };
    // The bursts are used up, and both regions have their shares.
    let settled = run_for(12, &mut samples).await;
    let both = run_for(8, &mut samples).await;
    world.ways[1].cut();
    let leased = run_for(15, &mut samples).await;
    let cut = run_for(8, &mut samples).await;
    let shown = world.shown("us").await;
    world.ways[1].heal();
    let healed = run_for(9, &mut samples).await;
    stop.store(true, Ordering::SeqCst);
    callers.join_all().await;
    let rate = |from: usize, to: usize, region: usize| {
        let (a, b) = (samples[from], samples[to]);
        (b.admitted[region] - a.admitted[region]) as f64 * 60.0 / (b.at - a.at).as_secs_f64()
    };
    for (name, from, to) in [
        ("start", 0, settled),
        ("both", settled, both),
        ("cut, leased", both, leased),
        ("cut, floor", leased, cut),
        ("healed", cut, healed),
    ] {
        println!("{name}: {:.0} + {:.0} of {PER_MINUTE} per minute", rate(from, to, 0), rate(from, to, 1));
    }
    println!("refused {}; shown of the region that is cut off: {}", admitted.refused.load(Ordering::SeqCst), shown["limits"]);
    // Every window of the run: the rate, ten seconds' worth at once, and what was answered a sample later than it was let in.
    let burst = PER_MINUTE / 6 + 8;
    let mut tightest = f64::MAX;
    for (index, a) in samples.iter().enumerate() {
        for b in &samples[index + 1..] {
            let count = (b.admitted.iter().sum::<u64>() - a.admitted.iter().sum::<u64>()) as f64;
            let bound = PER_MINUTE as f64 * (b.at - a.at).as_secs_f64() / 60.0 + burst as f64;
            tightest = tightest.min(bound - count);
            assert!(count <= bound, "{count} let in between {:?} and {:?}, at most {bound:.0}", a.at, b.at);
        }
    }
    println!("the tightest of {} windows had room for {tightest:.0} more", samples.len() * (samples.len() - 1) / 2);
    assert!(rate(settled, both, 0) + rate(settled, both, 1) > 0.8 * PER_MINUTE as f64, "the limit is there to be used");
    assert!(rate(settled, both, 0) > 0.2 * PER_MINUTE as f64 && rate(settled, both, 1) > 0.2 * PER_MINUTE as f64, "by both");
    assert!(rate(leased, cut, 1) < 0.1 * PER_MINUTE as f64, "a region that is cut off falls to its floor");
    assert_eq!((&shown["limits"][0]["floor"], &shown["limits"][0]["home_away"]), (&json!(PER_MINUTE / 20), &json!(true)));
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_at_once_in_two_regions_spend_no_more_than_the_budget_they_share() {
    // $0.01 a token: a request holds at most $0.33 and the budget covers about ten.
    const BUDGET: f64 = 3.3;
    let world = World::new(2, Body { global_spend_total: Some(BUDGET), ..Body::default() }, "10000").await;
    let callers = world.callers();
    let mut asking = JoinSet::new();
    for number in 0..1_000 {
        let (region, caller) = callers[number % callers.len()].clone();
        let mut request = chat("m", "hi");
        request["max_tokens"] = json!(16);
        asking.spawn(async move {
            let answer = caller.post(CHAT, &request).await;
            (region, answer.status, answer.json()["usage"]["cost"].as_f64().unwrap_or(0.0))
        });
    }
    let (mut spent, mut served, mut statuses) = ([0.0; 2], 0, std::collections::BTreeMap::new());
    for (region, status, cost) in asking.join_all().await {
        *statuses.entry(status).or_insert(0) += 1;
        spent[region] += cost;
        served += u32::from(status == 200);
    }
    println!("{served} of 1000 served for ${:.2} + ${:.2} of ${BUDGET}; statuses {statuses:?}", spent[0], spent[1]);
    assert!(spent.iter().sum::<f64>() <= BUDGET + 1e-9, "{spent:?}");
    assert!(served >= 5, "the budget is there to be used: {statuses:?}");
    assert!(statuses.keys().all(|status| [200, 402, 503].contains(status)), "{statuses:?}");
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_home_a_region_finishes_its_grant_and_then_follows_the_policy() {
    // A dollar is granted at a time; the region may outrun it by half of a twentieth of the budget.
    const BUDGET: f64 = 20.0;
    let world = World::new(1, Body { global_spend_total: Some(BUDGET), ..Body::default() }, "10000").await;
    let caller = world.callers().remove(0).1;
    let mut request = chat("m", "hi");
    request["max_tokens"] = json!(8);
    let first = caller.post(CHAT, &request).await;
    assert_eq!(first.status, 200, "the first request waits for the first grant: {}", first.text());
    let mut spent = first.json()["usage"]["cost"].as_f64().expect("a cost");
    world.following.node.kill().await;
    let granted = world.shown("eu").await["limits"][0]["share"].as_u64().expect("a grant") as f64 / 1e6;
    let (mut served, mut refused) = (0, 0);
    // Unavailable at first, as home may be back any moment; then by the policy until its part is used up as well.
    let patience = Instant::now() + Duration::from_secs(60);
    while refused < 40 && Instant::now() < patience {
        let answer = caller.post(CHAT, &request).await;
        let away = world.shown("eu").await["limits"][0]["home_away"] == true;
        match answer.status {
            200 => {
                served += 1;
                spent += answer.json()["usage"]["cost"].as_f64().expect("a cost");
            }
            503 if away => refused += 1,
            503 => tokio::time::sleep(Duration::from_millis(200)).await,
            other => panic!("status {other}: {}", answer.text()),
        }
    }
    println!("granted ${granted:.2}; without home {served} more were served, ${spent:.2} spent in all");
    assert!(spent > granted - 0.5 && spent <= granted + BUDGET / 40.0 + 1e-9, "${spent:.2} of ${granted:.2}");
    assert_eq!(refused, 40, "then nothing is spent");
    world.shutdown().await;
}
