//! What a node is made of, and its way from an empty directory to a member.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::ForwardToLeader;
use openraft::{Config, Instant as _, Raft, RaftMetrics, ServerState, SnapshotPolicy};
use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;
use redb::backends::FileBackend;
use tidegate_proto::v1::RaftHello;
use tidegate_runtime::mesh::Dial;
use tidegate_runtime::tasks::Tasks;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::ConsensusConfig;
use crate::error::StartError;
use crate::log_store::{LogStore, TailLimits};
use crate::member::{Instance, Member, MemberStatus, Role, Status, Uuid};
use crate::metrics::Metrics;
use crate::network::{Links, Network};
use crate::space::Room;
use crate::state_store::StateStore;
use crate::survey::Survey;
use crate::timing::Timing;
use crate::types::Tokio;

/// openraft with our stores.
pub(crate) type OurRaft = Raft<Tokio, StateStore<Tokio>>;

/// The parts of a node that live as long as its process.
pub(crate) struct Node {
    pub(crate) config: ConsensusConfig,
    pub(crate) instance: Instance,
    pub(crate) log: LogStore<Tokio>,
    pub(crate) state: StateStore<Tokio>,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) metrics: Metrics,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) room: watch::Sender<Room>,
    pub(crate) tasks: Tasks,
    /// The runtime of consensus: admin calls and fan-out must not starve heartbeats.
    pub(crate) handle: Handle,
    /// Founding, joining, restoring and stopping, one at a time.
    pub(crate) life: tokio::sync::Mutex<Life>,
    running: RwLock<Option<Arc<Running>>>,
    /// Why it does not run any more.
    pub(crate) stopped: Mutex<Option<String>>,
    /// What has arrived of a snapshot.
    pub(crate) arriving: Arc<tokio::sync::Mutex<crate::network::Partial>>,
}

/// Whether the node may still begin something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    On,
    Over,
}

/// The parts of a node that is a member.
pub(crate) struct Running {
    pub(crate) raft: OurRaft,
    pub(crate) own: RaftHello,
    pub(crate) links: Links,
    /// Changes of the membership, one at a time.
    pub(crate) changes: tokio::sync::Mutex<()>,
    pub(crate) preferred_regions: Vec<String>,
    /// When a quorum has last acknowledged a leader that this node follows, as far as the leader has told it. That a leader is heard is not
    /// enough: on the wrong side of a cut it goes on speaking to those who are there with it.
    pub(crate) heard: Mutex<Option<Instant>>,
    /// How far the voters are from each other.
    pub(crate) survey: Mutex<Survey>,
}

impl Node {
    #[expect(clippy::too_many_arguments, reason = "each is a part that is made before")]
    pub(crate) fn new(
        config: ConsensusConfig,
        instance: Instance,
        log: LogStore<Tokio>,
        state: StateStore<Tokio>,
        dial: Arc<dyn Dial>,
        metrics: Metrics,
        tasks: Tasks,
        handle: Handle,
    ) -> Self {
        Self {
            config,
            instance,
            log,
            state,
            dial,
            metrics,
            status: watch::Sender::new(Status::default()),
            room: watch::Sender::new(Room::Plenty),
            tasks,
            handle,
            life: tokio::sync::Mutex::new(Life::On),
            running: RwLock::new(None),
            stopped: Mutex::new(None),
            arriving: Arc::default(),
        }
    }

