//! The shell around [`Fleet`]: the lock, the ticks, and the calls between control nodes.
//!
//! Everything has its beat and nothing waits for it without need: what may change a verdict is judged, told to the region's other nodes,
//! sent to the leader and brought into the log as soon as the one before it allows. Each of these has a task of its own, so that a
//! neighbour that does not answer delays no verdict.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use thiserror::Error;
use tidegate_proto::v1::fleet_client::FleetClient;
use tidegate_proto::v1::fleet_server;
use tidegate_proto::v1::{FleetExchange, FleetExchanged, HealthBatch, HealthReport, HealthView, RegionDigest, RegionDigested};
use tidegate_routing::{EndpointId, Timestamp};
use tidegate_runtime::mesh::{BoxFuture, ChannelOptions, Dial, Expect, Peer, Role, channel};
use tidegate_runtime::{Clock, Shutdown, Tasks};
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::gauges::HealthGauges;
use super::guests::{Errand, Guests};
use super::{Fleet, HealthTable, Taken, ViewCursor};
use crate::health_batch::HealthBatcher;
use crate::published::Published;

/// Who this node is.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// Its region.
    pub region: String,
    /// Its number in the cluster.
    pub node_id: u64,
}

/// See [`FleetPeers::nodes_of`].
pub type NodesOf = Arc<dyn Fn(&str) -> Vec<String> + Send + Sync>;

/// See [`FleetPeers::tell_guest`].
pub type TellGuest = Arc<dyn Fn(&str, &HealthView) + Send + Sync>;

/// What the fleet needs of the rest of the node. All of it may change at any time, so it is asked each time.
#[derive(Clone)]
pub struct FleetPeers {
    /// The agreed state, with what regions said.
    pub published: Published,
    /// Name and provider of every declared endpoint.
    pub names: Arc<dyn Fn() -> HashMap<EndpointId, (String, String)> + Send + Sync>,
    /// Addresses of the control nodes of a region, without this one.
    pub nodes_of: NodesOf,
    /// Tells an edge that follows this node what its region says, where that is another one.
    pub tell_guest: TellGuest,
    /// Where the leader is, and whether it is this node.
    pub leader: Arc<dyn Fn() -> Leader + Send + Sync>,
    /// Proposes an entry, stamped with this node's time; ends when it is in the log, or says why not.
    pub propose: Arc<dyn Fn(HealthBatch) -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
    /// Connects to control nodes.
    pub dial: Arc<dyn Dial>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// This node.
    Here,
    /// The node at this address.
    At(String),
    /// Nobody that this node knows of.
    Unknown,
}

