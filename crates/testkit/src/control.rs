//! A control node and edges that follow it, in one process over loopback.
//!
//! The node is the real state machine behind the real sync service; what is agreed is what the test says, in order, as one node's log
//! would have it. Resources stand for parts of the topology: an endpoint, model or provider is there when its resource is, and its body
//! can change it or make it harmful (see [`Body`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidegate_control::admin::{Access, Admin, AdminParts};
use tidegate_control::api::sync::{Presence, SyncLimits, SyncParts, SyncService};
use tidegate_control::fleet::{FleetService, HealthTable};
use tidegate_control::leader::{self, LeaderParts};
use tidegate_control::publisher::Followers;
use tidegate_control::shares::{Declared, ShareParts, ShareService};
use tidegate_control::{Agreement, Alone, Edges, Machine, Peers, Proposer, Published};
use tidegate_edge::Edge;
use tidegate_edge::config::{ControlEndpoint, ControlLinkConfig, EdgeConfig, KeyPolicy, MeshConfig, OrganisationConfig};
use tidegate_edge::control_link::{Compile, ControlServices, nothing};
use tidegate_ledger::{Fee, Rate};
use tidegate_proto::v1::sync_server::SyncServer;
use tidegate_proto::v1::{
    Change, Command, CreateKey, EdgeStatus, EditKey, GoAway, Key, KeySecret, Reply, Resource, ResourceId, RevokeKeys, command, reply,
};
use tidegate_proto::{Kind, Problem, ResourceMap};
use tidegate_provider_sim::SimHandle;
use tidegate_quota::{Dimension, Limit, Scope, Window};
use tidegate_runtime::clock::{Clock, Forward};
use tidegate_runtime::mesh::{PlainDialer, PlainListener, incoming};
use tidegate_runtime::{Shutdown, Tasks};

use crate::caller::Caller;
use crate::health::Shared;
use crate::topology::{KEY, Parts, Topology, metric_of};

/// One control node.
pub struct ControlNode {
    alone: Alone,
    published: Published,
    serving: Mutex<Option<Serving>>,
    address: SocketAddr,
    limits: SyncLimits,
    region: String,
    /// Health is gathered here, with these others.
    health: Option<Shared>,
    bake: Duration,
}

struct Serving {
    tasks: Tasks,
    followers: Followers,
    stop: Shutdown,
    fleet: Option<FleetService>,
}

/// What the body of a test's resource says, as JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Body {
    /// Of an endpoint: no new requests.
    pub drained: bool,
    /// Of an endpoint: US dollars per million tokens.
    pub price: Option<String>,
    /// Of an organisation: requests per minute that its keys share.
    pub requests_per_minute: Option<u64>,
    /// Of an organisation: requests per minute that its keys share in all regions.
    pub global_requests_per_minute: Option<u64>,
    /// Of an organisation: US dollars, ever, that its keys share in all regions.
    pub global_spend_total: Option<f64>,
    /// Of the mesh's defaults (named `mesh`): the regions that share limits.
    pub quota_regions: Vec<String>,
    /// Of an organisation: what it pays on top, parts per million.
    pub markup_ppm: u32,
    /// Compiling it fails with this message.
    pub wrong: Option<String>,
    /// One of [`crate::poison::POISONS`] is done to the mesh.
    pub poison: Option<String>,
    /// Compiling it panics.
    pub panic: bool,
    /// Compiling it ends the process.
    pub abort: bool,
}

impl Body {
    /// The limits of an organisation.
    fn limits(&self) -> Vec<Limit> {
        let rate = |amount| Limit::new(Scope::Organisation, Dimension::RequestsPerMinute, amount);
        let regional = self.requests_per_minute.map(rate);
        let global = self.global_requests_per_minute.map(rate);
        let budget =
            self.global_spend_total.map(|usd| Limit::new(Scope::Organisation, Dimension::Spend(Window::Total), (usd * 1e6).round() as u64));
        regional.into_iter().chain(global.into_iter().chain(budget).map(|limit| Limit { global: true, ..limit })).collect()
    }
}

impl Default for ControlNode {
    fn default() -> Self {
        Self::new()
    }
}