    /// The running part, when the node is a member.
    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        self.running.read().clone()
    }

    /// Why there is no running part.
    pub(crate) fn why_not(&self) -> String {
        let stopped = self.stopped.lock().clone();
        stopped.unwrap_or_else(|| "the node belongs to no cluster yet; found one with `init` or join one".to_owned())
    }

    pub(crate) fn forget_running(&self, why: &str) -> Option<Arc<Running>> {
        *self.stopped.lock() = Some(why.to_owned());
        self.running.write().take()
    }

    /// Starts openraft as the node that the log says this is. Runs on the runtime of consensus.
    pub(crate) async fn take_part(&self, own: RaftHello) -> Result<Arc<Running>, StartError> {
        self.state.set_cluster_id(&own.cluster_id);
        let config = raft_config(&own.cluster_id, &self.config)?;
        let links = Links::new(own.clone(), Arc::clone(&self.dial), self.config.timing, self.config.snapshot_bytes_per_second);
        let network = Network::new(links.clone());
        let raft = Raft::new(own.sender, Arc::new(config), network, self.log.clone(), self.state.clone())
            .await
            .map_err(|error| StartError::Core(error.to_string()))?;
        let metrics = raft.metrics();
        links.tell_quorum_age(Box::new(move || quorum_age(&metrics.borrow_watched())));
        let running = Arc::new(Running {
            raft,
            own,
            links,
            changes: tokio::sync::Mutex::new(()),
            preferred_regions: self.config.preferred_regions.clone(),
            heard: Mutex::default(),
            survey: Mutex::default(),
        });
        *self.running.write() = Some(Arc::clone(&running));
        self.publish_status();
        Ok(running)
    }

    /// Looks at how things stand and tells those who watch.
    pub(crate) fn publish_status(&self) {
        let now = self.look();
        self.metrics.observe(&now);
        self.status.send_if_modified(|status| {
            // The ages change always and mean nothing to those who wait for a change.
            let ages = (status.millis_since_quorum_ack, status.millis_since_leader);
            let changed = Status { millis_since_quorum_ack: ages.0, millis_since_leader: ages.1, ..now.clone() } != *status;
            *status = now;
            changed
        });
    }

    /// How things stand now.
    pub(crate) fn look(&self) -> Status {
        let room = *self.room.borrow();
        let refusing = (room == Room::None).then(|| "the disk is nearly full".to_owned());
        let failed = self.log.failure();
        let Some(running) = self.running() else {
            let over = self.stopped.lock().is_some();
            let role = if over || failed.is_some() { Role::Stopped } else { Role::Unassigned };
            let applied = *self.state.applied().borrow();
            return Status { role, applied, refusing, fatal: failed, ..Status::default() };
        };
        let metrics = running.raft.metrics().borrow_watched().clone();
        let mut status = status(&running.own, &metrics);
        status.applied = status.applied.max(*self.state.applied().borrow());
        status.millis_since_leader = match status.role {
            Role::Leader => status.millis_since_quorum_ack,
            _ => running.heard.lock().map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        };
        status.refusing = refusing;
        if let Some(failure) = failed {
            status.fatal = Some(failure);
        }
        if status.fatal.is_some() {
            status.role = Role::Stopped;
        }
        status
    }
}

impl Running {
    /// A request of a leader was accepted that was sure of its quorum at this time.
    pub(crate) fn hear(&self, followed: Option<Instant>) {
        let mut heard = self.heard.lock();
        *heard = (*heard).max(followed);
    }

    /// The leader, when it is known.
    pub(crate) fn leader(&self) -> Option<Member> {
        let leader = self.raft.metrics().borrow_watched().current_leader?;
        self.member(leader)
    }
}

/// The leader that openraft names.
pub(crate) fn leader_of(forward: ForwardToLeader<Tokio>) -> Option<Member> {
    Some(Member { id: forward.leader_id?, instance: forward.leader_node? })
}

/// An error with its causes.
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What openraft says of itself as our status.
fn status(own: &RaftHello, metrics: &RaftMetrics<Tokio>) -> Status {
    let membership = metrics.membership_config.membership();
    let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
    let last = metrics.last_log_index.unwrap_or(0);
    let members = membership.nodes().map(|(id, node)| {
        let matched = match &metrics.replication {
            Some(_) if *id == metrics.id => Some(last),
            Some(replication) => replication.get(id).map(|matched| matched.map_or(0, |matched| matched.index)),
            None => None,
        };
        MemberStatus {
            id: *id,
            name: node.name.clone(),
            address: node.address.clone(),
            region: node.region.clone(),
            uuid: node.uuid,
            voter: voters.contains(id),
            wants_vote: node.wants_vote,
            matched,
            lag: matched.map(|matched| last.saturating_sub(matched)),
        }
    });
    Status {
        cluster_id: own.cluster_id.clone(),
        node_id: own.sender,
        role: match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        },
        term: metrics.current_term,
        leader: metrics.current_leader,
        last_log: last,
        committed: metrics.cluster_committed.or(metrics.local_committed).map_or(0, |id| id.index),
        applied: metrics.last_applied.map_or(0, |id| id.index),
        snapshot: metrics.snapshot.map_or(0, |id| id.index),
        millis_since_quorum_ack: quorum_age(metrics),
        millis_since_leader: None,
        refusing: None,
        fatal: metrics.running_state.as_ref().err().map(|error| error_text(error)),
        members: members.collect(),
    }
}

