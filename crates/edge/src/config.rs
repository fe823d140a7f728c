//! What an edge is told to be: plain domain values, already parsed and checked for form.
//!
//! Files, environment and defaults are the binary's business; nothing here reads them. [`EdgeConfig`] is fixed for the life of the
//! process, [`MeshConfig`] is what a reload replaces: providers, models, endpoints, keys, presets and defaults. A `MeshConfig` is
//! proven good only by compiling it ([`crate::check`]), which is also what `tidegate check` runs.

#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tidegate_ledger::{Fee, PriceTable, Retention};
use tidegate_quota::{Limit, RedisOptions, StoreDown};
use tidegate_routing::{DataPolicy, ModalitySet, Mode, ParameterSet, Preferences, Quantization, Settings, Tier};
use tidegate_wire::ProviderInfo;

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

/// How an edge follows the control plane.
#[derive(Debug, Clone)]
pub struct ControlLinkConfig {
    /// Control nodes; at least one.
    pub endpoints: Vec<ControlEndpoint>,
    /// Name of this edge, unique among all; its certificate's name wins where it has one.
    pub edge: String,
    /// Where the last good state is kept over a restart; `None` keeps none.
    pub state_dir: Option<PathBuf>,
    /// How long known keys are served without word from the control plane, unless a key says otherwise. It bounds how long a key that
    /// was revoked can be used at an edge that is cut off.
    pub key_grace: Duration,
    /// A state that was last known to be current longer ago than this is not started with.
    pub max_boot_staleness: Duration,
    /// Time that a new configuration has to serve without harm before it is kept as good.
    pub bake: Duration,
}

/// One control node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlEndpoint {
    /// `host:port`.
    pub address: String,
    /// Its region; those of the edge's own are tried first, and another region's node is hung up on.
    pub region: Option<String>,
}

impl ControlLinkConfig {
    /// Times as `docs/configuration.md` documents them.
    #[must_use]
    pub fn new(edge: impl Into<String>, endpoints: Vec<ControlEndpoint>) -> Self {
        Self {
            endpoints,
            edge: edge.into(),
            state_dir: None,
            // A day: an outage of the control plane must be repairable without haste, and a key that was revoked meanwhile is of use to
            // a thief only at edges that nobody can reach.
            key_grace: Duration::from_secs(24 * 3600),
            max_boot_staleness: Duration::from_secs(7 * 24 * 3600),
            bake: Duration::from_secs(30),
        }
    }
}

/// Where use is counted against limits.
#[derive(Debug, Clone, Default)]
pub struct QuotaConfig {
    /// The counters.
    pub store: StoreConfig,
}

impl QuotaConfig {
    /// Whether the edges of a region count together.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self.store {
            StoreConfig::Memory => false,
            StoreConfig::Redis(_) => true,
        }
    }
}

/// The counters.
#[derive(Debug, Clone, Default)]
pub enum StoreConfig {
    /// In this process: exact for one edge. After a restart budgets continue from the ledger's sums; rates begin anew.
    #[default]
    Memory,
    /// In Redis or Valkey, shared by the edges of a region.
    Redis(Box<RedisOptions>),
}

/// Records and sums of generations. A later start continues where an earlier one ended when both have the same directory.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// Where the journal and the file of sums are; `None` keeps sums in memory only, until the process ends.
    pub directory: Option<PathBuf>,
    /// Size at which a new segment is begun, bytes.
    pub segment_bytes: u64,
    /// Segments older than this are removed, once everything that reads them has.
    pub keep: Duration,
    /// Oldest segments are removed beyond this, whoever has not read them, bytes.
    pub keep_bytes: u64,
    /// The journal is made safe against power loss this often, while something is written. A crash of the process alone loses nothing that
    /// was written.
    pub fsync_every: Duration,
    /// And after this many bytes.
    pub fsync_bytes: u64,
    /// How often what open streams have delivered is noted: the most that a crash leaves uncharged.
    pub checkpoint: Duration,
    /// How long sums are kept.
    pub retention: Retention,
    /// Files of records for a warehouse; needs a directory.
    pub export: Option<ExportConfig>,
    /// The same records in an object store; needs a directory.
    pub objects: Option<ObjectsConfig>,
    /// Where prompts and answers of keys that opted in go; `None` stores nothing for anybody.
    pub content: Option<ContentConfig>,
}

