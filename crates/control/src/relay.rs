//! Between control nodes, on the Raft listener: commands and changes of the cluster on their way to the leader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tidegate_consensus::ChangeError;
use tidegate_proto::v1::relay_client::RelayClient;
use tidegate_proto::v1::relay_server::{Relay, RelayServer};
use tidegate_proto::v1::{
    ClusterChange, ClusterChanged, Command, NotLeading, Outdated, Proposed, ReplaceMember, cluster_change, cluster_changed, proposed,
};
use tidegate_runtime::mesh::{ChannelOptions, Dial, Expect, Peer, Role, channel};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::agreement::Agreement;
use crate::proposer::Proposer;

/// Longest time for one call: a slow quorum, but not an election.
const CALL: Duration = Duration::from_secs(5);
/// Longest time for a change of the cluster: a learner has to catch up first.
const CHANGE: Duration = Duration::from_secs(60);
/// Channels that are kept; there are at most about 60 control nodes.
const CHANNELS: usize = 256;
/// Header of a relayed command: its length as the sender knows it, in bytes.
const COMMAND_BYTES: &str = "tidegate-command-bytes";

/// Connections to other control nodes, by address. They connect when they are first used.
pub struct Peers {
    dial: Arc<dyn Dial>,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Peers {
    /// No connections yet.
    pub fn new(dial: Arc<dyn Dial>) -> Peers {
        Peers { dial, channels: Mutex::default() }
    }

    /// The channel to a node.
    pub fn channel(&self, address: &str) -> Channel {
        let mut channels = self.channels.lock();
        if channels.len() >= CHANNELS {
            channels.clear();
        }
        let open = || channel(Arc::clone(&self.dial), address, Expect::role(Role::Control), ChannelOptions::default());
        channels.entry(address.to_owned()).or_insert_with(open).clone()
    }

    pub(crate) async fn propose(&self, address: &str, command: Command) -> Result<Proposed, Status> {
        let bytes = command.encoded_len();
        let mut request = Request::new(command);
        request.metadata_mut().insert(COMMAND_BYTES, bytes.into());
        let call = async { RelayClient::new(self.channel(address)).propose(request).await };
        match tokio::time::timeout(CALL, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    pub(crate) async fn change_cluster(&self, address: &str, change: ClusterChange) -> Result<ClusterChanged, Status> {
        let call = async { RelayClient::new(self.channel(address)).change_cluster(change).await };
        match tokio::time::timeout(CHANGE, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_elapsed) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

/// The other side of [`Peers`].
pub struct RelayService {
    proposer: Proposer,
    /// This node, as it is named to who must upgrade it.
    this: Outdated,
}

impl RelayService {
    /// To be mounted on the Raft listener of the node of this name and build.
    pub fn server(proposer: Proposer, node: String, build: String) -> RelayServer<RelayService> {
        RelayServer::new(RelayService { proposer, this: Outdated { node, build } })
    }
}

#[tonic::async_trait]
impl Relay for RelayService {
    async fn propose(&self, request: Request<Command>) -> Result<Response<Proposed>, Status> {
        admit(&request)?;
        // What this version does not know was lost in reading. Proposed without it, the command would be another one.
        if sent_bytes(&request).is_some_and(|sent| request.get_ref().encoded_len() < sent) {
            return Ok(Response::new(Proposed { outcome: Some(proposed::Outcome::Outdated(self.this.clone())) }));
        }
        Ok(Response::new(self.proposer.for_peer(request.into_inner()).await))
    }

    async fn change_cluster(&self, request: Request<ClusterChange>) -> Result<Response<ClusterChanged>, Status> {
        admit(&request)?;
        Ok(Response::new(change_here(self.proposer.agreement(), request.into_inner()).await))
    }
}

/// How long the command was when it was sent, where the sender says so.
fn sent_bytes<T>(request: &Request<T>) -> Option<usize> {
    request.metadata().get(COMMAND_BYTES)?.to_str().ok()?.parse().ok()
}

/// Control nodes only. Where nobody proves who they are, the listener's address is the only fence.
fn admit<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Peer>().and_then(|peer| peer.name.as_ref()) {
        Some(name) if name.role() != Role::Control => Err(Status::permission_denied(format!("{name} is no control node"))),
        Some(_) | None => Ok(()),
    }
}

/// Makes a change on this node, if it leads.
pub(crate) async fn change_here(agreement: &Agreement, change: ClusterChange) -> ClusterChanged {
    let outcome = |outcome| ClusterChanged { outcome: Some(outcome) };
    let Some(consensus) = agreement.consensus() else {
        return outcome(cluster_changed::Outcome::Refused("this node has no cluster that others could be in".to_owned()));
    };
    let result = match change.change {
        Some(cluster_change::Change::Promote(id)) => consensus.promote(id).await.map(|()| id),
        Some(cluster_change::Change::Remove(id)) => consensus.remove(id).await.map(|()| id),
        Some(cluster_change::Change::Replace(ReplaceMember { old, new })) => consensus.replace(old, new).await.map(|()| new),
        Some(cluster_change::Change::TransferLeader(to)) => consensus.transfer_leader((to != 0).then_some(to)).await,
        None => return outcome(cluster_changed::Outcome::Refused("not a change that this version knows".to_owned())),
    };
    outcome(match result {
        Ok(id) => cluster_changed::Outcome::Done(id),
        Err(ChangeError::NotLeader { leader }) => {
            let leader_address = leader.map(|leader| leader.instance.address).unwrap_or_default();
            cluster_changed::Outcome::NotLeading(NotLeading { leader_address })
        }
        Err(ChangeError::Refused(why) | ChangeError::Stopped(why)) => cluster_changed::Outcome::Refused(why),
        Err(ChangeError::Unfinished(why)) => cluster_changed::Outcome::Unfinished(why),
    })
}
