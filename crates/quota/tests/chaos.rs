//! A real Redis that is slow, gone or lying: what callers get, and what the counters say afterwards.
//!
//! `TIDEGATE_QUOTA_CHAOS=200 cargo test -p tidegate-quota --test chaos rounds` repeats the rounds of kills and pauses.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use servers::{Server, free_port, wait, wait_async};
use tidegate_quota::{
    Clock, Decision, Dimension, Funding, Gate, GateOptions, Limit, LimitSet, Mode, Period, QuotaStore, RedisAuth, RedisOptions, RedisStore,
    RedisTls, RedisTopology, RefusalKind, Reservation, ReserveRequest, Scope, Settled, Settlement, SpentEntry, StoreDown, StoreError,
    Subject, SystemClock, Usage, Window,
};
use ulid::Ulid;

const DOLLAR: u64 = 1_000_000;

fn options(address: String) -> RedisOptions {
    let mut options = RedisOptions::new(RedisTopology::Single(address));
    // The machine may be busy with other tests; what time-outs do is tested where they are meant.
    options.call_timeout = Duration::from_millis(400);
    options.connect_timeout = Duration::from_secs(2);
    options
}

fn set(organisation: &str, limits: &[Limit], policy: StoreDown) -> Arc<LimitSet> {
    let subject = Subject { organisation: organisation.into(), workspace: None, key: "k".into() };
    Arc::new(LimitSet::compile(subject, limits, policy).unwrap())
}

fn prepaid(amount: u64) -> Limit {
    Limit { funding: Funding::Prepaid, ..Limit::new(Scope::Organisation, Dimension::Spend(Window::Total), amount) }
}

fn cost(micro_dollars: u64) -> Usage {
    Usage { requests: 1, input_tokens: 10, output_tokens: 10, micro_dollars, free: false }
}

fn request(limits: &Arc<LimitSet>, micro_dollars: u64) -> ReserveRequest<'_> {
    ReserveRequest {
        id: Ulid::from_parts(SystemClock.now() / 1_000, fastrand::u128(..)),
        limits,
        selection: limits.select("a/b", None),
        estimate: cost(micro_dollars),
        lifetime: Duration::from_secs(900),
    }
}

