//! What a region may use of a global limit: a number with a lease.
//!
//! The number comes from the allocator of the limit's home region. When its lease runs out without a newer one, the floor stays: it is
//! reserved for this region for ever, so using it can never break the sum.

mod allocator;
mod holder;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::allocator::{Allocator, Assign, GRANT_LEASE, SHARE_LEASE, ShareReport, Shared};
pub use self::holder::Holder;
use crate::bucket::Bucket;
use crate::clock::Micros;

/// The share of one limit in this region. Read on the hot path, written by the control link.
#[derive(Debug, Default)]
pub struct Share {
    amount: AtomicU64,
    until: AtomicU64,
    floor: AtomicU64,
}

impl Share {
    /// What may be used at `now`.
    pub fn at(&self, now: Micros) -> u64 {
        // A reader between two writes sees the floor or an amount that was valid: `set` ends the old lease first.
        let until = self.until.load(Ordering::Acquire);
        let amount = self.amount.load(Ordering::Acquire);
        let floor = self.floor.load(Ordering::Acquire);
        if now < until && until == self.until.load(Ordering::Acquire) { amount } else { floor }
    }

    /// Takes over an assignment: `amount` until `until`, then `floor`.
    pub fn set(&self, amount: u64, until: Micros, floor: u64) {
        self.until.store(0, Ordering::Release);
        self.amount.store(amount, Ordering::Release);
        self.floor.store(floor, Ordering::Release);
        self.until.store(until, Ordering::Release);
    }
}

/// The shares of this region, by the storage key of the limit. Survives configuration changes.
#[derive(Debug, Default)]
pub struct Shares {
    by_key: Mutex<HashMap<Arc<str>, Arc<Share>>>,
}

impl Shares {
    /// The share of a limit; new ones are worth nothing until they are assigned.
    pub fn of(&self, bucket: &Bucket) -> Arc<Share> {
        self.by_key.lock().entry(bucket.key.clone()).or_default().clone()
    }

    /// The share of a storage key, if any limit of this region uses it.
    pub fn get(&self, key: &str) -> Option<Arc<Share>> {
        self.by_key.lock().get(key).cloned()
    }
}
