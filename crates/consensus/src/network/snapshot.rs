//! Snapshots on the wire: sent in frames small enough to let others through, taken up where an earlier try has ended, and looked at as a
//! whole before anything is made of them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError};
use openraft::network::{NetSnapshot, RPCOption};
use openraft::raft::SnapshotResponse;
use openraft::{OptionalSend, RPCTypes, Snapshot};
use tidegate_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::bucket::Bucket;
use super::client::Connection;
use super::links::{Lane, Outcome};
use super::requests;
use crate::member::Instance;
use crate::message::{Message as _, required};
use crate::snapshot::LARGEST_SNAPSHOT;
use crate::state_store::SnapshotFile;
use crate::types::{LeaderId, Tokio, Vote};

impl NetSnapshot<Tokio> for Connection {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, u64, Instance, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Tokio>, StreamingError<Tokio>> {
        // Dropping the transfer ends its stream; the receiver keeps what it has for the next try.
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            done = self.send(vote, snapshot, option.soft_ttl()) => done,
        }
    }
}

impl Connection {
    async fn send(
        &self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, u64, Instance, SnapshotFile>,
        patience: Duration,
    ) -> Result<SnapshotResponse<Tokio>, StreamingError<Tokio>> {
        let Some(_permit) = self.links.snapshot_permit().await else {
            return Err(StreamingError::Closed(ReplicationClosed::new("this node stops")));
        };
        if !requests::owns_snapshot(&vote, snapshot.meta.last_log_id.as_ref()) {
            return Err(StreamingError::Network(NetworkError::from_string(
                "this node was replaced as the leader, and has the state of a later term",
            )));
        }
        let file = snapshot.snapshot;
        let begin = v1::RaftSnapshotBegin {
            hello: Some(self.links.hello(self.target)),
            vote: Some(vote.to_proto()),
            last_log_id: snapshot.meta.last_log_id.as_ref().map(crate::message::Message::to_proto),
            membership: Some(snapshot.meta.last_membership.to_proto()),
            length: file.len() as u64,
            digest: Bytes::copy_from_slice(blake3::hash(&file).as_bytes()),
        };
        // Two frames: one on its way and one ready.
        let (frames, outgoing) = mpsc::channel(2);
        let frame = |body| v1::RaftSnapshotFrame { body: Some(body) };
        let gone = || StreamingError::Network(NetworkError::from_string("the receiver of the snapshot has hung up"));
        frames.send(frame(v1::raft_snapshot_frame::Body::Begin(begin))).await.map_err(|_| gone())?;
        let mut client = self.links.client(self.target, &self.node, Lane::Snapshot);
        let opened = self.in_time(patience, client.snapshot(ReceiverStream::new(outgoing))).await?;
        let mut replies = opened.into_inner();
        let have = match self.reply(patience, &mut replies).await? {
            v1::raft_snapshot_reply::Body::Have(have) => usize::try_from(have).unwrap_or(usize::MAX).min(file.len()),
            v1::raft_snapshot_reply::Body::Done(vote) => return done(vote),
        };
        if have > 0 {
            tracing::info!(node = self.target, have, of = file.len(), "the snapshot goes on where it ended");
        }
        let started = tokio::time::Instant::now();
        let mut bucket = Bucket::new(self.links.snapshot_bytes_per_second(), (4 * FRAME) as u64, Duration::ZERO);
        let mut offset = have;
        while offset < file.len() {
            let data = file.slice(offset..file.len().min(offset + FRAME));
            tokio::time::sleep(bucket.take(data.len() as u64, started.elapsed())).await;
            let chunk = v1::RaftSnapshotChunk { offset: offset as u64, checksum: checksum(&data), data };
            offset += chunk.data.len();
            let sending = frames.send(frame(v1::raft_snapshot_frame::Body::Chunk(chunk)));
            match tokio::time::timeout(patience, sending).await {
                Ok(Ok(())) => {}
                // The receiver has ended the call; its answer says why.
                Ok(Err(_)) => break,
                Err(_) => return Err(self.links.timeout(self.target, Lane::Snapshot, RPCTypes::InstallSnapshot, patience).into()),
            }
        }
        drop(frames);
        match self.reply(patience, &mut replies).await? {
            v1::raft_snapshot_reply::Body::Done(vote) => {
                self.links.report(self.target, Lane::Snapshot, Outcome::Answered);
                done(vote)
            }
            v1::raft_snapshot_reply::Body::Have(_) => Err(gone()),
        }
    }

    async fn in_time<T>(&self, patience: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, StreamingError<Tokio>> {
        match tokio::time::timeout(patience, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.links.error(self.target, Lane::Snapshot, &status).into()),
            Err(_) => Err(self.links.timeout(self.target, Lane::Snapshot, RPCTypes::InstallSnapshot, patience).into()),
        }
    }

    async fn reply(
        &self,
        patience: Duration,
        replies: &mut Streaming<v1::RaftSnapshotReply>,
    ) -> Result<v1::raft_snapshot_reply::Body, StreamingError<Tokio>> {
        let reply = self.in_time(patience, replies.message()).await?;
        let missing = || StreamingError::Network(NetworkError::from_string("the receiver of the snapshot has said nothing"));
        reply.and_then(|reply| reply.body).ok_or_else(missing)
    }
}

