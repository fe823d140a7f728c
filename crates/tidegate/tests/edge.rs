//! `tidegate edge` as a process: it serves, takes a good change over, refuses a bad one, and stops when asked.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far above what any step takes, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running edge, killed when the test ends early.
struct Edge {
    process: Child,
    operations: SocketAddr,
    listener: SocketAddr,
}

impl Edge {
    fn start(config: &Path) -> Edge {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["edge", "--log-format", "json", "--config"])
            .arg(config)
            .env("EDGE_TEST_KEY", "k")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (mut operations, mut listener) = (None, None);
        while operations.is_none() || listener.is_none() {
            let line = lines.next().expect("the edge ended before it said where it listens").unwrap();
            if line.contains("operations port") {
                operations = Some(address_in(&line));
            } else if line.contains("\"listening\"") {
                listener = Some(address_in(&line));
            }
        }
        // Somebody has to read on, or the edge would wait for space in the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Edge { process, operations: operations.unwrap(), listener: listener.unwrap() }
    }

    /// Waits until a reload with this result has been counted this often.
    fn wait_for_reloads(&self, result: &str, count: u64) {
        let wanted = format!("tidegate_config_reloads_total{{result=\"{result}\"}} {count}");
        wait_until(&wanted, || get(self.operations, "/metrics").contains(&wanted));
    }

    fn stop(mut self) -> i32 {
        let kill = Command::new("kill").args(["-s", "TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.process.wait().unwrap().code().unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first thing in a log line that is an address.
fn address_in(line: &str) -> SocketAddr {
    line.split('"').find_map(|part| part.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"))
}

fn wait_until(reason: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {reason}");
        std::thread::yield_now();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn config(models: &[&str]) -> String {
    let mut text = String::from(
        "listeners: [{address: \"127.0.0.1:0\"}]\noperations: {address: \"127.0.0.1:0\"}\nruntime: {workers: 1}\n\
         defaults: {anonymous: true}\nproviders: {openai: {credentials: [env:EDGE_TEST_KEY]}}\nmodels:\n",
    );
    for model in models {
        text.push_str(&format!("  openai/{model}: {{}}\n"));
    }
    text.push_str("endpoints:\n");
    for model in models {
        text.push_str(&format!(
            "  - {{provider: openai, model: openai/{model}, context_length: 1000, prices: {{prompt: 1, completion: 2}}}}\n"
        ));
    }
    text
}

#[test]
fn a_good_change_is_taken_over_and_a_bad_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tidegate.yaml");
    std::fs::write(&path, config(&["one"])).unwrap();
    let edge = Edge::start(&path);
    assert!(get(edge.listener, "/v1/models").contains("openai/one"));

    std::fs::write(&path, config(&["one", "two"])).unwrap();
    edge.wait_for_reloads("applied", 1);
    assert!(get(edge.listener, "/v1/models").contains("openai/two"));

    std::fs::write(&path, config(&["three"]).replace("context_length", "context")).unwrap();
    edge.wait_for_reloads("refused", 1);
    let models = get(edge.listener, "/v1/models");
    assert!(models.contains("openai/two") && !models.contains("openai/three"), "{models}");

    std::fs::write(&path, config(&["three"])).unwrap();
    edge.wait_for_reloads("applied", 2);
    assert!(!get(edge.listener, "/v1/models").contains("openai/two"));
    assert_eq!(edge.stop(), 0);
}

#[test]
fn a_bad_configuration_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tidegate.yaml");
    std::fs::write(&path, "regoin: eu\n").unwrap();
    for command in [vec!["edge", "--config"], vec!["check"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(command).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("did you mean `region`?"), "{errors}");
        assert!(!errors.contains('\u{1b}'), "colours into a pipe: {errors:?}");
    }
}

#[test]
fn results_go_to_standard_output_for_scripts() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/tidegate.yaml");
    assert!(run(&["check", "--json", example]).contains("\"good\": true"));
    assert!(run(&["schema"]).starts_with('{'));
    assert!(run(&["catalog", "show"]).contains("endpoints:"));
    assert!(run(&["completions", "bash"]).contains("tidegate"));
    assert!(run(&["version"]).starts_with("tidegate "));
    let key = run(&["key", "new", "--env", "test", "--name", "ci"]);
    assert!(key.starts_with("tg_test_") && key.lines().count() == 1, "only the key, so that it can be piped");
}
