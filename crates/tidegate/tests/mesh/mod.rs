//! A mesh of processes brought up, and those who use it all the while.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tidegate_testkit::processes::{Processes, Raw, completion, listener, until};

/// Between two requests at an edge: steady, not as fast as it goes, as the machine has other things to do.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
/// As many as a quorum takes.
const EDGES_PER_REGION: u16 = 4;
/// A mesh is ten processes: one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A mesh that is up, and a key that its edges take.
pub(crate) struct Mesh {
    processes: Processes,
    pub(crate) key: String,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Mesh {
    type Target = Processes;

    fn deref(&self) -> &Processes {
        &self.processes
    }
}

/// Brings a mesh up by the commands of the documentation: nodes, `init`, `join`, `apply`, a key, edges.
pub(crate) fn mesh(edges: &[&str]) -> Option<Mesh> {
    mesh_on(edges, |_| {})
}

/// The same, with something done to its files before anything runs.
pub(crate) fn mesh_on(edges: &[&str], before: impl FnOnce(&Processes)) -> Option<Mesh> {
    let turn = ONE.lock();
    let processes = Processes::prepare(env!("CARGO_BIN_EXE_tidegate"), EDGES_PER_REGION)?;
    before(&processes);
    let started = Instant::now();
    for node in 1..=3 {
        processes.start(&format!("control-{node}"));
    }
    for node in 1..=3 {
        until(format_args!("control-{node}"), || processes.status(node).is_some());
    }
    let admin = processes.admin(1);
    processes.command("eu", &admin, &["control", "init", "--cluster-id", "proof"]);
    for node in [2, 3] {
        processes.command("eu", &processes.admin(node), &["control", "join"]);
    }
    // A node that joins follows first and votes once it has caught up.
    until("three voters", || voters(&processes) == 3);
    let apply = ["apply", "-f", &processes.file("mesh.yaml"), "--yes", "--immediate", "--reason", "the proof"];
    processes.command("eu", &admin, &apply);
    let key = create_key(&processes, "eu", 1, "first").unwrap();
    println!("bring-up: three nodes, cluster, mesh and key after {}", seconds(started.elapsed()));
    for edge in edges {
        processes.start(edge);
    }
    for edge in edges {
        until(format_args!("{edge} ready"), || processes.operations(edge, "/readyz").status == 200);
        until(format_args!("{edge} answers"), || processes.ask(edge, &key).status == 200);
    }
    println!("bring-up: {} edges answer after {}", edges.len(), seconds(started.elapsed()));
    Some(Mesh { processes, key, _turn: turn })
}

/// Members that vote, as the first node sees them.
pub(crate) fn voters(processes: &Processes) -> usize {
    let status = processes.status(1).unwrap_or_default();
    status["cluster"]["members"].as_array().into_iter().flatten().filter(|member| member["voter"] == true).count()
}

/// A write through a node, from a region: the key, or what was said instead.
pub(crate) fn create_key(processes: &Processes, region: &str, node: usize, name: &str) -> Result<String, String> {
    let arguments = ["keys", "create", "--name", name, "--organisation", "acme", "--workspace", "dev"];
    let output = processes.run(region, &processes.admin(node), &arguments);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// For people.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Writes until one succeeds, through these nodes in turn: the key, and how long it took.
#[track_caller]
pub(crate) fn write_again(mesh: &Mesh, region: &str, nodes: &[usize], name: &str) -> (String, Duration) {
    let mut key = String::new();
    let mut turn = nodes.iter().cycle();
    let gap = until("a write to succeed", || create_key(mesh, region, *turn.next().unwrap(), name).map(|created| key = created).is_ok());
    (key, gap)
}

/// Waits until edges have the keys of what a node has agreed on now. Asking them with a new key would have it taken for an attack.
#[track_caller]
pub(crate) fn caught_up(mesh: &Mesh, edges: &[&str], node: usize) -> Duration {
    let mut revision = None;
    until("a node's revision", || {
        revision = mesh.status(node).and_then(|status| status["node"]["revision"].as_f64());
        revision.is_some()
    });
    until(format_args!("revision {revision:?} at {edges:?}"), || {
        edges.iter().all(|edge| mesh.metric(edge, "tidegate_state_revision", "keys") >= revision)
    })
}

/// The node that leads, by a node that says so of itself.
#[track_caller]
pub(crate) fn leader(mesh: &Mesh) -> usize {
    let mut found = None;
    until("a leader", || {
        found = (1..=3).find(|node| mesh.status(*node).is_some_and(|status| status["node"]["role"] == "leader"));
        found.is_some()
    });
    found.unwrap()
}

/// Steady requests at edges until told to stop. Every answer that is not 200 is kept.
#[derive(Default)]
pub(crate) struct Steady {
    /// Between two requests at an edge.
    pause: Duration,
    stop: AtomicBool,
    served: AtomicUsize,
    failed: Mutex<Vec<(String, Raw)>>,
}

impl Steady {
    /// Sends requests at these edges while `work` runs; then no request may have failed.
    #[track_caller]
    pub(crate) fn during<T>(mesh: &Mesh, edges: &[&str], pause: Duration, work: impl FnOnce() -> T) -> (T, usize) {
        let steady = Steady { pause, ..Steady::default() };
        let result = std::thread::scope(|scope| {
            for edge in edges {
                scope.spawn(|| steady.callers(mesh, edge));
            }
            // A failing test must not leave the callers running.
            let stop = StopOnDrop(&steady.stop);
            let result = work();
            drop(stop);
            result
        });
        let failed = steady.failed.into_inner();
        let served = steady.served.into_inner();
        assert!(failed.is_empty(), "{} of {} failed, such as {:?}", failed.len(), served + failed.len(), failed[0]);
        (result, served)
    }

    fn callers(&self, mesh: &Mesh, edge: &str) {
        let region = edge.split('-').nth(1).unwrap();
        let calling = || {
            while !self.stop.load(Ordering::Relaxed) {
                let answer = completion(listener(edge), &mesh.key);
                match answer.status {
                    200 => drop(self.served.fetch_add(1, Ordering::Relaxed)),
                    _ => self.failed.lock().push((edge.to_owned(), answer)),
                }
                std::thread::sleep(self.pause);
            }
        };
        mesh.wan().inside(region, calling).unwrap();
    }
}

/// Tells whoever works beside a test to stop, also when the test fails.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
