//! What orders the commands: consensus, or a log of one node in memory.

mod alone;

use bytes::Bytes;
use tidegate_consensus::{Committed, Consensus, ProposeError, ReadError, Status};
use tokio::sync::watch;

pub use alone::Alone;

/// The order of commands. Clones are the same order.
#[derive(Clone)]
pub enum Agreement {
    /// A node of a cluster.
    Raft(Consensus),
    /// One node without a disk and without others: for trying things out and for tests. It forgets everything when it ends.
    Alone(Alone),
}

impl Agreement {
    /// Proposes an entry and waits until this node has applied it.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `Unknown` leaves the outcome open.
    pub async fn propose(&self, payload: Bytes) -> Result<Committed, ProposeError> {
        match self {
            Agreement::Raft(consensus) => consensus.propose(payload).await,
            Agreement::Alone(alone) => Ok(alone.propose(payload)),
        }
    }

    /// Makes reads that follow linearizable; the index that this node has applied at least.
    ///
    /// # Errors
    /// When no leader could be confirmed, or this node lags behind.
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        match self {
            Agreement::Raft(consensus) => consensus.read_barrier().await,
            Agreement::Alone(alone) => Ok(alone.status().applied),
        }
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        match self {
            Agreement::Raft(consensus) => consensus.status(),
            Agreement::Alone(alone) => alone.status(),
        }
    }

    /// How things stand, with every change.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        match self {
            Agreement::Raft(consensus) => consensus.watch_status(),
            Agreement::Alone(alone) => alone.watch_status(),
        }
    }

    /// The node of a cluster, where there is one.
    pub fn consensus(&self) -> Option<&Consensus> {
        match self {
            Agreement::Raft(consensus) => Some(consensus),
            Agreement::Alone(_) => None,
        }
    }
}
