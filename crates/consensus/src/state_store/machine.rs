//! The agreed state: the application's, and the little that consensus itself agrees on.

use std::collections::BTreeMap;

use openraft::EntryPayload;
use tidegate_proto::v1;

use crate::application::{Application, Frozen, RestoreError};
use crate::known_bugs::{Bug, on};
use crate::member::{Instance, Member, Uuid};
use crate::message::Message as _;
use crate::snapshot::Snapshot;
use crate::types::{Applied, Command, Entry, LogId, StoredMembership};

/// The agreed state at one point of the log.
pub(crate) struct Machine {
    application: Box<dyn Application>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    /// Who was given a number, also those who have left.
    allocated: BTreeMap<Uuid, Member>,
}

impl Machine {
    pub(crate) fn new(application: Box<dyn Application>) -> Self {
        Self { application, last_applied: None, membership: StoredMembership::default(), allocated: BTreeMap::new() }
    }

    /// The state of a snapshot.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) -> Result<(), RestoreError> {
        let mut allocated = BTreeMap::new();
        for member in snapshot.allocated {
            let malformed = || RestoreError { section: "node ids".into(), reason: "malformed".into() };
            let instance = Instance::from_proto(member.node.ok_or_else(malformed)?).map_err(|_| malformed())?;
            allocated.insert(instance.uuid, Member { id: member.id, instance });
        }
        self.application.restore(snapshot.sections)?;
        self.allocated = allocated;
        self.last_applied = snapshot.last_log_id;
        self.membership = snapshot.membership;
        Ok(())
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// When a newer version wrote it; the state is as before.
    pub(crate) fn apply(&mut self, entry: Entry) -> Result<Applied, Unknown> {
        if let EntryPayload::Normal(Command::Application(payload)) = &entry.payload {
            let index = entry.log_id.index;
            self.application.understands(payload).map_err(|what| Unknown { index, what })?;
        }
        Ok(self.apply_known(entry))
    }

    fn apply_known(&mut self, entry: Entry) -> Applied {
        let log_id = entry.log_id;
        let (index, term) = (log_id.index, log_id.leader_id.term);
        self.last_applied = Some(log_id);
        match entry.payload {
            EntryPayload::Blank => Applied::Nothing,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                Applied::Nothing
            }
            EntryPayload::Normal(Command::Application(payload)) => {
                if on(Bug::DoubleApply) && index.is_multiple_of(7) {
                    self.application.apply(index, term, payload.clone());
                }
                Applied::Application(self.application.apply(index, term, payload))
            }
            EntryPayload::Normal(Command::AllocateNodeId(instance)) => {
                let member = self.allocated.entry(instance.uuid).or_insert(Member { id: index, instance });
                Applied::NodeId(member.id)
            }
        }
    }

    /// The state held still.
    pub(crate) fn freeze(&self, cluster_id: String) -> FrozenMachine {
        FrozenMachine {
            application: self.application.freeze(),
            head: Snapshot {
                cluster_id,
                last_log_id: self.last_applied,
                membership: self.membership.clone(),
                allocated: self
                    .allocated
                    .values()
                    .map(|member| v1::RaftMember { id: member.id, node: Some(member.instance.to_proto()) })
                    .collect(),
                sections: Vec::new(),
            },
        }
    }

    pub(crate) fn last_applied(&self) -> Option<LogId> {
        self.last_applied
    }

    pub(crate) fn membership(&self) -> &StoredMembership {
        &self.membership
    }

    /// The number of an instance, when it was given one.
    pub(crate) fn allocated(&self, uuid: &Uuid) -> Option<u64> {
        self.allocated.get(uuid).map(|member| member.id)
    }
}

/// An entry of a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} was written by a newer version: {what}; upgrade this node, it goes on from there")]
pub(crate) struct Unknown {
    index: u64,
    what: String,
}

/// See [`Machine::freeze`].
pub(crate) struct FrozenMachine {
    application: Box<dyn Frozen>,
    head: Snapshot,
}

impl FrozenMachine {
    /// Takes as long as the state is large.
    pub(crate) fn into_snapshot(mut self) -> Snapshot {
        self.head.sections = self.application.sections();
        self.head
    }

    /// How far the state goes.
    pub(crate) fn last_log_id(&self) -> Option<LogId> {
        self.head.last_log_id
    }
}
