//! The handle of a node.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardReason, LinearizableReadError, RaftError};
use openraft::{ReadPolicy, ServerState};
use parking_lot::Mutex;
use tidegate_proto::v1::RaftReadIndexRequest;
use tidegate_runtime::mesh::{Accept, Dial, incoming};
use tidegate_runtime::tasks::Tasks;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::application::Application;
use crate::config::ConsensusConfig;
use crate::error::{BackupError, ChangeError, ProposeError, ReadError, StartError};
use crate::log_store::LogStore;
use crate::member::{Instance, Role, Status};
use crate::metrics::Metrics;
use crate::network::{Lane, RaftService, Served};
use crate::node::{Life, Node, Running, flush_time, instance_uuid, leader_of, log_file, tail_limits};
use crate::space::{Ballast, Room, Space};
use crate::state_store::{Directory, Offload, Shelf, StateStore};
use crate::survey;
use crate::types::{Applied, Command};

/// A committed and applied proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its index in the log: the revision it made.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// What the application answered.
    pub response: Bytes,
}

/// A node of the cluster, or one that waits to be. Clones are the same node; cheap.
///
/// Its work is done on a runtime of its own. Dropping the last clone stops the node as a crash would; [`Self::shutdown`] is the polite way.
#[derive(Clone)]
pub struct Consensus {
    pub(crate) node: Arc<Node>,
    own: Arc<Own>,
}

/// What ends with the last handle.
struct Own {
    /// `None` once it was shut down.
    runtime: Mutex<Option<Runtime>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    tasks: Tasks,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.tasks.shutdown().request();
        if let Some(runtime) = self.runtime.lock().take() {
            // May be called on a thread of another runtime, which must not block.
            runtime.shutdown_background();
        }
    }
}

impl Consensus {
    /// Opens the data directory and, when the node belongs to a cluster, starts to take part. Blocks while it reads the directory.
    ///
    /// # Errors
    /// When the settings cannot work, or what is on disk cannot be trusted.
    pub fn start(
        config: ConsensusConfig,
        application: Box<dyn Application>,
        dial: Arc<dyn Dial>,
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        config.timing.check().map_err(StartError::Config)?;
        let metrics = Metrics::register(registry)?;
        let directory = config.directory.clone();
        let config = &config;
        let storage =
            |what| move |source: io::Error| StartError::Storage { what, directory: config.directory.display().to_string(), source };
        std::fs::create_dir_all(&directory).map_err(storage("the data directory"))?;
        let ballast = Ballast::new(&directory, config.ballast);
        let opened = open(config, &metrics);
        let opened = match opened {
            // Not a write that is tried again: nothing was promised yet. The ballast is there for just this.
            Err((_, error)) if error.kind() == io::ErrorKind::StorageFull && ballast.drop_it().unwrap_or(false) => {
                tracing::warn!("the disk is full; the ballast was given back");
                open(config, &metrics)
            }
            opened => opened,
        };
        let Opened { instance, log, writer } = opened.map_err(|(what, source)| storage(what)(source))?;
        let cluster_id = log.identity().map_or_else(String::new, |own| own.cluster_id);
        let shelf = Directory::open(&directory.join("snapshots")).map(|directory| Shelf::new(Box::new(directory)));
        let counted = metrics.clone();
        let state = shelf.and_then(|shelf| {
            StateStore::open(application, shelf, cluster_id, Offload::Threads, Box::new(move |what| counted.applied(what)))
        });
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                drop(log);
                // Whoever starts another version next must find the file closed.
                let _ = writer.join();
                return Err(storage("the snapshots")(error));
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("raft")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let handle = runtime.handle().clone();
        let tasks = Tasks::new();
        let node = Arc::new(Node::new(config.clone(), instance, log, state, dial, metrics, tasks.clone(), handle.clone()));
        let own = Own { runtime: Mutex::new(Some(runtime)), writer: Mutex::new(Some(writer)), tasks };
        let this = Self { node, own: Arc::new(own) };
        if let Some(own) = this.node.log.identity() {
            let node = Arc::clone(&this.node);
            on(&handle, &this.own.tasks, async move { node.take_part(own).await.map(drop) })?;
        }
        this.watch_over(ballast);
        this.node.publish_status();
        Ok(this)
    }

