//! What a stranger cannot exceed.

use std::time::Duration;

/// Sizes and times that a stranger cannot exceed (HTTP hygiene).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time for a TLS handshake.
    pub tls_handshake: Duration,
    /// Time from the first byte of a request to the end of its headers.
    pub header_read: Duration,
    /// A kept-alive connection without a request is closed after this.
    pub idle: Duration,
    /// Largest request body, bytes.
    pub body_bytes: usize,
    /// Slowest acceptable body, bytes per second, once `body_grace` has passed.
    pub body_rate: u64,
    /// Time before `body_rate` counts.
    pub body_grace: Duration,
    /// Number of request headers.
    pub headers: usize,
    /// Total size of the request head, bytes.
    pub header_bytes: usize,
    /// Nesting depth of request JSON.
    pub json_depth: usize,
    /// Open downstream connections over all listeners.
    pub connections: usize,
    /// Open downstream connections from one address; 0 means unlimited.
    pub connections_per_ip: usize,
    /// Requests in flight over all listeners; more are answered 503 with `Retry-After`.
    pub requests_in_flight: usize,
    /// Share of the control group's memory limit above which new requests are answered 503 with `Retry-After`; 0 means never.
    pub memory_share: f64,
    /// Concurrent HTTP/2 streams per connection.
    pub http2_streams: u32,
    /// A caller that takes no bytes for this long loses its stream.
    pub write_stall: Duration,
    /// Largest upstream answer that is not a stream, bytes.
    pub answer_bytes: usize,
    /// Failed key checks per minute and address before further ones are answered 429; 0 means unlimited.
    pub auth_failures_per_minute: u32,
    /// Silence after which a streaming caller gets a keep-alive comment.
    pub keep_alive_comment: Duration,
    /// Time that running requests get to end after a stop signal.
    pub drain: Duration,
    /// Time between turning unready and closing the listeners, so that load balancers notice.
    pub unready_before_drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tls_handshake: Duration::from_secs(5),
            header_read: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body_bytes: 32 * 1024 * 1024,
            body_rate: 1024,
            body_grace: Duration::from_secs(10),
            headers: 100,
            header_bytes: 64 * 1024,
            json_depth: 64,
            connections: 50_000,
            connections_per_ip: 0,
            requests_in_flight: 50_000,
            // Above it a burst of large bodies could reach the limit, which kills every stream at once.
            memory_share: 0.85,
            http2_streams: 100,
            write_stall: Duration::from_secs(30),
            answer_bytes: 64 * 1024 * 1024,
            auth_failures_per_minute: 20,
            keep_alive_comment: Duration::from_secs(10),
            drain: Duration::from_secs(60),
            unready_before_drain: Duration::ZERO,
        }
    }
}
