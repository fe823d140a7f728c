//! The control plane as processes: three control nodes and edges in two regions, 80 ms of round trip between them, and what must not
//! happen to callers while parts of it go away.
//!
//! Needs the rights to make network namespaces; without them every test says so and passes. The measured times are printed:
//!
//! ```sh
//! cargo test -p tidegate --test mesh_processes -- --nocapture --test-threads 1
//! ```

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking; the measured times are what it is for")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tidegate_provider_sim::{Fault, Script};
use tidegate_testkit::processes::{MODEL, Processes, Raw, completion, listener, post, until};

/// What the `continental` profile promises after a lost leader is about 4 s; the rest is for a busy machine.
const WRITE_GAP: Duration = Duration::from_secs(15);
/// After this long without word an edge cannot know that a key is unknown.
const DECIDABLE: Duration = Duration::from_secs(15);
/// Between two requests at an edge: steady, not as fast as it goes, as the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(20);
/// As many as a quorum takes.
const EDGES_PER_REGION: u16 = 4;
/// A mesh is ten processes: one at a time.
static ONE: Mutex<()> = Mutex::new(());

struct Mesh {
    processes: Processes,
    key: String,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Mesh {
    type Target = Processes;

    fn deref(&self) -> &Processes {
        &self.processes
    }
}

/// Brings a mesh up by the commands of the documentation: nodes, `init`, `join`, `apply`, a key, edges.
fn mesh(edges: &[&str]) -> Option<Mesh> {
    let turn = ONE.lock();
    let processes = Processes::prepare(env!("CARGO_BIN_EXE_tidegate"), EDGES_PER_REGION)?;
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

fn voters(processes: &Processes) -> usize {
    let status = processes.status(1).unwrap_or_default();
    status["cluster"]["members"].as_array().into_iter().flatten().filter(|member| member["voter"] == true).count()
}

/// A write through a node, from a region: the key, or what was said instead.
fn create_key(processes: &Processes, region: &str, node: usize, name: &str) -> Result<String, String> {
    let arguments = ["keys", "create", "--name", name, "--organisation", "acme", "--workspace", "dev"];
    let output = processes.run(region, &processes.admin(node), &arguments);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Writes until one succeeds, through these nodes in turn: the key, and how long it took.
#[track_caller]
fn write_again(mesh: &Mesh, region: &str, nodes: &[usize], name: &str) -> (String, Duration) {
    let mut key = String::new();
    let mut turn = nodes.iter().cycle();
    let gap = until("a write to succeed", || create_key(mesh, region, *turn.next().unwrap(), name).map(|created| key = created).is_ok());
    (key, gap)
}

/// Waits until edges have the keys of what a node has agreed on now. Asking them with a new key would have it taken for an attack.
#[track_caller]
fn caught_up(mesh: &Mesh, edges: &[&str], node: usize) -> Duration {
    let mut revision = None;
    until("a node's revision", || {
        revision = mesh.status(node).and_then(|status| status["node"]["revision"].as_f64());
        revision.is_some()
    });
    until(format_args!("revision {revision:?} at {edges:?}"), || {
        edges.iter().all(|edge| mesh.metric(edge, "tidegate_state_revision", "keys") >= revision)
    })
}

/// Waits until word from the control plane is so old that an edge can call no key unknown.
#[track_caller]
fn undecidable(mesh: &Mesh, edge: &str) -> Duration {
    until(format_args!("old keys at {edge}"), || {
        mesh.metric(edge, "tidegate_state_age_seconds", "keys").is_some_and(|age| age > DECIDABLE.as_secs_f64())
    })
}

#[track_caller]
fn assert_503(answer: &Raw) {
    assert!(answer.status == 503 && answer.text.to_ascii_lowercase().contains("\r\nretry-after: "), "{answer:?}");
}

/// The node that leads, by a node that says so of itself.
#[track_caller]
fn leader(mesh: &Mesh) -> usize {
    let mut found = None;
    until("a leader", || {
        found = (1..=3).find(|node| mesh.status(*node).is_some_and(|status| status["node"]["role"] == "leader"));
        found.is_some()
    });
    found.unwrap()
}

/// Steady requests at edges until told to stop. Every answer that is not 200 is kept.
#[derive(Default)]
struct Steady {
    /// Between two requests at an edge.
    pause: Duration,
    stop: AtomicBool,
    served: AtomicUsize,
    failed: Mutex<Vec<(String, Raw)>>,
}

impl Steady {
    /// Sends requests at these edges while `work` runs; then no request may have failed.
    #[track_caller]
    fn during<T>(mesh: &Mesh, edges: &[&str], pause: Duration, work: impl FnOnce() -> T) -> (T, usize) {
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

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_mesh_comes_up_by_the_documented_commands_and_answers_in_both_regions() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    for edge in edges {
        assert_eq!(mesh.ask(edge, "tg_live_0123456789_nobody").status, 401, "a stranger is refused at {edge}");
    }
    assert!(mesh.get("edge-us-1", "/v1/models", &mesh.key).text.contains(MODEL));
}

#[test]
fn a_killed_leader_costs_callers_nothing_and_writes_a_few_seconds() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let killed = leader(&mesh);
    let others: Vec<usize> = (1..=3).filter(|node| *node != killed).collect();
    let ((key, gap), served) = Steady::during(&mesh, &edges, PAUSE, || {
        mesh.kill(&format!("control-{killed}"));
        let again = write_again(&mesh, "eu", &others, "after");
        caught_up(&mesh, &edges, others[0]);
        for edge in edges {
            assert_eq!(mesh.ask(edge, &again.0).status, 200, "the new key at {edge}");
        }
        again
    });
    println!("leader killed: writes again after {}; {served} requests meanwhile, none failed", seconds(gap));
    assert!(gap < WRITE_GAP, "{gap:?}");

    mesh.start(&format!("control-{killed}"));
    let back = until("the killed node back as a follower", || {
        mesh.status(killed).is_some_and(|status| status["node"]["role"] == "follower" && status["node"]["revision"].as_u64() > Some(0))
    });
    println!("leader killed: restarted, and a follower again after {}", seconds(back));
    assert_eq!(mesh.ask("edge-eu-1", &key).status, 200);
}

#[test]
fn a_region_that_is_cut_off_serves_on_and_catches_up() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let ((key, gap, healed), served) = Steady::during(&mesh, &edges, PAUSE, || {
        mesh.wan().isolate("us", true);
        let (key, gap) = write_again(&mesh, "eu", &[1, 3], "while-cut");
        caught_up(&mesh, &["edge-eu-1"], 1);
        assert_eq!(mesh.ask("edge-eu-1", &key).status, 200, "the new key on this side");
        // Its own control node is there, but has no quorum: word from it counts as old, and nobody is called unknown any more.
        let undecided = undecidable(&mesh, "edge-us-1");
        println!("region cut off: its edge calls no key unknown any more after {}", seconds(undecided));
        assert_503(&mesh.ask("edge-us-1", &key));
        mesh.wan().isolate("us", false);
        let healed = caught_up(&mesh, &["edge-us-1"], 1);
        (key, gap, healed)
    });
    println!("region cut off: the other side wrote after {}, caught up {} after healing", seconds(gap), seconds(healed));
    println!("region cut off: {served} requests on both sides meanwhile, none failed");
    assert_eq!(mesh.ask("edge-us-1", &key).status, 200);
    // Once more in both directions: a write through the node that was cut off.
    let (_, gap) = write_again(&mesh, "us", &[2], "healed");
    println!("region cut off: writes through its node {} later", seconds(gap));
}

#[test]
fn without_a_control_plane_a_restarted_edge_serves_known_keys_and_judges_no_unknown_one() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let kept = std::path::PathBuf::from(mesh.file("edge-eu-1"));
    until("the last good state on disk", || std::fs::read_dir(&kept).is_ok_and(|files| files.count() > 0));
    let unknown = "tg_live_0123456789_nobody";
    let ((), served) = Steady::during(&mesh, &["edge-us-1"], PAUSE, || {
        let gone = Instant::now();
        for node in 1..=3 {
            mesh.kill(&format!("control-{node}"));
        }
        let (code, took) = mesh.stop("edge-eu-1");
        assert_eq!(code, Some(0), "the edge stops in order");
        println!("no control plane: edge stopped in {}", seconds(took));
        mesh.start("edge-eu-1");
        let ready = until("the edge ready from what it kept", || mesh.operations("edge-eu-1", "/readyz").status == 200);
        println!("no control plane: edge restarted and ready from its last good state after {}", seconds(ready));
        for edge in edges {
            assert_eq!(mesh.ask(edge, &mesh.key).status, 200, "{edge}: {}", mesh.said(edge));
            undecidable(&mesh, edge);
            println!("no control plane: {edge} answers an unknown key with 503 from {} on", seconds(gone.elapsed()));
            assert_503(&mesh.ask(edge, unknown));
            assert_eq!(mesh.ask(edge, &mesh.key).status, 200, "{edge}: {}", mesh.said(edge));
        }
    });
    println!("no control plane: {served} requests of known keys meanwhile, none failed");
    for node in 1..=3 {
        mesh.start(&format!("control-{node}"));
    }
    let (key, gap) = write_again(&mesh, "eu", &[1, 2, 3], "back");
    let known = caught_up(&mesh, &edges, 1);
    for edge in edges {
        assert_eq!(mesh.ask(edge, &key).status, 200, "the new key at {edge}");
    }
    println!("no control plane: all nodes back, writes after {}, known at the edges {} later", seconds(gap), seconds(known));
    assert_eq!(mesh.ask("edge-eu-1", unknown).status, 401, "decided again");
}

/// What `tidegate health` says about `near` in a region, asked at a node.
fn health_row(mesh: &Mesh, node: usize, region: &str) -> Option<serde_json::Value> {
    let asked = mesh.run("eu", &mesh.admin(node), &["health", "--provider", "near", "--json"]);
    let table: serde_json::Value = serde_json::from_slice(&asked.stdout).ok()?;
    let rows = table["rows"].as_array()?;
    rows.iter().find(|row| row["provider"] == "near" && row["region"] == region).cloned()
}

/// A provider fails hard in one region, where edges open their breakers after five failures each: how long until every edge of the region has
/// the region's word, and until an edge of the other region, which does not use it, chooses it less. And back.
fn known_everywhere(near: &[&str], far: &[&str], verdict: &str, rule: &str) {
    let Some(mesh) = mesh(&[near, far].concat()) else { return };
    let up = |edge: &str| mesh.metric(edge, "tidegate_provider_up", "near");
    let expected = if verdict == "ejected" { 0.0 } else { 0.5 };
    let sim = mesh.sim("eu", "near");
    let ((), served) = Steady::during(&mesh, near, PAUSE, || {
        until("the region to know its edges and a working provider", || {
            health_row(&mesh, 1, "eu").is_some_and(|row| {
                row["verdict"] == "healthy" && row["samples"].as_u64() >= Some(50) && row["reporters"].as_u64() == Some(near.len() as u64)
            })
        });
        // An edge goes by what its own region has seen lately, if it has.
        until("the other region to have forgotten its first requests", || {
            health_row(&mesh, 2, "us").is_none_or(|row| row["samples"].as_u64() == Some(0))
        });
        let success = |edge: &str| mesh.considered(edge, &mesh.key, "near", "spare").and_then(|seen| seen["success"].as_f64());
        assert!(success(far[0]).is_some_and(|success| success > 0.9));
        sim.set_fault(Some(Fault::Status { status: 500, retry_after: None }));
        let began = Instant::now();
        for edge in near {
            until(format_args!("the region's word at {edge}"), || up(edge) == Some(expected));
            println!("provider down: {verdict} at {edge} after {}", seconds(began.elapsed()));
        }
        for edge in far {
            until(format_args!("less of it at {edge}"), || success(edge).is_some_and(|success| success < 0.85));
            println!("provider down: chosen less at {edge} after {}", seconds(began.elapsed()));
        }
        for (node, rule) in [(1, rule), (2, "agreed"), (3, rule)] {
            let is_it = |row: &serde_json::Value| row["verdict"] == verdict && (row["rule"] == rule || verdict == "ejected");
            until(format_args!("`{verdict}` by `{rule}` at control-{node}"), || {
                health_row(&mesh, node, "eu").is_some_and(|row| is_it(&row))
            });
        }
        println!("{}", mesh.command("us", &mesh.admin(2), &["health"]));
        assert_eq!(
            far.iter().map(|edge| up(edge)).collect::<Vec<_>>(),
            vec![Some(1.0); far.len()],
            "one region's word is no verdict elsewhere"
        );

        sim.set_fault(None);
        let (mended, before) = (Instant::now(), sim.stats().requests);
        for edge in near {
            until(format_args!("{edge} to hear that it is back"), || up(edge) == Some(1.0));
        }
        let probes = sim.stats().requests - before;
        println!("provider down: back after {} and {probes} requests to it", seconds(mended.elapsed()));
        until("it to be used again", || sim.stats().requests > before + probes + 20);
    });
    println!("provider down: {served} requests meanwhile, none failed");
}

#[test]
fn a_provider_that_fails_in_one_region_is_degraded_by_two_edges_and_known_in_the_other() {
    known_everywhere(&["edge-eu-1", "edge-eu-2"], &["edge-us-1", "edge-us-2"], "degraded", "few edges");
}

#[test]
fn a_provider_that_fails_in_one_region_is_ejected_by_four_edges_and_known_in_the_other() {
    known_everywhere(&["edge-eu-1", "edge-eu-2", "edge-eu-3", "edge-eu-4"], &["edge-us-1"], "ejected", "quorum");
}

#[test]
fn a_rolling_restart_of_the_control_nodes_breaks_no_stream() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let text = (0..4_000).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ");
    let script = Script { text: Some(text), tokens_per_second: Some(40.0), ..Script::default() };
    mesh.sim("eu", "near").push_script(script);
    let done = AtomicBool::new(false);
    let (words, longest, served) = std::thread::scope(|scope| {
        let stream = scope.spawn(|| mesh.wan().inside("eu", || read_words(&mesh.key, &done)).unwrap());
        let stop = StopOnDrop(&done);
        until("the stream", || mesh.sim("eu", "near").stats().requests > 1);
        let (longest, served) = Steady::during(&mesh, &edges[1..], PAUSE, || restart_each(&mesh));
        drop(stop);
        (stream.join().unwrap(), longest, served)
    });
    println!("rolling restart: writes paused {} at most; {served} requests and {words} words meanwhile, none lost", seconds(longest));
    assert!(longest < WRITE_GAP, "{longest:?}");
}

