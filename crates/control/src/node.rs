//! One control node, put together: consensus, the state, edges, health, the admin API, and the listeners they are reached at.

mod archive;
mod mount;
mod views;

pub use views::run as tell_edges;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use secrecy::SecretString;
use thiserror::Error;
use tidegate_consensus::{Application, Consensus, ConsensusConfig, Frozen, RestoreError, StartError};
use tidegate_proto::v1::sync_server::SyncServer;
use tidegate_proto::v1::{Command, HealthBatch, MemberMeta, ReportCell, command};
use tidegate_runtime::mesh::{
    Accept, Admit, Dial, Identity, IdentityFiles, MeshMetrics, MtlsDialer, MtlsListener, MtlsOptions, PlainDialer, PlainListener, Role,
};
use tidegate_runtime::ops::{BindError, Operations, OpsServer, Readiness};
use tidegate_runtime::sealing::PublicKeyring;
use tidegate_runtime::tls::TlsError;
use tidegate_runtime::{Clock, Shutdown, Tasks, listen};

use crate::admin::{self, Access, Admin, AdminParts, Validate, ValidatePolicy};
use crate::agreement::Agreement;
use crate::api::sync::{Presence, SyncLimits, SyncParts, SyncService};
use crate::edges::Edges;
use crate::fleet::{FleetConfig, FleetPeers, FleetService, Leader, Taken, endpoint_names};
use crate::leader::{self, LeaderParts};
use crate::machine::Machine;
use crate::proposer::Proposer;
use crate::published::Published;
use crate::publisher::Followers;
use crate::relay::{Peers, RelayService};
use crate::shares::{ReadLimits, ShareParts, ShareService};
use crate::state::State;
use mount::Mounted;

/// What a control node is told to be.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Log, snapshots, membership.
    pub consensus: ConsensusConfig,
    /// Where other control nodes connect.
    pub raft_listen: SocketAddr,
    /// Where edges connect.
    pub sync_listen: SocketAddr,
    /// Where operators connect.
    pub admin_listen: SocketAddr,
    /// The operations port; `None` switches it off.
    pub operations: Option<SocketAddr>,
    /// Address of the admin API for other machines, `host:port`; empty when there is none.
    pub admin_address: String,
    /// Address of the sync listener for other machines, `host:port`.
    pub sync_address: String,
    /// Certificates of the mesh. Without them everything is plain, which is for one machine only.
    pub identity: Option<IdentityFiles>,
    /// Who may do what.
    pub access: Access,
    /// Seals providers' credentials.
    pub keyring: Option<PublicKeyring>,
    /// Keys the digests of callers' keys.
    pub pepper: Option<SecretString>,
    /// How long a stage of a rollout lasts.
    pub bake: Duration,
    /// Where the audit log is written on and on, one JSON object per line.
    pub audit_archive: PathBuf,
}

