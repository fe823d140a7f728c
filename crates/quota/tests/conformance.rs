//! Random histories on the memory store, on a real Redis and on a naive reference, under one clock: all three must decide alike.
//!
//! 2,000 histories by default; `TIDEGATE_QUOTA_HISTORIES=100000 cargo test -p tidegate-quota --test conformance` for more, and
//! `TIDEGATE_QUOTA_SEED=…` for the one that a failure names.
//!
//! The scripts are told the time here (`RedisStore::with_given_clock`): the only difference to production is their first line.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reference::Reference;
use servers::Server;
use tidegate_quota::{
    Clock, Decision, Dimension, Funding, Limit, LimitSet, MemoryStore, QuotaStore, RedisOptions, RedisStore, RedisTopology, Reservation,
    ReserveRequest, Scope, Selection, Settlement, SliceRequest, StoreDown, Subject, TokenKind, Usage, Window,
};
use ulid::Ulid;

/// A clock that a history sets.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn memory_redis_and_the_reference_decide_alike() {
    let server = Server::start(&["--appendonly", "no"]);
    let histories: u64 = variable("TIDEGATE_QUOTA_HISTORIES").unwrap_or(2_000);
    let (first, last) = match variable("TIDEGATE_QUOTA_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, histories),
    };
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let address = server.address();
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let hand = Arc::new(Hand(AtomicU64::new(0)));
                    let mut options = RedisOptions::new(RedisTopology::Single(address));
                    options.connections = 1;
                    options.call_timeout = Duration::from_secs(20);
                    options.connect_timeout = Duration::from_secs(20);
                    let redis = RedisStore::with_given_clock(options, hand.clone()).unwrap();
                    let memory = MemoryStore::new(hand.clone());
                    for seed in (first..last).filter(|seed| seed % WORKERS == worker) {
                        History::new(seed, &memory, &redis, &hand).run().await;
                    }
                });
            });
        }
    });
}

const WORKERS: u64 = 3;
const STEPS: u32 = 40;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

struct History<'a> {
    seed: u64,
    random: fastrand::Rng,
    memory: &'a MemoryStore,
    redis: &'a RedisStore,
    hand: &'a Hand,
    reference: Reference,
    limits: Arc<LimitSet>,
    open: Vec<(Reservation, Reservation)>,
    settled: Vec<(Settlement, Settlement)>,
    /// When it was last noted of each id that it is settled, and the latest time there was: the memory store forgets a settled request after
    /// a minute, and all stores forget what had expired ten minutes before.
    settled_at: std::collections::BTreeMap<Ulid, u64>,
    latest: u64,
    /// The limits that each id was used with: an id belongs to one request.
    ids: Vec<Selection>,
}

impl<'a> History<'a> {
    fn new(seed: u64, memory: &'a MemoryStore, redis: &'a RedisStore, hand: &'a Hand) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        // Around today, so that the server keeps what the history still needs.
        let today = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
        hand.0.store(today + random.u64(0..86_400_000_000), Ordering::SeqCst);
        let declared = limits(&mut random);
        let subject = Subject { organisation: format!("o{seed}").into(), workspace: Some("w".into()), key: "k".into() };
        let limits = Arc::new(LimitSet::compile(subject, &declared, StoreDown::Local).unwrap());
        let reference = Reference::new(limits.buckets(limits.select_all()).map(|bucket| bucket.limit.clone()).collect());
        Self {
            seed,
            random,
            memory,
            redis,
            hand,
            reference,
            limits,
            open: Vec::new(),
            settled: Vec::new(),
            settled_at: Default::default(),
            latest: 0,
            ids: Vec::new(),
        }
    }

    async fn run(mut self) {
        if self.random.bool() {
            self.redis.restore(&format!("o{}", self.seed), &[]).await.unwrap();
        } else {
            // Prepaid limits need the mark; without any it must not matter.
            let prepaid = self.limits.buckets(self.limits.select_all()).any(|bucket| bucket.limit.funding == Funding::Prepaid);
            if prepaid {
                self.redis.restore(&format!("o{}", self.seed), &[]).await.unwrap();
            }
        }
        for step in 0..STEPS {
            let what = format!("seed {} step {step}", self.seed);
            match self.random.u8(0..20) {
                0..=8 => self.reserve(&what).await,
                9..=12 => self.settle(&what).await,
                13 => self.settle_again(&what).await,
                14 => self.renew(&what).await,
                15 => self.buy(&what).await,
                16 => self.give_back(&what).await,
                17 => self.look(&what).await,
                _ => self.move_clock(),
            }
        }
        self.look(&format!("seed {} at the end", self.seed)).await;
    }

    fn move_clock(&mut self) {
        let now = self.hand.now();
        let moved = match self.random.u8(0..10) {
            // Not further back than stores remember.
            0 => (now - self.random.u64(0..600_000_000)).max(self.latest.saturating_sub(600_000_000)),
            1 => now + self.random.u64(0..3 * 86_400_000_000),
            2 => now + self.random.u64(0..900_000_000),
            3..=5 => now + self.random.u64(0..30_000_000),
            _ => now + self.random.u64(0..1_000_000),
        };
        self.latest = self.latest.max(now).max(moved);
        self.hand.0.store(moved, Ordering::SeqCst);
    }

