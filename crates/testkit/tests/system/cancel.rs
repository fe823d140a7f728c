//! Callers who leave, and callers who do not read: the provider notices, and what was delivered is what counts.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate_edge::config::UpstreamHttp;
use tidegate_provider_sim::{Disconnect, Script};
use tidegate_testkit::raw::{RawUpstream, chunk};
use tidegate_testkit::{Authority, Caller, Event, KEY, Mesh, Topology, chat, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The promise is 50 ms; shared test machines stall for longer than that, so the bound here is wider and the value is printed.
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// Two tokens quickly, then one every fifty milliseconds.
fn slow() -> Script {
    Script { tokens_per_second: Some(20.0), text: Some("word ".repeat(2_000)), ..Script::default() }
}

fn script(text: &str) -> Script {
    text.parse().expect("a script")
}

async fn one_provider() -> Mesh {
    Topology::new().provider("a", |_| {}).start().await
}

#[expect(clippy::print_stdout, reason = "the measured latency is what the test is for; shown with --nocapture")]
fn in_time(what: &str, left: Instant, noticed: Instant) {
    let after = noticed.saturating_duration_since(left);
    println!("{what}: the provider noticed after {:.2} ms", after.as_secs_f64() * 1e3);
    assert!(after < NOTICED_WITHIN, "{what}: {after:?}");
}

async fn disconnect(mesh: &Mesh) -> Disconnect {
    let stats = mesh.sim("a").wait_until(|stats| !stats.disconnects.is_empty()).await;
    stats.disconnects[0]
}

/// Sends a request and keeps the connection in hand, so that leaving is one drop.
async fn send_by_hand(mesh: &Mesh, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(mesh.edge.bound().listeners[0].1).await.expect("the edge listens");
    socket.write_all(&request(body)).await.expect("the edge reads");
    socket
}

fn request(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost";
    format!("{head}\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[tokio::test]
async fn a_caller_who_leaves_a_stream_ends_the_providers_work() {
    let authority = Authority::new();
    let tls = authority.listener(vec![authority.issue("edge", &["localhost"])]);
    for (what, http2, secure) in [("HTTP/1.1", false, false), ("HTTP/2", true, false), ("HTTP/1.1 over TLS", false, true)] {
        let mesh = Topology::new().provider("a", |_| {}).with(|topology| topology.tls = Some(tls.clone())).start().await;
        let mut caller: Caller = mesh.caller();
        if http2 {
            caller = caller.over_http2();
        }
        if secure {
            caller = caller.with_tls(mesh.https(), authority.client(&[], &["http/1.1"], None));
        }
        mesh.sim("a").push_script(slow());
        let mut stream = caller.stream("/v1/chat/completions", &stream("m", "hello")).await;
        assert!(matches!(stream.next().await, Some(Event::Data(_))));
        let left = Instant::now();
        drop(stream);
        let seen = disconnect(&mesh).await;
        assert!(seen.streaming);
        in_time(what, left, seen.at);
        mesh.edge.shutdown().await;
    }
}

#[tokio::test]
async fn a_caller_who_leaves_before_the_first_token_ends_the_providers_work() {
    // Before the head was sent, after it (with comments), and while a whole answer is being made.
    let comments = Duration::from_millis(10);
    let cases = [
        ("before the head", stream("m", "hello"), Duration::from_secs(60)),
        ("after the head", stream("m", "hello"), comments),
        ("whole answer", chat("m", "hello"), comments),
    ];
    for (what, body, keep_alive) in cases {
        let mesh = Topology::new().provider("a", |_| {}).with(|topology| topology.limits.keep_alive_comment = keep_alive).start().await;
        mesh.sim("a").push_script(script("first-token=60s"));
        let mut socket = send_by_hand(&mesh, &body.to_string()).await;
        mesh.sim("a").wait_until(|stats| stats.active_requests == 1).await;
        if what == "after the head" {
            let mut head = [0; 12];
            socket.read_exact(&mut head).await.expect("a head");
            assert_eq!(&head, b"HTTP/1.1 200");
        }
        let left = Instant::now();
        drop(socket);
        let seen = disconnect(&mesh).await;
        in_time(what, left, seen.at);
        mesh.until_metric("tidegate_edge_requests_total", &[("error_type", "cancelled"), ("model", "m")], |count| count == 1.0).await;
        assert_eq!(mesh.metric("tidegate_edge_attempts_total", &[("outcome", "cancelled")]), 1.0);
        assert_eq!(mesh.metric("tidegate_edge_cost_microdollars_total", &[]), 0.0, "nothing was delivered");
        mesh.edge.shutdown().await;
    }
}

#[tokio::test]
async fn leaving_one_stream_of_a_connection_ends_that_one_alone() {
    // HTTP/2 on both legs: what ends a stream is a reset frame, not the end of a connection.
    let mesh =
        Topology::new().provider("a", |draft| draft.provider = Box::new(|provider| provider.http = UpstreamHttp::Http2)).start().await;
    mesh.sim("a").push_script(slow());
    mesh.sim("a").push_script(slow());
    let tcp = TcpStream::connect(mesh.edge.bound().listeners[0].1).await.expect("the edge listens");
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.expect("HTTP/2");
    let test = async {
        let mut open = async || {
            let request = http::Request::post("http://localhost/v1/chat/completions")
                .header("authorization", format!("Bearer {KEY}"))
                .body(Full::new(Bytes::from(stream("m", "hello").to_string())))
                .expect("a request");
            let mut body = sender.send_request(request).await.expect("an answer").into_body();
            body.frame().await.expect("a first token").expect("the connection lives");
            body
        };
        let (leaving, mut staying) = (open().await, open().await);
        let left = Instant::now();
        drop(leaving);
        let seen = disconnect(&mesh).await;
        in_time("one stream of HTTP/2", left, seen.at);
        for _ in 0..3 {
            staying.frame().await.expect("it goes on").expect("the connection lives");
        }
        assert_eq!(mesh.sim("a").stats().active_streams, 1);
        assert_eq!(mesh.sim("a").stats().connections, 1, "both streams on one connection");
    };
    tokio::select! {
        () = test => {}
        _ = connection => panic!("the edge closed the connection"),
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn leaving_does_not_count_against_the_provider() {
    let mesh = one_provider().await;
    for _ in 0..12 {
        mesh.sim("a").push_script(slow());
        let mut stream = mesh.stream("/v1/chat/completions", &stream("m", "hello")).await;
        assert!(matches!(stream.next().await, Some(Event::Data(_))));
    }
    mesh.until_metric("tidegate_edge_attempts_total", &[("outcome", "cancelled")], |count| count == 12.0).await;
    assert_eq!(mesh.metric("tidegate_edge_breaker_state", &[]), 0.0);
    assert_eq!(mesh.metric("tidegate_edge_endpoint_in_flight", &[]), 0.0, "every slot was given back");
    assert_eq!(mesh.metric("tidegate_edge_streams_active", &[]), 0.0);
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn what_was_delivered_before_leaving_is_recorded_and_billed() {
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |_| {}).await;
    let request = stream("m", "hello");
    let (mut stream, mut exchange) = tokio::join!(mesh.stream("/v1/chat/completions", &request), async {
        let mut exchange = upstream.accept().await;
        exchange.begin_stream().await;
        exchange.text(&"four".repeat(50)).await;
        exchange
    });
    let id = stream.headers["x-generation-id"].to_str().expect("an id").to_owned();
    assert!(matches!(stream.next().await, Some(Event::Data(_))));
    drop(stream);
    exchange.closed().await;
    let record = mesh.generation(&id).await;
    assert_eq!(record["cancelled"], true, "{record}");
    let (prompt, completion) = (record["tokens_prompt"].as_u64().unwrap_or(0), record["tokens_completion"].as_u64().unwrap_or(0));
    assert!(prompt > 0, "{record}");
    assert_eq!(completion, 50, "200 bytes of text at four bytes a token: {record}");
    assert_eq!(record["total_cost"].as_f64(), Some((prompt + completion) as f64 / 1e6), "{record}");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_caller_who_does_not_read_holds_the_provider_back() {
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |_| {}).await;
    let body = stream("m", "hello").to_string();
    let (mut socket, mut exchange) = tokio::join!(slow_reader(&mesh, &body), upstream.accept());
    exchange.begin_stream().await;
    let events = event_bytes(64 * 1024);
    let mut taken = 0;
    loop {
        let more = exchange.send_until_stuck(&events, Duration::from_millis(150)).await;
        taken += more;
        if more < events.len() {
            break;
        }
        // The buffers of four sockets, which the kernel sizes by itself, and little of our own.
        assert!(taken < 64 * 1024 * 1024, "nothing holds the provider back");
    }
    // A reading caller gets things going again.
    let mut rest = vec![0; 1 << 20];
    let (mut read, mut wrote) = (0, 0);
    while wrote < events.len() {
        tokio::select! {
            got = socket.read(&mut rest) => read += got.expect("the stream goes on"),
            more = exchange.send_until_stuck(&events[wrote..], Duration::from_millis(20)) => wrote += more,
        }
    }
    assert!(read > 0);
    drop((socket, exchange));
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_caller_who_takes_nothing_for_too_long_loses_the_stream() {
    let stall = Duration::from_millis(100);
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |topology| topology.limits.write_stall = stall).await;
    let body = stream("m", "hello").to_string();
    let (socket, mut exchange) = tokio::join!(slow_reader(&mesh, &body), upstream.accept());
    exchange.begin_stream().await;
    let events = event_bytes(64 * 1024);
    // Until every buffer on the way is full, or the edge has left already.
    while exchange.send_until_stuck(&events, stall).await == events.len() {}
    exchange.closed().await;
    mesh.until_metric("tidegate_edge_attempts_total", &[("outcome", "cancelled")], |count| count == 1.0).await;
    drop(socket);
    mesh.edge.shutdown().await;
}

/// A mesh whose only provider is written by the test.
async fn over_raw(upstream: &RawUpstream, change: impl FnOnce(&mut Topology)) -> Mesh {
    Topology::new().raw("raw", upstream).with(change).start().await
}

/// A caller with a small receive buffer who reads nothing by itself.
async fn slow_reader(mesh: &Mesh, body: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a socket option");
    let mut socket = socket.connect(mesh.edge.bound().listeners[0].1).await.expect("the edge listens");
    socket.write_all(&request(body)).await.expect("the edge reads");
    socket
}

/// Whole events of at least this many bytes together.
fn event_bytes(least: usize) -> Vec<u8> {
    let event = format!("data: {}\n\n", chunk(&"text ".repeat(400)));
    event.repeat(least.div_ceil(event.len())).into_bytes()
}

#[tokio::test]
async fn an_http2_caller_who_opens_no_window_loses_the_stream() {
    let stall = Duration::from_millis(100);
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |topology| topology.limits.write_stall = stall).await;
    let tcp = TcpStream::connect(mesh.edge.bound().listeners[0].1).await.expect("the edge listens");
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.expect("HTTP/2");
    let test = async {
        let request = http::Request::post("http://localhost/v1/chat/completions")
            .header("authorization", format!("Bearer {KEY}"))
            .body(Full::new(Bytes::from(stream("m", "hello").to_string())))
            .expect("a request");
        let (held, mut exchange) = tokio::join!(sender.send_request(request), async {
            let mut exchange = upstream.accept().await;
            exchange.begin_stream().await;
            exchange.text("one").await;
            exchange
        });
        let held = held.expect("an answer");
        let events = event_bytes(64 * 1024);
        while exchange.send_until_stuck(&events, stall).await == events.len() {}
        let closed = tokio::time::timeout(Duration::from_secs(5), exchange.closed()).await;
        drop(held);
        assert!(closed.is_ok(), "the provider works for nobody");
    };
    tokio::select! {
        () = test => {}
        _ = connection => {}
    }
    mesh.edge.shutdown().await;
}
