//! Starting, reloading and stopping an edge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use thiserror::Error;
use tidegate_quota::{Gate, GateError, GateOptions, StoreError, SystemClock};
use tidegate_runtime::listen::{self, BindError, ListenOptions};
use tidegate_runtime::ops::{BuildInfo, Condition, Operations, OpsResponse, OpsRoute, OpsServer, Readiness};
use tidegate_runtime::telemetry::Telemetry;
use tidegate_runtime::tls::{CertificateFiles, CertificateStore, Reloader, ServerTlsOptions, TlsError, TlsVersion, server_config};
use tidegate_runtime::{Clock, Shutdown, Tasks};
use tokio::sync::Notify;

use crate::access_log::AccessLog;
use crate::affinity::AffinityTable;
use crate::auth::{Contact, Cuts, FailureLimiter, Keys};
use crate::config::{EdgeConfig, ListenerConfig, MeshConfig, StoreConfig};
use crate::content::ContentSink;
use crate::control_link::{Aside, ControlServices, Link, Management, Missed, Place};
use crate::draining::Draining;
use crate::gauges::EndpointGauges;
use crate::generations::Generations;
use crate::ledger::region::RegionLedger;
use crate::ledger::{Ledger, LedgerMetrics, Unfinished};
use crate::listener::{Connections, Listener};
use crate::memory::MemoryWatch;
use crate::metrics::Metrics;
use crate::quota::{self, QuotaMetrics, Quotas, Spent};
use crate::region::RegionHealth;
use crate::shared::Shared;
use crate::shares::{self, ShareGauges, ShareLink};
use crate::state::{RoutingState, StateProblem};
use crate::sums::SumsView;
use crate::worker::{Threads, Workers};
use crate::{explain, openapi};

/// A running edge.
pub struct Edge {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    threads: Threads,
    bound: Bound,
    certificates: Vec<Reloader>,
    readiness: Readiness,
    ready: Condition,
    /// Stops accepting.
    accepting: Tasks,
    /// Ends connections when they can.
    draining: Draining,
    /// Ends the workers, whatever they do.
    stop: Shutdown,
    /// The operations port and other things that outlive the last request.
    background: Tasks,
    /// Settles with a remote store; ends after the ledger has passed everything on.
    settling: Tasks,
    /// Passes the journal on to the region.
    passing_on: Tasks,
    registry: prometheus::Registry,
}

/// Addresses that were taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Name and address of each listener, in the order of the configuration.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The operations port.
    pub operations: Option<SocketAddr>,
}

