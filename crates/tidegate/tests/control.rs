//! A cluster as processes, told what to do by the command line alone: three nodes, declarations, keys, drains, a backup.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far above what any step takes, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running control node, killed when the test ends early.
struct Node {
    process: Child,
    raft: SocketAddr,
    admin: SocketAddr,
}

impl Node {
    fn start(directory: &Path, name: &str, more: &str) -> Node {
        let path = directory.join(format!("{name}.yaml"));
        let text = format!(
            "name: {name}\nregion: eu\ndata_dir: {}\nraft:\n  listen: 127.0.0.1:0\nsync: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: \
             127.0.0.1:0 }}\noperations: {{ enabled: false }}\n{more}",
            directory.join(name).display()
        );
        std::fs::write(&path, text).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["control", "--log-format", "json", "--config"])
            .arg(&path)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (mut raft, mut admin) = (None, None);
        while raft.is_none() || admin.is_none() {
            let line = lines.next().expect("the node ended before it said where it listens").unwrap();
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            let text = line.to_string();
            if text.contains("\"listening\"") {
                let address = text.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().parse().unwrap();
                match () {
                    () if text.contains("\"raft\"") => raft = Some(address),
                    () if text.contains("\"admin\"") => admin = Some(address),
                    () => {}
                }
            }
        }
        // Somebody has to read on, or the node would wait for space in the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Node { process, raft: raft.unwrap(), admin: admin.unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .env("TIDEGATE_CONTROL", format!("http://{}", self.admin))
            .env("TEST_PROVIDER_KEY", "sk-of-the-test")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.good(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn stop(mut self) -> i32 {
        let kill = Command::new("kill").args(["-s", "TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.process.wait().unwrap().code().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const MESH: &str = "
providers:
  openai: { credentials: [env:TEST_PROVIDER_KEY] }
models: { acme/one: {}, acme/two: {} }
endpoints:
  - { provider: openai, model: acme/one, prices: { prompt: 0.10, completion: 0.20 }, context_length: 1000 }
organisations: { acme: {} }
workspaces: { dev: { organisation: acme } }
";

fn sealing(directory: &Path) -> String {
    let kek = directory.join("kek");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["kek", "new", "--out", kek.to_str().unwrap()]);
    let public = directory.join("kek.pub");
    std::fs::write(&public, run(&["kek", "public", kek.to_str().unwrap()])).unwrap();
    format!("sealing: {{ key_file: {} }}\n", public.display())
}

#[test]
fn three_nodes_become_a_cluster_and_stop_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let first = Node::start(directory.path(), "c1", "");
    assert!(first.good(&["control", "status"]).contains("belongs to no cluster"));
    for _ in 0..2 {
        first.good(&["control", "init", "--cluster-id", "test"]);
    }
    let second = Node::start(directory.path(), "c2", "");
    let third = Node::start(directory.path(), "c3", "");
    for node in [&second, &third] {
        for _ in 0..2 {
            node.good(&["control", "join", "--peer", &first.raft.to_string()]);
        }
    }
    let voters = |node: &Node| {
        let status = node.json(&["control", "status"]);
        status["cluster"]["members"].as_array().unwrap().iter().filter(|member| member["voter"] == true).count()
    };
    wait_until("three voters", || voters(&first) == 3);
    let shown = third.good(&["control", "status"]);
    assert!(shown.contains("cluster test") && shown.contains("leader") && shown.contains("c2"), "{shown}");

    let moved = third.json(&["control", "transfer-leader"])["node_id"].as_u64().unwrap();
    wait_until("the new leader is known", || second.json(&["control", "status"])["cluster"]["leader"] == moved);
    let members = second.json(&["control", "status"])["cluster"]["members"].clone();
    let id = members.as_array().unwrap().iter().find(|member| member["name"] == "c3").unwrap()["id"].to_string();
    first.good(&["control", "remove", &id, "--reason", "one is too many"]);
    wait_until("two voters", || voters(&first) == 2);
    for node in [third, second, first] {
        assert_eq!(node.stop(), 0);
    }
}

#[test]
fn what_a_file_declares_becomes_so_and_can_be_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), "c1", &sealing(directory.path()));
    node.good(&["control", "init", "--cluster-id", "test"]);
    let mesh = write(directory.path(), "mesh.yaml", MESH);
    let mesh = mesh.to_str().unwrap();

