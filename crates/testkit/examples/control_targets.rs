//! What the control plane costs: memory of a node, and what health and edges bring into the log and onto the wire.
//!
//! `cargo run --release -p tidegate-testkit --example control_targets memory|health|flapping|wire`

#![expect(clippy::print_stdout, reason = "it is a report")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use tidegate_consensus::{ConsensusConfig, Timing};
use tidegate_control::admin::Access;
use tidegate_control::{ControlConfig, Node, NodeServices};
use tidegate_proto::Kind;
use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{
    Change, Command, CreateKey, EdgeMessage, HealthBatch, HealthCell, HealthReport, Hello, Key, KeySecret, RegionCells, Reply, ReportCell,
    Resource, command, control_message, edge_message, reply,
};
use tidegate_routing::EndpointId;
use tidegate_runtime::mesh::{ChannelOptions, Expect, PlainDialer, Role, channel};
use tidegate_testkit::control::id;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// As in the targets.
const KEYS: u32 = 100_000;
const ENDPOINTS: u32 = 2_000;
const REGIONS: u32 = 8;
/// How long each measurement watches.
const WATCHED: Duration = Duration::from_secs(20);

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    match what.as_str() {
        "memory" => runtime.block_on(memory()),
        "health" => runtime.block_on(health()),
        "flapping" => runtime.block_on(flapping()),
        "wire" => wire(),
        other => println!("`{other}`: one of memory, health, flapping, wire"),
    }
}

/// One node of a cluster of one, on a disk of its own.
async fn node(directory: &Path) -> (Node, prometheus::Registry) {
    let local = ([127, 0, 0, 1], 0).into();
    let mut consensus = ConsensusConfig::new(directory.join("a"), "a", "127.0.0.1:0");
    consensus.region = "eu".into();
    consensus.timing = Timing::LOCAL;
    let config = ControlConfig {
        consensus,
        raft_listen: local,
        sync_listen: local,
        admin_listen: local,
        operations: None,
        admin_address: "127.0.0.1:0".into(),
        sync_address: "127.0.0.1:0".into(),
        identity: None,
        access: Access::default(),
        keyring: None,
        pepper: None,
        bake: Duration::from_secs(30),
        audit_archive: directory.join("audit"),
    };
    let registry = prometheus::Registry::new();
    let services = NodeServices {
        registry: registry.clone(),
        validate: Arc::new(|_| Ok(())),
        validate_policy: Arc::new(|_| Ok(())),
        read_limits: Arc::new(|_, _| tidegate_control::shares::Declared::default()),
        build: "measured".into(),
    };
    let node = Box::pin(Node::start(config, services)).await.expect("the node starts");
    node.consensus().init("mesh").await.expect("a cluster of one");
    while !node.consensus().leads() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (node, registry)
}

async fn propose(node: &Node, body: command::Body) {
    let command = Command { leader_time_ms: 1, actor: "measure".to_owned(), body: Some(body), ..Command::default() };
    let committed = node.consensus().propose(command.encode_to_vec().into()).await.expect("a leader");
    let reply = Reply::decode(committed.response).expect("a reply");
    assert!(matches!(reply.outcome, Some(reply::Outcome::Applied(_))), "{reply:?}");
}

async fn declare(node: &Node, endpoints: u32) {
    let body = |name: &str| {
        format!(
            r#"{{"provider":"p","model":"{name}","upstream_model":"{name}-2027-01","prices":{{"prompt":1.25,"completion":10,"cache_read":0.125}},"context_length":400000,"max_output":32000}}"#
        )
    };
    let endpoint = |number: u32| {
        let name = endpoint_name(number);
        Resource { id: Some(id(Kind::Endpoint, &name)), body: body(&name).into(), revision: 0 }
    };
    let upserts = (0..endpoints).map(endpoint).collect();
    propose(node, command::Body::Change(Change { upserts, immediate: true, ..Change::default() })).await;
}

fn endpoint_name(number: u32) -> String {
    format!("acme/model-{number}@provider-{}", number % 60)
}

