//! Restarts on purpose and disks that fail, over processes: three control nodes and edges in two regions, 80 ms of round trip between them.
//!
//! Needs the rights to make network namespaces and to mount; without them every test says so and passes. The measured times are printed:
//!
//! ```sh
//! cargo test -p tidegate --test restarts -- --nocapture --test-threads 1
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the measured times are what it is for; a skipped proof says so")]

mod mesh;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mesh::{Mesh, PAUSE, Steady, StopOnDrop, create_key, leader, mesh, mesh_on, seconds, voters, write_again};
use parking_lot::Mutex;
use tidegate_provider_sim::{Answering, FixedAnswer};
use tidegate_testkit::processes::{REGIONS, completion, listener, post, until};

const EDGES: [&str; 4] = ["edge-eu-1", "edge-eu-2", "edge-us-1", "edge-us-2"];
/// A planned change of the leader is to take less than a second; the rest is for a busy machine, on which a command takes as long.
const PLANNED: Duration = Duration::from_secs(4);
/// Words of a streamed answer, and the time between two: three seconds.
const WORDS: usize = 60;
const PACE: Duration = Duration::from_millis(50);

/// What a load balancer does: an edge that is about to stop gets nothing new.
#[derive(Default)]
struct Balancer {
    away: Mutex<Option<String>>,
    stop: AtomicBool,
    served: AtomicUsize,
    streams: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Balancer {
    /// Two callers and two readers of streams in each region while `work` runs; none of them may have met a failure.
    #[track_caller]
    fn during<T>(mesh: &Mesh, work: impl FnOnce(&Balancer) -> T) -> (T, usize, usize) {
        let balancer = Balancer::default();
        let result = std::thread::scope(|scope| {
            for region in REGIONS {
                for turn in 0..2 {
                    let balancer = &balancer;
                    scope.spawn(move || mesh.wan().inside(region, || balancer.call(mesh, region, turn)).unwrap());
                    scope.spawn(move || mesh.wan().inside(region, || balancer.stream(mesh, region, turn)).unwrap());
                }
            }
            // A failing test must not leave the callers running.
            let stop = StopOnDrop(&balancer.stop);
            let result = work(&balancer);
            drop(stop);
            result
        });
        let (served, streams, failed) = (balancer.served.into_inner(), balancer.streams.into_inner(), balancer.failed.into_inner());
        assert!(failed.is_empty(), "{} failed of {}, such as {}", failed.len(), served + streams + failed.len(), failed[0]);
        (result, served, streams)
    }

    fn pick(&self, region: &str, turn: usize) -> String {
        let first = format!("edge-{region}-{}", turn % 2 + 1);
        if *self.away.lock() == Some(first.clone()) { format!("edge-{region}-{}", (turn + 1) % 2 + 1) } else { first }
    }

    fn call(&self, mesh: &Mesh, region: &str, mut turn: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let edge = self.pick(region, turn);
            let answer = completion(listener(&edge), &mesh.key);
            match answer.status {
                200 => drop(self.served.fetch_add(1, Ordering::Relaxed)),
                _ => self.failed.lock().push(format!("{edge}: {answer:?}")),
            }
            turn += 1;
            std::thread::sleep(PAUSE);
        }
    }

    fn stream(&self, mesh: &Mesh, region: &str, mut turn: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let edge = self.pick(region, turn);
            match read_words(&edge, &mesh.key) {
                Ok(()) => drop(self.streams.fetch_add(1, Ordering::Relaxed)),
                Err(why) => self.failed.lock().push(format!("a stream of {edge}: {why}")),
            }
            turn += 1;
        }
    }
}

