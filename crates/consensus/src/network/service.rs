//! What the other nodes may ask of this one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use openraft::Snapshot;
use openraft::raft::{AppendEntriesResponse, StreamAppendError};
use parking_lot::Mutex;
use tidegate_proto::v1;
use tidegate_proto::v1::raft_server::{Raft, RaftServer};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::hello::{check, check_role};
use super::links::LARGEST_MESSAGE;
use super::requests;
use super::snapshot::{Announced, Partial};
use crate::error::{ChangeError, ReadError};
use crate::member::{Instance, Member, Uuid};
use crate::message::{Malformed, Message as _};
use crate::node::{Node, Running, error_text};
use crate::snapshot as file;
use crate::state_store::SnapshotFile;
use crate::types::{LeaderId, SnapshotMeta, Tokio};

/// The service of the Raft listener.
pub type RaftService = RaftServer<Served>;

/// What serves the other nodes. Made by [`crate::Consensus::service`].
#[derive(Clone)]
pub struct Served {
    node: Arc<Node>,
}

impl Served {
    pub(crate) fn service(node: Arc<Node>) -> RaftService {
        RaftServer::new(Self { node }).max_decoding_message_size(LARGEST_MESSAGE).max_encoding_message_size(LARGEST_MESSAGE)
    }

    fn running(&self) -> Result<Arc<Running>, Status> {
        self.node.running().ok_or_else(|| Status::unavailable(self.node.why_not()))
    }

