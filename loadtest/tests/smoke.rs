//! The binary against itself: mock, both floors and the raw relay, loaded for a moment over real sockets.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_tidegate-loadtest");

/// A server of this binary on a free port; ended when it goes.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(arguments).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("standard output is piped");
        BufReader::new(output).read_line(&mut line).expect("the server announces itself");
        let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load(address: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(BINARY);
    command.args(["run", &format!("http://{address}/v1"), "--json", "--warm-up", "0.1"]).args(arguments);
    let output = command.output().expect("the generator starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the result is JSON")
}

fn assert_no_failures(measured: &Value, what: &str) {
    let failures = measured["failures"].as_object().expect("failures by kind");
    assert!(failures.values().all(|count| count == 0), "{what}: {measured:#}");
}

#[test]
fn relays_pass_json_streams_and_large_bodies() {
    let mock = Server::start(&["mock"]);
    let upstream = ["--upstream", &mock.address];
    let floor = Server::start(&[&["floor"], &upstream[..]].concat());
    let per_core = Server::start(&[&["floor", "--model", "per-core"], &upstream[..]].concat());
    let raw = Server::start(&[&["raw"], &upstream[..]].concat());
    for (name, server) in [("mock", &mock), ("floor", &floor), ("per core", &per_core), ("raw", &raw)] {
        let pid = server.child.id().to_string();
        let json = load(&server.address, &["--connections", "4", "--seconds", "0.3", "--pid", &pid]);
        assert_no_failures(&json, name);
        assert!(json["completed"].as_u64() > Some(10), "{name}: {json:#}");
        assert!(json["rss_bytes"].as_u64() > Some(0), "{name}");

        let large = load(&server.address, &["--connections", "2", "--requests", "5", "--body-bytes", "1000000", "--seconds", "20"]);
        assert_no_failures(&large, name);
        assert!(large["completed"].as_u64() >= Some(5), "{name}: {large:#}");

        for model in ["bench/sse-10-0", "bench/sse-5-5"] {
            let arguments = ["--connections", "2", "--seconds", "20", "--requests", "4", "--model", model];
            let streams = load(&server.address, &arguments);
            assert_no_failures(&streams, name);
            // A stream of each connection may have begun before the window did.
            assert!(streams["first_chunk"]["count"].as_u64() >= Some(2), "{name}: {streams:#}");
            assert_eq!(streams["chunk_delay"].is_null(), model.ends_with("-0"), "{name}: only paced chunks are timed");
        }
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let mock = Server::start(&["mock"]);
    let measured = load(&mock.address, &["--rate", "200", "--connections", "4", "--seconds", "0.5"]);
    assert_no_failures(&measured, "mock");
    // 200 per second for half a second; all are answered, the ones at the window's edges may fall outside.
    let sent = measured["latency"]["count"].as_u64().expect("latencies");
    assert!((98..=101).contains(&sent), "{measured:#}");
}

#[test]
fn a_dead_target_is_reported_and_a_foreign_one_refused() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let measured = load(&free.to_string(), &["--connections", "1", "--seconds", "0.2"]);
    assert!(measured["failures"]["connect"].as_u64() > Some(0), "{measured:#}");
    assert_eq!(measured["completed"], 0);

    let output = Command::new(BINARY).args(["run", "http://192.0.2.1/v1"]).output().expect("the generator starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a loopback address"));
}
