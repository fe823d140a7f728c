//! `tidegate edge` killed in the middle of streams: the next start settles what was left, exactly once, and the ledger agrees with what the
//! provider says it delivered.
//!
//! A few kills here; `TIDEGATE_KILLS=200 cargo test -p tidegate --test kill` does as many as are wanted.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_ledger::{Money, Rate};
use tidegate_provider_sim::{Fault, Script, Sim, SimHandle, SimSpec};

/// Far above what any step takes, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "tg_test_0123456789_key-of-the-kill-test";
/// US dollars.
const BUDGET: &str = "5";

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Edge {
    process: Process,
    operations: SocketAddr,
    listener: SocketAddr,
}

impl Edge {
    fn start(config: &Path) -> Edge {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["edge", "--log-format", "json", "--config"])
            .arg(config)
            .env("KILL_TEST_KEY", "k")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let process = Process(process);
        let (mut operations, mut listener) = (None, None);
        let mut said = String::new();
        while operations.is_none() || listener.is_none() {
            let line = lines.next().unwrap_or_else(|| panic!("the edge ended before it said where it listens:\n{said}")).unwrap();
            let address = || line.split('"').find_map(|part| part.parse().ok()).unwrap();
            if line.contains("operations port") {
                operations = Some(address());
            } else if line.contains("\"listening\"") {
                listener = Some(address());
            }
            said.push_str(&line);
            said.push('\n');
        }
        std::thread::spawn(move || lines.for_each(drop));
        Edge { process, operations: operations.unwrap(), listener: listener.unwrap() }
    }

    fn metric(&self, name: &str) -> f64 {
        let text = get(self.operations, "/metrics", "");
        let line =
            text.lines().find(|line| line.starts_with(name) && line.as_bytes().get(name.len()).is_some_and(|byte| b" {".contains(byte)));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    fn key(&self) -> Value {
        json(&get(self.listener, "/v1/key", KEY))["data"].clone()
    }

    /// Everything since the first start, once it has heard of so many requests: a region's Redis is told a moment later, and on a busy
    /// machine it may say that it cannot be asked.
    fn total(&self, requests: u64) -> Value {
        wait_for(|| {
            let total = json(&get(self.operations, "/usage?period=all", ""))["total"].clone();
            total["requests"].as_u64().filter(|known| *known >= requests).map(|_| total)
        })
    }

    /// Waits until nobody holds a slot: what went before is settled.
    fn until_free(&self) {
        wait_for(|| {
            let key = self.key();
            let limits = key["tidegate"]["limits"].as_array()?;
            let mut slots = limits.iter().filter(|limit| limit["dimension"] == "concurrent");
            slots.all(|limit| limit["used"] == 0).then_some(())
        });
    }
}