/// Files of records, one JSON object per line, compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    /// Where finished files appear.
    pub directory: PathBuf,
    /// A file is finished when it holds this many bytes before compression.
    pub rotate_bytes: u64,
    /// And when it is this old.
    pub rotate_every: Duration,
}

/// Objects of records in a bucket of an S3-compatible store, in the form of the files of [`ExportConfig`].
#[derive(Debug, Clone)]
pub struct ObjectsConfig {
    /// The bucket.
    pub bucket: String,
    /// What every object's name begins with, without a slash at its ends; may be empty.
    pub prefix: String,
    /// The store's region, part of every signature.
    pub region: String,
    /// `https://host:port` of a store that is not Amazon's; `None` asks `s3.<region>.amazonaws.com`.
    pub endpoint: Option<String>,
    /// A PEM file with authorities that are trusted beside the system's.
    pub extra_roots: Option<PathBuf>,
    /// Who asks.
    pub access_key_id: SecretString,
    /// What signs.
    pub secret_access_key: SecretString,
    /// Of temporary credentials.
    pub session_token: Option<SecretString>,
    /// An object is finished when it holds this many bytes before compression.
    pub rotate_bytes: u64,
    /// And when it is this old.
    pub rotate_every: Duration,
    /// Finished objects that the store has not taken wait on the disk up to this many bytes; beyond it records wait in the journal.
    pub waiting_bytes: u64,
}

/// Files of prompts and answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentConfig {
    /// Where they are written, one file per key and day, readable by the owner of the process only.
    pub directory: PathBuf,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            directory: None,
            segment_bytes: 64 << 20,
            keep: Duration::from_secs(7 * 24 * 3600),
            keep_bytes: 4 << 30,
            fsync_every: Duration::from_secs(1),
            fsync_bytes: 1 << 20,
            checkpoint: Duration::from_millis(250),
            retention: Retention::default(),
            export: None,
            objects: None,
            content: None,
        }
    }
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

/// What a reload replaces.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// Number of this configuration; grows with each reload of a process.
    pub revision: u64,
    /// Vendors and our accounts there.
    pub providers: Vec<ProviderConfig>,
    /// What callers can name.
    pub models: Vec<ModelConfig>,
    /// Which provider serves which model, and for how much.
    pub endpoints: Vec<EndpointConfig>,
    /// Who pays for keys.
    pub organisations: Vec<OrganisationConfig>,
    /// Parts of organisations.
    pub workspaces: Vec<WorkspaceConfig>,
    /// Who may call.
    pub keys: Vec<KeyConfig>,
    /// Key of the digest function (BLAKE3 keyed mode); `None` uses plain BLAKE3.
    pub keys_pepper: Option<SecretString>,
    /// Named request fragments (`@preset/slug`).
    pub presets: Vec<PresetConfig>,
    /// What holds when neither key nor request say otherwise.
    pub defaults: Defaults,
    /// Constants of health, breakers and weights.
    pub settings: Settings,
}

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

/// One model that callers can name.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// `author/name`.
    pub slug: String,
    /// Shown in lists.
    pub name: String,
    /// Other slugs that mean this model.
    pub aliases: Vec<String>,
    /// Shown in lists.
    pub description: String,
    /// Unix time of its release, seconds.
    pub created: u64,
    /// The author permits distillation.
    pub distillable: bool,
    /// Kinds of output, such as `text`.
    pub output_modalities: Vec<String>,
    /// Tokenizer family, informational.
    pub tokenizer: Option<String>,
    /// Sunset: requests are answered 404 with this successor.
    pub successor: Option<String>,
}