/// Stops and starts each node once its predecessor is back; the longest time between two writes.
fn restart_each(mesh: &Mesh) -> Duration {
    let (done, longest) = (AtomicBool::new(false), Mutex::new(Duration::ZERO));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut last, mut node) = (Instant::now(), 1);
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                match create_key(mesh, "eu", node, &format!("rolling-{number}")) {
                    Ok(_) => {
                        let mut longest = longest.lock();
                        *longest = last.elapsed().max(*longest);
                        last = Instant::now();
                    }
                    Err(_) => node = node % 3 + 1,
                }
            }
        });
        let stop = StopOnDrop(&done);
        for node in 1..=3 {
            let name = format!("control-{node}");
            let before = mesh.status(node).unwrap_or_default();
            let (code, took) = mesh.stop(&name);
            assert_eq!(code, Some(0), "{name} stops in order");
            mesh.start(&name);
            let back = until(format_args!("{name} back"), || {
                mesh.status(node).is_some_and(|now| now["node"]["applied"].as_u64() >= before["node"]["applied"].as_u64())
            });
            let role = before["node"]["role"].as_str().unwrap_or("-");
            println!("rolling restart: {name} ({role}) stopped in {}, back after {}", seconds(took), seconds(back));
        }
        drop(stop);
    });
    longest.into_inner()
}

/// Reads a stream of numbered words through `edge-eu-1` until told that it is enough, and some more: how many there were.
fn read_words(key: &str, done: &AtomicBool) -> usize {
    let mut stream = TcpStream::connect(listener("edge-eu-1")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(post(key, true).as_bytes()).unwrap();
    let (mut next, mut enough) = (0, usize::MAX);
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        let words = line.split("\"content\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        for word in words.split_whitespace() {
            assert_eq!(word, format!("w{next}"), "no word is missing: {line}");
            next += 1;
        }
        if enough == usize::MAX && done.load(Ordering::Relaxed) {
            enough = next + 40;
        }
        if next >= enough {
            return next;
        }
    }
    panic!("the stream ended after {next} words");
}
