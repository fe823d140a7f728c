//! Slices: quota bought in advance for hot keys, spent from memory.
//!
//! A slice is a reservation for many requests. It is bought before it is spent, so there is no overshoot; the cost is what lies idle in
//! it, which is why it is small (two seconds of traffic, a twentieth of the limit, a share of what is left), given back after two idle
//! seconds, and not bought at all when little is left. Every request taken from a slice carries the slice's id, and the slice is settled
//! with the sum of what they used: exactly once, also by a journal after a crash ([`Settlement::merge`]).

mod pace;
mod slice;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::Mutex;
use ulid::Ulid;

use self::pace::Pace;
use self::slice::Slice;
use crate::ask::Ask;
use crate::bucket::Cost;
use crate::clock::Micros;
use crate::decision::Reservation;
use crate::set::Selection;
use crate::settlement::Settlement;
use crate::store::ReserveRequest;
use crate::usage::Usage;

/// The slices of this edge.
pub(crate) struct Wallets {
    shards: Vec<Mutex<HashMap<Owner, Wallet>>>,
    hasher: std::collections::hash_map::RandomState,
}

/// Whose slices: a key, and the limits that apply to its request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    slot: Arc<str>,
    key: Arc<str>,
    selection: Selection,
}

#[derive(Debug, Default)]
struct Wallet {
    pace: Pace,
    slices: VecDeque<Slice>,
    /// Somebody is buying.
    buying: bool,
    /// Little is left: every request asks the store until then.
    exact_until: Micros,
    /// The store failed for this key: not asked until then.
    local_until: Micros,
}

/// A decision without the store.
#[expect(clippy::large_enum_variant, reason = "nearly always the large one, and moved once")]
pub(crate) enum Taken {
    /// Paid from a slice; buy another when `refill`.
    Paid { reservation: Reservation, refill: bool },
    /// Decide locally.
    Local,
}

/// What a slice still has to tell the store.
#[derive(Debug)]
pub(crate) enum Duty {
    /// Give back what is beyond these costs.
    Return(Reservation, Vec<Cost>),
    /// The slice is over.
    Settle(Settlement),
    /// Keep its slots.
    Renew(Reservation),
}

/// How much to buy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    pub(crate) want: Usage,
    pub(crate) slots: u32,
}

const SHARDS: usize = 64;
/// Below this many requests per second a key asks the store each time.
const HOT: f64 = 5.0;
/// A slice that nobody used for so long is given back.
const IDLE: Micros = 2_000_000;
/// How long a slice is spent from. It stands for as much longer as its requests may run.
pub(crate) const SPENDABLE: Micros = 60_000_000;
/// Below this part of a limit nothing is bought in advance.
const EXACT_PART: i64 = 20;
/// How long exact mode holds before it is looked at again.
const EXACT_FOR: Micros = 1_000_000;
/// A wallet without slices and requests is forgotten.
const FORGET: Micros = 60_000_000;
/// Slots are renewed at a third of their lease.
const RENEW: Micros = crate::ask::LEASE / 3;

impl Owner {
    pub(crate) fn of(request: &ReserveRequest<'_>) -> Self {
        let limits = request.limits;
        Self { slot: limits.slot.clone(), key: limits.subject.key.clone(), selection: request.selection }
    }

    pub(crate) fn holding(reservation: &Reservation) -> Self {
        Self { slot: reservation.slot.clone(), key: reservation.key.clone(), selection: reservation.selection }
    }
}

