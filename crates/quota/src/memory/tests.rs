use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ulid::Ulid;

use super::*;
use crate::{Decision, Dimension, Limit, LimitSet, RefusalKind, Scope, Settlement, StoreDown, Subject, Usage, Window};

struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

const NOON: u64 = 1_795_867_200_000_000;
const SECOND: u64 = 1_000_000;

fn set(limits: &[Limit]) -> Arc<LimitSet> {
    let subject = Subject { organisation: "acme".into(), workspace: None, key: "k1".into() };
    Arc::new(LimitSet::compile(subject, limits, StoreDown::Local).unwrap())
}

fn store() -> (MemoryStore, Arc<Hand>) {
    let hand = Arc::new(Hand(AtomicU64::new(NOON)));
    (MemoryStore::new(hand.clone()), hand)
}

fn ask(limits: &Arc<LimitSet>, number: u128, micro_dollars: u64) -> ReserveRequest<'_> {
    ReserveRequest {
        id: Ulid::from_parts(NOON / 1_000, number),
        limits,
        selection: limits.select("a/b", None),
        estimate: Usage { requests: 1, input_tokens: 100, output_tokens: 50, micro_dollars, free: false },
        lifetime: Duration::from_secs(700),
    }
}

fn allowed(decision: Decision) -> Reservation {
    match decision {
        Decision::Allowed(reservation) => reservation,
        Decision::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn refused(decision: Decision) -> crate::Refusal {
    match decision {
        Decision::Allowed(_) => panic!("allowed"),
        Decision::Refused(refusal) => refusal,
    }
}

#[tokio::test]
async fn a_budget_is_held_then_settled_once() {
    let (store, _) = store();
    let limits = set(&[Limit::new(Scope::Key, Dimension::Spend(Window::Day), 100)]);
    let first = allowed(store.reserve(&ask(&limits, 1, 60)).await.unwrap());
    assert_eq!(first.entries[0].remaining, 40);
    let refusal = refused(store.reserve(&ask(&limits, 2, 60)).await.unwrap());
    assert_eq!((refusal.kind, refusal.remaining, refusal.too_big), (RefusalKind::Funds, 40, false));
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(12 * 3_600)), "midnight");
    let settlement = Settlement::new(first, &Usage { requests: 1, micro_dollars: 10, ..Usage::default() });
    assert_eq!(store.settle(&settlement).await.unwrap(), Settled::Applied);
    assert_eq!(store.settle(&settlement).await.unwrap(), Settled::Repeated);
    assert_eq!(allowed(store.reserve(&ask(&limits, 2, 60)).await.unwrap()).entries[0].remaining, 30);
    assert!(refused(store.reserve(&ask(&limits, 3, 101)).await.unwrap()).too_big);
}

#[tokio::test]
async fn a_rate_admits_its_burst_and_then_one_per_interval() {
    let (store, hand) = store();
    let limits = set(&[Limit::new(Scope::Key, Dimension::RequestsPerMinute, 7)]);
    allowed(store.reserve(&ask(&limits, 1, 0)).await.unwrap());
    let refusal = refused(store.reserve(&ask(&limits, 2, 0)).await.unwrap());
    assert_eq!(refusal.retry_after, Some(Duration::from_micros(8_571_429)));
    hand.0.fetch_add(8_571_429, Ordering::Relaxed);
    allowed(store.reserve(&ask(&limits, 2, 0)).await.unwrap());
}

#[tokio::test]
async fn one_refusing_limit_leaves_the_others_untouched() {
    let (store, _) = store();
    let limits = set(&[
        Limit::new(Scope::Organisation, Dimension::RequestsPerMinute, 60),
        Limit::new(Scope::Key, Dimension::Spend(Window::Total), 5),
    ]);
    for number in 0..100 {
        assert_eq!(refused(store.reserve(&ask(&limits, number, 6)).await.unwrap()).kind, RefusalKind::Funds);
    }
    assert_eq!(allowed(store.reserve(&ask(&limits, 200, 5)).await.unwrap()).entries[0].remaining, 9);
}

#[tokio::test]
async fn slots_come_back_by_settlement_and_by_expiry() {
    let (store, hand) = store();
    let limits = set(&[Limit::new(Scope::Key, Dimension::Concurrent, 2)]);
    let first = allowed(store.reserve(&ask(&limits, 1, 0)).await.unwrap());
    let second = allowed(store.reserve(&ask(&limits, 2, 0)).await.unwrap());
    assert_eq!(refused(store.reserve(&ask(&limits, 3, 0)).await.unwrap()).kind, RefusalKind::Rate);
    store.settle(&Settlement::new(first, &Usage::default())).await.unwrap();
    allowed(store.reserve(&ask(&limits, 3, 0)).await.unwrap());
    hand.0.fetch_add(50 * SECOND, Ordering::Relaxed);
    store.renew(&second).await.unwrap();
    hand.0.fetch_add(11 * SECOND, Ordering::Relaxed);
    allowed(store.reserve(&ask(&limits, 4, 0)).await.unwrap());
    refused(store.reserve(&ask(&limits, 5, 0)).await.unwrap());
}

#[tokio::test]
async fn the_state_survives_in_a_file_and_a_damaged_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quota");
    let clock = Arc::new(Hand(AtomicU64::new(NOON)));
    let limits = set(&[Limit::new(Scope::Key, Dimension::Spend(Window::Month), 100), Limit::new(Scope::Key, Dimension::Concurrent, 9)]);
    let store = MemoryStore::open(&path, clock.clone()).unwrap();
    let held = allowed(store.reserve(&ask(&limits, 1, 60)).await.unwrap());
    store.save().unwrap();
    let store = MemoryStore::open(&path, clock.clone()).unwrap();
    assert_eq!(refused(store.reserve(&ask(&limits, 2, 60)).await.unwrap()).remaining, 40);
    let held: Reservation = serde_json::from_str(&serde_json::to_string(&held).unwrap()).unwrap();
    assert_eq!(store.settle(&Settlement::new(held, &Usage::default())).await.unwrap(), Settled::Applied, "journalled and settled later");

    let good = std::fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let mut bad = good.clone();
        match random.u8(0..3) {
            0 => bad.truncate(random.usize(0..bad.len())),
            1 => bad.push(random.u8(..)),
            _ => {
                let at = random.usize(0..bad.len());
                bad[at] ^= 1 << random.u8(0..8);
            }
        }
        std::fs::write(&path, &bad).unwrap();
        match MemoryStore::open(&path, clock.clone()) {
            Err(FileError::Damaged { aside, .. }) => {
                assert_eq!(std::fs::read(&aside).unwrap(), bad);
                std::fs::remove_file(aside).unwrap();
                assert!(!path.exists());
            }
            Err(FileError::Newer { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("a damaged file was believed"),
        }
    }
}
