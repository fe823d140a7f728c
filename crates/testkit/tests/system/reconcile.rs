//! Money after faults: whatever happens to the Redis of a region, the sum of what callers were told, of all records, of the region's sums
//! and of the counters is one number, to the micro-dollar.
//!
//! What happens when an edge is killed is in the tests of the binary.

#[allow(clippy::unwrap_used, reason = "a test may panic")]
#[path = "../../../quota/tests/servers/mod.rs"]
mod servers;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use servers::{Server, free_port};
use tidegate_edge::config::{KeyConfig, LedgerConfig, QuotaConfig, StoreConfig};
use tidegate_ledger::Money;
use tidegate_quota::{Dimension, Limit, RedisOptions, RedisTopology, Scope, StoreDown, Window};
use tidegate_testkit::{KEY, Mesh, Topology, chat, key};

const CHAT: &str = "/v1/chat/completions";
/// US dollars; far more than is spent, so that nobody is refused.
const BUDGET: u64 = 1_000_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Two edges of a region.
struct Region {
    edges: Vec<Mesh>,
    _folder: tempfile::TempDir,
}

async fn edge(topology: RedisTopology, directory: &Path) -> Mesh {
    let mut options = RedisOptions::new(topology);
    // Test machines stall for longer than a healthy store may take.
    options.call_timeout = Duration::from_millis(250);
    options.connect_timeout = Duration::from_secs(1);
    let limits =
        vec![Limit::new(Scope::Key, Dimension::Spend(Window::Month), BUDGET), Limit::new(Scope::Key, Dimension::Concurrent, 1_000)];
    let (ledger, store) =
        (LedgerConfig { directory: Some(directory.to_owned()), ..LedgerConfig::default() }, StoreConfig::Redis(Box::new(options)));
    Topology::new()
        .provider("a", |_| {})
        .with(|topology| {
            topology.key = KeyConfig { limits, on_store_down: StoreDown::Local, ..key("test", KEY) };
            topology.ledger = ledger;
            topology.quota = QuotaConfig { store };
        })
        .start()
        .await
}

impl Region {
    async fn start(topology: RedisTopology) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let mut edges = Vec::new();
        for number in ["1", "2"] {
            edges.push(edge(topology.clone(), &folder.path().join(number)).await);
        }
        Self { edges, _folder: folder }
    }

    /// Two callers of each edge until `fault` is over; returns what they were told to pay, and how many requests that were.
    #[expect(clippy::print_stdout, reason = "what callers saw is worth reading; shown with --nocapture")]
    async fn load_during(&self, fault: impl Future<Output = ()>) -> (Money, u64) {
        let over = AtomicBool::new(false);
        let caller = async |mesh: &Mesh| {
            let (mut told, mut waits) = (Money::ZERO, Vec::new());
            while !over.load(Ordering::SeqCst) {
                let asked = Instant::now();
                let answer = mesh.post(CHAT, &chat("m", "hello")).await;
                waits.push(asked.elapsed());
                assert_eq!(answer.status, 200, "a budget that is far away refuses nobody: {}", answer.text());
                told += money(&answer.json()["usage"]["cost"]);
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            (told, waits)
        };
        let fault = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            fault.await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            over.store(true, Ordering::SeqCst);
        };
        let [one, two] = [&self.edges[0], &self.edges[1]];
        let callers = [one, one, two, two].map(|mesh| Box::pin(caller(mesh)));
        let [a, b, c, d] = callers;
        let ((), a, b, c, d) = tokio::join!(fault, a, b, c, d);
        let (told, waits): (Vec<Money>, Vec<_>) = [a, b, c, d].into_iter().unzip();
        let mut waits = waits.concat();
        waits.sort_unstable();
        let at = |part: usize| waits[(waits.len() - 1) * part / 1_000];
        println!(
            "{} requests, all answered with 200; p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, longest {:.1?}",
            waits.len(),
            at(500),
            at(990),
            at(999),
            at(1_000)
        );
        (told.into_iter().sum(), waits.len() as u64)
    }

    /// Waits until everything agrees; says what does not.
    async fn agrees(&self, (told, requests): (Money, u64)) {
        assert!(requests > 20, "{requests} requests say little");
        let mut found = Value::Null;
        let agreed = async {
            loop {
                found = self.found().await;
                if self.is_one_number(&found, told, requests) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, agreed).await.is_ok();
        assert!(in_time, "callers were told {told} for {requests} requests; found {found:#}");
    }

    async fn found(&self) -> Value {
        let (mut edges, mut region, mut counted) = (Vec::new(), Vec::new(), Vec::new());
        for mesh in &self.edges {
            edges.push(mesh.operations().get("/usage?scope=edge&period=all").await.json()["total"].clone());
            region.push(mesh.operations().get("/usage?period=all").await.json());
            let answer = mesh.get("/v1/key").await;
            counted.push(if answer.status == 200 { answer.json()["data"].clone() } else { Value::Null });
        }
        serde_json::json!({ "edges": edges, "region": region, "counted": counted })
    }

    fn is_one_number(&self, found: &Value, told: Money, requests: u64) -> bool {
        let charged = |total: &Value| total["charged_usd"].as_str().and_then(|text| Money::parse_usd(text).ok());
        let edges = found["edges"].as_array().expect("edges");
        let records: Money = edges.iter().filter_map(charged).sum();
        let made: u64 = edges.iter().filter_map(|total| total["requests"].as_u64()).sum();
        let region = found["region"].as_array().expect("answers");
        let counted = found["counted"].as_array().expect("answers");
        let left = |data: &Value| Money::parse_usd(&data["limit_remaining"].to_string()).ok();
        let budget = Money::from_picodollars(i128::from(BUDGET) * 1_000_000);
        (records, made) == (told, requests)
            && region.iter().all(|answer| {
                answer["scope"] == "region" && charged(&answer["total"]) == Some(told) && answer["total"]["requests"] == requests
            })
            // Whole micro-dollars in this topology: nothing was rounded.
            && counted.iter().all(|data| left(data).is_some_and(|left| budget - left == told))
            && counted.iter().all(|data| Money::parse_usd(&data["usage"].to_string()) == Ok(told))
    }

    async fn end(self) {
        for mesh in self.edges {
            mesh.edge.shutdown().await;
        }
    }
}