    let plan = node.good(&["apply", "-f", mesh, "--dry-run"]);
    assert!(plan.contains("+ endpoint acme/one@openai") && plan.contains("6 to create") && plan.contains("1 secrets to seal"), "{plan}");
    let asked = node.run(&["apply", "-f", mesh]);
    assert!(!asked.status.success() && String::from_utf8_lossy(&asked.stderr).contains("--yes"), "nobody is there to be asked");
    let first = node.json(&["apply", "-f", mesh, "--yes", "--immediate"])["revision"].as_u64().unwrap();
    assert!(node.good(&["apply", "-f", mesh, "--yes"]).contains("nothing to change"));
    assert_eq!(node.run(&["diff", "-f", mesh]).status.code(), Some(0));

    // One price and one model less.
    let changed = MESH.replace("0.10", "0.15").replace(", acme/two: {}", "");
    let other = write(directory.path(), "other.yaml", &changed);
    let other = other.to_str().unwrap();
    let differs = node.run(&["diff", "-f", other]);
    let shown = String::from_utf8_lossy(&differs.stdout);
    assert_eq!(differs.status.code(), Some(1));
    assert!(shown.contains("0.10") && shown.contains("0.15") && !shown.contains("acme/two"), "{shown}");
    let pruned = node.json(&["apply", "-f", other, "--yes", "--prune", "--immediate", "--reason", "dearer"]);
    assert_eq!(pruned["changed"], 2, "{pruned}");
    let history = node.good(&["history"]);
    assert!(history.lines().next().unwrap().contains("dearer"), "{history}");
    assert!(node.good(&["history", "endpoint", "acme/one@openai"]).contains("0.10"));

    node.good(&["rollback", "--to", &first.to_string(), "--yes"]);
    assert_eq!(node.run(&["diff", "-f", mesh]).status.code(), Some(0), "as it was");

    let bad = write(directory.path(), "bad.yaml", "models: { acme: {} }\n");
    assert_eq!(node.run(&["apply", "-f", bad.to_str().unwrap(), "--yes"]).status.code(), Some(2));
    // Removing what others refer to is refused by the rules, not by the edges.
    let dangling = write(directory.path(), "dangling.yaml", "models: { acme/one: {}, acme/two: {} }\n");
    let refused = node.run(&["apply", "-f", dangling.to_str().unwrap(), "--prune", "--yes", "--immediate"]);
    assert!(refused.status.success(), "a mesh without endpoints is a mesh: {}", String::from_utf8_lossy(&refused.stderr));

    assert!(node.good(&["apply", "-f", mesh, "--yes", "--immediate"]).contains("revision"));
    node.good(&["drain", "provider", "openai", "--region", "eu", "--minutes", "5"]);
    assert!(!node.run(&["drain", "provider", "opnai"]).status.success());
    node.good(&["drain", "provider", "openai", "--region", "eu", "--lift"]);
    assert!(node.good(&["edges"]).starts_with("EDGE"));

    let backup = directory.path().join("backup");
    node.good(&["control", "backup", "--output", backup.to_str().unwrap()]);
    let copy = Node::start(directory.path(), "copy", "");
    copy.good(&["control", "restore", backup.to_str().unwrap(), "--cluster-id", "copy"]);
    wait_until("the copy answers", || copy.run(&["diff", "-f", mesh]).status.code() == Some(0));
    let text = String::from_utf8_lossy(&std::fs::read(&backup).unwrap()).into_owned();
    assert!(!text.contains("sk-of-the-test"));
}

