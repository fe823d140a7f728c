//! The rules of quotas, written down a second time as plainly as possible: wide integers, lists, no sharing of code with the crate.

#![expect(unreachable_pub, reason = "modules of a test binary")]

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_quota::{Dimension, Limit, Settlement, TokenKind, Usage, Window};
use ulid::Ulid;

/// What a store should answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Allowed(Vec<(u64, i64)>),
    Refused { dimension: &'static str, status: u16, retry_after: Option<u64>, too_big: bool },
}

pub struct Reference {
    limits: Vec<Limit>,
    arrival: BTreeMap<usize, i128>,
    spent: BTreeMap<(usize, i128), i128>,
    /// By limit, holder and number: until.
    slots: BTreeMap<(usize, Ulid, i128), i128>,
    /// Until, and what is held per limit; `None` when settled.
    reservations: BTreeMap<Ulid, (i128, Option<BTreeMap<usize, i128>>)>,
    /// Which period a reservation counted in.
    periods: BTreeMap<(Ulid, usize), i128>,
}

const MINUTE: i128 = 60_000_000;
const DAY: i128 = 86_400_000_000;
const LEASE: i128 = 60_000_000;
const SLACK: i128 = 60_000_000;
const BLOCKED: i128 = 1_000 * DAY;

enum Kind {
    Rate,
    Slots,
    Budget,
}

impl Reference {
    pub fn new(limits: Vec<Limit>) -> Self {
        Self {
            limits,
            arrival: BTreeMap::new(),
            spent: BTreeMap::new(),
            slots: BTreeMap::new(),
            reservations: BTreeMap::new(),
            periods: BTreeMap::new(),
        }
    }

    pub fn reserve(
        &mut self,
        now: u64,
        id: Ulid,
        rows: &[usize],
        least: &Usage,
        slice: Option<(Usage, u32, u32)>,
        lifetime: Duration,
    ) -> Answer {
        let now = i128::from(now);
        let left: Vec<i128> = rows.iter().map(|&row| self.left(row, now)).collect();
        if let Some((until, held)) = self.reservations.get(&id)
            && *until > now
        {
            let held: Vec<i128> = match held {
                // By position, as it was asked for before.
                Some(held) => {
                    let mut all: Vec<(&usize, &i128)> = held.iter().collect();
                    all.sort();
                    all.iter().map(|(_, cost)| **cost).collect()
                }
                None => Vec::new(),
            };
            let entries = rows.iter().zip(&left).enumerate();
            return Answer::Allowed(
                entries.map(|(at, (&row, &left))| (held.get(at).copied().unwrap_or(0) as u64, self.amount(row, left))).collect(),
            );
        }
        let costs: Vec<i128> = rows.iter().map(|&row| self.capped(row, least)).collect();
        let refusals = rows.iter().zip(&costs).zip(&left).filter(|((row, cost), left)| !self.limits[**row].shadow && *cost > *left);
        let mut worst: Option<(usize, i128, bool)> = None;
        for ((&row, &cost), &left) in refusals {
            let wait = match kind(&self.limits[row]) {
                Kind::Rate => cost - left,
                Kind::Slots => 1_000_000,
                Kind::Budget => self.period_end(row, now).map_or(i128::MAX, |end| end - now),
            };
            if worst.is_none_or(|(_, longest, _)| wait > longest) {
                worst = Some((row, wait, cost > self.capacity(row)));
            }
        }
        if let Some((row, wait, too_big)) = worst {
            let dimension = self.limits[row].dimension;
            return Answer::Refused {
                dimension: dimension.as_str(),
                status: if dimension.is_spend() { 402 } else { 429 },
                retry_after: (wait < i128::MAX && !too_big).then_some(wait as u64),
                too_big,
            };
        }
        let mut held = BTreeMap::new();
        let mut entries = Vec::new();
        for ((&row, &least), &left) in rows.iter().zip(&costs).zip(&left) {
            let cost = match slice {
                None => least,
                Some((want, slots, divisor)) => {
                    let hoped = if let Kind::Slots = kind(&self.limits[row]) { i128::from(slots) } else { self.cost(row, &want) };
                    let want = hoped.min(self.capacity(row) / 20).max(least);
                    want.min(left.max(0) / i128::from(divisor)).max(least)
                }
            };
            let period = self.period_start(row, now);
            self.periods.insert((id, row), period);
            match kind(&self.limits[row]) {
                Kind::Rate => self.move_arrival(row, cost, now),
                Kind::Slots => self.lease(row, id, cost, (now + LEASE).min(now + lifetime.as_micros() as i128)),
                Kind::Budget => *self.spent.entry((row, period)).or_default() += cost,
            }
            held.insert(row, cost);
            entries.push((cost as u64, self.amount(row, left - cost)));
        }
        self.reservations.insert(id, (now + lifetime.as_micros() as i128, Some(held)));
        Answer::Allowed(entries)
    }

