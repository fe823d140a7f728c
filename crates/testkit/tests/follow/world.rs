//! One log, control nodes that apply it at their own pace, edges that follow them, and what must hold after each step of an edge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_control::State;
use tidegate_control::api::sync::SyncLimits;
use tidegate_edge::simulation::{Decision, SimulatedEdge};
use tidegate_proto::v1::{Command, Resource, command};
use tidegate_proto::{Digest, Kind};
use tidegate_runtime::Clock;
use tidegate_testkit::network::Network;
use tidegate_testkit::simulated::{self, BEGIN, Place, SimulatedNode, foundation};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// What is simulated.
pub(crate) struct World {
    pub(crate) rng: fastrand::Rng,
    pub(crate) clock: Clock,
    pub(crate) network: Network,
    pub(crate) log: Vec<Command>,
    pub(crate) newest: State,
    pub(crate) nodes: Vec<SimulatedNode>,
    pub(crate) edges: Vec<Slot>,
    truth: Arc<Mutex<Truth>>,
    directory: tempfile::TempDir,
}

/// A place for an edge's processes, one after the other.
pub(crate) struct Slot {
    pub(crate) name: String,
    state_dir: PathBuf,
    pub(crate) key_grace: Option<Duration>,
    /// Its own idea of the time.
    clock: Clock,
    running: Option<Running>,
}

struct Running {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

type Look = Box<dyn FnOnce(&mut SimulatedEdge) + Send>;

enum Order {
    Look(Look),
    Stop,
    Kill,
}

/// What was agreed, and what edges were seen to hold.
#[derive(Default)]
struct Truth {
    /// Digest of the edge's side of the state, by edge and index.
    digests: BTreeMap<(String, u64), Digest>,
    seen: BTreeMap<String, Seen>,
    /// What happened, for comparing two runs.
    trace: Vec<String>,
}

#[derive(Default)]
struct Seen {
    index: u64,
    corrupted: bool,
    ever: bool,
}

impl Truth {
    /// The state at a revision is what was agreed at that revision, and the revision never goes back.
    fn check(&mut self, name: &str, edge: &SimulatedEdge, now_ms: u64) {
        let seen = self.seen.entry(name.to_owned()).or_default();
        let index = edge.replica().index();
        assert!(index >= seen.index, "{name} goes back from {} to {index}", seen.index);
        if index > seen.index {
            self.trace.push(format!("{now_ms} {name} {index} {}", edge.routes_by()));
        }
        seen.index = index;
        assert!(edge.routes_by() <= index, "{name} routes by {} and holds {index}", edge.routes_by());
        let Some(position) = edge.replica().position() else { return };
        let agreed = self.digests.get(&(name.to_owned(), position.index)).copied().unwrap_or_default();
        if seen.corrupted && edge.replica().digest() != agreed {
            return;
        }
        seen.corrupted = false;
        assert_eq!(edge.replica().digest(), agreed, "{name} at {}", position.index);
    }
}

impl World {
    /// Control nodes and edges; nothing is agreed yet but two providers and the key `test`.
    pub(crate) fn new(seed: u64, nodes: usize, edges: usize) -> Self {
        // Jitter and identities are drawn from it, on this one thread.
        fastrand::seed(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let clock = Clock::of_runtime(BEGIN);
        let network = Network::new(Duration::from_millis(rng.u64(1..80)));
        let limits = SyncLimits { snapshots: 2, ..SyncLimits::default() };
        let directory = tempfile::tempdir().expect("a directory");
        let mut world = Self {
            nodes: (0..nodes).map(|number| SimulatedNode::start(&node_name(number), &network, clock, limits)).collect(),
            edges: Vec::new(),
            rng,
            clock,
            network,
            log: Vec::new(),
            newest: State::default(),
            truth: Arc::default(),
            directory,
        };
        for number in 0..edges {
            let name = format!("e{number}");
            // Up to ten minutes ahead of the leader, or behind it.
            let clock = Clock::of_runtime(BEGIN - SKEW + Duration::from_millis(world.rng.u64(..2 * SKEW.as_millis() as u64)));
            world.edges.push(Slot { state_dir: world.directory.path().join(&name), name, key_grace: None, clock, running: None });
        }
        for body in foundation() {
            world.agree(body);
        }
        for node in 0..nodes {
            world.apply(node, 0);
        }
        world
    }

    /// Agrees on a command; its index.
    pub(crate) fn agree(&mut self, body: command::Body) -> u64 {
        let command =
            Command { leader_time_ms: self.clock.unix_millis(), actor: "test".to_owned(), body: Some(body), ..Command::default() };
        let index = self.log.len() as u64 + 1;
        // What is refused is part of the log too.
        let _ = self.newest.apply(index, 1, &command);
        self.log.push(command);
        let mut truth = self.truth.lock();
        for slot in &self.edges {
            truth.digests.insert((slot.name.clone(), index), self.newest.for_edge(&slot.name).digest());
        }
        index
    }

    /// A node applies the log, all but so many of its last entries.
    pub(crate) fn apply(&self, node: usize, behind: u64) {
        let to = (self.log.len() as u64).saturating_sub(behind);
        self.nodes[node].apply(&self.log, to, behind == 0);
    }

    /// Every node applies everything.
    pub(crate) fn apply_all(&self) {
        for node in 0..self.nodes.len() {
            self.apply(node, 0);
        }
    }

    /// Starts a process of an edge, unless one runs.
    #[expect(clippy::disallowed_methods, reason = "the slot owns the handle, and looks at how it ends")]
    pub(crate) fn start(&mut self, edge: usize) {
        let nodes: Vec<String> = (0..self.nodes.len()).map(node_name).collect();
        let slot = &mut self.edges[edge];
        if slot.running.is_some() {
            return;
        }
        let place = Place { name: &slot.name, nodes, state_dir: &slot.state_dir, key_grace: slot.key_grace };
        let started = simulated::edge(&self.network, slot.clock, &place);
        let (orders, queue) = mpsc::channel(ORDERS);
        let (truth, name, clock) = (Arc::clone(&self.truth), slot.name.clone(), self.clock);
        // A process begins with what was kept, which may be older than what the one before had seen.
        truth.lock().seen.entry(name.clone()).or_default().index = 0;
        let task = tokio::spawn(follow(started, queue, truth, name, clock));
        slot.running = Some(Running { orders, task });
    }

    /// Ends the process of an edge: in order, or killed.
    pub(crate) async fn end(&mut self, edge: usize, in_order: bool) {
        let slot = &mut self.edges[edge];
        let Some(running) = slot.running.take() else { return };
        let _ = running.orders.send(if in_order { Order::Stop } else { Order::Kill }).await;
        joined(running.task).await;
        self.network.kill(&self.edges[edge].name);
    }

    /// Whether the edge has a process.
    pub(crate) fn runs(&self, edge: usize) -> bool {
        self.edges[edge].running.is_some()
    }

    /// Looks at a running edge.
    pub(crate) async fn look<T: Send + 'static>(&mut self, edge: usize, look: impl FnOnce(&mut SimulatedEdge) -> T + Send + 'static) -> T {
        let (answer, seen) = oneshot::channel();
        let running = self.edges[edge].running.as_mut().expect("an edge that runs");
        let look = Box::new(move |edge: &mut SimulatedEdge| {
            let _ = answer.send(look(edge));
        });
        let _ = running.orders.send(Order::Look(look)).await;
        match seen.await {
            Ok(seen) => seen,
            Err(_) => {
                // It has panicked: say so with its own words.
                let running = self.edges[edge].running.take().expect("just seen");
                joined(running.task).await;
                unreachable!("a task that drops its orders has panicked");
            }
        }
    }

