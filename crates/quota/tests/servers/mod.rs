//! Real Redis servers for tests: each on free ports, in a folder of its own, gone with the test.

#![expect(unreachable_pub, reason = "modules of a test binary")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// One process.
pub struct Server {
    child: Child,
    pub port: u16,
    folder: TempDir,
    arguments: Vec<String>,
    sentinel: bool,
}

impl Server {
    /// A server that keeps every write on disk before it answers, with more arguments of `redis-server`.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_on(free_port(), arguments)
    }

    pub fn start_on(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("FOLDER", folder.path().to_str().unwrap())).collect();
        let child = spawn(port, folder.path(), &arguments);
        let server = Self { child, port, folder, arguments, sentinel: false };
        server.wait_ready();
        server
    }

    /// A sentinel that watches the primary on `primary` as `mesh`.
    pub fn sentinel(primary: u16, quorum: u8) -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mesh 127.0.0.1 {primary} {quorum}\nsentinel down-after-milliseconds mesh 700\n\
             sentinel failover-timeout mesh 3000\nsentinel parallel-syncs mesh 1\n",
            folder.path().display()
        );
        let path = folder.path().join("sentinel.conf");
        std::fs::write(&path, config).unwrap();
        let child = Command::new(program()).arg(&path).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child, port, folder, arguments: Vec::new(), sentinel: true };
        server.wait_ready();
        server
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port, with the data it had.
    pub fn restart(&mut self) {
        self.child = spawn(self.port, self.folder.path(), &self.arguments);
        self.wait_ready();
    }

    /// kill -9, no data, started again.
    pub fn wipe(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(self.folder.path().join("appendonlydir"));
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        self.restart();
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// One command, on a connection of its own.
    pub fn ask(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection)
    }

    pub fn text(&self, words: &[&str]) -> String {
        self.ask(words).ok().and_then(|value| redis::from_redis_value(value).ok()).unwrap_or_default()
    }

    fn wait_ready(&self) {
        wait("redis-server to listen", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        if !self.sentinel
            && !self.arguments.iter().any(|argument| argument.contains("requirepass") || argument.contains("tls") || argument == "--user")
        {
            wait("redis-server to answer", || self.text(&["PING"]) == "PONG");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition, with a reason.
pub fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 30 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same without holding the runtime up.
pub async fn wait_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited 30 s for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that is free, also with 10,000 added (a cluster's bus).
pub fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn spawn(port: u16, folder: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new(program());
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", folder.to_str().unwrap(), "--save", ""]);
    if !arguments.iter().any(|argument| argument == "--appendonly") {
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    }
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The server's program, or a sentence about what is missing. `TIDEGATE_REDIS_SERVER=/path/to/valkey-server` runs the tests against another.
fn program() -> String {
    let program = std::env::var("TIDEGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let found = Command::new(&program).arg("--version").output().is_ok();
    assert!(found, "these tests need {program}, 7 or newer: `apt-get install redis-server`, or run `bash .ci/test`, which installs it");
    program
}
