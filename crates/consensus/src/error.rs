//! What can go wrong, one enum for each thing one can ask for.

use crate::member::Member;

/// A proposal did not give a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed: this node does not lead. The leader is named when it is known.
    #[error("this node does not lead{}", leader.as_ref().map(|l| format!("; node {} at {} does", l.id, l.instance.address)).unwrap_or_default())]
    NotLeader {
        /// Where to go.
        leader: Option<Member>,
    },
    /// Nothing was proposed, for a reason that is not a matter of who leads.
    #[error("proposal refused: {0}")]
    Refused(String),
    /// Proposed, but leadership was lost before the outcome was known: it may be or become committed. Ask again under the same request id.
    #[error("leadership was lost before the outcome of the proposal was known")]
    Unknown,
    /// The node has stopped, or belongs to no cluster.
    #[error("consensus is not running on this node: {0}")]
    Stopped(String),
}

/// A linearizable read is not possible now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader could confirm that it still leads.
    #[error("no leader has confirmed the read: {0}")]
    NoLeader(String),
    /// The leader answered, but this node has not caught up in time.
    #[error("this node has applied index {applied} of {wanted}")]
    Behind {
        /// What this node has.
        applied: u64,
        /// What it needs.
        wanted: u64,
    },
    /// The node has stopped, or belongs to no cluster.
    #[error("consensus is not running on this node: {0}")]
    Stopped(String),
}

/// A change of who takes part did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Only the leader changes the membership.
    #[error("this node does not lead{}", leader.as_ref().map(|l| format!("; node {} at {} does", l.id, l.instance.address)).unwrap_or_default())]
    NotLeader {
        /// Where to go.
        leader: Option<Member>,
    },
    /// The change makes no sense, or not now; the text says why.
    #[error("membership change refused: {0}")]
    Refused(String),
    /// Not done in time; it may still happen.
    #[error("membership change not finished: {0}")]
    Unfinished(String),
    /// The node has stopped, or belongs to no cluster.
    #[error("consensus is not running on this node: {0}")]
    Stopped(String),
}

/// A cluster was not founded, or joined.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The node has data of a cluster already.
    #[error("found cluster `{asked}`: this node belongs to cluster `{own}`; use an empty data directory")]
    OtherCluster {
        /// The id that was asked for.
        asked: String,
        /// The id on disk.
        own: String,
    },
    /// A peer belongs to a cluster: a second one would come up beside it.
    #[error("found cluster `{asked}`: peer {peer} belongs to cluster `{theirs}`; join that one")]
    PeerInitialised {
        /// The id that was asked for.
        asked: String,
        /// Address of the peer.
        peer: String,
        /// The id that the peer has.
        theirs: String,
    },
    /// No peer could take the node in.
    #[error("join: {0}")]
    Join(String),
    /// The request makes no sense.
    #[error("found or join a cluster: {0}")]
    Refused(String),
    /// The disk or the core has failed.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Consensus did not start. The process should stop: what is on disk is not to be served from.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings that cannot work.
    #[error("consensus settings: {0}")]
    Config(String),
    /// The data directory cannot be used.
    #[error("open {what} in {directory}")]
    Storage {
        /// Which part.
        what: &'static str,
        /// The data directory.
        directory: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The runtime of consensus did not start.
    #[error("start the runtime of consensus")]
    Runtime(#[source] std::io::Error),
    /// The library refuses to start from what is on disk.
    #[error("start consensus: {0}")]
    Core(String),
    /// Metrics could not be registered.
    #[error("register the metrics of consensus")]
    Metrics(#[from] prometheus::Error),
}

/// A backup was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The state could not be read at a known point.
    #[error("back up: {0}")]
    Read(#[from] ReadError),
    /// A backup that is damaged or of another kind.
    #[error("restore from backup: {0}")]
    Damaged(String),
    /// This node is not empty.
    #[error("restore from backup: {0}")]
    NotEmpty(String),
    /// The disk or the core has failed.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node has stopped.
    #[error("consensus is not running on this node: {0}")]
    Stopped(String),
}