impl ControlNode {
    /// A node that serves on a free port, with an empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(SyncLimits::default())
    }

    /// With other bounds of the sync service.
    #[must_use]
    pub fn with_limits(limits: SyncLimits) -> Self {
        let machine = Machine::new();
        let published = machine.published().clone();
        Self::over(Alone::new("test-cluster", machine), published, limits, "test", None)
    }

    /// The first of several nodes that gather health, all over one log that this one leads.
    #[must_use]
    pub(crate) fn leading(region: &str, health: Shared) -> Self {
        let machine = Machine::new();
        let published = machine.published().clone();
        Self::over(Alone::new("test-cluster", machine), published, SyncLimits::default(), region, Some(health))
    }

    /// One more node over this one's log.
    #[must_use]
    pub(crate) fn beside(&self, region: &str) -> Self {
        Self::over(self.alone.clone(), self.published.clone(), self.limits, region, self.health.clone())
    }

    fn over(alone: Alone, published: Published, limits: SyncLimits, region: &str, health: Option<Shared>) -> Self {
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
        let address = socket.local_addr().expect("it is bound");
        let node =
            Self { alone, published, serving: Mutex::new(None), address, limits, region: region.to_owned(), health, bake: Duration::ZERO };
        node.serve(socket);
        node
    }

    fn serve(&self, socket: std::net::TcpListener) {
        socket.set_nonblocking(true).expect("a socket of ours");
        let listener = tokio::net::TcpListener::from_std(socket).expect("within a runtime");
        let (tasks, followers, stop) = (Tasks::new(), Followers::default(), Shutdown::new());
        let presence = Presence {
            cluster_id: "test-cluster".to_owned(),
            node: "control-1".to_owned(),
            region: self.region.clone(),
            build: "test".to_owned(),
        };
        let (agreement, clock) = (Agreement::Alone(self.alone.clone()), Clock::start());
        let Leading { admin, proposer, edges, peers } = leading(agreement, &self.published, &followers, clock, &tasks);
        let sharing = (proposer.clone(), peers);
        let leading =
            LeaderParts { proposer, published: self.published.clone(), edges, lease: Duration::from_secs(1), clock, bake: self.bake };
        leader::start(leading, &tasks);
        let (sharing, sharing_peers) = sharing;
        let fleet: Arc<OnceLock<FleetService>> = Arc::default();
        if let Some(health) = &self.health {
            let address = self.address.to_string();
            let service = health.gather(&self.region, &address, &self.alone, &self.published, &followers, &tasks);
            let _ = fleet.set(service);
        }
        let shares = ShareParts {
            proposer: sharing,
            published: self.published.clone(),
            peers: sharing_peers,
            followers: followers.clone(),
            read: Arc::new(read_limits),
            lease: Duration::from_secs(1),
            clock,
            tasks: tasks.clone(),
        };
        let shares = ShareService::new(shares, &prometheus::Registry::new()).expect("a registry of its own");
        shares.start();
        let service = SyncService::new(SyncParts {
            admin,
            take_shares: Arc::new(move |introduction, reports| shares.take(introduction, reports)),
            presence: Arc::new(move || Some(presence.clone())),
            published: self.published.clone(),
            followers: followers.clone(),
            take_report: tidegate_control::node::take_report(Arc::clone(&fleet), followers.clone(), clock),
            staleness: Arc::new(|| 0),
            limits: self.limits,
            clock,
            tasks: tasks.clone(),
        });
        let stopping = stop.clone();
        let gathering = fleet.get().cloned();
        let serving = tonic::transport::Server::builder()
            .add_service(SyncServer::new(service))
            .add_optional_service(gathering.as_ref().map(FleetService::grpc))
            .serve_with_incoming(incoming(Arc::new(PlainListener::new(listener))));
        tasks.spawn("control-node", async move {
            // Losing the server is the point of a stop: its connections break as those of a killed process do.
            tokio::select! {
                _ = serving => {}
                () = stopping.requested() => {}
            }
        });
        *self.serving.lock() = Some(Serving { tasks, followers, stop, fleet: gathering });
    }

    /// Where edges connect.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends the node at once, as a kill does. What was agreed is still there for [`ControlNode::revive`].
    pub async fn kill(&self) {
        let serving = self.serving.lock().take();
        if let Some(Serving { tasks, stop, .. }) = serving {
            stop.request();
            let _ = tasks.close(Duration::ZERO).await;
        }
    }

    /// Lets stages of rollouts last so long. The node starts anew for it.
    pub async fn bake(&mut self, bake: Duration) {
        self.kill().await;
        self.bake = bake;
        self.revive().await;
    }

    /// Serves again, at the same address.
    pub async fn revive(&self) {
        let socket = crate::control::until(|| std::net::TcpListener::bind(self.address).ok()).await;
        self.serve(socket);
    }

    /// Agrees on a command; the index at which it is so.
    pub fn agree(&self, body: command::Body) -> u64 {
        let (index, reply) = self.propose(body);
        assert!(matches!(reply.outcome, Some(reply::Outcome::Applied(_))), "{reply:?}");
        index
    }

    /// Agrees on a command that may be refused.
    pub fn try_agree(&self, body: command::Body) -> Reply {
        self.propose(body).1
    }

    fn propose(&self, body: command::Body) -> (u64, Reply) {
        use prost::Message;
        let millis = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        let leader_time_ms = u64::try_from(millis).expect("not that far in the future");
        let command = Command { leader_time_ms, actor: "test".to_owned(), body: Some(body), ..Command::default() };
        let committed = self.alone.propose(command.encode_to_vec().into());
        (committed.index, Reply::decode(committed.response).expect("the machine's own reply"))
    }

    /// What the node's region knows of health, and what others told.
    ///
    /// # Panics
    /// For a node that is dead or gathers none.
    #[must_use]
    pub fn health(&self) -> HealthTable {
        self.serving.lock().as_ref().and_then(|serving| serving.fleet.as_ref()).expect("a node that gathers health").table()
    }

    /// Newest index.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.published.load().applied()
    }

    /// Where the state is published.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Declares things, at once for every edge.
    pub fn put(&self, resources: &[(Kind, &str, Body)]) -> u64 {
        let upserts = resources.iter().map(|(kind, name, body)| resource(*kind, name, body)).collect();
        self.agree(command::Body::Change(Change { upserts, immediate: true, ..Change::default() }))
    }

    /// Declares things, in the stages of a rollout. The leader's task takes a step each second.
    pub fn put_staged(&self, resources: &[(Kind, &str, Body)]) -> u64 {
        let upserts = resources.iter().map(|(kind, name, body)| resource(*kind, name, body)).collect();
        self.agree(command::Body::Change(Change { upserts, ..Change::default() }))
    }

    /// Takes a declared thing away.
    pub fn remove(&self, kind: Kind, name: &str) -> u64 {
        let removes = vec![id(kind, name)];
        self.agree(command::Body::Change(Change { removes, immediate: true, ..Change::default() }))
    }

    /// Makes a key.
    pub fn create_key(&self, public_id: &str, text: &str) -> u64 {
        self.agree(command::Body::CreateKey(CreateKey { key: Some(key_of(public_id, text, "")), ..CreateKey::default() }))
    }

    /// Makes a key of an organisation.
    pub fn create_member(&self, public_id: &str, text: &str, organisation: &str) -> u64 {
        let key = Key { organisation: organisation.to_owned(), ..key_of(public_id, text, "") };
        self.agree(command::Body::CreateKey(CreateKey { key: Some(key), ..CreateKey::default() }))
    }

    /// Disables or enables a key.
    pub fn set_disabled(&self, public_id: &str, disabled: bool) -> u64 {
        let edit = EditKey { public_id: public_id.to_owned(), disabled: Some(disabled), ..EditKey::default() };
        self.agree(command::Body::EditKey(edit))
    }

    /// Revokes a key.
    pub fn revoke(&self, public_id: &str, kill_streams: bool) -> u64 {
        self.agree(command::Body::RevokeKeys(RevokeKeys { public_ids: vec![public_id.to_owned()], kill_streams }))
    }

    /// Edges that follow this node; none while it is dead.
    #[must_use]
    pub fn followers(&self) -> Followers {
        self.serving.lock().as_ref().map(|serving| serving.followers.clone()).unwrap_or_default()
    }

    /// The edge of this name, if it follows.
    #[must_use]
    pub fn edge(&self, name: &str) -> Option<EdgeStatus> {
        self.followers().statuses(0).into_iter().find(|status| status.edge == name)
    }

    /// Waits until an edge routes by an index.
    pub async fn until_applied(&self, name: &str, index: u64) -> EdgeStatus {
        until(|| self.edge(name).filter(|status| status.applied >= index)).await
    }

    /// Waits until an edge refuses an index.
    pub async fn until_refused(&self, name: &str, index: u64) -> EdgeStatus {
        until(|| self.edge(name).filter(|status| status.refused.as_ref().is_some_and(|nack| nack.index >= index))).await
    }

    /// Sends every edge away.
    pub fn send_away(&self) {
        self.followers().send_away(&GoAway { reason: "a test".to_owned(), ..GoAway::default() });
    }
}