fn done(vote: v1::RaftVote) -> Result<SnapshotResponse<Tokio>, StreamingError<Tokio>> {
    let vote = Vote::from_proto(vote).map_err(|error| NetworkError::new(&error))?;
    Ok(SnapshotResponse::new(vote))
}

/// What is announced of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Announced {
    pub(super) vote: Vote,
    pub(super) last_log_id: Option<v1::RaftLogId>,
    pub(super) membership: Option<v1::RaftStoredMembership>,
    length: u64,
    digest: Bytes,
}

impl Announced {
    pub(super) fn read(begin: v1::RaftSnapshotBegin) -> Result<Self, Status> {
        let malformed = |error: crate::message::Malformed| Status::invalid_argument(error.to_string());
        if begin.length > LARGEST_SNAPSHOT {
            return Err(Status::invalid_argument(format!("a snapshot of {} bytes is larger than any can be", begin.length)));
        }
        Ok(Self {
            vote: required(begin.vote, "vote of a snapshot").map_err(malformed)?,
            last_log_id: begin.last_log_id,
            membership: begin.membership,
            length: begin.length,
            digest: begin.digest,
        })
    }
}

/// What has arrived of a snapshot. It is kept when the connection breaks, and lost with the process: in memory, because the state it becomes
/// must fit there anyway.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    digest: Bytes,
    length: u64,
    data: BytesMut,
}

impl Partial {
    /// Makes ready for the announced snapshot and says how much of it is here.
    pub(super) fn resume(&mut self, announced: &Announced) -> u64 {
        if self.digest != announced.digest || self.length != announced.length {
            *self = Self { digest: announced.digest.clone(), length: announced.length, data: BytesMut::new() };
        }
        self.data.len() as u64
    }

    /// Takes the next piece. True when it was the last.
    pub(super) fn push(&mut self, chunk: &v1::RaftSnapshotChunk) -> Result<(), Status> {
        if chunk.offset != self.data.len() as u64 || chunk.offset + chunk.data.len() as u64 > self.length {
            return Err(Status::invalid_argument(format!("a piece at {} where {} is due", chunk.offset, self.data.len())));
        }
        if checksum(&chunk.data) != chunk.checksum {
            return Err(Status::data_loss(format!("the piece at {} is damaged", chunk.offset)));
        }
        self.data.extend_from_slice(&chunk.data);
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.data.len() as u64 == self.length
    }

    /// The whole file, when it is the announced one. Nothing is left here.
    pub(super) fn finish(&mut self) -> Result<Bytes, Status> {
        let this = std::mem::take(self);
        if blake3::hash(&this.data).as_bytes() != this.digest.as_ref() {
            return Err(Status::data_loss("the snapshot is not the one that was announced: its digest does not match"));
        }
        Ok(this.data.freeze())
    }
}

fn checksum(data: &[u8]) -> u64 {
    let mut sum = [0; 8];
    blake3::Hasher::new().update(data).finalize_xof().fill(&mut sum);
    u64::from_le_bytes(sum)
}

/// Small enough that other streams of the connection are not held up.
const FRAME: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(file: &[u8]) -> Announced {
        let digest = Bytes::copy_from_slice(blake3::hash(file).as_bytes());
        let vote = v1::RaftVote { term: 1, node: 1, committed: true };
        Announced::read(v1::RaftSnapshotBegin { vote: Some(vote), length: file.len() as u64, digest, ..Default::default() }).unwrap()
    }

    fn chunk(offset: u64, data: &[u8]) -> v1::RaftSnapshotChunk {
        v1::RaftSnapshotChunk { offset, data: Bytes::copy_from_slice(data), checksum: checksum(data) }
    }

    #[test]
    fn a_broken_transfer_goes_on_where_it_ended() {
        let file = vec![7; 1_000];
        let mut partial = Partial::default();
        assert_eq!(partial.resume(&announced(&file)), 0);
        partial.push(&chunk(0, &file[..400])).unwrap();
        assert_eq!(partial.resume(&announced(&file)), 400);
        partial.push(&chunk(400, &file[400..])).unwrap();
        assert!(partial.is_whole());
        assert_eq!(partial.finish().unwrap(), file);
        let other = vec![8; 1_000];
        partial.push(&chunk(0, &file[..400])).unwrap_err();
        assert_eq!(partial.resume(&announced(&other)), 0);
    }

    #[test]
    fn what_is_damaged_or_out_of_place_is_refused() {
        let file = vec![7; 1_000];
        let mut partial = Partial::default();
        partial.resume(&announced(&file));
        let mut damaged = chunk(0, &file[..10]);
        damaged.data = Bytes::from_static(b"0123456789");
        assert_eq!(partial.push(&damaged).unwrap_err().code(), tonic::Code::DataLoss);
        partial.push(&chunk(5, &file[..10])).unwrap_err();
        partial.push(&chunk(0, &vec![7; 1_001])).unwrap_err();
        partial.push(&chunk(0, &vec![8; 1_000])).unwrap();
        assert_eq!(partial.finish().unwrap_err().code(), tonic::Code::DataLoss);
    }

    #[test]
    fn a_snapshot_larger_than_any_is_refused_at_once() {
        let vote = v1::RaftVote { term: 1, node: 1, committed: true };
        let begin = v1::RaftSnapshotBegin { vote: Some(vote), length: u64::MAX, ..Default::default() };
        assert!(Announced::read(begin).is_err());
    }
}