    fn usage(&mut self) -> Usage {
        let random = &mut self.random;
        Usage {
            requests: u32::from(random.u8(0..10) > 0),
            input_tokens: random.u64(0..2_000),
            output_tokens: if random.u8(0..10) == 0 { random.u64(0..100_000) } else { random.u64(0..500) },
            micro_dollars: random.u64(0..40_000),
            free: random.bool(),
        }
    }

    fn id(&mut self, selection: Selection) -> (Ulid, Selection) {
        // Now and then one that was used before.
        if !self.ids.is_empty() && self.random.u8(0..6) == 0 {
            let index = self.random.usize(0..self.ids.len());
            let id = Ulid::from_parts(1, index as u128);
            if self.is_forgotten(id) {
                return self.new_id(selection);
            }
            return (id, self.ids[index]);
        }
        self.new_id(selection)
    }

    fn is_forgotten(&self, id: Ulid) -> bool {
        self.settled_at.get(&id).is_some_and(|at| self.latest.max(self.hand.now()) >= at + 60_000_000)
    }

    fn new_id(&mut self, selection: Selection) -> (Ulid, Selection) {
        self.ids.push(selection);
        (Ulid::from_parts(1, self.ids.len() as u128 - 1), selection)
    }

    async fn reserve(&mut self, what: &str) {
        let selection = if self.random.bool() { self.limits.select("a/b", None) } else { self.limits.select("c/d", Some("p")) };
        let estimate = self.usage();
        let lifetime = Duration::from_secs(self.random.u64(1..1_200));
        let (id, selection) = self.id(selection);
        let limits = self.limits.clone();
        let request = ReserveRequest { id, limits: &limits, selection, estimate, lifetime };
        let memory = self.memory.reserve(&request).await.unwrap();
        let redis = self.redis.reserve(&request).await.unwrap();
        let rows: Vec<usize> = self.rows(selection);
        let expected = self.reference.reserve(self.hand.now(), id, &rows, &estimate, None, lifetime);
        self.compare(what, memory, redis, &expected);
    }

    async fn buy(&mut self, what: &str) {
        let (least, mut want) = (self.usage(), self.usage());
        want.requests = self.random.u32(1..60);
        let lifetime = Duration::from_secs(self.random.u64(60..1_200));
        let slots = self.random.u32(1..5);
        let divisor = self.random.u32(1..9);
        let selection = self.limits.select("a/b", None);
        let (id, selection) = self.id(selection);
        let limits = self.limits.clone();
        let request = SliceRequest { id, limits: &limits, selection, least, want, slots, divisor, lifetime };
        let memory = self.memory.buy_slice(&request).await.unwrap();
        let redis = self.redis.buy_slice(&request).await.unwrap();
        let rows = self.rows(selection);
        let expected = self.reference.reserve(self.hand.now(), id, &rows, &least, Some((want, slots, divisor)), lifetime);
        self.compare(what, memory, redis, &expected);
    }

    async fn settle(&mut self, what: &str) {
        if self.open.is_empty() {
            return;
        }
        let (memory, redis) = self.open.swap_remove(self.random.usize(0..self.open.len()));
        let actual = self.usage();
        self.settle_both(what, Settlement::new(memory, &actual), Settlement::new(redis, &actual)).await;
    }

    async fn settle_again(&mut self, what: &str) {
        if self.settled.is_empty() {
            return;
        }
        let (memory, redis) = self.settled[self.random.usize(0..self.settled.len())].clone();
        if self.is_forgotten(memory.reservation.id) {
            return;
        }
        self.settle_both(what, memory, redis).await;
    }

    async fn settle_both(&mut self, what: &str, memory: Settlement, redis: Settlement) {
        let rows = self.rows_of(&memory.reservation);
        if self.is_forgotten(memory.reservation.id) {
            return;
        }
        let now = self.hand.now();
        let expected = self.reference.settle(now, &memory, &rows);
        if matches!(expected, "applied" | "restored") {
            self.settled_at.insert(memory.reservation.id, now);
        }
        assert_eq!(self.memory.settle(&memory).await.unwrap().as_str(), expected, "{what}: memory settles");
        assert_eq!(self.redis.settle(&redis).await.unwrap().as_str(), expected, "{what}: redis settles");
        self.settled.push((memory, redis));
    }

    async fn renew(&mut self, _what: &str) {
        if let Some((memory, redis)) = self.random.choice(&self.open) {
            self.memory.renew(memory).await.unwrap();
            self.redis.renew(redis).await.unwrap();
            let rows = self.rows_of(memory);
            self.reference.renew(self.hand.now(), memory.id, &rows);
        }
    }

    async fn give_back(&mut self, _what: &str) {
        if let Some((memory, redis)) = self.random.choice(&self.open) {
            let keep: Vec<u64> = memory.entries.iter().map(|entry| entry.held * self.random.u64(0..3) / 2).collect();
            self.memory.return_slice(memory, &keep).await.unwrap();
            self.redis.return_slice(redis, &keep).await.unwrap();
            let rows = self.rows_of(memory);
            self.reference.give_back(self.hand.now(), memory, &rows, &keep);
        }
    }