#[test]
fn data_keys_move_to_a_new_key_of_the_edges() {
    let directory = tempfile::tempdir().unwrap();
    let sealing = sealing(directory.path());
    let kek = directory.path().join("kek");
    let kek = kek.to_str().unwrap();
    let node = Node::start(directory.path(), "c1", &sealing);
    node.good(&["control", "init", "--cluster-id", "test"]);
    let mesh = write(directory.path(), "mesh.yaml", MESH);
    node.good(&["apply", "-f", mesh.to_str().unwrap(), "--yes", "--immediate"]);
    assert!(node.good(&["kek", "rewrap", "--kek", kek]).starts_with("0 data keys are wrapped with `kek-1`"));

    node.good(&["kek", "new", "--out", kek, "--id", "kek-2", "--rotate"]);
    let early = node.run(&["kek", "rewrap", "--kek", kek]);
    assert!(String::from_utf8_lossy(&early.stderr).contains("does not know the key `kek-2`"), "{early:?}");
    let public = node.good(&["kek", "public", kek]);
    write(directory.path(), "kek.pub", &public);
    assert_eq!(node.stop(), 0);
    let node = Node::start(directory.path(), "c1", &sealing);
    wait_until("it leads again", || node.run(&["kek", "rewrap", "--kek", kek, "--dry-run"]).status.success());
    assert!(node.good(&["kek", "rewrap", "--kek", kek, "--dry-run"]).starts_with("1 data keys would be wrapped with `kek-2`"));
    let done = node.json(&["kek", "rewrap", "--kek", kek, "--reason", "yearly"]);
    assert_eq!((&done["rewrapped"], &done["already"]), (&Value::from(1), &Value::from(0)), "{done}");
    assert!(node.good(&["kek", "rewrap", "--kek", kek]).contains("1 were already"));
    assert!(node.good(&["control", "audit"]).contains("rewrap_credentials"));
    assert!(node.good(&["apply", "-f", mesh.to_str().unwrap(), "--yes"]).contains("nothing to change"), "the secret is the same");
}

#[test]
fn the_audit_log_is_shown_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), "c1", "");
    node.good(&["control", "init", "--cluster-id", "test"]);
    for name in ["first", "second"] {
        node.good(&["keys", "create", "--name", name, "--reason", &format!("the {name} reason")]);
    }
    let shown = node.good(&["control", "audit"]);
    assert!(shown.find("the second reason") < shown.find("the first reason") && shown.contains("create_key"), "{shown}");
    let log = node.json(&["control", "audit"]);
    assert_eq!((&log["verified"], &log["archived"]), (&Value::Bool(true), &Value::from(0)));
    let newest = log["newest"].as_str().unwrap();
    node.good(&["keys", "create", "--name", "third"]);
    node.good(&["control", "audit", "--limit", "0", "--since", newest]);
    let cut = node.run(&["control", "audit", "--since", &"0".repeat(64)]);
    assert_eq!(cut.status.code(), Some(1), "{}", String::from_utf8_lossy(&cut.stderr));

    // A node that lies about who it was.
    for (field, lie) in [("reason", Value::from("another reason")), ("hash", Value::from("00")), ("index", Value::Null)] {
        let mut entries = log["entries"].clone();
        entries[1][field] = lie;
        let answer = serde_json::json!({ "archived": 0, "entries": entries }).to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).unwrap();
        });
        let refused = node.run(&["control", "audit", "--control", &format!("http://{address}")]);
        server.join().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{field}: {}", String::from_utf8_lossy(&refused.stderr));
    }
}

#[test]
fn keys_are_made_listed_rotated_and_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path(), "c1", "");
    node.good(&["control", "init", "--cluster-id", "test"]);
    let text = node.good(&["keys", "create", "--name", "search", "--expires-in-days", "30"]);
    let text = text.trim();
    assert!(text.starts_with("tg_live_"), "only the key is on standard output: {text}");
    let id = text.split('_').nth(2).unwrap();
    let listed = node.good(&["keys", "list"]);
    assert!(listed.contains(id) && listed.contains("search") && !listed.contains(text), "{listed}");
    let second = node.good(&["keys", "rotate", id, "--overlap-hours", "1"]);
    assert!(second.trim() != text && second.contains(id));
    assert_eq!(node.json(&["keys", "show", id])["secrets"].as_array().unwrap().len(), 2);
    node.good(&["keys", "disable", id]);
    assert_eq!(node.json(&["keys", "show", id])["disabled"], true);
    node.good(&["keys", "enable", id]);
    assert!(node.good(&["keys", "revoke", id, "--wait"]).contains("0 edges have confirmed"));
    let gone = node.run(&["keys", "show", id]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no key"));
    let stray = node.run(&["keys", "create", "--name", "x", "--organisation", "nobody"]);
    assert!(String::from_utf8_lossy(&stray.stderr).contains("not declared"));
}
