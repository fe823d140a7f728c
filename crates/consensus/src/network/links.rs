//! The connections to the other nodes: three for each, made when first needed, and thrown away when they stop answering.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::RPCTypes;
use openraft::errors::{NetworkError, RPCError, Timeout, Unreachable};
use parking_lot::Mutex;
use tidegate_proto::v1::RaftHello;
use tidegate_proto::v1::raft_client::RaftClient;
use tidegate_runtime::mesh::{ChannelOptions, Dial, Expect, Role, channel};
use tokio::sync::Semaphore;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::hello;
use crate::member::Instance;
use crate::timing::Timing;
use crate::types::Tokio;

/// What a connection is for. What is large must not stand before what is urgent, so each has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Entries.
    Append,
    /// Heartbeats, votes, transfers, reads.
    Urgent,
    /// Snapshots.
    Snapshot,
}

/// The connections of this node. Clones share them.
#[derive(Clone)]
pub(crate) struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    own: RaftHello,
    dial: Arc<dyn Dial>,
    timing: Timing,
    links: Mutex<HashMap<(u64, Lane), Link>>,
    /// Snapshots on their way at the same time.
    snapshots: Semaphore,
    snapshot_bytes_per_second: u64,
    quorum_age: OnceLock<QuorumAge>,
}

/// Milliseconds since a quorum has acknowledged this node as the leader; `None` while it does not lead.
pub(crate) type QuorumAge = Box<dyn Fn() -> Option<u64> + Send + Sync>;

struct Link {
    node: Instance,
    channel: Channel,
    /// Calls in a row that were not answered in time.
    timeouts: u32,
    /// What was said in the log last, so that it is said once.
    down: bool,
}

impl Links {
    pub(crate) fn new(own: RaftHello, dial: Arc<dyn Dial>, timing: Timing, snapshot_bytes_per_second: u64) -> Self {
        let links = Mutex::new(HashMap::new());
        let snapshots = Semaphore::new(SNAPSHOTS_AT_ONCE);
        Self { shared: Arc::new(Shared { own, dial, timing, links, snapshots, snapshot_bytes_per_second, quorum_age: OnceLock::new() }) }
    }

    /// Says how to learn whether this node still leads a quorum. Only once: the connections are there before openraft is.
    pub(crate) fn tell_quorum_age(&self, age: QuorumAge) {
        // A second one would be of the same node.
        let _ = self.shared.quorum_age.set(age);
    }

    /// See [`QuorumAge`].
    pub(super) fn quorum_age(&self) -> Option<u64> {
        self.shared.quorum_age.get().and_then(|age| age())
    }

    /// A greeting to another node.
    pub(crate) fn hello(&self, target: u64) -> RaftHello {
        hello::to(&self.shared.own, target)
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.shared.timing
    }

    pub(super) fn snapshot_bytes_per_second(&self) -> u64 {
        self.shared.snapshot_bytes_per_second
    }

    pub(super) async fn snapshot_permit(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.shared.snapshots.acquire().await.ok()
    }

    /// A client on the lane to a node. Connects when it is used.
    pub(crate) fn client(&self, target: u64, node: &Instance, lane: Lane) -> RaftClient<Channel> {
        let mut links = self.shared.links.lock();
        let link = links.entry((target, lane)).or_insert_with(|| self.connect(node));
        if link.node.address != node.address {
            *link = self.connect(node);
        }
        client(link.channel.clone())
    }

    /// Reports what became of a call. A connection that has timed out twice in a row is thrown away: it may be one whose other end is
    /// long gone, and the name is looked up anew.
    pub(crate) fn report(&self, target: u64, lane: Lane, outcome: Outcome<'_>) {
        let mut links = self.shared.links.lock();
        let Some(link) = links.get_mut(&(target, lane)) else {
            return;
        };
        match outcome {
            Outcome::Answered => {
                if link.down {
                    tracing::info!(node = target, address = link.node.address, ?lane, "the node answers again");
                }
                (link.down, link.timeouts) = (false, 0);
            }
            Outcome::Failed(reason) => {
                if !link.down {
                    tracing::warn!(node = target, address = link.node.address, ?lane, reason, "the node does not answer");
                }
                link.down = true;
            }
            Outcome::TimedOut => {
                link.timeouts += 1;
                if link.timeouts >= TIMEOUTS {
                    if !link.down {
                        tracing::warn!(
                            node = target,
                            address = link.node.address,
                            ?lane,
                            "the node does not answer in time; connecting anew"
                        );
                    }
                    *link = Link { down: true, ..self.connect(&link.node) };
                }
            }
        }
    }

    /// openraft's error for a failed call, which is reported on the way.
    pub(crate) fn error(&self, target: u64, lane: Lane, status: &Status) -> RPCError<Tokio> {
        self.report(target, lane, Outcome::Failed(status.message()));
        match status.code() {
            // Nobody there, or somebody else: trying at once again helps nobody.
            Code::Unavailable | Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
                RPCError::Unreachable(Unreachable::from_string(status.message()))
            }
            _ => RPCError::Network(NetworkError::from_string(status)),
        }
    }

    /// openraft's error for a call that took too long, which is reported on the way.
    pub(crate) fn timeout(&self, target: u64, lane: Lane, action: RPCTypes, timeout: Duration) -> RPCError<Tokio> {
        self.report(target, lane, Outcome::TimedOut);
        RPCError::Timeout(Timeout { action, id: self.shared.own.sender, target, timeout })
    }

    fn connect(&self, node: &Instance) -> Link {
        let options = ChannelOptions {
            timeout: None,
            keep_alive_interval: self.shared.timing.heartbeat * 4,
            keep_alive_timeout: self.shared.timing.heartbeat * 8,
            ..ChannelOptions::default()
        };
        let channel = channel(Arc::clone(&self.shared.dial), node.address.clone(), expect(&node.region), options);
        Link { node: node.clone(), channel, timeouts: 0, down: false }
    }
}

/// How a call went.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome<'a> {
    Answered,
    Failed(&'a str),
    TimedOut,
}

/// A client on a connection, with our limit on messages.
pub(crate) fn client(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE)
}

/// What the other side of a connection must prove to be.
pub(crate) fn expect(region: &str) -> Expect {
    if region.is_empty() { Expect::role(Role::Control) } else { Expect::in_region(Role::Control, region) }
}

/// Four times the largest batch of entries.
pub(crate) const LARGEST_MESSAGE: usize = 4 << 20;
/// One lost packet is no reason to connect anew.
const TIMEOUTS: u32 = 2;
/// A leader whose uplink carries more snapshots at once has none left for entries.
const SNAPSHOTS_AT_ONCE: usize = 2;
