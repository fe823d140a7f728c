//! What a stranger can do with a socket: malformed, oversized, slow, too many. And what never crosses the edge in either direction.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tidegate_edge::config::Limits;
use tidegate_testkit::raw::{RawUpstream, completion};
use tidegate_testkit::{KEY, Mesh, Topology, chat, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn mesh_with(change: impl FnOnce(&mut Limits)) -> Mesh {
    Topology::new().provider("a", |_| {}).with(|topology| change(&mut topology.limits)).start().await
}

async fn connect(mesh: &Mesh) -> TcpStream {
    TcpStream::connect(mesh.edge.bound().listeners[0].1).await.expect("the edge listens")
}

/// Sends bytes and reads until the edge closes; the edge may close before it has read everything.
async fn talk(mesh: &Mesh, bytes: impl AsRef<[u8]>) -> String {
    let mut socket = connect(mesh).await;
    drop(socket.write_all(bytes.as_ref()).await);
    read_to_end(&mut socket).await
}

async fn read_to_end(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let reading = async { while socket.read_buf(&mut all).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the edge closes the connection");
    String::from_utf8_lossy(&all).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("not an answer: {answer:?}"))
}

fn body(answer: &str) -> Value {
    let text = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn answers(answer: &str) -> usize {
    answer.matches("HTTP/1.1 ").count()
}

/// A chat request with these further header lines, each with its line end; the connection closes after it.
fn request(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    )
}

fn head(headers: &str) -> String {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n{headers}\r\n")
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_however_they_are_announced() {
    let mesh = mesh_with(|limits| limits.body_bytes = 10_000).await;
    let announced = talk(&mesh, head("content-length: 999999999\r\n")).await;
    let mut chunks = head("transfer-encoding: chunked\r\n").into_bytes();
    for _ in 0..12 {
        chunks.extend_from_slice(b"3e8\r\n");
        chunks.extend_from_slice(&[b' '; 1_000]);
        chunks.extend_from_slice(b"\r\n");
    }
    let grown = talk(&mesh, chunks).await;
    for answer in [announced, grown] {
        assert_eq!(status(&answer), 413, "{answer}");
        assert_eq!(body(&answer)["error"]["metadata"]["error_type"], "payload_too_large");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "the rest is not read: {answer}");
    }
    assert_eq!(status(&talk(&mesh, request("", &chat("m", &"x".repeat(9_000)).to_string())).await), 200);
    assert_eq!(mesh.hits("a"), 1);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_chunked_body_within_the_limit_is_fine() {
    let mesh = mesh_with(|_| {}).await;
    let text = chat("m", "hello").to_string();
    let (first, second) = text.split_at(20);
    let chunked = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    assert_eq!(status(&talk(&mesh, head("connection: close\r\ntransfer-encoding: chunked\r\n") + &chunked).await), 200);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_body_that_drips_is_refused() {
    let mesh = mesh_with(|limits| {
        limits.body_grace = Duration::from_millis(1);
        limits.body_rate = 1_000;
    })
    .await;
    let answer = talk(&mesh, head("content-length: 5000\r\n") + "{").await;
    assert_eq!(status(&answer), 408, "{answer}");
    assert_eq!(body(&answer)["error"]["metadata"]["error_type"], "timeout");
    assert_eq!(mesh.hits("a"), 0);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_head_that_drips_is_cut_and_an_idle_connection_is_not() {
    let limit = Duration::from_millis(60);
    let mesh = mesh_with(|limits| limits.header_read = limit).await;
    let mut idle = connect(&mesh).await;
    let mut dripping = connect(&mesh).await;
    let begun = Instant::now();
    for byte in b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
        if dripping.write_all(&[*byte]).await.is_err() || begun.elapsed() > Duration::from_secs(5) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "every byte put the limit off");
    // As long again, and the one that never began is still welcome.
    drop(idle.write_all(request("", &chat("m", "hello").to_string()).as_bytes()).await);
    assert_eq!(status(&read_to_end(&mut idle).await), 200);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let mesh = mesh_with(|_| {}).await;
    let text = chat("m", "hello").to_string();
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    assert_eq!(status(&talk(&mesh, request(&many, &text)).await), 431);
    let large: String = (0..9).map(|number| format!("x-{number}: {}\r\n", "y".repeat(8_000))).collect();
    assert_eq!(status(&talk(&mesh, request(&large, &text)).await), 431);
    let one = format!("x-one: {}\r\n", "y".repeat(17_000));
    assert_eq!(status(&talk(&mesh, request(&one, &text)).await), 431);
    assert_eq!(status(&talk(&mesh, format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "p".repeat(66_000))).await), 431);
    assert_eq!(mesh.hits("a"), 0);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn requests_that_two_readers_could_read_differently_are_refused() {
    let mesh = mesh_with(|_| {}).await;
    let text = chat("m", "hello").to_string();
    let length = text.len();
    let key = format!("authorization: Bearer {KEY}\r\nconnection: close\r\n");
    let line = "POST /v1/chat/completions HTTP/1.1\r\n";
    let cases = [
        ("two different lengths", format!("{line}host: localhost\r\n{key}content-length: {length}\r\ncontent-length: 1\r\n\r\n{text}")),
        ("a list of lengths", format!("{line}host: localhost\r\n{key}content-length: {length}, {length}1\r\n\r\n{text}")),
        ("a signed length", format!("{line}host: localhost\r\n{key}content-length: +{length}\r\n\r\n{text}")),
        ("two hosts", format!("{line}host: localhost\r\nhost: other\r\n{key}content-length: {length}\r\n\r\n{text}")),
        ("no host", format!("{line}{key}content-length: {length}\r\n\r\n{text}")),
        ("a folded header", format!("{line}host: localhost\r\n{key}x: 1\r\n  2\r\ncontent-length: {length}\r\n\r\n{text}")),
        ("a space before the colon", format!("{line}host: localhost\r\n{key}content-length : {length}\r\n\r\n{text}")),
        ("a control byte", format!("{line}host: localhost\r\n{key}x: a\0b\r\ncontent-length: {length}\r\n\r\n{text}")),
        ("a bare carriage return", format!("{line}host: localhost\r\n{key}x: a\rb\r\ncontent-length: {length}\r\n\r\n{text}")),
        (
            "another coding",
            format!("{line}host: localhost\r\n{key}transfer-encoding: gzip, chunked\r\n\r\n{length:x}\r\n{text}\r\n0\r\n\r\n"),
        ),
        ("no coding", format!("{line}host: localhost\r\n{key}transfer-encoding: identity\r\ncontent-length: {length}\r\n\r\n{text}")),
        (
            "another host's URL",
            format!(
                "POST http://other.example.org/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{key}content-length: {length}\r\n\r\n{text}"
            ),
        ),
    ];
    for (what, bytes) in cases {
        let answer = talk(&mesh, bytes).await;
        assert_eq!(status(&answer), 400, "{what}: {answer}");
        assert_eq!(answers(&answer), 1, "{what}: {answer}");
    }
    assert_eq!(mesh.hits("a"), 0);
    // The same host's URL is what a proxy would send.
    let absolute =
        format!("POST http://localhost/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{key}content-length: {length}\r\n\r\n{text}");
    assert_eq!(status(&talk(&mesh, absolute).await), 200);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let mesh = mesh_with(|_| {}).await;
    let text = chat("m", "hello").to_string();
    let hidden = request("", &text);
    let length = text.len();
    for lengths in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
    ] {
        let before = mesh.hits("a");
        let answer = talk(&mesh, head(&lengths) + &format!("{length:x}\r\n{text}\r\n0\r\n\r\n{hidden}")).await;
        // Refused, or read by its chunks alone and the connection closed (RFC 9112, 6.3): never a second request.
        assert_eq!(answers(&answer), 1, "{answer}");
        assert!(mesh.hits("a") <= before + 1);
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn bodies_that_are_not_json_objects_are_refused_with_the_reason() {
    let mesh = mesh_with(|_| {}).await;
    let deep = |levels: usize| format!(r#"{{"model":"m","messages":[],"x":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let good = chat("m", "hello").to_string();
    let cases: [(&str, Vec<u8>); 9] = [
        ("nothing", Vec::new()),
        ("no JSON", b"model=m".to_vec()),
        ("an array", b"[]".to_vec()),
        ("half an object", good.as_bytes()[..good.len() - 1].to_vec()),
        ("something after it", format!("{good} x").into_bytes()),
        ("two objects", format!("{good}{good}").into_bytes()),
        ("not UTF-8", b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}".to_vec()),
        ("too deep", deep(64).into_bytes()),
        ("much too deep", deep(100_000).into_bytes()),
    ];
    for (what, bytes) in cases {
        let answer = mesh.send(Method::POST, "/v1/chat/completions", Bytes::from(bytes)).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert_eq!(answer.error_type(), "invalid_request", "{what}: {}", answer.text());
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.len() > 10 && message.len() < 500, "{what}: {message}");
    }
    for (field, request) in [
        ("messages", json!({ "model": "m" })),
        ("messages", json!({ "model": "m", "messages": "hello" })),
        ("model", json!({ "model": 7, "messages": [{ "role": "user", "content": "x" }] })),
        ("temperature", json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }], "temperature": "hot" })),
        ("stream", json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }], "stream": "yes" })),
    ] {
        let answer = mesh.post("/v1/chat/completions", &request).await;
        assert_eq!(answer.status, 400, "{field}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], field, "{}", answer.text());
    }
    assert_eq!(mesh.hits("a"), 0);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn one_address_gets_so_many_connections_and_no_more() {
    let mesh = mesh_with(|limits| limits.connections_per_ip = 2).await;
    let (first, mut second) = (connect(&mesh).await, connect(&mesh).await);
    let mut third = connect(&mesh).await;
    assert!(matches!(third.read(&mut [0; 1]).await, Ok(0) | Err(_)), "closed at once");
    assert_eq!(mesh.metric("tidegate_edge_connections_refused_total", &[]), 1.0);
    second.write_all(request("", &chat("m", "hello").to_string()).as_bytes()).await.expect("the edge reads");
    assert_eq!(status(&read_to_end(&mut second).await), 200, "those that are in are served");
    drop((first, second));
    mesh.until_metric("tidegate_edge_connections", &[], |open| open == 0.0).await;
    assert_eq!(mesh.get("/").await.status, 200, "places are given back");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn more_requests_than_the_edge_can_carry_are_told_to_come_back() {
    let mesh = mesh_with(|limits| limits.requests_in_flight = 1).await;
    mesh.sim("a").push_script("first-token=60s".parse().expect("a script"));
    let mut held = connect(&mesh).await;
    held.write_all(request("", &stream("m", "hello").to_string()).as_bytes()).await.expect("the edge reads");
    mesh.sim("a").wait_until(|stats| stats.active_requests == 1).await;
    let answer = mesh.post("/v1/chat/completions", &chat("m", "hello")).await;
    assert_eq!((answer.status, answer.header("retry-after"), answer.header("retry-after-ms")), (503, "1", "1000"), "{}", answer.text());
    assert_eq!(answer.error_type(), "provider_overloaded");
    drop(held);
    mesh.until_metric("tidegate_edge_requests_active", &[], |active| active == 0.0).await;
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn guessing_keys_is_slowed_down_and_right_keys_are_not() {
    let mesh = mesh_with(|limits| limits.auth_failures_per_minute = 3).await;
    let guesser = mesh.caller().with_key("tg_test_0123456789_wrong");
    for _ in 0..3 {
        assert_eq!(guesser.get("/v1/key").await.status, 401);
    }
    let answer = guesser.post("/v1/chat/completions", &chat("m", "hello")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "60"), "{}", answer.text());
    assert_eq!(answer.error_type(), "rate_limit_exceeded");
    // Many callers share an address: a company's, a load balancer's.
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_say_so() {
    let mesh = mesh_with(|_| {}).await;
    for path in ["/v1/nothing", "/v2/models", "/v1", "/v1/chat/completions/x", "/etc/passwd", "/v1/../../etc/passwd", "/v1/%00"] {
        let answer = mesh.get(path).await;
        assert_eq!((answer.status, answer.error_type().as_str()), (404, "not_found"), "{path}");
    }
    for (method, path, allowed) in [
        (Method::GET, "/v1/chat/completions", "POST"),
        (Method::DELETE, "/api/v1/chat/completions", "POST"),
        (Method::POST, "/v1/models", "GET"),
        (Method::PUT, "/", "GET"),
    ] {
        let answer = mesh.send(method.clone(), path, Bytes::new()).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.header("allow").contains(allowed), "{method} {path}: {}", answer.header("allow"));
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn nothing_of_the_callers_head_reaches_the_provider() {
    let mesh = mesh_with(|_| {}).await;
    let caller = mesh
        .caller()
        .with_header("cookie", "session=caller")
        .with_header("x-forwarded-for", "203.0.113.9")
        .with_header("x-real-ip", "203.0.113.9")
        .with_header("forwarded", "for=203.0.113.9")
        .with_header("referer", "https://app.example.org/")
        .with_header("http-referer", "https://app.example.org/")
        .with_header("x-title", "an app")
        .with_header("user-agent", "caller/1.0")
        .with_header("accept-encoding", "gzip, br")
        .with_header("accept-language", "de")
        .with_header("x-api-key", "another-key")
        .with_header("x-sim-script", "status=500")
        .with_header("x-stainless-lang", "python")
        .with_header("openai-organization", "org-caller")
        .with_header("proxy-authorization", "Basic Y2FsbGVy")
        .with_header("tracestate", "vendor=caller")
        .with_header("baggage", "user=caller");
    for request in [chat("m", "hello"), stream("m", "hello")] {
        assert_eq!(caller.post("/v1/chat/completions", &request).await.status, 200);
        let seen = mesh.sim("a").last_request().expect("a request");
        let names: BTreeSet<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
        let expected = ["accept", "authorization", "content-length", "content-type", "host", "traceparent", "user-agent"];
        assert_eq!(names, BTreeSet::from(expected));
        assert_eq!(seen.headers["authorization"], "Bearer upstream-secret");
        assert!(seen.headers["user-agent"].to_str().is_ok_and(|agent| agent.starts_with("tidegate/")));
        assert!(!String::from_utf8_lossy(&seen.body).contains(KEY));
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn nothing_of_the_providers_head_reaches_the_caller() {
    let upstream = RawUpstream::bind().await;
    let mesh = Topology::new().raw("raw", &upstream).start().await;
    let theirs = "content-type: application/json\r\nset-cookie: session=provider\r\nserver: provider/1\r\nvia: 1.1 provider\r\n\
                  x-request-id: req-provider\r\nopenai-organization: org-ours\r\nx-ratelimit-remaining-requests: 7\r\n\
                  strict-transport-security: max-age=1\r\naccess-control-allow-origin: *\r\nx-generation-id: gen-provider\r\n";
    let ours = ["content-length", "content-type", "date", "retry-after", "retry-after-ms", "x-generation-id", "x-should-retry"];
    let text = completion("hi").to_string();
    for (line, body) in [("200 OK", text.as_str()), ("400 Bad Request", r#"{"error":{"message":"no"}}"#), ("503 Busy", "{}")] {
        let request = chat("m", "hello");
        let (answer, ()) = tokio::join!(mesh.post("/v1/chat/completions", &request), async {
            upstream.accept().await.answer(line, theirs, body).await;
        });
        for (name, value) in &answer.headers {
            assert!(ours.contains(&name.as_str()), "{line}: {name}: {value:?}");
        }
        assert_ne!(answer.header("x-generation-id"), "gen-provider");
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn redirects_of_a_provider_are_not_followed() {
    let upstream = RawUpstream::bind().await;
    let mesh = Topology::new().raw("raw", &upstream).start().await;
    let elsewhere = RawUpstream::bind().await;
    let location = format!("location: {}/chat/completions\r\n", elsewhere.url());
    let request = chat("m", "hello");
    let (answer, ()) = tokio::join!(mesh.post("/v1/chat/completions", &request), async {
        upstream.accept().await.answer("307 Temporary Redirect", &location, "").await;
    });
    assert!(answer.status >= 500, "{}", answer.text());
    let followed = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
    assert!(followed.is_err(), "a provider must not send us elsewhere");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn providers_on_private_addresses_are_refused_in_every_spelling() {
    let mesh = mesh_with(|_| {}).await;
    let port = mesh.sim("a").addr().port();
    let before = mesh.sim("a").stats().connections;
    let hosts = [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
    ];
    for (number, host) in hosts.iter().enumerate() {
        let mut config = mesh.config.clone();
        config.providers[0].info.base_url = format!("http://{host}:{port}/v1");
        config.providers[0].allow_private_addresses = false;
        // Every refusal counts against the endpoint; a new name has no history.
        config.endpoints[0].name = format!("a/{number}");
        if mesh.edge.reload(config).is_err() {
            continue;
        }
        let answer = mesh.post("/v1/chat/completions", &chat("m", "hello")).await;
        assert_eq!(answer.status, 503, "{host}: {}", answer.text());
        assert!(!answer.text().contains(host), "addresses of the inside are not for callers: {}", answer.text());
    }
    assert_eq!(mesh.sim("a").stats().connections, before, "no connection was made");
    let mut config = mesh.config.clone();
    config.providers[0].allow_plain_http = false;
    let problems = mesh.edge.reload(config).expect_err("plain http needs a permission of its own");
    assert!(problems[0].to_string().contains("allow_plain_http"), "{problems:?}");
    let mut config = mesh.config.clone();
    config.providers[0].info.base_url = format!("http://user:secret@127.0.0.1:{port}/v1");
    let problems = mesh.edge.reload(config).expect_err("credentials do not belong there");
    assert!(!problems[0].to_string().contains("secret"), "{problems:?}");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn http2_streams_beyond_the_limit_wait_and_reset_floods_end_the_connection() {
    let mesh = mesh_with(|limits| limits.http2_streams = 4).await;
    let io = hyper_util::rt::TokioIo::new(connect(&mesh).await);
    let (sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.expect("HTTP/2");
    let open = |text: &str| {
        let mut sender = sender.clone();
        let request = http::Request::post("http://localhost/v1/chat/completions")
            .header("authorization", format!("Bearer {KEY}"))
            .body(http_body_util::Full::new(Bytes::from(stream("m", text).to_string())))
            .expect("a request");
        async move { sender.send_request(request).await.map(|response| response.status().as_u16()) }
    };
    let flood = async {
        mesh.sim("a").set_fault(Some(tidegate_provider_sim::Fault::Hang));
        // Each is reset as soon as it was sent: the rapid-reset attack.
        for number in 0..5_000 {
            if sender.is_closed() {
                return true;
            }
            let request = open(&number.to_string());
            if tokio::time::timeout(Duration::from_micros(200), request).await.is_ok_and(|answer| answer.is_err()) {
                return true;
            }
        }
        false
    };
    tokio::select! {
        _ = flood => {}
        _ = connection => {}
    }
    // Whether or not the connection survived, everything that was reset is given up and others are served.
    mesh.sim("a").set_fault(None);
    mesh.until_metric("tidegate_edge_requests_active", &[], |active| active == 0.0).await;
    mesh.until_metric("tidegate_edge_endpoint_in_flight", &[], |active| active == 0.0).await;
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "hello")).await.status, 200);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_kept_alive_connection_without_requests_is_closed() {
    let mesh = mesh_with(|limits| limits.idle = Duration::from_millis(60)).await;
    let mut socket = connect(&mesh).await;
    for _ in 0..2 {
        socket.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("the edge reads");
        let mut answer = [0; 4_096];
        let read = socket.read(&mut answer).await.expect("an answer");
        assert_eq!(status(&String::from_utf8_lossy(&answer[..read])), 200);
    }
    assert!(read_to_end(&mut socket).await.is_empty());
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_provider_cannot_fill_the_memory() {
    let upstream = RawUpstream::bind().await;
    let mesh = Topology::new().raw("raw", &upstream).with(|topology| topology.limits.answer_bytes = 100_000).start().await;
    // A whole answer beyond the limit …
    let request = chat("m", "hello");
    let large = completion(&"x".repeat(200_000)).to_string();
    let (answer, ()) = tokio::join!(mesh.post("/v1/chat/completions", &request), async {
        let mut exchange = upstream.accept().await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", large.len());
        exchange.send(head).await;
        exchange.send_until_stuck(large.as_bytes(), Duration::from_millis(100)).await;
        exchange.closed().await;
    });
    assert_eq!((answer.status, answer.error_type().as_str()), (502, "provider_unavailable"), "{}", answer.text());
    // … and an event that does not end.
    let request = stream("m", "hello");
    let (mut running, mut exchange) = tokio::join!(mesh.stream("/v1/chat/completions", &request), async {
        let mut exchange = upstream.accept().await;
        exchange.begin_stream().await;
        exchange.text("one").await;
        exchange
    });
    assert!(running.next().await.is_some());
    let endless = "data: ".to_owned() + &"x".repeat(4 << 20);
    let (rest, _) = tokio::join!(running.collect(), exchange.send_until_stuck(endless.as_bytes(), Duration::from_millis(200)));
    assert!(format!("{rest:?}").contains("provider_unavailable"), "{rest:?}");
    exchange.closed().await;
    mesh.edge.shutdown().await;
}