    pub fn settle(&mut self, now: u64, settlement: &Settlement, rows: &[usize]) -> &'static str {
        let now = i128::from(now);
        let reservation = &settlement.reservation;
        let id = reservation.id;
        let alive = self.reservations.get(&id).filter(|(until, _)| *until > now);
        let (held, word) = match alive {
            Some((_, None)) => return "repeated",
            Some((_, Some(held))) => (held.values().copied().collect::<Vec<_>>(), "applied"),
            None if i128::from(reservation.expires_at) <= now => return "expired",
            None => (Vec::new(), "restored"),
        };
        for (at, &row) in rows.iter().enumerate() {
            let used = used(settlement)[at];
            let delta = used - held.get(at).copied().unwrap_or(0);
            let period = reservation.entries[at].period.map_or(0, |period| i128::from(period.start));
            self.change(row, period, delta, now);
            self.free(row, id, 0, held.get(at).copied().unwrap_or(0));
        }
        self.reservations.insert(id, (i128::from(reservation.expires_at) + SLACK, None));
        word
    }

    pub fn renew(&mut self, now: u64, id: Ulid, rows: &[usize]) {
        let now = i128::from(now);
        let Some((until, Some(held))) = self.reservations.get(&id) else { return };
        if *until <= now {
            return;
        }
        let until = *until;
        let costs: Vec<i128> = held.values().copied().collect();
        for (at, &row) in rows.iter().enumerate() {
            let cost = costs.get(at).copied().unwrap_or(0);
            if let Kind::Slots = kind(&self.limits[row])
                && cost > 0
            {
                self.lease(row, id, cost, (now + LEASE).min(until));
            }
        }
    }

    pub fn give_back(&mut self, now: u64, reservation: &tidegate_quota::Reservation, rows: &[usize], keep: &[u64]) {
        let now = i128::from(now);
        let id = reservation.id;
        let Some((until, Some(held))) = self.reservations.get(&id) else { return };
        if *until <= now {
            return;
        }
        let mut held: Vec<(usize, i128)> = held.iter().map(|(row, cost)| (*row, *cost)).collect();
        for (at, &row) in rows.iter().enumerate() {
            let keep = i128::from(keep[at]);
            if held[at].1 <= keep {
                continue;
            }
            let period = reservation.entries[at].period.map_or(0, |period| i128::from(period.start));
            self.change(row, period, keep - held[at].1, now);
            self.free(row, id, keep, held[at].1);
            held[at].1 = keep;
        }
        self.reservations.get_mut(&id).unwrap().1 = Some(held.into_iter().collect());
    }

    pub fn look(&self, now: u64) -> Vec<i64> {
        (0..self.limits.len()).map(|row| self.amount(row, self.left(row, i128::from(now)))).collect()
    }

    /// Slots number 1 to `count`; a holder has each number once.
    fn lease(&mut self, row: usize, holder: Ulid, count: i128, until: i128) {
        for number in 1..=count {
            self.slots.insert((row, holder, number), until);
        }
    }

    /// Of the slots number 1 to `held`, those beyond `keep`.
    fn free(&mut self, row: usize, holder: Ulid, keep: i128, held: i128) {
        self.slots.retain(|(other, of, number), _| (*other, *of) != (row, holder) || *number <= keep || *number > held);
    }

    fn change(&mut self, row: usize, period: i128, delta: i128, now: i128) {
        match kind(&self.limits[row]) {
            Kind::Rate => self.move_arrival(row, delta, now),
            Kind::Slots => {}
            Kind::Budget => {
                let counter = self.spent.entry((row, period)).or_default();
                *counter = (*counter + delta).max(0);
            }
        }
    }

    fn move_arrival(&mut self, row: usize, delta: i128, now: i128) {
        if delta == 0 {
            return;
        }
        let ahead = now + self.capacity(row) + MINUTE;
        let arrival = self.arrival.entry(row).or_default();
        *arrival = (*arrival).min(ahead);
        *arrival = if delta > 0 { ((*arrival).max(now) + delta).min(ahead) } else { *arrival + delta };
        if *arrival <= now {
            *arrival = 0;
        }
    }

    fn left(&self, row: usize, now: i128) -> i128 {
        let most = self.capacity(row);
        match kind(&self.limits[row]) {
            Kind::Rate => {
                let arrival = self.arrival.get(&row).copied().unwrap_or(0).max(now).min(now + most + MINUTE);
                most - (arrival - now)
            }
            Kind::Slots => most - self.slots.iter().filter(|((other, ..), until)| *other == row && **until > now).count() as i128,
            Kind::Budget => most - self.spent.get(&(row, self.period_start(row, now))).copied().unwrap_or(0),
        }
    }

    /// Microseconds of a rate, or the amount.
    fn capacity(&self, row: usize) -> i128 {
        let limit = &self.limits[row];
        let amount = i128::from(limit.amount);
        match limit.dimension {
            Dimension::RequestsPerMinute | Dimension::TokensPerMinute(_) if amount == 0 => 0,
            Dimension::RequestsPerMinute => limit.burst.map_or((amount / 6).max(1), i128::from) * up(MINUTE, amount),
            Dimension::TokensPerMinute(_) => up(limit.burst.map_or(amount, i128::from) * MINUTE, amount),
            _ => amount,
        }
    }

    fn cost(&self, row: usize, usage: &Usage) -> i128 {
        let limit = &self.limits[row];
        let amount = i128::from(limit.amount);
        let tokens = |tokens: u64| up(i128::from(tokens) * MINUTE, amount);
        match limit.dimension {
            Dimension::RequestsPerMinute if amount == 0 => i128::from(usage.requests) * BLOCKED,
            Dimension::RequestsPerMinute => (i128::from(usage.requests) * up(MINUTE, amount)).min(BLOCKED),
            Dimension::TokensPerMinute(kind) => {
                let count = match kind {
                    TokenKind::Input => usage.input_tokens,
                    TokenKind::Output => usage.output_tokens,
                    TokenKind::Both => usage.input_tokens + usage.output_tokens,
                };
                if amount == 0 { (i128::from(count) * BLOCKED).min(BLOCKED) } else { tokens(count).min(BLOCKED) }
            }
            Dimension::Concurrent => 1,
            Dimension::Spend(_) => i128::from(usage.micro_dollars),
            Dimension::FreeRequestsPerDay => i128::from(usage.free) * i128::from(usage.requests),
        }
    }

    fn capped(&self, row: usize, usage: &Usage) -> i128 {
        let cost = self.cost(row, usage);
        match kind(&self.limits[row]) {
            Kind::Rate if self.capacity(row) > 0 => cost.min(self.capacity(row)),
            _ => cost,
        }
    }

    fn amount(&self, row: usize, left: i128) -> i64 {
        let limit = &self.limits[row];
        let amount = i128::from(limit.amount);
        let size = left.abs();
        let whole = match limit.dimension {
            Dimension::RequestsPerMinute | Dimension::TokensPerMinute(_) if amount == 0 => size / BLOCKED,
            Dimension::RequestsPerMinute => size / up(MINUTE, amount),
            Dimension::TokensPerMinute(_) => size * amount / MINUTE,
            _ => size,
        };
        (if left < 0 { -whole } else { whole }) as i64
    }

    fn period_start(&self, row: usize, now: i128) -> i128 {
        self.period(row, now).map_or(0, |(start, _)| start)
    }

    fn period_end(&self, row: usize, now: i128) -> Option<i128> {
        self.period(row, now).map(|(_, end)| end)
    }

    fn period(&self, row: usize, now: i128) -> Option<(i128, i128)> {
        let limit = &self.limits[row];
        let offset = i128::from(limit.utc_offset_minutes) * MINUTE;
        let day = (now + offset).div_euclid(DAY);
        let window = match limit.dimension {
            Dimension::Spend(window) => window,
            _ => Window::Day,
        };
        let (first, last) = match window {
            Window::Total => return None,
            Window::Day => (day, day + 1),
            Window::Week => {
                let mut monday = day;
                while monday.rem_euclid(7) != 4 {
                    monday -= 1;
                }
                (monday, monday + 7)
            }
            Window::Month => {
                let (mut first, mut year, mut month) = (0, 1970, 0);
                loop {
                    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
                    let length = [31, 28 + i128::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month];
                    if day < first + length {
                        break (first, first + length);
                    }
                    first += length;
                    month += 1;
                    if month == 12 {
                        (year, month) = (year + 1, 0);
                    }
                }
            }
        };
        Some((first * DAY - offset, last * DAY - offset))
    }
}

fn kind(limit: &Limit) -> Kind {
    match limit.dimension {
        Dimension::RequestsPerMinute | Dimension::TokensPerMinute(_) => Kind::Rate,
        Dimension::Concurrent => Kind::Slots,
        Dimension::Spend(_) | Dimension::FreeRequestsPerDay => Kind::Budget,
    }
}

fn up(numerator: i128, denominator: i128) -> i128 {
    (numerator + denominator - 1) / denominator
}

/// What a settlement says was used, read from its written form.
fn used(settlement: &Settlement) -> Vec<i128> {
    let written = serde_json::to_value(settlement).unwrap();
    written["used"].as_array().unwrap().iter().map(|used| i128::from(used.as_u64().unwrap())).collect()
}