    /// What a caller would be told by an edge.
    pub(crate) async fn decide(&mut self, edge: usize, key: &str) -> Decision {
        let key = key.to_owned();
        self.look(edge, move |edge| edge.decide(&key, "m")).await
    }

    /// A bit flips in the memory of an edge.
    pub(crate) async fn corrupt(&mut self, edge: usize) {
        let seed = self.rng.u64(..);
        let (truth, name) = (Arc::clone(&self.truth), self.edges[edge].name.clone());
        self.look(edge, move |edge| {
            if edge.replica().position().is_some() && edge.replica_mut().corrupt_for_test(seed) {
                let mut truth = truth.lock();
                let seen = truth.seen.entry(name).or_default();
                (seen.corrupted, seen.ever) = (true, true);
            }
        })
        .await;
    }

    /// Whether bits flipped in it before: it may have lost what requests need, until it has noticed.
    pub(crate) fn was_damaged(&self, edge: usize) -> bool {
        self.truth.lock().seen.get(&self.edges[edge].name).is_some_and(|seen| seen.ever)
    }

    /// Waits, in virtual time, until something holds of an edge.
    pub(crate) async fn until(&mut self, edge: usize, patience: Duration, what: &str, holds: fn(&SimulatedEdge) -> bool) {
        let mut left = patience;
        loop {
            if self.look(edge, move |edge| holds(edge)).await {
                return;
            }
            assert!(left > Duration::ZERO, "{} {what} within {} s", self.edges[edge].name, patience.as_secs());
            self.pass(STEP).await;
            left = left.saturating_sub(STEP);
        }
    }

