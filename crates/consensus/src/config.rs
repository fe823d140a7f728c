//! Settings of consensus on one node.

use std::path::PathBuf;

use crate::placement::PlacementRule;
use crate::timing::Timing;

/// Settings of consensus on one node.
#[derive(Debug, Clone)]
pub struct ConsensusConfig {
    /// Where log, snapshots and ballast live. Created when missing. One process at a time.
    pub directory: PathBuf,
    /// For people; the same for every instance of one pod.
    pub name: String,
    /// Host name and port under which the other nodes reach the Raft listener of this one.
    pub address: String,
    /// Region of this node.
    pub region: String,
    /// Whether this node is to become a voter.
    pub voter: bool,
    /// Raft addresses of nodes that may belong to the cluster: asked before one is founded, and for a place when joining.
    pub peers: Vec<String>,
    /// Intervals of the protocol.
    pub timing: Timing,
    /// Regions to hand leadership to first when this node stops; in order.
    pub preferred_regions: Vec<String>,
    /// When leadership moves to a voter that is better placed; `None` leaves it where it is.
    pub placement: Option<PlacementRule>,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries kept in the log behind a snapshot, so that a node that was away for a moment needs no snapshot.
    pub keep_entries: u64,
    /// Bytes set aside to be given back when the disk is full.
    pub ballast: u64,
    /// Bytes per second of a snapshot on its way to one node.
    pub snapshot_bytes_per_second: u64,
}

impl ConsensusConfig {
    /// The defaults for a node of this directory, name and address.
    pub fn new(directory: impl Into<PathBuf>, name: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
            name: name.into(),
            address: address.into(),
            region: String::new(),
            voter: true,
            peers: Vec::new(),
            timing: Timing::default(),
            preferred_regions: Vec::new(),
            placement: Some(PlacementRule::default()),
            snapshot_every: SNAPSHOT_EVERY,
            keep_entries: KEEP_ENTRIES,
            ballast: BALLAST,
            snapshot_bytes_per_second: SNAPSHOT_BYTES_PER_SECOND,
        }
    }
}

/// A snapshot of a state of 100,000 keys takes about a second; at the expected 2 to 50 entries per second this is at most one in 100 s.
pub(crate) const SNAPSHOT_EVERY: u64 = 5_000;
/// Covers a node that was away for 40 s at the highest expected rate.
pub(crate) const KEEP_ENTRIES: u64 = 2_000;
/// Enough for a snapshot and the two root pages of a commit.
pub(crate) const BALLAST: u64 = 64 << 20;
/// A quarter of a gigabit link.
pub(crate) const SNAPSHOT_BYTES_PER_SECOND: u64 = 20_000_000;