/// Why the fleet does not start.
#[derive(Debug, Error)]
pub enum FleetError {
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// One node's share in shared health. Cheap to clone.
#[derive(Clone)]
pub struct FleetService {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    region: String,
    node_id: u64,
    fleet: Mutex<Fleet>,
    guests: Mutex<Guests>,
    batcher: Mutex<HealthBatcher>,
    peers: FleetPeers,
    clock: Clock,
    /// Counts up when edges have something new to hear.
    changes: watch::Sender<u64>,
    bells: Bells,
    metrics: FleetMetrics,
}

/// What the tasks wake each other by.
#[derive(Default)]
struct Bells {
    /// Something was said that may change a verdict.
    stirred: Notify,
    /// The same, for the other nodes of the region.
    tell: Notify,
    /// An edge of another region said something.
    guests: Notify,
    /// Verdicts were looked at anew.
    judged: Notify,
    /// A digest has come in, here where the leader is.
    digested: Notify,
}

struct FleetMetrics {
    reports: IntCounterVec,
    edges: IntGaugeVec,
    entries: IntCounter,
    entry_bytes: IntCounter,
}

impl FleetMetrics {
    fn register(registry: &Registry) -> prometheus::Result<FleetMetrics> {
        let metrics = FleetMetrics {
            reports: IntCounterVec::new(
                Opts::new("tidegate_fleet_reports_total", "Health reports of edges, by what became of them."),
                &["result"],
            )?,
            edges: IntGaugeVec::new(
                Opts::new("tidegate_fleet_edges", "Edges of the region that reported in the last ten seconds."),
                &["state"],
            )?,
            entries: IntCounter::new("tidegate_health_entries_total", "Health entries that this node brought into the log.")?,
            entry_bytes: IntCounter::new("tidegate_health_entry_bytes_total", "Bytes of those entries.")?,
        };
        registry.register(Box::new(metrics.reports.clone()))?;
        registry.register(Box::new(metrics.edges.clone()))?;
        registry.register(Box::new(metrics.entries.clone()))?;
        registry.register(Box::new(metrics.entry_bytes.clone()))?;
        Ok(metrics)
    }
}

impl FleetService {
    /// A service without its tasks; see [`FleetService::start`].
    ///
    /// # Errors
    /// A metric of these names exists in the registry.
    pub fn new(config: FleetConfig, peers: FleetPeers, clock: Clock, registry: &Registry) -> Result<FleetService, FleetError> {
        let fleet = Fleet::new(config.region.clone(), config.node_id, clock.unix_millis());
        let inner = Arc::new(Inner {
            region: config.region,
            node_id: config.node_id,
            guests: Mutex::default(),
            fleet: Mutex::new(fleet),
            batcher: Mutex::new(HealthBatcher::default()),
            peers,
            clock,
            changes: watch::Sender::new(0),
            bells: Bells::default(),
            metrics: FleetMetrics::register(registry)?,
        });
        HealthGauges::register(Arc::downgrade(&inner), registry)?;
        Ok(FleetService { inner })
    }

    /// Starts judging, exchanging, digesting, and (while this node leads) proposing. The tasks end when the set is asked to stop.
    pub fn start(&self, tasks: &Tasks) {
        let (inner, stop) = (Arc::clone(&self.inner), tasks.shutdown().clone());
        tasks.spawn("fleet-tick", async move { inner.judge_until(stop).await });
        let (inner, stop) = (Arc::clone(&self.inner), tasks.shutdown().clone());
        tasks.spawn("fleet-exchange", async move {
            let mut clients = Clients::default();
            while wait(&stop, FLEET_TICK, &inner.bells.tell).await {
                inner.exchange(&mut clients).await;
            }
        });
        let (inner, stop) = (Arc::clone(&self.inner), tasks.shutdown().clone());
        tasks.spawn("fleet-guests", async move {
            let mut clients = Clients::default();
            while wait(&stop, FLEET_TICK, &inner.bells.guests).await {
                inner.pass_on(&mut clients).await;
                // Over a long way, and every report of every guest rings: no more than ten times a second.
                tokio::time::sleep(GUEST_REST).await;
            }
        });
        let (inner, stop) = (Arc::clone(&self.inner), tasks.shutdown().clone());
        tasks.spawn("fleet-digest", async move {
            let (mut clients, mut digested) = (Clients::default(), Instant::now());
            while wait(&stop, DIGEST_EVERY, &inner.bells.judged).await {
                inner.digest(&mut clients, &mut digested).await;
            }
        });
        let (inner, stop) = (Arc::clone(&self.inner), tasks.shutdown().clone());
        tasks.spawn("health-batch", async move {
            let mut pause = DIGEST_EVERY;
            while wait(&stop, pause, &inner.bells.digested).await {
                pause = inner.propose().await;
            }
        });
    }

    /// Whether edges of this region are judged here: this node's own, and one that has no nodes.
    #[must_use]
    pub fn judges(&self, region: &str) -> bool {
        region == self.inner.region || (self.inner.peers.nodes_of)(region).is_empty()
    }

