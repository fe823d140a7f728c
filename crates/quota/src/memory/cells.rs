//! The counters of some organisations, and the rules by which they change. Pure: the time is an argument.
//!
//! The Lua scripts do the same, line by line; a change here is a change there.

mod remembered;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use ulid::Ulid;

use self::remembered::Remembered;
use crate::ask::{Ask, DONE_SLACK, Given, LEASE, Row, Verdict};
use crate::bucket::{Cost, Rule};
use crate::clock::Micros;
use crate::decision::{Entry, Reservation};
use crate::period::Period;
use crate::set::MOST_SLOTS;
use crate::settlement::{Settled, Settlement};
use crate::store::SpentEntry;

/// Found by names that the configuration gives and by ids of our own making, several times per request.
type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// Counters and reservations of the organisations of a shard.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    by_slot: Map<Arc<str>, Counters>,
    swept_at: Micros,
}

/// The state of one organisation.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Theoretical arrival times.
    arrivals: Map<Arc<str>, Micros>,
    /// Spent per period, keyed by the period's start.
    spent: Map<Arc<str>, SmallVec<[Spent; 1]>>,
    /// Slots: expiry per holder.
    slots: Map<Arc<str>, Vec<Slot>>,
    reservations: Map<Ulid, Held>,
    /// Requests that have been settled.
    #[serde(default)]
    settled: Remembered,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Spent {
    start: Micros,
    end: Micros,
    amount: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Slot {
    holder: Ulid,
    /// From 1 on: a holder that takes a number again has it once.
    #[serde(default)]
    number: u64,
    until: Micros,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Held {
    until: Micros,
    /// `None` for one that was settled, in files of versions that kept both in one place.
    costs: Option<SmallVec<[Cost; 4]>>,
}

/// How often expired state is looked for. What is expired is never used in between; this is about memory alone.
const SWEEP_EVERY: Micros = 30_000_000;
/// What has expired is removed only so much later: a clock that is set back finds it again.
const CLOCK_BACK: Micros = 600_000_000;
/// How long a settled request is remembered. Redis keeps it until nobody can settle it again; here nobody repeats a settlement that was
/// answered, and at thousands of requests per second the memory would be the larger harm.
const REMEMBER: Micros = 60_000_000;
/// How long a budget's counter outlives its period.
const PERIOD_SLACK: Micros = 3 * 86_400 * 1_000_000;

impl Cells {
    pub(crate) fn reserve(&mut self, ask: &Ask<'_>, now: Micros) -> Verdict {
        self.sweep(now);
        let state = match self.by_slot.get_mut(&ask.limits.slot) {
            Some(state) => state,
            None => self.by_slot.entry(ask.limits.slot.clone()).or_default(),
        };
        state.reserve(ask, now)
    }

    pub(crate) fn settle(&mut self, settlement: &Settlement, now: Micros) -> Settled {
        self.sweep(now);
        self.by_slot.entry(settlement.reservation.slot.clone()).or_default().settle(settlement, now)
    }

    pub(crate) fn renew(&mut self, reservation: &Reservation, now: Micros) {
        if let Some(state) = self.by_slot.get_mut(&reservation.slot) {
            state.renew(reservation, now);
        }
    }

    pub(crate) fn give_back(&mut self, slice: &Reservation, keep: &[Cost], now: Micros) {
        if let Some(state) = self.by_slot.get_mut(&slice.slot) {
            state.give_back(slice, keep, now);
        }
    }

    /// What is left of a rule, and how long until it is whole.
    pub(crate) fn look(&self, slot: &str, key: &str, rule: &Rule, now: Micros) -> (i64, Micros) {
        self.by_slot.get(slot).map_or_else(|| Counters::default().look(key, rule, now), |state| state.look(key, rule, now))
    }

    pub(crate) fn restore(&mut self, slot: &Arc<str>, spent: &[SpentEntry]) {
        let state = self.by_slot.entry(slot.clone()).or_default();
        for entry in spent {
            let counter = state.counter(&entry.bucket.key, &entry.period);
            *counter = (*counter).max(entry.micro_dollars);
        }
    }

    pub(crate) fn absorb(&mut self, slot: Arc<str>, state: Counters) {
        self.by_slot.insert(slot, state);
    }

    /// A copy of everything that still matters, per organisation.
    pub(crate) fn export(&mut self, now: Micros) -> Vec<(Arc<str>, Counters)> {
        self.swept_at = 0;
        self.sweep(now);
        self.by_slot.iter().map(|(slot, state)| (slot.clone(), state.clone())).collect()
    }

    fn sweep(&mut self, now: Micros) {
        if now < self.swept_at.saturating_add(SWEEP_EVERY) {
            return;
        }
        self.swept_at = now;
        self.by_slot.retain(|_, state| {
            state.sweep(now);
            !state.is_empty()
        });
    }
}

impl Counters {
    fn reserve(&mut self, ask: &Ask<'_>, now: Micros) -> Verdict {
        let looks: SmallVec<[(i64, Micros); 4]> = ask.rows.iter().map(|row| self.look(&row.bucket.key, &row.rule, now)).collect();
        let held = self.reservations.get(&ask.id).filter(|held| held.until > now);
        if held.is_some() || self.settled.has(ask.id, now) {
            // Asked before: the first answer. A settled one holds nothing any more.
            let costs = held.and_then(|held| held.costs.as_deref()).unwrap_or(&[]);
            let given = looks.iter().enumerate().map(|(index, &(left, full_in))| Given {
                held: costs.get(index).copied().unwrap_or(0),
                left,
                full_in,
            });
            return Verdict::Granted(given.collect());
        }
        let mut refusal: Option<(usize, Micros)> = None;
        for (index, (row, &(available, _))) in ask.rows.iter().zip(&looks).enumerate() {
            if !row.bucket.limit.shadow && signed(row.least) > available {
                let wait = row.wait(available, now);
                if refusal.is_none_or(|(_, longest)| wait > longest) {
                    refusal = Some((index, wait));
                }
            }
        }
        if let Some((row, wait)) = refusal {
            return Verdict::Refused { row, wait, left: looks[row].0 };
        }
        let mut costs = SmallVec::new();
        let given = ask.rows.iter().zip(looks).map(|(row, (available, full_in))| {
            let part = u64::try_from(available).unwrap_or(0) / ask.divisor;
            let cost = row.want.min(part).max(row.least);
            self.take(row, ask, cost, now);
            costs.push(cost);
            let full_in = if matches!(row.rule, Rule::Rate(_)) { full_in.saturating_add(cost) } else { full_in };
            Given { held: cost, left: available.saturating_sub(signed(cost)), full_in }
        });
        let given = given.collect();
        self.reservations.insert(ask.id, Held { until: now.saturating_add(ask.lifetime), costs: Some(costs) });
        Verdict::Granted(given)
    }

    fn look(&self, key: &str, rule: &Rule, now: Micros) -> (i64, Micros) {
        match rule {
            Rule::Rate(rate) => {
                // Clamped from both sides: the past is full, and a time too far ahead is a clock that jumped.
                let arrival = self.arrivals.get(key).copied().unwrap_or(0).clamp(now, now.saturating_add(rate.furthest()));
                (signed(rate.tolerance) - signed(arrival - now), arrival - now)
            }
            Rule::Slots { limit } => {
                let active = self.slots.get(key).map_or(0, |slots| slots.iter().filter(|slot| slot.until > now).count());
                (signed(*limit) - i64::try_from(active).unwrap_or(i64::MAX), 0)
            }
            Rule::Budget { limit, period } => {
                let spent = self.spent.get(key).and_then(|all| all.iter().find(|spent| spent.start == period.start));
                (signed(*limit) - signed(spent.map_or(0, |spent| spent.amount)), period.end.saturating_sub(now))
            }
        }
    }

    fn take(&mut self, row: &Row<'_>, ask: &Ask<'_>, cost: Cost, now: Micros) {
        if cost == 0 {
            return;
        }
        let key = &row.bucket.key;
        match &row.rule {
            Rule::Rate(rate) => self.move_arrival(key, signed(cost), now, rate.furthest()),
            Rule::Slots { .. } => {
                let slots = self.slots.entry(key.clone()).or_default();
                slots.retain(|slot| slot.until > now.saturating_sub(CLOCK_BACK));
                lease(slots, ask.id, cost, now.saturating_add(LEASE.min(ask.lifetime)));
            }
            Rule::Budget { period, .. } => {
                let counter = self.counter(key, period);
                *counter = counter.saturating_add(cost);
            }
        }
    }

    fn settle(&mut self, settlement: &Settlement, now: Micros) -> Settled {
        let reservation = &settlement.reservation;
        if self.settled.has(reservation.id, now) {
            return Settled::Repeated;
        }
        // One that has expired stays: a clock that is set back finds it again.
        let is_held = self.reservations.get(&reservation.id).is_some_and(|held| held.until > now);
        let held = if is_held { self.reservations.remove(&reservation.id) } else { None };
        let (costs, settled) = match held {
            Some(Held { costs: None, .. }) => (SmallVec::new(), Settled::Repeated),
            Some(Held { costs: Some(costs), .. }) => (costs, Settled::Applied),
            None if reservation.expires_at <= now => return Settled::Expired,
            None => (SmallVec::new(), Settled::Restored),
        };
        let until = reservation.expires_at.saturating_add(DONE_SLACK).min(now.saturating_add(REMEMBER));
        self.settled.insert(reservation.id, until);
        if settled == Settled::Repeated {
            return settled;
        }
        for (index, (entry, &used)) in reservation.entries.iter().zip(&settlement.used).enumerate() {
            let delta = signed(used).saturating_sub(signed(costs.get(index).copied().unwrap_or(0)));
            self.correct(entry, reservation, delta, now);
            self.free(entry, reservation.id, 0, costs.get(index).copied().unwrap_or(0));
        }
        settled
    }

    fn give_back(&mut self, slice: &Reservation, keep: &[Cost], now: Micros) {
        let Some(Held { until, costs: Some(costs) }) = self.reservations.get(&slice.id) else { return };
        if *until <= now {
            return;
        }
        let mut costs = costs.clone();
        for ((entry, held), &keep) in slice.entries.iter().zip(&mut costs).zip(keep) {
            if *held > keep {
                self.correct(entry, slice, signed(keep) - signed(*held), now);
                self.free(entry, slice.id, keep, *held);
                *held = keep;
            }
        }
        if let Some(held) = self.reservations.get_mut(&slice.id) {
            held.costs = Some(costs);
        }
    }

    /// Adds a difference to a rate or a budget.
    fn correct(&mut self, entry: &Entry, reservation: &Reservation, delta: i64, now: Micros) {
        if delta == 0 {
            return;
        }
        match (entry.bucket.rule(entry.amount, now, reservation.parts.into()), &entry.period) {
            (Rule::Rate(rate), _) => self.move_arrival(&entry.bucket.key, delta, now, rate.furthest()),
            (Rule::Budget { .. }, Some(period)) => {
                let counter = self.counter(&entry.bucket.key, period);
                *counter = counter.saturating_add_signed(delta);
            }
            (Rule::Budget { .. }, None) | (Rule::Slots { .. }, _) => {}
        }
    }

    fn move_arrival(&mut self, key: &Arc<str>, delta: i64, now: Micros, furthest: Micros) {
        let ahead = now.saturating_add(furthest);
        let old = self.arrivals.get(key).copied().unwrap_or(0).min(ahead);
        let new = if delta > 0 { old.max(now).saturating_add_signed(delta).min(ahead) } else { old.saturating_add_signed(delta) };
        if new > now {
            self.arrivals.insert(key.clone(), new);
        } else {
            self.arrivals.remove(key);
        }
    }

    /// Lets go of the slots of `holder` numbered beyond `keep`, of the `held` that its reservation has.
    fn free(&mut self, entry: &Entry, holder: Ulid, keep: Cost, held: Cost) {
        if let Some(slots) = self.slots.get_mut(&entry.bucket.key) {
            slots.retain(|slot| slot.holder != holder || slot.number <= keep || slot.number > held);
        }
    }

    fn renew(&mut self, reservation: &Reservation, now: Micros) {
        let Some(Held { until, costs: Some(costs) }) = self.reservations.get(&reservation.id) else { return };
        if *until <= now {
            return;
        }
        for (entry, &held) in reservation.entries.iter().zip(costs) {
            if matches!(entry.bucket.meter(), crate::bucket::Meter::Slots) && held > 0 {
                let slots = self.slots.entry(entry.bucket.key.clone()).or_default();
                lease(slots, reservation.id, held, now.saturating_add(LEASE).min(*until));
            }
        }
    }

    fn counter(&mut self, key: &Arc<str>, period: &Period) -> &mut u64 {
        let all = self.spent.entry(key.clone()).or_default();
        let index = match all.iter().position(|spent| spent.start == period.start) {
            Some(index) => index,
            None => {
                all.push(Spent { start: period.start, end: period.end, amount: 0 });
                all.len() - 1
            }
        };
        &mut all[index].amount
    }

    fn sweep(&mut self, now: Micros) {
        self.settled.forget(now, REMEMBER);
        let now = now.saturating_sub(CLOCK_BACK);
        self.arrivals.retain(|_, arrival| *arrival > now);
        self.spent.retain(|_, all| {
            all.retain(|spent| spent.end.saturating_add(PERIOD_SLACK) > now);
            !all.is_empty()
        });
        self.slots.retain(|_, slots| {
            slots.retain(|slot| slot.until > now);
            !slots.is_empty()
        });
        self.reservations.retain(|_, held| held.until > now);
    }

    fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
            && self.spent.is_empty()
            && self.slots.is_empty()
            && self.reservations.is_empty()
            && self.settled.is_empty()
    }
}

/// Takes slots number 1 to `count` for a holder; those that it has already get the new end. A lease ends with its reservation at the
/// latest, so that an id that is used anew after that finds nothing of its old slots.
fn lease(slots: &mut Vec<Slot>, holder: Ulid, count: Cost, until: Micros) {
    let count = count.min(MOST_SLOTS);
    slots.retain(|slot| slot.holder != holder || slot.number > count);
    slots.extend((1..=count).map(|number| Slot { holder, number, until }));
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