/// Reads one stream to its end: every word in its place, and the mark that it is whole.
fn read_words(edge: &str, key: &str) -> Result<(), String> {
    let mut next = 0;
    let mut read = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(listener(edge))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(post(key, true).as_bytes())?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let word = line.split("\"content\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            if word == format!("w{next} ") {
                next += 1;
            }
            if line.contains("[DONE]") {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match read() {
        Ok(true) if next == WORDS => Ok(()),
        Ok(whole) => Err(format!("{next} of {WORDS} words, whole: {whole}")),
        Err(error) => Err(format!("{error} after {next} words")),
    }
}

/// An answer of numbered words, slow enough that many are under way at any time.
fn numbered_words() -> Answering {
    let chunk = |delta: &str, end: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"acme/one\",\"choices\":[{{\"index\":0,\
             \"delta\":{delta},\"finish_reason\":{end}}}]}}\n\n"
        )
    };
    let mut events: Vec<bytes::Bytes> = (0..WORDS).map(|word| chunk(&format!("{{\"content\":\"w{word} \"}}"), "null").into()).collect();
    events.push(chunk("{}", "\"stop\"").into());
    events.push("data: [DONE]\n\n".into());
    let json = r#"{"id":"c","object":"chat.completion","created":1,"model":"acme/one","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    Answering::Fixed(Arc::new(FixedAnswer { json: json.into(), events, pace: PACE }))
}

/// Restarts each control node and then each edge, in order, the next once its predecessor is back.
#[test]
fn a_rolling_restart_of_every_control_node_and_every_edge_fails_no_request_and_breaks_no_stream() {
    let unready = |processes: &tidegate_testkit::processes::Processes| {
        for edge in EDGES {
            let path = processes.file(&format!("{edge}.yaml"));
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("{text}limits: {{ unready_before_drain: 500ms }}\n")).unwrap();
        }
    };
    let Some(mesh) = mesh_on(&EDGES, unready) else { return };
    for region in REGIONS {
        for provider in ["near", "spare"] {
            mesh.sim(region, provider).set_answering(numbered_words());
        }
    }
    let ((longest, handed_over), served, streams) = Balancer::during(&mesh, |balancer| {
        let outcome = restart_control_nodes(&mesh);
        for edge in EDGES {
            *balancer.away.lock() = Some(edge.to_owned());
            let (code, took) = mesh.stop(edge);
            assert_eq!(code, Some(0), "{edge} stops in order");
            mesh.start(edge);
            let back = until(format_args!("{edge} back"), || mesh.operations(edge, "/readyz").status == 200);
            println!("rolling restart: {edge} stopped in {}, back after {}", seconds(took), seconds(back));
            *balancer.away.lock() = None;
        }
        outcome
    });
    println!(
        "rolling restart: writes paused {} at most, leaders stopped within {}; {served} requests and {streams} streams meanwhile, none \
         failed",
        seconds(longest),
        seconds(handed_over)
    );
    assert!(served > 0 && streams >= EDGES.len());
    assert!(handed_over < PLANNED, "a leader took {handed_over:?} to hand over and stop");
}

/// The longest time between two writes, and the longest that a leader took to stop.
fn restart_control_nodes(mesh: &Mesh) -> (Duration, Duration) {
    let (done, written) = (AtomicBool::new(false), Mutex::new((Instant::now(), Duration::ZERO)));
    let mut handed_over = Duration::ZERO;
    std::thread::scope(|scope| {
        // Through each node, from its region: a writer whose node is away waits for nobody else.
        for (node, region) in [(1, "eu"), (2, "us"), (3, "eu")] {
            let (done, written) = (&done, &written);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    if create_key(mesh, region, node, &format!("rolling-{node}-{number}")).is_ok() {
                        let mut written = written.lock();
                        *written = (Instant::now(), written.1.max(written.0.elapsed()));
                    } else {
                        std::thread::sleep(PAUSE);
                    }
                }
            });
        }
        let stop = StopOnDrop(&done);
        for node in 1..=3 {
            let name = format!("control-{node}");
            let before = mesh.status(node).unwrap_or_default();
            let led = leader(mesh) == node;
            let (code, took) = mesh.stop(&name);
            assert_eq!(code, Some(0), "{name} stops in order");
            mesh.start(&name);
            let back = until(format_args!("{name} back"), || {
                mesh.status(node).is_some_and(|now| now["node"]["applied"].as_u64() >= before["node"]["applied"].as_u64())
            });
            println!("rolling restart: {name} (leader: {led}) stopped in {}, back after {}", seconds(took), seconds(back));
            if led {
                handed_over = handed_over.max(took);
            }
        }
        drop(stop);
    });
    assert!(handed_over > Duration::ZERO, "no leader was restarted");
    (written.into_inner().1, handed_over)
}