/// What a node needs of its process.
pub struct NodeServices {
    /// For all metrics.
    pub registry: Registry,
    /// Rules of declared things.
    pub validate: Validate,
    /// Rules of keys.
    pub validate_policy: ValidatePolicy,
    /// Reads limits that span regions from declared things.
    pub read_limits: ReadLimits,
    /// Version of this build.
    pub build: String,
}

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum NodeError {
    /// An address is taken or not this machine's.
    #[error("listen")]
    Bind(#[from] BindError),
    /// A socket that was bound cannot be used.
    #[error("use the listener of {what}")]
    Listener {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Certificates cannot be used.
    #[error("load the identity of this node")]
    Identity(#[from] TlsError),
    /// The disk cannot be trusted, or settings cannot work.
    #[error("start consensus")]
    Consensus(#[from] StartError),
    /// Metrics could not be registered.
    #[error("register metrics")]
    Metrics(#[from] prometheus::Error),
}

/// A running control node.
pub struct Node {
    consensus: Consensus,
    followers: Followers,
    published: Published,
    tasks: Tasks,
    /// Stops last, so that probes see a node that is stopping.
    operations: Tasks,
    identity: Option<Arc<Identity>>,
    clock: Clock,
    bound: NodeBound,
}

/// Addresses that were taken.
#[derive(Debug, Clone)]
pub struct NodeBound {
    /// See [`ControlConfig::raft_listen`].
    pub raft: SocketAddr,
    /// See [`ControlConfig::sync_listen`].
    pub sync: SocketAddr,
    /// See [`ControlConfig::admin_listen`].
    pub admin: SocketAddr,
    /// See [`ControlConfig::operations`].
    pub operations: Option<SocketAddr>,
}

impl Node {
    /// Takes the addresses, opens the data directory and serves. A node that belongs to no cluster yet waits for `init` or `join`.
    ///
    /// # Errors
    /// See [`NodeError`]; nothing runs then.
    pub async fn start(mut config: ControlConfig, services: NodeServices) -> Result<Node, NodeError> {
        let NodeServices { registry, validate, validate_policy, read_limits, build } = services;
        let (clock, tasks) = (Clock::start(), Tasks::new());
        let metrics = MeshMetrics::register(&registry)?;
        let doors = Doors::open(config.identity.clone(), metrics, clock, &tasks)?;
        let (raft_door, raft) = doors.listen(config.raft_listen, "raft", Admit::roles([Role::Control]))?;
        // Control nodes ask each other for their edges there.
        let (sync_door, sync) = doors.listen(config.sync_listen, "sync", Admit::roles([Role::Edge, Role::Control]))?;
        let (admin_door, admin_bound) =
            doors.listen(config.admin_listen, "admin", Admit::roles([Role::Admin, Role::Control, Role::Edge]))?;
        // An address with port 0 is the one that was bound.
        for (address, bound) in
            [(&mut config.consensus.address, raft), (&mut config.sync_address, sync), (&mut config.admin_address, admin_bound)]
        {
            if let Some(host) = address.strip_suffix(":0") {
                *address = format!("{host}:{}", bound.port());
            }
        }
        let operations_server = config.operations.map(OpsServer::bind).transpose()?;

        let machine = Machine::new();
        let published = machine.published().clone();
        let (raft_config, application) = (config.consensus.clone(), Box::new(Applied(machine)));
        let (dial, for_consensus) = (Arc::clone(&doors.dial), registry.clone());
        // Reads the data directory.
        let started = tokio::task::spawn_blocking(move || Consensus::start(raft_config, application, dial, &for_consensus)).await;
        let consensus = started.map_err(|error| StartError::Core(error.to_string()))??;
        let agreement = Agreement::Raft(consensus.clone());
        let peers = Arc::new(Peers::new(Arc::clone(&doors.dial)));
        let proposer = Proposer::new(agreement.clone(), published.clone(), Arc::clone(&peers), clock);
        let followers = Followers::default();
        let edges = Edges::new(followers.clone(), Arc::clone(&peers), agreement.clone(), clock);

        let fleet: Arc<OnceLock<FleetService>> = Arc::default();
        let parts = FleetParts {
            region: config.consensus.region.clone(),
            proposer: proposer.clone(),
            published: published.clone(),
            dial: Arc::clone(&doors.dial),
            registry: registry.clone(),
            clock,
        };
        tasks.spawn("fleet-start", parts.start_when_placed(Arc::clone(&fleet), followers.clone(), tasks.clone()));

        let shares = ShareParts {
            proposer: proposer.clone(),
            published: published.clone(),
            peers: Arc::clone(&peers),
            followers: followers.clone(),
            read: read_limits,
            lease: config.consensus.timing.election_max,
            clock,
            tasks: tasks.clone(),
        };
        let shares = ShareService::new(shares, &registry)?;
        shares.start();
        let take_shares = shares.clone();

        let api = Admin::new(AdminParts {
            proposer: proposer.clone(),
            published: published.clone(),
            peers,
            edges: edges.clone(),
            fleet: Arc::clone(&fleet),
            access: config.access.clone(),
            validate,
            validate_policy,
            keyring: config.keyring.clone(),
            pepper: config.pepper.clone(),
            join_peers: config.consensus.peers.clone(),
            build: build.clone(),
            clock,
            tasks: tasks.clone(),
        });
        let sync_service = Arc::new(SyncService::new(SyncParts {
            presence: presence(&agreement, &config, &build),
            published: published.clone(),
            followers: followers.clone(),
            take_report: take_report(Arc::clone(&fleet), followers.clone(), clock),
            take_shares: Arc::new(move |introduction, reports| take_shares.take(introduction, reports)),
            clock,
            staleness: staleness(&agreement, clock),
            admin: api.clone(),
            limits: SyncLimits::default(),
            tasks: tasks.clone(),
        }));
        let mounted = Mounted {
            raft: consensus.service(),
            relay: RelayService::server(proposer.clone(), config.consensus.name.clone(), build.clone()),
            sync: SyncServer::from_arc(Arc::clone(&sync_service)),
            shares: shares.grpc(),
            fleet: Arc::clone(&fleet),
        };
        // On the runtime of consensus: what is served there is light, and heartbeats must not wait for edges or operators.
        tasks.spawn_on(&consensus.handle(), "raft-listener", mount::serve(mounted, raft_door, tasks.shutdown().clone()));
        tasks.spawn("sync-listener", mount::serve(SyncServer::from_arc(sync_service), sync_door, tasks.shutdown().clone()));

        let lease = config.consensus.timing.election_max;
        let leading =
            LeaderParts { proposer: proposer.clone(), published: published.clone(), edges: edges.clone(), lease, clock, bake: config.bake };
        leader::start(leading, &tasks);
        let member = MemberMeta {
            node_id: 0,
            name: config.consensus.name.clone(),
            region: config.consensus.region.clone(),
            admin_address: config.admin_address.clone(),
            sync_address: config.sync_address.clone(),
            build,
        };
        leader::introduce(proposer.clone(), published.clone(), member, &tasks);
        tasks.spawn("audit-archive", archive::run(config.audit_archive, published.clone(), tasks.shutdown().clone()));

        tasks.spawn("admin-listener", admin::serve(api, admin_door));

        let operations = Tasks::with_shutdown(Shutdown::new());
        let operations_bound = operations_server.as_ref().map(OpsServer::local_addr);
        if let Some(server) = operations_server {
            let readiness = Readiness::new();
            tasks.spawn("readiness", ready(readiness.condition("cluster"), consensus.clone(), tasks.shutdown().clone()));
            server.serve(Operations { registry, readiness, routes: Vec::new() }, &operations);
        }
        let bound = NodeBound { raft, sync, admin: admin_bound, operations: operations_bound };
        Ok(Node { consensus, followers, published, tasks, operations, identity: doors.identity, clock, bound })
    }

    /// Addresses that were taken.
    pub fn bound(&self) -> &NodeBound {
        &self.bound
    }

    /// The agreed state.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The node's place in the cluster.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// Looks at the certificate files now, and not only with the next poll.
    pub fn refresh_files(&self) {
        if let Some(identity) = &self.identity {
            // What happened is logged and counted there.
            identity.reload_now(self.clock.unix_seconds());
        }
    }

    /// Why the node stopped by itself; waits until it does. The process should then end.
    pub async fn failed(&self) -> String {
        let mut status = self.consensus.watch_status();
        loop {
            if let Some(why) = status.borrow_and_update().fatal.clone() {
                return why;
            }
            if status.changed().await.is_err() {
                return "consensus has ended".to_owned();
            }
        }
    }

    /// Hands leadership over, sends edges elsewhere, and ends within `deadline`.
    pub async fn shutdown(self, deadline: Duration) {
        self.followers.send_away(&tidegate_proto::v1::GoAway {
            retry_after_ms: 0,
            reason: "this control node stops".to_owned(),
            ..Default::default()
        });
        self.consensus.shutdown().await;
        if let Err(unfinished) = self.tasks.close(deadline).await {
            tracing::warn!(%unfinished, "some tasks had to be cut off");
        }
        // Nothing of it is worth a word: it answers probes only.
        let _ = self.operations.close(Duration::from_secs(1)).await;
    }
}

/// How this node connects and is connected to.
struct Doors {
    identity: Option<Arc<Identity>>,
    dial: Arc<dyn Dial>,
    metrics: MeshMetrics,
    tasks: Tasks,
}

/// How often certificates are looked at for a change.
const RELOAD_IDENTITY: Duration = Duration::from_secs(30);

impl Doors {
    fn open(files: Option<IdentityFiles>, metrics: MeshMetrics, clock: Clock, tasks: &Tasks) -> Result<Doors, NodeError> {
        let Some(files) = files else {
            tracing::warn!("no identity is configured: everything between nodes is plain, which is for one machine only");
            return Ok(Doors { identity: None, dial: Arc::new(PlainDialer::default()), metrics, tasks: tasks.clone() });
        };
        let identity = Identity::load(files, Identity::DEFAULT_OVERLAP, clock.unix_seconds())?;
        identity.start(RELOAD_IDENTITY, clock, tasks);
        let dial = Arc::new(MtlsDialer::new(Arc::clone(&identity), metrics.clone(), MtlsOptions::default()));
        Ok(Doors { identity: Some(identity), dial, metrics, tasks: tasks.clone() })
    }

    fn listen(&self, address: SocketAddr, what: &'static str, admit: Admit) -> Result<(Arc<dyn Accept>, SocketAddr), NodeError> {
        let listener = listen::bind_tokio(address, listen::ListenOptions::default()).map_err(|error| error.with_setting(what))?;
        let bound = listener.local_addr().map_err(|source| NodeError::Listener { what, source })?;
        let door: Arc<dyn Accept> = match &self.identity {
            Some(identity) => {
                let (identity, metrics) = (Arc::clone(identity), self.metrics.clone());
                let started = MtlsListener::start(listener, identity, admit, metrics, MtlsOptions::default(), &self.tasks);
                Arc::new(started.map_err(|source| NodeError::Listener { what, source })?)
            }
            None => Arc::new(PlainListener::new(listener)),
        };
        Ok((door, bound))
    }
}

/// The state as consensus sees it.
struct Applied(Machine);

impl Application for Applied {
    fn apply(&mut self, index: u64, term: u64, payload: Bytes) -> Bytes {
        self.0.apply(index, term, payload)
    }

    fn understands(&self, payload: &[u8]) -> Result<(), String> {
        Machine::understands(payload)
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        Box::new(FrozenState(self.0.freeze()))
    }

    fn restore(&mut self, sections: Vec<(String, Bytes)>) -> Result<(), RestoreError> {
        self.0.restore(sections).map_err(|error| RestoreError { section: error.section().to_owned(), reason: error.to_string() })
    }
}

struct FrozenState(State);

impl Frozen for FrozenState {
    fn sections(&self) -> Vec<(String, Bytes)> {
        self.0.to_sections()
    }
}

/// What the region's share of health is made from, once the node has a number.
struct FleetParts {
    region: String,
    proposer: Proposer,
    published: Published,
    dial: Arc<dyn Dial>,
    registry: Registry,
    clock: Clock,
}

impl FleetParts {
    /// Ends when health is gathered, or with the stop of `tasks`.
    async fn start_when_placed(self, fleet: Arc<OnceLock<FleetService>>, followers: Followers, tasks: Tasks) {
        let mut status = self.proposer.agreement().watch_status();
        // Dropping either branch is safe: both are levels.
        let placed = tokio::select! {
            () = tasks.shutdown().requested() => return,
            placed = status.wait_for(|status| status.node_id != 0) => placed.map(|status| status.node_id),
        };
        let Ok(node_id) = placed else { return };
        let (named, proposing) = (self.published.clone(), self.proposer.clone());
        let (near, leading) = (self.proposer.agreement().clone(), self.proposer.agreement().clone());
        let guests = followers.clone();
        let peers = FleetPeers {
            published: self.published.clone(),
            names: Arc::new(move || endpoint_names(&named.load())),
            nodes_of: Arc::new(move |region| {
                let status = near.status();
                let others = status.members.into_iter().filter(|member| member.id != status.node_id && member.region == region);
                others.map(|member| member.address).collect()
            }),
            tell_guest: Arc::new(move |edge, view| guests.offer_health(edge, view)),
            leader: Arc::new(move || leader_of(&leading)),
            propose: Arc::new(move |batch| {
                let proposer = proposing.clone();
                Box::pin(async move { propose_health(&proposer, batch).await })
            }),
            dial: self.dial,
        };
        let config = FleetConfig { region: self.region, node_id };
        match FleetService::new(config, peers, self.clock, &self.registry) {
            Ok(service) => {
                service.start(&tasks);
                tasks.spawn("health-views", views::run(service.clone(), followers, tasks.shutdown().clone()));
                // Nobody else sets it.
                let _ = fleet.set(service);
            }
            Err(error) => tracing::error!(%error, "health is not gathered on this node"),
        }
    }
}

async fn propose_health(proposer: &Proposer, batch: HealthBatch) -> Result<(), String> {
    let status = proposer.agreement().status();
    let command = Command {
        actor: "system/health".to_owned(),
        term: status.term,
        body: Some(command::Body::HealthBatch(batch)),
        ..Command::default()
    };
    // Straight to this node's log: a batch of a leader that lost its place is not for another.
    proposer.here_only(command).await.map_err(|error| error.to_string())
}

fn leader_of(agreement: &Agreement) -> Leader {
    let status = agreement.status();
    match status.leader_member() {
        Some(leader) if leader.id == status.node_id => Leader::Here,
        Some(leader) => Leader::At(leader.instance.address),
        None => Leader::Unknown,
    }
}

fn presence(agreement: &Agreement, config: &ControlConfig, build: &str) -> Arc<dyn Fn() -> Option<Presence> + Send + Sync> {
    let agreement = agreement.clone();
    let (node, region, build) = (config.consensus.name.clone(), config.consensus.region.clone(), build.to_owned());
    Arc::new(move || {
        let cluster_id = agreement.status().cluster_id;
        let (node, region, build) = (node.clone(), region.clone(), build.clone());
        (!cluster_id.is_empty()).then_some(Presence { cluster_id, node, region, build })
    })
}

/// What the sync service does with reports: the fleet merges them, and followers are counted by what they had to tell.
pub fn take_report(fleet: Arc<OnceLock<FleetService>>, followers: Followers, clock: Clock) -> crate::api::sync::TakeReport {
    Arc::new(move |introduction, report| {
        let failed = |cell: &ReportCell| {
            let all = [cell.connect, cell.first_token_timeout, cell.server_error, cell.overloaded, cell.cut, cell.malformed];
            all.into_iter().map(u64::from).sum::<u64>()
        };
        let failures: u64 = report.cells.iter().map(failed).sum();
        let good: u64 = report.cells.iter().map(|cell| u64::from(cell.ok)).sum();
        // A report that is sent again counts once, with whoever merges it.
        let new = fleet.get().is_none_or(|fleet| fleet.report(&introduction.region, &introduction.edge, report) == Taken::New);
        if new {
            followers.count(introduction, good + failures, failures, clock.unix_millis());
        }
    })
}

/// Milliseconds since a quorum was last known to follow the leader that this node hears, or this node when it leads: what it serves may be
/// as old as that. That it can name a leader says nothing: a node that is cut off goes on naming the one it had.
fn staleness(agreement: &Agreement, clock: Clock) -> crate::api::sync::Staleness {
    let (agreement, last) = (agreement.clone(), AtomicU64::new(clock.unix_millis()));
    Arc::new(move || {
        let now = clock.unix_millis();
        if let Some(age) = agreement.status().millis_since_leader {
            last.fetch_max(now.saturating_sub(age), Ordering::Relaxed);
        }
        now.saturating_sub(last.load(Ordering::Relaxed))
    })
}

/// Ready while the node has a place in a cluster: also without a leader it serves edges what it has.
async fn ready(condition: tidegate_runtime::ops::Condition, consensus: Consensus, shutdown: Shutdown) {
    let mut status = consensus.watch_status();
    loop {
        let now = status.borrow_and_update().clone();
        match (&now.fatal, now.node_id) {
            (Some(why), _) => condition.unmet(format!("stopped: {why}")),
            (None, 0) => condition.unmet("belongs to no cluster: `tidegate control init` or `join`"),
            (None, _) => condition.met(),
        }
        // Dropping either branch is safe: both are levels.
        tokio::select! {
            () = shutdown.requested() => {
                condition.unmet("stopping");
                return;
            }
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}
