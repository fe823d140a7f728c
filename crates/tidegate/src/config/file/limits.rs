//! HTTP hygiene: sizes and times that a stranger cannot exceed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_edge::config as domain;

use crate::config::scalar::{Size, Span};

/// Declares the section once: documentation, default (the edge's own) and both conversions.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $read:expr, $write:expr;)*) => {
        /// Sizes and times that a stranger cannot exceed.
        #[derive(Debug, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Limits {
            $($(#[$doc])* pub(crate) $name: $kind,)*
        }

        impl From<domain::Limits> for Limits {
            fn from(limits: domain::Limits) -> Limits {
                Limits { $($name: $read(limits.$name),)* }
            }
        }

        impl From<&Limits> for domain::Limits {
            fn from(limits: &Limits) -> domain::Limits {
                domain::Limits { $($name: $write(limits.$name),)* }
            }
        }
    };
}

limits! {
    /// Time for a TLS handshake.
    tls_handshake: Span = Span, time;
    /// Time from the first byte of a request to the end of its headers.
    header_read: Span = Span, time;
    /// A kept-alive connection without a request is closed after this.
    idle: Span = Span, time;
    /// Largest request body.
    body_bytes: Size = size, bytes;
    /// Slowest acceptable body, bytes per second, once `body_grace` has passed.
    body_rate: u64 = same, same;
    /// Time before `body_rate` counts.
    body_grace: Span = Span, time;
    /// Number of request headers.
    headers: usize = same, same;
    /// Total size of the request head.
    header_bytes: Size = size, bytes;
    /// Nesting depth of request JSON.
    json_depth: usize = same, same;
    /// Open connections over all listeners.
    connections: usize = same, same;
    /// Open connections from one address; 0 means unlimited.
    connections_per_ip: usize = same, same;
    /// Requests in flight over all listeners; more are answered 503 with `Retry-After`.
    requests_in_flight: usize = same, same;
    /// Share of the container's memory limit above which new requests are answered 503 with `Retry-After`; 0 means never. Without a
    /// limit of the control group nothing is refused.
    memory_share: f64 = same, same;
    /// Concurrent HTTP/2 streams per connection.
    http2_streams: u32 = same, same;
    /// A caller that takes no bytes for this long loses its stream.
    write_stall: Span = Span, time;
    /// Largest upstream answer that is not a stream.
    answer_bytes: Size = size, bytes;
    /// Failed key checks per minute and address before further ones are answered 429; 0 means unlimited.
    auth_failures_per_minute: u32 = same, same;
    /// Silence after which a streaming caller gets a keep-alive comment.
    keep_alive_comment: Span = Span, time;
    /// Time that running requests get to end after a stop signal.
    drain: Span = Span, time;
    /// Time between turning unready and closing the listeners, so that load balancers notice.
    unready_before_drain: Span = Span, time;
}

impl Default for Limits {
    fn default() -> Limits {
        domain::Limits::default().into()
    }
}

fn same<T>(value: T) -> T {
    value
}

fn time(span: Span) -> std::time::Duration {
    span.0
}

fn size(bytes: usize) -> Size {
    Size(bytes as u64)
}

fn bytes(size: Size) -> usize {
    // Beyond the address space means "unlimited" on this machine.
    usize::try_from(size.0).unwrap_or(usize::MAX)
}