/// A disk of its own that is easily filled. Unmounted with the end of the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it, or says why it cannot.
    fn mount(at: &str, megabytes: u32) -> Result<SmallDisk, String> {
        std::fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0700"), "tidegate-test", at]);
        match command.output() {
            Ok(output) if output.status.success() => Ok(SmallDisk(at.into())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Bytes that are left.
    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Writes a file until only so much is left.
    fn fill(&self, name: &str, leave: u64) {
        let mut file = std::fs::File::create(self.0.join(name)).unwrap();
        let piece = vec![7; 1 << 20];
        while self.free() > leave {
            let length = (self.free() - leave).min(piece.len() as u64) as usize;
            if file.write(&piece[..length]).is_err() {
                return;
            }
        }
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }

    fn has(&self, name: &str) -> bool {
        Path::new(&self.0).join(name).exists()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the process that uses it is ended later.
        let _ = Command::new("umount").args(["-l", &self.0.display().to_string()]).status();
    }
}

const MEGABYTE: u64 = 1 << 20;

/// Declares so much that a log has to grow for it.
fn declare_much(mesh: &Mesh, number: usize) {
    let mut text = String::from("models:\n");
    for model in 0..200 {
        let _ = writeln!(text, "  acme/much-{model}: {{ name: \"{number:04} {}\" }}", "x".repeat(150));
    }
    let path = mesh.file("much.yaml");
    std::fs::write(&path, text).unwrap();
    mesh.command("eu", &mesh.admin(1), &["apply", "-f", &path, "--yes", "--immediate", "--reason", "fill the log"]);
}

fn says(mesh: &Mesh, node: usize, what: &str) -> Option<serde_json::Value> {
    mesh.status(node).map(|status| status["node"][what].clone())
}

#[test]
fn a_full_disk_stops_one_node_only_and_space_brings_it_back() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let mut disk = Err(String::new());
    let Some(mesh) = mesh_on(&edges, |processes| disk = SmallDisk::mount(&processes.file("control-2"), 320)) else { return };
    let disk = match disk {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("skipped: a small disk cannot be mounted here ({why}); that needs root");
            return;
        }
    };
    until("the ballast", || disk.has("ballast"));
    let ((), served) = Steady::during(&mesh, &edges, PAUSE, || {
        // Nearly full: the ballast is given back, nothing is proposed there, and all else goes on.
        disk.fill("filler", 40 * MEGABYTE);
        let noticed = until("the node says that it refuses", || says(&mesh, 2, "refusing").is_some_and(|why| why.is_string()));
        until("the ballast given back", || !disk.has("ballast"));
        println!("full disk: noticed after {}, {} MB are free again", seconds(noticed), disk.free() / MEGABYTE);
        let (_, gap) = write_again(&mesh, "eu", &[1, 3], "while-nearly-full");
        println!("full disk: a write through others took {}", seconds(gap));
        let written = says(&mesh, 1, "applied").unwrap().as_u64();
        until("the node follows", || says(&mesh, 2, "applied").is_some_and(|applied| applied.as_u64() >= written));
        // As the leader it would refuse what the others have room for.
        let id = says(&mesh, 2, "node_id").unwrap();
        let _ = mesh.run("eu", &mesh.admin(1), &["control", "transfer-leader", "--to", &id.to_string(), "--reason", "test"]);
        let moved = until("somebody else leads", || says(&mesh, 1, "leader").is_some_and(|leader| leader.is_u64() && leader != id));
        let (_, gap) = write_again(&mesh, "eu", &[1, 3], "after-it-led");
        println!("full disk: it gave leadership back within {}, a write took {} then", seconds(moved), seconds(gap));
        // Full to the last byte: the log cannot grow, and the process ends rather than go on from something that may not be there.
        disk.fill("filler-too", 0);
        let mut end = None;
        for number in 0.. {
            declare_much(&mesh, number);
            end = mesh.ended("control-2");
            if end.is_some() {
                break;
            }
            assert!(number < 200, "the node has found room for {number} changes");
        }
        let (code, said) = end.unwrap();
        assert_ne!(code, Some(0), "{said}");
        assert!(said.contains("can no longer be trusted"), "{said}");
        // There is no room to start either: it says so, and changes nothing.
        mesh.start("control-2");
        let mut end = None;
        until("it does not start", || {
            end = mesh.ended("control-2");
            end.is_some()
        });
        let (code, said) = end.unwrap();
        assert!(code != Some(0), "{said}");
        println!("full disk: ended, and does not start: {}", said.lines().last().unwrap_or_default());
        // Room again.
        disk.remove("filler");
        disk.remove("filler-too");
        let written = says(&mesh, 1, "applied").unwrap().as_u64();
        mesh.start("control-2");
        let back = until("the node back", || says(&mesh, 2, "applied").is_some_and(|applied| applied.as_u64() >= written));
        until("it refuses nothing", || says(&mesh, 2, "refusing").is_some_and(|why| why.is_null()));
        until("the ballast is set aside again", || disk.has("ballast"));
        assert_eq!(voters(&mesh), 3);
        println!("full disk: with room again it has caught up {} after its start", seconds(back));
    });
    println!("full disk: {served} requests on both sides meanwhile, none failed");
}

