//! The gate over a store that is a call away: slices, remembered refusals, journals, local decisions. Virtual time throughout.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use tidegate_quota::{
    Clock, Cost, Decision, Dimension, Funding, Gate, GateOptions, Limit, LimitSet, MemoryStore, Mode, Pending, QuotaStore, RefusalKind,
    Reservation, ReserveRequest, Scope, Selection, Settled, Settlement, SliceRequest, Snapshot, SpentEntry, StoreDown, StoreError, Subject,
    TokenKind, Usage, Window,
};
use tokio::time::Instant;
use ulid::Ulid;

/// The runtime's clock, from a moment of 2026-11-28 on.
struct Virtual {
    start: u64,
    began: Instant,
}

const NOON: u64 = 1_795_867_200_000_000;
const MIDNIGHT: u64 = NOON + 12 * 3_600_000_000;

impl Clock for Virtual {
    fn now(&self) -> u64 {
        self.start + self.began.elapsed().as_micros() as u64
    }
}

/// A memory store that has to be waited for, can be away, and counts the calls.
struct Remote {
    store: MemoryStore,
    away: AtomicBool,
    calls: AtomicU64,
    /// Settlements, which no request waits for.
    settlements: AtomicU64,
}

impl Remote {
    fn new(clock: Arc<Virtual>) -> Arc<Self> {
        let store = MemoryStore::new(clock);
        Arc::new(Self { store, away: AtomicBool::new(false), calls: AtomicU64::new(0), settlements: AtomicU64::new(0) })
    }

    fn call<'a, T: Send + 'a>(&'a self, call: Pending<'a, T>) -> Pending<'a, T> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::time::sleep(ROUND_TRIP).await;
            if self.away.load(Ordering::SeqCst) {
                return Err(StoreError::Timeout { operation: "test", millis: 50 });
            }
            call.await
        })
    }
}

impl QuotaStore for Remote {
    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> Pending<'a, Decision> {
        self.call(self.store.reserve(request))
    }
    fn settle<'a>(&'a self, settlement: &'a Settlement) -> Pending<'a, Settled> {
        self.settlements.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if self.away.load(Ordering::SeqCst) {
                return Err(StoreError::Timeout { operation: "test", millis: 50 });
            }
            self.store.settle(settlement).await
        })
    }
    fn renew<'a>(&'a self, reservation: &'a Reservation) -> Pending<'a, ()> {
        self.call(self.store.renew(reservation))
    }
    fn buy_slice<'a>(&'a self, request: &'a SliceRequest<'a>) -> Pending<'a, Decision> {
        self.call(self.store.buy_slice(request))
    }
    fn return_slice<'a>(&'a self, slice: &'a Reservation, keep: &'a [Cost]) -> Pending<'a, ()> {
        self.call(self.store.return_slice(slice, keep))
    }
    fn snapshot<'a>(&'a self, limits: &'a LimitSet, selection: Selection) -> Pending<'a, Snapshot> {
        self.store.snapshot(limits, selection)
    }
    fn restore<'a>(&'a self, organisation: &'a str, spent: &'a [SpentEntry]) -> Pending<'a, ()> {
        self.store.restore(organisation, spent)
    }
}

/// What one call to [`Remote`] takes.
const ROUND_TRIP: Duration = Duration::from_millis(2);

struct Bench {
    gate: Arc<Gate>,
    remote: Arc<Remote>,
    clock: Arc<Virtual>,
    registry: Registry,
}

impl Bench {
    fn request<'a>(&self, limits: &'a Arc<LimitSet>, estimate: Usage) -> ReserveRequest<'a> {
        ReserveRequest {
            id: Ulid::from_parts(self.clock.now() / 1_000, fastrand::u128(..)),
            limits,
            selection: limits.select("a/b", None),
            estimate,
            lifetime: Duration::from_secs(900),
        }
    }

    async fn used(&self, limits: &LimitSet) -> Vec<u64> {
        let snapshot = self.remote.snapshot(limits, limits.select_all()).await.unwrap();
        snapshot.limits.iter().map(|limit| limit.used).collect()
    }

    fn calls(&self) -> u64 {
        self.remote.calls.load(Ordering::SeqCst)
    }
}

async fn bench<T>(test: impl AsyncFnOnce(Bench) -> T) -> T {
    bench_at(NOON, test).await
}

async fn bench_at<T>(start: u64, test: impl AsyncFnOnce(Bench) -> T) -> T {
    let clock = Arc::new(Virtual { start, began: Instant::now() });
    let remote = Remote::new(clock.clone());
    let registry = Registry::new();
    let (gate, worker) = Gate::new(remote.clone(), clock.clone(), GateOptions::default(), &registry).unwrap();
    let stop = tokio::sync::Notify::new();
    let (_, result) = tokio::join!(worker.run(stop.notified()), async {
        let result = test(Bench { gate, remote, clock, registry }).await;
        stop.notify_one();
        result
    });
    result
}