    /// Proposes a command and waits until this node has applied it. Without a quorum that may take for ever: a caller that stops waiting
    /// does not know the outcome, as with [`ProposeError::Unknown`].
    ///
    /// # Errors
    /// See [`ProposeError`]: only `Unknown` leaves the outcome open.
    pub async fn propose(&self, payload: Bytes) -> Result<Committed, ProposeError> {
        let running = self.node.running().ok_or_else(|| ProposeError::Stopped(self.node.why_not()))?;
        if *self.node.room.borrow() == Room::None {
            return Err(ProposeError::Refused("the disk of the leader is nearly full".to_owned()));
        }
        if payload.len() > LARGEST_PAYLOAD {
            return Err(ProposeError::Refused(format!("{} bytes in one entry; the most is {LARGEST_PAYLOAD}", payload.len())));
        }
        running.propose(payload).await
    }

    /// Makes the reads that follow linearizable: when it returns, the application of this node has applied at least the index returned,
    /// and with it all that was committed when the call was made. Works on any node.
    ///
    /// # Errors
    /// When no leader could be confirmed, or this node lags behind.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let running = self.node.running().ok_or_else(|| ReadError::Stopped(self.node.why_not()))?;
        let mut status = self.node.status.subscribe();
        // Dropping either branch is safe: one reads, the other is a level. The leader goes on answering a node that has stopped, which would then
        // wait for entries that it does not apply any more.
        tokio::select! {
            reached = self.reach(&running) => reached,
            _ = status.wait_for(|status| status.role == Role::Stopped) => Err(ReadError::Stopped(self.node.why_not())),
        }
    }

    async fn reach(&self, running: &Running) -> Result<u64, ReadError> {
        let patience = self.node.config.timing.election_max * 2 + Duration::from_secs(1);
        let deadline = Instant::now() + patience;
        let index = loop {
            match running.read_index_anywhere().await {
                Ok(index) => break index,
                Err(error @ ReadError::Stopped(_)) => return Err(error),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(self.node.config.timing.heartbeat).await,
            }
        };
        let mut applied = self.node.state.applied();
        let reached = applied.wait_for(|applied| *applied >= index);
        match tokio::time::timeout(patience, reached).await {
            Ok(Ok(_)) => Ok(index),
            Ok(Err(_)) => Err(ReadError::Stopped(self.node.why_not())),
            Err(_) => Err(ReadError::Behind { applied: *self.node.state.applied().borrow(), wanted: index }),
        }
    }

    /// The index that the application has applied.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.node.state.applied()
    }

    /// How things stand now.
    pub fn status(&self) -> Status {
        self.node.look()
    }

    /// How things stand, with every change.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.node.status.subscribe()
    }

    /// How much room the disk has. What is not essential should not be proposed when it is low.
    pub fn room(&self) -> watch::Receiver<Room> {
        self.node.room.subscribe()
    }

    /// Whether this node leads and a quorum has said so within the longest election timeout. What a leader does to the outside world is
    /// done only while this holds, and tagged with the term.
    pub fn leads(&self) -> bool {
        let status = self.node.look();
        let lease = u64::try_from(self.node.config.timing.election_max.as_millis()).unwrap_or(u64::MAX);
        status.role == Role::Leader && status.millis_since_quorum_ack.is_some_and(|age| age < lease)
    }

    /// Completes when the node has stopped by itself, with the reason: its disk cannot be trusted any more, or the core has failed. The
    /// process should end with an error, and be started anew.
    pub async fn failed(&self) -> String {
        let mut status = self.node.status.subscribe();
        let failed = status.wait_for(|status| status.fatal.is_some()).await.ok().and_then(|status| status.fatal.clone());
        match failed {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// What this node says of itself when it joins.
    pub fn instance(&self) -> Instance {
        self.node.instance.clone()
    }

    /// Takes an instance in as a learner and returns its node id; the same instance always gets the same. On the leader only.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn join(&self, instance: Instance) -> Result<u64, ChangeError> {
        self.member()?.join(instance).await
    }

    /// Makes a learner a voter, once it has caught up. On the leader only.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn promote(&self, id: u64) -> Result<(), ChangeError> {
        self.member()?.promote(id, None, CATCH_UP).await
    }

    /// Takes a member out. A leader that takes itself out hands over first and answers `NotLeader` with its successor, which is to be asked
    /// again. The process of the member is to be stopped by whoever asks.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove(&self, id: u64) -> Result<(), ChangeError> {
        self.member()?.remove(id).await
    }

    /// Makes the learner `new` a voter and takes the voter `old` out, in one change.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn replace(&self, old: u64, new: u64) -> Result<(), ChangeError> {
        self.member()?.promote(new, Some(old), CATCH_UP).await
    }

    /// Hands leadership to a voter, or to the one that is best placed. Returns who leads then.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, ChangeError> {
        self.member()?.transfer_leader(to).await
    }

    /// Writes a snapshot now, and returns the index it covers.
    ///
    /// # Errors
    /// When the node has stopped, or the snapshot is not written in time.
    pub async fn snapshot_now(&self) -> Result<u64, ChangeError> {
        let running = self.member()?;
        let wanted = *self.node.state.applied().borrow();
        let mut watch = running.raft.metrics();
        let written = async {
            loop {
                let snapshot = watch.borrow_watched().snapshot.map_or(0, |id| id.index);
                if snapshot >= wanted {
                    return Ok(snapshot);
                }
                // Asked for again, as openraft ignores the wish while it writes an earlier one.
                running.raft.trigger().snapshot().await.map_err(|error| ChangeError::Stopped(error.to_string()))?;
                if let Ok(Err(_)) = tokio::time::timeout(ASK_AGAIN, watch.changed()).await {
                    return Err(ChangeError::Stopped(self.node.why_not()));
                }
            }
        };
        let late = |_| ChangeError::Unfinished(format!("no snapshot within {} s", SNAPSHOT.as_secs()));
        tokio::time::timeout(SNAPSHOT, written).await.map_err(late)?
    }

    /// The agreed state at a linearizable point, as a snapshot file.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn backup(&self) -> Result<Bytes, BackupError> {
        self.read_barrier().await?;
        let state = self.node.state.clone();
        let export = async move {
            let snapshot = state.export().await?;
            tokio::task::spawn_blocking(move || snapshot.encode().map_err(io::Error::from)).await.map_err(io::Error::other)?
        };
        export.await.map_err(|error| BackupError::Stopped(error.to_string()))
    }

    /// The service to mount on a Raft listener of one's own; [`Self::serve`] is the whole listener.
    pub fn service(&self) -> RaftService {
        Served::service(Arc::clone(&self.node))
    }

    /// Serves the other nodes on the runtime of consensus, until the node stops or the listener is closed.
    pub fn serve(&self, accept: Arc<dyn Accept>) {
        let service = self.service();
        let shutdown = self.own.tasks.shutdown().clone();
        self.own.tasks.spawn_on(&self.node.handle, "raft-listener", async move {
            let stop = async move { shutdown.requested().await };
            let timing = service_keep_alive();
            let server = tonic::transport::Server::builder()
                .http2_keepalive_interval(Some(timing))
                .http2_keepalive_timeout(Some(timing * 2))
                .serve_with_incoming_shutdown(service, incoming(accept), stop);
            if let Err(error) = server.await {
                tracing::error!(%error, "serve the other control nodes");
            }
        });
    }

    /// The runtime that consensus works on.
    pub fn handle(&self) -> Handle {
        self.node.handle.clone()
    }

    /// Hands leadership over when this node leads, stops taking part, and closes the files.
    pub async fn shutdown(&self) {
        let mut life = self.node.life.lock().await;
        if *life == Life::Over {
            return;
        }
        *life = Life::Over;
        if let Some(running) = self.node.running()
            && running.raft.is_leader()
            && running.membership().voter_ids().count() > 1
        {
            match running.transfer_leader(None).await {
                Ok(successor) => tracing::info!(successor, "leadership was handed over"),
                Err(error) => tracing::warn!(%error, "hand leadership over before stopping"),
            }
        }
        self.stop("the node was shut down").await;
    }

    /// Stops without handing anything over.
    pub(crate) async fn stop(&self, why: &str) {
        if let Some(running) = self.node.forget_running(why) {
            // Whoever waits for it need not wait any longer.
            self.node.publish_status();
            // The core may have failed already; then there is nothing to wait for.
            let _ = running.raft.shutdown().await;
        }
        if let Err(unfinished) = self.own.tasks.close(CLOSE).await {
            tracing::warn!(%unfinished, "stop consensus");
        }
        self.node.publish_status();
        let runtime = self.own.runtime.lock().take();
        if let Some(runtime) = runtime {
            // The runtime waits for its threads, which this one must not do.
            let (done, ended) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                runtime.shutdown_timeout(CLOSE);
                let _ = done.send(());
            });
            let _ = ended.await;
        }
        self.close_log().await;
    }

    /// Waits for the writer to have written everything. Handles of the log that others still hold are of no use afterwards.
    async fn close_log(&self) {
        self.node.log.close().await;
        if let Some(writer) = self.own.writer.lock().take() {
            // It has been told to end and has nothing left to do but that.
            let _ = writer.join();
        }
    }

    fn member(&self) -> Result<Arc<Running>, ChangeError> {
        self.node.running().ok_or_else(|| ChangeError::Stopped(self.node.why_not()))
    }

    /// Starts the tasks that go with a node.
    fn watch_over(&self, ballast: Ballast) {
        let (tasks, handle) = (&self.own.tasks, &self.node.handle);
        // The node is held weakly by what it outlives: a handle that is dropped must end it.
        let node = Arc::downgrade(&self.node);
        let shutdown = tasks.shutdown().clone();
        let tick = self.node.config.timing.heartbeat;
        tasks.spawn_on(handle, "raft-status", async move {
            while let Some(node) = node.upgrade() {
                let metrics = node.running().map(|running| {
                    let mut metrics = running.raft.metrics();
                    // Seen before the look, so that a change during it is not missed, and an old one does not end the wait.
                    drop(metrics.borrow_and_update());
                    metrics
                });
                node.publish_status();
                drop(node);
                let changed = async {
                    match metrics {
                        Some(mut metrics) => {
                            let _ = metrics.changed().await;
                        }
                        None => std::future::pending().await,
                    }
                };
                // Neither branch holds anything that dropping would lose.
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = changed => tokio::time::sleep(STATUS).await,
                    () = tokio::time::sleep(tick) => {}
                }
            }
        });
        let node = Arc::downgrade(&self.node);
        let shutdown = tasks.shutdown().clone();
        tasks.spawn_on(handle, "raft-members", async move {
            loop {
                // A change that is dropped half-way goes on in openraft, and is looked at again by the next leader.
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = tokio::time::sleep(tick * 4) => {}
                }
                let Some(running) = node.upgrade().map(|node| node.running()) else {
                    return;
                };
                if let Some(running) = running {
                    tokio::select! {
                        () = shutdown.requested() => return,
                        () = running.reconcile() => {}
                    }
                }
            }
        });
        if let Some(rule) = self.node.config.placement {
            let shutdown = tasks.shutdown().clone();
            tasks.spawn_on(handle, "raft-placement", survey::watch(Arc::downgrade(&self.node), rule, shutdown));
        }
        let node = Arc::downgrade(&self.node);
        let shutdown = tasks.shutdown().clone();
        tasks.spawn_on(handle, "raft-disk", async move {
            loop {
                let Some(node) = node.upgrade() else {
                    return;
                };
                look_at_the_disk(&node, &ballast).await;
                drop(node);
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = tokio::time::sleep(DISK) => {}
                }
            }
        });
    }
}