fn get(address: SocketAddr, path: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The JSON of an answer, whether it came in one piece or in chunks.
fn json(answer: &str) -> Value {
    let (from, until) = (answer.find("{").unwrap_or(0), answer.rfind('}').unwrap_or(0));
    serde_json::from_str(&answer[from..=until]).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn money(value: &Value) -> Money {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Money::parse_usd(&text).unwrap_or_else(|error| panic!("{value}: {error}"))
}

/// Sends a request; the answer is on the socket.
fn ask(edge: &Edge, streamed: bool) -> TcpStream {
    let body = format!(r#"{{"model":"sim/m","stream":{streamed},"max_tokens":3000,"messages":[{{"role":"user","content":"hello"}}]}}"#);
    let mut stream = TcpStream::connect(edge.listener).unwrap();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {KEY}\r\nconnection: close");
    write!(stream, "{head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

/// Reads until so many words of the answer have come.
fn read_words(stream: &mut TcpStream, words: u64) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while (text.matches("aaa").count() as u64) < words {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the stream ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

/// Words of four bytes with their blank: as many tokens as the provider counts, by bytes too.
fn script(fault: Option<Fault>) -> Script {
    Script { fault, text: Some("aaa ".repeat(400).trim_end().to_owned()), ..Script::default() }
}

fn config(directory: &Path, sim: &SimHandle, redis: Option<u16>) -> String {
    let digest = blake3::hash(KEY.as_bytes()).to_hex();
    let store = redis.map_or_else(String::new, |port| format!("quota: {{redis: {{address: \"127.0.0.1:{port}\", call_timeout: 5s}}}}\n"));
    format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\noperations: {{address: \"127.0.0.1:0\"}}\nruntime: {{workers: 1}}\n{store}\
         ledger: {{directory: {}, checkpoint: 10ms, export: {{directory: {}, rotate_bytes: 2KB}}}}\n\
         providers:\n  sim: {{base_url: \"http://{}/v1\", dialect: openai-chat, allow_plain_http: true, allow_private_addresses: true, \
         credentials: [env:KILL_TEST_KEY]}}\n\
         models: {{sim/m: {{}}}}\nendpoints:\n  - {{provider: sim, model: sim/m, context_length: 8000, prices: {{prompt: 1, completion: 1}}}}\n\
         keys:\n  k: {{digest: \"blake3:{digest}\", limits: [{{spend_total: {BUDGET}}}, {{concurrent_requests: 1}}, \
         {{spend_total: {BUDGET}, provider: sim}}, {{concurrent_requests: 1, provider: sim}}]}}\n",
        directory.join("ledger").display(),
        directory.join("export").display(),
        sim.addr(),
    )
}

fn kills() -> u64 {
    std::env::var("TIDEGATE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

fn killed_in_mid_stream(redis: Option<u16>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let sim = Sim::start(SimSpec::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tidegate.yaml");
    std::fs::write(&path, config(directory.path(), &sim, redis)).unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let rate = Rate::per_million_usd("1").unwrap();
    let (kills, mut requests) = (kills(), 0);
    for kill in 0..kills {
        let mut edge = Edge::start(&path);
        if kill > 0 {
            assert_eq!(edge.metric("tidegate_ledger_recovered_total"), 1.0, "kill {kill}");
            agrees(&edge, &sim, requests, rate);
        }
        // A whole answer, then one that the kill ends. There is one slot: what a kill leaves must not hold it.
        edge.until_free();
        sim.push_script(script(None));
        let mut answer = String::new();
        ask(&edge, false).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "kill {kill}: {answer}");
        edge.until_free();
        let events = random.u64(3..300);
        sim.push_script(script(Some(Fault::Stall { after: usize::try_from(events).unwrap() })));
        let before = sim.stats();
        let mut open = ask(&edge, true);
        // After so many events it sends no more.
        let stalled = wait_for(|| Some(sim.stats()).filter(|now| now.events_sent - before.events_sent == events));
        let words = stalled.tokens_delivered - before.tokens_delivered;
        read_words(&mut open, words);
        wait_for(|| (edge.metric("tidegate_ledger_noted_bytes") == (words * 4 - 1) as f64).then_some(()));
        edge.process.0.kill().unwrap();
        edge.process.0.wait().unwrap();
        requests += 2;
    }
    let edge = Edge::start(&path);
    agrees(&edge, &sim, requests, rate);
    drop(edge);
    let edge = Edge::start(&path);
    assert_eq!(edge.metric("tidegate_ledger_recovered_total"), 0.0, "what was settled is settled");
    agrees(&edge, &sim, requests, rate);
}

/// Records, sums, counters and the provider tell the same.
fn agrees(edge: &Edge, sim: &SimHandle, requests: u64, rate: Rate) {
    let total = edge.total(requests);
    assert_eq!(total["requests"], requests, "every request once");
    assert_eq!(total["completion_tokens"], sim.stats().tokens_delivered, "as many tokens as the provider delivered");
    let tokens = total["prompt_tokens"].as_u64().zip(total["completion_tokens"].as_u64()).map(|(a, b)| a + b).unwrap();
    let charged = money(&total["charged_usd"]);
    assert_eq!(charged, rate.times(tokens), "charged by the token");
    // The store of counters hears of what was left open in the background.
    let start = Instant::now();
    loop {
        let key = edge.key();
        let left = money(&key["limit_remaining"]);
        // That of the key, and that of the key at this provider.
        let limits = key["tidegate"]["limits"].as_array().unwrap();
        let budgets: Vec<Money> =
            limits.iter().filter(|limit| limit["dimension"] == "spend_total").map(|limit| money(&limit["used"])).collect();
        let counted = budgets.len() == 2 && budgets.iter().all(|used| *used == charged);
        if money(&key["usage"]) == charged && Money::parse_usd(BUDGET).unwrap() - left == charged && counted {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "charged {charged}, {left} left: {key}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn counted_in_memory() {
    killed_in_mid_stream(None);
}

#[test]
fn counted_in_redis() {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::var("TIDEGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let server = Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server 7 or newer: `apt-get install redis-server`");
    let _server = Process(server);
    wait_for(|| TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
    killed_in_mid_stream(Some(port));
}
