//! The machines of the simulator: their disks, what runs on them, and what lies between them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;
use openraft::type_config::TypeConfigExt as _;
use openraft::{Config, Raft, RaftMetrics};
use parking_lot::Mutex;

use super::Sim;
use super::registers::{Ledger, Registers, Replica};
use super::transport::Transport;
use crate::config::ConsensusConfig;
use crate::log_store::LogStore;
use crate::log_store::tests::disk::Disk;
use crate::member::{Instance, Uuid};
use crate::state_store::{Files, Offload, Shelf, StateStore};
use crate::timing::Timing;

pub(super) type SimRaft = Raft<Sim, StateStore<Sim>>;

/// All machines.
pub(super) struct World {
    pub(super) config: Arc<Config>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    hosts: BTreeMap<u64, Host>,
    /// Ways that are cut, by direction.
    cuts: BTreeSet<(u64, u64)>,
    /// Shortest and longest time of a message, microseconds.
    delay: (u64, u64),
    /// Messages that are lost, in a thousand.
    loss: u32,
    /// What happened, for comparing two runs.
    trace: Vec<String>,
    next_incarnation: u64,
}

/// One machine.
pub(super) struct Host {
    pub(super) incarnation: u64,
    /// `None` while it is down.
    pub(super) raft: Option<SimRaft>,
    pub(super) log: LogStore<Sim>,
    pub(super) registers: Arc<Mutex<Registers>>,
    disk: Disk,
    files: Drawer,
}

/// Files that survive a crash once they are written.
#[derive(Clone, Default)]
struct Drawer(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl Files for Drawer {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        self.0.lock().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.0.lock().insert(name.to_owned(), Bytes::copy_from_slice(content));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name);
        Ok(())
    }
}