/// What a node does besides serving edges.
pub(crate) struct Leading {
    pub(crate) admin: Admin,
    proposer: Proposer,
    edges: Edges,
    peers: Arc<Peers>,
}

/// An admin API over a log, without an address.
pub(crate) fn leading(agreement: Agreement, published: &Published, followers: &Followers, clock: Clock, tasks: &Tasks) -> Leading {
    let peers = Arc::new(Peers::new(Arc::new(PlainDialer::default())));
    let proposer = Proposer::new(agreement.clone(), published.clone(), Arc::clone(&peers), clock);
    let edges = Edges::new(followers.clone(), Arc::clone(&peers), agreement, clock);
    let admin = Admin::new(AdminParts {
        proposer: proposer.clone(),
        published: published.clone(),
        peers: Arc::clone(&peers),
        edges: edges.clone(),
        fleet: Arc::default(),
        access: Access::default(),
        validate: Arc::new(|_| Ok(())),
        validate_policy: Arc::new(|policy| {
            let problem = |message| Problem { resource: None, path: String::new(), message, help: Vec::new() };
            read_policy(policy).map(drop).map_err(|message| vec![problem(message)])
        }),
        keyring: None,
        pepper: None,
        join_peers: Vec::new(),
        build: "test".to_owned(),
        clock,
        tasks: tasks.clone(),
    });
    Leading { admin, proposer, edges, peers }
}

