//! An edge that follows a control node, from outside: changes, refusals, revocations, outages, restarts.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use tidegate_edge::config::{ControlEndpoint, QuotaConfig, StoreConfig};
use tidegate_ledger::{Money, Rate};
use tidegate_proto::Kind;
use tidegate_provider_sim::Script;
use tidegate_quota::{RedisOptions, RedisTopology};
use tidegate_testkit::control::{Body, Following, FollowingEdge, damage, key_of, until};
use tidegate_testkit::{Caller, Topology, chat, stream};

const AN_HOUR: Duration = Duration::from_secs(3600);

fn two() -> Following {
    Topology::new().provider("a", |_| {}).provider("b", |p| p.price = "2".into()).under_control()
}

async fn ask(edge: &FollowingEdge) -> u16 {
    edge.post("/v1/chat/completions", &chat("m", "hello")).await.status
}

/// What a caller with another key is answered.
async fn ask_with(edge: &FollowingEdge, key: &str) -> u16 {
    edge.caller().with_key(key).post("/v1/chat/completions", &chat("m", "hello")).await.status
}

fn drained() -> Body {
    Body { drained: true, ..Body::default() }
}

#[tokio::test]
async fn an_edge_follows_a_change() {
    let following = two();
    let edge = following.ready_edge("e").await;
    assert_eq!(ask(&edge).await, 200);
    let index = following.node.put(&[(Kind::Endpoint, "a/m", drained())]);
    let status = following.node.until_applied("e", index).await;
    assert_eq!(status.region, "test");
    let before = following.sim("b").stats().requests;
    for _ in 0..5 {
        assert_eq!(ask(&edge).await, 200);
    }
    assert_eq!(following.sim("b").stats().requests, before + 5);
    assert_eq!(edge.revision(), index);
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn a_wrong_revision_is_refused_by_name_and_the_one_before_goes_on() {
    let following = two();
    let edge = following.ready_edge("e").await;
    let good = edge.revision();
    for (body, stage) in
        [(Body { wrong: Some("blank".to_owned()), ..Body::default() }, "compile"), (Body { panic: true, ..Body::default() }, "panic")]
    {
        let index = following.node.put(&[(Kind::Endpoint, "a/m", body)]);
        let nack = following.node.until_refused("e", index).await.refused.expect("just seen");
        assert_eq!((nack.stage.as_str(), edge.revision()), (stage, good), "{nack:?}");
        if stage == "compile" {
            assert_eq!((nack.resource.expect("it is one resource's fault").name.as_str(), nack.reason.as_str()), ("a/m", "blank"));
        }
        assert_eq!(ask(&edge).await, 200);
        assert!(edge.metric("tidegate_edge_refused_revisions_total", &[("stage", stage)]) >= 1.0);
    }
    let index = following.node.put(&[(Kind::Endpoint, "a/m", drained())]);
    let status = following.node.until_applied("e", index).await;
    assert!(status.refused.is_none(), "{status:?}");
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn what_leaves_nothing_or_gives_everything_away_is_refused() {
    let following = two();
    let edge = following.ready_edge("e").await;
    let free = || Body { price: Some("0".to_owned()), ..Body::default() };
    let index = following.node.put(&[(Kind::Endpoint, "a/m", free()), (Kind::Endpoint, "b/m", free())]);
    let nack = following.node.until_refused("e", index).await.refused.expect("just seen");
    assert!(nack.reason.contains("2 of 2 endpoints"), "{nack:?}");
    following.node.put(&[(Kind::Endpoint, "b/m", Body::default()), (Kind::Endpoint, "a/m", Body::default())]);
    following.node.remove(Kind::Endpoint, "a/m");
    let index = following.node.remove(Kind::Endpoint, "b/m");
    let nack = following.node.until_refused("e", index).await.refused.expect("just seen");
    assert!(nack.reason.contains("no endpoint at all"), "{nack:?}");
    assert_eq!(ask(&edge).await, 200);
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn keys_change_also_while_a_revision_is_refused() {
    let following = two();
    let edge = following.ready_edge("e").await;
    following.node.create_key("k", "a-key-of-this-test");
    let bad = following.node.put(&[(Kind::Model, "m", Body { wrong: Some("no".to_owned()), ..Body::default() })]);
    following.node.until_refused("e", bad).await;
    assert_eq!(ask_with(&edge, "a-key-of-this-test").await, 200);
    let index = following.node.revoke("k", false);
    assert!(following.node.followers().revoked(index, Duration::from_secs(30)).await.is_empty());
    assert_eq!(ask_with(&edge, "a-key-of-this-test").await, 401);
    assert_eq!(ask(&edge).await, 200);
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn an_organisations_limit_and_fee_hold_for_its_keys_and_change_while_they_are_used() {
    let following = Topology::new().provider("a", |_| {}).under_control();
    let edge = following.ready_edge("e").await;
    // A burst of one, and one more every ten seconds.
    let declared = |requests_per_minute, markup_ppm| Body { requests_per_minute, markup_ppm, ..Body::default() };
    following.node.put(&[(Kind::Organisation, "acme", declared(Some(6), 50_000)), (Kind::Organisation, "other", declared(None, 0))]);
    following.node.create_member("k1", "first-member", "acme");
    following.node.create_member("k2", "second-member", "acme");
    let index = following.node.create_member("k3", "stranger", "other");
    following.node.until_applied("e", index).await;
    let asking = |key| {
        let caller = edge.caller().with_key(key);
        async move { caller.post("/v1/chat/completions", &chat("m", "hello")).await }
    };
    let charged = |answer: &tidegate_testkit::Answer| {
        let usage = answer.json()["usage"].clone();
        let tokens = usage["prompt_tokens"].as_u64().zip(usage["completion_tokens"].as_u64()).map(|(a, b)| a + b).expect("tokens");
        let cost = Money::parse_usd(&usage["cost"].to_string()).expect("a cost");
        (cost, Rate::per_million_usd("1").expect("a rate").times(tokens))
    };
    let first = asking("first-member").await;
    assert_eq!(first.status, 200, "{}", first.text());
    let (cost, price) = charged(&first);
    assert_eq!(cost, price + price.share_ppm(50_000), "the fee of the organisation");
    let refused = asking("second-member").await;
    assert_eq!(refused.status, 429, "both keys share one limit");
    assert_eq!(refused.json()["error"]["metadata"]["limit_source"], "organisation_rate_limit");
    assert_eq!(asking("stranger").await.status, 200, "and nobody else does");
    assert_eq!(ask(&edge).await, 200, "nor does a key of nobody");

    let index = following.node.put(&[(Kind::Organisation, "acme", declared(Some(60_000), 100_000))]);
    following.node.until_applied("e", index).await;
    for key in ["first-member", "second-member"] {
        let answer = asking(key).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (cost, price) = charged(&answer);
        assert_eq!(cost, price + price.share_ppm(100_000));
    }
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn a_key_that_was_revoked_is_refused_once_that_is_confirmed() {
    let following = two();
    let edge = following.ready_edge("e").await;
    for number in 0..20 {
        let (id, text) = (format!("k{number}"), format!("key-{number}-of-this-test"));
        let made = following.node.create_key(&id, &text);
        following.node.until_applied("e", made).await;
        assert_eq!(ask_with(&edge, &text).await, 200);
        let index = following.node.revoke(&id, false);
        assert!(following.node.followers().revoked(index, Duration::from_secs(30)).await.is_empty());
        assert_eq!(ask_with(&edge, &text).await, 401, "after every edge has confirmed");
    }
    assert!(edge.metric("tidegate_revocation_lag_seconds", &[]) >= 20.0);
    let disabled = following.node.set_disabled("test", true);
    following.node.until_applied("e", disabled).await;
    assert_eq!(ask(&edge).await, 401);
    let enabled = following.node.set_disabled("test", false);
    following.node.until_applied("e", enabled).await;
    assert_eq!(ask(&edge).await, 200);
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn a_revocation_can_cut_what_is_running() {
    let following = Topology::new().provider("a", |_| {}).under_control();
    let edge = following.ready_edge("e").await;
    let endless = || Script { tokens_per_second: Some(50.0), text: Some("word ".repeat(20_000)), ..Script::default() };
    following.sim("a").push_script(endless());
    following.sim("a").push_script(endless());
    let mut kept = edge.stream("/v1/chat/completions", &stream("m", "mine goes on")).await;
    following.node.create_key("k", "a-key-of-this-test");
    let index = following.node.index();
    following.node.until_applied("e", index).await;
    let mut cut = edge.caller().with_key("a-key-of-this-test").stream("/v1/chat/completions", &stream("m", "mine is cut")).await;
    assert!(cut.next().await.is_some() && kept.next().await.is_some());
    following.node.revoke("k", true);
    let said: Vec<String> = cut.collect().await.iter().map(|event| format!("{event:?}")).collect();
    assert!(said.iter().any(|event| event.contains("revoked")), "{:?}", said.last());
    assert!(said.len() < 10_000, "it is cut, not waited for");
    assert!(kept.next().await.is_some(), "other keys are not concerned");
    drop(kept);
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn an_hour_without_the_control_plane_costs_no_request() {
    an_hour(two()).await;
}

/// And nobody to count at. Limits are then kept by each edge for itself.
#[tokio::test]
async fn nor_does_an_hour_without_redis_too() {
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port").local_addr().expect("it is bound");
    let redis = RedisOptions::new(RedisTopology::Single(gone.to_string()));
    let providers = Topology::new().provider("a", |_| {}).provider("b", |p| p.price = "2".into());
    an_hour(providers.with(|topology| topology.quota = QuotaConfig { store: StoreConfig::Redis(Box::new(redis)) }).under_control()).await;
}

/// The hour without a control plane: edges restarted meanwhile, everything known is served, nothing unknown is called so.
async fn an_hour(following: Following) {
    let edge = following.ready_edge("e").await;
    let limited = Body { requests_per_minute: Some(6_000), ..Body::default() };
    following.node.put(&[(Kind::Organisation, "acme", limited)]);
    following.node.create_member("member", "a-key-with-a-limit", "acme");
    let grace = key_of("short", "a-key-with-no-grace", r#"{"grace_seconds":0}"#);
    let create = tidegate_proto::v1::CreateKey { key: Some(grace), ..Default::default() };
    let index = following.node.agree(tidegate_proto::v1::command::Body::CreateKey(create));
    following.node.until_applied("e", index).await;
    assert_eq!(ask_with(&edge, "a-key-with-no-grace").await, 200);
    assert_eq!(ask_with(&edge, "a-key-that-nobody-made").await, 401);

    following.node.kill().await;
    let mut edge = edge;
    for minute in 0..60 {
        following.forward.pass(Duration::from_secs(60));
        assert_eq!(ask(&edge).await, 200, "minute {minute}");
        assert_eq!(ask_with(&edge, "a-key-with-a-limit").await, 200, "minute {minute}");
        if minute % 20 == 10 {
            edge.edge.shutdown().await;
            edge = following.edge("e").await;
            assert_eq!(edge.edge.readiness(), Ok(()), "ready from what was kept");
        }
    }
    let unknown = edge.caller().with_key("a-key-that-nobody-made").post("/v1/chat/completions", &chat("m", "hello")).await;
    assert_eq!(unknown.status, 503);
    assert!(!unknown.header("retry-after").is_empty());
    assert_eq!(ask_with(&edge, "a-key-with-no-grace").await, 503, "it asked not to be trusted for long");
    let age = edge.metric("tidegate_state_age_seconds", &[("kind", "keys")]);
    assert!((3600.0..4000.0).contains(&age), "{age}");

    let never = following.edge("never").await;
    let missing = never.edge.readiness().expect_err("it has nothing");
    assert!(missing[0].contains("no configuration yet"), "{missing:?}");
    assert_eq!(ask(&never).await, 503, "it cannot tell");

    following.node.revive().await;
    let index = following.node.revoke("short", false);
    following.node.until_applied("e", index).await;
    assert_eq!(ask_with(&edge, "a-key-with-no-grace").await, 401);
    assert_eq!(ask_with(&edge, "a-key-that-nobody-made").await, 401);
    assert_eq!(ask(&edge).await, 200);
    never.until_ready().await;
    assert_eq!(ask(&never).await, 200);
    never.edge.shutdown().await;
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn known_keys_are_served_until_their_grace_ends_and_then_undecided() {
    let mut following = two();
    following.link.key_grace = AN_HOUR;
    let edge = following.ready_edge("e").await;
    following.node.kill().await;
    following.forward.pass(AN_HOUR - Duration::from_secs(60));
    assert_eq!(ask(&edge).await, 200);
    following.forward.pass(Duration::from_secs(120));
    assert_eq!(ask(&edge).await, 503, "never 401: it was valid");
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn what_was_kept_is_not_started_with_when_it_is_too_old_or_damaged() {
    let following = two();
    let edge = following.ready_edge("e").await;
    edge.edge.shutdown().await;
    following.node.kill().await;
    let edge = following.edge("e").await;
    assert_eq!(edge.edge.readiness(), Ok(()));
    edge.edge.shutdown().await;
    following.forward.pass(Duration::from_secs(8 * 24 * 3600));
    let edge = following.edge("e").await;
    assert!(edge.edge.readiness().is_err());
    edge.edge.shutdown().await;
    damage(&following.state_dir("e").join("last-good"));
    damage(&following.state_dir("e").join("last-good.before"));
    following.node.revive().await;
    let edge = following.ready_edge("e").await;
    assert_eq!(ask(&edge).await, 200);
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn coming_back_takes_differences_only() {
    let following = two();
    let edge = following.ready_edge("e").await;
    let snapshots = |edge: &FollowingEdge| edge.metric("tidegate_edge_control_snapshots_total", &[]);
    assert!((snapshots(&edge) - 1.0).abs() < 0.1);
    following.node.kill().await;
    let index = following.node.put(&[(Kind::Endpoint, "a/m", drained())]);
    following.node.revive().await;
    following.node.until_applied("e", index).await;
    following.node.send_away();
    let index = following.node.put(&[(Kind::Endpoint, "a/m", Body::default())]);
    following.node.until_applied("e", index).await;
    assert!((snapshots(&edge) - 1.0).abs() < 0.1, "the same process");
    edge.edge.shutdown().await;
    let index = following.node.put(&[(Kind::Endpoint, "b/m", drained())]);
    let edge = following.edge("e").await;
    following.node.until_applied("e", index).await;
    assert!(snapshots(&edge) < 0.1, "nor after a restart");
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn an_edge_goes_to_another_node_when_its_own_is_gone() {
    let mut following = two();
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port").local_addr().expect("it is bound");
    following.link.endpoints.insert(0, ControlEndpoint { address: gone.to_string(), region: Some("test".to_owned()) });
    following.link.endpoints[1].region = Some("elsewhere".to_owned());
    let edge = following.ready_edge("e").await;
    assert_eq!(ask(&edge).await, 200);
    edge.edge.shutdown().await;
}

/// One restart, not a crash loop: a configuration that ends the process is known by the next one and refused, until it is changed.
#[tokio::test]
async fn a_configuration_that_ends_the_process_does_so_once() {
    let following = two();
    let directory = tempfile::tempdir().expect("a directory");
    let start = || Edge::start(&following.node.address(), directory.path().into());
    let mut child = start();
    following.node.until_applied("child", following.node.index()).await;
    // What is good is kept within a moment, as nothing has to bake here; the poison comes after that.
    until(|| directory.path().join("last-good").exists().then_some(())).await;

    let poison = following.node.put(&[(Kind::Endpoint, "a/m", Body { abort: true, ..Body::default() })]);
    assert!(!child.ended().await, "it dies of the configuration");

    let mut child = start();
    let nack = following.node.until_refused("child", poison).await.refused.expect("just seen");
    assert_eq!(nack.stage, "boot_guard");
    assert!(nack.reason.contains("endpoint `a/m`"), "{nack:?}");
    assert_eq!(child.ask().await, 200, "what was good serves");
    // Another change does not make it better.
    let index = following.node.put(&[(Kind::Endpoint, "b/m", drained())]);
    following.node.until_refused("child", index).await;
    assert!(child.process.try_wait().expect("a child of ours").is_none(), "it lives");
    let index = following.node.put(&[(Kind::Endpoint, "a/m", Body::default())]);
    let status = following.node.until_applied("child", index).await;
    assert!(status.refused.is_none());
    assert_eq!(child.ask().await, 200);
}

/// An edge in a process of its own: this test's binary again.
struct Edge {
    process: Child,
    directory: PathBuf,
}

impl Edge {
    fn start(control: &str, directory: PathBuf) -> Self {
        let _ = std::fs::remove_file(directory.join("address"));
        let process = std::process::Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "control_link::child_edge", "--ignored", "--nocapture"])
            .env("TESTKIT_CONTROL", control)
            .env("TESTKIT_DIRECTORY", &directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this binary runs");
        Self { process, directory }
    }

    /// Whether it ended well.
    async fn ended(&mut self) -> bool {
        until(|| self.process.try_wait().expect("a child of ours")).await.success()
    }

    async fn ask(&self) -> u16 {
        let address = until(|| std::fs::read_to_string(self.directory.join("address")).ok()?.parse().ok()).await;
        Caller::new(address).with_key(tidegate_testkit::KEY).post("/v1/chat/completions", &chat("m", "hello")).await.status
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child of the test above; does nothing unless it is one.
#[tokio::test]
#[ignore = "run by another test in a process of its own"]
async fn child_edge() {
    let (Ok(control), Ok(directory)) = (std::env::var("TESTKIT_CONTROL"), std::env::var("TESTKIT_DIRECTORY")) else { return };
    let mut following = two();
    following.link.endpoints = vec![ControlEndpoint { address: control, region: None }];
    let edge = following.edge_in("child", directory.clone().into()).await;
    let address = edge.edge.bound().listeners[0].1;
    let partial = format!("{directory}/address.partial");
    std::fs::write(&partial, address.to_string()).expect("a directory of the test");
    std::fs::rename(&partial, format!("{directory}/address")).expect("a directory of the test");
    std::future::pending::<()>().await;
}