impl World {
    pub(super) fn new(seed: u64, timing: Timing) -> Arc<Self> {
        let mut config = ConsensusConfig::new("", "", "");
        config.timing = timing;
        (config.snapshot_every, config.keep_entries) = (60, 20);
        let mut config = crate::node::raft_config(CLUSTER, &config).unwrap();
        config.purge_batch_size = 8;
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            hosts: BTreeMap::new(),
            cuts: BTreeSet::new(),
            delay: (QUICKEST, 20_000),
            loss: 0,
            trace: Vec::new(),
            next_incarnation: 1,
        };
        Arc::new(Self { config: Arc::new(config), ledger: Arc::default(), state: Mutex::new(state) })
    }

    /// Starts a node, on what is left of its disk when it was there before.
    pub(super) async fn start(self: &Arc<Self>, node: u64) {
        let (disk, files, incarnation, delays) = {
            let mut state = self.state.lock();
            let State { random, hosts, next_incarnation, .. } = &mut *state;
            let (disk, files) = match hosts.get(&node) {
                Some(host) => (host.disk.pull_the_plug(random), host.files.clone()),
                None => {
                    let disk = Disk::default();
                    LogStore::<Sim>::create(disk.clone()).unwrap();
                    (disk.reopen(), Drawer::default())
                }
            };
            *next_incarnation += 1;
            (disk, files, *next_incarnation, random.fork())
        };
        let mut delays = delays;
        // Most disks are quick most of the time.
        let flush = move || Duration::from_millis(if delays.u8(0..50) == 0 { delays.u64(10..120) } else { delays.u64(1..8) });
        let log = LogStore::<Sim>::open_simulated(disk.clone(), flush).expect("a disk that lost power can be opened");
        let registers = Arc::new(Mutex::new(Registers::default()));
        let replica = Replica { node, ledger: Arc::clone(&self.ledger), registers: Arc::clone(&registers) };
        let shelf = Shelf::new(Box::new(files.clone()));
        let state = StateStore::open(Box::new(replica), shelf, CLUSTER.to_owned(), Offload::Inline, Box::new(|_| {})).unwrap();
        let transport = Transport { world: Arc::clone(self), node, incarnation };
        // Registered before openraft is started, as nothing can reach it before it is there.
        let host = Host { incarnation, raft: None, log: log.clone(), registers, disk, files };
        self.state.lock().hosts.insert(node, host);
        let raft = Raft::new(node, Arc::clone(&self.config), transport, log, state).await.expect("openraft starts");
        if let Some(host) = self.state.lock().hosts.get_mut(&node) {
            host.raft = Some(raft);
        }
        self.trace(format!("start {node}"));
    }

    /// Stops a node as a loss of power does: from this moment on it can neither send nor write.
    pub(super) fn crash(&self, node: u64) {
        let raft = {
            let mut state = self.state.lock();
            let State { random, hosts, .. } = &mut *state;
            let Some(host) = hosts.get_mut(&node) else {
                return;
            };
            host.incarnation = 0;
            // The image for the restart is made now, and the disk refuses the old incarnation.
            host.disk = host.disk.pull_the_plug(random);
            host.raft.take()
        };
        if let Some(raft) = raft {
            self.trace(format!("crash {node}"));
            // Only to have its tasks out of the way.
            drop(Sim::spawn(async move {
                let _ = raft.shutdown().await;
            }));
        }
    }

    /// How long a message takes from one node to another, when it arrives at all.
    pub(super) fn passes(&self, from: u64, incarnation: u64, to: u64) -> Option<Duration> {
        let mut state = self.state.lock();
        let alive = state.hosts.get(&from).is_some_and(|host| host.incarnation == incarnation);
        if alive && state.hosts.contains_key(&to) { state.travel(from, to) } else { None }
    }

    /// The same for the answer to a call.
    pub(super) fn returns(&self, from: u64, incarnation: u64, to: u64) -> Option<Duration> {
        let mut state = self.state.lock();
        let alive = state.hosts.get(&from).is_some_and(|host| host.incarnation == incarnation);
        let answers = state.hosts.get(&to).is_some_and(|host| host.raft.is_some());
        if alive && answers { state.travel(to, from) } else { None }
    }

    /// What runs on a node.
    pub(super) fn raft(&self, node: u64) -> Option<SimRaft> {
        self.state.lock().hosts.get(&node)?.raft.clone()
    }

    /// Nodes that are up.
    pub(super) fn up(&self) -> Vec<u64> {
        self.state.lock().hosts.iter().filter(|(_, host)| host.raft.is_some()).map(|(id, _)| *id).collect()
    }

    /// Nodes that are down.
    pub(super) fn down(&self) -> Vec<u64> {
        self.state.lock().hosts.iter().filter(|(_, host)| host.raft.is_none()).map(|(id, _)| *id).collect()
    }

    /// All nodes that ever were.
    pub(super) fn nodes(&self) -> Vec<u64> {
        self.state.lock().hosts.keys().copied().collect()
    }

    pub(super) fn metrics(&self, node: u64) -> Option<RaftMetrics<Sim>> {
        Some(self.raft(node)?.metrics().borrow_watched().clone())
    }

    /// The node that leads, and of two the later.
    pub(super) fn leader(&self) -> Option<u64> {
        let leading = self.up().into_iter().filter_map(|id| self.metrics(id)).filter(|metrics| metrics.state.is_leader());
        leading.max_by_key(|metrics| metrics.current_term).map(|metrics| metrics.id)
    }

    /// The value of a register on one node.
    pub(super) fn value(&self, node: u64, key: u8) -> Option<u64> {
        self.state.lock().hosts.get(&node)?.registers.lock().values.get(&key).copied()
    }

    /// Looks at every node.
    pub(super) fn each(&self, mut look: impl FnMut(u64, &Host)) {
        for (id, host) in &self.state.lock().hosts {
            look(*id, host);
        }
    }

    pub(super) fn cut(&self, ways: impl IntoIterator<Item = (u64, u64)>) {
        self.state.lock().cuts.extend(ways);
    }

    pub(super) fn heal(&self) {
        self.state.lock().cuts.clear();
    }

    /// Messages take up to `delay` milliseconds, and `loss` of a thousand never arrive.
    pub(super) fn weather(&self, delay: u64, loss: u32) {
        let mut state = self.state.lock();
        (state.delay, state.loss) = ((QUICKEST, delay * 1_000), loss);
    }

    /// Every message takes exactly so long, and none is lost.
    pub(super) fn distance(&self, one_way: Duration) {
        let micros = one_way.as_micros() as u64;
        let mut state = self.state.lock();
        (state.delay, state.loss) = ((micros, micros), 0);
    }

    /// Draws from the one source of chance.
    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.state.lock().random)
    }

    /// True in so many of a hundred cases.
    pub(super) fn chance(&self, percent: u32) -> bool {
        self.draw(|random| random.u32(0..100) < percent)
    }

    pub(super) fn trace(&self, event: String) {
        let line = format!("{} {event}", now());
        if std::env::var_os("TIDEGATE_SIM_TRACE").is_some() {
            eprintln!("{line}");
        }
        self.state.lock().trace.push(line);
    }

    pub(super) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().trace)
    }
}

impl State {
    fn travel(&mut self, from: u64, to: u64) -> Option<Duration> {
        if self.cuts.contains(&(from, to)) || (self.loss > 0 && self.random.u32(0..1_000) < self.loss) {
            return None;
        }
        Some(Duration::from_micros(self.random.u64(self.delay.0..=self.delay.1)))
    }
}

/// Virtual microseconds since the start.
pub(super) fn now() -> u64 {
    openraft_rt_sim::SimInstant::try_now().map_or(0, |now| now.elapsed_since_start().as_micros() as u64)
}

/// What a node of the simulator says of itself.
pub(super) fn instance(node: u64) -> Instance {
    let mut uuid = Uuid::default();
    uuid.0[..8].copy_from_slice(&node.to_le_bytes());
    Instance { uuid, name: format!("n{node}"), address: format!("n{node}:1"), region: "sim".to_owned(), wants_vote: true }
}

const CLUSTER: &str = "sim";
/// Of a message within one building, microseconds.
const QUICKEST: u64 = 500;