/// What a key of the agreed state looks like.
#[must_use]
pub fn key_of(public_id: &str, text: &str, policy: &str) -> Key {
    let digest = tidegate_edge::auth::digest(text, None).to_vec().into();
    Key {
        public_id: public_id.to_owned(),
        name: public_id.to_owned(),
        secrets: vec![KeySecret { digest, ..KeySecret::default() }],
        policy: policy.to_owned().into(),
        ..Key::default()
    }
}

/// Id of a resource.
#[must_use]
pub fn id(kind: Kind, name: &str) -> ResourceId {
    ResourceId { kind: kind.as_str().to_owned(), name: name.to_owned() }
}

/// A resource of these tests, as it is declared.
#[must_use]
pub fn resource(kind: Kind, name: &str, body: &Body) -> Resource {
    let body = serde_json::to_vec(body).expect("plain values");
    Resource { id: Some(id(kind, name)), body: body.into(), revision: 0 }
}

/// A control node, the topology that it has agreed on, and edges to start.
pub struct Following {
    /// The node.
    pub node: ControlNode,
    base: Arc<MeshConfig>,
    sims: HashMap<String, SimHandle>,
    state: tempfile::TempDir,
    /// The edges' time.
    pub clock: Clock,
    /// Lets the edges' time pass.
    pub forward: Forward,
    /// Changeable before an edge is started.
    pub link: ControlLinkConfig,
    /// Changeable before an edge is started.
    pub edge_config: EdgeConfig,
}

/// An edge that follows.
pub struct FollowingEdge {
    /// The edge itself.
    pub edge: Edge,
    caller: Caller,
}

impl Topology {
    /// Starts the providers and a control node that has agreed on this topology and its first key (public id `test`).
    #[must_use]
    pub fn under_control(self) -> Following {
        let (clock, forward) = Clock::movable();
        self.following(ControlNode::new(), "test", (clock, forward)).declared()
    }

