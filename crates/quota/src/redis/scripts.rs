//! The Lua scripts, and the questions put to them.
//!
//! Their text is part of the protocol between versions of Tidegate that share a server during a roll-out: a test pins each digest, so that
//! a change is made on purpose.

use std::fmt::Write as _;
use std::sync::Arc;

use redis::Cmd;

use crate::ask::{Ask, DONE_SLACK, LEASE};
use crate::bucket::{Bucket, Cost, Meter, Rule};
use crate::clock::Micros;
use crate::decision::{Entry, Reservation};
use crate::period::Period;
use crate::settlement::Settlement;
use crate::store::SpentEntry;

const CLOCK: &str = include_str!("../../redis/clock.lua");
const COUNTERS: &str = include_str!("../../redis/counters.lua");
/// For comparing stores under one clock.
const GIVEN_CLOCK: &str = "local now = tonumber(ARGV[1])\n";

/// Who tells the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClockSource {
    Server,
    Given,
}

/// One script: text and digest.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) digest: String,
}

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    reserve: Arc<Script>,
    settle: Arc<Script>,
    give_back: Arc<Script>,
    renew: Arc<Script>,
    snapshot: Arc<Script>,
    restore: Arc<Script>,
}

/// A script with its keys and arguments.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) script: Arc<Script>,
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl Script {
    fn new(source: ClockSource, body: &str) -> Arc<Self> {
        let clock = match source {
            ClockSource::Server => CLOCK,
            ClockSource::Given => GIVEN_CLOCK,
        };
        let text = format!("{clock}{COUNTERS}{body}");
        let digest = redis::Script::new(&text).get_hash().to_owned();
        Arc::new(Self { text, digest })
    }
}

impl Scripts {
    pub(super) fn new(source: ClockSource) -> Self {
        Self {
            reserve: Script::new(source, include_str!("../../redis/reserve.lua")),
            settle: Script::new(source, include_str!("../../redis/settle.lua")),
            give_back: Script::new(source, include_str!("../../redis/return.lua")),
            renew: Script::new(source, include_str!("../../redis/renew.lua")),
            snapshot: Script::new(source, include_str!("../../redis/snapshot.lua")),
            restore: Script::new(source, include_str!("../../redis/restore.lua")),
        }
    }

    pub(super) fn reserve(&self, ask: &Ask<'_>, prepaid: bool) -> Call {
        let slot = &ask.limits.slot;
        let holder = ask.id.to_string();
        let mut call = Call::new(&self.reserve, ask.rows.len() + 2, 6 + 8 * ask.rows.len());
        call.keys.push(reservation_key(slot, &holder));
        call.keys.push(marker_key(slot));
        call.number(ask.lifetime);
        call.number(u64::from(prepaid));
        call.number(ask.divisor);
        call.number(LEASE);
        call.arguments.push(holder);
        for row in &ask.rows {
            call.keys.push(counter_key(row.bucket, row.rule.period().as_ref()));
            call.kind(row.bucket);
            call.number(row.least);
            call.number(row.want);
            call.rule(&row.rule);
            call.number(u64::from(row.bucket.limit.shadow));
        }
        call
    }

    pub(super) fn settle(&self, settlement: &Settlement) -> Call {
        let reservation = &settlement.reservation;
        let mut call = self.on_reservation(&self.settle, reservation);
        call.number(reservation.expires_at);
        call.number(DONE_SLACK);
        call.arguments.push(reservation.id.to_string());
        for (entry, used) in reservation.entries.iter().zip(&settlement.used) {
            call.change(entry, reservation, *used);
        }
        call
    }

    pub(super) fn give_back(&self, slice: &Reservation, keep: &[Cost]) -> Call {
        let mut call = self.on_reservation(&self.give_back, slice);
        call.arguments.push(slice.id.to_string());
        for (entry, keep) in slice.entries.iter().zip(keep) {
            call.change(entry, slice, *keep);
        }
        call
    }