    /// Takes a report of an edge that is connected to this node. `edge` and `region` are what the connection proved, or the edge's own word
    /// where nobody proves anything.
    pub fn report(&self, region: &str, edge: &str, report: HealthReport) -> Taken {
        let (inner, now) = (&self.inner, self.inner.now());
        let (taken, stirred) = if !self.judges(region) {
            let taken = inner.guests.lock().take(region, edge, report, now);
            inner.bells.guests.notify_one();
            (taken, false)
        } else {
            let mut fleet = inner.fleet.lock();
            (fleet.take_report(edge, report, inner.clock.unix_millis(), now), fleet.is_stirred())
        };
        if stirred {
            inner.bells.stirred.notify_one();
            inner.bells.tell.notify_one();
        }
        let result = match taken {
            Taken::New => "new",
            Taken::Repeated => "repeated",
            Taken::Refused(reason) => {
                tracing::debug!(edge, reason, "health report refused");
                "refused"
            }
        };
        inner.metrics.reports.with_label_values(&[result]).inc();
        taken
    }

    /// What an edge does not know yet; see [`Fleet::view_for`].
    pub fn view(&self, edge: &str, cursor: &mut ViewCursor) -> Option<HealthView> {
        self.inner.fleet.lock().view_for(edge, cursor, self.inner.now())
    }

    /// Wakes when edges have something new to hear. Look at least once a second all the same: [`FleetService::view`] then says that what
    /// was told still holds.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Health for people.
    #[must_use]
    pub fn table(&self) -> HealthTable {
        self.inner.table()
    }

    /// What other control nodes call. Mount it on a listener that only they (and edges) can reach.
    #[must_use]
    pub fn grpc(&self) -> fleet_server::FleetServer<FleetService> {
        fleet_server::FleetServer::new(self.clone()).max_decoding_message_size(MOST_MESSAGE)
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        Timestamp(self.clock.micros())
    }

    pub(super) fn table(&self) -> HealthTable {
        let (agreed, names) = (self.peers.published.load(), (self.peers.names)());
        self.fleet.lock().table(agreed.health(), |id| names.get(&id).cloned())
    }

    /// Judges everything four times a second, what was stirred soon after it was, and hears what was agreed as soon as it is.
    async fn judge_until(&self, stop: Shutdown) {
        let mut states = self.peers.published.watch();
        let (mut ticked, mut rest) = (Instant::now(), LEAST_REST);
        let mut heard = 0;
        loop {
            let stirred = async {
                while !self.fleet.lock().is_stirred() {
                    self.bells.stirred.notified().await;
                }
                // Those that report at the same moment are looked at together.
                tokio::time::sleep(rest).await;
            };
            // Every branch can be dropped: the clock, the state and what is stirred are levels.
            let began = tokio::select! {
                biased;
                () = stop.requested() => return,
                () = tokio::time::sleep_until((ticked + FLEET_TICK).into()) => {
                    ticked = Instant::now();
                    self.tick();
                    ticked
                }
                changed = states.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let state = states.borrow_and_update().clone();
                    if std::mem::replace(&mut heard, state.health().leader_time_ms()) == state.health().leader_time_ms() {
                        continue;
                    }
                    let began = Instant::now();
                    let changed = self.fleet.lock().hear(state.health(), self.now());
                    self.announce(changed);
                    began
                }
                () = stirred => {
                    let began = Instant::now();
                    let changed = self.fleet.lock().look_again(self.now());
                    self.announce(changed);
                    if changed {
                        self.bells.judged.notify_one();
                    }
                    began
                }
            };
            // Judging early is not what a large region spends its time with.
            rest = (began.elapsed() * REST_FACTOR).clamp(LEAST_REST, FLEET_TICK);
        }
    }

    fn tick(&self) {
        let agreed = self.peers.published.load();
        let (changed, (active, suspects)) = {
            let mut fleet = self.fleet.lock();
            (fleet.tick(agreed.health(), self.now()), fleet.edges())
        };
        self.metrics.edges.with_label_values(&["active"]).set(active.into());
        self.metrics.edges.with_label_values(&["suspect"]).set(suspects.into());
        self.announce(changed);
        self.bells.judged.notify_one();
    }