    /// Starts the same topology once per region, each with its own providers, and a control node for each. They share one log, which the
    /// first leads, and gather health. All time is one clock's.
    #[must_use]
    pub fn in_regions(regions: &[&str], topology: impl Fn() -> Topology) -> Vec<Following> {
        let (clock, forward) = Clock::movable();
        let mut all: Vec<Following> = Vec::new();
        for region in regions {
            let node = match all.first() {
                Some(first) => first.node.beside(region),
                None => ControlNode::leading(region, Shared::new(clock)),
            };
            let following = topology().following(node, region, (clock, forward));
            all.push(if all.is_empty() { following.declared() } else { following });
        }
        all
    }

    fn following(self, node: ControlNode, region: &str, (clock, forward): (Clock, Forward)) -> Following {
        let Parts { mut edge, mesh, sims, .. } = self.build();
        region.clone_into(&mut edge.region);
        let endpoint = ControlEndpoint { address: node.address(), region: None };
        let link = ControlLinkConfig { bake: Duration::ZERO, ..ControlLinkConfig::new("edge", vec![endpoint]) };
        Following {
            node,
            base: Arc::new(mesh),
            edge_config: edge,
            sims,
            state: tempfile::tempdir().expect("a directory"),
            clock,
            forward,
            link,
        }
    }
}

impl Following {
    /// Agrees on the topology and the first key.
    fn declared(self) -> Following {
        let mesh = &self.base;
        let names = mesh.providers.iter().map(|provider| (Kind::Provider, provider.info.slug.to_string()));
        let names = names.chain(mesh.models.iter().map(|model| (Kind::Model, model.slug.clone())));
        let names: Vec<_> = names.chain(mesh.endpoints.iter().map(|endpoint| (Kind::Endpoint, endpoint.name.clone()))).collect();
        self.node.put(&names.iter().map(|(kind, name)| (*kind, name.as_str(), Body::default())).collect::<Vec<_>>());
        self.node.create_key("test", KEY);
        self
    }

    /// Starts an edge that keeps its state under its name. It may not be ready yet.
    pub async fn edge(&self, name: &str) -> FollowingEdge {
        self.edge_in(name, self.state_dir(name)).await
    }

    /// Starts an edge that keeps its state in this directory.
    pub async fn edge_in(&self, name: &str, state_dir: PathBuf) -> FollowingEdge {
        let control = ControlLinkConfig { edge: name.to_owned(), state_dir: Some(state_dir), ..self.link.clone() };
        let config = EdgeConfig { control: Some(control), ..self.edge_config.clone() };
        let services = tidegate_edge::Services {
            clock: self.clock,
            control: Some(ControlServices {
                dial: Arc::new(PlainDialer::default()),
                compile: compile(Arc::clone(&self.base)),
                read_policy: Arc::new(read_policy),
            }),
            ..tidegate_edge::Services::default()
        };
        let edge = Box::pin(Edge::start(config, nothing(), services)).await.expect("the edge starts");
        let caller = Caller::new(edge.bound().listeners[0].1).with_key(KEY);
        FollowingEdge { edge, caller }
    }

    /// Starts an edge and waits until it routes by what is agreed.
    pub async fn ready_edge(&self, name: &str) -> FollowingEdge {
        let edge = self.edge(name).await;
        self.node.until_applied(name, self.node.index()).await;
        edge.until_ready().await;
        edge
    }

    /// The region that its edges are in.
    #[must_use]
    pub fn edge_region(&self) -> String {
        self.edge_config.region.clone()
    }

    /// Where an edge of this name keeps its state.
    #[must_use]
    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    /// A simulated provider by slug.
    #[must_use]
    pub fn sim(&self, slug: &str) -> &SimHandle {
        self.sims.get(slug).expect("a provider of this topology")
    }
}

impl FollowingEdge {
    /// A caller with the first key, to be changed.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Number of the revision that it routes by.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.edge.revision()
    }

    /// Waits until the edge is ready.
    pub async fn until_ready(&self) {
        until(|| self.edge.readiness().ok()).await;
    }

    /// A metric's value, as [`crate::Mesh::metric`].
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric_of(&self.edge, name, labels)
    }
}