    pub(super) fn renew(&self, reservation: &Reservation) -> Call {
        let holder = reservation.id.to_string();
        let mut call = Call::new(&self.renew, 2, 5);
        call.keys.push(reservation_key(&reservation.slot, &holder));
        call.number(LEASE);
        call.arguments.push(holder);
        for (number, entry) in (1..).zip(&reservation.entries) {
            if entry.bucket.meter() == Meter::Slots {
                call.keys.push(counter_key(&entry.bucket, None));
                call.number(number);
            }
        }
        call
    }

    pub(super) fn snapshot(&self, rules: &[(&Arc<Bucket>, Rule)]) -> Call {
        let mut call = Call::new(&self.snapshot, rules.len(), 1 + 5 * rules.len());
        for (bucket, rule) in rules {
            call.keys.push(counter_key(bucket, rule.period().as_ref()));
            call.kind(bucket);
            call.rule(rule);
        }
        call
    }

    pub(super) fn restore(&self, slot: &str, spent: &[SpentEntry]) -> Call {
        let mut call = Call::new(&self.restore, 1 + spent.len(), 1 + 2 * spent.len());
        call.keys.push(marker_key(slot));
        for entry in spent {
            call.keys.push(counter_key(&entry.bucket, Some(&entry.period)));
            call.number(entry.micro_dollars);
            call.number(entry.period.end);
        }
        call
    }

    fn on_reservation(&self, script: &Arc<Script>, reservation: &Reservation) -> Call {
        let mut call = Call::new(script, 1 + reservation.entries.len(), 4 + 4 * reservation.entries.len());
        call.keys.push(reservation_key(&reservation.slot, &reservation.id.to_string()));
        call.keys.extend(reservation.entries.iter().map(|entry| counter_key(&entry.bucket, entry.period.as_ref())));
        call
    }
}

impl Call {
    fn new(script: &Arc<Script>, keys: usize, arguments: usize) -> Self {
        Self { script: script.clone(), keys: Vec::with_capacity(keys), arguments: Vec::with_capacity(arguments) }
    }

    /// The command; by text when the server does not know the digest.
    pub(super) fn command(&self, by_text: bool, now: Micros) -> Cmd {
        let mut command = redis::cmd(if by_text { "EVAL" } else { "EVALSHA" });
        command.arg(if by_text { &self.script.text } else { &self.script.digest }).arg(self.keys.len()).arg(&self.keys);
        command.arg(now).arg(&self.arguments);
        command
    }

    fn number(&mut self, number: u64) {
        self.arguments.push(number.to_string());
    }

    fn kind(&mut self, bucket: &Bucket) {
        let kind = match bucket.meter() {
            Meter::Rate => "r",
            Meter::Slots => "s",
            Meter::Budget(_) => "b",
        };
        self.arguments.push(kind.to_owned());
    }

    /// most, furthest, start, end
    fn rule(&mut self, rule: &Rule) {
        let (most, furthest, start, end) = match rule {
            Rule::Rate(rate) => (rate.tolerance, rate.furthest(), 0, 0),
            Rule::Slots { limit } => (*limit, 0, 0, 0),
            Rule::Budget { limit, period } => (*limit, 0, period.start, period.end),
        };
        for number in [most, furthest, start, end] {
            self.number(number);
        }
    }

    /// kind, amount, furthest, end
    fn change(&mut self, entry: &Entry, reservation: &Reservation, amount: Cost) {
        self.kind(&entry.bucket);
        self.number(amount);
        let furthest = match entry.bucket.rule(entry.amount, 0, reservation.parts.into()) {
            Rule::Rate(rate) => rate.furthest(),
            Rule::Slots { .. } | Rule::Budget { .. } => 0,
        };
        self.number(furthest);
        self.number(entry.period.map_or(0, |period| period.end));
    }
}

fn reservation_key(slot: &str, id: &str) -> String {
    format!("{slot}:r:{id}")
}

fn marker_key(slot: &str) -> String {
    format!("{slot}:known")
}

fn counter_key(bucket: &Bucket, period: Option<&Period>) -> String {
    let mut key = String::with_capacity(bucket.key.len() + 14);
    key.push_str(&bucket.key);
    if let Some(period) = period {
        // Writing into a string cannot fail.
        let _ = write!(key, ":{period}");
    }
    key
}

#[cfg(test)]
mod tests;
