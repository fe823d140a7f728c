//! What to send an edge next: a pure function of the state, of what the edge was sent, and of the time.
//!
//! There is no queue. A [`Cursor`] remembers the index up to which its edge has everything; when the edge can take a message, what
//! changed since then is looked up, each resource once and as it is now. An edge that reads slowly costs no memory, and what it gets is
//! fewer and larger steps. Revocations go ahead of everything, also of the middle of a snapshot, and are never coalesced away.

mod followers;
mod transfer;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tidegate_proto::v1::{Bookmark, ControlMessage, Key, Position, Revoke, control_message};
use tidegate_proto::{Digest, Kind};

use crate::state::{Id, State};
pub(crate) use followers::Ends;
pub use followers::{Follower, Followers, Introduction};
use transfer::Transfer;

/// How far one edge is.
#[derive(Debug)]
pub struct Cursor {
    edge: String,
    /// Everything up to here was handed over; `None` needs a snapshot.
    position: Option<u64>,
    /// Revocations up to here were handed over.
    revoked: u64,
    transfer: Option<Transfer>,
    /// When something with an index was last handed over, Unix milliseconds.
    marked_ms: Option<u64>,
}

/// What [`Cursor::next`] found.
#[derive(Debug)]
pub enum Step {
    /// Send this, and ask again.
    Send(Box<ControlMessage>),
    /// A snapshot has to begin, for which a permit is needed first; then [`Cursor::begin_snapshot`].
    NeedsSnapshot,
    /// Nothing until the state moves on, or until this moment, Unix milliseconds.
    Idle {
        /// When the next bookmark is due.
        until_ms: u64,
    },
}

impl Cursor {
    /// Where an edge of this name begins. What it holds is taken over when this node still knows everything that changed since, and the
    /// digests agree; otherwise it gets a snapshot.
    pub fn resume(edge: &str, resume: Option<&Position>, state: &State) -> Self {
        let position = resume.filter(|resume| continues(resume, state)).map(|resume| resume.index);
        Self { edge: edge.to_owned(), position, revoked: position.unwrap_or_else(|| state.applied()), transfer: None, marked_ms: None }
    }

    /// Newest index that was handed over as a whole; 0 before the first.
    pub fn sent(&self) -> u64 {
        self.position.unwrap_or(0)
    }

    /// Whether a snapshot is on its way.
    pub fn in_snapshot(&self) -> bool {
        self.transfer.as_ref().is_some_and(Transfer::is_snapshot)
    }

    /// What comes next. `state` never goes back between calls.
    pub fn next(&mut self, state: &Arc<State>, now_ms: u64) -> Step {
        if let Some(revoke) = self.revocations(state) {
            return send(control_message::Body::Revoke(revoke));
        }
        if let Some(transfer) = &mut self.transfer {
            let (body, done) = transfer.part();
            if let Some(index) = done {
                self.position = Some(index);
                self.transfer = None;
                self.marked_ms = Some(now_ms);
            }
            return send(body);
        }
        let Some(position) = self.position else { return Step::NeedsSnapshot };
        if state.applied() < position {
            // The edge was at a node that is ahead of this one. What it has is newer than anything here: it only gets signs of life.
            return self.bookmark(state, now_ms);
        }
        match state.changes_since(position).map(|mut changes| changes.next().is_some()) {
            None => {
                self.position = None;
                Step::NeedsSnapshot
            }
            Some(true) => {
                self.transfer = Some(Transfer::delta(Arc::clone(state), &self.edge, position));
                self.next(state, now_ms)
            }
            Some(false) => self.bookmark(state, now_ms),
        }
    }

    /// Begins the snapshot that [`Step::NeedsSnapshot`] asked for.
    pub fn begin_snapshot(&mut self, state: &Arc<State>) {
        self.position = None;
        self.transfer = Some(Transfer::snapshot(Arc::clone(state), &self.edge));
        // The snapshot holds what was revoked before it.
        self.revoked = self.revoked.max(state.applied());
    }

    fn bookmark(&mut self, state: &State, now_ms: u64) -> Step {
        let due = self.marked_ms.map_or(now_ms, |marked| marked.saturating_add(BOOKMARK_EVERY_MS));
        if now_ms < due {
            return Step::Idle { until_ms: due };
        }
        self.marked_ms = Some(now_ms);
        let index = state.applied();
        if self.position.is_some_and(|position| position < index) {
            self.position = Some(index);
        }
        let at = Some(position(index, state.for_edge(&self.edge).digest()));
        send(control_message::Body::Bookmark(Bookmark { at, leader_time_ms: state.leader_time_ms(), stale_ms: 0 }))
    }

    /// Keys that are gone or disabled since the last call, as far as one message takes them.
    fn revocations(&mut self, state: &State) -> Option<Revoke> {
        let Some(changes) = state.changes_since(self.revoked) else {
            // What was revoked since is no longer known one by one; the snapshot that follows says what is left.
            self.revoked = state.applied();
            self.position = None;
            self.transfer = None;
            return None;
        };
        // A key that is gone is so since its last change; the ones before, its making among them, revoked nothing.
        let mut last: HashMap<&Id, u64> = HashMap::new();
        for (index, changed) in state.changes_since(self.revoked).into_iter().flatten() {
            last.extend(changed.ids.iter().filter(|id| id.kind() == Some(Kind::Key)).map(|id| (id, index)));
        }
        let mut revoke = Revoke { leader_time_ms: state.leader_time_ms(), ..Revoke::default() };
        for (index, changed) in changes {
            if !revoke.public_ids.is_empty() && (revoke.public_ids.len() >= REVOKED_AT_ONCE || revoke.kill_streams != changed.kill_streams)
            {
                break;
            }
            self.revoked = index;
            let at_last = changed.ids.iter().filter(|id| last.get(id) == Some(&index));
            let gone = at_last.filter(|id| is_revoked(id, state)).map(|id| id.name().to_owned());
            let before = revoke.public_ids.len();
            revoke.public_ids.extend(gone);
            if revoke.public_ids.len() > before {
                (revoke.index, revoke.kill_streams) = (index, changed.kill_streams);
            }
        }
        (!revoke.public_ids.is_empty()).then_some(revoke)
    }
}

/// Whether this node can go on from what an edge says it holds.
fn continues(resume: &Position, state: &State) -> bool {
    let Some(held) = Digest::from_slice(&resume.digest) else { return false };
    if resume.index > state.applied() {
        // Ahead of this node, which will catch up; the digest is looked at by the edge when it does.
        return true;
    }
    state.digests_at(resume.index).is_some_and(|digests| held == digests.newest || held == digests.settled)
}

fn is_revoked(id: &Id, state: &State) -> bool {
    if id.kind() != Some(Kind::Key) {
        return false;
    }
    match state.newest().get(id) {
        None => true,
        // A key that cannot be read is none that an edge would serve.
        Some(resource) => Key::decode(resource.body.clone()).is_ok_and(|key| key.disabled),
    }
}

fn send(body: control_message::Body) -> Step {
    Step::Send(Box::new(ControlMessage { body: Some(body) }))
}

fn position(index: u64, digest: Digest) -> Position {
    Position { index, digest: Bytes::copy_from_slice(&digest.to_bytes()) }
}

/// An edge that hears nothing for five of these connects elsewhere.
pub const BOOKMARK_EVERY_MS: u64 = 2_000;
/// Keys in one `Revoke`.
const REVOKED_AT_ONCE: usize = 1_000;

#[cfg(test)]
mod tests;
