//! openraft's view of one other node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError};
use openraft::network::{Backoff, NetBackoff, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, RPCTypes};
use tidegate_proto::v1;
use tidegate_runtime::backoff::BackoffBounds;
use tonic::{Response, Status};

use super::leash::leash;
use super::links::{Lane, Links, Outcome};
use super::requests;
use crate::member::Instance;
use crate::message::Malformed;
use crate::types::Tokio;

/// Makes connections for openraft.
pub(crate) struct Network {
    links: Links,
}

impl Network {
    pub(crate) fn new(links: Links) -> Self {
        Self { links }
    }

    fn connection(&self, target: u64, node: &Instance, lane: Lane) -> Connection {
        Connection { links: self.links.clone(), target, node: node.clone(), lane }
    }
}

impl RaftNetworkFactory<Tokio> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Instance) -> Connection {
        self.connection(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Instance) -> Connection {
        self.connection(target, node, Lane::Urgent)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Instance) -> Connection {
        self.connection(target, node, Lane::Snapshot)
    }
}

/// One other node.
pub(crate) struct Connection {
    pub(super) links: Links,
    pub(super) target: u64,
    pub(super) node: Instance,
    lane: Lane,
}

type Results<'s> = BoxStream<'s, Result<StreamAppendResult<Tokio>, RPCError<Tokio>>>;

impl Connection {
    /// Waits for an answer on the urgent lane, as long as openraft grants.
    async fn urgent<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RPCError<Tokio>> {
        match tokio::time::timeout(option.soft_ttl(), call).await {
            Ok(Ok(answer)) => {
                self.links.report(self.target, Lane::Urgent, Outcome::Answered);
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => Err(self.links.error(self.target, Lane::Urgent, &status)),
            Err(_) => Err(self.links.timeout(self.target, Lane::Urgent, action, option.soft_ttl())),
        }
    }

    /// Heartbeats: one call for each, as they must not wait for one another.
    async fn heartbeat(
        &self,
        request: AppendEntriesRequest<Tokio>,
        option: &RPCOption,
    ) -> Result<StreamAppendResult<Tokio>, RPCError<Tokio>> {
        let (hello, quorum_age_ms) = (Some(self.links.hello(self.target)), self.links.quorum_age());
        let message = v1::RaftAppendRequest { hello, quorum_age_ms, ..requests::append(&request) };
        let mut client = self.links.client(self.target, &self.node, Lane::Urgent);
        let answer = self.urgent(RPCTypes::AppendEntries, option, client.heartbeat(message)).await?;
        requests::read_appended(answer).map_err(malformed)
    }

    /// Entries: one stream as long as there are some, with as many requests under way as the window takes.
    async fn stream<'s, S>(&'s self, input: S) -> Result<Results<'s>, RPCError<Tokio>>
    where
        S: Stream<Item = AppendEntriesRequest<Tokio>> + OptionalSend + Unpin + 'static,
    {
        let stall = self.stall();
        let under_way = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&under_way);
        let mut hello = Some(self.links.hello(self.target));
        let links = self.links.clone();
        let (leash, input) = leash(input);
        let messages = input.map(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            v1::RaftAppendRequest { hello: hello.take(), quorum_age_ms: links.quorum_age(), ..requests::append(&request) }
        });
        let mut client = self.links.client(self.target, &self.node, Lane::Append);
        let opened = tokio::time::timeout(stall, client.stream_append(messages)).await;
        let answers = match opened {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Err(self.links.error(self.target, Lane::Append, &status)),
            Err(_) => return Err(self.links.timeout(self.target, Lane::Append, RPCTypes::AppendEntries, stall)),
        };
        let results = stream::unfold(Some((answers, leash)), move |answers| {
            let under_way = Arc::clone(&under_way);
            async move {
                let (mut answers, leash) = answers?;
                loop {
                    // Dropping the wait loses nothing: an answer that comes later is still in the stream.
                    let result = match tokio::time::timeout(stall, answers.next()).await {
                        Ok(Some(Ok(answer))) => {
                            under_way.fetch_sub(1, Ordering::Relaxed);
                            self.links.report(self.target, Lane::Append, Outcome::Answered);
                            let result = requests::read_appended(answer).map_err(malformed);
                            return Some((result, Some((answers, leash))));
                        }
                        Ok(Some(Err(status))) => Err(self.links.error(self.target, Lane::Append, &status)),
                        Ok(None) => return None,
                        // Nothing was asked, so nothing is late.
                        Err(_) if under_way.load(Ordering::Relaxed) == 0 => continue,
                        Err(_) => Err(self.links.timeout(self.target, Lane::Append, RPCTypes::AppendEntries, stall)),
                    };
                    return Some((result, None));
                }
            }
        });
        Ok(results.boxed())
    }

    /// How long a stream with requests under way may bring no answer. Openraft's own hint, three quarters of a heartbeat, is shorter than
    /// the flush of a full batch on a busy disk.
    fn stall(&self) -> Duration {
        self.links.timing().election_min
    }
}

