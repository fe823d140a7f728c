//! Several edges of a region over one Redis: one count of limits, one ledger.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate_edge::config::{KeyConfig, LedgerConfig, OrganisationConfig, QuotaConfig, StoreConfig};
use tidegate_ledger::Money;
use tidegate_quota::{Dimension, Funding, Limit, RedisOptions, RedisTopology, Scope, Window};
use tidegate_testkit::{KEY, Mesh, Topology, chat, key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHAT: &str = "/v1/chat/completions";
const PATIENCE: Duration = Duration::from_secs(20);

struct Redis {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's program; `TIDEGATE_REDIS_SERVER=/path/to/valkey-server` runs the tests against another.
pub(crate) fn redis_server() -> String {
    std::env::var("TIDEGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

impl Redis {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a free port").port();
        let folder = tempfile::tempdir().expect("a directory");
        let process = Self::spawn(port, folder.path());
        let redis = Self { process, port, folder };
        redis.until_listening().await;
        redis
    }

    fn spawn(port: u16, folder: &std::path::Path) -> Child {
        Command::new(redis_server())
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server 7 or newer: `apt-get install redis-server`")
    }

    /// Starts it again at the same address, with nothing in it.
    async fn again(&mut self) {
        self.process = Self::spawn(self.port, self.folder.path());
        self.until_listening().await;
    }

    async fn wipe(&self) {
        let mut link = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.expect("a server");
        link.write_all(b"FLUSHALL\r\n").await.expect("a request");
        let mut answer = [0; 5];
        link.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"+OK\r\n");
    }

    async fn until_listening(&self) {
        until("redis-server to listen", || async { tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() }).await;
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
async fn a_thousand_at_once_over_four_edges_cannot_outrun_a_budget_for_ten() {
    let (redis, directory) = (Redis::start().await, tempfile::tempdir().expect("a directory"));
    // A dollar per million tokens: 50 of an answer, which may not be longer, and 5 of the prompt.
    let budget = 10 * 55;
    let keys = || vec![with_limits(vec![Limit::new(Scope::Key, Dimension::Spend(Window::Day), budget)])];
    let mut edges = Vec::new();
    for number in 0..4 {
        edges.push(edge(&redis, &directory.path().join(number.to_string()), keys()).await);
    }
    let request = || {
        let mut request = chat("m", "the same for everybody");
        request["max_tokens"] = 50.into();
        request
    };
    let mut calls = tokio::task::JoinSet::new();
    for mesh in &edges {
        for _ in 0..20 {
            mesh.sim("a").push_script(tidegate_provider_sim::Script::text("aaa ".repeat(50).trim_end()));
        }
        for _ in 0..250 {
            let (caller, request) = (mesh.caller(), request());
            calls.spawn(async move { caller.post(CHAT, &request).await });
        }
    }
    let mut spent = Money::ZERO;
    let mut served = 0;
    for answer in calls.join_all().await {
        match answer.status {
            200 => {
                spent += Money::parse_usd(&answer.json()["usage"]["cost"].to_string()).expect("a cost");
                served += 1;
            }
            status => assert_eq!((status, answer.error_type().as_str()), (402, "payment_required"), "{}", answer.text()),
        }
    }
    assert!((1..=10).contains(&served), "{served} were served");
    until("what was spent to be settled", || async {
        let data = edges[0].get("/v1/key").await.json()["data"].clone();
        let left = Money::parse_usd(&data["limit_remaining"].to_string()).expect("an amount");
        left == Money::from_picodollars(i128::from(budget) * 1_000_000) - spent
    })
    .await;
    for mesh in edges {
        mesh.edge.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn use_of_a_region_is_shown_by_every_edge_and_a_generation_is_there_within_a_second() {
    let (redis, directory) = (Redis::start().await, tempfile::tempdir().expect("a directory"));
    let keys = || vec![with_limits(Vec::new()), key("other", "other-key")];
    let (one, two) = (edge(&redis, &directory.path().join("1"), keys()).await, edge(&redis, &directory.path().join("2"), keys()).await);
    let (mut sum, mut fastest) = (Money::ZERO, PATIENCE);
    for number in 0..6 {
        let (here, there) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let caller = if number < 4 { here.caller() } else { here.caller().with_key("other-key") };
        let answer = caller.with_header("x-title", "the app").post(CHAT, &chat("m", "hello")).await.json();
        sum += Money::parse_usd(&answer["usage"]["cost"].to_string()).expect("a cost");
        if number < 4 {
            let served = Instant::now();
            there.generation(answer["id"].as_str().expect("an id")).await;
            fastest = fastest.min(served.elapsed());
        }
    }
    println!("on the other edge after {fastest:?} at best");
    assert!(fastest < Duration::from_secs(1), "{fastest:?}: the best of four, as test machines stall");
    for mesh in [&one, &two] {
        for period in ["day", "hour", "all"] {
            until("the sums of the region", || async {
                let usage = mesh.operations().get(&format!("/usage?by=model,provider,key,app&period={period}")).await.json();
                let rows = usage["rows"].as_array().cloned().unwrap_or_default();
                let of = |key: &str| {
                    rows.iter()
                        .filter(|row| row["key"] == key && row["app"] == "the app")
                        .filter_map(|row| row["requests"].as_u64())
                        .sum::<u64>()
                };
                usage["scope"] == "region" && usage["total"]["charged_usd"] == sum.to_string() && (of("test"), of("other")) == (4, 2)
            })
            .await;
        }
        let filtered = mesh.operations().get("/usage?by=key&period=all&key=other").await.json();
        assert_eq!((filtered["total"]["requests"].as_u64(), filtered["rows"].as_array().map(Vec::len)), (Some(2), Some(1)), "{filtered}");
        let own = mesh.operations().get("/usage?by=key&period=all&scope=edge").await.json();
        assert_eq!((own["scope"].as_str(), own["total"]["requests"].as_u64()), (Some("edge"), Some(3)), "{own}");
        assert_eq!(mesh.operations().get("/usage?scope=world").await.status, 400);
    }
    drop(redis);
    let away = one.operations().get("/usage?period=all").await;
    assert_eq!(away.status, 503, "nothing is made up: {}", away.text());
    one.edge.shutdown().await;
    two.edge.shutdown().await;
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

/// Credits of an organisation, and its two keys.
fn prepaid(credits: u64) -> (OrganisationConfig, Vec<KeyConfig>) {
    let limit = Limit { funding: Funding::Prepaid, ..Limit::new(Scope::Organisation, Dimension::Spend(Window::Total), credits) };
    let organisation = OrganisationConfig { limits: vec![limit], credits: Some(credits), ..OrganisationConfig::new("acme") };
    let member = |name: &str, text: &str| KeyConfig { organisation: Some("acme".to_owned()), ..key(name, text) };
    (organisation, vec![member("test", KEY), member("other", "other-key")])
}

async fn prepaid_edge(redis: &Redis, directory: &std::path::Path, credits: u64) -> Mesh {
    let (organisation, mut keys) = prepaid(credits);
    let (ledger, store) = (LedgerConfig { directory: Some(directory.to_owned()), ..LedgerConfig::default() }, redis.store());
    Topology::new()
        .provider("a", |_| {})
        .with(|topology| {
            topology.organisations = vec![organisation];
            topology.more_keys = vec![keys.remove(1)];
            topology.key = keys.remove(0);
            topology.ledger = ledger;
            topology.quota = QuotaConfig { store };
        })
        .start()
        .await
}

/// What an organisation has spent as the counter in Redis says, micro-dollars.
async fn counted(mesh: &Mesh) -> Option<Money> {
    let answer = mesh.get("/v1/key").await;
    let data = (answer.status == 200).then(|| answer.json()["data"]["tidegate"]["limits"].clone())?;
    let limits = data.as_array()?;
    Money::parse_usd(&limits.iter().find(|limit| limit["prepaid"] == true)?["used"].to_string()).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_redis_opens_prepaid_keys_again_with_what_every_edge_has_spent() {
    let (redis, directory) = (Redis::start().await, tempfile::tempdir().expect("a directory"));
    let one = prepaid_edge(&redis, &directory.path().join("1"), 1_000_000).await;
    let two = prepaid_edge(&redis, &directory.path().join("2"), 1_000_000).await;
    let mut sum = Money::ZERO;
    // A fresh store and an organisation that never spent: open from the first request on.
    for mesh in [&one, &two, &two, &two] {
        let answer = mesh.post(CHAT, &chat("m", "hello")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        sum += Money::parse_usd(&answer.json()["usage"]["cost"].to_string()).expect("a cost");
    }
    until("the sums of the region", || async {
        Money::parse_usd(&one.get("/v1/credits").await.json()["data"]["total_usage"].to_string()) == Ok(sum)
    })
    .await;
    until("what was spent to be settled", || async { counted(&one).await == Some(sum) }).await;

    redis.wipe().await;
    // Only one edge is used from here on: what the idle one spent has to be there all the same.
    until("prepaid keys to be open again", || async { one.post(CHAT, &chat("m", "hello")).await.status == 200 }).await;
    until("the counter to hold what both have spent", || async { counted(&one).await.is_some_and(|used| used >= sum) }).await;
    until("the region's sums to be whole again", || async {
        Money::parse_usd(&one.get("/v1/credits").await.json()["data"]["total_usage"].to_string()).is_ok_and(|used| used > sum)
    })
    .await;
    one.edge.shutdown().await;
    two.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_told_what_was_spent() {
    let (mut redis, directory) = (Redis::start().await, tempfile::tempdir().expect("a directory"));
    let mesh = prepaid_edge(&redis, directory.path(), 1_000_000).await;
    let mut sum = Money::ZERO;
    for _ in 0..3 {
        let answer = mesh.post(CHAT, &chat("m", "hello")).await;
        sum += Money::parse_usd(&answer.json()["usage"]["cost"].to_string()).expect("a cost");
    }
    until("what was spent to be settled", || async { counted(&mesh).await == Some(sum) }).await;
    redis.process.kill().expect("a running server");
    redis.process.wait().expect("an end");
    assert_eq!(mesh.post(CHAT, &chat("m", "hello")).await.status, 503, "nothing is lent while it cannot be counted");
    redis.again().await;
    until("prepaid keys to be open again", || async { mesh.post(CHAT, &chat("m", "hello")).await.status == 200 }).await;
    until("the counter to hold what was spent before", || async { counted(&mesh).await.is_some_and(|used| used > sum) }).await;
    mesh.edge.shutdown().await;
}
