//! How many reserve + settle pairs per second one Redis takes with six limits, and what a hot key's decision costs in this process.
//!
//!     cargo run --release -p tidegate-quota --example throughput [HOST:PORT]
//!
//! Processor time is given beside the clock's, because a busy machine changes only the latter. Without an address it starts a `redis-server` of its own (AOF every second) and ends it. A measurement, not a test: it asserts nothing
//! about speed.

use std::hint::black_box;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidegate_quota::{
    Clock, Decision, Dimension, Gate, GateOptions, Limit, LimitSet, MemoryStore, Mode, QuotaStore, RedisOptions, RedisStore, RedisTopology,
    ReserveRequest, Scope, Settlement, StoreDown, Subject, SystemClock, TokenKind, Usage, Window,
};
use ulid::Ulid;

const RUN: Duration = Duration::from_secs(8);
const CALLERS: usize = 128;
const ORGANISATIONS: usize = 100;

const USAGE: Usage = Usage { requests: 1, input_tokens: 1_000, output_tokens: 400, micro_dollars: 1_500, free: false };

fn main() {
    let (server, address) = match std::env::args().nth(1) {
        Some(address) => (None, address),
        None => start(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        pairs(&address).await;
        hot_key(&address).await;
    });
    drop(server);
    memory();
}

/// Six limits: every kind, two scopes. Large enough never to refuse.
fn limits(organisation: usize) -> Arc<LimitSet> {
    let declared = [
        Limit::new(Scope::Key, Dimension::RequestsPerMinute, 60_000_000),
        Limit::new(Scope::Key, Dimension::TokensPerMinute(TokenKind::Both), 60_000_000_000),
        Limit::new(Scope::Key, Dimension::Concurrent, 100_000),
        Limit::new(Scope::Key, Dimension::Spend(Window::Day), 1_000_000_000_000),
        Limit::new(Scope::Organisation, Dimension::RequestsPerMinute, 60_000_000),
        Limit::new(Scope::Organisation, Dimension::Spend(Window::Month), 1_000_000_000_000),
    ];
    let subject = Subject { organisation: format!("o{organisation}").into(), workspace: None, key: "k".into() };
    Arc::new(LimitSet::compile(subject, &declared, StoreDown::Closed).expect("valid limits"))
}

fn request(limits: &Arc<LimitSet>, now: u64) -> ReserveRequest<'_> {
    ReserveRequest {
        id: Ulid::from_parts(now / 1_000, fastrand::u128(..)),
        limits,
        selection: limits.select("author/model", None),
        estimate: USAGE,
        lifetime: Duration::from_secs(900),
    }
}

async fn pairs(address: &str) {
    let store = store(address);
    let organisations: Vec<_> = (0..ORGANISATIONS).map(limits).collect();
    let (done, nanos) = (AtomicU64::new(0), AtomicU64::new(0));
    let before = server_seconds(address);
    let began = Instant::now();
    join_all((0..CALLERS).map(|caller| {
        let (store, organisations, done, nanos) = (&store, &organisations, &done, &nanos);
        async move {
            let mut number = caller;
            while began.elapsed() < RUN {
                number = (number + 1) % ORGANISATIONS;
                let asked = Instant::now();
                let decision = store.reserve(&request(&organisations[number], SystemClock.now())).await.expect("an answer");
                nanos.fetch_add(asked.elapsed().as_nanos() as u64, Ordering::Relaxed);
                let Decision::Allowed(reservation) = decision else { panic!("refused") };
                store.settle(&Settlement::new(reservation, &USAGE)).await.expect("an answer");
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }))
    .await;
    let (done, seconds) = (done.into_inner(), began.elapsed().as_secs_f64());
    report(&format!(
        "one Redis, six limits, {CALLERS} callers: {:.0} reserve + settle pairs/s ({:.0} script calls/s), mean reserve {:.2} ms",
        done as f64 / seconds,
        2.0 * done as f64 / seconds,
        nanos.into_inner() as f64 / done as f64 / 1e6
    ));
    let busy = server_seconds(address) - before;
    report(&format!(
        "the server's main thread: {:.1} us per pair, so {:.0} pairs/s of one core, {:.0} script calls/s",
        busy / done as f64 * 1e6,
        done as f64 / busy,
        2.0 * done as f64 / busy
    ));
}

async fn hot_key(address: &str) {
    let options = GateOptions { slices: true };
    let (gate, worker) = Gate::new(Arc::new(store(address)), Arc::new(SystemClock), options, &prometheus::Registry::new()).expect("a gate");
    let stop = tokio::sync::Notify::new();
    let limits = limits(ORGANISATIONS + 1);
    let measure = async {
        let (mut sliced, mut asked, mut busy) = (0_u64, 0_u64, Duration::ZERO);
        let began = Instant::now();
        while began.elapsed() < RUN {
            // A thousand at once, then room for the worker: as an edge at 50,000 requests per second.
            for _ in 0..1_000 {
                let now = thread_time();
                let request = request(&limits, SystemClock.now());
                match gate.reserve_now(&request) {
                    Some(Decision::Allowed(reservation)) => {
                        assert_eq!(reservation.mode, Mode::Slice);
                        gate.settle(black_box(reservation), &USAGE);
                        busy += thread_time() - now;
                        sliced += 1;
                    }
                    Some(Decision::Refused(refusal)) => panic!("{refusal:?}"),
                    None => {
                        if let Decision::Allowed(reservation) = gate.reserve(&request).await {
                            gate.settle(reservation, &USAGE);
                        }
                        asked += 1;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.notify_one();
        report(&format!(
            "hot key, six limits: {} ns per reserve + settle from a slice, {:.3} % of {} requests waited for Redis",
            busy.as_nanos() / u128::from(sliced.max(1)),
            100.0 * asked as f64 / (asked + sliced) as f64,
            asked + sliced
        ));
    };
    tokio::join!(worker.run(stop.notified()), measure);
}

fn memory() {
    let store = MemoryStore::default();
    let limits = limits(0);
    let rounds: u32 = 500_000;
    let began = thread_time();
    for _ in 0..rounds {
        let Some(Decision::Allowed(reservation)) = store.reserve_now(&request(&limits, SystemClock.now())) else { panic!("refused") };
        let settlement = Settlement::new(reservation, &USAGE);
        let mut settled = store.settle(&settlement);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(settled.as_mut().poll(&mut context).is_ready());
    }
    report(&format!("memory store, six limits: {} ns per reserve + settle", ((thread_time() - began) / rounds).as_nanos()));
}

/// Processor time of the server's main thread.
fn server_seconds(address: &str) -> f64 {
    let client = redis::Client::open(format!("redis://{address}")).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let text: String = redis::cmd("INFO").arg("cpu").query(&mut connection).expect("INFO");
    let of = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    of("used_cpu_sys_main_thread:") + of("used_cpu_user_main_thread:")
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn store(address: &str) -> RedisStore {
    let mut options = RedisOptions::new(RedisTopology::Single(address.to_owned()));
    options.call_timeout = Duration::from_secs(5);
    RedisStore::new(options).expect("valid options")
}

struct Server(Child, #[expect(dead_code, reason = "removed with the server")] tempfile::TempDir);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (Option<Server>, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::env::var("TIDEGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let child = Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server (apt-get install redis-server)");
    let server = Server(child, folder);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    (Some(server), format!("127.0.0.1:{port}"))
}

#[expect(clippy::print_stdout, reason = "a measurement's result")]
fn report(line: &str) {
    println!("{line}");
}