fn set(limits: &[Limit]) -> Arc<LimitSet> {
    set_with(limits, StoreDown::Local)
}

fn set_with(limits: &[Limit], policy: StoreDown) -> Arc<LimitSet> {
    let subject = Subject { organisation: "acme".into(), workspace: Some("w".into()), key: "k".into() };
    Arc::new(LimitSet::compile(subject, limits, policy).unwrap())
}

fn usage(micro_dollars: u64) -> Usage {
    Usage { requests: 1, input_tokens: 100, output_tokens: 100, micro_dollars, free: false }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_is_paid_from_slices_and_settled_to_the_last_micro_dollar() {
    bench(async |bench| {
        let limits = set(&[
            Limit::new(Scope::Key, Dimension::RequestsPerMinute, 60_000),
            Limit::new(Scope::Key, Dimension::TokensPerMinute(TokenKind::Both), 60_000_000),
            Limit::new(Scope::Organisation, Dimension::Spend(Window::Month), 1_000_000_000),
            Limit::new(Scope::Key, Dimension::Concurrent, 1_000),
        ]);
        let (mut sliced, mut spent) = (0, 0);
        let mut running = std::collections::VecDeque::new();
        for number in 0..3_000_u64 {
            let request = bench.request(&limits, usage(1_000));
            match bench.gate.reserve(&request).await {
                Decision::Allowed(reservation) => {
                    sliced += u64::from(reservation.mode == Mode::Slice);
                    running.push_back((reservation, number % 1_700));
                }
                Decision::Refused(refusal) => panic!("{number}: {refusal:?}"),
            }
            if running.len() > 50 {
                let (reservation, used) = running.pop_front().unwrap();
                spent += used;
                bench.gate.settle(reservation, &usage(used));
            }
            pause(5).await;
        }
        for (reservation, used) in running {
            spent += used;
            bench.gate.settle(reservation, &usage(used));
        }
        assert!(sliced > 2_900, "{sliced} of 3000 from slices");
        assert!(bench.calls() < 300, "{} calls for 3000 requests", bench.calls());
        // Idle for two seconds: everything goes back.
        pause(5_000).await;
        // Broadest scope first.
        let used = bench.used(&limits).await;
        assert_eq!(used[0], spent, "spend");
        assert_eq!(used[3], 0, "slots");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_runs_out_is_spent_exactly_and_not_overrun() {
    bench(async |bench| {
        let limits = set(&[Limit::new(Scope::Key, Dimension::Spend(Window::Day), 1_000_000)]);
        let mut admitted = 0;
        for _ in 0..1_500 {
            if let Decision::Allowed(reservation) = bench.gate.reserve(&bench.request(&limits, usage(1_000))).await {
                admitted += 1;
                bench.gate.settle(reservation, &usage(1_000));
            }
            pause(5).await;
        }
        assert_eq!(admitted, 1_000);
        pause(5_000).await;
        assert_eq!(bench.used(&limits).await, [1_000_000]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_mostly_waits_for_nobody_and_for_one_call_at_most() {
    let limits = set(&[
        Limit::new(Scope::Key, Dimension::RequestsPerMinute, 60_000),
        Limit::new(Scope::Key, Dimension::Spend(Window::Day), u64::MAX >> 16),
    ]);
    bench(async |bench| {
        let mut waits = Vec::new();
        for number in 0..4_000 {
            let began = Instant::now();
            let decision = bench.gate.reserve(&bench.request(&limits, usage(100))).await;
            // After the first second, in which nobody knows yet that the key is hot.
            if number >= 200 {
                waits.push(began.elapsed());
            }
            let Decision::Allowed(reservation) = decision else { panic!("{decision:?}") };
            bench.gate.settle(reservation, &usage(90));
            pause(5).await;
        }
        waits.sort();
        let (p50, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        println!("{} calls for {} requests; p50 {p50:?}, p99 {p99:?}, longest {:?}", bench.calls(), waits.len(), waits[waits.len() - 1]);
        assert_eq!(p50, Duration::ZERO, "no round trip");
        assert!(p99 <= ROUND_TRIP, "{p99:?}: more than one round trip");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn four_edges_refuse_next_to_nothing_while_a_twentieth_of_the_limit_is_left() {
    let clock = Arc::new(Virtual { start: NOON, began: Instant::now() });
    let remote = Remote::new(clock.clone());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let limits = set(&[Limit::new(Scope::Key, Dimension::RequestsPerMinute, 6_000)]);
    let (mut workers, mut edges) = (Vec::new(), Vec::new());
    for edge in 0..4_u64 {
        let (gate, worker) = Gate::new(remote.clone(), clock.clone(), GateOptions::default(), &Registry::new()).unwrap();
        gate.set_live_edges(4);
        let mut stopped = stopped.clone();
        workers.push(worker.run(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }));
        let (limits, clock) = (&limits, &clock);
        edges.push(async move {
            let mut random = fastrand::Rng::with_seed(edge);
            let (mut asked, mut refused) = (0_u32, 0_u32);
            let began = Instant::now();
            // A quarter of 95 requests a second each, by chance earlier or later.
            while began.elapsed() < Duration::from_secs(60) {
                let request = ReserveRequest {
                    id: Ulid::from_parts(clock.now() / 1_000, random.u128(..)),
                    limits,
                    selection: limits.select("a/b", None),
                    estimate: usage(100),
                    lifetime: Duration::from_secs(900),
                };
                asked += 1;
                match gate.reserve(&request).await {
                    Decision::Allowed(reservation) => gate.settle(reservation, &usage(100)),
                    Decision::Refused(_) => refused += 1,
                }
                pause(random.u64(20..66)).await;
            }
            (asked, refused)
        });
    }
    let edges = async {
        let counts = futures_util::future::join_all(edges).await;
        stop.send_replace(true);
        counts
    };
    let (counts, _) = tokio::join!(edges, futures_util::future::join_all(workers));
    let asked: u32 = counts.iter().map(|(asked, _)| asked).sum();
    let refused: u32 = counts.iter().map(|(_, refused)| refused).sum();
    println!("{refused} of {asked} were refused");
    assert!((5_500..5_720).contains(&asked), "{asked} in a minute are not 95 %");
    assert!(refused * 20 <= asked, "{refused} of {asked} were refused though the limit had room");
}

/// Organisations share one slot of a cluster, so that one server counts all of their keys: what a large one asks of it.
#[tokio::test(start_paused = true)]
async fn the_keys_of_a_large_organisation_ask_their_store_seldom_because_they_are_hot() {
    const EDGES: u64 = 4;
    const KEYS: u64 = 100;
    const PER_SECOND: f64 = 5_000.0;
    const WARM: Duration = Duration::from_secs(3);
    const WINDOW: Duration = Duration::from_secs(6);
    let clock = Arc::new(Virtual { start: NOON, began: Instant::now() });
    let remote = Remote::new(clock.clone());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let declared = [
        Limit::new(Scope::Organisation, Dimension::RequestsPerMinute, 1_000_000),
        Limit::new(Scope::Organisation, Dimension::Spend(Window::Month), 1_000_000_000_000),
        Limit::new(Scope::Key, Dimension::RequestsPerMinute, 200_000),
        Limit::new(Scope::Key, Dimension::Spend(Window::Day), 1_000_000_000),
    ];
    let limits: Vec<_> = (0..KEYS)
        .map(|number| {
            let subject = Subject { organisation: "acme".into(), workspace: None, key: format!("k{number}").into() };
            Arc::new(LimitSet::compile(subject, &declared, StoreDown::Local).unwrap())
        })
        .collect();
    // The n-th key is used an n-th as much as the first, as keys are: from 240 requests per second and edge down to 2.4.
    let harmonic: f64 = (1..=KEYS).map(|number| 1.0 / number as f64).sum();
    let (asked, waited) = (AtomicU64::new(0), AtomicU64::new(0));
    let (mut workers, mut callers) = (Vec::new(), Vec::new());
    for edge in 0..EDGES {
        let (gate, worker) = Gate::new(remote.clone(), clock.clone(), GateOptions::default(), &Registry::new()).unwrap();
        gate.set_live_edges(u32::try_from(EDGES).unwrap());
        let mut stopped = stopped.clone();
        workers.push(worker.run(async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }));
        for (number, limits) in (0..KEYS).zip(&limits) {
            let (gate, clock, asked, waited) = (gate.clone(), &clock, &asked, &waited);
            callers.push(async move {
                let mut random = fastrand::Rng::with_seed(edge * KEYS + number);
                let mean = EDGES as f64 * harmonic * (number + 1) as f64 / PER_SECOND * 1e6;
                let end = Instant::now() + WARM + WINDOW;
                let mut next = Instant::now() + Duration::from_micros(random.u64(0..mean as u64));
                while next < end {
                    tokio::time::sleep_until(next).await;
                    next += Duration::from_micros(random.u64(0..2 * mean as u64));
                    let request = ReserveRequest {
                        id: Ulid::from_parts(clock.now() / 1_000, random.u128(..)),
                        limits,
                        selection: limits.select("a/b", None),
                        estimate: usage(1_000),
                        lifetime: Duration::from_secs(900),
                    };
                    let began = Instant::now();
                    let Decision::Allowed(reservation) = gate.reserve(&request).await else { panic!("there is room") };
                    if end.duration_since(began) <= WINDOW {
                        asked.fetch_add(1, Ordering::Relaxed);
                        waited.fetch_add(u64::from(began.elapsed() > Duration::ZERO), Ordering::Relaxed);
                    }
                    gate.settle(reservation, &usage(700));
                }
            });
        }
    }
    let calls = || remote.calls.load(Ordering::SeqCst) + remote.settlements.load(Ordering::SeqCst);
    let measured = async {
        tokio::time::sleep(WARM).await;
        let before = calls();
        tokio::time::sleep(WINDOW).await;
        calls() - before
    };
    let all = async {
        let (calls, _) = tokio::join!(measured, futures_util::future::join_all(callers));
        stop.send_replace(true);
        calls
    };
    let (calls, _) = tokio::join!(all, futures_util::future::join_all(workers));
    let (asked, waited, seconds) = (asked.into_inner(), waited.into_inner(), WINDOW.as_secs());
    println!(
        "{} requests/s of {KEYS} keys over {EDGES} edges: {} calls/s at the store, {:.3} per request; {:.1} % of the requests waited for one",
        asked / seconds,
        calls / seconds,
        calls as f64 / asked as f64,
        100.0 * waited as f64 / asked as f64
    );
    assert!((4_500..5_500).contains(&(asked / seconds)), "{asked} in {seconds} s");
    // Most are of keys below five requests a second, which ask for each.
    assert!(calls * 2 < asked, "{calls} calls for {asked} requests");
}

#[tokio::test(start_paused = true)]
async fn a_cold_key_asks_once_per_request() {
    bench(async |bench| {
        let limits = set(&[Limit::new(Scope::Key, Dimension::RequestsPerMinute, 600)]);
        for _ in 0..20 {
            let request = bench.request(&limits, usage(0));
            assert!(bench.gate.reserve_now(&request).is_none());
            match bench.gate.reserve(&request).await {
                Decision::Allowed(reservation) => {
                    assert_eq!(reservation.mode, Mode::Exact);
                    bench.gate.settle(reservation, &usage(0));
                }
                Decision::Refused(refusal) => panic!("{refusal:?}"),
            }
            pause(400).await;
        }
        assert_eq!(bench.calls(), 20);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_rate_is_remembered_until_it_may_pass() {
    bench(async |bench| {
        let limits = set(&[Limit::new(Scope::Key, Dimension::TokensPerMinute(TokenKind::Input), 60_000)]);
        let tokens = |input_tokens| Usage { input_tokens, ..usage(0) };
        let Decision::Allowed(_) = bench.gate.reserve(&bench.request(&limits, tokens(60_000))).await else { panic!("the burst") };
        let Decision::Refused(first) = bench.gate.reserve(&bench.request(&limits, tokens(1_000))).await else { panic!("empty") };
        assert!(first.retry_after.unwrap() > Duration::from_millis(990));
        let calls = bench.calls();
        for _ in 0..50 {
            let Some(Decision::Refused(again)) = bench.gate.reserve_now(&bench.request(&limits, tokens(1_000))) else {
                panic!("forgotten")
            };
            assert_eq!(again.kind, RefusalKind::Rate);
            assert!(again.retry_after.unwrap() <= first.retry_after.unwrap());
        }
        assert_eq!(bench.calls(), calls, "the store was not asked");
        pause(500).await;
        assert!(bench.gate.reserve_now(&bench.request(&limits, tokens(400))).is_none(), "a smaller one may pass");
        pause(600).await;
        assert!(matches!(bench.gate.reserve(&bench.request(&limits, tokens(1_000))).await, Decision::Allowed(_)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_journal_settles_what_was_taken_from_slices() {
    bench(async |bench| {
        let limits = set(&[Limit::new(Scope::Key, Dimension::Spend(Window::Month), 1_000_000_000)]);
        let mut journal: Vec<Settlement> = Vec::new();
        let mut spent = 0;
        for number in 0..400 {
            let Decision::Allowed(reservation) = bench.gate.reserve(&bench.request(&limits, usage(1_000))).await else { panic!("refused") };
            // Written to the journal, never told to this gate: the process dies.
            let settlement = Settlement::new(reservation, &usage(number));
            let written = serde_json::to_string(&settlement).unwrap();
            journal.push(serde_json::from_str(&written).unwrap());
            spent += number;
            pause(5).await;
        }
        let mut merged: std::collections::BTreeMap<Ulid, Settlement> = std::collections::BTreeMap::new();
        for settlement in journal {
            match merged.entry(settlement.reservation.id) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(settlement);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => assert!(entry.get_mut().merge(&settlement)),
            }
        }
        assert!(merged.len() < 100, "slices");
        for _ in 0..2 {
            for settlement in merged.values() {
                bench.remote.settle(settlement).await.unwrap();
            }
        }
        // One that was bought and never spent from may still stand: it expires as consumed.
        let used = bench.used(&limits).await[0];
        assert!(used >= spent && used <= spent + 1_000_000, "{used} for {spent}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_edge_keeps_its_part_and_tells_later() {
    bench(async |bench| {
        bench.gate.set_live_edges(3);
        let rate = Limit::new(Scope::Key, Dimension::RequestsPerMinute, 180);
        let budget = Limit::new(Scope::Key, Dimension::Spend(Window::Month), 6_000_000);
        let limits = set(&[rate.clone(), budget]);
        bench.remote.away.store(true, Ordering::SeqCst);
        let began = Instant::now();
        let mut held = Vec::new();
        while began.elapsed() < Duration::from_secs(60) {
            match bench.gate.reserve(&bench.request(&limits, usage(100))).await {
                Decision::Allowed(reservation) => {
                    assert_eq!(reservation.mode, Mode::Local);
                    held.push(reservation);
                }
                Decision::Refused(refusal) => assert_eq!(refusal.mode, Mode::Local),
            }
            pause(50).await;
        }
        // A third of the burst of thirty, then one per second.
        assert!((68..=71).contains(&held.len()), "{}", held.len());
        let Decision::Refused(refusal) = bench.gate.reserve(&bench.request(&limits, usage(100_001))).await else { panic!("more than 5 %") };
        assert_eq!(refusal.mode, Mode::Local);
        bench.remote.away.store(false, Ordering::SeqCst);
        let count = held.len() as u64;
        for reservation in held {
            bench.gate.settle(reservation, &usage(90));
        }
        pause(3_000).await;
        assert_eq!(bench.used(&limits).await[1], count * 90);

        let text = prometheus::TextEncoder::new().encode_to_string(&bench.registry.gather()).unwrap();
        for line in [
            "tidegate_quota_decisions_total{decision=\"allowed\",kind=\"all\",mode=\"local\"}",
            "tidegate_quota_decisions_total{decision=\"refused\",kind=\"rpm\",mode=\"local\"}",
            "tidegate_quota_store_duration_seconds_count{operation=\"reserve\"}",
            "tidegate_quota_store_up 1",
            "tidegate_quota_settlements_total{result=\"restored\"}",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    })
    .await;
}

/// More settlements than the queue holds while the store is away: nobody waits, what found no room is counted, and the counter is right again
/// once it is raised to what the ledger knows.
#[tokio::test(start_paused = true)]
async fn settlements_beyond_the_queue_are_counted_and_made_good_from_the_ledger() {
    bench(async |bench| {
        let limits = set_with(&[Limit::new(Scope::Key, Dimension::Spend(Window::Month), 1_000_000_000)], StoreDown::Open);
        bench.remote.away.store(true, Ordering::SeqCst);
        let mut first = None;
        for number in 0..70_000_u64 {
            let decision = match bench.gate.reserve_now(&bench.request(&limits, usage(100))) {
                Some(decision) => decision,
                None => bench.gate.reserve(&bench.request(&limits, usage(100))).await,
            };
            let Decision::Allowed(reservation) = decision else { panic!("{number}: {decision:?}") };
            first.get_or_insert_with(|| (reservation.entries[0].bucket.clone(), reservation.entries[0].period.unwrap()));
            let began = Instant::now();
            bench.gate.settle(reservation, &usage(70));
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
        let lost = || {
            let families = bench.registry.gather();
            let family = families.iter().find(|family| family.name() == "tidegate_quota_settlements_dropped_total").unwrap();
            family.get_metric()[0].get_counter().get_value() as u64
        };
        assert!((4_000..4_500).contains(&lost()), "{} of 70,000 found no room in 65,536 and what is under way", lost());
        bench.remote.away.store(false, Ordering::SeqCst);
        bench.gate.all_told(Duration::from_secs(600)).await;
        assert_eq!(bench.used(&limits).await, [(70_000 - lost()) * 70], "every other was told once");
        bench.gate.spend_in_doubt().await;
        let (bucket, period) = first.unwrap();
        let known = SpentEntry { bucket, period, micro_dollars: 70_000 * 70 };
        bench.remote.restore("acme", &[known]).await.unwrap();
        assert_eq!(bench.used(&limits).await, [70_000 * 70]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn credits_are_spent_from_what_was_bought_and_then_not_at_all() {
    bench(async |bench| {
        let credits = Limit { funding: Funding::Prepaid, ..Limit::new(Scope::Organisation, Dimension::Spend(Window::Total), 100_000_000) };
        let limits = set(&[credits]);
        for _ in 0..600 {
            let Decision::Allowed(reservation) = bench.gate.reserve(&bench.request(&limits, usage(100))).await else { panic!("refused") };
            bench.gate.settle(reservation, &usage(100));
            pause(5).await;
        }
        bench.remote.away.store(true, Ordering::SeqCst);
        let mut bought = 0;
        let refusal = loop {
            match bench.gate.reserve(&bench.request(&limits, usage(100))).await {
                Decision::Allowed(reservation) => {
                    assert_eq!(reservation.mode, Mode::Slice);
                    bought += 1;
                    bench.gate.settle(reservation, &usage(100));
                }
                Decision::Refused(refusal) => break refusal,
            }
            pause(1).await;
        };
        assert!(bought > 50, "{bought} requests from the slice");
        assert_eq!(refusal.kind.status(), 503);
        bench.remote.away.store(false, Ordering::SeqCst);
        pause(6_000).await;
        assert_eq!(bench.used(&limits).await, [(600 + bought) * 100]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn long_requests_keep_their_slots() {
    bench(async |bench| {
        let limits = set(&[Limit::new(Scope::Key, Dimension::Concurrent, 1)]);
        let Decision::Allowed(reservation) = bench.gate.reserve(&bench.request(&limits, usage(0))).await else { panic!("refused") };
        for _ in 0..10 {
            pause(30_000).await;
            assert_eq!(bench.used(&limits).await, [1]);
        }
        bench.gate.settle(reservation, &usage(0));
        pause(100).await;
        assert_eq!(bench.used(&limits).await, [0]);
        pause(120_000).await;
        assert_eq!(bench.used(&limits).await, [0], "no renewal after the end");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn shadow_limits_count_and_warn_but_never_refuse() {
    bench(async |bench| {
        let shadow = Limit { shadow: true, ..Limit::new(Scope::Key, Dimension::Spend(Window::Day), 150) };
        let warns = Limit { warn_at: Some(80), ..Limit::new(Scope::Organisation, Dimension::Spend(Window::Day), 500) };
        let limits = set(&[shadow, warns]);
        let mut seen = Vec::new();
        for _ in 0..5 {
            let Decision::Allowed(reservation) = bench.gate.reserve(&bench.request(&limits, usage(100))).await else { panic!("refused") };
            seen.push((reservation.shadowed().count(), reservation.warnings().count()));
            pause(1_000).await;
        }
        assert_eq!(seen, [(0, 0), (1, 0), (1, 0), (1, 1), (1, 1)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn limits_apply_to_their_model_and_provider_only() {
    let of_model = Limit { model: Some("a/b".into()), ..Limit::new(Scope::Key, Dimension::RequestsPerMinute, 6) };
    let of_provider = Limit { provider: Some("p".into()), ..Limit::new(Scope::Key, Dimension::RequestsPerMinute, 6) };
    let limits = set(&[of_model, of_provider, Limit::new(Scope::Key, Dimension::RequestsPerMinute, 600)]);
    let count = |selection| limits.buckets(selection).count();
    assert_eq!(count(limits.select("a/b", None)), 2);
    assert_eq!(count(limits.select("a/b", Some("p"))), 3);
    assert_eq!(count(limits.select("c/d", Some("q"))), 1);
    assert_eq!(count(limits.select_provider("a/b", "p")), 1);
}

#[test]
fn the_worst_case_of_each_limit_is_told_in_numbers() {
    use tidegate_quota::{Topology, explain};
    let topology = Topology { known_edges: 4, most_edges: 6, regions: 2, sharing: 2, shared_store: true };
    let rate = Limit::new(Scope::Key, Dimension::RequestsPerMinute, 600);
    let budget = Limit::new(Scope::Organisation, Dimension::Spend(Window::Month), 1_000_000);
    let cases = [
        (rate.clone(), StoreDown::Local, 1_200, Some(1_800), Some(200), 40),
        (Limit { global: true, ..rate.clone() }, StoreDown::Local, 600, Some(900), Some(100), 20),
        (rate.clone(), StoreDown::Open, 1_200, None, Some(200), 40),
        (rate.clone(), StoreDown::Closed, 1_200, Some(0), Some(200), 40),
        (Limit { shadow: true, ..rate }, StoreDown::Local, 1_200, None, Some(200), 40),
        (Limit { global: true, ..budget.clone() }, StoreDown::Local, 1_000_000, Some(1_075_000), None, 0),
        (Limit { funding: Funding::Prepaid, global: true, ..budget }, StoreDown::Local, 1_000_000, Some(0), None, 0),
        (Limit::new(Scope::Key, Dimension::Concurrent, 2), StoreDown::Local, 4, Some(12), None, 0),
    ];
    for (limit, policy, up, down, burst, failover) in cases {
        let limits = set_with(std::slice::from_ref(&limit), policy);
        let bounds = explain(&limits, limits.select_all(), topology);
        let bound = &bounds[0];
        assert_eq!((bound.store_up, bound.store_down, bound.burst, bound.failover), (up, down, burst, failover), "{bound}");
        assert!(bound.to_string().contains(&format!("{} {} {}", limit.scope, limit.dimension, limit.amount)), "{bound}");
        assert!(!bound.words.is_empty());
    }
}

#[test]
fn limits_that_cannot_be_counted_are_refused_with_a_reason() {
    let subject = || Subject { organisation: "a{}:b".into(), workspace: None, key: "k".into() };
    let rate = Limit::new(Scope::Key, Dimension::RequestsPerMinute, 10);
    for (limits, reason) in [
        (vec![rate.clone(), rate.clone()], "declared twice"),
        (vec![Limit { scope: Scope::Workspace, ..rate.clone() }], "in no workspace"),
        (vec![Limit { burst: Some(0), ..rate.clone() }], "burst of 0"),
        (vec![Limit { burst: Some(5), dimension: Dimension::Concurrent, ..rate.clone() }], "only rates"),
        (vec![Limit { warn_at: Some(101), ..rate.clone() }], "percentage"),
        (vec![Limit { utc_offset_minutes: 900, ..rate.clone() }], "offset"),
        (vec![Limit { funding: Funding::Prepaid, ..rate.clone() }], "prepaid"),
        (vec![Limit { amount: u64::MAX, ..rate.clone() }], "too large"),
        (vec![Limit { amount: 100_001, dimension: Dimension::Concurrent, ..rate.clone() }], "100000"),
        (vec![rate.clone(); 65], "at most 64"),
    ] {
        let error = LimitSet::compile(subject(), &limits, StoreDown::Local).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let limits = LimitSet::compile(subject(), &[rate], StoreDown::Local).unwrap();
    let key = &limits.buckets(limits.select_all()).next().unwrap().key;
    assert_eq!(&**key, "q:{o:a%7B%7D%3Ab}:k:k:rpm", "an id cannot end the slot tag");
}

#[tokio::test(start_paused = true)]
async fn a_key_without_limits_asks_nobody() {
    bench(async |bench| {
        let limits = set(&[]);
        for _ in 0..100 {
            let Some(Decision::Allowed(reservation)) = bench.gate.reserve_now(&bench.request(&limits, usage(1))) else { panic!("asked") };
            bench.gate.settle(reservation, &usage(1));
        }
        pause(3_000).await;
        assert_eq!(bench.calls(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_global_limit_is_counted_against_the_share_and_falls_to_the_floor() {
    use tidegate_quota::{Shares, monotonic};
    let shares = Shares::default();
    let regions: [Arc<str>; 2] = ["eu".into(), "us".into()];
    let declared = Limit { global: true, ..Limit::new(Scope::Key, Dimension::Concurrent, 100) };
    let subject = || Subject { organisation: "acme".into(), workspace: None, key: "k".into() };
    let compile = || {
        let limits = LimitSet::compile(subject(), std::slice::from_ref(&declared), StoreDown::Local).unwrap();
        Arc::new(limits.with_shares(&shares, &regions, "eu"))
    };
    let limits = compile();
    let store = MemoryStore::default();
    let free = |limits: &Arc<LimitSet>| {
        let mut futures = store.snapshot(limits, limits.select_all());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match futures.as_mut().poll(&mut context) {
            std::task::Poll::Ready(Ok(snapshot)) => snapshot.limits[0].remaining,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(free(&limits), 5, "its part of the reserved tenth before it is assigned");
    let share = shares.all().remove(0);
    share.set(6, monotonic() + 3_600_000_000, 1);
    assert_eq!(free(&limits), 6);
    assert_eq!(free(&compile()), 6, "a new configuration counts against the same share");
    share.set(6, monotonic(), 1);
    assert_eq!(free(&limits), 1, "the lease is over");
    share.set(500, monotonic() + 3_600_000_000, 1);
    assert_eq!(free(&limits), 100, "never more than declared");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_refused_alone_is_not_asked_again_when_its_share_grows() {
    use tidegate_quota::{Assign, Desk, Shares, monotonic};
    bench(async |bench| {
        let shares = Arc::new(Shares::default());
        shares.home().link(true);
        shares.home().heard(monotonic());
        let regions: [Arc<str>; 2] = ["eu".into(), "us".into()];
        let declared = Limit { global: true, ..Limit::new(Scope::Key, Dimension::Spend(Window::Month), 1_000_000) };
        let subject = Subject { organisation: "acme".into(), workspace: None, key: "k".into() };
        let limits = LimitSet::compile(subject, &[declared], StoreDown::Local).unwrap();
        let limits = Arc::new(limits.with_shares(&shares, &regions, "eu"));
        let mut desk = Desk::new(Arc::clone(&shares), 1);
        let mut served = Vec::new();
        let mut ask = async |request: &ReserveRequest<'_>| {
            // As an edge asks: what needs no waiting is answered at once.
            let decision = match bench.gate.reserve_now(request) {
                Some(decision) => decision,
                None => bench.gate.reserve(request).await,
            };
            let allowed = matches!(decision, Decision::Allowed(_));
            if let Decision::Allowed(reservation) = decision {
                served.push(reservation);
            }
            allowed
        };

        // Nothing is lent to the region yet. The store does not answer and the edge refuses; the store, which may have heard of the request,
        // is told that it holds nothing. Only then home lends something.
        bench.remote.away.store(true, Ordering::SeqCst);
        let request = bench.request(&limits, usage(1_000));
        let (allowed, ()) = tokio::join!(ask(&request), async {
            pause(10).await;
            let due = desk.due(monotonic(), NOON);
            let report = due.first().expect("a limit that is used is reported").report.id;
            desk.take(&Assign { report, sequence: 1, amount: 600_000, lease: 3_600_000_000, ..Assign::default() }, monotonic(), NOON);
        });
        assert_eq!(bench.calls(), 1, "the store was asked, once");
        assert_eq!(shares.views()[0].amount, 600_000, "the share has grown");
        // The caller's next try is another request.
        assert!(ask(&bench.request(&limits, usage(1_000))).await, "a twentieth of the share may be spent");

        // The store is back, and hears of the refusal before the requests end.
        bench.remote.away.store(false, Ordering::SeqCst);
        bench.gate.all_told(Duration::from_secs(60)).await;
        let settled = served.len() as u64 * 700;
        for reservation in served {
            bench.gate.settle(reservation, &usage(700));
        }
        bench.gate.all_told(Duration::from_secs(60)).await;
        assert_eq!(bench.used(&limits).await, [settled], "what was served is counted");
        assert!(!allowed, "the store takes its id for done");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_long_request_does_not_hold_the_rest_of_its_slice() {
    bench(async |bench| {
        let limits = set(&[
            Limit::new(Scope::Key, Dimension::Spend(Window::Month), 1_000_000_000),
            Limit::new(Scope::Key, Dimension::Concurrent, 1_000),
        ]);
        let mut long = None;
        let mut spent = 0;
        for number in 0..600 {
            let Decision::Allowed(reservation) = bench.gate.reserve(&bench.request(&limits, usage(1_000))).await else { panic!("refused") };
            if number == 500 {
                assert_eq!(reservation.mode, Mode::Slice);
                long = Some(reservation);
            } else {
                bench.gate.settle(reservation, &usage(300));
                spent += 300;
            }
            pause(5).await;
        }
        pause(5_000).await;
        assert_eq!(bench.used(&limits).await, [spent + 1_000, 1], "what it holds itself, and its slot");
        pause(100_000).await;
        assert_eq!(bench.used(&limits).await, [spent + 1_000, 1], "renewed");
        bench.gate.settle(long.unwrap(), &usage(2_500));
        pause(1_000).await;
        assert_eq!(bench.used(&limits).await, [spent + 2_500, 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slice_of_yesterday_is_not_spent_today() {
    bench_at(MIDNIGHT - 3_000_000, async |bench| {
        let limits = set(&[Limit::new(Scope::Key, Dimension::Spend(Window::Day), 1_000_000_000)]);
        let mut today = 0;
        for _ in 0..1_200 {
            let before = bench.clock.now();
            let Decision::Allowed(reservation) = bench.gate.reserve(&bench.request(&limits, usage(1_000))).await else { panic!("refused") };
            let period = reservation.entries[0].period.unwrap();
            assert!(period.contains(before) || period.contains(bench.clock.now()), "{period} at {before}");
            today += u64::from(period.start == MIDNIGHT) * 700;
            bench.gate.settle(reservation, &usage(700));
            pause(5).await;
        }
        assert!(today > 300_000, "{today}");
        pause(5_000).await;
        assert_eq!(bench.used(&limits).await, [today]);
    })
    .await;
}

#[tokio::test]
async fn the_memory_stores_file_is_written_when_the_worker_ends() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(tidegate_quota::SystemClock);
    let limits = set(&[Limit::new(Scope::Key, Dimension::Spend(Window::Total), 1_000)]);
    let open = || Arc::new(MemoryStore::open(folder.path().join("quota"), clock.clone()).unwrap());
    let (gate, worker) = Gate::new(open(), clock.clone(), GateOptions::default(), &Registry::new()).unwrap();
    let request = ReserveRequest {
        id: Ulid::from_parts(clock.now() / 1_000, 1),
        limits: &limits,
        selection: limits.select_all(),
        estimate: usage(700),
        lifetime: Duration::from_secs(900),
    };
    let Some(Decision::Allowed(reservation)) = gate.reserve_now(&request) else { panic!("refused") };
    gate.settle(reservation, &usage(650));
    worker.run(std::future::ready(())).await;
    let used = open().snapshot(&limits, limits.select_all()).await.unwrap().limits[0].used;
    assert_eq!(used, 650);
}