fn malformed(error: Malformed) -> RPCError<Tokio> {
    RPCError::Network(NetworkError::new(&error))
}

impl NetStreamAppend<Tokio> for Connection {
    fn stream_append<'s, S>(&'s mut self, mut input: S, option: RPCOption) -> BoxFuture<'s, Result<Results<'s>, RPCError<Tokio>>>
    where
        S: Stream<Item = AppendEntriesRequest<Tokio>> + OptionalSend + Unpin + 'static,
    {
        let this = &*self;
        match this.lane {
            Lane::Append | Lane::Snapshot => Box::pin(this.stream(input)),
            Lane::Urgent => Box::pin(async move {
                let Some(request) = input.next().await else {
                    return Ok(stream::empty().boxed());
                };
                let result = this.heartbeat(request, &option).await?;
                Ok(stream::once(async { Ok(result) }).boxed())
            }),
        }
    }
}

impl NetVote<Tokio> for Connection {
    async fn vote(&mut self, request: VoteRequest<Tokio>, option: RPCOption) -> Result<VoteResponse<Tokio>, RPCError<Tokio>> {
        let message = v1::RaftVoteRequest { hello: Some(self.links.hello(self.target)), ..requests::vote(&request) };
        let mut client = self.links.client(self.target, &self.node, Lane::Urgent);
        let answer = self.urgent(RPCTypes::Vote, &option, client.vote(message)).await?;
        requests::read_voted(answer).map_err(malformed)
    }

    /// A voter that cannot be asked has not granted anything.
    async fn pre_vote(&mut self, request: VoteRequest<Tokio>, option: RPCOption) -> Result<VoteResponse<Tokio>, RPCError<Tokio>> {
        let message = v1::RaftVoteRequest { hello: Some(self.links.hello(self.target)), ..requests::vote(&request) };
        let mut client = self.links.client(self.target, &self.node, Lane::Urgent);
        let answer = self.urgent(RPCTypes::Vote, &option, client.pre_vote(message)).await?;
        requests::read_voted(answer).map_err(malformed)
    }
}

impl NetTransferLeader<Tokio> for Connection {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Tokio>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Tokio>, RPCError<Tokio>> {
        let message = v1::RaftTransferRequest { hello: Some(self.links.hello(self.target)), ..requests::transfer(&request) };
        let mut client = self.links.client(self.target, &self.node, Lane::Urgent);
        let answer = self.urgent(RPCTypes::TransferLeader, &option, client.transfer_leader(message)).await?;
        requests::read_transferred(answer).map_err(malformed)
    }
}

impl NetBackoff<Tokio> for Connection {
    fn backoff(&self) -> Option<Backoff> {
        let heartbeat = self.links.timing().heartbeat;
        // Not longer than an election takes: a node that is back must not wait for entries while it campaigns.
        let bounds = BackoffBounds { base: heartbeat, cap: self.links.timing().election_min };
        let mut random = fastrand::Rng::new();
        Some(Backoff::new((0..).map(move |attempt| (bounds.full_jitter(attempt, &mut random)).max(heartbeat / 2))))
    }
}