/// One provider's deployment of one model.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Unique and stable; health is carried over a reload by it.
    pub name: String,
    /// Slug of a provider.
    pub provider: String,
    /// Slug of a model.
    pub model: String,
    /// Tag that callers can address, `provider` or `provider/variant`.
    pub tag: String,
    /// What the provider calls the model.
    pub upstream_model: String,
    /// Exact prices.
    pub prices: PriceTable,
    /// Prompt and completion together, tokens.
    pub context_length: u32,
    /// Longest completion, tokens.
    pub max_output: Option<u32>,
    /// Number format of the weights.
    pub quantization: Quantization,
    /// Where it runs, as the provider names it.
    pub region: Option<String>,
    /// What the provider does with prompts.
    pub data: DataPolicy,
    /// Request parameters it understands.
    pub parameters: ParameterSet,
    /// What a prompt may hold besides text.
    pub inputs: ModalitySet,
    /// Service tier.
    pub tier: Tier,
    /// Switched off by the operator: gets no traffic, running requests end.
    pub drained: bool,
    /// Kept in by the operator: neither a breaker nor a verdict takes it out.
    pub pinned: bool,
    /// Hard limit of parallel requests of this edge.
    pub max_concurrency: Option<u32>,
    /// How long the upstream's prompt cache lives after its last use.
    pub cache_lifetime: Duration,
    /// The upstream caches prompts without being asked.
    pub implicit_caching: bool,
    /// Expected time to first token before anything was measured.
    pub prior_first_token: Option<Duration>,
    /// Expected output speed before anything was measured, tokens per second.
    pub prior_tokens_per_second: Option<f32>,
}

/// One caller's key.
#[derive(Debug, Clone)]
pub struct KeyConfig {
    /// Name in logs and records; never the key itself.
    pub name: String,
    /// Digest as made by [`crate::auth::digest`], 32 bytes.
    pub digest: [u8; 32],
    /// A disabled key is refused.
    pub disabled: bool,
    /// Unix time after which the key is refused, seconds.
    pub expires_at: Option<u64>,
    /// Models this key may name; empty means all.
    pub allowed_models: Vec<String>,
    /// Preferences that hold for every request of this key; requests can only tighten them.
    pub preferences: Preferences,
    /// Strategy unless the request says otherwise.
    pub mode: Option<Mode>,
    /// Ask a second provider when the first token of a stream takes long; both are billed.
    pub hedge: bool,
    /// Show the provider's own error body in `error.metadata.raw`.
    pub raw_errors: bool,
    /// Who pays; the workspace's organisation when absent.
    pub organisation: Option<String>,
    /// Part of an organisation.
    pub workspace: Option<String>,
    /// Limits of this key; those of its workspace and organisation hold too.
    pub limits: Vec<Limit>,
    /// What it may do while its use cannot be counted.
    pub on_store_down: StoreDown,
    /// Prompts and answers are stored, where a place for them is configured.
    pub store_content: bool,
}

impl KeyConfig {
    /// A key that may do everything, without limits.
    #[must_use]
    pub fn new(name: impl Into<String>, digest: [u8; 32]) -> Self {
        Self {
            name: name.into(),
            digest,
            disabled: false,
            expires_at: None,
            allowed_models: Vec::new(),
            preferences: Preferences::default(),
            mode: None,
            hedge: false,
            raw_errors: false,
            organisation: None,
            workspace: None,
            limits: Vec::new(),
            on_store_down: StoreDown::default(),
            store_content: false,
        }
    }
}

/// Who pays for keys.
#[derive(Debug, Clone, PartialEq)]
pub struct OrganisationConfig {
    /// Name in records and limits.
    pub name: String,
    /// What it pays on top of what answers cost.
    pub fee: Fee,
    /// Limits that all its keys share.
    pub limits: Vec<Limit>,
    /// All credits that it ever bought, micro-dollars, when it pays before it spends. Stands among `limits` as a prepaid total too.
    pub credits: Option<u64>,
}

