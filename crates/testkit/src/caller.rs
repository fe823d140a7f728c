//! A caller that sees what really came over the wire.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

/// Speaks HTTP to one address, one connection per request unless told otherwise.
#[derive(Clone)]
pub struct Caller {
    address: SocketAddr,
    key: Option<String>,
    headers: HeaderMap,
    tls: Option<Arc<rustls::ClientConfig>>,
    http2: bool,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

/// An answer that streams.
pub struct Stream {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    body: Incoming,
    buffered: BytesMut,
}

/// A piece of an event stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// `data:` with JSON.
    Data(Value),
    /// `data: [DONE]`.
    Done,
    /// A comment line.
    Comment(String),
}

impl Caller {
    /// A caller without a key, over plain HTTP/1.1.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, key: None, headers: HeaderMap::new(), tls: None, http2: false }
    }

    /// Sends this key.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// Sends no key.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    /// Sends this header with every request.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().expect("a header value of a test"));
        self
    }

    /// Speaks TLS with this configuration to the name `localhost`.
    #[must_use]
    pub fn with_tls(mut self, address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Self {
        self.address = address;
        self.tls = Some(config);
        self
    }

    /// Speaks HTTP/2 (with prior knowledge over plain TCP).
    #[must_use]
    pub fn over_http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Posts JSON and reads the whole answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body.to_string().into()).await
    }

    /// Gets a path and reads the whole answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Sends any request and reads the whole answer.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> Answer {
        let stream = self.open(method, path, body).await;
        let Stream { status, headers, body, .. } = stream;
        let body = body.collect().await.expect("the answer ends well").to_bytes();
        Answer { status, headers, body }
    }

    /// Posts JSON and gives the answer as it streams.
    pub async fn stream(&self, path: &str, body: &Value) -> Stream {
        self.open(Method::POST, path, body.to_string().into()).await
    }

    async fn open(&self, method: Method, path: &str, body: Bytes) -> Stream {
        let tcp = TcpStream::connect(self.address).await.expect("the edge listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        let response = match &self.tls {
            None => self.exchange(tcp, method, path, body).await,
            Some(config) => {
                let name = "localhost".try_into().expect("a host name");
                let tls = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.expect("a TLS handshake");
                self.exchange(tls, method, path, body).await
            }
        };
        let (parts, body) = response.into_parts();
        Stream { status: parts.status.as_u16(), headers: parts.headers, body, buffered: BytesMut::new() }
    }

    async fn exchange<S>(&self, socket: S, method: Method, path: &str, body: Bytes) -> http::Response<Incoming>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = if self.http2 { format!("{scheme}://localhost{path}") } else { path.to_owned() };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().expect("a path of a test");
        request.headers_mut().extend(self.headers.clone());
        if !self.http2 {
            request.headers_mut().entry("host").or_insert_with(|| http::HeaderValue::from_static("localhost"));
        }
        if let Some(key) = &self.key {
            let value = format!("Bearer {key}").parse().expect("a key of a test");
            request.headers_mut().entry("authorization").or_insert(value);
        }
        if self.http2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.expect("HTTP/2");
            // Ends with the connection, which ends with the body.
            spawn(async move { drop(connection.await) });
            return sender.send_request(request).await.expect("an answer");
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("HTTP/1.1");
        // As above.
        spawn(async move { drop(connection.await) });
        sender.send_request(request).await.expect("an answer")
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's connection has no task set; it ends with the test's runtime at the latest")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

impl Answer {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("the body is not JSON: {error}: {}", self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `error.metadata.error_type`, empty when absent.
    #[must_use]
    pub fn error_type(&self) -> String {
        self.json()["error"]["metadata"]["error_type"].as_str().unwrap_or_default().to_owned()
    }
}

impl Stream {
    /// The next bytes as they came; `None` at the end, also when the connection broke.
    pub async fn bytes(&mut self) -> Option<Bytes> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(data);
                    }
                }
                Err(_) => return None,
            }
        }
    }

    /// The next event or comment.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffered.windows(2).position(|pair| pair == b"\n\n") {
                let block = self.buffered.split_to(end + 2);
                return Some(Event::parse(std::str::from_utf8(&block).expect("a stream is UTF-8").trim_end()));
            }
            let bytes = self.bytes().await?;
            self.buffered.extend_from_slice(&bytes);
        }
    }

    /// Every event to the end.
    pub async fn collect(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

impl Event {
    fn parse(block: &str) -> Self {
        if let Some(comment) = block.strip_prefix(':') {
            return Self::Comment(comment.trim().to_owned());
        }
        let data: String = block.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
        if data == "[DONE]" {
            return Self::Done;
        }
        Self::Data(serde_json::from_str(&data).unwrap_or_else(|error| panic!("an event is not JSON: {error}: {block}")))
    }

    /// The JSON of a data event.
    #[must_use]
    pub fn data(&self) -> Option<&Value> {
        match self {
            Self::Data(value) => Some(value),
            Self::Done | Self::Comment(_) => None,
        }
    }

    /// The text that a list of events streams in its first choice.
    #[must_use]
    pub fn text(events: &[Self]) -> String {
        events.iter().filter_map(Self::data).filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
    }
}