/// Says how much room there is, and makes some when there is none.
async fn look_at_the_disk(node: &Node, ballast: &Ballast) {
    let space = match Space::of(&node.config.directory) {
        Ok(space) => space,
        Err(error) => {
            tracing::warn!(%error, "ask how full the disk is");
            return;
        }
    };
    let before = *node.room.borrow();
    let room = space.judge(before, node.config.ballast, ballast.held());
    if room != before {
        tracing::warn!(?room, free = space.free, "the disk");
        node.room.send_replace(room);
        node.publish_status();
    }
    match room {
        Room::None if before != Room::None => {
            if let Err(error) = ballast.drop_it() {
                tracing::error!(%error, "give the ballast back");
            }
            // A snapshot lets the log shrink.
            if let Some(running) = node.running() {
                let applied = *node.state.applied().borrow();
                let _ = running.raft.trigger().snapshot().await;
                let _ = running.raft.trigger().purge_log(applied).await;
            }
        }
        Room::Plenty => {
            if let Err(error) = ballast.load(space) {
                tracing::warn!(%error, "set aside space for bad times");
            }
        }
        Room::None | Room::Low => {}
    }
    // The others may have room: a leader that refuses everything must not stand in their way.
    if room == Room::None
        && let Some(running) = node.running()
        && running.raft.is_leader()
        && running.membership().voter_ids().count() > 1
    {
        match running.transfer_leader(None).await {
            Ok(successor) => tracing::warn!(successor, "leadership was handed over, as the disk is nearly full"),
            Err(error) => tracing::warn!(%error, "hand leadership over, as the disk is nearly full"),
        }
    }
}