    fn announce(&self, changed: bool) {
        if changed {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    /// Tells the neighbours what our edges said. What one does not take in time is lost to it: the next reports say how things are then.
    async fn exchange(&self, clients: &mut Clients) {
        let exchange = self.fleet.lock().exchange(self.now());
        let neighbours = (self.peers.nodes_of)(&self.region);
        clients.keep_only(&neighbours);
        if exchange.reports.is_empty() && exchange.probes.is_empty() {
            return;
        }
        let calls = neighbours.into_iter().map(|address| {
            let mut client = clients.get(&address, &self.peers.dial);
            let exchange = exchange.clone();
            async move {
                if let Err(status) = client.exchange(exchange).await {
                    tracing::debug!(%address, %status, "exchange health with a neighbour");
                }
            }
        });
        join_all(calls).await;
    }

    /// Passes on what edges of other regions said, and tells them what their regions answer.
    async fn pass_on(&self, clients: &mut Clients) {
        let errands = self.guests.lock().errands(self.node_id, |region| (self.peers.nodes_of)(region), self.now());
        let calls = errands.into_iter().map(|Errand { region, host, others, exchange }| {
            let to_host = {
                let (mut client, exchange) = (clients.get(&host, &self.peers.dial), exchange.clone());
                async move { client.exchange(exchange).await }
            };
            // They do not answer for the guests.
            let told = FleetExchange { guests: Vec::new(), ..exchange };
            let to_others: Vec<_> = others.iter().map(|address| (clients.get(address, &self.peers.dial), told.clone())).collect();
            async move {
                let telling =
                    join_all(to_others.into_iter().filter(|(_, told)| !told.reports.is_empty()).map(|(mut client, told)| async move {
                        if let Err(status) = client.exchange(told).await {
                            tracing::debug!(%status, "pass on what an edge of another region said");
                        }
                    }));
                let (answer, ()) = tokio::join!(to_host, telling);
                match answer {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        for view in &answer.views {
                            if let Some(news) = &view.view {
                                (self.peers.tell_guest)(&view.edge, news);
                            }
                        }
                        self.guests.lock().heard(&region, &host, answer.number);
                    }
                    Err(status) => {
                        tracing::debug!(%region, %host, %status, "ask a region for what its edges here are to know");
                        self.guests.lock().failed(&region, &host, &(self.peers.nodes_of)(&region));
                    }
                }
            }
        });
        join_all(calls).await;
    }

    async fn digest(&self, clients: &mut Clients, last: &mut Instant) {
        let agreed = self.peers.published.load();
        let digested = self.fleet.lock().digest(agreed.health(), self.clock.unix_millis(), self.now());
        let Some(digested) = digested.filter(|digested| digested.urgent || last.elapsed() >= DIGEST_EVERY) else { return };
        *last = Instant::now();
        match (self.peers.leader)() {
            Leader::Here => self.take_digest(digested.digest),
            Leader::At(address) => {
                let mut client = clients.get(&address, &self.peers.dial);
                match client.digest(digested.digest).await {
                    Ok(answer) if answer.get_ref().accepted => {}
                    Ok(_) => tracing::debug!(%address, "the node that led does not lead; the next digest goes to who does"),
                    Err(status) => tracing::debug!(%address, %status, "send the region's digest to the leader"),
                }
            }
            Leader::Unknown => {}
        }
    }

    fn take_digest(&self, digest: RegionDigest) {
        self.batcher.lock().take(digest);
        self.bells.digested.notify_one();
    }

    /// Brings what waits into the log, if this node leads and it may. Returns after how long to look again, unless more comes in.
    async fn propose(&self) -> Duration {
        if (self.peers.leader)() != Leader::Here {
            self.batcher.lock().clear();
            return DIGEST_EVERY;
        }
        let (agreed, began) = (self.peers.published.load(), self.now());
        let batch = {
            let mut batcher = self.batcher.lock();
            match batcher.wait(agreed.health(), began) {
                None => return DIGEST_EVERY,
                Some(wait) if !wait.is_zero() => return wait,
                Some(_now) => {}
            }
            batcher.next(agreed.health())
        };
        let Some(batch) = batch else { return DIGEST_EVERY };
        let bytes = prost::Message::encoded_len(&batch);
        match (self.peers.propose)(batch.clone()).await {
            Ok(()) => {
                self.metrics.entries.inc();
                self.metrics.entry_bytes.inc_by(bytes as u64);
            }
            Err(error) => {
                tracing::debug!(%error, "propose a health entry");
                self.batcher.lock().failed(batch);
            }
        }
        self.batcher.lock().went(began, self.now());
        Duration::ZERO
    }
}

/// Waits until the bell rings, so long at most. False when it is time to stop.
async fn wait(stop: &Shutdown, at_most: Duration, bell: &Notify) -> bool {
    // Every branch can be dropped: a ring that was not heard is kept by the bell.
    tokio::select! {
        biased;
        () = stop.requested() => false,
        () = bell.notified() => true,
        () = tokio::time::sleep(at_most) => true,
    }
}

/// Channels to other nodes, one per address.
#[derive(Default)]
struct Clients {
    channels: BTreeMap<String, Channel>,
}

impl Clients {
    fn get(&mut self, address: &str, dial: &Arc<dyn Dial>) -> FleetClient<Channel> {
        let options = ChannelOptions { timeout: Some(CALL_TIMEOUT), ..ChannelOptions::default() };
        let new = || channel(Arc::clone(dial), address, Expect::role(Role::Control), options);
        FleetClient::new(self.channels.entry(address.to_owned()).or_insert_with(new).clone()).max_encoding_message_size(MOST_MESSAGE)
    }

