//! Changing the configuration under traffic, and stopping without dropping anybody.

use std::time::{Duration, Instant};

use tidegate_edge::config::{AccessLogConfig, MeshConfig};
use tidegate_testkit::raw::{RawUpstream, stream_end};
use tidegate_testkit::{Caller, Event, KEY, Mesh, Topology, chat, key, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The configuration in use, one revision further.
fn next(mesh: &Mesh, change: impl FnOnce(&mut MeshConfig)) -> MeshConfig {
    let mut config = mesh.config.clone();
    config.revision = mesh.edge.revision() + 1;
    change(&mut config);
    config
}

/// A mesh with a provider `raw` that the test writes and a simulated one `b`.
async fn raw_and_b(upstream: &RawUpstream, change: impl FnOnce(&mut Topology)) -> Mesh {
    Topology::new().raw("raw", upstream).provider("b", |_| {}).with(change).start().await
}

/// A stream at the provider `raw` that has begun and waits for the test.
async fn begun(caller: &Caller, upstream: &RawUpstream) -> (tidegate_testkit::Stream, tidegate_testkit::raw::RawExchange) {
    let mut request = stream("m", "hello");
    request["provider"] = serde_json::json!({ "only": ["raw"] });
    let (mut running, exchange) = tokio::join!(caller.stream("/v1/chat/completions", &request), async {
        let mut exchange = upstream.accept().await;
        exchange.begin_stream().await;
        exchange.text("before").await;
        exchange
    });
    assert!(matches!(running.next().await, Some(Event::Data(_))));
    (running, exchange)
}

async fn ends_well(running: tidegate_testkit::Stream, exchange: &mut tidegate_testkit::raw::RawExchange) {
    exchange.text("after").await;
    exchange.send(stream_end()).await;
    let rest = running.collect().await;
    assert_eq!((Event::text(&rest).as_str(), rest.last()), ("after", Some(&Event::Done)));
}

#[tokio::test]
async fn a_removed_endpoint_ends_its_requests_and_gets_no_more() {
    let upstream = RawUpstream::bind().await;
    let mesh = raw_and_b(&upstream, |_| {}).await;
    let (running, mut exchange) = begun(&mesh, &upstream).await;
    let config = next(&mesh, |config| {
        config.providers.remove(0);
        config.endpoints.remove(0);
    });
    mesh.edge.reload(config).expect("a good configuration");
    assert_eq!(mesh.edge.revision(), 2);
    assert_eq!(mesh.metric("tidegate_state_revision", &[("kind", "snapshot")]), 2.0);
    for _ in 0..5 {
        let answer = mesh.post("/v1/chat/completions", &chat("m", "hello")).await;
        assert_eq!((answer.status, answer.json()["provider"].as_str()), (200, Some("B")));
    }
    ends_well(running, &mut exchange).await;
    let left: Vec<String> = mesh.operations().get("/metrics").await.text().lines().map(str::to_owned).collect();
    let gauges = left.iter().filter(|line| line.starts_with("tidegate_provider_up") || line.starts_with("tidegate_edge_breaker"));
    assert!(gauges.clone().count() > 0 && gauges.clone().all(|line| !line.contains("raw")), "gauges of what is gone are gone");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_as_a_whole() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let config = next(&mesh, |config| {
        config.keys = vec![key("other", "another-key")];
        config.providers[0].info.base_url = "ftp://nowhere".to_owned();
        config.providers[0].credentials[0].secret = Some("line\nend".into());
        config.endpoints[0].model = "no-such-model".to_owned();
    });
    let problems = mesh.edge.reload(config).expect_err("three things are wrong");
    assert!(problems.len() >= 3, "all at once: {problems:?}");
    assert_eq!(mesh.edge.revision(), 1);
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200, "the old key and endpoint go on");
    assert_eq!(mesh.caller().with_key("another-key").get("/v1/key").await.status, 401);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn health_is_found_again_by_the_endpoints_name() {
    let mesh = Topology::new().provider("a", |_| {}).provider("b", |_| {}).start().await;
    mesh.sim("a").set_fault(tidegate_provider_sim::Script::status(500).fault);
    let mut request = chat("m", "hello");
    request["provider"] = serde_json::json!({ "order": ["a", "b"] });
    let breaker = |endpoint: &'static str| mesh.metric("tidegate_edge_breaker_state", &[("endpoint", endpoint)]);
    while breaker("a/m") != 2.0 {
        assert_eq!(mesh.post("/v1/chat/completions", &request).await.status, 200);
    }
    // Other positions, another price, further endpoints: still the same endpoint.
    let config = next(&mesh, |config| {
        config.endpoints.reverse();
        config.providers.reverse();
        config.endpoints[1].context_length = 64_000;
    });
    mesh.edge.reload(config).expect("a good configuration");
    assert_eq!((breaker("a/m"), breaker("b/m")), (2.0, 0.0));
    let before = mesh.hits("a");
    assert_eq!(mesh.post("/v1/chat/completions", &request).await.status, 200);
    assert_eq!(mesh.hits("a"), before, "its breaker is still open");
    // Another name is another endpoint.
    let config = next(&mesh, |config| config.endpoints[0].name = "a/m/new".to_owned());
    mesh.edge.reload(config).expect("a good configuration");
    assert_eq!(breaker("a/m/new"), 0.0);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn keys_come_and_go_and_running_streams_end() {
    let upstream = RawUpstream::bind().await;
    let mesh = raw_and_b(&upstream, |_| {}).await;
    let (running, mut exchange) = begun(&mesh, &upstream).await;
    let status = async |text: &str| mesh.caller().with_key(text).get("/v1/key").await.status;
    assert_eq!((status(KEY).await, status("new-key").await), (200, 401));
    mesh.edge.reload(next(&mesh, |config| config.keys.push(key("new", "new-key")))).expect("a good configuration");
    assert_eq!((status(KEY).await, status("new-key").await), (200, 200));
    mesh.edge.reload(next(&mesh, |config| config.keys = vec![key("new", "new-key")])).expect("a good configuration");
    assert_eq!((status(KEY).await, status("new-key").await), (401, 200));
    mesh.edge.reload(next(&mesh, |config| config.keys[0].disabled = true)).expect("a good configuration");
    assert_eq!((status(KEY).await, status("new-key").await), (401, 401));
    ends_well(running, &mut exchange).await;
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn reloading_under_traffic_drops_nothing() {
    let mesh = Topology::new().provider("a", |_| {}).provider("b", |_| {}).start().await;
    let caller = mesh.caller();
    let traffic = async {
        for number in 0..60 {
            let request = if number % 2 == 0 { chat("m", "hello") } else { stream("m", "hello") };
            let answer = caller.post("/v1/chat/completions", &request).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(!answer.text().contains("\"error\""), "{}", answer.text());
        }
    };
    let reloads = async {
        for _ in 0..40 {
            mesh.edge.reload(next(&mesh, |config| config.endpoints.reverse())).expect("a good configuration");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::join!(traffic, reloads);
    assert_eq!(mesh.edge.revision(), 41);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn connections_to_a_provider_survive_a_reload_that_does_not_concern_it() {
    let mesh =
        Topology::new().provider("a", |_| {}).with(|topology| topology.model = tidegate_edge::config::RuntimeModel::Shared).start().await;
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    let before = mesh.sim("a").stats().connections;
    mesh.edge.reload(next(&mesh, |config| config.endpoints[0].context_length = 64_000)).expect("a good configuration");
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    assert_eq!(mesh.sim("a").stats().connections, before);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn draining_ends_what_runs_and_lets_nobody_in() {
    for http2 in [false, true] {
        let upstream = RawUpstream::bind().await;
        let mesh = raw_and_b(&upstream, |topology| topology.limits.unready_before_drain = Duration::from_millis(50)).await;
        let caller = if http2 { mesh.caller().over_http2() } else { mesh.caller() };
        let (running, mut exchange) = begun(&caller, &upstream).await;
        let (operations, address) = (mesh.operations(), mesh.edge.bound().listeners[0].1);
        assert_eq!(operations.get("/readyz").await.status, 200);
        // One that is kept alive, and one that has not said anything yet.
        let mut idle = TcpStream::connect(address).await.expect("the edge listens");
        idle.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("the edge reads");
        assert!(idle.read(&mut [0; 4_096]).await.is_ok_and(|read| read > 0));
        let mut silent = TcpStream::connect(address).await.expect("the edge listens");
        let began = Instant::now();
        let watching = async {
            while operations.get("/readyz").await.status != 503 {}
            assert_eq!(operations.get("/livez").await.status, 200);
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert!(matches!(idle.read(&mut [0; 16]).await, Ok(0) | Err(_)), "idle connections are closed");
            assert!(matches!(silent.read(&mut [0; 16]).await, Ok(0) | Err(_)), "so are those without a request");
            ends_well(running, &mut exchange).await;
        };
        let (cut, ()) = tokio::join!(mesh.edge.shutdown(), watching);
        assert_eq!(cut, 0, "nobody was cut off");
        assert!(began.elapsed() < Duration::from_secs(5), "nothing was waited for in vain: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn draining_has_an_end() {
    let upstream = RawUpstream::bind().await;
    let mesh = raw_and_b(&upstream, |topology| topology.limits.drain = Duration::from_millis(80)).await;
    let (running, mut exchange) = begun(&mesh.caller(), &upstream).await;
    assert_eq!(mesh.edge.shutdown().await, 1, "one stream had to be cut off");
    exchange.closed().await;
    assert_ne!(running.collect().await.last(), Some(&Event::Done));
}

#[tokio::test]
async fn a_request_on_a_draining_connection_is_answered_and_is_the_last() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    mesh.sim("a").push_script("first-token=150ms".parse().expect("a script"));
    let body = chat("m", "hello").to_string();
    let mut socket = TcpStream::connect(mesh.edge.bound().listeners[0].1).await.expect("the edge listens");
    let length = body.len();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all((head + &body).as_bytes()).await.expect("the edge reads");
    mesh.sim("a").wait_until(|stats| stats.active_requests == 1).await;
    let reading = async {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer and then the end");
        answer
    };
    let (cut, answer) = tokio::join!(mesh.edge.shutdown(), reading);
    assert_eq!(cut, 0);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_moved_access_log_is_opened_anew() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let log = AccessLogConfig::File(path.clone());
    let mesh = Topology::new().provider("a", |_| {}).with(|topology| topology.access_log = log).start().await;
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let until = async |path: &std::path::Path, count: usize| {
        while lines(path) < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    until(&path, 1).await;
    std::fs::rename(&path, &moved).expect("the log can be moved");
    mesh.edge.refresh_files();
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    until(&path, 1).await;
    assert_eq!((lines(&moved), lines(&path)), (1, 1));
    mesh.edge.shutdown().await;
}
