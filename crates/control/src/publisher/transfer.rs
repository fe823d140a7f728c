//! A set of resources, or what changed in it, in parts that each fit a slow connection.
//!
//! The state is held as it was at the beginning, so that the parts fit together. It shares all that has not changed since with the
//! newest one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use prost::Message;
use tidegate_proto::v1::{Delta, Snapshot, SnapshotBegin, SnapshotChunk, SnapshotEnd, control_message, snapshot};

use super::position;
use crate::state::{Id, ResourceSet, State};

/// What is on its way to one edge.
#[derive(Debug)]
pub(super) struct Transfer {
    state: Arc<State>,
    edge: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Snapshot { begun: bool, after: Option<Id>, more: bool },
    Delta { from: u64, after: Option<Id>, ahead: VecDeque<Id> },
}

impl Transfer {
    pub(super) fn snapshot(state: Arc<State>, edge: &str) -> Self {
        Self { state, edge: edge.to_owned(), what: What::Snapshot { begun: false, after: None, more: true } }
    }

    /// What changed after `from`; the caller has seen that the state still knows it.
    pub(super) fn delta(state: Arc<State>, edge: &str, from: u64) -> Self {
        Self { state, edge: edge.to_owned(), what: What::Delta { from, after: None, ahead: VecDeque::new() } }
    }

    pub(super) fn is_snapshot(&self) -> bool {
        matches!(self.what, What::Snapshot { .. })
    }

    /// The next part; with the last one, the index that the edge then is at.
    pub(super) fn part(&mut self) -> (control_message::Body, Option<u64>) {
        let (state, set) = (&self.state, self.state.for_edge(&self.edge));
        match &mut self.what {
            What::Snapshot { begun, .. } if !*begun => {
                *begun = true;
                let begin = SnapshotBegin { index: state.applied(), leader_time_ms: state.leader_time_ms(), resources: set.len() as u64 };
                (snapshot_part(snapshot::Part::Begin(begin)), None)
            }
            What::Snapshot { after, more, .. } if *more => {
                let (chunk, last) = chunk(set, after.as_ref());
                *more = last.is_some();
                *after = last.or(after.take());
                (snapshot_part(snapshot::Part::Chunk(chunk)), None)
            }
            What::Snapshot { .. } => {
                let end = SnapshotEnd { position: Some(position(state.applied(), set.digest())) };
                (snapshot_part(snapshot::Part::End(end)), Some(state.applied()))
            }
            What::Delta { from, after, ahead } => {
                let mut delta = Delta {
                    from: *from,
                    to: Some(position(state.applied(), set.digest())),
                    leader_time_ms: state.leader_time_ms(),
                    ..Delta::default()
                };
                let mut bytes = 0;
                while bytes < PART_BYTES {
                    if ahead.is_empty() {
                        *ahead = ids_after(state, *from, after.as_ref());
                    }
                    let Some(id) = ahead.pop_front() else { break };
                    let resource = set.get(&id);
                    let length = resource.map_or(id.name().len(), |resource| resource.encoded_len()) + ID_BYTES;
                    if bytes > 0 && bytes + length > PART_BYTES {
                        ahead.push_front(id);
                        break;
                    }
                    bytes += length;
                    match resource {
                        Some(resource) => {
                            delta.upserts.push(resource.as_ref().clone());
                        }
                        None => {
                            delta.removes.push((&id).into());
                        }
                    }
                    *after = Some(id);
                }
                if ahead.is_empty() {
                    *ahead = ids_after(state, *from, after.as_ref());
                }
                delta.more = !ahead.is_empty();
                let done = (!delta.more).then(|| state.applied());
                (control_message::Body::Delta(delta), done)
            }
        }
    }
}

/// Resources after an id up to the size of a part, and the last one's id unless the set ended.
fn chunk(set: &ResourceSet, after: Option<&Id>) -> (SnapshotChunk, Option<Id>) {
    let mut chunk = SnapshotChunk::default();
    let (mut bytes, mut last) = (0, None);
    for (id, resource) in set.after(after) {
        let length = resource.encoded_len() + ID_BYTES;
        if bytes > 0 && bytes + length > PART_BYTES {
            return (chunk, last);
        }
        bytes += length;
        chunk.resources.push(resource.as_ref().clone());
        last = Some(id.clone());
    }
    (chunk, None)
}

/// The next few of the ids that changed after an index. Collecting them anew for each few keeps what a slow edge costs bounded.
fn ids_after(state: &State, from: u64, after: Option<&Id>) -> VecDeque<Id> {
    let mut next = BTreeSet::new();
    for (_, changed) in state.changes_since(from).into_iter().flatten() {
        for id in &changed.ids {
            if after.is_some_and(|after| id <= after) || (next.len() >= IDS_AHEAD && next.last().is_some_and(|last| id > last)) {
                continue;
            }
            next.insert(id.clone());
            if next.len() > IDS_AHEAD {
                next.pop_last();
            }
        }
    }
    next.into_iter().collect()
}

fn snapshot_part(part: snapshot::Part) -> control_message::Body {
    control_message::Body::Snapshot(Snapshot { part: Some(part) })
}

/// Most bytes of a part, unless one resource alone has more: half of what may wait for a slow edge in memory, and what a heartbeat on the
/// same connection waits for.
const PART_BYTES: usize = 31 * 1024;
/// What a resource or an id takes in a message besides itself, at most.
const ID_BYTES: usize = 16;
/// Ids that are looked up at once; each takes about 40 bytes.
const IDS_AHEAD: usize = 512;
