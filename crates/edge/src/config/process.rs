//! What stays as it is until the process ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{ControlLinkConfig, LedgerConfig, Limits, QuotaConfig};

/// Everything that stays as it is until the process ends.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where callers connect; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// Address of the operations port (`/metrics`, `/livez`, `/readyz`); `None` switches it off.
    pub operations: Option<SocketAddr>,
    /// How many threads serve requests, and how they share the work.
    pub workers: WorkerConfig,
    /// HTTP hygiene, sizes and timeouts.
    pub limits: Limits,
    /// Where the one line per request goes.
    pub access_log: AccessLogConfig,
    /// Name of this edge's region; a metric label and a field of every generation record.
    pub region: String,
    /// How many finished generations `GET /generation` can still find.
    pub generations_kept: u64,
    /// How long a finished generation can be looked up.
    pub generations_ttl: Duration,
    /// The control plane to follow; `None` for an edge that is configured by a file alone.
    pub control: Option<ControlLinkConfig>,
    /// Records and sums of generations.
    pub ledger: LedgerConfig,
    /// Where use is counted against limits.
    pub quota: QuotaConfig,
}

/// One downstream address.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Label of this listener in metrics and logs, such as `http` or `https`.
    pub name: String,
    /// Address to bind; port 0 picks a free one.
    pub address: SocketAddr,
    /// TLS material; `None` serves plain HTTP.
    pub tls: Option<ListenerTls>,
}

/// TLS of one listener.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// Certificate chains and keys, chosen by SNI; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// Callers must present a certificate of one of these authorities when set (PEM file).
    pub client_ca: Option<PathBuf>,
    /// Offer TLS 1.2 besides 1.3.
    pub tls12: bool,
    /// How often the files are looked at for a change.
    pub reload_every: Duration,
}

/// One certificate chain and its private key, both PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub cert: PathBuf,
    /// Private key of the leaf.
    pub key: PathBuf,
}

/// Threads that serve requests.
#[derive(Debug, Clone, Copy)]
pub struct WorkerConfig {
    /// Number of worker threads; 0 means one per available core.
    pub threads: usize,
    /// How the threads share connections.
    pub model: RuntimeModel,
}

/// How worker threads share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeModel {
    /// One single-threaded runtime per worker: a connection and its upstreams stay on one thread.
    PerCore,
    /// One work-stealing runtime over all workers.
    Shared,
}

/// Where access-log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogConfig {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file, reopened on SIGHUP.
    File(PathBuf),
}
