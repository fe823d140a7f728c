//! What all requests of an edge share, on whatever worker they run.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use tidegate_runtime::clock::Clock;
use tidegate_runtime::telemetry::Telemetry;
use tokio::sync::Notify;

use crate::access_log::AccessLog;
use crate::affinity::AffinityTable;
use crate::auth::{Contact, Cuts, FailureLimiter, Keys};
use crate::config::EdgeConfig;
use crate::content::ContentSink;
use crate::control_link::{Management, Missed};
use crate::generations::Generations;
use crate::ledger::Ledger;
use crate::listener::Connections;
use crate::memory::MemoryWatch;
use crate::metrics::Metrics;
use crate::quota::Quotas;
use crate::region::RegionHealth;
use crate::shares::ShareLink;
use crate::state::RoutingState;
use crate::sums::SumsView;

/// One per edge process.
pub(crate) struct Shared {
    pub(crate) config: EdgeConfig,
    /// The configuration that new requests route by; running ones keep the one they began with.
    pub(crate) state: ArcSwap<RoutingState>,
    /// Who may call. Apart from the configuration, so that a key that changes rebuilds nothing.
    pub(crate) keys: ArcSwap<Keys>,
    /// Keys or their owners have changed: what was spent is to be told to the counters of new limits.
    pub(crate) limits_changed: Notify,
    /// How fresh the keys are.
    pub(crate) contact: Contact,
    /// Keys whose running answers end.
    pub(crate) cuts: Cuts,
    /// The way of management keys to the control plane.
    pub(crate) management: Management,
    /// What a configuration on trial turned away.
    pub(crate) missed: Missed,
    /// How fresh the configuration is.
    pub(crate) routed: Contact,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) generations: Generations,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) sums: SumsView,
    /// Prompts and answers of keys that opted in.
    pub(crate) content: ContentSink,
    pub(crate) affinity: AffinityTable,
    pub(crate) access_log: AccessLog,
    pub(crate) auth_failures: FailureLimiter,
    pub(crate) connections: Arc<Connections>,
    pub(crate) in_flight: Arc<AtomicUsize>,
    pub(crate) memory: MemoryWatch,
    pub(crate) telemetry: Telemetry,
    /// Something happened that the region should hear of before the next report is due.
    pub(crate) health_news: Notify,
    /// What the region says about health; empty without a control plane.
    pub(crate) region_health: RegionHealth,
    /// The way of shared limits to the control link and back.
    pub(crate) share_link: ShareLink,
    /// The configured region, and the empty string, as every record refers to them.
    pub(crate) region: Arc<str>,
    pub(crate) nothing: Arc<str>,
    /// The OpenAPI document, rendered once.
    pub(crate) openapi: bytes::Bytes,
}