impl Wallets {
    pub(crate) fn new() -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(), hasher: Default::default() }
    }

    /// What can be decided without the store: paid from a slice, or locally because the store failed. Counts a paid request towards its
    /// key's pace.
    pub(crate) fn peek(&self, owner: &Owner, ask: &Ask<'_>, usage: &Usage, now: Micros) -> Option<Taken> {
        let mut shard = self.shard(owner).lock();
        let wallet = shard.get_mut(owner)?;
        if let Some(reservation) = wallet.slices.iter_mut().find_map(|slice| slice.take(ask, now)) {
            wallet.pace.note(usage, now);
            let calm = wallet.buying || wallet.exact_until > now || wallet.local_until > now || wallet.pace.rate() < HOT;
            let refill = !calm && !wallet.slices.iter().any(|slice| slice.is_filled(now));
            wallet.buying |= refill;
            return Some(Taken::Paid { reservation, refill });
        }
        (wallet.local_until > now).then_some(Taken::Local)
    }

    /// Pays from a slice that is here now.
    pub(crate) fn take(&self, owner: &Owner, ask: &Ask<'_>, now: Micros) -> Option<Reservation> {
        let mut shard = self.shard(owner).lock();
        shard.get_mut(owner)?.slices.iter_mut().find_map(|slice| slice.take(ask, now))
    }

    /// Counts a request towards its key's pace.
    pub(crate) fn note(&self, owner: &Owner, usage: &Usage, now: Micros) {
        let mut shard = self.shard(owner).lock();
        match shard.get_mut(owner) {
            Some(wallet) => wallet.pace.note(usage, now),
            None => shard.entry(owner.clone()).or_default().pace.note(usage, now),
        }
    }

    /// Whether the caller should buy a slice now; if so nobody else does until [`Wallets::bought`].
    pub(crate) fn may_buy(&self, owner: &Owner, now: Micros) -> bool {
        let mut shard = self.shard(owner).lock();
        let Some(wallet) = shard.get_mut(owner) else { return false };
        let may = !wallet.buying && wallet.exact_until <= now && wallet.pace.rate() >= HOT;
        wallet.buying |= may;
        may
    }

    /// What to buy for this owner.
    pub(crate) fn demand(&self, owner: &Owner) -> Demand {
        self.shard(owner).lock().get(owner).map_or(Demand { want: Usage::default(), slots: 1 }, |wallet| wallet.pace.demand())
    }

    /// A purchase came to an end, with a slice or without.
    pub(crate) fn bought(&self, owner: &Owner, slice: Option<Reservation>, request_lifetime: Micros, now: Micros) {
        let mut shard = self.shard(owner).lock();
        let wallet = shard.entry(owner.clone()).or_default();
        wallet.buying = false;
        match slice {
            Some(reservation) => {
                wallet.observe(&reservation, now);
                wallet.slices.push_back(Slice::new(reservation, request_lifetime, now));
            }
            // Refused: the next request asks for itself alone.
            None => wallet.exact_until = now + EXACT_FOR,
        }
    }

    /// What the store said is left, after a single request.
    pub(crate) fn observe(&self, owner: &Owner, reservation: &Reservation, now: Micros) {
        self.shard(owner).lock().entry(owner.clone()).or_default().observe(reservation, now);
    }

    /// The store failed for this key: decide locally for a while.
    pub(crate) fn failed(&self, owner: &Owner, until: Micros) {
        self.shard(owner).lock().entry(owner.clone()).or_default().local_until = until;
    }

    /// A request that was paid from a slice has ended. Returns what the slice has to tell the store, if it is over. `Err` when the slice is
    /// not known here: it is another process's, and settled by its id.
    pub(crate) fn settle(&self, owner: &Owner, settlement: &Settlement) -> Result<Option<Duty>, ()> {
        let mut shard = self.shard(owner).lock();
        let wallet = shard.get_mut(owner).ok_or(())?;
        let index = wallet.slices.iter().position(|slice| slice.id() == settlement.reservation.id).ok_or(())?;
        let slice = &mut wallet.slices[index];
        slice.settle(settlement);
        Ok(if slice.is_over() { wallet.slices.remove(index).map(|slice| Duty::Settle(slice.into_settlement())) } else { None })
    }

    /// What is due: idle and worn slices go back, slots are renewed, forgotten wallets are dropped. Call it about twice a second.
    pub(crate) fn tend(&self, now: Micros, duties: &mut Vec<Duty>) {
        for shard in &self.shards {
            shard.lock().retain(|_, wallet| {
                wallet.tend(now, duties);
                !wallet.slices.is_empty() || wallet.buying || now < wallet.pace.seen().saturating_add(FORGET)
            });
        }
    }

    /// Everything goes back: the process stops.
    pub(crate) fn drain(&self, duties: &mut Vec<Duty>) {
        for shard in &self.shards {
            for wallet in shard.lock().values_mut() {
                for slice in &mut wallet.slices {
                    slice.close();
                }
                wallet.tend(0, duties);
            }
        }
    }

    fn shard(&self, owner: &Owner) -> &Mutex<HashMap<Owner, Wallet>> {
        &self.shards[usize::try_from(self.hasher.hash_one(owner) % SHARDS as u64).unwrap_or(0)]
    }
}

impl Wallet {
    fn observe(&mut self, reservation: &Reservation, now: Micros) {
        for entry in &reservation.entries {
            // Budgets only: of a minute's tokens little may be left without any harm done.
            if entry.bucket.limit.shadow || !matches!(entry.bucket.meter(), crate::bucket::Meter::Budget(_)) {
                continue;
            }
            let whole = i64::try_from(entry.amount).unwrap_or(i64::MAX);
            if entry.remaining < whole / EXACT_PART {
                self.exact_until = now + EXACT_FOR;
            }
        }
    }

    fn tend(&mut self, now: Micros, duties: &mut Vec<Duty>) {
        self.slices.retain_mut(|slice| {
            if let Some(keep) = slice.retire(now, IDLE) {
                duties.push(Duty::Return(slice.reservation().clone(), keep));
            }
            if slice.is_over() {
                duties.push(Duty::Settle(slice.settlement()));
                return false;
            }
            if slice.renewal_is_due(now, RENEW) {
                duties.push(Duty::Renew(slice.reservation().clone()));
            }
            true
        });
    }
}

pub(crate) fn slice_id(now: Micros) -> Ulid {
    Ulid::from_parts(now / 1_000, fastrand::u128(..))
}