    /// Lets everything settle, and compares contents, not digests.
    pub(crate) async fn settle(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].revive();
            for edge in 0..self.edges.len() {
                self.network.heal(&node_name(node), &self.edges[edge].name.clone());
            }
        }
        for edge in 0..self.edges.len() {
            self.network.rate(&self.edges[edge].name.clone(), None);
            self.start(edge);
        }
        self.apply_all();
        let newest = self.log.len() as u64;
        for edge in 0..self.edges.len() {
            let mut left = SETTLED_WITHIN;
            // Held again after the next bookmark too: then the digests were compared.
            while !self.look(edge, move |edge| edge.replica().position().is_some_and(|at| at.index == newest)).await {
                assert!(left > Duration::ZERO, "{} does not catch up", self.edges[edge].name);
                self.pass(STEP).await;
                self.apply_all();
                left = left.saturating_sub(STEP);
            }
        }
        self.pass(Duration::from_secs(5)).await;
        for edge in 0..self.edges.len() {
            self.compare(edge).await;
        }
    }

    async fn compare(&mut self, edge: usize) {
        let name = self.edges[edge].name.clone();
        let agreed = self.newest.for_edge(&name);
        let expected: BTreeMap<_, _> =
            agreed.iter().filter(|(id, _)| id.kind() != Some(Kind::Key)).map(|(_, resource)| as_pair(resource)).collect();
        let keys: Vec<String> = agreed.of_kind(Kind::Key).map(|(id, _)| id.name().to_owned()).collect();
        self.until(edge, Duration::from_secs(30), "holds nothing again", |edge| edge.replica().position().is_some()).await;
        let (held, count, missing) = self
            .look(edge, move |edge| {
                let replica = edge.replica();
                let held: BTreeMap<_, _> = replica.mesh().iter().map(as_pair).collect();
                let missing: Vec<String> = keys.iter().filter(|key| !replica.serves(key)).cloned().collect();
                (held, (replica.key_count(), keys.len()), missing)
            })
            .await;
        assert_eq!(held, expected, "{name}");
        assert_eq!(count.0, count.1, "{name}");
        assert!(missing.is_empty(), "{name} does not serve {missing:?}");
    }

    /// Lets time pass.
    pub(crate) async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        for slot in &mut self.edges {
            if slot.running.as_ref().is_some_and(|running| running.task.is_finished()) {
                let running = slot.running.take().expect("just seen");
                joined(running.task).await;
                panic!("{} ended by itself", slot.name);
            }
        }
    }

    /// Nothing waited for an edge beyond the bound, however slowly it read.
    pub(crate) fn check_memory(&mut self) -> u64 {
        let mut most = 0;
        for node in &mut self.nodes {
            for (edge, bytes) in node.most_waiting() {
                assert!(*bytes <= MOST_WAITING, "{bytes} bytes waited for {edge}");
                most = most.max(*bytes);
            }
        }
        most
    }

    /// What happened, in order of time. Of what happens in the same millisecond the order is the runtime's, which draws whom it wakes first.
    pub(crate) fn trace(&self) -> Vec<String> {
        let mut trace = self.truth.lock().trace.clone();
        trace.sort_unstable();
        trace
    }
}

async fn follow(mut edge: SimulatedEdge, mut orders: mpsc::Receiver<Order>, truth: Arc<Mutex<Truth>>, name: String, clock: Clock) {
    loop {
        // Losing either is safe: a turn changes nothing before it is done waiting, and `recv` loses nothing.
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Look(look)) => look(&mut edge),
                Some(Order::Stop) => return edge.stop().await,
                Some(Order::Kill) | None => return edge.kill(),
            },
            () = edge.turn() => {}
        }
        truth.lock().check(&name, &edge, clock.unix_millis());
    }
}

/// Goes on with a panic of the task as if it were one's own.
async fn joined(task: JoinHandle<()>) {
    if let Err(error) = task.await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn node_name(number: usize) -> String {
    format!("c{number}")
}

fn as_pair(resource: &Resource) -> ((String, String), (u64, Vec<u8>)) {
    let id = resource.id.clone().expect("every resource has an id");
    ((id.kind, id.name), (resource.revision, resource.body.to_vec()))
}

const SKEW: Duration = Duration::from_secs(600);
/// One is given at a time, and waited for.
const ORDERS: usize = 1;
const STEP: Duration = Duration::from_millis(100);
/// A reconnection backs off for up to ten seconds, and one that leads nowhere takes ten more.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// `control-plane.md`, 2.5: what a slow edge costs.
const MOST_WAITING: u64 = 64 * 1024;