/// Milliseconds since a quorum has acknowledged this node; `None` unless it leads.
fn quorum_age(metrics: &RaftMetrics<Tokio>) -> Option<u64> {
    if metrics.state != ServerState::Leader {
        return None;
    }
    let mut voters = metrics.membership_config.voter_ids();
    if voters.next() == Some(metrics.id) && voters.next().is_none() {
        return Some(0);
    }
    metrics.last_quorum_acked.as_ref().map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// openraft's settings. Those that are not named here are its defaults.
pub(crate) fn raft_config(cluster_id: &str, config: &ConsensusConfig) -> Result<Config, StartError> {
    let Timing { heartbeat, election_min, election_max, quorum_loss_probe } = config.timing;
    config.timing.check().map_err(StartError::Config)?;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let raft = Config {
        cluster_name: cluster_id.to_owned(),
        heartbeat_interval: millis(heartbeat),
        election_timeout_min: millis(election_min),
        election_timeout_max: millis(election_max),
        quorum_loss_probe_interval: Some(millis(quorum_loss_probe)),
        // A node that comes back asks first, instead of unseating a leader that everyone else still hears.
        enable_pre_vote: Some(true),
        // A leader that was restarted must be elected again: its state may be behind.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        max_in_snapshot_log_to_keep: config.keep_entries,
        // A follower that is so far behind gets a snapshot. Above the policy, or snapshots would be sent for want of patience.
        replication_lag_threshold: config.snapshot_every.saturating_mul(2),
        purge_batch_size: 256,
        max_payload_entries: 256,
        install_snapshot_timeout: 30_000,
        api_batch_linger_ms: 0,
        ..Config::default()
    };
    raft.validate().map_err(|error| StartError::Config(error.to_string()))
}

/// The log file, made under another name first: a loss of power while it is made must not leave a part of one.
pub(crate) fn log_file(directory: &Path) -> io::Result<impl StorageBackend + use<>> {
    let path = directory.join("log.redb");
    if !path.exists() {
        let unfinished = directory.join("log.redb.unfinished");
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        LogStore::<Tokio>::create(backend(&unfinished)?)?;
        std::fs::rename(&unfinished, &path)?;
        std::fs::File::open(directory)?.sync_all()?;
    }
    backend(&path)
}

fn backend(path: &Path) -> io::Result<FileBackend> {
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    FileBackend::new(file).map_err(io::Error::other)
}

/// The number of this instance, made at the first start. It stays with the volume.
pub(crate) fn instance_uuid(directory: &Path) -> io::Result<Uuid> {
    let path = directory.join("instance");
    match std::fs::read(&path) {
        Ok(bytes) => {
            let bytes = bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "`instance` does not hold 16 bytes"))?;
            Ok(Uuid(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut uuid = [0; 16];
            getrandom::fill(&mut uuid).map_err(io::Error::other)?;
            use crate::state_store::Files as _;
            crate::state_store::Directory::open(directory)?.write("instance", &uuid)?;
            Ok(Uuid(uuid))
        }
        Err(error) => Err(error),
    }
}

/// How long a flush of this disk takes, about: the median of a few.
pub(crate) fn flush_time(directory: &Path) -> io::Result<Duration> {
    use std::io::Write as _;
    let path = directory.join("flush-probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        file.write_all(&[0; 600])?;
        let started = std::time::Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    drop(file);
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times[PROBES / 2])
}

/// Enough for a median, and 50 ms on a usual disk.
const PROBES: usize = 9;

/// The limits of the log's cache.
pub(crate) fn tail_limits() -> TailLimits {
    TailLimits::default()
}