async fn memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let (node, _) = node(directory.path()).await;
    let began = Instant::now();
    declare(&node, ENDPOINTS).await;
    let mut creating = tokio::task::JoinSet::new();
    let node = Arc::new(node);
    for part in 0..8 {
        let node = Arc::clone(&node);
        creating.spawn(async move {
            for number in (part..KEYS).step_by(8) {
                let digest = blake3_of(number);
                let key = Key {
                    public_id: format!("k{number:09}"),
                    name: format!("key number {number}"),
                    organisation: format!("org-{}", number % 500),
                    secrets: vec![KeySecret { digest: digest.to_vec().into(), label: "tg_live_k…".to_owned(), ..KeySecret::default() }],
                    ..Key::default()
                };
                propose(&node, command::Body::CreateKey(CreateKey { key: Some(key), ..CreateKey::default() })).await;
            }
        });
    }
    while creating.join_next().await.is_some() {}
    for region in 0..REGIONS {
        let cell = |number| HealthCell { endpoint: EndpointId::of(&endpoint_name(number)).0, samples: 900, ..HealthCell::default() };
        let regions = vec![RegionCells { region: format!("region-{region}"), cells: (0..ENDPOINTS).map(cell).collect() }];
        propose(&node, command::Body::HealthBatch(HealthBatch { regions, ..HealthBatch::default() })).await;
    }
    node.consensus().snapshot_now().await.expect("a snapshot");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line =
        |name: &str| status.lines().find(|line| line.starts_with(name)).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    println!(
        "{KEYS} keys, {ENDPOINTS} endpoints, {REGIONS} regions in {:.1} s; {}, {}",
        began.elapsed().as_secs_f64(),
        line("VmRSS").unwrap_or_default(),
        line("VmHWM").unwrap_or_default()
    );
}

fn blake3_of(number: u32) -> [u8; 32] {
    tidegate_edge::auth::digest(&format!("secret {number}"), None)
}

