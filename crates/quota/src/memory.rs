//! Counting in this process: exact on one node.
//!
//! The state is split by organisation, because one decision may touch the limits of a key, its workspace and its organisation, and must
//! see them together. A decision holds its organisation's lock for about a microsecond and never across an await.

mod cells;
mod file;

use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(crate) use self::cells::Cells;
pub use self::file::FileError;
use crate::ask::{Ask, remaining, rule};
use crate::bucket::Cost;
use crate::clock::{Clock, Micros, SystemClock};
use crate::decision::{Decision, Mode, Reservation};
use crate::set::{LimitSet, Selection};
use crate::settlement::{Settled, Settlement};
use crate::store::{Pending, QuotaStore, ReserveRequest, SliceRequest, Snapshot, SpentEntry, StoreError};

/// The store of a single edge, and of `dev`.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    shards: Arc<Vec<Mutex<Cells>>>,
    hasher: std::collections::hash_map::RandomState,
    path: Option<PathBuf>,
    saved_at: AtomicU64,
}

/// Enough that organisations rarely share a lock.
const SHARDS: usize = 64;

impl MemoryStore {
    /// An empty store that forgets everything with the process.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { clock, shards: Arc::new(shards), saved_at: AtomicU64::new(0), hasher: Default::default(), path: None }
    }

    /// A store that begins with what [`MemoryStore::save`] wrote to `path`, empty when there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is of a newer version. A damaged file is set aside under the name in the error, so that
    /// opening again begins empty: that is for the caller to decide.
    pub fn open(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, FileError> {
        let path = path.into();
        let store = Self::new(clock);
        if let Some(all) = file::load(&path)? {
            for (slot, cells) in all {
                store.shard(&slot).lock().absorb(slot, cells);
            }
        }
        Ok(Self { path: Some(path), ..store })
    }

    /// Writes the state to the file of [`MemoryStore::open`], replacing it as a whole. Blocking: call it where blocking is allowed,
    /// the gate's worker does, every five seconds and at its end. Does nothing for a store without a file.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is then still in place.
    pub fn save(&self) -> Result<(), FileError> {
        let Some(path) = &self.path else { return Ok(()) };
        save(&self.shards, path, self.clock.now())
    }

    /// The same from where blocking is not allowed.
    async fn save_aside(&self) -> Result<(), StoreError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let (shards, now) = (self.shards.clone(), self.clock.now());
        let saved = tokio::task::spawn_blocking(move || save(&shards, &path, now)).await;
        let failed = |detail: String| StoreError::Unavailable { operation: "save", detail };
        saved.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(said(&error)))
    }

    /// The file it saves to.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn shard(&self, slot: &str) -> &Mutex<Cells> {
        let hash = self.hasher.hash_one(slot);
        // The remainder is below SHARDS.
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    fn decide(&self, ask: &Ask<'_>, now: u64) -> Decision {
        let verdict = self.shard(&ask.limits.slot).lock().reserve(ask, now);
        ask.decision(verdict, now, Mode::Exact)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl QuotaStore for MemoryStore {
    fn reserve_now(&self, request: &ReserveRequest<'_>) -> Option<Decision> {
        let now = self.clock.now();
        Some(self.decide(&Ask::reserve(request, now, 1), now))
    }

    fn settle_now(&self, settlement: &Settlement) -> Option<Settled> {
        Some(self.shard(&settlement.reservation.slot).lock().settle(settlement, self.clock.now()))
    }

    fn reserve<'a>(&'a self, request: &'a ReserveRequest<'a>) -> Pending<'a, Decision> {
        let now = self.clock.now();
        ready(self.decide(&Ask::reserve(request, now, 1), now))
    }

    fn settle<'a>(&'a self, settlement: &'a Settlement) -> Pending<'a, Settled> {
        ready(self.shard(&settlement.reservation.slot).lock().settle(settlement, self.clock.now()))
    }

    fn renew<'a>(&'a self, reservation: &'a Reservation) -> Pending<'a, ()> {
        self.shard(&reservation.slot).lock().renew(reservation, self.clock.now());
        ready(())
    }

    fn buy_slice<'a>(&'a self, request: &'a SliceRequest<'a>) -> Pending<'a, Decision> {
        let now = self.clock.now();
        ready(self.decide(&Ask::slice(request, now), now))
    }

    fn return_slice<'a>(&'a self, slice: &'a Reservation, keep: &'a [Cost]) -> Pending<'a, ()> {
        self.shard(&slice.slot).lock().give_back(slice, keep, self.clock.now());
        ready(())
    }

    fn snapshot<'a>(&'a self, limits: &'a LimitSet, selection: Selection) -> Pending<'a, Snapshot> {
        let now = self.clock.now();
        let shard = self.shard(&limits.slot).lock();
        let limits_slot = limits.slot.clone();
        let limits = limits.buckets(selection).map(|bucket| {
            let (_, rule) = rule(bucket, now, 1);
            let (left, full_in) = shard.look(&limits_slot, &bucket.key, &rule, now);
            remaining(bucket, &rule, left, full_in)
        });
        let limits = limits.collect();
        ready(Snapshot { at: now, limits })
    }

    /// Saves to the file every few seconds.
    fn tend(&self) -> Pending<'_, bool> {
        let now = self.clock.now();
        if self.path.is_none() || now < self.saved_at.load(Ordering::Relaxed).saturating_add(SAVE_EVERY) {
            return ready(false);
        }
        self.saved_at.store(now, Ordering::Relaxed);
        Box::pin(async move { self.save_aside().await.map(|()| false) })
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(self.save_aside())
    }

    fn restore<'a>(&'a self, organisation: &'a str, spent: &'a [SpentEntry]) -> Pending<'a, ()> {
        let slot = LimitSet::slot_of(organisation);
        self.shard(&slot).lock().restore(&slot, spent);
        ready(())
    }
}

fn save(shards: &[Mutex<Cells>], path: &Path, now: Micros) -> Result<(), FileError> {
    let mut all = Vec::new();
    for shard in shards {
        all.extend(shard.lock().export(now));
    }
    file::save(path, all)
}

/// An error with its causes.
fn said(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// What a crash may lose; a clean end loses nothing.
const SAVE_EVERY: Micros = 5_000_000;

fn ready<'a, T: Send + 'a>(value: T) -> Pending<'a, T> {
    Box::pin(std::future::ready(Ok::<T, StoreError>(value)))
}

#[cfg(test)]
mod tests;