impl OrganisationConfig {
    /// An organisation without limits and fees.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), fee: Fee::default(), limits: Vec::new(), credits: None }
    }
}

/// A part of an organisation.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkspaceConfig {
    /// Name in records and limits; unique over all organisations.
    pub name: String,
    /// Whose part it is.
    pub organisation: String,
    /// Limits that all its keys share.
    pub limits: Vec<Limit>,
}

impl WorkspaceConfig {
    /// A workspace without limits.
    #[must_use]
    pub fn new(name: impl Into<String>, organisation: impl Into<String>) -> Self {
        Self { name: name.into(), organisation: organisation.into(), limits: Vec::new() }
    }
}

/// What a key may do besides being valid: the part that many keys have in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyPolicy {
    /// Models this key may name; empty means all.
    pub allowed_models: Vec<String>,
    /// Preferences that hold for every request of this key; requests can only tighten them.
    pub preferences: Preferences,
    /// Strategy unless the request says otherwise.
    pub mode: Option<Mode>,
    /// Send a second attempt to another provider when the first token of a stream takes long.
    pub hedge: bool,
    /// Show the provider's own error body in `error.metadata.raw`.
    pub raw_errors: bool,
    /// Limits of the key itself; those of its workspace and organisation hold too.
    pub limits: Vec<Limit>,
    /// What it may do while its use cannot be counted.
    pub on_store_down: StoreDown,
    /// Prompts and answers are stored, where a place for them is configured.
    pub store_content: bool,
    /// How long the key is served without word from the control plane; `None` leaves it to [`ControlLinkConfig::key_grace`].
    pub grace: Option<Duration>,
}

impl KeyPolicy {
    /// The policy of a key of a file.
    #[must_use]
    pub fn of(key: &KeyConfig) -> Self {
        Self {
            allowed_models: key.allowed_models.clone(),
            preferences: key.preferences.clone(),
            mode: key.mode,
            hedge: key.hedge,
            raw_errors: key.raw_errors,
            limits: key.limits.clone(),
            on_store_down: key.on_store_down,
            store_content: key.store_content,
            grace: None,
        }
    }
}

/// A named request fragment.
#[derive(Clone)]
pub struct PresetConfig {
    /// As in `@preset/slug`.
    pub slug: String,
    /// JSON object of request fields; the request wins.
    pub fields: String,
}

/// A preset holds prompts, which are nobody's business but its users'.
impl fmt::Debug for PresetConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PresetConfig").field("slug", &self.slug).finish_non_exhaustive()
    }
}

/// What holds when neither key nor request say otherwise.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Model of a request that names none.
    pub model: Option<String>,
    /// Strategy.
    pub mode: Mode,
    /// Preferences that hold for every request.
    pub preferences: Preferences,
    /// Total time of a request.
    pub deadline: Duration,
    /// Attempts per request, the first one included.
    pub max_attempts: u8,
    /// Requests without a key are served (for `tidegate dev` behind loopback only).
    pub anonymous: bool,
    /// Keep a conversation on the endpoint whose prompt cache it warmed.
    pub sticky: bool,
    /// Least time that a conversation stays there after its last use; longer where the endpoint's cache lives longer.
    pub sticky_for: Duration,
    /// The regions that share limits declared `global`; fewer than two share nothing. Of use only where a control plane is followed.
    pub quota_regions: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            model: None,
            mode: Mode::Balanced,
            preferences: Preferences::default(),
            deadline: Duration::from_secs(600),
            max_attempts: 3,
            anonymous: false,
            sticky: true,
            // OpenRouter's documented time; shorter would give up caches that still live.
            sticky_for: Duration::from_secs(600),
            quota_regions: Vec::new(),
        }
    }
}
