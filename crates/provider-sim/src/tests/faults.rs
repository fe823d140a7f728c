use std::io::ErrorKind;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{chat, gemini, messages, post_with, regular, request, send};
use crate::{Fault, FaultRule, Schedule, Script, SimHandle};

const PATH: &str = "/v1/chat/completions";

fn stream() -> Value {
    json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]})
}

fn whole() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]})
}

/// A raw request, for what happens to the connection itself.
async fn raw(sim: &SimHandle) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(sim.addr()).await?;
    let body = whole().to_string();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn statuses_carry_the_shape_and_the_headers() {
    let sim = regular();
    sim.set_fault(Some(Fault::Status { status: 429, retry_after: Some(Duration::from_millis(1_500)) }));
    let limited = chat(&sim, &stream()).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, "2"));
    assert_eq!(limited.json()["error"]["code"], "rate_limit_exceeded");
    sim.push_script(Script::status(529));
    let overloaded = messages(&sim, &whole()).await;
    assert_eq!((overloaded.status, &overloaded.json()["error"]["type"]), (529, &json!("overloaded_error")));
    sim.push_script(Script::status(503));
    let unavailable = gemini(&sim, "generateContent", &json!({})).await;
    assert_eq!(unavailable.json()["error"]["status"], "UNAVAILABLE");
    sim.set_fault(None);
    assert_eq!(chat(&sim, &whole()).await.status, 200);
    let stats = sim.stats();
    assert_eq!((stats.requests, stats.by_status[&429], stats.by_status[&200]), (4, 1, 1));
}

#[tokio::test]
async fn a_ratio_strikes_some_requests() {
    let sim = regular();
    let rule = FaultRule::always(Fault::Status { status: 500, retry_after: None });
    sim.set_faults(vec![rule.with_ratio(0.5)]);
    for _ in 0..60 {
        chat(&sim, &whole()).await;
    }
    let failed = sim.stats().by_status[&500];
    assert!((15..45).contains(&failed), "{failed}");
}

#[tokio::test]
async fn a_cut_sends_what_came_before() {
    let sim = regular();
    sim.push_script(Script::fault(Fault::Cut { after: 3 }));
    let cut = chat(&sim, &stream()).await;
    assert!(!cut.complete);
    assert_eq!(cut.events().len(), 3);
    sim.push_script(Script::fault(Fault::Cut { after: 0 }));
    let half = chat(&sim, &whole()).await;
    assert!(!half.complete && !half.text.is_empty());
    assert_eq!(sim.stats().disconnects, [], "our own cuts are not the caller's");
}

#[tokio::test]
async fn streams_break_in_the_ways_of_their_dialects() {
    let sim = regular();
    sim.set_fault(Some(Fault::ErrorEvent { after: 2 }));
    let events = chat(&sim, &stream()).await.events();
    assert_eq!((events.len(), &events[2]["error"]["type"]), (3, &json!("server_error")));
    let mut body = stream();
    body["max_tokens"] = json!(100);
    let events = messages(&sim, &body).await;
    assert!(events.text.contains("event: error\ndata: "));
    assert_eq!(events.events()[2]["error"]["type"], "overloaded_error");
    assert_eq!(chat(&sim, &whole()).await.status, 500);

    sim.set_fault(Some(Fault::Malformed));
    let broken = chat(&sim, &stream()).await;
    let first = broken.text.lines().next().unwrap().strip_prefix("data: ").unwrap();
    assert!(serde_json::from_str::<Value>(first).is_err());
    let broken = chat(&sim, &whole()).await;
    assert!(broken.complete && serde_json::from_str::<Value>(&broken.text).is_err());

    sim.set_fault(Some(Fault::Empty));
    let empty = chat(&sim, &whole()).await.json();
    assert_eq!((&empty["choices"][0]["message"]["content"], &empty["usage"]["completion_tokens"]), (&json!(""), &json!(0)));
}

#[tokio::test]
async fn a_caller_who_leaves_a_silent_stream_is_noticed() {
    let sim = regular();
    sim.push_script(Script::fault(Fault::Stall { after: 2 }));
    let (response, client) = send(&sim, request(PATH, &[], &stream())).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    let stats = sim.wait_until(|stats| stats.events_sent == 2).await;
    assert_eq!((stats.active_streams, stats.disconnects.len()), (1, 0));
    let left = Instant::now();
    drop(body);
    client.close(Duration::from_secs(10)).await.unwrap();
    let stats = sim.wait_until(|stats| !stats.disconnects.is_empty()).await;
    let gone = stats.disconnects[0];
    assert!(gone.streaming && gone.at >= left && gone.at - left < Duration::from_secs(5));
    assert_eq!((gone.request, gone.events_sent, stats.active_streams, stats.active_requests), (1, 2, 0, 0));
}

#[tokio::test]
async fn a_caller_who_leaves_an_unanswered_request_is_noticed() {
    let sim = regular();
    sim.set_fault(Some(Fault::Hang));
    let stream = TcpStream::connect(sim.addr()).await.unwrap();
    let mut stream = stream;
    stream.write_all(format!("POST {PATH} HTTP/1.1\r\nhost: sim\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes()).await.unwrap();
    sim.wait_until(|stats| stats.active_requests == 1).await;
    drop(stream);
    let stats = sim.wait_until(|stats| stats.active_requests == 0).await;
    assert!(!stats.disconnects[0].streaming);
    assert!(stats.by_status.is_empty());
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let sim = regular();
    sim.set_fault(Some(Fault::Reset));
    assert_eq!(raw(&sim).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    sim.set_fault(None);
    assert!(raw(&sim).await.unwrap().starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn nobody_listens_while_connections_are_refused() {
    let sim = regular();
    let refused = async || TcpStream::connect(sim.addr()).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    sim.set_fault(Some(Fault::Refuse));
    while !refused().await {
        tokio::task::yield_now().await;
    }
    sim.set_fault(None);
    while refused().await {
        tokio::task::yield_now().await;
    }
    assert!(raw(&sim).await.unwrap().starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_schedule_opens_and_shuts_the_door_by_itself() {
    let sim = regular();
    let tide = Schedule::Every { period: Duration::from_millis(60), down: Duration::from_millis(30), phase: Duration::ZERO };
    sim.set_faults(vec![FaultRule::always(Fault::Refuse).with_schedule(tide)]);
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let open = TcpStream::connect(sim.addr()).await.is_ok();
        if seen.last() != Some(&open) {
            seen.push(open);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn scripts_are_used_up_in_order_and_the_header_comes_first() {
    let sim = regular();
    sim.push_script(Script::status(500));
    sim.push_script(Script::text("exactly this"));
    assert_eq!(post_with(&sim, PATH, &[("x-sim-script", "status=402")], &whole()).await.status, 402);
    assert_eq!(chat(&sim, &whole()).await.status, 500);
    let given = chat(&sim, &whole()).await.json();
    assert_eq!(given["choices"][0]["message"]["content"], "exactly this");
    assert_ne!(chat(&sim, &whole()).await.json()["choices"][0]["message"]["content"], "exactly this");
    let unknown = post_with(&sim, PATH, &[("x-sim-script", "explode")], &whole()).await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.text.contains("`explode`"));
}
