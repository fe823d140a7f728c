//! Limits that span regions, on this edge: a task that reports what is used and takes over what home answers.
//!
//! The desk decides what is reported when (`quota`); here it is given the time, the counters of the store, and the way to home, which is
//! the stream of the control link. Without a control plane, or while fewer than two regions are declared, nothing is shared and a limit is
//! what it says.

mod gauges;
mod show;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tidegate_proto::v1::{Assign, ShareReport, ShareReports};
use tidegate_quota::{Desk, Due, Meter, Shared as Kind, Shares, monotonic};
use tidegate_runtime::Shutdown;
use tokio::sync::Notify;

pub(crate) use gauges::ShareGauges;
pub(crate) use show::route;

use crate::shared::Shared;

/// Between the task and the control link.
#[derive(Default)]
pub(crate) struct ShareLink {
    /// A message to be sent; a newer one replaces one that was not, whose reports are then made again.
    outgoing: Mutex<Option<ShareReports>>,
    ready: Notify,
    incoming: Mutex<Vec<Assign>>,
    /// The control node takes reports.
    linked: AtomicBool,
}

impl ShareLink {
    /// The next message; waits while there is none. Dropping the wait loses nothing.
    pub(crate) async fn outgoing(&self) -> ShareReports {
        loop {
            if let Some(reports) = self.outgoing.lock().take() {
                return reports;
            }
            self.ready.notified().await;
        }
    }

    /// Home has answered.
    pub(crate) fn heard(&self, shares: &Shares, assign: Assign) {
        let mut incoming = self.incoming.lock();
        // Each answers a message of the last seconds.
        if incoming.len() < MOST_ANSWERS {
            incoming.push(assign);
        }
        drop(incoming);
        shares.home().arrived();
    }

    /// A control node is followed that takes reports, or none is any more.
    pub(crate) fn link(&self, shares: &Shares, linked: bool) {
        self.linked.store(linked, Ordering::Relaxed);
        shares.home().link(linked);
    }

    fn send(&self, reports: ShareReports) {
        *self.outgoing.lock() = Some(reports);
        self.ready.notify_one();
    }
}

/// Reports until the stop is requested.
pub(crate) async fn run(shared: Arc<Shared>, shares: Arc<Shares>, stopped: Shutdown) {
    let mut desk = Desk::new(Arc::clone(&shares), fastrand::u64(..));
    let remote = shared.config.quota.is_shared();
    let mut sent = 0;
    loop {
        // Dropping a branch loses nothing: a need is kept, and the rest is a clock.
        tokio::select! {
            biased;
            () = stopped.requested() => return,
            () = shares.home().needed() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        for assign in std::mem::take(&mut *shared.share_link.incoming.lock()) {
            take(&mut desk, &shares, assign, store_now(&shared));
        }
        if !shared.share_link.linked.load(Ordering::Relaxed) || !shared.state.load().owners.is_shared() {
            continue;
        }
        let due = desk.due(monotonic(), store_now(&shared));
        if due.is_empty() && monotonic().saturating_sub(sent) < HEARTBEAT {
            continue;
        }
        let reports = counted(&shared, &mut desk, due).await;
        sent = monotonic();
        shared.share_link.send(ShareReports { shared_store: remote, reports, ..ShareReports::default() });
    }
}

/// The time that says in which period a budget is counted.
fn store_now(shared: &Shared) -> u64 {
    shared.clock.unix_micros().saturating_add_signed(shared.quotas.gate().store().ahead())
}

/// Adds to each report what was spent. A budget whose counter gives no answer is not reported: without it nothing can be said.
async fn counted(shared: &Shared, desk: &mut Desk, due: Vec<Due>) -> Vec<ShareReport> {
    let mut reports = Vec::with_capacity(due.len());
    let mut reading = FuturesUnordered::new();
    let mut waiting = due.into_iter();
    loop {
        while reading.len() < READ_AT_ONCE
            && let Some(due) = waiting.next()
        {
            match due.share.kind() {
                Kind::Rate => reports.push(ShareReport::of(&due.name, &due.report)),
                Kind::Budget => reading.push(async {
                    let spent = spent(shared, &due).await;
                    (due, spent)
                }),
            }
        }
        let Some((mut due, spent)) = reading.next().await else { return reports };
        if let Some(spent) = spent {
            desk.spent(&mut due, spent);
            reports.push(ShareReport::of(&due.name, &due.report));
        }
    }
}

async fn spent(shared: &Shared, due: &Due) -> Option<u64> {
    let alone = due.share.alone();
    let snapshot = shared.quotas.gate().snapshot(&alone, alone.select_all()).await.ok()?;
    let one = snapshot.limits.first()?;
    // Read in another period than the report is about: it is over.
    let same = due.name.period.is_some_and(|period| period.contains(snapshot.at));
    (same && matches!(one.bucket.meter(), Meter::Budget(_))).then_some(one.used)
}

fn take(desk: &mut Desk, shares: &Shares, assign: Assign, wall: u64) {
    let now = monotonic();
    // Also an empty answer says that home is there.
    shares.home().heard(now);
    if !assign.unknown.is_empty() {
        tracing::debug!(count = assign.unknown.len(), "home does not know some shared limits yet, or any more");
    }
    for share in assign.shares {
        desk.take(&share.into(), now, wall);
    }
}

/// How often the desk is asked what is due.
const TICK: Duration = Duration::from_millis(250);
/// Microseconds after which a message goes out though there is nothing to report: it says whether home is there.
const HEARTBEAT: u64 = 3_000_000;
/// Counters that are read at once.
const READ_AT_ONCE: usize = 32;
const MOST_ANSWERS: usize = 64;