impl Running {
    async fn propose(&self, payload: Bytes) -> Result<Committed, ProposeError> {
        if let Err(fatal) = self.raft.metrics().borrow_watched().running_state.clone() {
            return Err(ProposeError::Stopped(fatal.to_string()));
        }
        let deadline = Instant::now() + self.links.timing().election_max;
        loop {
            match self.raft.client_write(Command::Application(payload.clone())).await {
                Ok(written) => {
                    let response = match written.data {
                        Applied::Application(response) => response,
                        Applied::Nothing | Applied::NodeId(_) => Bytes::new(),
                    };
                    return Ok(Committed { index: written.log_id.index, term: written.log_id.leader_id.term, response });
                }
                // A leader that was elected this moment waits for its quorum to say so. Nothing has been proposed.
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))
                    if to.reason == ForwardReason::LeaseExpired && Instant::now() < deadline =>
                {
                    tokio::time::sleep(self.links.timing().heartbeat / 2).await;
                }
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                    return Err(ProposeError::NotLeader { leader: leader_of(to) });
                }
                // The core has stopped with the proposal in its hands, or another leader has put something else in its place here, though it
                // may have been committed from the log of a third.
                Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_)) => {
                    return Err(ProposeError::Unknown);
                }
                Err(RaftError::APIError(
                    error @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)),
                )) => return Err(ProposeError::Refused(error.to_string())),
            }
        }
    }

    /// The index that a linearizable read must have applied, as this node knows when it leads.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().log_id().index),
            Err(RaftError::Fatal(fatal)) => Err(ReadError::Stopped(fatal.to_string())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(ReadError::NoLeader("this node does not lead".into()))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => Err(ReadError::NoLeader(error.to_string())),
        }
    }

    /// The same from this node or from the leader.
    async fn read_index_anywhere(&self) -> Result<u64, ReadError> {
        if self.raft.metrics().borrow_watched().state == ServerState::Leader {
            return self.read_index().await;
        }
        let leader = self.leader().ok_or_else(|| ReadError::NoLeader("no leader is known".into()))?;
        if leader.id == self.own.sender {
            return Err(ReadError::NoLeader("this node is about to lead, or was".into()));
        }
        let mut client = self.links.client(leader.id, &leader.instance, Lane::Urgent);
        let request = RaftReadIndexRequest { hello: Some(self.links.hello(leader.id)) };
        let patience = self.links.timing().election_max;
        match tokio::time::timeout(patience, client.read_index(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().index),
            Ok(Err(status)) => Err(ReadError::NoLeader(format!("node {}: {}", leader.id, status.message()))),
            Err(_) => Err(ReadError::NoLeader(format!("node {} has not answered within {patience:?}", leader.id))),
        }
    }
}