fn money(value: &Value) -> Money {
    Money::parse_usd(&value.to_string()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_comes_back() {
    let mut server = Server::start(&[]);
    let region = Region::start(RedisTopology::Single(server.address())).await;
    let told = region
        .load_during(async {
            server.kill();
            pause(500).await;
            server.restart();
        })
        .await;
    region.agrees(told).await;
    region.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_paused() {
    let server = Server::start(&[]);
    let region = Region::start(RedisTopology::Single(server.address())).await;
    let told = region
        .load_during(async {
            server.pause();
            pause(1_500).await;
            server.resume();
        })
        .await;
    region.agrees(told).await;
    region.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_wiped_while_nothing_is_asked() {
    let mut server = Server::start(&[]);
    let region = Region::start(RedisTopology::Single(server.address())).await;
    let (told, requests) = region.load_during(async {}).await;
    region.agrees((told, requests)).await;
    server.wipe();
    region.agrees((told, requests)).await;
    let (more, again) = region.load_during(async {}).await;
    region.agrees((told + more, requests + again)).await;
    region.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_that_loses_the_last_writes() {
    let mut primary = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &primary.port.to_string()]);
    servers::wait("the replica to be in sync", || replica.text(&["INFO", "replication"]).contains("master_link_status:up"));
    let sentinels: Vec<Server> = (0..3).map(|_| Server::sentinel(primary.port, 2)).collect();
    for sentinel in &sentinels {
        servers::wait("the sentinels to know each other and the replica", || {
            let text = sentinel.text(&["INFO", "sentinel"]);
            text.contains("slaves=1") && text.contains("sentinels=3")
        });
    }
    let addresses = sentinels.iter().map(Server::address).collect();
    let region = Region::start(RedisTopology::Sentinel { sentinels: addresses, primary: "mesh".to_owned() }).await;
    let told = region
        .load_during(async {
            // Cut the replication, and nothing else; what is written from here on is lost.
            replica.ask(&["CONFIG", "SET", "masteruser", "nobody"]).expect("a setting");
            replica.ask(&["CONFIG", "SET", "masterauth", "wrong"]).expect("a setting");
            primary.ask(&["CLIENT", "KILL", "TYPE", "replica"]).expect("a kill");
            pause(400).await;
            primary.kill();
            servers::wait_async("the fail-over", async || replica.text(&["INFO", "replication"]).contains("role:master")).await;
        })
        .await;
    region.agrees(told).await;
    region.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_slots_move() {
    let nodes: Vec<Server> = (0..3)
        .map(|_| Server::start_on(free_port(), &["--appendonly", "no", "--cluster-enabled", "yes", "--cluster-node-timeout", "5000"]))
        .collect();
    let parts = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];
    for (node, (first, last)) in nodes.iter().zip(parts) {
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).expect("slots");
        node.ask(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]).expect("a meeting");
    }
    for node in &nodes {
        servers::wait("the cluster to form", || {
            let text = node.text(&["CLUSTER", "INFO"]);
            text.contains("cluster_state:ok") && text.contains("cluster_known_nodes:3")
        });
    }
    let region = Region::start(RedisTopology::Cluster(nodes.iter().map(Server::address).collect())).await;
    // Counters and ledger, each in a slot of its own, as many of them as there are.
    let told = region.load_during(async { move_all(&nodes).await }).await;
    region.agrees(told).await;
    region.end().await;
}

/// Moves every slot that holds something from its node to the next one.
async fn move_all(nodes: &[Server]) {
    let ids: Vec<String> = nodes.iter().map(|node| node.text(&["CLUSTER", "MYID"])).collect();
    let mut moves = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let keys: Vec<String> = redis::from_redis_value(node.ask(&["KEYS", "*"]).expect("keys")).expect("a list");
        let mut slots: Vec<u16> = keys
            .iter()
            .map(|key| redis::from_redis_value(node.ask(&["CLUSTER", "KEYSLOT", key]).expect("a slot")).expect("a number"))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        moves.extend(slots.into_iter().map(|slot| (slot, at, (at + 1) % nodes.len())));
    }
    assert!(!moves.is_empty(), "there is something to move");
    for (slot, from, to) in moves {
        let slot = slot.to_string();
        nodes[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]).expect("importing");
        nodes[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]).expect("migrating");
        loop {
            let keys: Vec<String> =
                redis::from_redis_value(nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).expect("keys")).expect("a list");
            if keys.is_empty() {
                break;
            }
            let port = nodes[to].port.to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            nodes[from].ask(&words).expect("a migration");
            pause(1).await;
        }
        for node in [to, from, 3 - to - from] {
            nodes[node].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]).expect("a new owner");
        }
    }
}
