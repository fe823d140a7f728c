//! A provider whose every byte the test writes itself: what a simulation would never send, and nothing before its time.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens; the test accepts each connection.
pub struct RawUpstream {
    listener: TcpListener,
}

/// One request that has arrived, and the connection to answer it on.
pub struct RawExchange {
    /// Request line and headers, as they came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
    stream: TcpStream,
}

impl RawUpstream {
    /// Takes a free port.
    pub async fn bind() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).await.expect("a free loopback port") }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }

    /// The base URL of an OpenAI-like provider there.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr())
    }

    /// Waits for a connection and reads its request, whose body must have a length.
    pub async fn accept(&self) -> RawExchange {
        let (mut stream, _) = self.listener.accept().await.expect("the listener lives");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(stream.read_buf(&mut bytes).await.expect("a request") > 0, "the edge left in the middle of a request head");
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).expect("a head is text");
        let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let length = length.expect("the edge announces the length");
        while bytes.len() < head_end + length {
            assert!(stream.read_buf(&mut bytes).await.expect("a body") > 0, "the edge left in the middle of a body");
        }
        RawExchange { head, body: bytes.split_off(head_end), stream }
    }
}

impl RawExchange {
    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the edge takes it");
    }

    /// As [`RawExchange::send`], until it is done or the edge takes nothing for `patience`. Returns the bytes taken.
    pub async fn send_until_stuck(&mut self, bytes: &[u8], patience: std::time::Duration) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            match tokio::time::timeout(patience, self.stream.write(&bytes[taken..])).await {
                Ok(Ok(written)) => taken += written,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        taken
    }

    /// The head of an event stream that ends with the connection.
    pub async fn begin_stream(&mut self) {
        self.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n").await;
    }

    /// One event.
    pub async fn event(&mut self, data: &Value) {
        self.send(format!("data: {data}\n\n")).await;
    }

    /// A chunk with this text.
    pub async fn text(&mut self, text: &str) {
        self.event(&chunk(text)).await;
    }

    /// A whole answer: status line, these headers, the body and its length.
    pub async fn answer(&mut self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        self.send(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}")).await;
    }

    /// Waits until the edge has closed the connection, and says when that was seen.
    pub async fn closed(&mut self) -> Instant {
        let mut rest = [0; 1024];
        while self.stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        Instant::now()
    }
}

/// A chunk of an OpenAI-like stream with this text.
#[must_use]
pub fn chunk(text: &str) -> Value {
    serde_json::json!({
        "id": "chatcmpl-raw", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "up-m",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }],
    })
}

/// The last chunks of such a stream: finish reason, usage, `[DONE]`.
#[must_use]
pub fn stream_end() -> String {
    let finish = serde_json::json!({
        "id": "chatcmpl-raw", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "up-m",
        "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }],
    });
    let usage = serde_json::json!({
        "id": "chatcmpl-raw", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "up-m", "choices": [],
        "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 },
    });
    format!("data: {finish}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
}

/// A whole answer of such a provider.
#[must_use]
pub fn completion(text: &str) -> Value {
    serde_json::json!({
        "id": "chatcmpl-raw", "object": "chat.completion", "created": 1_700_000_000, "model": "up-m",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 },
    })
}