/// The kernel refuses every write beyond the first pages of a file from some moment on. The process is told so instead of being killed.
#[test]
fn a_leader_whose_disk_fails_ends_and_loses_nothing_that_it_has_confirmed() {
    let edges = ["edge-eu-1", "edge-us-1"];
    let Some(mesh) = mesh(&edges) else { return };
    let broken = leader(&mesh);
    let name = format!("control-{broken}");
    let region = if broken == 2 { "us" } else { "eu" };
    // Under a shell that has asked for the error; meanwhile another leads, so it is made the leader again.
    mesh.stop(&name);
    mesh.start_under(&name, &["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
    until("the node back", || says(&mesh, broken, "applied").is_some_and(|applied| applied.as_u64() > Some(0)));
    let id = says(&mesh, broken, "node_id").unwrap();
    until("it leads again", || {
        let _ = mesh.run(region, &mesh.admin(broken), &["control", "transfer-leader", "--to", &id.to_string(), "--reason", "test"]);
        says(&mesh, broken, "role").is_some_and(|role| role == "leader")
    });
    let others: Vec<usize> = (1..=3).filter(|node| *node != broken).collect();
    let (confirmed, served) = Steady::during(&mesh, &edges, PAUSE, || {
        let mut confirmed: Vec<String> =
            (0..5).filter_map(|number| create_key(&mesh, region, broken, &format!("before-{number}")).ok()).collect();
        assert_eq!(confirmed.len(), 5);
        let limited = Command::new("prlimit").args(["--pid", &mesh.id(&name).to_string(), "--fsize=4096:4096"]).status();
        assert!(limited.is_ok_and(|status| status.success()), "the limit of the process cannot be set");
        let mut end = None;
        until("the node ends", || {
            // What it still confirms has to be there afterwards, too.
            confirmed.extend(create_key(&mesh, region, broken, &format!("at-the-end-{}", confirmed.len())));
            end = mesh.ended(&name);
            end.is_some()
        });
        let (code, said) = end.unwrap();
        assert!(code.is_some_and(|code| code != 0), "{code:?}: {said}");
        assert!(said.contains("can no longer be trusted"), "{said}");
        let (_, gap) = write_again(&mesh, "eu", &others, "after");
        println!("failing disk: the leader ended with code {code:?}, writes again after {}", seconds(gap));
        confirmed
    });
    let other = others[0];
    let listed = mesh.command("eu", &mesh.admin(other), &["keys", "list", "--json"]);
    for key in &confirmed {
        let public: String = key.trim_start_matches("tg_live_").chars().take(10).collect();
        assert!(listed.contains(&public), "{public} was confirmed and is not in {listed}");
    }
    mesh.start(&name);
    let written = says(&mesh, other, "applied").unwrap().as_u64();
    let back = until("the node back on a good disk", || says(&mesh, broken, "applied").is_some_and(|applied| applied.as_u64() >= written));
    println!(
        "failing disk: {} keys confirmed, all there; back {} after its start; {served} requests meanwhile, none failed",
        confirmed.len(),
        seconds(back)
    );
}