impl std::ops::Deref for FollowingEdge {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// Asks until there is something, for as long as a test may wait.
pub async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.expect("what is waited for comes")
}

/// The topology, as far as there are resources for it.
pub(crate) fn compile(base: Arc<MeshConfig>) -> Compile {
    Arc::new(move |_cluster: &str, resources: &ResourceMap| {
        let mut bodies: HashMap<(Kind, String), Body> = HashMap::new();
        let mut problems = Vec::new();
        for resource in resources.iter() {
            let Some(id) = &resource.id else { continue };
            let (Ok(kind), Ok(body)) = (id.kind.parse::<Kind>(), serde_json::from_slice::<Body>(&resource.body)) else { continue };
            assert!(!body.panic, "a configuration that panics");
            if body.abort {
                std::process::abort();
            }
            if let Some(message) = &body.wrong {
                problems.push(Problem { resource: Some(id.clone()), path: String::new(), message: message.clone(), help: Vec::new() });
            }
            bodies.insert((kind, id.name.clone()), body);
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let there = |kind, name: &str| bodies.get(&(kind, name.to_owned()));
        let mut mesh = (*base).clone();
        mesh.keys.clear();
        for ((_, name), body) in bodies.iter().filter(|((kind, _), _)| *kind == Kind::Organisation) {
            mesh.organisations.push(OrganisationConfig {
                fee: Fee { markup_ppm: body.markup_ppm, own_key_ppm: 0 },
                limits: body.limits(),
                ..OrganisationConfig::new(name)
            });
        }
        if let Some(body) = there(Kind::Defaults, "mesh") {
            mesh.defaults.quota_regions.clone_from(&body.quota_regions);
        }
        mesh.providers.retain(|provider| there(Kind::Provider, &provider.info.slug).is_some());
        mesh.models.retain(|model| there(Kind::Model, &model.slug).is_some());
        mesh.endpoints.retain_mut(|endpoint| {
            let Some(body) = there(Kind::Endpoint, &endpoint.name) else { return false };
            endpoint.drained = body.drained;
            if let Some(rate) = body.price.as_deref().and_then(|price| Rate::per_million_usd(price).ok()) {
                (endpoint.prices.prompt, endpoint.prices.completion) = (rate, rate);
            }
            true
        });
        for name in bodies.values().filter_map(|body| body.poison.as_deref()) {
            crate::poison::apply(name, &mut mesh);
        }
        Ok(mesh)
    })
}

/// What home of shared limits reads from a test's resource.
fn read_limits(kind: Kind, body: &[u8]) -> Declared {
    let body = serde_json::from_slice::<Body>(body).unwrap_or_default();
    match kind {
        Kind::Organisation => Declared { limits: body.limits(), regions: Vec::new() },
        Kind::Defaults => Declared { limits: Vec::new(), regions: body.quota_regions },
        _ => Declared::default(),
    }
}

/// `{"grace_seconds": N, "limits": [{"spend_total": USD}, …]}`, or nothing.
pub(crate) fn read_policy(text: &[u8]) -> Result<KeyPolicy, String> {
    #[derive(Deserialize)]
    struct Raw {
        grace_seconds: Option<u64>,
        #[serde(default)]
        limits: Vec<HashMap<String, f64>>,
    }
    let raw: Raw = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut limits = Vec::new();
    for (name, usd) in raw.limits.into_iter().flatten() {
        let window = match name.as_str() {
            "spend_per_day" => Window::Day,
            "spend_per_week" => Window::Week,
            "spend_per_month" => Window::Month,
            "spend_total" => Window::Total,
            other => return Err(format!("no limit of these tests: `{other}`")),
        };
        limits.push(Limit::new(Scope::Key, Dimension::Spend(window), (usd * 1e6).round() as u64));
    }
    Ok(KeyPolicy { grace: raw.grace_seconds.map(Duration::from_secs), limits, ..KeyPolicy::default() })
}

/// Makes a small file of a test's resources unreadable, as a failing disk does.
pub fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file of this test");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(path, bytes).expect("a file of this test");
}
