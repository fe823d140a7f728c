//! Who takes part, and how things stand as one node sees them.

use std::fmt;

/// What a node tells about itself when it asks to join.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instance {
    /// Random, written to the volume at the first start: a pod with an empty volume is another instance.
    pub uuid: Uuid,
    /// For people; the same for every instance of one pod. A voter is replaced by a new instance of its name.
    pub name: String,
    /// Host name and port of the Raft listener. Resolved at each connection, so it is best a name.
    pub address: String,
    /// Region of the node.
    pub region: String,
    /// Whether the node is to become a voter once it has caught up. Otherwise it stays a learner.
    pub wants_vote: bool,
}

/// 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A node that the cluster knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Log index of the entry that named it; 1 for the founder. Never given twice.
    pub id: u64,
    /// What it told about itself.
    pub instance: Instance,
}

/// What a node does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Belongs to no cluster yet.
    #[default]
    Unassigned,
    /// Follows the log, does not count in the quorum.
    Learner,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Orders the log.
    Leader,
    /// Stopped, by request or by a fatal error.
    Stopped,
}

impl Role {
    /// The word used in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unassigned => "unassigned",
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Stopped => "stopped",
        }
    }
}

/// How things stand, as this node sees them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Empty while the node belongs to no cluster.
    pub cluster_id: String,
    /// 0 while the node belongs to no cluster.
    pub node_id: u64,
    /// What this node does.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// The leader of the term, when known.
    pub leader: Option<u64>,
    /// Index of the last entry of this node's log.
    pub last_log: u64,
    /// Index up to which this node knows the log to be committed.
    pub committed: u64,
    /// Index up to which this node has applied the log.
    pub applied: u64,
    /// Index that the newest snapshot of this node covers.
    pub snapshot: u64,
    /// On a leader: milliseconds since a quorum has last acknowledged it. A leader acts on the outside world only while this is below
    /// the longest election timeout.
    pub millis_since_quorum_ack: Option<u64>,
    /// Milliseconds since this node was last known to follow what is agreed: since a quorum has acknowledged it on a leader; elsewhere since a
    /// quorum has acknowledged the leader, as the leader last told. A follower that is cut off goes on naming the leader it had, and one that
    /// is cut off together with it even goes on hearing it; only this tells.
    pub millis_since_leader: Option<u64>,
    /// Why proposals are refused for now, when the disk is nearly full.
    pub refusing: Option<String>,
    /// Why the node has stopped by itself.
    pub fatal: Option<String>,
    /// Everyone that the newest membership names, in order of the id.
    pub members: Vec<MemberStatus>,
}

impl Status {
    /// The leader as a member, when both are known.
    pub fn leader_member(&self) -> Option<Member> {
        let leader = self.leader?;
        self.members.iter().find(|member| member.id == leader).map(MemberStatus::member)
    }
}

/// One member, and on a leader how far it has followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Node id.
    pub id: u64,
    /// Name for people.
    pub name: String,
    /// Host name and port.
    pub address: String,
    /// Region of the node.
    pub region: String,
    /// Random number of the instance.
    pub uuid: Uuid,
    /// Counts in the quorum.
    pub voter: bool,
    /// Is to become a voter.
    pub wants_vote: bool,
    /// Index up to which its log is known to match. `None` on a node that does not lead.
    pub matched: Option<u64>,
    /// Entries of the leader's log that it does not have yet. `None` on a node that does not lead.
    pub lag: Option<u64>,
}

impl MemberStatus {
    /// The member without how far it is.
    pub fn member(&self) -> Member {
        Member {
            id: self.id,
            instance: Instance {
                uuid: self.uuid,
                name: self.name.clone(),
                address: self.address.clone(),
                region: self.region.clone(),
                wants_vote: self.wants_vote,
            },
        }
    }
}
