//! One slice: what was bought, what is free, what was used, who is still running.

use smallvec::SmallVec;
use ulid::Ulid;

use crate::ask::Ask;
use crate::bucket::{Cost, Meter};
use crate::clock::Micros;
use crate::decision::{Entry, Mode, Reservation};
use crate::settlement::Settlement;
use crate::wallet::SPENDABLE;

/// Quota that this edge owns.
#[derive(Debug)]
pub(super) struct Slice {
    reservation: Reservation,
    /// Not spent. Negative when requests used more than they had reserved.
    free: SmallVec<[i64; 4]>,
    /// What ended requests used.
    used: SmallVec<[Cost; 4]>,
    running: u32,
    /// Nothing is taken any more, what was free is given back.
    closed: bool,
    returned: bool,
    spend_until: Micros,
    touched: Micros,
    renewed: Micros,
}

impl Slice {
    pub(super) fn new(reservation: Reservation, request_lifetime: Micros, now: Micros) -> Self {
        let period_end = reservation.entries.iter().filter_map(|entry| entry.period.map(|period| period.end)).min().unwrap_or(Micros::MAX);
        let latest = reservation.expires_at.saturating_sub(request_lifetime);
        Self {
            free: reservation.entries.iter().map(|entry| signed(entry.held)).collect(),
            used: reservation.entries.iter().map(|_| 0).collect(),
            running: 0,
            closed: false,
            returned: false,
            spend_until: period_end.min(latest).min(now + SPENDABLE),
            touched: now,
            renewed: now,
            reservation,
        }
    }

    pub(super) fn id(&self) -> Ulid {
        self.reservation.id
    }

    pub(super) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Pays a request, if everything it needs is here.
    pub(super) fn take(&mut self, ask: &Ask<'_>, now: Micros) -> Option<Reservation> {
        // A limit that changed since makes the slice another currency.
        let pays =
            !self.closed
                && now < self.spend_until
                && self.reservation.entries.len() == ask.rows.len()
                && self.reservation.entries.iter().zip(&self.free).zip(&ask.rows).all(|((entry, free), row)| {
                    entry.bucket.key == row.bucket.key && entry.amount == row.amount && *free >= signed(row.least)
                });
        if !pays {
            return None;
        }
        self.running += 1;
        self.touched = now;
        let entries = self.reservation.entries.iter().zip(&mut self.free).zip(&ask.rows).map(|((entry, free), row)| {
            *free -= signed(row.least);
            Entry {
                bucket: row.bucket.clone(),
                period: entry.period,
                amount: entry.amount,
                held: row.least,
                // What the store had left, and what is free here.
                remaining: entry.remaining.saturating_add(signed(row.rule.amount(u64::try_from(*free).unwrap_or(0)))),
                reset_after: entry.reset_after,
            }
        });
        Some(Reservation {
            id: self.reservation.id,
            expires_at: self.reservation.expires_at,
            mode: Mode::Slice,
            parts: self.reservation.parts,
            slot: self.reservation.slot.clone(),
            key: self.reservation.key.clone(),
            selection: self.reservation.selection,
            entries: entries.collect(),
            shadowed: self.reservation.shadowed,
        })
    }

    /// Whether more than half of it is there.
    pub(super) fn is_filled(&self, now: Micros) -> bool {
        !self.closed
            && now < self.spend_until
            && self.reservation.entries.iter().zip(&self.free).all(|(entry, free)| entry.held == 0 || *free * 2 >= signed(entry.held))
    }

    /// A request has ended.
    pub(super) fn settle(&mut self, settlement: &Settlement) {
        self.running = self.running.saturating_sub(1);
        // What it gave back late is given back again, or one long stream would hold the rest of its slice.
        self.returned = false;
        for (index, (entry, &used)) in settlement.reservation.entries.iter().zip(&settlement.used).enumerate() {
            // A slot is not used up: the next request takes it.
            let used = if entry.bucket.meter() == Meter::Slots { 0 } else { used };
            if let (Some(total), Some(free)) = (self.used.get_mut(index), self.free.get_mut(index)) {
                *total = total.saturating_add(used);
                *free = free.saturating_add(signed(entry.held)).saturating_sub(signed(used));
            }
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Closes it when it is idle, worn out or overdrawn; says once per state what the store should keep.
    pub(super) fn retire(&mut self, now: Micros, idle: Micros) -> Option<Vec<Cost>> {
        let overdrawn = self.free.iter().any(|free| *free < 0);
        let empty = self.reservation.entries.iter().zip(&self.free).any(|(entry, free)| entry.held > 0 && *free * 20 < signed(entry.held));
        self.closed |= overdrawn
            || now >= self.spend_until
            || now >= self.touched.saturating_add(idle)
            || (empty && now >= self.touched.saturating_add(idle / 4));
        if !self.closed || self.returned || self.running == 0 {
            return None;
        }
        self.returned = true;
        if self.free.iter().all(|free| *free <= 0) {
            return None;
        }
        let keep = self.reservation.entries.iter().zip(&mut self.free).map(|(entry, free)| {
            let spare = u64::try_from(*free).unwrap_or(0);
            *free = (*free).min(0);
            entry.held.saturating_sub(spare)
        });
        Some(keep.collect())
    }

    pub(super) fn is_over(&self) -> bool {
        self.closed && self.running == 0
    }

    pub(super) fn renewal_is_due(&mut self, now: Micros, every: Micros) -> bool {
        let due = self.reservation.is_leased() && now >= self.renewed.saturating_add(every);
        if due {
            self.renewed = now;
        }
        due
    }

    pub(super) fn settlement(&self) -> Settlement {
        Settlement { reservation: self.reservation.clone(), used: self.used.clone() }
    }

    pub(super) fn into_settlement(self) -> Settlement {
        Settlement { reservation: self.reservation, used: self.used }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
