//! Our messages to openraft's types and back: the same on disk and on the wire, and never the library's own serialisation.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::vote::RaftLeaderId as _;
use tidegate_proto::v1;

use crate::member::{Instance, Uuid};
use crate::types::{Command, Entry, LeaderId, LogId, Membership, Payload, StoredMembership, Vote};

/// Something that has a message of ours.
pub(crate) trait Message: Sized {
    /// The message.
    type Proto;
    /// As a message.
    fn to_proto(&self) -> Self::Proto;
    /// From a message of a peer or a file.
    fn from_proto(proto: Self::Proto) -> Result<Self, Malformed>;
}

/// A message that lacks what it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The field, which must be there.
pub(crate) fn required<T: Message>(field: Option<T::Proto>, name: &'static str) -> Result<T, Malformed> {
    T::from_proto(field.ok_or(Malformed(name))?)
}

/// The field, which may be missing.
pub(crate) fn optional<T: Message>(field: Option<T::Proto>) -> Result<Option<T>, Malformed> {
    field.map(T::from_proto).transpose()
}

impl Message for LogId {
    type Proto = v1::RaftLogId;

    fn to_proto(&self) -> v1::RaftLogId {
        v1::RaftLogId { term: self.leader_id.term, leader: self.leader_id.node_id, index: self.index }
    }

    fn from_proto(proto: v1::RaftLogId) -> Result<Self, Malformed> {
        Ok(Self::new(LeaderId::new(proto.term, proto.leader), proto.index))
    }
}

impl Message for Vote {
    type Proto = v1::RaftVote;

    fn to_proto(&self) -> v1::RaftVote {
        v1::RaftVote { term: self.leader_id.term, node: self.leader_id.node_id, committed: self.committed }
    }

    fn from_proto(proto: v1::RaftVote) -> Result<Self, Malformed> {
        Ok(Self { leader_id: LeaderId::new(proto.term, proto.node), committed: proto.committed })
    }
}

impl Message for Instance {
    type Proto = v1::RaftNode;

    fn to_proto(&self) -> v1::RaftNode {
        v1::RaftNode {
            uuid: self.uuid.0.to_vec().into(),
            name: self.name.clone(),
            address: self.address.clone(),
            region: self.region.clone(),
            wants_vote: self.wants_vote,
        }
    }

    fn from_proto(proto: v1::RaftNode) -> Result<Self, Malformed> {
        let uuid = Uuid(proto.uuid.as_ref().try_into().map_err(|_| Malformed("uuid of a node"))?);
        Ok(Self { uuid, name: proto.name, address: proto.address, region: proto.region, wants_vote: proto.wants_vote })
    }
}

impl Message for Membership {
    type Proto = v1::RaftMembership;

    fn to_proto(&self) -> v1::RaftMembership {
        v1::RaftMembership {
            voters: self.get_joint_config().iter().map(|ids| v1::RaftVoters { ids: ids.iter().copied().collect() }).collect(),
            members: self.nodes().map(|(id, node)| v1::RaftMember { id: *id, node: Some(node.to_proto()) }).collect(),
        }
    }

    fn from_proto(proto: v1::RaftMembership) -> Result<Self, Malformed> {
        if proto.voters.is_empty() && proto.members.is_empty() {
            return Ok(Self::default());
        }
        let voters: Vec<BTreeSet<u64>> = proto.voters.into_iter().map(|set| set.ids.into_iter().collect()).collect();
        let members = proto
            .members
            .into_iter()
            .map(|member| Ok((member.id, required::<Instance>(member.node, "node of a member")?)))
            .collect::<Result<BTreeMap<u64, Instance>, Malformed>>()?;
        Self::new(voters, members).map_err(|_| Malformed("membership with voters that are no members, or without voters"))
    }
}

impl Message for StoredMembership {
    type Proto = v1::RaftStoredMembership;

    fn to_proto(&self) -> v1::RaftStoredMembership {
        v1::RaftStoredMembership { log_id: self.log_id().as_ref().map(Message::to_proto), membership: Some(self.membership().to_proto()) }
    }

    fn from_proto(proto: v1::RaftStoredMembership) -> Result<Self, Malformed> {
        Ok(Self::new(optional(proto.log_id)?, required(proto.membership, "membership")?))
    }
}

impl Message for Command {
    type Proto = v1::RaftCommand;

    fn to_proto(&self) -> v1::RaftCommand {
        use v1::raft_command::Body;
        let body = match self {
            Self::Application(payload) => Body::Application(payload.clone()),
            Self::AllocateNodeId(instance) => Body::AllocateNodeId(v1::RaftAllocateNodeId { node: Some(instance.to_proto()) }),
        };
        v1::RaftCommand { body: Some(body) }
    }