    async fn look(&mut self, what: &str) {
        let all = self.limits.select_all();
        let memory = self.memory.snapshot(&self.limits, all).await.unwrap();
        let redis = self.redis.snapshot(&self.limits, all).await.unwrap();
        let expected = self.reference.look(self.hand.now());
        for (index, ((memory, redis), expected)) in memory.limits.iter().zip(&redis.limits).zip(expected).enumerate() {
            let dimension = memory.bucket.limit.dimension;
            assert_eq!(memory.remaining, expected, "{what}: memory, limit {index} {dimension}");
            assert_eq!(redis.remaining, expected, "{what}: redis, limit {index} {dimension}");
            assert_eq!((memory.used, memory.reset_after), (redis.used, redis.reset_after), "{what}: limit {index} {dimension}");
        }
    }

    fn compare(&mut self, what: &str, memory: Decision, redis: Decision, expected: &reference::Answer) {
        assert_eq!(&answer(&memory), expected, "{what}: memory against the reference");
        assert_eq!(&answer(&redis), expected, "{what}: redis against the reference");
        if let (Decision::Allowed(memory), Decision::Allowed(redis)) = (memory, redis) {
            assert_eq!(memory.expires_at, redis.expires_at, "{what}");
            let resets = |reservation: &Reservation| reservation.entries.iter().map(|entry| entry.reset_after).collect::<Vec<_>>();
            assert_eq!(resets(&memory), resets(&redis), "{what}");
            assert_eq!(memory.shadowed().count(), redis.shadowed().count(), "{what}");
            self.open.push((memory, redis));
        }
    }

    fn rows(&self, selection: Selection) -> Vec<usize> {
        let all: Vec<_> = self.limits.buckets(self.limits.select_all()).collect();
        self.limits.buckets(selection).map(|bucket| all.iter().position(|other| other.key == bucket.key).unwrap()).collect()
    }

    fn rows_of(&self, reservation: &Reservation) -> Vec<usize> {
        let all: Vec<_> = self.limits.buckets(self.limits.select_all()).collect();
        reservation.entries.iter().map(|entry| all.iter().position(|other| other.key == entry.bucket.key).unwrap()).collect()
    }
}

fn answer(decision: &Decision) -> reference::Answer {
    match decision {
        Decision::Allowed(reservation) => {
            reference::Answer::Allowed(reservation.entries.iter().map(|entry| (entry.held, entry.remaining)).collect())
        }
        Decision::Refused(refusal) => reference::Answer::Refused {
            dimension: refusal.bucket.as_ref().unwrap().limit.dimension.as_str(),
            status: refusal.kind.status(),
            retry_after: refusal.retry_after.map(|wait| wait.as_micros() as u64),
            too_big: refusal.too_big,
        },
    }
}

fn limits(random: &mut fastrand::Rng) -> Vec<Limit> {
    let dimensions = [
        Dimension::RequestsPerMinute,
        Dimension::TokensPerMinute(TokenKind::Input),
        Dimension::TokensPerMinute(TokenKind::Output),
        Dimension::TokensPerMinute(TokenKind::Both),
        Dimension::Concurrent,
        Dimension::Spend(Window::Day),
        Dimension::Spend(Window::Week),
        Dimension::Spend(Window::Month),
        Dimension::Spend(Window::Total),
        Dimension::FreeRequestsPerDay,
    ];
    let mut all: Vec<Limit> = Vec::new();
    for _ in 0..random.usize(1..7) {
        let dimension = dimensions[random.usize(0..dimensions.len())];
        let scope = [Scope::Key, Scope::Workspace, Scope::Organisation][random.usize(0..3)];
        let amount = match dimension {
            Dimension::RequestsPerMinute | Dimension::Concurrent | Dimension::FreeRequestsPerDay => random.u64(0..40),
            Dimension::TokensPerMinute(_) => random.u64(0..20_000),
            Dimension::Spend(_) => random.u64(0..300_000),
        };
        let mut limit = Limit::new(scope, dimension, amount);
        limit.shadow = random.u8(0..6) == 0;
        limit.utc_offset_minutes = random.i16(-720..=840);
        if matches!(dimension, Dimension::RequestsPerMinute | Dimension::TokensPerMinute(_)) && random.bool() && amount > 0 {
            limit.burst = Some(random.u64(1..=amount * 2));
        }
        if dimension.is_spend() && random.u8(0..4) == 0 {
            limit.funding = Funding::Prepaid;
        }
        if random.u8(0..4) == 0 {
            limit.model = Some("a/b".into());
        }
        if random.u8(0..4) == 0 {
            limit.provider = Some("p".into());
        }
        let same = |other: &Limit| {
            (other.scope, other.dimension, &other.model, &other.provider) == (limit.scope, limit.dimension, &limit.model, &limit.provider)
        };
        if !all.iter().any(same) {
            all.push(limit);
        }
    }
    all
}
