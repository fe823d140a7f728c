//! The shape of our log in openraft's terms. Everything else in the crate speaks through these names.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_adv;

use crate::member::Instance;

/// A command in the log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// For the application.
    Application(Bytes),
    /// Gives a node its number.
    AllocateNodeId(Instance),
}

impl fmt::Debug for Command {
    /// The size instead of the content: a payload may hold what logs must not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application(payload) => write!(f, "application({} bytes)", payload.len()),
            Self::AllocateNodeId(instance) => write!(f, "allocate-node-id({})", instance.uuid),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Blank and membership entries.
    Nothing,
    /// The application's answer.
    Application(Bytes),
    /// The number of the node.
    NodeId(u64),
}

openraft::declare_raft_types!(
    /// The shipped choice of types.
    pub(crate) Tokio:
        D = Command,
        R = Applied,
        Node = Instance,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Membership = openraft::Membership<u64, Instance>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Instance>;
pub(crate) type Payload = openraft::EntryPayload<Command, u64, Instance>;
pub(crate) type Entry = openraft::Entry<LeaderId, Payload>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Instance>;

/// What the stores and the network need of a choice of types. The simulator has another runtime, and everything else the same.
pub(crate) trait Types:
    openraft::RaftTypeConfig<
        D = Command,
        R = Applied,
        NodeId = u64,
        Node = Instance,
        Term = u64,
        LeaderId = LeaderId,
        Vote = Vote,
        Payload = Payload,
        Entry = Entry,
    >
{
}

impl<C> Types for C where
    C: openraft::RaftTypeConfig<
            D = Command,
            R = Applied,
            NodeId = u64,
            Node = Instance,
            Term = u64,
            LeaderId = LeaderId,
            Vote = Vote,
            Payload = Payload,
            Entry = Entry,
        >
{
}