fn allowed(decision: Decision) -> Reservation {
    match decision {
        Decision::Allowed(reservation) => reservation,
        Decision::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn refused(decision: Decision) -> tidegate_quota::Refusal {
    match decision {
        Decision::Allowed(reservation) => panic!("allowed: {reservation:?}"),
        Decision::Refused(refusal) => refusal,
    }
}

/// Runs `test` beside the gate's worker.
async fn with_gate<T>(store: Arc<RedisStore>, slices: bool, test: impl AsyncFnOnce(Arc<Gate>) -> T) -> T {
    let (gate, worker) = Gate::new(store, Arc::new(SystemClock), GateOptions { slices }, &prometheus::Registry::new()).unwrap();
    let stop = tokio::sync::Notify::new();
    let (_, result) = tokio::join!(worker.run(stop.notified()), async {
        let result = test(gate).await;
        stop.notify_one();
        result
    });
    result
}

/// What the store says is used of the first limit.
async fn used(store: &RedisStore, limits: &LimitSet) -> Option<u64> {
    store.snapshot(limits, limits.select_all()).await.ok().map(|snapshot| snapshot.limits[0].used)
}

async fn wait_used(store: &RedisStore, limits: &LimitSet, expected: u64) {
    let mut last = None;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while last != Some(expected) {
        assert!(std::time::Instant::now() < deadline, "waited 30 s for {expected} used; it is {last:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
        last = used(store, limits).await.or(last);
    }
}

#[tokio::test]
async fn a_thousand_parallel_requests_against_a_budget_for_ten() {
    let server = Server::start(&[]);
    let mut options = options(server.address());
    options.call_timeout = Duration::from_secs(20);
    let store = Arc::new(RedisStore::new(options).unwrap());
    for (name, slices) in [("exact", false), ("sliced", true)] {
        let limits = set(name, &[prepaid(10 * DOLLAR), Limit::new(Scope::Key, Dimension::Concurrent, 5_000)], StoreDown::Closed);
        store.restore(name, &[]).await.unwrap();
        let decisions = with_gate(store.clone(), slices, async |gate| {
            join_all((0..1_000).map(|_| async { gate.reserve(&request(&limits, DOLLAR)).await })).await
        })
        .await;
        let served = decisions.iter().filter(|decision| matches!(decision, Decision::Allowed(_))).count();
        assert_eq!(served, 10, "{name}");
        for decision in decisions {
            if let Decision::Refused(refusal) = decision {
                assert_eq!(refusal.kind, RefusalKind::Funds, "{name}");
            }
        }
        let left = store.snapshot(&limits, limits.select_all()).await.unwrap().limits[0].remaining;
        assert_eq!(left, 0, "{name}: no negative balance");
    }
}

#[tokio::test]
async fn thirty_settlements_of_one_request_count_once() {
    let server = Server::start(&[]);
    let store = RedisStore::new(options(server.address())).unwrap();
    let limits = set("acme", &[Limit::new(Scope::Key, Dimension::Spend(Window::Month), 100 * DOLLAR)], StoreDown::Local);
    let reservation = allowed(store.reserve(&request(&limits, 5 * DOLLAR)).await.unwrap());
    let settlement = Settlement::new(reservation, &cost(2 * DOLLAR));
    let results = join_all((0..30).map(|_| store.settle(&settlement))).await;
    let applied = results.iter().filter(|settled| matches!(settled, Ok(Settled::Applied))).count();
    let repeated = results.iter().filter(|settled| matches!(settled, Ok(Settled::Repeated))).count();
    assert_eq!((applied, repeated), (1, 29));
    assert_eq!(used(&store, &limits).await, Some(2 * DOLLAR));
}

#[tokio::test]
async fn a_killed_server_is_counted_without_and_told_afterwards() {
    let mut server = Server::start(&[]);
    let store = Arc::new(RedisStore::new(options(server.address())).unwrap());
    let rates =
        [Limit::new(Scope::Key, Dimension::Spend(Window::Month), 100 * DOLLAR), Limit::new(Scope::Key, Dimension::RequestsPerMinute, 60)];
    let local = set("local", &rates, StoreDown::Local);
    let open = set("open", &rates, StoreDown::Open);
    let closed = set("closed", &rates, StoreDown::Closed);
    let credits = set("credits", &[prepaid(100 * DOLLAR)], StoreDown::Local);
    store.restore("credits", &[]).await.unwrap();
    with_gate(store.clone(), false, async |gate| {
        gate.set_live_edges(2);
        let before = allowed(gate.reserve(&request(&local, DOLLAR)).await);
        assert_eq!(before.mode, Mode::Exact);
        server.kill();

        let mut alone = Vec::new();
        let refusal = loop {
            match gate.reserve(&request(&local, 10)).await {
                Decision::Allowed(reservation) => alone.push(reservation),
                Decision::Refused(refusal) => break refusal,
            }
        };
        assert!(alone.iter().all(|reservation| reservation.mode == Mode::Local));
        assert_eq!(alone.len(), 5, "half of a burst of ten: this is one of two edges");
        assert_eq!((refusal.kind, refusal.mode), (RefusalKind::Rate, Mode::Local));
        assert_eq!(refused(gate.reserve(&request(&local, 6 * DOLLAR)).await).mode, Mode::Local);

        let unbounded = allowed(gate.reserve(&request(&open, 90 * DOLLAR)).await);
        assert_eq!(unbounded.mode, Mode::Open);
        for (limits, amount) in [(&closed, 1), (&credits, 1)] {
            let refusal = refused(gate.reserve(&request(limits, amount)).await);
            assert_eq!((refusal.kind, refusal.kind.status()), (RefusalKind::Unavailable, 503), "never a verdict about the caller");
            assert!(refusal.retry_after.is_some());
        }

        gate.settle(before, &cost(3 * DOLLAR));
        let count = alone.len() as u64;
        for reservation in alone {
            gate.settle(reservation, &cost(7));
        }
        gate.settle(unbounded, &cost(80 * DOLLAR));
        server.restart();
        wait_used(&store, &local, 3 * DOLLAR + 7 * count).await;
        wait_used(&store, &open, 80 * DOLLAR).await;
        wait_async("exact decisions again", async || {
            matches!(gate.reserve(&request(&credits, 1)).await, Decision::Allowed(Reservation { mode: Mode::Exact, .. }))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_paused_server_costs_a_few_time_outs_and_nothing_afterwards() {
    let server = Server::start(&[]);
    let mut options = options(server.address());
    options.call_timeout = Duration::from_millis(50);
    let store = Arc::new(RedisStore::new(options).unwrap());
    let limits: Vec<_> = (0..12)
        .map(|number| {
            let declared =
                [Limit::new(Scope::Key, Dimension::Spend(Window::Day), 100 * DOLLAR), Limit::new(Scope::Key, Dimension::Concurrent, 50)];
            set(&format!("o{number}"), &declared, StoreDown::Local)
        })
        .collect();
    with_gate(store.clone(), false, async |gate| {
        server.pause();
        let mut held = Vec::new();
        for limits in &limits {
            held.push(allowed(gate.reserve(&request(limits, 100)).await));
        }
        assert!(held.iter().all(|reservation| reservation.mode == Mode::Local));
        let error = store.reserve(&request(&limits[0], 1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Broken { .. }), "{error}");
        server.resume();
        for reservation in held {
            gate.settle(reservation, &cost(40));
        }
        for limits in &limits {
            wait_used(&store, limits, 40).await;
            wait_async("slots to be free", async || {
                store.snapshot(limits, limits.select_all()).await.is_ok_and(|snapshot| snapshot.limits[1].used == 0)
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_leaves_while_the_store_thinks_holds_nothing() {
    let server = Server::start(&[]);
    let store = Arc::new(RedisStore::new(options(server.address())).unwrap());
    let limits = set("acme", &[Limit::new(Scope::Key, Dimension::Spend(Window::Day), DOLLAR)], StoreDown::Local);
    with_gate(store.clone(), false, async |gate| {
        allowed(gate.reserve(&request(&limits, 1)).await);
        server.pause();
        let request = request(&limits, 1_000);
        let left = tokio::time::timeout(Duration::from_millis(60), gate.reserve(&request)).await;
        assert!(left.is_err(), "the server is paused");
        server.resume();
        wait_used(&store, &limits, 1).await;
        wait_async("the server to have seen both", async || store.reserve(&request).await.is_ok()).await;
        assert_eq!(used(&store, &limits).await, Some(1), "settled to nothing, and asking again with its id takes nothing");
    })
    .await;
}

#[tokio::test]
async fn a_wiped_server_learns_recent_spend_again_and_keeps_credits_shut_until_restored() {
    let mut server = Server::start(&[]);
    let store = Arc::new(RedisStore::new(options(server.address())).unwrap());
    let budget = set("budget", &[Limit::new(Scope::Key, Dimension::Spend(Window::Month), 100 * DOLLAR)], StoreDown::Local);
    let credits = set("credits", &[prepaid(10 * DOLLAR)], StoreDown::Local);
    assert!(matches!(store.reserve(&request(&credits, 1)).await, Err(StoreError::SpendUnknown { .. })), "never marked as known");
    store.restore("credits", &[]).await.unwrap();
    with_gate(store.clone(), false, async |gate| {
        for limits in [&budget, &credits] {
            for _ in 0..4 {
                let reservation = allowed(gate.reserve(&request(limits, DOLLAR)).await);
                gate.settle(reservation, &cost(DOLLAR));
            }
            wait_used(&store, limits, 4 * DOLLAR).await;
        }
        // Its identity is looked at twice a second.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        server.wipe();
        wait_used(&store, &budget, 4 * DOLLAR).await;
        wait_async("the replay to have reached the credits too", async || used(&store, &credits).await == Some(4 * DOLLAR)).await;
        let refusal = refused(gate.reserve(&request(&credits, 1)).await);
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
        let bucket = credits.buckets(credits.select_all()).next().unwrap().clone();
        let period = Period::containing(SystemClock.now(), Window::Total, 0);
        store.restore("credits", &[SpentEntry { bucket, period, micro_dollars: 9 * DOLLAR }]).await.unwrap();
        wait_async("credits to be spent again", async || matches!(gate.reserve(&request(&credits, 1)).await, Decision::Allowed(_))).await;
        assert_eq!(refused(gate.reserve(&request(&credits, 2 * DOLLAR)).await).kind, RefusalKind::Funds, "what the ledger knew counts");
    })
    .await;
}

struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_clock_far_ahead_blocks_for_one_period_and_loses_no_budget() {
    let server = Server::start(&[]);
    let hand = Arc::new(Hand(AtomicU64::new(SystemClock.now())));
    let store = RedisStore::with_given_clock(options(server.address()), hand.clone()).unwrap();
    let declared =
        [Limit::new(Scope::Key, Dimension::Spend(Window::Month), 10 * DOLLAR), Limit::new(Scope::Key, Dimension::RequestsPerMinute, 60)];
    let limits = set("acme", &declared, StoreDown::Local);
    allowed(store.reserve(&request(&limits, 9 * DOLLAR)).await.unwrap());
    let year = 365 * 86_400_000_000;
    hand.0.fetch_add(year, Ordering::SeqCst);
    for _ in 0..9 {
        allowed(store.reserve(&request(&limits, DOLLAR)).await.unwrap());
    }
    hand.0.fetch_sub(year, Ordering::SeqCst);
    let refusal = refused(store.reserve(&request(&limits, DOLLAR)).await.unwrap());
    assert_eq!(refusal.kind, RefusalKind::Rate);
    assert!(refusal.retry_after.unwrap() <= Duration::from_secs(61), "one period and one request, not a year: {refusal:?}");
    hand.0.fetch_add(71_000_000, Ordering::SeqCst);
    // The arrival time still lies a year ahead and is clamped at each look; the next write brings it back.
    assert_eq!(store.snapshot(&limits, limits.select_all()).await.unwrap().limits[0].used, 9 * DOLLAR, "this month's, as before");
}

#[tokio::test]
async fn leases_expire_after_a_minute_unless_renewed() {
    let server = Server::start(&[]);
    let hand = Arc::new(Hand(AtomicU64::new(SystemClock.now())));
    let store = RedisStore::with_given_clock(options(server.address()), hand.clone()).unwrap();
    let limits = set("acme", &[Limit::new(Scope::Key, Dimension::Concurrent, 2)], StoreDown::Local);
    let _crashed = allowed(store.reserve(&request(&limits, 0)).await.unwrap());
    let running = allowed(store.reserve(&request(&limits, 0)).await.unwrap());
    assert_eq!(refused(store.reserve(&request(&limits, 0)).await.unwrap()).kind, RefusalKind::Rate);
    hand.0.fetch_add(40_000_000, Ordering::SeqCst);
    store.renew(&running).await.unwrap();
    hand.0.fetch_add(21_000_000, Ordering::SeqCst);
    assert_eq!(used(&store, &limits).await, Some(1), "the crashed one is gone, the renewed one is there");
    store.settle(&Settlement::new(running.clone(), &cost(0))).await.unwrap();
    store.renew(&running).await.unwrap();
    assert_eq!(used(&store, &limits).await, Some(0), "a late renewal does not bring a settled one back");
}

#[tokio::test]
async fn four_edges_with_slices_admit_the_limit_and_no_more() {
    let server = Server::start(&["--appendonly", "no"]);
    let limits = set("acme", &[Limit::new(Scope::Key, Dimension::RequestsPerMinute, 6_000)], StoreDown::Closed);
    let admitted = AtomicU64::new(0);
    let sliced = AtomicU64::new(0);
    let began = std::time::Instant::now();
    let run = Duration::from_secs(5);
    join_all((0..4).map(|_| async {
        let store = Arc::new(RedisStore::new(options(server.address())).unwrap());
        with_gate(store, true, async |gate| {
            gate.set_live_edges(4);
            while began.elapsed() < run {
                if let Decision::Allowed(reservation) = gate.reserve(&request(&limits, 1)).await {
                    admitted.fetch_add(1, Ordering::SeqCst);
                    sliced.fetch_add(u64::from(reservation.mode == Mode::Slice), Ordering::SeqCst);
                    gate.settle(reservation, &cost(1));
                }
                // Ten times the limit in all, and time for the workers on this one thread.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        })
        .await;
    }))
    .await;
    // Burst of ten seconds' worth, then 100 per second.
    let bound = 1_000 + (began.elapsed().as_secs_f64() * 100.0).ceil() as u64;
    let admitted = admitted.load(Ordering::SeqCst);
    println!("admitted {admitted} of at most {bound}, {} from slices", sliced.load(Ordering::SeqCst));
    assert!(admitted <= bound, "{admitted} > {bound}");
    assert!(admitted >= bound * 8 / 10, "{admitted} of {bound}: too much lies in slices");
    assert!(sliced.load(Ordering::SeqCst) > admitted / 2, "a hot key is mostly paid from slices");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_that_loses_its_last_writes_learns_them_again() {
    let mut primary = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::start(&["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &primary.port.to_string()]);
    wait("the replica to be in sync", || replica.text(&["INFO", "replication"]).contains("master_link_status:up"));
    let sentinels: Vec<Server> = (0..3).map(|_| Server::sentinel(primary.port, 2)).collect();
    for sentinel in &sentinels {
        wait("the sentinels to know each other and the replica", || {
            let text = sentinel.text(&["INFO", "sentinel"]);
            text.contains("slaves=1") && text.contains("sentinels=3")
        });
    }
    let addresses = sentinels.iter().map(Server::address).collect();
    let topology = RedisTopology::Sentinel { sentinels: addresses, primary: "mesh".to_owned() };
    let store = Arc::new(RedisStore::new(RedisOptions { topology, ..options(String::new()) }).unwrap());
    let limits = set("acme", &[Limit::new(Scope::Key, Dimension::Spend(Window::Month), 100 * DOLLAR)], StoreDown::Local);
    with_gate(store.clone(), false, async |gate| {
        let spend = async |count: u32| {
            for _ in 0..count {
                let reservation = allowed(gate.reserve(&request(&limits, 1_000)).await);
                gate.settle(reservation, &cost(500));
            }
        };
        spend(20).await;
        wait_used(&store, &limits, 20 * 500).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;

        // Cut the replication, and nothing else.
        replica.ask(&["CONFIG", "SET", "masteruser", "nobody"]).unwrap();
        replica.ask(&["CONFIG", "SET", "masterauth", "wrong"]).unwrap();
        primary.ask(&["CLIENT", "KILL", "TYPE", "replica"]).unwrap();
        wait("the replica to be cut off", || replica.text(&["INFO", "replication"]).contains("master_link_status:down"));
        spend(30).await;
        wait_used(&store, &limits, 50 * 500).await;
        primary.kill();
        // Requests in the meantime.
        let mut during = 0;
        wait_async("the fail-over", async || {
            if let Decision::Allowed(reservation) = gate.reserve(&request(&limits, 1_000)).await {
                gate.settle(reservation, &cost(500));
                during += 1;
            }
            replica.text(&["ROLE"]).is_empty() && replica.text(&["INFO", "replication"]).contains("role:master")
        })
        .await;
        println!("{during} requests during the fail-over");
        wait_used(&store, &limits, (50 + during) * 500).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_slot_that_moves_under_load_counts_everything_once() {
    let nodes: Vec<Server> = (0..3)
        .map(|_| Server::start_on(free_port(), &["--appendonly", "no", "--cluster-enabled", "yes", "--cluster-node-timeout", "5000"]))
        .collect();
    let parts = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];
    for (node, (first, last)) in nodes.iter().zip(parts) {
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).unwrap();
        node.ask(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]).unwrap();
    }
    for node in &nodes {
        wait("the cluster to form", || {
            let text = node.text(&["CLUSTER", "INFO"]);
            text.contains("cluster_state:ok") && text.contains("cluster_known_nodes:3")
        });
    }
    let topology = RedisTopology::Cluster(nodes.iter().map(Server::address).collect());
    let store = Arc::new(RedisStore::new(RedisOptions { topology, connections: 2, ..options(String::new()) }).unwrap());
    let declared = [
        Limit::new(Scope::Organisation, Dimension::Spend(Window::Month), 1_000_000 * DOLLAR),
        Limit::new(Scope::Key, Dimension::Concurrent, 100),
    ];
    let limits = set("acme", &declared, StoreDown::Local);
    let slot: u16 = redis::from_redis_value(nodes[0].ask(&["CLUSTER", "KEYSLOT", "q:{o:acme}"]).unwrap()).unwrap();
    let ids: Vec<String> = nodes.iter().map(|node| node.text(&["CLUSTER", "MYID"])).collect();
    let owner = parts.iter().position(|(first, last)| (*first..=*last).contains(&slot)).unwrap();

    with_gate(store.clone(), false, async |gate| {
        let spent = AtomicU64::new(0);
        let moving = std::sync::atomic::AtomicBool::new(true);
        let modes = [Mode::Exact, Mode::Local].map(|mode| (mode, AtomicU64::new(0)));
        let load = join_all((0..8).map(|_| async {
            while moving.load(Ordering::SeqCst) {
                if let Decision::Allowed(reservation) = gate.reserve(&request(&limits, 100)).await {
                    if let Some((_, count)) = modes.iter().find(|(mode, _)| *mode == reservation.mode) {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    gate.settle(reservation, &cost(60));
                    spent.fetch_add(60, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }));
        let slot_text = slot.to_string();
        let moves = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for round in 0..3 {
                let (from, to) = ((owner + round) % 3, (owner + round + 1) % 3);
                // Nodes tell each other who owns a slot now and then; until then the last round's news may not be everywhere.
                let (importing, migrating) = (
                    ["CLUSTER", "SETSLOT", &slot_text, "IMPORTING", &ids[from]],
                    ["CLUSTER", "SETSLOT", &slot_text, "MIGRATING", &ids[to]],
                );
                let mut refused = 0;
                while let Err(error) = nodes[to].ask(&importing).and_then(|_| nodes[from].ask(&migrating)) {
                    refused += 1;
                    assert!(refused < 500, "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                loop {
                    let keys: Vec<String> =
                        redis::from_redis_value(nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot_text, "5"]).unwrap()).unwrap();
                    if keys.is_empty() {
                        break;
                    }
                    let port = nodes[to].port.to_string();
                    let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
                    words.extend(keys.iter().map(String::as_str));
                    nodes[from].ask(&words).unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                for node in [to, from, 3 - to - from] {
                    nodes[node].ask(&["CLUSTER", "SETSLOT", &slot_text, "NODE", &ids[to]]).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            moving.store(false, Ordering::SeqCst);
        };
        tokio::join!(load, moves);
        println!("{:?}", modes.each_ref().map(|(mode, count)| (mode, count.load(Ordering::SeqCst))));
        assert!(modes[0].1.load(Ordering::SeqCst) > 100, "most are counted by the cluster");
        wait_used(&store, &limits, spent.load(Ordering::SeqCst)).await;
    })
    .await;
}

#[tokio::test]
async fn tls_with_a_client_certificate_and_an_acl_user() {
    let issuer = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&issuer).unwrap();
    let issuer = rcgen::Issuer::new(parameters, issuer);
    let leaf = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        // Not the issuer's default name: that would look self-signed.
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = leaf("localhost");
    let (ca, certificate, key) = (write("ca", &root.pem()), write("cert", &certificate), write("key", &key));
    let port = free_port();
    let tls_port = port.to_string();
    let mut arguments = vec!["--tls-port", &tls_port, "--tls-ca-cert-file", &ca, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    arguments.extend(["--user", "default", "off"]);
    // All that the store needs, and the documentation names.
    arguments.extend([
        "--user",
        "quota",
        "on",
        ">secret",
        "~q:*",
        "+@read",
        "+@write",
        "+@scripting",
        "+info",
        "+wait",
        "+client",
        "+hello",
        "+ping",
        "+time",
    ]);
    arguments.extend(["--tls-auth-clients", "yes"]);
    let _server = Server::start_on(free_port(), &arguments);
    wait("the TLS port", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let (certificate, key) = leaf("edge");
    let tls = RedisTls { roots: Some(root.pem().into_bytes()), client: Some((certificate.into_bytes(), key.into())) };
    let auth = RedisAuth { username: Some("quota".to_owned()), password: "secret".to_owned().into() };
    let good = RedisOptions {
        tls: Some(tls.clone()),
        auth: Some(auth.clone()),
        call_timeout: Duration::from_secs(5),
        ..options(format!("localhost:{port}"))
    };
    let limits = set("acme", &[Limit::new(Scope::Key, Dimension::Spend(Window::Day), 10 * DOLLAR)], StoreDown::Local);
    let store = RedisStore::new(good.clone()).unwrap();
    let reservation = allowed(store.reserve(&request(&limits, 5 * DOLLAR)).await.unwrap());
    // Large enough to wait for a replica.
    assert_eq!(store.settle(&Settlement::new(reservation, &cost(3 * DOLLAR))).await.unwrap(), Settled::Applied);
    store.tend().await.unwrap();

    let stranger = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let wrong_root = RedisTls { roots: Some(stranger.cert.pem().into_bytes()), ..tls.clone() };
    let wrong_password = RedisAuth { username: Some("quota".to_owned()), password: "guess".to_owned().into() };
    for bad in [
        RedisOptions { tls: Some(wrong_root), ..good.clone() },
        RedisOptions { auth: Some(wrong_password), ..good.clone() },
        RedisOptions { tls: Some(RedisTls { client: None, ..tls }), ..good },
    ] {
        let error = RedisStore::new(bad).unwrap().reserve(&request(&limits, 1)).await.unwrap_err();
        assert!(!error.to_string().contains("guess"), "{error}");
        assert!(matches!(error, StoreError::Unavailable { .. } | StoreError::Timeout { .. }), "{error}");
    }
}

/// Four edges under load while the server is killed, wiped of nothing, paused and restarted: afterwards every settlement has counted once,
/// and no slot is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_kills_and_pauses_lose_and_double_nothing() {
    let rounds: u64 = std::env::var("TIDEGATE_QUOTA_CHAOS").ok().map_or(3, |rounds| rounds.parse().unwrap());
    let mut server = Server::start(&[]);
    let declared = [
        Limit::new(Scope::Organisation, Dimension::Spend(Window::Month), 1_000_000 * DOLLAR),
        Limit::new(Scope::Key, Dimension::Concurrent, 1_000),
    ];
    let limits = set("acme", &declared, StoreDown::Local);
    let spent = AtomicU64::new(0);
    let running = std::sync::atomic::AtomicBool::new(true);
    let counted = std::sync::atomic::AtomicBool::new(false);
    let stores: Vec<_> = (0..4)
        .map(|_| Arc::new(RedisStore::new(RedisOptions { call_timeout: Duration::from_millis(50), ..options(server.address()) }).unwrap()))
        .collect();
    let edges = join_all(stores.iter().map(|store| {
        with_gate(store.clone(), true, async |gate| {
            gate.set_live_edges(4);
            let callers = join_all((0..4).map(|_| async {
                while running.load(Ordering::SeqCst) {
                    if let Decision::Allowed(reservation) = gate.reserve(&request(&limits, 100)).await {
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..8))).await;
                        let used = fastrand::u64(0..150);
                        gate.settle(reservation, &cost(used));
                        spent.fetch_add(used, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }));
            callers.await;
            // Its settlements may take a while: the journal of an edge that ends earlier is tested elsewhere.
            while !counted.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }));
    let faults = async {
        for round in 0..rounds {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(200..900))).await;
            if round % 2 == 0 {
                server.kill();
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..400))).await;
                server.restart();
            } else {
                server.pause();
                tokio::time::sleep(Duration::from_millis(fastrand::u64(50..300))).await;
                server.resume();
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        running.store(false, Ordering::SeqCst);
        // Slots last: by then all callers have ended, and every slice is settled.
        wait_async("all slots to be free", async || {
            stores[0].snapshot(&limits, limits.select_all()).await.is_ok_and(|snapshot| snapshot.limits[1].used == 0)
        })
        .await;
        wait_used(&stores[0], &limits, spent.load(Ordering::SeqCst)).await;
        counted.store(true, Ordering::SeqCst);
    };
    tokio::join!(edges, faults);
    let snapshot = stores[0].snapshot(&limits, limits.select_all()).await.unwrap();
    assert_eq!(snapshot.limits[1].used, 0, "no slot is held");
}
