use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tidegate_runtime::Tasks;
use tokio::net::TcpStream;

use super::client::{chat, gemini, post_with, regular, start};
use crate::{Answering, Fault, FixedAnswer, SimSpec, Timing};

fn fixed(pace: Duration) -> Answering {
    Answering::Fixed(Arc::new(FixedAnswer {
        json: Bytes::from_static(b"{\"fixed\":true}"),
        events: [&b"data: 1\n\n"[..], b"data: 2\n\n", b"data: [DONE]\n\n"].map(Bytes::from_static).to_vec(),
        pace,
    }))
}

#[tokio::test]
async fn an_echo_shows_what_arrived() {
    let sim = start(SimSpec { answering: Answering::Echo, ..SimSpec::default() });
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "odd_field": [1, 2]});
    let headers = [("authorization", "Bearer key"), ("x-two", "a"), ("x-two", "b")];
    let answered = post_with(&sim, "/v1/chat/completions?v=1", &headers, &body).await.json();
    let text = answered["choices"][0]["message"]["content"].as_str().unwrap();
    let echo: Value = serde_json::from_str(text).unwrap();
    assert_eq!(echo["body"], body);
    assert_eq!((&echo["path"], &echo["query"]), (&json!("/v1/chat/completions"), &json!("v=1")));
    assert_eq!((&echo["headers"]["authorization"], &echo["headers"]["x-two"]), (&json!("Bearer key"), &json!("a, b")));
    let recorded = sim.last_request().unwrap();
    assert_eq!((recorded.json(), recorded.number), (body, 1));
}

#[tokio::test]
async fn only_the_last_requests_are_kept() {
    let sim = start(SimSpec { keep_requests: 2, ..SimSpec::default() });
    for number in 0..4 {
        chat(&sim, &json!({ "number": number })).await;
    }
    let kept: Vec<u64> = sim.requests().iter().map(|request| request.number).collect();
    assert_eq!(kept, [3, 4]);
}

#[tokio::test]
async fn a_fixed_answer_is_the_same_for_all() {
    let sim = start(SimSpec { answering: fixed(Duration::ZERO), keep_requests: 0, ..SimSpec::default() });
    assert_eq!(chat(&sim, &json!({"stream": false})).await.text, "{\"fixed\":true}");
    let streamed = chat(&sim, &json!({"a": "\"stream\"", "stream": true})).await;
    assert_eq!(streamed.text, "data: 1\n\ndata: 2\n\ndata: [DONE]\n\n");
    assert_eq!(gemini(&sim, "streamGenerateContent?alt=sse", &json!({})).await.text, streamed.text);
    assert!(sim.requests().is_empty());
    sim.set_fault(Some(Fault::Cut { after: 1 }));
    let cut = chat(&sim, &json!({"stream": true})).await;
    assert_eq!((cut.text.as_str(), cut.complete), ("data: 1\n\n", false));
}

#[tokio::test]
async fn time_passes_as_told() {
    let sim = regular();
    sim.set_timing(Timing { first_token: Duration::from_millis(30), spread: 0.0, tokens_per_second: 1_000.0, tokens_per_chunk: 2 });
    let body = json!({"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]});
    let began = Instant::now();
    chat(&sim, &body).await;
    assert!(began.elapsed() >= Duration::from_millis(50));
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let began = Instant::now();
    let events = chat(&sim, &streamed).await.events();
    // The last tokens leave with their first, so the end comes one chunk early.
    assert!(began.elapsed() >= Duration::from_millis(48));
    assert_eq!(events.len(), 1 + 10 + 1);
    sim.set_answering(fixed(Duration::from_millis(10)));
    let began = Instant::now();
    chat(&sim, &streamed).await;
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn http2_is_spoken_by_prior_knowledge() {
    let sim = regular();
    let stream = TcpStream::connect(sim.addr()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let tasks = Tasks::new();
    tasks.spawn("client", async move {
        let _ = connection.await;
    });
    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let request = Request::post(format!("{}/v1/chat/completions", sim.url())).body(Full::new(Bytes::from(body))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"data: [DONE]\n\n"));
    sim.stop().await;
    tasks.wait().await;
}

#[tokio::test]
async fn models_are_listed_in_both_shapes() {
    let sim = regular();
    sim.set_models(vec!["m-1".to_owned()]);
    let get = async |path: &str| {
        let request = Request::get(path).header("host", "sim").body(Full::default()).unwrap();
        let (response, _tasks) = super::client::send(&sim, request).await.unwrap();
        super::client::finish(response).await.json()
    };
    assert_eq!(get("/v1/models").await["data"][0]["id"], "m-1");
    assert_eq!(get("/v1beta/models").await["models"][0]["name"], "models/m-1");
}

#[tokio::test]
async fn the_port_is_free_after_the_stop() {
    let sim = regular();
    chat(&sim, &json!({})).await;
    let address = sim.addr();
    sim.stop().await;
    let again = start(SimSpec { address, ..SimSpec::default() });
    assert_eq!(again.addr(), address);
}