    /// The running node, when the greeting is for it.
    fn greeted<T>(&self, request: &Request<T>, hello: Option<&v1::RaftHello>) -> Result<Arc<Running>, Status> {
        check_role(request)?;
        let running = self.running()?;
        check(&running.own, hello)?;
        Ok(running)
    }
}

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::error::Error) -> Status {
    Status::unavailable(error_text(&error))
}

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Raft for Served {
    type StreamAppendStream = Answers<v1::RaftAppendResponse>;
    type SnapshotStream = Answers<v1::RaftSnapshotReply>;

    async fn stream_append(
        &self,
        request: Request<Streaming<v1::RaftAppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        check_role(&request)?;
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.ok_or_else(|| Status::invalid_argument("a stream without a greeting"))?;
        let running = self.running()?;
        check(&running.own, first.hello.as_ref())?;
        // When a quorum was last known to follow the sender, by the newest of its messages.
        let followed = Arc::new(Mutex::new(None));
        let told = Arc::clone(&followed);
        // Why the stream ends early: the sender is told, or it would try the same for ever without a reason.
        let refusal = Arc::new(Mutex::new(None));
        let refused = Arc::clone(&refusal);
        // The first message that is not as it should be ends the stream, as does the end of the connection.
        let requests = stream::once(async { Ok(first) }).chain(inbound).scan((), move |(), message| {
            let request = message.ok().and_then(|message| {
                *told.lock() = followed_at(message.quorum_age_ms);
                match requests::read_append::<Tokio>(message) {
                    Ok(request) => Some(request),
                    Err(error) => {
                        tracing::error!(%error, "an append of the leader");
                        *refused.lock() = Some(malformed(error));
                        None
                    }
                }
            });
            std::future::ready(request)
        });
        let hearer = Arc::clone(&running);
        let answers = running.raft.stream_append(requests.boxed()).map(move |result| match result {
            Ok(result) => {
                if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                    hearer.hear(*followed.lock());
                }
                Ok(requests::appended::<Tokio>(&result))
            }
            Err(fatal) => Err(stopped(fatal)),
        });
        let end = stream::once(async move { refusal.lock().take().map(Err) }).filter_map(std::future::ready);
        Ok(Response::new(answers.chain(end).boxed()))
    }

    async fn heartbeat(&self, request: Request<v1::RaftAppendRequest>) -> Result<Response<v1::RaftAppendResponse>, Status> {
        let running = self.greeted(&request, request.get_ref().hello.as_ref())?;
        let followed = followed_at(request.get_ref().quorum_age_ms);
        let append = requests::read_append::<Tokio>(request.into_inner()).map_err(malformed)?;
        let previous = append.prev_log_id;
        let last = append.entries.last().map(|entry| entry.log_id).or(previous);
        let response = running.raft.append_entries(append).await.map_err(stopped)?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            running.hear(followed);
        }
        if response == AppendEntriesResponse::Conflict && previous.is_none() {
            return Err(Status::internal("a conflict with the beginning of the log"));
        }
        Ok(Response::new(requests::appended::<Tokio>(&response.into_stream_result(previous, last))))
    }

    async fn vote(&self, request: Request<v1::RaftVoteRequest>) -> Result<Response<v1::RaftVoteResponse>, Status> {
        let running = self.greeted(&request, request.get_ref().hello.as_ref())?;
        let vote = requests::read_vote::<Tokio>(request.into_inner()).map_err(malformed)?;
        let response = running.raft.vote(vote).await.map_err(stopped)?;
        Ok(Response::new(requests::voted(&response)))
    }

    async fn pre_vote(&self, request: Request<v1::RaftVoteRequest>) -> Result<Response<v1::RaftVoteResponse>, Status> {
        let running = self.greeted(&request, request.get_ref().hello.as_ref())?;
        let vote = requests::read_vote::<Tokio>(request.into_inner()).map_err(malformed)?;
        let response = running.raft.pre_vote(vote).await.map_err(stopped)?;
        Ok(Response::new(requests::voted(&response)))
    }

    async fn transfer_leader(&self, request: Request<v1::RaftTransferRequest>) -> Result<Response<v1::RaftTransferResponse>, Status> {
        let running = self.greeted(&request, request.get_ref().hello.as_ref())?;
        let transfer = requests::read_transfer::<Tokio>(request.into_inner()).map_err(malformed)?;
        let response = running.raft.handle_transfer_leader(transfer).await.map_err(stopped)?;
        Ok(Response::new(requests::transferred::<Tokio>(&response)))
    }

    async fn snapshot(&self, request: Request<Streaming<v1::RaftSnapshotFrame>>) -> Result<Response<Self::SnapshotStream>, Status> {
        check_role(&request)?;
        let mut frames = request.into_inner();
        let Some(v1::raft_snapshot_frame::Body::Begin(begin)) = frames.message().await?.and_then(|frame| frame.body) else {
            return Err(Status::invalid_argument("a snapshot that does not begin with what it is"));
        };
        let running = self.running()?;
        check(&running.own, begin.hello.as_ref())?;
        let announced = Announced::read(begin)?;
        let partial = Arc::clone(&self.node.arriving).try_lock_owned().map_err(|_| Status::aborted("another snapshot is arriving"))?;
        // One reply at the beginning and one at the end.
        let (replies, answers) = mpsc::channel(2);
        // Ends with the connection, or with the last frame.
        self.node.tasks.spawn_on(&self.node.handle, "raft-snapshot-receive", async move {
            let outcome = receive(&running, announced, partial, frames, &replies).await;
            let reply = outcome.map(|vote| v1::RaftSnapshotReply { body: Some(v1::raft_snapshot_reply::Body::Done(vote)) });
            // A sender that has hung up does not want to know.
            let _ = replies.send(reply).await;
        });
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }

    async fn read_index(&self, request: Request<v1::RaftReadIndexRequest>) -> Result<Response<v1::RaftReadIndexResponse>, Status> {
        let running = self.greeted(&request, request.get_ref().hello.as_ref())?;
        let index = running.read_index().await.map_err(|error| match error {
            ReadError::Stopped(_) => Status::unavailable(error.to_string()),
            _ => Status::failed_precondition(error.to_string()),
        })?;
        Ok(Response::new(v1::RaftReadIndexResponse { index }))
    }

    async fn join(&self, request: Request<v1::RaftJoinRequest>) -> Result<Response<v1::RaftJoinResponse>, Status> {
        use v1::raft_join_response::Outcome;
        check_role(&request)?;
        let running = self.running()?;
        let v1::RaftJoinRequest { node, cluster_id } = request.into_inner();
        let instance = Instance::from_proto(node.ok_or_else(|| Status::invalid_argument("no node"))?).map_err(malformed)?;
        let outcome = if !cluster_id.is_empty() && cluster_id != running.own.cluster_id {
            Outcome::Refused(format!("this is cluster `{}`, not `{cluster_id}`", running.own.cluster_id))
        } else {
            match running.join(instance).await {
                Ok(node_id) => Outcome::Joined(v1::RaftJoined { cluster_id: running.own.cluster_id.clone(), node_id }),
                Err(ChangeError::NotLeader { leader }) => Outcome::NotLeader(v1::RaftLeaderHint { leader: leader.map(member) }),
                Err(ChangeError::Refused(reason)) => Outcome::Refused(reason),
                Err(error) => return Err(stopped(error)),
            }
        };
        Ok(Response::new(v1::RaftJoinResponse { outcome: Some(outcome) }))
    }

    async fn ping(&self, request: Request<v1::RaftPingRequest>) -> Result<Response<v1::RaftPingResponse>, Status> {
        let running = self.greeted(&request, request.get_ref().hello.as_ref())?;
        let row = running.survey.lock().row().into_iter();
        let micros = |distance: Duration| u64::try_from(distance.as_micros()).unwrap_or(u64::MAX);
        let round_trips = row.map(|(node, distance)| v1::RaftRoundTrip { node, micros: micros(distance) }).collect();
        Ok(Response::new(v1::RaftPingResponse { round_trips }))
    }

    async fn identify(&self, request: Request<v1::RaftIdentifyRequest>) -> Result<Response<v1::RaftIdentifyResponse>, Status> {
        check_role(&request)?;
        let Some(running) = self.node.running() else {
            return Ok(Response::new(v1::RaftIdentifyResponse::default()));
        };
        let uuid = request.get_ref().uuid.as_ref().try_into().ok().map(Uuid);
        let allocated = uuid.and_then(|uuid| self.node.state.allocated(&uuid));
        let removed = allocated.is_some_and(|id| running.membership().membership().get_node(&id).is_none());
        let leader = running.leader().map_or(0, |leader| leader.id);
        let response =
            v1::RaftIdentifyResponse { cluster_id: running.own.cluster_id.clone(), node_id: running.own.sender, leader, removed };
        Ok(Response::new(response))
    }
}

