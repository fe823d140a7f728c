//! The handle of a running node.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::application::Application;
use crate::config::ConsensusConfig;
use crate::error::{BackupError, ChangeError, InitError, ProposeError, ReadError, StartError};
use crate::member::{Instance, Status};
use tidegate_runtime::mesh::Dial;

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
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    applied: watch::Sender<u64>,
    status: watch::Sender<Status>,
}

impl Consensus {
    /// Opens the data directory and, when the node belongs to a cluster, starts to take part.
    ///
    /// # Errors
    /// When the settings cannot work, or what is on disk cannot be trusted.
    pub fn start(
        config: ConsensusConfig,
        application: Box<dyn Application>,
        dial: Arc<dyn Dial>,
        registry: &prometheus::Registry,
    ) -> Result<Self, StartError> {
        let _ = (config, application, dial, registry);
        Err(StartError::Config("not there yet".into()))
    }

    /// Proposes a command and waits until this node has applied it.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `Unknown` leaves the outcome open.
    pub async fn propose(&self, payload: Bytes) -> Result<Committed, ProposeError> {
        let _ = payload;
        Err(ProposeError::Unknown)
    }

    /// Makes the reads that follow linearizable: when it returns, the application of this node has applied at least the index returned,
    /// and with it all that was committed when the call was made. Works on any node.
    ///
    /// # Errors
    /// When no leader could be confirmed, or this node lags behind.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        Err(ReadError::Stopped("not there yet".into()))
    }

    /// The index that the application has applied.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.subscribe()
    }

    /// How things stand now.
    pub fn status(&self) -> Status {
        self.inner.status.borrow().clone()
    }

    /// How things stand, with every change.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.subscribe()
    }

    /// What this node says of itself when it joins.
    pub fn instance(&self) -> Instance {
        Instance::default()
    }

    /// Founds a cluster with this node as its only voter. Does nothing when this node belongs to that cluster.
    ///
    /// # Errors
    /// When this node or a peer belongs to a cluster already.
    pub async fn init(&self, cluster_id: &str) -> Result<(), InitError> {
        let _ = cluster_id;
        Err(InitError::Refused("not there yet".into()))
    }

    /// Asks the peers for a place in their cluster and starts to take part as a learner. Does nothing when this node belongs to a cluster.
    /// Returns the node id.
    ///
    /// # Errors
    /// When no peer could take the node in.
    pub async fn join_through(&self, peers: &[String]) -> Result<u64, InitError> {
        let _ = peers;
        Err(InitError::Refused("not there yet".into()))
    }

    /// Takes an instance in as a learner and returns its node id; the same instance always gets the same. On the leader only.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn join(&self, instance: Instance) -> Result<u64, ChangeError> {
        let _ = instance;
        Err(ChangeError::NotLeader { leader: None })
    }

    /// Makes a learner a voter, once it has caught up. On the leader only.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn promote(&self, id: u64) -> Result<(), ChangeError> {
        let _ = id;
        Err(ChangeError::NotLeader { leader: None })
    }

    /// Takes a member out. A leader that takes itself out hands over first and answers `NotLeader` with its successor.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove(&self, id: u64) -> Result<(), ChangeError> {
        let _ = id;
        Err(ChangeError::NotLeader { leader: None })
    }

    /// Makes the learner `new` a voter and takes the voter `old` out, in one change.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn replace(&self, old: u64, new: u64) -> Result<(), ChangeError> {
        let _ = (old, new);
        Err(ChangeError::NotLeader { leader: None })
    }

    /// Hands leadership to a voter, or to the one that is best placed.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<u64, ChangeError> {
        let _ = to;
        Err(ChangeError::NotLeader { leader: None })
    }

    /// Writes a snapshot now, and returns the index it covers.
    ///
    /// # Errors
    /// When the node has stopped, or the snapshot is not written in time.
    pub async fn snapshot_now(&self) -> Result<u64, ChangeError> {
        Err(ChangeError::Stopped("not there yet".into()))
    }

    /// The agreed state at a linearizable point, as a snapshot file.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn backup(&self) -> Result<Bytes, BackupError> {
        Err(BackupError::Stopped("not there yet".into()))
    }

    /// Founds the new cluster `cluster_id` with the state of a backup, on an empty node.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn restore_from(&self, cluster_id: &str, backup: Bytes) -> Result<(), BackupError> {
        let _ = (cluster_id, backup);
        Err(BackupError::Stopped("not there yet".into()))
    }

    /// Hands leadership over when this node leads, stops taking part, and closes the files.
    pub async fn shutdown(&self) {}
}
