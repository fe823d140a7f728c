//! Several edges of a region over one Redis: one count of limits, one ledger.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate_edge::config::{KeyConfig, LedgerConfig, QuotaConfig, StoreConfig};
use tidegate_ledger::Money;
use tidegate_quota::{Dimension, Limit, RedisOptions, RedisTopology, Scope, Window};
use tidegate_testkit::{KEY, Mesh, Topology, chat, key};

const CHAT: &str = "/v1/chat/completions";
const PATIENCE: Duration = Duration::from_secs(20);

struct Redis {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a free port").port();
        let folder = tempfile::tempdir().expect("a directory");
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server 7 or newer: `apt-get install redis-server`");
        let redis = Self { process, port, _folder: folder };
        until("redis-server to listen", || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() }).await;
        redis
    }

    fn store(&self) -> StoreConfig {
        let mut options = RedisOptions::new(RedisTopology::Single(format!("127.0.0.1:{}", self.port)));
        // Test machines stall; what a slow store means has tests of its own.
        options.call_timeout = Duration::from_secs(5);
        StoreConfig::Redis(Box::new(options))
    }
}

async fn until<F: Future<Output = bool>>(what: &str, wanted: impl Fn() -> F) {
    let start = Instant::now();
    while !wanted().await {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn edge(redis: &Redis, directory: &std::path::Path, keys: Vec<KeyConfig>) -> Mesh {
    let (mut keys, ledger, store) =
        (keys.into_iter(), LedgerConfig { directory: Some(directory.to_owned()), ..LedgerConfig::default() }, redis.store());
    let first = keys.next().expect("a key");
    Topology::new()
        .provider("a", |_| {})
        .with(|topology| {
            topology.key = first;
            topology.more_keys = keys.collect();
            topology.ledger = ledger;
            topology.quota = QuotaConfig { store };
        })
        .start()
        .await
}

fn with_limits(limits: Vec<Limit>) -> KeyConfig {
    KeyConfig { limits, ..key("test", KEY) }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_edges_admit_what_one_limit_allows() {
    let (redis, directory) = (Redis::start().await, tempfile::tempdir().expect("a directory"));
    // A burst of ten seconds' worth: 20 at once, then two a second.
    let keys = || vec![with_limits(vec![Limit::new(Scope::Key, Dimension::RequestsPerMinute, 120)])];
    let mut edges = Vec::new();
    for number in 0..4 {
        edges.push(edge(&redis, &directory.path().join(number.to_string()), keys()).await);
    }
    let start = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for mesh in &edges {
        for _ in 0..8 {
            let caller = mesh.caller();
            calls.spawn(async move {
                let mut admitted = 0;
                for _ in 0..25 {
                    match caller.post(CHAT, &chat("m", "hello")).await.status {
                        200 => admitted += 1,
                        status => assert_eq!(status, 429),
                    }
                }
                admitted
            });
        }
    }
    let admitted: u32 = calls.join_all().await.into_iter().sum();
    let bound = 20.0 + 2.0 * start.elapsed().as_secs_f64() + 1.0;
    assert!(f64::from(admitted) <= bound, "{admitted} of 800 were admitted; the limit allows {bound:.1}");
    // What lies in slices of the others may be stranded for a moment; most of the limit is not.
    assert!(admitted >= 10, "{admitted} of 800 were admitted");
    for mesh in edges {
        mesh.edge.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_edge_answers_for_its_region() {
    let (redis, directory) = (Redis::start().await, tempfile::tempdir().expect("a directory"));
    let keys = || vec![with_limits(vec![Limit::new(Scope::Key, Dimension::Spend(Window::Day), 1_000_000)]), key("other", "other-key")];
    let (one, two) = (edge(&redis, &directory.path().join("1"), keys()).await, edge(&redis, &directory.path().join("2"), keys()).await);
    let (mut sum, mut ids) = (Money::ZERO, Vec::new());
    for mesh in [&one, &two, &one] {
        let answer = mesh.post(CHAT, &chat("m", "hello")).await.json();
        sum += Money::parse_usd(&answer["usage"]["cost"].to_string()).expect("a cost");
        ids.push(answer["id"].as_str().expect("an id").to_owned());
    }
    for mesh in [&one, &two] {
        for id in &ids {
            let record = mesh.generation(id).await;
            assert_eq!(record["id"].as_str(), Some(id.as_str()));
        }
        until("the sums of the region", || async {
            let data = mesh.get("/v1/key").await.json()["data"].clone();
            Money::parse_usd(&data["usage"].to_string()) == Ok(sum) && Money::parse_usd(&data["usage_monthly"].to_string()) == Ok(sum)
        })
        .await;
        let credits = mesh.get("/v1/credits").await.json();
        assert_eq!(Money::parse_usd(&credits["data"]["total_usage"].to_string()), Ok(sum));
        assert_eq!(mesh.caller().with_key("other-key").get(&format!("/v1/generation?id={}", ids[0])).await.status, 404);
    }

    let elsewhere = ids[1].clone();
    two.edge.shutdown().await;
    assert_eq!(one.generation(&elsewhere).await["id"].as_str(), Some(elsewhere.as_str()), "also when the edge that served is gone");
    // Started again, it passes nothing on twice.
    let again = edge(&redis, &directory.path().join("2"), keys()).await;
    let answer = again.post(CHAT, &chat("m", "hello")).await.json();
    sum += Money::parse_usd(&answer["usage"]["cost"].to_string()).expect("a cost");
    until("the new sum", || async { Money::parse_usd(&one.get("/v1/key").await.json()["data"]["usage"].to_string()) == Ok(sum) }).await;
    one.edge.shutdown().await;
    again.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_can_be_spent_from_a_store_that_is_new() {
    let (redis, directory) = (Redis::start().await, tempfile::tempdir().expect("a directory"));
    let total = Limit::new(Scope::Key, Dimension::Spend(Window::Total), 1_000_000);
    let keys = vec![with_limits(vec![Limit { funding: tidegate_quota::Funding::Prepaid, ..total }])];
    let mesh = edge(&redis, directory.path(), keys).await;
    let answer = mesh.post(CHAT, &chat("m", "hello")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    mesh.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_never_a_401_or_a_500() {
    let (mut redis, directory) = (Redis::start().await, tempfile::tempdir().expect("a directory"));
    let rate = || vec![Limit::new(Scope::Key, Dimension::RequestsPerMinute, 6_000)];
    let policy = |name: &str, on_store_down| KeyConfig { limits: rate(), on_store_down, ..key(name, name) };
    let keys = vec![
        with_limits(rate()),
        policy("open-key", tidegate_quota::StoreDown::Open),
        policy("closed-key", tidegate_quota::StoreDown::Closed),
    ];
    let mesh = edge(&redis, directory.path(), keys).await;
    assert_eq!(mesh.post(CHAT, &chat("m", "hello")).await.status, 200);
    redis.process.kill().expect("a running server");
    redis.process.wait().expect("an end");
    for (text, status) in [(KEY, 200), ("open-key", 200), ("closed-key", 503)] {
        let answer = mesh.caller().with_key(text).post(CHAT, &chat("m", "hello")).await;
        assert_eq!(answer.status, status, "{text}: {}", answer.text());
        if status == 503 {
            assert_eq!(answer.json()["error"]["metadata"]["limit_source"], "quota_store");
            assert_ne!(answer.header("retry-after"), "");
        }
    }
    let key = mesh.get("/v1/key").await;
    assert_eq!(
        (key.status, key.error_type().as_str()),
        (503, "provider_overloaded"),
        "what was used cannot be read, and nothing is made up"
    );
    mesh.edge.shutdown().await;
}
