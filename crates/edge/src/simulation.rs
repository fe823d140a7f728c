//! An edge without sockets and threads of its own, for simulations of edges that follow a control plane.
//!
//! What is real: the control link with everything behind it (stream, replica, trial, guard, files), the table of keys, and the decisions
//! of who may call and where a request goes. What is not there: listeners, workers and connections to providers. It runs on the caller's
//! runtime only, so that with paused time and seeded chance each run of a seed is the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};
use tidegate_quota::{Gate, GateOptions, SystemClock};
use tidegate_routing::{Health, Intent, Next, Plan, Timestamp};
use tidegate_runtime::ops::Readiness;
use tidegate_runtime::telemetry::Telemetry;
use tidegate_runtime::{Clock, Tasks};
use tokio::sync::Notify;

use crate::access_log::AccessLog;
use crate::affinity::AffinityTable;
use crate::auth::{AuthFailure, Contact, Cuts, FailureLimiter, Keys};
use crate::config::EdgeConfig;
use crate::connection::ConnectionInfo;
use crate::content::ContentSink;
use crate::control_link::{Aside, ControlServices, Link, Management, Missed, Place, Replica, nothing};
use crate::error::EdgeError;
use crate::generations::Generations;
use crate::handler;
use crate::ledger::{Ledger, LedgerMetrics};
use crate::listener::Connections;
use crate::memory::MemoryWatch;
use crate::metrics::Metrics;
use crate::quota::{self, QuotaMetrics, Quotas};
use crate::region::RegionHealth;
use crate::shared::Shared;
use crate::shares::ShareLink;
use crate::state::RoutingState;
use crate::sums::SumsView;
use crate::worker::Workers;

/// What a caller would be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The request would be sent to an endpoint.
    Served,
    /// 401: no such key.
    Unknown,
    /// 401 or 403: the key is known and may not call.
    Refused,
    /// 503 with `Retry-After`: the edge cannot tell at the moment.
    Undecided,
    /// No endpoint serves it.
    NoRoute,
}

/// One process of an edge.
pub struct SimulatedEdge {
    link: Link,
    shared: Arc<Shared>,
    readiness: Readiness,
}

impl SimulatedEdge {
    /// Begins with what an earlier process kept. `config` names control nodes; its listeners, workers and ledger are not used.
    ///
    /// # Panics
    /// When `config` does not follow a control plane.
    #[must_use]
    pub fn start(config: EdgeConfig, clock: Clock, services: ControlServices) -> Self {
        let control = config.control.clone().expect("an edge that follows");
        let shared = shared(config, control.key_grace, clock);
        let readiness = Readiness::new();
        let place = Place {
            shared: Arc::clone(&shared),
            workers: Workers::none(),
            ready: readiness.condition("configuration"),
            sound: readiness.condition("health"),
        };
        let link = Link::start(place, control, services, Aside::Task);
        Self { link, shared, readiness }
    }

    /// Waits for the next thing to happen to it. May be dropped.
    pub async fn turn(&mut self) {
        self.link.turn().await;
    }

    /// What it received.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        self.link.replica()
    }

    /// To damage what it received.
    pub fn replica_mut(&mut self) -> &mut Replica {
        self.link.replica_mut()
    }

    /// Whether a stream to a control node is open.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.link.follows()
    }

    /// Whether it would take traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.readiness.missing().is_empty()
    }

    /// Revision that it routes by.
    #[must_use]
    pub fn routes_by(&self) -> u64 {
        self.shared.state.load().config.revision
    }

    /// What a caller with this key who asks for this model would be told now. The code that decides is that of every request.
    #[must_use]
    pub fn decide(&self, key: &str, model: &str) -> Decision {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&format!("Bearer {key}")) {
            headers.insert(header::AUTHORIZATION, value);
        }
        let connection = ConnectionInfo { peer: SocketAddr::from(([127, 0, 0, 1], 1)) };
        match handler::authenticate_for_models(&self.shared, &connection, &headers) {
            Ok(_) => {}
            Err(EdgeError::Auth(AuthFailure::Undecided)) => return Decision::Undecided,
            // A guesser is told to wait before anything is looked up; here every caller has the same address.
            Err(EdgeError::Auth(AuthFailure::Unknown) | EdgeError::Guessing) => return Decision::Unknown,
            Err(_) => return Decision::Refused,
        }
        let state = self.shared.state.load();
        let Some(model) = state.snapshot.model(model) else { return Decision::NoRoute };
        let now = Timestamp(self.shared.clock.micros());
        let intent = Intent::new(model, now + Duration::from_secs(60), 0);
        let health = Health::new(&state.snapshot, None);
        match Plan::new(&state.snapshot, intent).map(|mut plan| plan.next(&state.snapshot, &health, now)) {
            Ok(Next::Attempt(_)) => Decision::Served,
            Ok(Next::Exhausted(_)) | Err(_) => Decision::NoRoute,
        }
    }

    /// Ends as a process does that was asked to: what has proven itself is kept.
    pub async fn stop(self) {
        self.link.keep_now().await;
        self.shared.ledger.close();
    }

    /// Ends as a process does that is killed.
    pub fn kill(self) {
        self.shared.ledger.close();
    }
}

fn shared(config: EdgeConfig, key_grace: Duration, clock: Clock) -> Arc<Shared> {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).expect("a registry of its own");
    let state = RoutingState::build(nothing(), None, &metrics).unwrap_or_else(|problems| panic!("nothing compiles: {problems:?}"));
    let region: Arc<str> = config.region.as_str().into();
    let state = state.in_region(&region);
    let (store, remote) = quota::open(&config.quota).expect("counters in memory");
    // Its worker only tells a remote store, and there is none.
    let (gate, _worker) =
        Gate::new(store, Arc::new(SystemClock), GateOptions { slices: remote }, &registry).expect("a registry of its own");
    let ledger_metrics = LedgerMetrics::register(&registry).expect("a registry of its own");
    let (ledger, _) = Ledger::start(&config.ledger, clock, ledger_metrics, Arc::clone(&gate)).expect("sums in memory");
    let ledger = Arc::new(ledger);
    let quota_metrics = QuotaMetrics::register(&registry).expect("a registry of its own");
    Arc::new(Shared {
        sums: SumsView::Local(Arc::clone(&ledger)),
        ledger,
        quotas: Arc::new(Quotas::new(gate, remote, quota_metrics)),
        content: ContentSink::open(None, metrics.content_dropped.clone()).expect("nothing is stored"),
        access_log: AccessLog::open(&config.access_log, metrics.access_log_dropped.clone()).expect("no access log"),
        generations: Generations::new(1, Duration::from_secs(1)),
        affinity: AffinityTable::new(),
        auth_failures: FailureLimiter::new(0),
        connections: Connections::new(0, 0),
        in_flight: Arc::new(AtomicUsize::new(0)),
        memory: MemoryWatch::start(0.0, &Tasks::new()),
        region,
        share_link: ShareLink::default(),
        nothing: "".into(),
        openapi: bytes::Bytes::new(),
        keys: ArcSwap::from_pointee(Keys::empty(None)),
        limits_changed: Notify::new(),
        health_news: Notify::new(),
        region_health: RegionHealth::default(),
        contact: Contact::following(key_grace),
        routed: Contact::following(key_grace),
        cuts: Cuts::default(),
        management: Management::new(true),
        missed: Missed::default(),
        state: ArcSwap::from_pointee(state),
        clock,
        metrics,
        telemetry: Telemetry::off(),
        config,
    })
}
