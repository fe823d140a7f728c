//! An edge's side of shared limits: what is reported when, and what becomes of the answers.
//!
//! Pure but for the shares it writes. A limit is reported while it is used: every three seconds a rate, every second a budget that has
//! something granted ahead, at once when a request waits or a smaller share has to be confirmed. A limit that nobody uses is not reported,
//! and its share goes to those who do.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::clock::Micros;
use crate::period::Period;
use crate::share::allocator::{Assign, ShareReport};
use crate::share::holder::{Holder, Taken};
use crate::share::name::LimitName;
use crate::share::{Share, Shared, Shares};

/// The desk of an edge.
#[derive(Debug)]
pub struct Desk {
    shares: Arc<Shares>,
    held: HashMap<String, Held>,
    /// The id of the next report.
    next_report: u64,
    /// Which limit a report was about, as long as its answer is worth something.
    asked: BTreeMap<u64, String>,
    swept: Micros,
}

#[derive(Debug)]
struct Held {
    share: Arc<Share>,
    period: Option<Period>,
    holder: Holder,
    reported: Option<Micros>,
    /// Total of what was asked at the last report, and when somebody last asked.
    asked: u64,
    asked_at: Micros,
    /// What was spent when last reported.
    spent: u64,
    /// A smaller share was taken over and home has not heard that it is confirmed.
    confirming: bool,
}

/// A report that is to be made now.
#[derive(Debug)]
pub struct Due {
    /// The limit, with its period.
    pub name: LimitName,
    /// Its share; of a budget, ask the store what [`Share::alone`] has used before the report is sent.
    pub share: Arc<Share>,
    /// Everything but what was spent.
    pub report: ShareReport,
}

/// Most reports of one message: a few dozen KiB.
pub const MOST_REPORTS: usize = 500;
/// Reports whose answers are waited for: those of four seconds, as many as there can be.
const ASKED: usize = 16 * MOST_REPORTS;
/// Time between two reports of a rate: five fit into a lease.
const RATE_EVERY: Micros = 3_000_000;
/// Of a budget in use: what was granted ahead lasts a while, what others wait for comes back soon.
const BUDGET_EVERY: Micros = 1_000_000;
/// A request that waits is told at once, but no more often than this.
const URGENT_EVERY: Micros = 200_000;
/// How often limits are looked for that no key has any more.
const SWEEP_EVERY: Micros = 60_000_000;
/// A limit that nobody asked for so long is not in use.
const IDLE: Micros = 60_000_000;

impl Desk {
    /// A desk for these shares. `first_report` must differ between lives of a process: a random number.
    pub fn new(shares: Arc<Shares>, first_report: u64) -> Self {
        Self { shares, held: HashMap::new(), next_report: first_report >> 1, asked: BTreeMap::new(), swept: 0 }
    }

    /// What is to be reported at `now` (by [`crate::monotonic`]), at most [`MOST_REPORTS`]; `wall` is the store's time, which says in which
    /// period budgets are.
    pub fn due(&mut self, now: Micros, wall: Micros) -> Vec<Due> {
        if now >= self.swept.saturating_add(SWEEP_EVERY) {
            self.swept = now;
            self.shares.sweep();
        }
        for share in self.shares.home().take_woken() {
            self.open(share, wall);
        }
        let over: Vec<String> = self.held.iter().filter(|(_, held)| held.is_over(wall)).map(|(name, _)| name.clone()).collect();
        for name in over {
            // A budget that is in use is in use in its next period as well: a grant is there before the first request.
            if let Some(held) = self.held.remove(&name)
                && !held.rests(now)
            {
                self.open(held.share, wall);
            }
        }
        let mut due: Vec<(Option<Micros>, String)> = Vec::new();
        self.held.retain(|name, held| {
            if held.is_due(now) {
                due.push((held.reported, name.clone()));
            }
            // Whoever asks from now on wakes it.
            !held.rests(now) || !held.share.sleep(held.asked)
        });
        if due.len() > MOST_REPORTS {
            // Who waits longest goes first; the rest is due at the next look.
            due.sort();
            due.truncate(MOST_REPORTS);
        }
        let mut reports = Vec::with_capacity(due.len());
        for (_, name) in due {
            let Some(held) = self.held.get_mut(&name) else { continue };
            // One row of ids for all limits: an answer names its report only.
            let due = held.due(self.next_report, now);
            self.asked.insert(self.next_report, name);
            self.next_report = self.next_report.wrapping_add(1);
            reports.push(due);
        }
        while self.asked.len() > ASKED {
            self.asked.pop_first();
        }
        reports
    }

