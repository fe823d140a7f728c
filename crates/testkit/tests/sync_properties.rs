//! Whatever happens on the way between a control node and an edge, they end up holding the same.
//!
//! The real state machine, the real cursor and the real replica, with every message, loss, reconnection and lagging node drawn at
//! random. After each message: what the edge says it holds at an index is what was agreed at that index, and the index never went back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tidegate_control::State;
use tidegate_control::publisher::{Cursor, Step};
use tidegate_edge::config::KeyPolicy;
use tidegate_edge::control_link::{Divergence, Replica};
use tidegate_proto::Kind;
use tidegate_proto::v1::{
    AdvanceRollout, Change, Command, ControlMessage, CreateKey, Resource, RevokeKeys, RolloutStage, command, control_message, reply,
};
use tidegate_testkit::control::{id, key_of};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    /// Something is agreed.
    Agree(Agreed),
    /// Many things at once, more than a node remembers one by one.
    Flood,
    /// A node applies what was agreed, up to so many entries behind.
    CatchUp { node: usize, behind: u64 },
    /// So many messages arrive.
    Deliver { messages: usize },
    /// The connection breaks; the edge goes to this node.
    Connect { node: usize },
    /// What the edge holds is not what it says: a bit flipped in memory or in its file.
    Corrupt,
}

#[derive(Debug, Clone)]
enum Agreed {
    Put { name: u8, size: u16 },
    Remove { name: u8 },
    Staged { name: u8 },
    Advance { to: RolloutStage, with_edge: bool },
    Key { name: u8 },
    Revoke { name: u8, kill: bool },
}