    fn from_proto(proto: v1::RaftCommand) -> Result<Self, Malformed> {
        use v1::raft_command::Body;
        match proto.body.ok_or(Malformed("command of a kind this version does not know"))? {
            Body::Application(payload) => Ok(Self::Application(payload)),
            Body::AllocateNodeId(allocate) => Ok(Self::AllocateNodeId(required(allocate.node, "node to number")?)),
        }
    }
}

impl Message for Entry {
    type Proto = v1::RaftEntry;

    fn to_proto(&self) -> v1::RaftEntry {
        use v1::raft_entry::Payload as Body;
        let payload = match &self.payload {
            EntryPayload::Blank => Body::Blank(v1::RaftBlank {}),
            EntryPayload::Normal(command) => Body::Normal(command.to_proto()),
            EntryPayload::Membership(membership) => Body::Membership(membership.to_proto()),
        };
        v1::RaftEntry { log_id: Some(self.log_id.to_proto()), payload: Some(payload) }
    }

    fn from_proto(proto: v1::RaftEntry) -> Result<Self, Malformed> {
        use v1::raft_entry::Payload as Body;
        let payload: Payload = match proto.payload.ok_or(Malformed("entry of a kind this version does not know"))? {
            Body::Blank(_) => EntryPayload::Blank,
            Body::Normal(command) => EntryPayload::Normal(Command::from_proto(command)?),
            Body::Membership(membership) => EntryPayload::Membership(Membership::from_proto(membership)?),
        };
        Ok(Self { log_id: required(proto.log_id, "log id of an entry")?, payload })
    }
}

/// About how many bytes the entry takes on the wire.
pub(crate) fn weight(entry: &Entry) -> usize {
    /// Log id, framing and a node's texts.
    const OVERHEAD: usize = 64;
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(Command::Application(payload)) => payload.len(),
        EntryPayload::Normal(Command::AllocateNodeId(_)) => OVERHEAD,
        EntryPayload::Membership(membership) => membership.nodes().count() * 2 * OVERHEAD,
    };
    payload + OVERHEAD
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn log_id() -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(term, node, index)| LogId::new(LeaderId::new(term, node), index))
    }

    fn instance() -> impl Strategy<Value = Instance> {
        (any::<[u8; 16]>(), ".{0,12}", ".{0,12}", any::<bool>()).prop_map(|(uuid, name, address, wants_vote)| Instance {
            uuid: Uuid(uuid),
            region: name.clone(),
            name,
            address,
            wants_vote,
        })
    }

    fn membership() -> impl Strategy<Value = Membership> {
        prop::collection::btree_map(any::<u64>(), instance(), 1..6).prop_flat_map(|nodes| {
            let ids: Vec<u64> = nodes.keys().copied().collect();
            let set = prop::collection::btree_set(prop::sample::select(ids), 1..4);
            prop::collection::vec(set, 1..3).prop_map(move |voters| Membership::new(voters, nodes.clone()).unwrap())
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| EntryPayload::Normal(Command::Application(Bytes::from(bytes)))),
            instance().prop_map(|instance| EntryPayload::Normal(Command::AllocateNodeId(instance))),
            membership().prop_map(EntryPayload::Membership),
        ];
        (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    proptest! {
        #[test]
        fn an_entry_survives_the_way_through_bytes(entry in entry()) {
            let bytes = entry.to_proto().encode_to_vec();
            let back = Entry::from_proto(v1::RaftEntry::decode(bytes.as_slice()).unwrap()).unwrap();
            prop_assert_eq!(back, entry);
        }

        #[test]
        fn a_stored_membership_survives_the_way_through_bytes(log_id in prop::option::of(log_id()), membership in membership()) {
            let stored = StoredMembership::new(log_id, membership);
            let bytes = stored.to_proto().encode_to_vec();
            let back = StoredMembership::from_proto(v1::RaftStoredMembership::decode(bytes.as_slice()).unwrap()).unwrap();
            prop_assert_eq!(back, stored);
        }

        #[test]
        fn bytes_of_others_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(proto) = v1::RaftEntry::decode(bytes.as_slice()) {
                let _ = Entry::from_proto(proto);
            }
        }
    }

    #[test]
    fn a_membership_without_its_voters_is_refused() {
        let orphan = v1::RaftMembership { voters: vec![v1::RaftVoters { ids: vec![7] }], members: Vec::new() };
        assert!(Membership::from_proto(orphan).is_err());
        let of_a_later_version = v1::RaftEntry { log_id: Some(v1::RaftLogId::default()), payload: None };
        assert_eq!(Entry::from_proto(of_a_later_version).unwrap_err(), Malformed("entry of a kind this version does not know"));
    }
}