/// An edge that only reports: each endpoint fails for a second, and works for a second.
async fn reporter(address: String, number: usize, endpoints: u32) {
    let channel = channel(Arc::new(PlainDialer::default()), address, Expect::role(Role::Control), ChannelOptions::default());
    let (say, queue) = mpsc::channel(4);
    let hello = Hello {
        edge_id: format!("edge-{number}"),
        region: "eu".into(),
        build: "m".into(),
        schema_max: 1,
        instance: number as u64,
        ..Hello::default()
    };
    let _ = say.send(EdgeMessage { body: Some(edge_message::Body::Hello(hello)) }).await;
    let Ok(answer) = SyncClient::new(channel).follow(ReceiverStream::new(queue)).await else { return };
    let mut incoming = answer.into_inner();
    let begun = Instant::now();
    let (mut seq, mut tick) = (0, tokio::time::interval(Duration::from_millis(250)));
    loop {
        tokio::select! {
            message = incoming.message() => match message {
                Ok(Some(message)) => if let Some(control_message::Body::GoAway(_)) = message.body { return },
                _ => return,
            },
            _ = tick.tick() => {
                seq += 1;
                let fails = begun.elapsed().as_secs().is_multiple_of(2);
                let cell = |endpoint| {
                    let endpoint = EndpointId::of(&endpoint_name(endpoint)).0;
                    let (ok, server_error) = if fails { (2, 10) } else { (12, 0) };
                    ReportCell { endpoint, ok, server_error, ..ReportCell::default() }
                };
                let report = HealthReport {
                    incarnation: 1, seq, window_ms: 250, confidence: 100, cells: (0..endpoints).map(cell).collect(), ..HealthReport::default()
                };
                if say.send(EdgeMessage { body: Some(edge_message::Body::HealthReport(report)) }).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn counter(registry: &prometheus::Registry, name: &str) -> f64 {
    let families = registry.gather();
    families
        .iter()
        .filter(|family| family.name() == name)
        .flat_map(|family| family.get_metric())
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

struct Health {
    entries_per_second: f64,
    largest: f64,
}

async fn watch(registry: &prometheus::Registry, meanwhile: impl Future<Output = ()>) -> Health {
    // Until edges count as active and verdicts have begun.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let read = || (counter(registry, "tidegate_health_entries_total"), counter(registry, "tidegate_health_entry_bytes_total"));
    let (began, from) = (Instant::now(), read());
    let mut largest: f64 = 0.0;
    let watching = async {
        let mut last = from;
        while began.elapsed() < WATCHED {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = read();
            // At most one entry comes in this time.
            largest = largest.max(now.1 - last.1);
            last = now;
        }
    };
    tokio::join!(watching, meanwhile);
    Health { entries_per_second: (read().0 - from.0) / began.elapsed().as_secs_f64(), largest }
}

async fn health() {
    for edges in [10, 100, 1_000] {
        let directory = tempfile::tempdir().expect("a directory");
        let (node, registry) = node(directory.path()).await;
        declare(&node, 50).await;
        let mut reporters = tokio::task::JoinSet::new();
        for number in 0..edges {
            reporters.spawn(reporter(node.bound().sync.to_string(), number, 10));
            // A node takes fifty new streams a second.
            tokio::time::sleep(Duration::from_millis(22)).await;
        }
        let seen = watch(&registry, async {}).await;
        println!(
            "{edges} edges x 10 flapping endpoints: {:.2} health entries/s, the largest {:.0} bytes",
            seen.entries_per_second, seen.largest
        );
        reporters.abort_all();
        node.shutdown(Duration::from_secs(5)).await;
    }
}

async fn flapping() {
    for edges in [0, 200] {
        let directory = tempfile::tempdir().expect("a directory");
        let (node, registry) = node(directory.path()).await;
        declare(&node, 50).await;
        let mut reporters = tokio::task::JoinSet::new();
        for number in 0..edges {
            reporters.spawn(reporter(node.bound().sync.to_string(), number, 50));
            tokio::time::sleep(Duration::from_millis(22)).await;
        }
        let mut commits = Vec::new();
        let committing = async {
            let began = Instant::now();
            while began.elapsed() < WATCHED {
                let asked = Instant::now();
                let upserts = vec![Resource { id: Some(id(Kind::Preset, "p")), body: "{}".into(), revision: 0 }];
                propose(&node, command::Body::Change(Change { upserts, immediate: true, ..Change::default() })).await;
                commits.push(asked.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let seen = watch(&registry, committing).await;
        commits.sort_unstable();
        println!(
            "{edges} edges x 50 flapping endpoints: {:.2} health entries/s, the largest {:.0} bytes; {} commits, p50 {:.1} ms, p99 {:.1} ms",
            seen.entries_per_second,
            seen.largest,
            commits.len(),
            commits[commits.len() / 2].as_secs_f64() * 1e3,
            commits[commits.len() * 99 / 100].as_secs_f64() * 1e3
        );
        reporters.abort_all();
        node.shutdown(Duration::from_secs(5)).await;
    }
}

/// Bytes between a control node and an edge, over the network in memory: HTTP/2 and all.
fn wire() {
    use tidegate_testkit::network::Network;
    use tidegate_testkit::simulated::{BEGIN, Place, SimulatedNode, edge, foundation};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let clock = tidegate_runtime::Clock::of_runtime(BEGIN);
        let network = Network::new(Duration::from_millis(20));
        let node = SimulatedNode::start("c0", &network, clock, tidegate_control::api::sync::SyncLimits::default());
        let mut log: Vec<Command> = Vec::new();
        let agree = |log: &mut Vec<Command>, body| {
            log.push(Command { leader_time_ms: clock.unix_millis(), actor: "m".to_owned(), body: Some(body), ..Command::default() });
            node.apply(log, log.len() as u64, true);
        };
        for body in foundation() {
            agree(&mut log, body);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { name: "e0", nodes: vec!["c0".to_owned()], state_dir: directory.path(), key_grace: None };
        let mut edge = edge(&network, clock, &place);
        let sums = || (network.carried("c0", "e0"), network.carried("e0", "c0"));
        for (what, changes) in [("connecting", 0_u32), ("an idle hour", 0), ("an hour with 1,000 changed prices", 1_000)] {
            let before = sums();
            let until =
                tokio::time::Instant::now() + if what == "connecting" { Duration::from_secs(10) } else { Duration::from_secs(3600) };
            let mut left = changes;
            while tokio::time::Instant::now() < until {
                let next = tokio::time::Instant::now() + Duration::from_millis(3500);
                while tokio::time::timeout_at(next.min(until), edge.turn()).await.is_ok() {}
                if left > 0 {
                    left -= 1;
                    let body = format!(r#"{{"price":"{}"}}"#, 1 + left % 7);
                    let upserts = vec![Resource { id: Some(id(Kind::Endpoint, "a/m")), body: body.into(), revision: 0 }];
                    agree(&mut log, command::Body::Change(Change { upserts, immediate: true, ..Change::default() }));
                }
            }
            let now = sums();
            println!("{what}: {} bytes to the edge, {} from it", now.0 - before.0, now.1 - before.1);
        }
        edge.stop().await;
    });
}