/// When the sender of a request was last acknowledged by a quorum. The way here is left out: it is short beside what the age is used for.
fn followed_at(quorum_age_ms: Option<u64>) -> Option<Instant> {
    Instant::now().checked_sub(Duration::from_millis(quorum_age_ms?))
}

/// Takes the frames of a snapshot, and installs it when it is whole and right.
async fn receive(
    running: &Running,
    announced: Announced,
    mut partial: tokio::sync::OwnedMutexGuard<Partial>,
    mut frames: Streaming<v1::RaftSnapshotFrame>,
    replies: &mpsc::Sender<Result<v1::RaftSnapshotReply, Status>>,
) -> Result<v1::RaftVote, Status> {
    let have = partial.resume(&announced);
    let reply = v1::RaftSnapshotReply { body: Some(v1::raft_snapshot_reply::Body::Have(have)) };
    replies.send(Ok(reply)).await.map_err(|_| Status::cancelled("the sender has hung up"))?;
    while !partial.is_whole() {
        match frames.message().await?.and_then(|frame| frame.body) {
            Some(v1::raft_snapshot_frame::Body::Chunk(chunk)) => partial.push(&chunk)?,
            Some(v1::raft_snapshot_frame::Body::Begin(_)) => return Err(Status::invalid_argument("a second beginning")),
            None => return Err(Status::cancelled("the snapshot ends too early")),
        }
    }
    let data: SnapshotFile = partial.finish()?;
    drop(partial);
    let damaged = |error: file::SnapshotError| Status::data_loss(error_text(&error));
    let head = tokio::task::spawn_blocking({
        let data = data.clone();
        move || file::Snapshot::decode(&data)
    });
    let head = head.await.map_err(|error| Status::internal(error.to_string()))?.map_err(damaged)?;
    if head.cluster_id != running.own.cluster_id {
        return Err(Status::failed_precondition(format!("a snapshot of cluster `{}`", head.cluster_id)));
    }
    if head.last_log_id.map(|id| id.to_proto()) != announced.last_log_id || Some(head.membership.to_proto()) != announced.membership {
        return Err(Status::data_loss("the snapshot is of another point of the log than announced"));
    }
    if !requests::owns_snapshot(&announced.vote, head.last_log_id.as_ref()) {
        return Err(Status::failed_precondition("a snapshot of a later term than its sender led in"));
    }
    let meta = SnapshotMeta { last_log_id: head.last_log_id, last_membership: head.membership };
    let snapshot: Snapshot<LeaderId, u64, Instance, SnapshotFile> = Snapshot { meta, snapshot: data };
    let response = running.raft.install_full_snapshot(announced.vote, snapshot).await.map_err(stopped)?;
    Ok(response.vote.to_proto())
}

fn member(member: Member) -> v1::RaftMember {
    v1::RaftMember { id: member.id, node: Some(member.instance.to_proto()) }
}