/// Why an edge did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Certificates cannot be used.
    #[error("listener `{listener}`: {source}")]
    Tls {
        /// Which listener.
        listener: String,
        /// What is wrong.
        source: TlsError,
    },
    /// The configuration does not compile.
    #[error("the configuration has {} problem(s): {}", .0.len(), listed(.0))]
    Config(Vec<StateProblem>),
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The quotas cannot be set up.
    #[error(transparent)]
    Quota(#[from] GateError),
    /// The store of counters is not understood.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread, the ledger, or the access log.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Without a control plane there is nobody to share limits with: each is what it says.
fn standalone(mut mesh: MeshConfig, following: bool) -> MeshConfig {
    if !following {
        mesh.defaults.quota_regions.clear();
    }
    mesh
}

fn listed(problems: &[StateProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What an edge is given besides its configuration.
pub struct Services {
    /// Everything under `/metrics`; the edge adds its own.
    pub registry: prometheus::Registry,
    /// Trace export.
    pub telemetry: Telemetry,
    /// More routes for the operations port.
    pub routes: Vec<OpsRoute>,
    /// Time.
    pub clock: Clock,
    /// What an edge that follows the control plane needs; its configuration then has to name control nodes.
    pub control: Option<ControlServices>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            registry: prometheus::Registry::new(),
            telemetry: Telemetry::off(),
            routes: Vec::new(),
            clock: Clock::start(),
            control: None,
        }
    }
}

impl Edge {
    /// Binds every address, starts the workers, and serves. To be called within a tokio runtime, which then accepts connections and
    /// serves the operations port; requests run on the workers' own runtimes.
    ///
    /// # Errors
    /// See [`StartError`]; nothing keeps running after an error.
    pub async fn start(config: EdgeConfig, mesh: MeshConfig, services: Services) -> Result<Self, StartError> {
        let Services { registry, telemetry, routes, clock, control } = services;
        let following = config.control.clone().zip(control);
        let metrics = Metrics::register(&registry)?;
        let region: Arc<str> = config.region.as_str().into();
        let state = RoutingState::build(standalone(mesh, following.is_some()), None, &metrics).map_err(StartError::Config)?;
        let state = state.in_region(&region);
        let shares = Arc::clone(state.owners.shares());
        metrics.state_revision.with_label_values(&["snapshot"]).set(i64::try_from(state.snapshot.revision()).unwrap_or(i64::MAX));
        let background = Tasks::new();
        let mut certificates = Vec::new();
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            listeners.push(bind(listener, clock, &background, &mut certificates)?);
        }
        let operations = config.operations.map(OpsServer::bind).transpose()?;
        let bound = Bound {
            listeners: listeners.iter().map(|listener| (listener.name.to_string(), listener.address)).collect(),
            operations: operations.as_ref().map(OpsServer::local_addr),
        };
        let (store, remote) = quota::open(&config.quota)?;
        let (gate, gate_worker) = Gate::new(store, Arc::new(SystemClock), GateOptions { slices: remote }, &registry)?;
        let quotas = Arc::new(Quotas::new(Arc::clone(&gate), remote, QuotaMetrics::register(&registry)?));
        let ledger_metrics = LedgerMetrics::register(&registry)?;
        let (ledger, unfinished) = {
            let config = config.ledger.clone();
            let gate = Arc::clone(&gate);
            tokio::task::spawn_blocking(move || Ledger::start(&config, clock, ledger_metrics, gate))
                .await
                .map_err(|error| std::io::Error::other(format!("reading the journal: {error}")))??
        };
        let ledger = Arc::new(ledger);
        let keys = Keys::of_config(&state.config.keys, state.config.keys_pepper.as_ref(), &state.config.defaults);
        let (settling, passing_on) = (Tasks::new(), Tasks::new());
        // Ends with the edge, after it has told the store what is queued.
        let stopped = settling.shutdown().clone();
        settling.spawn("quota", async move { gate_worker.run(stopped.requested()).await });
        if remote {
            // The counters of a store in this process are new; what an earlier process left is in the sums from which they were restored.
            settling.spawn("settle-unfinished", settle_unfinished(Arc::clone(&gate), unfinished));
        }
        let sums = match &config.quota.store {
            StoreConfig::Redis(options) => {
                let region = Arc::new(RegionLedger::new(options, &config.region)?);
                match ledger.region_export(Arc::clone(&region), &config.ledger, config.generations_ttl)? {
                    // Ends with the edge, after the journal's end was passed on.
                    Some(export) => {
                        passing_on.spawn("region-ledger", export.run(passing_on.shutdown().clone()));
                        SumsView::Region(region)
                    }
                    None => {
                        tracing::warn!("without `ledger.directory` nothing reaches the region's ledger: this edge answers for itself only");
                        SumsView::Local(Arc::clone(&ledger))
                    }
                }
            }
            StoreConfig::Memory => SumsView::Local(Arc::clone(&ledger)),
        };
        let spent = Spent {
            own: &ledger.rollups_shared(),
            region: sums.region(),
            retention: config.ledger.retention,
            providers: &state.config.providers,
        };
        quota::restore(gate.store().as_ref(), &keys, &state.owners, &spent, clock.unix_micros()).await;
        let shared = Arc::new(Shared {
            sums,
            ledger,
            quotas,
            content: ContentSink::open(config.ledger.content.as_ref(), metrics.content_dropped.clone())?,
            access_log: AccessLog::open(&config.access_log, metrics.access_log_dropped.clone())?,
            generations: Generations::new(config.generations_kept, config.generations_ttl),
            affinity: AffinityTable::new(),
            auth_failures: FailureLimiter::new(config.limits.auth_failures_per_minute),
            connections: Connections::new(config.limits.connections, config.limits.connections_per_ip),
            in_flight: Arc::new(AtomicUsize::new(0)),
            memory: MemoryWatch::start(config.limits.memory_share, &background),
            region,
            share_link: ShareLink::default(),
            nothing: "".into(),
            openapi: openapi::document().to_string().into(),
            keys: ArcSwap::from_pointee(keys),
            limits_changed: Notify::new(),
            health_news: Notify::new(),
            region_health: RegionHealth::default(),
            contact: following.as_ref().map_or_else(Contact::own_authority, |(link, _)| Contact::following(link.key_grace)),
            routed: following.as_ref().map_or_else(Contact::own_authority, |(link, _)| Contact::following(link.key_grace)),
            cuts: Cuts::default(),
            management: Management::new(following.is_some()),
            missed: Missed::default(),
            state: ArcSwap::from_pointee(state),
            clock,
            metrics,
            telemetry,
            config,
        });
        let (draining, stop) = (Draining::default(), Shutdown::new());
        let (workers, threads) = Workers::start(shared.config.workers, &shared, &draining, &stop)?;
        registry.register(Box::new(EndpointGauges::new(&shared, &workers)?))?;
        registry.register(Box::new(ShareGauges::new(&shares)?))?;
        tidegate_runtime::ops::register_process_metrics(&registry)?;
        tidegate_runtime::ops::register_build_info(&registry, &BUILD)?;
        tidegate_runtime::tls::register_certificate_metrics(&registry, certificates.clone(), clock)?;

        let readiness = Readiness::new();
        if let Some((link, services)) = following {
            let place = Place {
                shared: Arc::clone(&shared),
                workers: Arc::clone(&workers),
                ready: readiness.condition("configuration"),
                sound: readiness.condition("health"),
            };
            // Before the first request: what was kept is there at once.
            let link = Link::start(place, link, services, Aside::Thread);
            background.spawn("control-link", link.run(background.shutdown().clone()));
            background.spawn("shares", shares::run(Arc::clone(&shared), shares, background.shutdown().clone()));
        }
        background.spawn("spent", quota::keep_restored(Arc::clone(&shared), background.shutdown().clone()));
        let accepting = Tasks::new();
        for listener in listeners {
            let serving = listener.run(Arc::clone(&shared), Arc::clone(&workers), accepting.shutdown().clone());
            accepting.spawn("listener", serving);
        }
        let ready = readiness.condition("serving");
        ready.met();
        if let Some(operations) = operations {
            let mut routes = routes;
            routes.push(explain_route(&shared));
            routes.push(crate::usage::route(&shared));
            routes.push(shares::route(&shared));
            operations.serve(Operations { registry: registry.clone(), readiness: readiness.clone(), routes }, &background);
        }
        Ok(Self {
            shared,
            workers,
            threads,
            bound,
            certificates,
            readiness,
            ready,
            accepting,
            draining,
            stop,
            background,
            settling,
            passing_on,
            registry,
        })
    }

    /// Addresses that were taken.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Everything under `/metrics`.
    #[must_use]
    pub fn registry(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// Number of the configuration in use.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.state.load().snapshot.revision()
    }

    /// Whether this edge should get traffic; the reasons why not otherwise.
    ///
    /// # Errors
    /// One line per condition that does not hold.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        let missing = self.readiness.missing();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// Takes a new configuration over, or refuses it as a whole. Running requests end with the one they began with.
    ///
    /// # Errors
    /// Everything that is wrong with it; the old one stays in use.
    pub fn reload(&self, mesh: MeshConfig) -> Result<(), Vec<StateProblem>> {
        let previous = self.shared.state.load_full();
        let following = self.shared.config.control.is_some();
        let state = RoutingState::build(standalone(mesh, following), Some(&previous), &self.shared.metrics)?;
        let revision = i64::try_from(state.snapshot.revision()).unwrap_or(i64::MAX);
        let keys = Keys::of_config(&state.config.keys, state.config.keys_pepper.as_ref(), &state.config.defaults);
        self.shared.state.store(Arc::new(state));
        self.shared.keys.store(Arc::new(keys));
        self.shared.limits_changed.notify_one();
        self.shared.metrics.state_revision.with_label_values(&["snapshot"]).set(revision);
        Ok(())
    }

    /// Looks at the certificate files now, and opens the access log anew.
    pub fn refresh_files(&self) {
        self.shared.access_log.reopen();
        for reloader in &self.certificates {
            // What happened is logged and counted by the reloader.
            let _ = reloader.reload_now();
        }
    }

    /// Stops in order: unready, no new connections, running requests to their end or the drain limit, then everything. Returns the
    /// number of connections that had to be cut off.
    pub async fn shutdown(self) -> usize {
        let limits = &self.shared.config.limits;
        self.ready.unmet("draining");
        tokio::time::sleep(limits.unready_before_drain).await;
        if let Err(unfinished) = self.accepting.close(CLOSE_LISTENERS).await {
            tracing::warn!(%unfinished, "listeners did not close in time");
        }
        self.draining.begin();
        let deadline = Instant::now() + limits.drain;
        while self.workers.open() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let cut = self.workers.open();
        self.stop.request();
        let (threads, shared) = (self.threads, Arc::clone(&self.shared));
        let joined = tokio::task::spawn_blocking(move || {
            threads.join();
            shared.access_log.close();
            shared.content.close();
            shared.ledger.close();
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "the workers did not end");
        }
        if let Err(unfinished) = self.passing_on.close(LAST_RECORDS).await {
            tracing::warn!(%unfinished, "the last records did not reach the region's ledger; the next start passes them on");
        }
        if let Err(unfinished) = self.settling.close(LAST_SETTLEMENTS).await {
            tracing::warn!(%unfinished, "the last settlements did not reach the store of counters; the next start repeats them");
        }
        if let Err(unfinished) = self.background.close(CLOSE_LISTENERS).await {
            tracing::debug!(%unfinished, "operations connections were cut off");
        }
        cut
    }
}