    /// Members come and go; leaders of old are few and stay.
    fn keep_only(&mut self, neighbours: &[String]) {
        if self.channels.len() > MOST_CHANNELS {
            self.channels.retain(|address, _| neighbours.contains(address));
        }
    }
}

/// Waits for all of a handful of calls, each bounded by the channel's timeout.
async fn join_all(calls: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut calls: Vec<_> = calls.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
        if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Who called must be a control node, where callers prove who they are.
fn from_control<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Peer>() {
        Some(Peer { name: Some(name), .. }) if name.role() != Role::Control => {
            Err(Status::permission_denied(format!("{name} is not a control node")))
        }
        Some(_) | None => Ok(()),
    }
}

#[tonic::async_trait]
impl fleet_server::Fleet for FleetService {
    async fn exchange(&self, request: Request<FleetExchange>) -> Result<Response<FleetExchanged>, Status> {
        from_control(&request)?;
        let (now, exchange) = (self.inner.now(), request.into_inner());
        let hosts = !exchange.guests.is_empty();
        let (answer, stirred) = {
            let mut fleet = self.inner.fleet.lock();
            let answer = if hosts {
                fleet.host(exchange, self.inner.clock.unix_millis(), now)
            } else {
                fleet.take_exchange(&exchange, now);
                FleetExchanged::default()
            };
            (answer, fleet.is_stirred())
        };
        if stirred {
            self.inner.bells.stirred.notify_one();
        }
        Ok(Response::new(answer))
    }

    async fn digest(&self, request: Request<RegionDigest>) -> Result<Response<RegionDigested>, Status> {
        from_control(&request)?;
        let accepted = (self.inner.peers.leader)() == Leader::Here;
        if accepted {
            self.inner.take_digest(request.into_inner());
        }
        Ok(Response::new(RegionDigested { accepted }))
    }
}

/// As often as edges report.
const FLEET_TICK: Duration = Duration::from_millis(250);
/// What stirred is looked at so long after the first word of it: a fault reaches the edges of a region at the same moment.
const LEAST_REST: Duration = Duration::from_millis(20);
/// Between two errands for edges of other regions.
const GUEST_REST: Duration = Duration::from_millis(100);
/// Of its time, judging early takes one part in so many.
const REST_FACTOR: u32 = 10;
/// A changed verdict does not wait for it.
const DIGEST_EVERY: Duration = Duration::from_secs(1);
/// Longer than the longest round trip between regions; the next tick waits for it.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
const MOST_CHANNELS: usize = 64;
/// An exchange of 5,000 edges' reports; tonic's own limit is 4 MiB.
const MOST_MESSAGE: usize = 32 << 20;
