//! Control nodes and edges in a network in memory: the real services and the real link, in a runtime whose time is paused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_control::api::sync::{Presence, SyncLimits, SyncParts, SyncService};
use tidegate_control::publisher::Followers;
use tidegate_control::{Agreement, Alone, Machine, Published, State};
use tidegate_edge::config::{
    AccessLogConfig, ControlEndpoint, ControlLinkConfig, EdgeConfig, LedgerConfig, Limits, QuotaConfig, RuntimeModel, WorkerConfig,
};
use tidegate_edge::control_link::ControlServices;
use tidegate_edge::simulation::SimulatedEdge;
use tidegate_proto::Kind;
use tidegate_proto::v1::sync_server::SyncServer;
use tidegate_proto::v1::{Change, Command, CreateKey, Resource, command};
use tidegate_runtime::mesh::{incoming, server};
use tidegate_runtime::{Clock, Tasks};

use crate::control::{Body, Leading, compile, key_of, leading, read_policy, resource};
use crate::network::Network;
use crate::topology::{KEY, unserved};

/// Wall time at which every simulation begins.
pub const BEGIN: Duration = Duration::from_secs(1_800_000_000);

/// A control node: the real sync service over a state that the simulation applies entries to.
pub struct SimulatedNode {
    place: String,
    network: Network,
    clock: Clock,
    published: Published,
    limits: SyncLimits,
    /// When it last knew that it is up to date, Unix milliseconds.
    current_ms: Arc<AtomicU64>,
    serving: Option<Serving>,
    /// Bytes that waited for an edge at most, over all lives of this node.
    most_waiting: BTreeMap<String, u64>,
}

struct Serving {
    tasks: Tasks,
    followers: Followers,
}

impl SimulatedNode {
    /// A node that serves at a place.
    #[must_use]
    pub fn start(place: &str, network: &Network, clock: Clock, limits: SyncLimits) -> Self {
        let mut node = Self {
            place: place.to_owned(),
            network: network.clone(),
            clock,
            published: Published::new(State::default()),
            limits,
            current_ms: Arc::new(AtomicU64::new(clock.unix_millis())),
            serving: None,
            most_waiting: BTreeMap::new(),
        };
        node.serve();
        node
    }

    fn serve(&mut self) {
        let (tasks, followers) = (Tasks::new(), Followers::default());
        let presence = Presence {
            cluster_id: "test-cluster".to_owned(),
            node: self.place.clone(),
            region: "test".to_owned(),
            build: "test".to_owned(),
        };
        let agreement = Agreement::Alone(Alone::new("test-cluster", Machine::new()));
        let Leading { admin, .. } = leading(agreement, &self.published, &followers, self.clock, &tasks);
        let (clock, current_ms) = (self.clock, Arc::clone(&self.current_ms));
        let service = SyncService::new(SyncParts {
            admin,
            presence: Arc::new(move || Some(presence.clone())),
            published: self.published.clone(),
            followers: followers.clone(),
            take_report: Arc::new(|_, _| {}),
            take_shares: Arc::new(|_, _| {}),
            staleness: Arc::new(move || clock.unix_millis().saturating_sub(current_ms.load(Ordering::Relaxed))),
            limits: self.limits,
            clock,
            tasks: tasks.clone(),
        });
        let door = self.network.listen(&self.place);
        tasks.spawn("control-node", async move {
            let _ = server().add_service(SyncServer::new(service)).serve_with_incoming(incoming(door)).await;
        });
        self.serving = Some(Serving { tasks, followers });
    }

    /// The process dies; what it had applied is on its disk.
    pub async fn kill(&mut self) {
        self.note_waiting();
        let Some(Serving { tasks, .. }) = self.serving.take() else { return };
        self.network.kill(&self.place);
        let _ = tasks.close(Duration::ZERO).await;
    }

    /// It starts again, if it is dead.
    pub fn revive(&mut self) {
        if self.serving.is_none() {
            self.serve();
        }
    }

    /// Whether it serves.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.serving.is_some()
    }

    /// Applies entries of the log up to an index, if it lives; `current` says that there are no newer ones.
    pub fn apply(&self, log: &[Command], to: u64, current: bool) {
        if !self.lives() {
            return;
        }
        let mut state = (*self.published.load()).clone();
        while state.applied() < to {
            let index = state.applied() + 1;
            state.apply(index, 1, &log[usize::try_from(index).expect("small") - 1]);
        }
        self.published.publish(&state);
        if current {
            self.current_ms.store(self.clock.unix_millis(), Ordering::Relaxed);
        }
    }

    /// Edges that follow it.
    #[must_use]
    pub fn followers(&self) -> Followers {
        self.serving.as_ref().map(|serving| serving.followers.clone()).unwrap_or_default()
    }

    /// Most bytes that ever waited for an edge at this node, by edge.
    pub fn most_waiting(&mut self) -> &BTreeMap<String, u64> {
        self.note_waiting();
        &self.most_waiting
    }

    fn note_waiting(&mut self) {
        for follower in self.followers().all() {
            let most = self.most_waiting.entry(follower.introduction.edge.clone()).or_default();
            *most = (*most).max(follower.most_waiting());
        }
    }
}

/// How an edge of a simulation is configured.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// Its name, in the mesh and in the network.
    pub name: &'a str,
    /// Places of control nodes.
    pub nodes: Vec<String>,
    /// Where it keeps its state.
    pub state_dir: &'a Path,
    /// How long known keys are served without word from the control plane; the default when absent.
    pub key_grace: Option<Duration>,
}

/// Starts an edge.
#[must_use]
pub fn edge(network: &Network, clock: Clock, place: &Place<'_>) -> SimulatedEdge {
    let endpoints = place.nodes.iter().map(|node| ControlEndpoint { address: node.clone(), region: None }).collect();
    let mut link = ControlLinkConfig::new(place.name, endpoints);
    link.state_dir = Some(place.state_dir.to_owned());
    link.key_grace = place.key_grace.unwrap_or(link.key_grace);
    // Shorter than in earnest, so that what is proven in a short simulation is kept in it.
    link.bake = Duration::from_secs(2);
    let config = EdgeConfig {
        listeners: Vec::new(),
        operations: None,
        workers: WorkerConfig { threads: 1, model: RuntimeModel::PerCore },
        limits: Limits::default(),
        access_log: AccessLogConfig::Off,
        region: "test".to_owned(),
        generations_kept: 1,
        generations_ttl: Duration::from_secs(1),
        control: Some(link),
        ledger: LedgerConfig::default(),
        quota: QuotaConfig::default(),
    };
    let services = ControlServices {
        dial: network.dialer(place.name),
        compile: compile(Arc::new(unserved(&["a", "b"]))),
        read_policy: Arc::new(read_policy),
    };
    SimulatedEdge::start(config, clock, services)
}

/// The first entries of a log: two providers of one model `m`, and the key of [`KEY`].
#[must_use]
pub fn foundation() -> Vec<command::Body> {
    let resources: Vec<Resource> =
        [(Kind::Provider, "a"), (Kind::Provider, "b"), (Kind::Model, "m"), (Kind::Endpoint, "a/m"), (Kind::Endpoint, "b/m")]
            .into_iter()
            .map(|(kind, name)| resource(kind, name, &Body::default()))
            .collect();
    vec![
        command::Body::Change(Change { upserts: resources, immediate: true, ..Change::default() }),
        command::Body::CreateKey(CreateKey { key: Some(key_of("test", KEY, "")), ..CreateKey::default() }),
    ]
}
