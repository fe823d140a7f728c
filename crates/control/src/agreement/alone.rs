//! A log of one node in memory: every entry is agreed on the moment it is proposed.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_consensus::{Committed, MemberStatus, Role, Status, Uuid};
use tokio::sync::watch;

use crate::machine::Machine;

/// A log of one node in memory.
#[derive(Clone)]
pub struct Alone {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Mutex<Machine>,
    status: watch::Sender<Status>,
}

/// The only term there is.
const TERM: u64 = 1;
/// The only node there is.
const NODE: u64 = 1;

impl Alone {
    /// A cluster of this name with nothing in it.
    pub fn new(cluster_id: &str, machine: Machine) -> Alone {
        let member = MemberStatus {
            id: NODE,
            name: "alone".to_owned(),
            address: String::new(),
            region: "local".to_owned(),
            uuid: Uuid::default(),
            voter: true,
            wants_vote: true,
            matched: Some(0),
            lag: Some(0),
        };
        let status = Status {
            cluster_id: cluster_id.to_owned(),
            node_id: NODE,
            role: Role::Leader,
            term: TERM,
            leader: Some(NODE),
            millis_since_quorum_ack: Some(0),
            millis_since_leader: Some(0),
            members: vec![member],
            ..Status::default()
        };
        Alone { inner: Arc::new(Inner { machine: Mutex::new(machine), status: watch::Sender::new(status) }) }
    }

    /// Agrees on an entry at once.
    pub fn propose(&self, payload: Bytes) -> Committed {
        let mut machine = self.inner.machine.lock();
        let index = self.inner.status.borrow().applied + 1;
        let response = machine.apply(index, TERM, payload);
        self.inner.status.send_modify(|status| {
            (status.last_log, status.committed, status.applied) = (index, index, index);
        });
        Committed { index, term: TERM, response }
    }

    pub(super) fn status(&self) -> Status {
        self.inner.status.borrow().clone()
    }

    pub(super) fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.subscribe()
    }
}
