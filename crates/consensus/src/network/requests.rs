//! openraft's requests and answers as our messages.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use tidegate_proto::v1;

use crate::message::{Malformed, Message, optional, required};
use crate::types::{Entry, LogId, Types, Vote};

/// The request without a greeting, and without what the sender knows of its quorum.
pub(crate) fn append<C: Types>(request: &AppendEntriesRequest<C>) -> v1::RaftAppendRequest {
    v1::RaftAppendRequest {
        hello: None,
        vote: Some(request.vote.to_proto()),
        previous: request.prev_log_id.as_ref().map(Message::to_proto),
        entries: request.entries.iter().map(Message::to_proto).collect(),
        committed: request.leader_commit.as_ref().map(Message::to_proto),
        quorum_age_ms: None,
    }
}

/// The request of a message.
pub(crate) fn read_append<C: Types>(message: v1::RaftAppendRequest) -> Result<AppendEntriesRequest<C>, Malformed> {
    let vote: Vote = required(message.vote, "vote of an append")?;
    let prev_log_id: Option<LogId> = optional(message.previous)?;
    let entries = message.entries.into_iter().map(Entry::from_proto).collect::<Result<Vec<Entry>, Malformed>>()?;
    let mut next = prev_log_id.map_or(0, |previous| previous.index.saturating_add(1));
    for entry in &entries {
        if entry.log_id.index != next {
            return Err(Malformed("append whose entries do not follow one another"));
        }
        next = next.saturating_add(1);
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: optional(message.committed)? })
}

/// The answer to one append of a stream.
pub(crate) fn appended<C: Types>(result: &StreamAppendResult<C>) -> v1::RaftAppendResponse {
    use v1::raft_append_response::Outcome;
    let outcome = match result {
        Ok(last) => Outcome::Appended(v1::RaftAppended { last: last.as_ref().map(Message::to_proto) }),
        Err(StreamAppendError::Conflict(at)) => Outcome::Conflict(at.to_proto()),
        Err(StreamAppendError::HigherVote(vote)) => Outcome::RejectedBy(vote.to_proto()),
    };
    v1::RaftAppendResponse { outcome: Some(outcome) }
}

/// The answer of a message.
pub(crate) fn read_appended<C: Types>(message: v1::RaftAppendResponse) -> Result<StreamAppendResult<C>, Malformed> {
    use v1::raft_append_response::Outcome;
    Ok(match message.outcome.ok_or(Malformed("outcome of an append"))? {
        Outcome::Appended(appended) => Ok(optional(appended.last)?),
        Outcome::Conflict(at) => Err(StreamAppendError::Conflict(Message::from_proto(at)?)),
        Outcome::RejectedBy(vote) => Err(StreamAppendError::HigherVote(Message::from_proto(vote)?)),
    })
}

/// The request without a greeting.
pub(crate) fn vote<C: Types>(request: &VoteRequest<C>) -> v1::RaftVoteRequest {
    v1::RaftVoteRequest {
        hello: None,
        vote: Some(request.vote.to_proto()),
        last_log_id: request.last_log_id.as_ref().map(Message::to_proto),
        leadership_transfer: request.leadership_transfer,
    }
}

/// The request of a message.
pub(crate) fn read_vote<C: Types>(message: v1::RaftVoteRequest) -> Result<VoteRequest<C>, Malformed> {
    let mut request = VoteRequest::new(required(message.vote, "vote of a candidate")?, optional(message.last_log_id)?);
    // Without it the lease of the old leader would stand against the election that this leader has asked for.
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

/// The answer to a vote request.
pub(crate) fn voted<C: Types>(response: &VoteResponse<C>) -> v1::RaftVoteResponse {
    v1::RaftVoteResponse {
        vote: Some(response.vote.to_proto()),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(Message::to_proto),
    }
}

/// The answer of a message.
pub(crate) fn read_voted<C: Types>(message: v1::RaftVoteResponse) -> Result<VoteResponse<C>, Malformed> {
    let vote: Vote = required(message.vote, "vote of a voter")?;
    Ok(VoteResponse { vote, vote_granted: message.granted, last_log_id: optional(message.last_log_id)? })
}

/// The request without a greeting.
pub(crate) fn transfer<C: Types>(request: &TransferLeaderRequest<C>) -> v1::RaftTransferRequest {
    v1::RaftTransferRequest {
        hello: None,
        from: Some(request.from_leader().to_proto()),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(Message::to_proto),
    }
}

/// The request of a message.
pub(crate) fn read_transfer<C: Types>(message: v1::RaftTransferRequest) -> Result<TransferLeaderRequest<C>, Malformed> {
    Ok(TransferLeaderRequest::new(required(message.from, "vote of a leader")?, message.to, optional(message.last_log_id)?))
}

/// The answer to a transfer.
pub(crate) fn transferred<C: Types>(response: &TransferLeaderResponse<C>) -> v1::RaftTransferResponse {
    use v1::raft_transfer_response::Outcome;
    let outcome = match response {
        Ok(()) => Outcome::Accepted(v1::RaftBlank {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Outcome::VoteChanged(v1::RaftVoteChanged { expected: Some(expected.to_proto()), actual: Some(actual.to_proto()) })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Outcome::LogNotFlushed(v1::RaftLogNotFlushed {
            expected: expected.as_ref().map(Message::to_proto),
            actual: actual.as_ref().map(Message::to_proto),
        }),
    };
    v1::RaftTransferResponse { outcome: Some(outcome) }
}

/// Whether a leader can have a snapshot that goes so far. One that was replaced while it got ready to send may find that of a later term, made
/// from what it has followed since; the receiver's core would not survive that under the old vote.
pub(crate) fn owns_snapshot(vote: &Vote, last: Option<&LogId>) -> bool {
    last.is_none_or(|last| last.leader_id <= vote.leader_id)
}

/// The answer of a message.
pub(crate) fn read_transferred<C: Types>(message: v1::RaftTransferResponse) -> Result<TransferLeaderResponse<C>, Malformed> {
    use v1::raft_transfer_response::Outcome;
    Ok(match message.outcome.ok_or(Malformed("outcome of a transfer"))? {
        Outcome::Accepted(_) => Ok(()),
        Outcome::VoteChanged(votes) => Err(TransferLeaderError::VoteChanged {
            expected: required(votes.expected, "expected vote")?,
            actual: required(votes.actual, "actual vote")?,
        }),
        Outcome::LogNotFlushed(logs) => {
            Err(TransferLeaderError::LogNotFlushed { expected: optional(logs.expected)?, actual: optional(logs.actual)? })
        }
    })
}