    fn open(&mut self, share: Arc<Share>, wall: Micros) {
        let period = share.period_at(wall);
        let name = share.name().in_period(period).to_string();
        self.held.entry(name).or_insert_with(|| Held::new(share, period, Holder::new()));
    }

    /// Completes a report with what was spent.
    pub fn spent(&mut self, due: &mut Due, spent: u64) {
        due.report.spent = spent;
        if let Some(held) = self.held.get_mut(&due.name.to_string()) {
            held.spent = spent;
        }
    }

    /// Takes over an answer; `wall` as in [`Desk::due`].
    pub fn take(&mut self, assign: &Assign, now: Micros, wall: Micros) {
        let Some(held) = self.asked.remove(&assign.report).and_then(|name| self.held.get_mut(&name)) else { return };
        let taken = held.holder.take(assign, now);
        held.confirming |= taken == Taken::Less;
        let period_left = held.period.map(|period| period.end.saturating_sub(wall));
        // Of a period that is over nothing can be spent.
        if held.period.is_none_or(|period| period.contains(wall)) {
            let start = held.period.map_or(0, |period| period.start);
            held.share.describe(start, held.holder.sequence(), assign.left, now);
            held.holder.publish(&held.share, now, period_left);
        }
        self.shares.home().heard(now);
        self.shares.home().changed.notify_waiters();
    }
}

impl Held {
    fn new(share: Arc<Share>, period: Option<Period>, holder: Holder) -> Self {
        // Of a rate, what woke it is part of the first demand.
        let asked = if period.is_some() { share.asked() } else { 0 };
        Self { share, period, holder, reported: None, asked, asked_at: 0, spent: 0, confirming: false }
    }

    fn is_over(&self, wall: Micros) -> bool {
        self.period.is_some_and(|period| !period.contains(wall))
    }

    fn is_due(&mut self, now: Micros) -> bool {
        let asked = self.share.asked() != self.asked || self.share.wanted() > 0;
        if asked || self.reported.is_none() {
            self.asked_at = now;
        }
        let Some(reported) = self.reported else { return true };
        let since = now.saturating_sub(reported);
        let confirms = self.confirming && now >= self.holder.confirms_at();
        let waits = self.share.wanted() > 0;
        if (confirms || waits) && since >= URGENT_EVERY {
            return true;
        }
        match self.share.kind() {
            Shared::Rate => self.is_in_use(now) && since >= RATE_EVERY,
            Shared::Budget => !self.rests(now) && since >= BUDGET_EVERY,
        }
    }

    fn is_in_use(&self, now: Micros) -> bool {
        now < self.asked_at.saturating_add(IDLE)
    }

    /// Nothing needs to be said about it any more: nobody asks, and what was granted ahead is given back.
    fn rests(&self, now: Micros) -> bool {
        let gives_back = self.share.kind() == Shared::Budget && self.holder.value(now) > self.spent;
        self.reported.is_some() && !self.is_in_use(now) && !gives_back && !self.confirming
    }

    fn due(&mut self, id: u64, now: Micros) -> Due {
        let report = self.holder.report(id, now);
        if now >= self.holder.confirms_at() {
            self.confirming = false;
        }
        let asked = self.share.asked();
        let since = self.reported.map_or(RATE_EVERY, |reported| now.saturating_sub(reported)).max(1);
        let per_minute = u128::from(asked.saturating_sub(self.asked)) * 60_000_000 / u128::from(since);
        let demand = u64::try_from(per_minute).unwrap_or(u64::MAX);
        // A budget is in use for a while after the last request.
        let in_use = self.share.kind() == Shared::Budget && self.is_in_use(now);
        let demand = demand.max(u64::from(in_use));
        (self.asked, self.reported) = (asked, Some(now));
        let report = ShareReport { demand, wanted: self.share.wanted(), spent: self.spent, ..report };
        Due { name: self.share.name().in_period(self.period), share: Arc::clone(&self.share), report }
    }
}
