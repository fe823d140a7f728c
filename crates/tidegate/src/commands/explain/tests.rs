use std::io::{Read, Write};
use std::net::TcpListener;

use super::*;

/// Answers one request with fixed bytes.
fn operations_port(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let length = stream.read(&mut head).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    (url, thread)
}

#[tokio::test]
async fn asks_the_operations_port_by_id() {
    let (url, port) = operations_port("HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"text\":\"ok\"}");
    assert_eq!(ask(&url, "gen-1").await.unwrap(), "{\"text\":\"ok\"}");
    assert!(port.join().unwrap().starts_with("GET /explain/gen-1 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn says_what_to_do_when_there_is_no_answer() {
    let (url, port) = operations_port("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    let error = ask(&url, "gen-1").await.unwrap_err().to_string();
    assert!(error.contains("does not know generation gen-1"), "{error}");
    port.join().unwrap();
    for (url, id, part) in [
        ("https://edge", "gen-1", "not the address of an operations port"),
        ("http://edge/path", "gen-1", "not the address of an operations port"),
        ("http://127.0.0.1:9", "gen-1/../metrics", "not the id of a generation"),
    ] {
        let error = ask(url, id).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_summary_shows_what_is_there() {
    let generation = serde_json::json!({
        "id": "gen-1", "model": "a/b", "provider_name": "A", "finish_reason": "stop", "latency": 120, "generation_time": null,
        "tokens_prompt": 10, "tokens_completion": 2, "total_cost": 0.5,
    });
    let text = summary(&generation);
    assert!(text.contains("served by A") && text.contains("first token 120 ms") && text.contains("generation -"), "{text}");
}
