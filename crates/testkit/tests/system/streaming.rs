//! Streams as callers see them: what comes, when it comes, and what happens when a provider fails at each point.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_provider_sim::Script;
use tidegate_testkit::raw::{RawUpstream, chunk, stream_end};
use tidegate_testkit::{Event, Mesh, Stream, Topology, chat, stream};
use tidegate_wire::Dialect;

/// A mesh whose only provider is written by the test.
async fn over_raw(upstream: &RawUpstream, change: impl FnOnce(&mut Topology)) -> Mesh {
    Topology::new().raw("raw", upstream).with(change).start().await
}

fn ordered(request: &mut Value, providers: &[&str]) {
    request["provider"] = json!({ "order": providers });
}

fn script(text: &str) -> Script {
    text.parse().expect("a script")
}

fn comments(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Comment(_))).count()
}

fn providers(events: &[Event]) -> Vec<&str> {
    let mut seen: Vec<&str> = events.iter().filter_map(Event::data).filter_map(|chunk| chunk["provider"].as_str()).collect();
    seen.dedup();
    seen
}

/// The error event and the end after it: what a stream that failed looks like.
fn failed(events: &[Event]) -> &Value {
    assert_eq!(events.last(), Some(&Event::Done), "{events:?}");
    let error = events[events.len() - 2].data().expect("the error event");
    assert!(error["error"]["message"].is_string(), "{error}");
    assert_eq!(error["choices"][0]["finish_reason"], "error");
    assert_eq!(error["choices"][0]["delta"]["content"], "");
    error
}

async fn first_data(stream: &mut Stream) -> Value {
    loop {
        match stream.next().await.expect("the stream goes on") {
            Event::Data(value) => return value,
            Event::Comment(_) => {}
            Event::Done => panic!("the stream ended"),
        }
    }
}

#[tokio::test]
async fn a_silent_provider_is_bridged_by_comments_that_are_no_events() {
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |topology| topology.limits.keep_alive_comment = Duration::from_millis(20)).await;
    let request = stream("m", "hello");
    let (mut stream, mut exchange) = tokio::join!(mesh.stream("/v1/chat/completions", &request), upstream.accept());
    assert_eq!(stream.status, 200);
    // Before the first token …
    for _ in 0..2 {
        let bytes = stream.bytes().await.expect("a comment");
        let text = std::str::from_utf8(&bytes).expect("text");
        assert!(text.ends_with("\n\n") && text.trim_end().lines().all(|line| line.starts_with(':')), "a strict parser dispatches: {text}");
    }
    exchange.begin_stream().await;
    exchange.text("one").await;
    assert_eq!(first_data(&mut stream).await["choices"][0]["delta"]["content"], "one");
    // … and between two tokens.
    assert!(matches!(stream.next().await, Some(Event::Comment(_))));
    assert!(matches!(stream.next().await, Some(Event::Comment(_))));
    exchange.text("two").await;
    exchange.send(stream_end()).await;
    let rest = stream.collect().await;
    assert_eq!(Event::text(&rest), "two");
    assert_eq!(rest.last(), Some(&Event::Done));
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_lively_stream_has_no_comments() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let events = mesh.stream("/v1/chat/completions", &stream("m", "hello")).await.collect().await;
    assert_eq!(comments(&events), 0);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn failures_before_the_first_token_are_not_noticed() {
    let mesh = Topology::new().provider("a", |_| {}).provider("b", |_| {}).start().await;
    for fault in ["status=500", "status=429", "reset", "cut=0", "cut=1", "error-event=0", "malformed"] {
        mesh.sim("a").set_fault(script(fault).fault);
        let mut request = stream("m", fault);
        ordered(&mut request, &["a", "b"]);
        let stream = mesh.stream("/v1/chat/completions", &request).await;
        assert_eq!(stream.status, 200, "{fault}");
        let events = stream.collect().await;
        assert_eq!(events.last(), Some(&Event::Done), "{fault}");
        assert_eq!(providers(&events), ["B"], "{fault}: {events:?}");
        assert!(!Event::text(&events).is_empty(), "{fault}");
        assert!(events.iter().filter_map(Event::data).all(|event| event["error"].is_null()), "{fault}");
        // A rate-limited or broken account is left alone for a while; the next fault is to meet a fresh edge.
        let config = mesh.config.clone();
        mesh.edge.reload(renamed(config, fault)).expect("the same configuration under new names");
    }
    mesh.edge.shutdown().await;
}

/// The same endpoints and credentials under names without a history.
fn renamed(mut config: tidegate_edge::config::MeshConfig, suffix: &str) -> tidegate_edge::config::MeshConfig {
    for endpoint in &mut config.endpoints {
        endpoint.name = format!("{}/{suffix}", endpoint.name);
    }
    for provider in &mut config.providers {
        provider.credentials[0].name = suffix.to_owned();
    }
    config
}