/// The parts that come from the directory.
struct Opened {
    instance: Instance,
    log: LogStore<crate::types::Tokio>,
    writer: JoinHandle<()>,
}

fn open(config: &ConsensusConfig, metrics: &Metrics) -> Result<Opened, (&'static str, io::Error)> {
    let directory = &config.directory;
    let uuid = instance_uuid(directory).map_err(|error| ("the instance's number", error))?;
    let flush = flush_time(directory).map_err(|error| ("a file to time the disk with", error))?;
    config.timing.check_disk(flush).map_err(|text| ("the disk", io::Error::other(text)))?;
    let flushed = metrics.clone();
    let (log, writer) = log_file(directory)
        .and_then(|file| LogStore::open(file, tail_limits(), Box::new(move |time| flushed.flushed(time))))
        .map_err(|error| ("the log", error))?;
    let instance = Instance {
        uuid,
        name: config.name.clone(),
        address: config.address.clone(),
        region: config.region.clone(),
        wants_vote: config.voter,
    };
    Ok(Opened { instance, log, writer })
}

/// Runs a future on the runtime of consensus and waits for it, from any thread that may block.
fn on<T: Send + 'static>(
    handle: &Handle,
    tasks: &Tasks,
    work: impl Future<Output = Result<T, StartError>> + Send + 'static,
) -> Result<T, StartError> {
    let (done, outcome) = std::sync::mpsc::sync_channel(1);
    tasks.spawn_on(handle, "raft-start", async move {
        // Whoever waits does not go away.
        let _ = done.send(work.await);
    });
    outcome.recv().map_err(|_| StartError::Core("the start has panicked".to_owned()))?
}

fn service_keep_alive() -> Duration {
    Duration::from_secs(5)
}

/// Two, so that the core is not held up by whoever decodes a message.
const WORKERS: usize = 2;
/// Half of what goes into one message, so that an entry always fits.
const LARGEST_PAYLOAD: usize = 2 << 20;
const CATCH_UP: Duration = Duration::from_secs(60);
const SNAPSHOT: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(200);
const CLOSE: Duration = Duration::from_secs(5);
/// Longest age of how full the disk is.
const DISK: Duration = Duration::from_secs(5);
/// Changes within this time are told together.
const STATUS: Duration = Duration::from_millis(5);