fn bind(config: &ListenerConfig, clock: Clock, background: &Tasks, certificates: &mut Vec<Reloader>) -> Result<Listener, StartError> {
    let tls = match &config.tls {
        None => None,
        Some(tls) => {
            let named = |source| StartError::Tls { listener: config.name.clone(), source };
            let files =
                tls.certificates.iter().map(|files| CertificateFiles { cert: files.cert.clone(), key: files.key.clone() }).collect();
            let store = CertificateStore::load(files, clock.unix_seconds()).map_err(named)?;
            let options = ServerTlsOptions {
                min_version: if tls.tls12 { TlsVersion::Tls12 } else { TlsVersion::Tls13 },
                client_ca: tls.client_ca.clone(),
                ..ServerTlsOptions::default()
            };
            let config = server_config(&store, &options).map_err(named)?;
            let reloader = Reloader::new(store, clock);
            reloader.start(tls.reload_every, background);
            certificates.push(reloader);
            Some(config)
        }
    };
    let socket = listen::bind_tokio(config.address, ListenOptions::default())?;
    let address = socket.local_addr().unwrap_or(config.address);
    Ok(Listener { name: config.name.as_str().into(), address, tls, socket })
}

/// `GET /explain/{generation}`: why a request went where it went.
fn explain_route(shared: &Arc<Shared>) -> OpsRoute {
    let shared = Arc::clone(shared);
    OpsRoute::new("/explain/", "why a generation went where it went", move |request| {
        let id = request.path.strip_prefix("/explain/")?;
        let now = tidegate_routing::Timestamp(shared.clock.micros());
        Some(match shared.generations.get(id, now) {
            Some(past) => OpsResponse::json(200, explain::finished(&past).to_string()),
            None => OpsResponse::json(404, r#"{"error":"no such generation on this edge, or it was forgotten"}"#),
        })
    })
}

/// Settles what an earlier process left with the store that outlived it; again until the store answers, or the reservations are gone.
async fn settle_unfinished(gate: Arc<Gate>, unfinished: Unfinished) {
    for settlement in unfinished.settlements() {
        let mut tries = 0;
        while let Err(error) = gate.settle_journalled(&settlement).await {
            tries += 1;
            if tries == UNFINISHED_TRIES {
                tracing::warn!(%error, "what an earlier process held was left to expire as consumed");
                return;
            }
            tokio::time::sleep(UNFINISHED_PAUSE).await;
        }
    }
}

const BUILD: BuildInfo = BuildInfo {
    version: env!("CARGO_PKG_VERSION"),
    commit: match option_env!("TIDEGATE_COMMIT") {
        Some(commit) => commit,
        None => "unknown",
    },
    rustc: "unknown",
};
/// Ten minutes, after which the reservations have expired.
const UNFINISHED_TRIES: u32 = 300;
const UNFINISHED_PAUSE: Duration = Duration::from_secs(2);
/// A region's ledger that is there takes what is left in a moment.
const LAST_RECORDS: Duration = Duration::from_secs(3);
/// The worker of the quotas gives itself five seconds.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(6);
/// Closing a listener waits for nothing but the scheduler.
const CLOSE_LISTENERS: Duration = Duration::from_secs(2);
/// How often draining looks whether it is done.
const DRAIN_POLL: Duration = Duration::from_millis(20);
