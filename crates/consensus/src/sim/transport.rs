//! The network of the simulator: messages go through our protobuf, take their time, get lost and meet cuts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt as _;
use openraft::{OptionalSend, RPCTypes, Snapshot};
use tidegate_proto::v1;

use super::Sim;
use super::world::{SimRaft, World};
use crate::known_bugs::{Bug, on};
use crate::member::Instance;
use crate::network::{leash, requests};
use crate::state_store::SnapshotFile;
use crate::types::{LeaderId, Vote};

/// Makes links for one incarnation of a node.
pub(super) struct Transport {
    pub(super) world: Arc<World>,
    pub(super) node: u64,
    pub(super) incarnation: u64,
}

impl RaftNetworkFactory<Sim> for Transport {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &Instance) -> Link {
        Link { world: Arc::clone(&self.world), from: self.node, incarnation: self.incarnation, to: target }
    }
}

/// One direction between two nodes, and the answers on the way back.
pub(super) struct Link {
    world: Arc<World>,
    from: u64,
    incarnation: u64,
    to: u64,
}

impl Link {
    fn unreachable(&self) -> RPCError<Sim> {
        RPCError::Unreachable(Unreachable::from_string(format!("no way from {} to {}", self.from, self.to)))
    }

    /// The other node, once a message has arrived there.
    async fn there(&self) -> Option<SimRaft> {
        let delay = self.world.passes(self.from, self.incarnation, self.to)?;
        Sim::sleep(delay).await;
        self.world.passes(self.from, self.incarnation, self.to)?;
        self.world.raft(self.to)
    }

    /// The way of an answer. The caller must still be the one that has asked.
    async fn back(&self) -> Option<()> {
        let delay = self.world.returns(self.from, self.incarnation, self.to)?;
        Sim::sleep(delay).await;
        self.world.returns(self.from, self.incarnation, self.to).map(drop)
    }

    /// A call with an answer, or what openraft sees when there is none: sometimes at once, sometimes after its patience has run out.
    async fn call<T: Send, F: Future<Output = Option<T>> + Send>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl FnOnce(SimRaft) -> F + Send,
    ) -> Result<T, RPCError<Sim>> {
        let asked = async {
            let raft = self.there().await?;
            let answer = call(raft).await?;
            self.back().await?;
            Some(answer)
        };
        // A dead connection is noticed by its keep-alive, however patient the call is.
        let patience = option.soft_ttl().min(Duration::from_millis(self.world.config.heartbeat_interval) * 12);
        match Sim::timeout(patience, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) if self.world.chance(50) => Err(self.unreachable()),
            Ok(None) => {
                Sim::sleep(patience).await;
                Err(RPCError::Timeout(Timeout { action, id: self.from, target: self.to, timeout: patience }))
            }
            Err(_) => Err(RPCError::Timeout(Timeout { action, id: self.from, target: self.to, timeout: patience })),
        }
    }
}

/// Through bytes and back, as a real message goes.
fn over_the_wire<M: prost::Message + Default>(message: M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

impl RaftNetworkV2<Sim> for Link {
    type SnapshotData = SnapshotFile;

    /// Not used: entries and heartbeats go through [`Self::stream_append`].
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Sim>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Sim>, RPCError<Sim>> {
        let request = requests::read_append(over_the_wire(requests::append(&request))).unwrap();
        self.call(RPCTypes::AppendEntries, &option, |raft| async move { raft.append_entries(request).await.ok() }).await
    }

    /// A connection: requests arrive in order, as do the answers, and it breaks when a message cannot pass.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Sim>, RPCError<Sim>>>, RPCError<Sim>>>
    where
        S: Stream<Item = AppendEntriesRequest<Sim>> + OptionalSend + Unpin + 'static,
    {
        let this = &*self;
        Box::pin(async move {
            let connected = this.there().await;
            if on(Bug::WrongQuorum) && connected.is_none() {
                // Whoever does not answer is taken to have agreed.
                let agreed = input.map(|request| Ok(Ok(request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id))));
                return Ok(agreed.boxed());
            }
            let Some(raft) = connected else {
                // An unreachable node is noticed after a while.
                Sim::sleep(Duration::from_millis(50)).await;
                return Err(this.unreachable());
            };
            let (world, from, incarnation, to) = (Arc::clone(&this.world), this.from, this.incarnation, this.to);
            let (leash, input) = leash(input);
            let arriving = stream::unfold((Box::pin(input), world), move |(mut input, world)| async move {
                let request = input.next().await?;
                let message: v1::RaftAppendRequest = over_the_wire(requests::append(&request));
                let delay = world.passes(from, incarnation, to)?;
                Sim::sleep(delay).await;
                world.passes(from, incarnation, to)?;
                Some((requests::read_append::<Sim>(message).unwrap(), (input, world)))
            });
            // The two ends do not move in step: a real connection has room for some messages.
            let answers = raft.stream_append(Box::pin(arriving));
            let returning = stream::unfold(Some((Box::pin(answers), leash)), move |answers| async move {
                let (mut answers, leash) = answers?;
                match answers.next().await {
                    Some(Ok(answer)) => {
                        let answer = requests::read_appended::<Sim>(over_the_wire(requests::appended::<Sim>(&answer))).unwrap();
                        match this.back().await {
                            Some(()) => Some((Ok(answer), Some((answers, leash)))),
                            None => Some((Err(this.unreachable()), None)),
                        }
                    }
                    Some(Err(_)) => Some((Err(this.unreachable()), None)),
                    None => None,
                }
            });
            Ok(returning.boxed())
        })
    }

    async fn vote(&mut self, request: VoteRequest<Sim>, option: RPCOption) -> Result<VoteResponse<Sim>, RPCError<Sim>> {
        let request = requests::read_vote(over_the_wire(requests::vote(&request))).unwrap();
        let answer = self.call(RPCTypes::Vote, &option, |raft| async move { raft.vote(request).await.ok() }).await?;
        Ok(requests::read_voted(over_the_wire(requests::voted(&answer))).unwrap())
    }

    async fn pre_vote(&mut self, request: VoteRequest<Sim>, option: RPCOption) -> Result<VoteResponse<Sim>, RPCError<Sim>> {
        let request = requests::read_vote(over_the_wire(requests::vote(&request))).unwrap();
        let answer = self.call(RPCTypes::Vote, &option, |raft| async move { raft.pre_vote(request).await.ok() }).await?;
        Ok(requests::read_voted(over_the_wire(requests::voted(&answer))).unwrap())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, u64, Instance, SnapshotFile>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Sim>, StreamingError<Sim>> {
        if !requests::owns_snapshot(&vote, snapshot.meta.last_log_id.as_ref()) {
            return Err(self.unreachable().into());
        }
        let answer =
            self.call(RPCTypes::InstallSnapshot, &option, |raft| async move { raft.install_full_snapshot(vote, snapshot).await.ok() });
        Ok(answer.await?)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Sim>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Sim>, RPCError<Sim>> {
        let request = requests::read_transfer(over_the_wire(requests::transfer(&request))).unwrap();
        let answer =
            self.call(RPCTypes::TransferLeader, &option, |raft| async move { raft.handle_transfer_leader(request).await.ok() }).await?;
        Ok(requests::read_transferred(over_the_wire(requests::transferred::<Sim>(&answer))).unwrap())
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(200))))
    }
}