fn agreed() -> impl Strategy<Value = Agreed> {
    prop_oneof![
        4 => (0..12_u8, 0..3_000_u16).prop_map(|(name, size)| Agreed::Put { name, size }),
        2 => (0..12_u8).prop_map(|name| Agreed::Remove { name }),
        1 => (0..12_u8).prop_map(|name| Agreed::Staged { name }),
        2 => (prop_oneof![Just(RolloutStage::Canary), Just(RolloutStage::Tenth), Just(RolloutStage::Done)], any::<bool>())
            .prop_map(|(to, with_edge)| Agreed::Advance { to, with_edge }),
        3 => (0..12_u8).prop_map(|name| Agreed::Key { name }),
        2 => (0..12_u8, any::<bool>()).prop_map(|(name, kill)| Agreed::Revoke { name, kill }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => agreed().prop_map(Event::Agree),
        5 => (0..NODES, 0..4_u64).prop_map(|(node, behind)| Event::CatchUp { node, behind }),
        8 => (1..12_usize).prop_map(|messages| Event::Deliver { messages }),
        4 => (0..NODES).prop_map(|node| Event::Connect { node }),
        1 => Just(Event::Corrupt),
    ]
}

struct World {
    log: Vec<Command>,
    nodes: Vec<Arc<State>>,
    replica: Replica,
    connection: Option<(usize, Cursor)>,
    now_ms: u64,
    /// What the edge's side of the state was at each index.
    digests: BTreeMap<u64, tidegate_proto::Digest>,
    newest: State,
    newest_index_seen: u64,
    corrupted: bool,
    snapshots: usize,
}

impl World {
    fn new() -> Self {
        let replica = Replica::new(None, Arc::new(|_| Ok(KeyPolicy::default())));
        Self {
            log: Vec::new(),
            nodes: vec![Arc::default(); NODES],
            replica,
            connection: None,
            now_ms: 0,
            digests: BTreeMap::new(),
            newest: State::default(),
            newest_index_seen: 0,
            corrupted: false,
            snapshots: 0,
        }
    }

    fn agree(&mut self, body: command::Body) {
        let command = Command { leader_time_ms: self.now_ms, actor: "test".to_owned(), body: Some(body), ..Command::default() };
        let index = self.log.len() as u64 + 1;
        let reply = self.newest.apply(index, 1, &command);
        // What is refused is part of the log too.
        let _ = matches!(reply.outcome, Some(reply::Outcome::Refused(_)));
        self.log.push(command);
        self.digests.insert(index, self.newest.for_edge(EDGE).digest());
    }

    fn happen(&mut self, event: &Event) {
        self.now_ms += 700;
        match event {
            Event::Agree(agreed) => self.agree(self.body_of(agreed)),
            Event::Flood => {
                for round in 0..21_u8 {
                    let upserts = (0..1_000).map(|number| preset(&format!("flood-{number}"), usize::from(round))).collect();
                    self.agree(command::Body::Change(Change { upserts, immediate: true, ..Change::default() }));
                }
            }
            Event::CatchUp { node, behind } => self.catch_up(*node, *behind),
            Event::Deliver { messages } => {
                self.deliver(*messages);
            }
            Event::Connect { node } => {
                self.replica.disconnected();
                self.connect(*node);
            }
            Event::Corrupt => {
                if let (false, Some(position)) = (self.corrupted, self.replica.position()) {
                    self.corrupted = self.replica.corrupt_for_test(position.index);
                }
            }
        }
    }

    fn body_of(&self, agreed: &Agreed) -> command::Body {
        let name = |name: &u8| format!("n{name}");
        match agreed {
            Agreed::Put { name: n, size } => {
                command::Body::Change(Change { upserts: vec![preset(&name(n), usize::from(*size))], immediate: true, ..Change::default() })
            }
            Agreed::Staged { name: n } => {
                command::Body::Change(Change { upserts: vec![preset(&name(n), 4_000 + self.log.len())], ..Change::default() })
            }
            Agreed::Remove { name: n } => {
                command::Body::Change(Change { removes: vec![id(Kind::Preset, &name(n))], immediate: true, ..Change::default() })
            }
            Agreed::Advance { to, with_edge } => {
                let running = self.newest.rollouts().running();
                command::Body::AdvanceRollout(AdvanceRollout {
                    revision: running.map_or(0, |rollout| rollout.revision),
                    from: running.map_or(0, |rollout| rollout.stage),
                    to: (*to).into(),
                    cohort: if *with_edge { vec![EDGE.to_owned()] } else { vec!["another".to_owned()] },
                    ..AdvanceRollout::default()
                })
            }
            Agreed::Key { name: n } => {
                let text = format!("{n}-{}", self.log.len());
                command::Body::CreateKey(CreateKey { key: Some(key_of(&name(n), &text, "")), ..CreateKey::default() })
            }
            Agreed::Revoke { name: n, kill } => command::Body::RevokeKeys(RevokeKeys { public_ids: vec![name(n)], kill_streams: *kill }),
        }
    }

    fn catch_up(&mut self, node: usize, behind: u64) {
        let target = (self.log.len() as u64).saturating_sub(behind);
        let mut state = (*self.nodes[node]).clone();
        for index in state.applied() + 1..=target {
            state.apply(index, 1, &self.log[usize::try_from(index).expect("small") - 1]);
        }
        self.nodes[node] = Arc::new(state);
    }

    fn connect(&mut self, node: usize) {
        let resume = self.replica.position();
        self.connection = Some((node, Cursor::resume(EDGE, resume.as_ref(), &self.nodes[node])));
    }

    /// Takes messages; whether the node had nothing more to say.
    fn deliver(&mut self, messages: usize) -> bool {
        for _ in 0..messages {
            let Some((node, cursor)) = &mut self.connection else { return true };
            let state = Arc::clone(&self.nodes[*node]);
            match cursor.next(&state, self.now_ms) {
                Step::Send(message) => {
                    if let Err(divergence) = self.take(*message) {
                        assert!(self.corrupted || matches!(divergence, Divergence::Behind { .. }), "{divergence}");
                        self.replica.disconnected();
                        self.connection = None;
                        return true;
                    }
                }
                Step::NeedsSnapshot => cursor.begin_snapshot(&state),
                Step::Idle { .. } => return true,
            }
        }
        false
    }

    fn take(&mut self, message: ControlMessage) -> Result<(), Divergence> {
        let taken = match message.body.expect("a body") {
            control_message::Body::Snapshot(part) => {
                let taken = self.replica.snapshot(part)?;
                if taken.current {
                    self.snapshots += 1;
                    self.corrupted = false;
                }
                taken
            }
            control_message::Body::Delta(part) => self.replica.delta(part)?,
            control_message::Body::Bookmark(bookmark) => self.replica.bookmark(&bookmark)?,
            control_message::Body::Revoke(revoke) => {
                let taken = self.replica.revoke(&revoke);
                for key in &revoke.public_ids {
                    assert!(!self.replica.serves(key), "revoked and still served");
                }
                taken
            }
            other => panic!("{other:?}"),
        };
        assert!(taken.unusable.is_empty(), "{taken:?}");
        self.check();
        Ok(())
    }

    fn check(&mut self) {
        let index = self.replica.index();
        assert!(index >= self.newest_index_seen, "from {} back to {index}", self.newest_index_seen);
        self.newest_index_seen = index;
        if let Some(position) = self.replica.position().filter(|_| !self.corrupted) {
            let agreed = self.digests.get(&position.index).copied().unwrap_or_default();
            assert_eq!(self.replica.digest(), agreed, "at index {}", position.index);
        }
    }

    /// Lets everything settle, and compares contents, not digests.
    fn settle(&mut self) {
        for node in 0..NODES {
            self.catch_up(node, 0);
        }
        for _ in 0..3 {
            if self.connection.is_none() {
                self.connect(0);
            }
            self.now_ms += 10_000;
            while !self.deliver(1_000) {}
        }
        let agreed = self.newest.for_edge(EDGE);
        let bodies: BTreeMap<(String, String), (u64, Vec<u8>)> = self.replica.mesh().iter().map(as_pair).collect();
        let expected: BTreeMap<_, _> =
            agreed.iter().filter(|(id, _)| id.kind() != Some(Kind::Key)).map(|(_, resource)| as_pair(resource)).collect();
        assert_eq!(bodies, expected);
        let keys: BTreeSet<&str> = agreed.of_kind(Kind::Key).map(|(id, _)| id.name()).collect();
        assert_eq!(self.replica.key_count(), keys.len());
        for key in keys {
            assert!(self.replica.serves(key), "{key}");
        }
        assert_eq!(self.replica.index(), self.log.len() as u64);
    }
}

fn as_pair(resource: &Resource) -> ((String, String), (u64, Vec<u8>)) {
    let id = resource.id.clone().expect("every resource has an id");
    ((id.kind, id.name), (resource.revision, resource.body.to_vec()))
}

fn preset(name: &str, size: usize) -> Resource {
    Resource { id: Some(id(Kind::Preset, name)), body: vec![b'x'; size].into(), revision: 0 }
}

const NODES: usize = 2;
const EDGE: &str = "e";

fn run(events: &[Event]) -> World {
    let mut world = World::new();
    for event in events {
        world.happen(event);
    }
    world.settle();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn an_edge_ends_up_with_what_was_agreed(events in prop::collection::vec(event(), 1..80)) {
        run(&events);
    }
}

proptest! {
    // Each flood is 21,000 changes on each of three states.
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]
    #[test]
    fn also_when_nodes_forget_what_changed(before in prop::collection::vec(event(), 1..40), after in prop::collection::vec(event(), 1..40)) {
        let mut events = before;
        events.push(Event::Flood);
        events.extend(after);
        run(&events);
    }
}

/// The property would hold for a node that always sends everything; this one does not.
#[test]
fn differences_are_what_is_sent() {
    let mut events = Vec::new();
    for round in 0..200_u8 {
        let node = usize::from(round % 2);
        events.push(Event::Agree(Agreed::Put { name: round % 12, size: u16::from(round) }));
        events.extend([Event::CatchUp { node, behind: 0 }, Event::Connect { node }, Event::Deliver { messages: 50 }]);
    }
    assert_eq!(run(&events).snapshots, 1);
}
