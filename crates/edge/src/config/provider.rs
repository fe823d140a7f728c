//! Vendors, and our accounts there.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tidegate_wire::ProviderInfo;

/// One vendor and how to reach it.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Address, dialect, authentication scheme and quirks; the shipped entry with the file's overrides applied.
    pub info: ProviderInfo,
    /// Accounts at the provider; at least one. A provider that needs no key has one credential without a secret.
    pub credentials: Vec<CredentialConfig>,
    /// Additional certificate authorities for this provider (PEM files).
    pub extra_roots: Vec<PathBuf>,
    /// Trust only `extra_roots`, not the system's authorities.
    pub only_extra_roots: bool,
    /// `http://` addresses are refused unless this is set.
    pub allow_plain_http: bool,
    /// Private, loopback and link-local addresses are refused unless this is set.
    pub allow_private_addresses: bool,
    /// Which HTTP version to speak.
    pub http: UpstreamHttp,
    /// Time to establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// Idle connections kept per worker.
    pub idle_connections: usize,
    /// Idle connections are closed after this.
    pub idle_timeout: Duration,
    /// Send W3C `traceparent` to this provider.
    pub propagate_trace: bool,
}

/// HTTP version towards a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamHttp {
    /// What ALPN agrees on; HTTP/1.1 without TLS.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only (prior knowledge without TLS).
    Http2,
}

/// One account at a provider.
#[derive(Debug, Clone)]
pub struct CredentialConfig {
    /// Name in logs and metrics.
    pub name: String,
    /// Share of requests relative to the provider's other credentials; at least 1.
    pub weight: u32,
    /// The secret itself; `None` sends no authentication.
    pub secret: Option<SecretString>,
    /// The account belongs to the callers: its provider bills them, and they are charged the fee for own keys only.
    pub own_key: bool,
}