#[tokio::test]
async fn failing_over_works_after_the_head_was_sent() {
    let upstream = RawUpstream::bind().await;
    let mesh = Topology::new()
        .raw("raw", &upstream)
        .provider("b", |_| {})
        .with(|topology| topology.limits.keep_alive_comment = Duration::from_millis(10))
        .start()
        .await;
    let mut request = stream("m", "hello");
    ordered(&mut request, &["raw", "b"]);
    let (mut stream, mut exchange) = tokio::join!(mesh.stream("/v1/chat/completions", &request), upstream.accept());
    assert_eq!(stream.status, 200);
    assert!(matches!(stream.next().await, Some(Event::Comment(_))));
    exchange.answer("503 Service Unavailable", "content-type: application/json\r\n", r#"{"error":{"message":"no"}}"#).await;
    let events = stream.collect().await;
    assert_eq!(providers(&events), ["B"]);
    assert!(!Event::text(&events).is_empty());
    assert_eq!(events.last(), Some(&Event::Done));
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn failing_everywhere_after_the_head_was_sent_is_an_error_event() {
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |topology| topology.limits.keep_alive_comment = Duration::from_millis(10)).await;
    let request = stream("m", "hello");
    let (mut stream, mut exchange) = tokio::join!(mesh.stream("/v1/chat/completions", &request), upstream.accept());
    assert_eq!(stream.status, 200);
    let id = stream.headers["x-generation-id"].to_str().expect("an id").to_owned();
    assert!(matches!(stream.next().await, Some(Event::Comment(_))));
    exchange.answer("503 Service Unavailable", "content-type: application/json\r\n", r#"{"error":{"message":"no"}}"#).await;
    let events = stream.collect().await;
    let error = failed(&events);
    assert_eq!((&error["error"]["code"], &error["id"]), (&json!(503), &json!(id)));
    assert_eq!(error["error"]["metadata"]["error_type"], "provider_overloaded");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_cut_after_the_first_token_is_an_error_event_and_no_failover() {
    for dialect in [Dialect::OpenaiChat, Dialect::AnthropicMessages, Dialect::Gemini] {
        let mesh = Topology::new().provider("a", |draft| draft.dialect = dialect).provider("b", |_| {}).start().await;
        // Enough events for a first token in every dialect, and far from the end.
        mesh.sim("a").push_script(Script { text: Some("word ".repeat(40)), ..script("cut=8") });
        let mut request = stream("m", "hello");
        ordered(&mut request, &["a", "b"]);
        let stream = mesh.stream("/v1/chat/completions", &request).await;
        assert_eq!(stream.status, 200);
        let id = stream.headers["x-generation-id"].to_str().expect("an id").to_owned();
        let events = stream.collect().await;
        assert!(!Event::text(&events).is_empty(), "what came before is delivered");
        let error = failed(&events);
        assert_eq!(error["error"]["code"], 502, "{error}");
        assert_eq!(error["error"]["metadata"]["error_type"], "provider_unavailable");
        assert_eq!(providers(&events), ["A"], "{dialect:?}");
        assert_eq!(mesh.hits("b"), 0, "no failover after the first token");
        let record = mesh.generation(&id).await;
        assert_eq!(record["cancelled"], false, "{record}");
        mesh.edge.shutdown().await;
    }
}

#[tokio::test]
async fn an_error_event_of_the_provider_is_told_without_its_inside() {
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |_| {}).await;
    let secret = "db-7.internal password hunter2";
    for error in [
        json!({ "error": { "message": secret, "code": 500 } }),
        json!({ "error": { "message": secret, "type": "server_error" } }),
        json!({ "error": { "message": secret, "type": "server_error", "code": "internal_error" } }),
    ] {
        let request = stream("m", "hello");
        let (mut stream, mut exchange) = tokio::join!(mesh.stream("/v1/chat/completions", &request), async {
            let mut exchange = upstream.accept().await;
            exchange.begin_stream().await;
            exchange.text("one").await;
            exchange
        });
        assert_eq!(stream.status, 200);
        assert_eq!(first_data(&mut stream).await["choices"][0]["delta"]["content"], "one");
        exchange.event(&error).await;
        let events = stream.collect().await;
        let shown = failed(&events);
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn the_last_chunk_has_usage_always_and_metadata_when_asked() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let caller = mesh.caller();
    let asking = mesh.caller().with_header("x-openrouter-metadata", "enabled");
    for (caller, metadata) in [(&caller, false), (&asking, true)] {
        for include_usage in [None, Some(false), Some(true)] {
            let mut request = stream("m", "hello");
            if let Some(include_usage) = include_usage {
                request["stream_options"] = json!({ "include_usage": include_usage });
            }
            let events = caller.stream("/v1/chat/completions", &request).await.collect().await;
            assert_eq!(events.last(), Some(&Event::Done));
            let last = events[events.len() - 2].data().expect("the last chunk");
            assert_eq!(last["choices"], json!([]), "{last}");
            assert!(last["usage"]["total_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{last}");
            assert!(last["usage"]["cost"].is_number(), "{last}");
            assert_eq!(last["openrouter_metadata"].is_object(), metadata, "{last}");
            let with_usage = events.iter().filter_map(Event::data).filter(|chunk| chunk["usage"].is_object()).count();
            assert_eq!(with_usage, 1, "usage comes once: {events:?}");
        }
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn the_id_comes_with_the_head_whatever_happens() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let id = |headers: &http::HeaderMap| headers.get("x-generation-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let stream = mesh.stream("/v1/chat/completions", &stream("m", "hello")).await;
    let shown = id(&stream.headers);
    let events = stream.collect().await;
    assert!(shown.starts_with("gen-"));
    assert!(events.iter().filter_map(Event::data).all(|chunk| chunk["id"] == shown.as_str()));
    // Refused by the provider, by us for the body, and for the key.
    mesh.sim("a").push_script(Script::status(400));
    let refused = mesh.post("/v1/chat/completions", &chat("m", "hello")).await;
    assert_eq!((refused.status, id(&refused.headers).starts_with("gen-")), (400, true));
    let unknown = mesh.post("/v1/chat/completions", &chat("no-such-model", "hello")).await;
    assert_eq!((unknown.status, id(&unknown.headers).starts_with("gen-")), (400, true));
    let stranger = mesh.caller().without_key().post("/v1/chat/completions", &chat("m", "hello")).await;
    assert_eq!((stranger.status, id(&stranger.headers).starts_with("gen-")), (401, true));
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn every_chunk_arrives_before_the_next_one_is_made() {
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |_| {}).await;
    for caller in [mesh.caller(), mesh.caller().over_http2()] {
        let request = stream("m", "hello");
        let (mut stream, mut exchange) = tokio::join!(caller.stream("/v1/chat/completions", &request), async {
            let mut exchange = upstream.accept().await;
            exchange.begin_stream().await;
            exchange.text("0").await;
            exchange
        });
        for number in 1..20 {
            let text = first_data(&mut stream).await["choices"][0]["delta"]["content"].clone();
            assert_eq!(text, (number - 1).to_string());
            // Only now, so that nothing downstream can be waiting for it.
            exchange.text(&number.to_string()).await;
        }
        exchange.send(stream_end()).await;
        assert_eq!(stream.collect().await.last(), Some(&Event::Done));
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn events_may_come_together_and_in_parts() {
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |_| {}).await;
    let request = stream("m", "hello");
    let (mut stream, mut exchange) = tokio::join!(mesh.stream("/v1/chat/completions", &request), async {
        let mut exchange = upstream.accept().await;
        exchange.begin_stream().await;
        exchange.send(format!("data: {}\n\ndata: {}\n\ndata: {}\n\n", chunk("a"), chunk("b"), chunk("c"))).await;
        exchange
    });
    let together = stream.bytes().await.expect("the first bytes");
    assert_eq!(together.windows(6).filter(|six| six == b"data: ").count(), 3, "what came together goes on together");
    // Every split, CRLF line ends, comments and unknown fields of the provider in between.
    let event = format!(": ping\r\n\r\nevent: message\r\nid: 7\r\ndata: {}\r\n\r\n", chunk("é☃"));
    for byte in event.as_bytes() {
        exchange.send([*byte]).await;
    }
    assert_eq!(first_data(&mut stream).await["choices"][0]["delta"]["content"], "é☃");
    exchange.send(stream_end()).await;
    assert_eq!(stream.collect().await.last(), Some(&Event::Done));
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_provider_that_falls_silent_is_given_up() {
    let mesh =
        Topology::new().provider("a", |_| {}).with(|topology| topology.settings.idle_timeout = Duration::from_millis(80)).start().await;
    mesh.sim("a").push_script(script("stall=3"));
    let begun = Instant::now();
    let events = mesh.stream("/v1/chat/completions", &stream("m", "hello")).await.collect().await;
    let error = failed(&events);
    assert_eq!((&error["error"]["code"], &error["error"]["metadata"]["error_type"]), (&json!(504), &json!("timeout")));
    assert!(begun.elapsed() >= Duration::from_millis(80));
    mesh.sim("a").wait_until(|stats| stats.disconnects.len() == 1).await;
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn every_dialect_streams_the_same_text_over_both_http_versions() {
    let mesh = Topology::new()
        .provider("openai", |_| {})
        .provider("anthropic", |draft| draft.dialect = Dialect::AnthropicMessages)
        .provider("gemini", |draft| draft.dialect = Dialect::Gemini)
        .start()
        .await;
    let text = "The tide turns; 潮が変わる – and \"quotes\" \\ stay.";
    for slug in ["openai", "anthropic", "gemini"] {
        for caller in [mesh.caller(), mesh.caller().over_http2()] {
            mesh.sim(slug).push_script(Script::text(text));
            let mut request = stream("m", "hello");
            request["provider"] = json!({ "only": [slug] });
            let stream = caller.stream("/api/v1/chat/completions", &request).await;
            assert_eq!((stream.status, &stream.headers["content-type"]), (200, &http::HeaderValue::from_static("text/event-stream")));
            let events = stream.collect().await;
            assert_eq!(Event::text(&events), text, "{slug}");
            let finish: Vec<&Value> = events
                .iter()
                .filter_map(Event::data)
                .map(|chunk| &chunk["choices"][0]["finish_reason"])
                .filter(|reason| !reason.is_null())
                .collect();
            assert_eq!(finish, [&json!("stop")], "{slug}");
            assert!(events.iter().filter_map(Event::data).all(|chunk| chunk["object"] == "chat.completion.chunk"), "{slug}");
        }
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_provider_that_answers_json_to_a_stream_request_is_failed_over() {
    let upstream = RawUpstream::bind().await;
    let mesh = Topology::new().raw("raw", &upstream).provider("b", |_| {}).start().await;
    let mut request = stream("m", "hello");
    ordered(&mut request, &["raw", "b"]);
    let (stream, ()) = tokio::join!(mesh.stream("/v1/chat/completions", &request), async {
        let mut exchange = upstream.accept().await;
        exchange.answer("200 OK", "content-type: application/json\r\n", r#"{"error":{"message":"overloaded","code":503}}"#).await;
    });
    assert_eq!(stream.status, 200);
    assert_eq!(providers(&stream.collect().await), ["B"]);
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn one_stream_of_a_connection_ending_does_not_end_the_others() {
    // The guard against dripped request heads must not take the frames of a running HTTP/2 connection for one.
    let upstream = RawUpstream::bind().await;
    let mesh = over_raw(&upstream, |topology| topology.limits.header_read = Duration::from_millis(60)).await;
    let tcp = tokio::net::TcpStream::connect(mesh.edge.bound().listeners[0].1).await.expect("the edge listens");
    let io = hyper_util::rt::TokioIo::new(tcp);
    let (sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.expect("HTTP/2");
    let open = |text: &'static str| {
        let mut sender = sender.clone();
        async move {
            let request = http::Request::post("http://localhost/v1/chat/completions")
                .header("authorization", format!("Bearer {}", tidegate_testkit::KEY))
                .body(http_body_util::Full::new(bytes::Bytes::from(stream("m", text).to_string())))
                .expect("a request");
            sender.send_request(request).await.expect("an answer").into_body()
        }
    };
    let test = async {
        use http_body_util::BodyExt;
        let (mut long, mut exchange) = tokio::join!(open("long"), async {
            let mut exchange = upstream.accept().await;
            exchange.begin_stream().await;
            exchange.text("0").await;
            exchange
        });
        let (short, ()) = tokio::join!(open("short"), async {
            let mut exchange = upstream.accept().await;
            exchange.begin_stream().await;
            exchange.text("short").await;
            exchange.send(stream_end()).await;
        });
        short.collect().await.expect("the short one ends well");
        // Window updates of the caller keep coming while the long one runs for several times the limit for heads.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            exchange.text(&"x".repeat(20_000)).await;
            long.frame().await.expect("the stream goes on").expect("the connection lives");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        exchange.send(stream_end()).await;
        let rest = long.collect().await.expect("it ends well").to_bytes();
        assert!(rest.ends_with(b"data: [DONE]\n\n"));
    };
    tokio::select! {
        () = test => {}
        _ = connection => panic!("the edge closed the connection under a running stream"),
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_stream_ends_when_the_time_granted_is_up_and_nobody_is_blamed() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    mesh.sim("a").push_script(script("stall=2"));
    let caller = mesh.caller().with_header("x-request-timeout", "0.5");
    let events = caller.stream("/v1/chat/completions", &stream("m", "take your time")).await.collect().await;
    let error = failed(&events);
    assert_eq!(error["error"]["metadata"]["error_type"], "timeout", "{error}");
    mesh.until_metric("tidegate_edge_attempts_total", &[("endpoint", "a/m"), ("outcome", "cancelled")], |count| count == 1.0).await;
    mesh.edge.shutdown().await;
}
